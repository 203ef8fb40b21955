//! Modules that are made to hurt whoever compiles them. Each is compiled in a process of its own, so it is refused, and the
//! gateway and its exchanges do not notice.

use std::time::{Duration, Instant};
use tidegate_tests::{
    Options, World,
    api::{Api, Speaks},
    gateway::run,
    plugins,
};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const CORE: &[u8] = b"\0asm\x01\0\0\0";

/// A number as WebAssembly writes it (LEB128).
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        bytes.push(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], number(content.len()).as_slice(), content].concat()
}

/// A component with a type inside of a type, and so on.
fn types_in_types(levels: usize) -> Vec<u8> {
    let content = [&[1], b"\x41\x01\x01".repeat(levels).as_slice(), b"\x41\x00"].concat();
    [COMPONENT, &section(7, &content)].concat()
}

/// A core module that says with such types how it is to be made a component.
fn core_with_such_types(levels: usize) -> Vec<u8> {
    let name = b"component-type:x";
    let content = [number(name.len()).as_slice(), name, &types_in_types(levels)].concat();
    [CORE, &section(0, &content)].concat()
}

/// A component inside of a component, and so on.
fn components_in_components(levels: usize) -> Vec<u8> {
    (0..levels).fold(COMPONENT.to_vec(), |inner, _| [COMPONENT, &section(4, &inner)].concat())
}

/// A component whose one function is blocks in blocks: little to read, and for ever to compile.
fn blocks_in_blocks(levels: usize) -> Vec<u8> {
    let code = [&[0], b"\x02\x40".repeat(levels).as_slice(), &b"\x0b".repeat(levels), b"\x0b"].concat();
    let body = [&[1], number(code.len()).as_slice(), &code].concat();
    let module = [CORE, b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0", &section(10, &body)].concat();
    [COMPONENT, &section(1, &module)].concat()
}

/// A gateway that serves exchanges, and gives up on compiling early.
async fn setting() -> (World, Api) {
    let world = World::start_with(Options::default().flag("--filter-compile-timeout", "3s")).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    (world, api)
}

async fn still_serves(world: &World) {
    let reply = world.pod().await.get("http://api.example.com/after", "api.example.com", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn modules_that_are_nested_deeply_are_refused_and_nothing_falls_over() {
    let (world, _api) = setting().await;
    for (what, module) in [
        ("types", types_in_types(100_000)),
        ("types of a core module", core_with_such_types(100_000)),
        ("components", components_in_components(2_000)),
    ] {
        let reply = world.rest.upload("deep", module).await;
        assert_eq!(reply.status, 422, "{what}: {}", reply.text());
        still_serves(&world).await;
    }
    assert_eq!(world.rest.get("/v1/plugins/deep").await.status, 404, "nothing of them is kept");
}

#[test]
fn authors_are_told_as_well() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("deep.wasm"), types_in_types(100_000)).expect("a temporary file can be written");
    std::fs::write(path("request.json"), r#"{"url": "https://api.example.com/"}"#).expect("a temporary file can be written");
    let (module, request) = (path("deep.wasm"), path("request.json"));
    for command in [vec!["filter", "inspect", &module], vec!["filter", "test", &module, "--request", &request]] {
        let (status, _, said) = run(&command);
        assert_eq!(status.code(), Some(1), "{command:?}: {status}: {said}");
        assert!(said.contains("would be refused"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn a_module_that_takes_for_ever_is_given_up_and_its_compiler_is_free_again() {
    let (world, _api) = setting().await;
    // More than there are compilers.
    for attempt in 0..3 {
        let began = Instant::now();
        let reply = world.rest.upload("slow", blocks_in_blocks(400_000)).await;
        assert_eq!(reply.status, 422, "{attempt}: {}", reply.text());
        assert!(reply.text().contains("filter_compile_timeout"), "{attempt}: {}", reply.text());
        assert!(began.elapsed() < Duration::from_secs(60), "{attempt}");
        still_serves(&world).await;
    }
    let reply = world.rest.upload("stamp", plugins::module("stamp")).await;
    // On a busy machine three seconds may be too few for an honest module, too; a compiler is there for it.
    assert!(matches!(reply.status, 200 | 201) || reply.text().contains("filter_compile_timeout"), "{}", reply.text());
}

#[tokio::test]
async fn what_compiling_may_take_is_bounded_by_a_setting() {
    let options = Options::default().flag("--filter-compile-memory-bytes", 300 << 20).flag("--filter-compile-timeout", "1m");
    let world = World::start_with(options).await;
    let reply = world.rest.upload("large", components_in_components(10_000)).await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("filter_compile_memory_bytes"), "{}", reply.text());
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    still_serves(&world).await;
}
