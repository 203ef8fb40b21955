//! What authors of filters do: begin a project, build it, look at it, try it, upload it, and put it on a route.

use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    gateway, plugins,
};

/// This repository.
fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// What a command of the gateway's printed; it must succeed.
fn tidegate(arguments: &[&str]) -> String {
    let (status, out, err) = gateway::run(arguments);
    assert!(status.success(), "{arguments:?} ended with {status}:\n{out}\n{err}");
    out
}

/// What such a command complains of; it must fail with this status.
fn refused(arguments: &[&str], code: i32) -> String {
    let (status, out, err) = gateway::run(arguments);
    assert_eq!(status.code(), Some(code), "{arguments:?}:\n{out}\n{err}");
    err
}

/// Runs cargo on an author's project, without a network: what it depends on is here, since the repository does, too.
fn cargo(project: &Path, arguments: &[&str]) {
    let target = gateway::build_directory().parent().expect("a profile's folder lies in the target folder").join("authors");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(project)
        .args(arguments)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("cargo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "cargo {arguments:?}:\n{}\n{}", text(&output.stdout), text(&output.stderr));
}

/// A file of a test's own.
fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("a temporary file can be written");
    path.to_string_lossy().into_owned()
}

/// A built filter as a file.
fn module(folder: &TempDir, name: &str) -> String {
    file(folder, &format!("{name}.wasm"), plugins::module(name))
}

/// The report of a trial that goes well.
fn tried(arguments: &[&str]) -> Value {
    let all = [&["filter", "test", "--json"], arguments].concat();
    serde_json::from_str(&tidegate(&all)).expect("a report in JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_becomes_a_filter_on_a_route() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (within, sdk) = (folder.path().to_string_lossy(), checkout().to_string_lossy());
    let new = ["filter", "new", "team-header", "--lang", "rust", "--in", &within, "--sdk", &sdk];
    assert!(tidegate(&new).contains("cargo module"));
    assert!(refused(&new, 1).contains("nothing is overwritten"));
    let project = folder.path().join("team-header");
    std::fs::copy(checkout().join("Cargo.lock"), project.join("Cargo.lock")).expect("the versions that are here");
    cargo(&project, &["test", "--quiet"]);
    cargo(&project, &["module", "--quiet"]);
    let target = gateway::build_directory();
    let module: PathBuf = target.with_file_name("authors").join("wasm32-unknown-unknown/release/team_header.wasm");
    let (bytes, name) = (std::fs::read(&module).expect("cargo made it"), b"tidegate_free_lists");
    assert!(bytes.windows(name.len()).any(|part| part == name), "the gateway would ask it for every block");
    let module = module.to_string_lossy();

    let told: Value = serde_json::from_str(&tidegate(&["filter", "inspect", &module, "--json"])).expect("JSON");
    assert_eq!((&told["world"], &told["can_use"]), (&json!("tidegate:filter/filter@0.1.0"), &json!([])), "{told}");
    let request = |name: &str| project.join("requests").join(name).to_string_lossy().into_owned();
    let config = format!("@{}", project.join("config.json").to_string_lossy());
    let report = tried(&[&module, "--config", &config, "--request", &request("allowed.json")]);
    assert!(report["upstream"]["headers"].to_string().contains(r#"["x-checked-by","team-header"]"#), "{report}");
    assert_eq!(report["filter"]["events"][0]["outcome"], "allowed", "{report}");
    let report = tried(&[&module, "--config", &config, "--request", &request("refused.json")]);
    assert_eq!((&report["upstream"], &report["answered_by"]), (&Value::Null, &json!("filter")), "{report}");
    let text =
        refused(&["filter", "test", &module, "--config", r#"{"header": "a b"}"#, "--request", &request("refused.json")], 1);
    assert!(text.contains("refuses its configuration: /header: "), "{text}");

    let world = World::start().await;
    let url = format!("http://{}", world.gateway.addresses.admin);
    let token = file(&folder, "token", world.rest.token());
    let push = ["filter", "push", &module, "--name", "team-header", "--url", &url, "--token-file", &token];
    assert!(tidegate(&push).contains("no route runs it yet"));
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    let filter = json!({"plugin": "team-header", "config": {"header": "x-team", "values": ["checkout"]}});
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [filter]})).await;
    world.in_force().await;
    assert!(tidegate(&push).contains("run by the routes api"));
    let reply = world.get("http://api.example.com/without").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    let reply = world.pod().await.get("http://api.example.com/with", "api.example.com", "x-team: checkout\r\n").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(api.saw("/with").headers["x-checked-by"], "team-header");
    assert_eq!(api.seen().len(), 1, "the other request did not get there");
}

#[tokio::test]
async fn a_trial_shows_what_a_filter_chooses_and_calls() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let request = file(
        &folder,
        "request.json",
        json!({
            "method": "POST", "url": "http://api.example.com/v1", "headers": {"authorization": "Bearer mine"},
            "body": ["one", "two"], "trailers": {"x-end": "yes"}, "caller": {"namespace": "shop"},
            "calls": [{"url": "http://tokens.example/", "body": "t-1"}],
        })
        .to_string(),
    );
    let config = json!({"entries": [{"when": {"namespaces": ["shop"]}, "credential": "key"}]}).to_string();
    let credential = module(&folder, "credential");
    let grants = r#"{"credentials": ["key"]}"#;
    let report = tried(&[&credential, "--request", &request, "--config", &config, "--grants", grants]);
    let secrets = json!([{"header": "authorization", "prefix": "Bearer ", "credential": "key"}]);
    assert_eq!(report["chosen"]["secrets"], secrets, "{report}");
    assert!(!report["upstream"]["headers"].to_string().contains("mine"), "{report}");
    assert_eq!(report["upstream"]["body"], json!(["one", "two"]), "{report}");
    assert_eq!(report["upstream"]["trailers"], json!([["x-end", "yes"]]), "{report}");
    assert!(report["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{report}");
    let report = tried(&[&credential, "--request", &request, "--config", &config]);
    assert_eq!((&report["answered_by"], &report["upstream"]), (&json!("filter"), &Value::Null), "not granted: {report}");

    let errands = json!([{"url": "http://tokens.example/new"}, {"url": "http://elsewhere.example/"}]);
    let config = json!({"at": "request", "calls": errands}).to_string();
    let report = tried(&[&module(&folder, "courier"), "--request", &request, "--config", &config]);
    let calls = json!([
        {"line": "GET http://tokens.example/new", "status": 200},
        {"line": "GET http://elsewhere.example/", "status": null},
    ]);
    assert_eq!(report["calls"], calls, "{report}");
}

#[tokio::test]
async fn a_trial_says_what_a_gateway_would_of_the_connection() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let witness = module(&folder, "witness");
    let config = json!({"log": [{"attribute": "tls.version"}, {"attribute": "tls.peer"}]}).to_string();
    let request = file(&folder, "request.json", r#"{"url": "https://api.example.com/"}"#);
    let report = tried(&[&witness, "--request", &request, "--config", &config]);
    let told = report["filter"]["events"][0]["fields"]["seen"].as_str().unwrap_or_default();
    assert!(told.contains("tls.version: TLSv1.3") && told.contains("tls.peer: api.example.com"), "{told}");
}

#[tokio::test]
async fn a_trial_of_a_filter_that_fails_fails() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let request = file(&folder, "request.json", r#"{"url": "https://api.example.com/"}"#);
    let hostile = module(&folder, "hostile");
    for (mode, on_error, part) in
        [("trap", "deny", "it trapped"), ("loop", "deny", "filter_callback_timeout"), ("trap", "skip", "it trapped")]
    {
        let config = json!({"at": "request", "mode": mode}).to_string();
        let arguments = ["filter", "test", &hostile, "--request", &request, "--config", &config, "--on-error", on_error];
        let text = refused(&arguments, 1);
        assert!(text.contains("the filter failed") && text.contains(part), "{mode}: {text}");
    }
    let wrong = file(&folder, "wrong.json", r#"{"url": "https://api.example.com/", "headers": {"a b": "c"}}"#);
    let text = refused(&["filter", "test", &hostile, "--request", &wrong], 1);
    assert!(text.contains("/headers/a b"), "{text}");
}

#[tokio::test]
async fn what_a_gateway_refuses_is_told_with_every_reason() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let nothing = file(&folder, "nothing.wasm", b"\0asm\x01\0\0\0");
    assert!(refused(&["filter", "inspect", &nothing], 1).contains("component-type"));
    let courier = tidegate(&["filter", "inspect", &module(&folder, "courier")]);
    assert!(courier.contains("filter-with-outbound") && courier.contains("filter/<plugin>"), "{courier}");

    let world = World::start().await;
    let url = format!("http://{}", world.gateway.addresses.admin);
    let push =
        |token: &str| refused(&["filter", "push", &nothing, "--name", "nothing", "--url", &url, "--token-file", token], 1);
    let text = push(&file(&folder, "token", world.rest.token()));
    assert!(text.contains("422") && text.contains("component-type"), "{text}");
    let text = push(&file(&folder, "other", "wrong"));
    assert!(text.contains("401"), "{text}");
    assert_eq!(world.rest.get("/v1/plugins/nothing").await.status, 404);
}
