//! What a filter does for the largest documents that it takes, in steps of its module: counted, so that no clock and no other load
//! has a say in whether it is fast enough.

use crate::setting::filter;
use serde_json::{Value, json};
use wasmtime::{Caller, Config, Engine, Extern, Linker, Memory, Module, Result, Store, TypedFunc};

/// Steps that a document may take: somewhat more than the worst of these, which is one of many names that differ in their last
/// letters. Six or so are done in a nanosecond, and a callback has a tenth of a second.
const MOST: u64 = 700_000_000;

/// What the filter is told, and what it made of it.
#[derive(Default)]
struct Told {
    config: String,
    path: &'static str,
    body: Vec<u8>,
    /// The status that the response has by now; none where the filter answers in its place.
    status: Option<u32>,
}

type Call<'a> = Caller<'a, Told>;

fn memory(call: &mut Call<'_>) -> Memory {
    call.get_export("memory").and_then(Extern::into_memory).unwrap()
}

fn text(call: &mut Call<'_>, (at, length): (u32, u32)) -> Vec<u8> {
    memory(call).data(&*call)[at as usize..][..length as usize].to_vec()
}

/// Hands bytes over, and writes where they are, behind what says that they are there.
fn give(call: &mut Call<'_>, bytes: &[u8], to: u32, before: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len())?;
    let realloc = call.get_export("cabi_realloc").and_then(Extern::into_func).unwrap();
    let at = realloc.typed::<(u32, u32, u32, u32), u32>(&*call)?.call(&mut *call, (0, 0, 1, length))?;
    let memory = memory(call);
    memory.write(&mut *call, at as usize, bytes)?;
    let told = [before, &at.to_le_bytes(), &length.to_le_bytes()].concat();
    Ok(memory.write(&mut *call, to as usize, &told)?)
}

/// Says that something was done, or is not there: a zero.
fn nothing(call: &mut Call<'_>, to: u32) -> Result<()> {
    let memory = memory(call);
    Ok(memory.write(&mut *call, to as usize, &[0, 0])?)
}

/// The functions that the soap-json filter calls, as far as it goes by them.
fn linker(engine: &Engine) -> Result<Linker<Told>> {
    let mut linker = Linker::new(engine);
    let [types, telemetry, message] = ["types", "telemetry", "message"].map(|name| format!("tidegate:filter/{name}@0.1.0"));
    for (module, name) in [(&types, "headers"), (&types, "body"), (&telemetry, "counter")] {
        linker.func_wrap(module, &format!("[resource-drop]{name}"), |_: u32| {})?;
    }
    linker.func_wrap(&telemetry, "log", |_: u32, _: u32, _: u32| {})?;
    linker.func_wrap(&telemetry, "[constructor]counter", |_: u32, _: u32| 3_u32)?;
    linker.func_wrap(&telemetry, "[method]counter.add", |_: u32, _: u64| {})?;
    linker.func_wrap("tidegate:filter/host@0.1.0", "config", |mut call: Call<'_>, to: u32| {
        let config = call.data().config.clone();
        give(&mut call, config.as_bytes(), to, &[])
    })?;
    linker.func_wrap("tidegate:filter/attributes@0.1.0", "get", |mut call: Call<'_>, name: u32, length: u32, to: u32| {
        let value = match &text(&mut call, (name, length))[..] {
            b"request.method" => "GET",
            b"request.path" => call.data().path,
            _ => return nothing(&mut call, to),
        };
        let text = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        give(&mut call, value.as_bytes(), to, &text)
    })?;
    linker.func_wrap(
        &types,
        "[method]headers.get",
        |mut call: Call<'_>, _: u32, name: u32, length: u32, to: u32| match &text(&mut call, (name, length))[..] {
            b"content-type" => give(&mut call, b"text/xml; charset=utf-8", to, &[1, 0, 0, 0]),
            _ => nothing(&mut call, to),
        },
    )?;
    linker.func_wrap(&types, "[method]headers.apply", |mut call: Call<'_>, _: u32, _: u32, _: u32, to: u32| {
        nothing(&mut call, to)
    })?;
    linker.func_wrap(&types, "[method]body.len", |call: Call<'_>, _: u32| call.data().body.len() as u64)?;
    linker.func_wrap(&types, "[method]body.take", |mut call: Call<'_>, _: u32, to: u32| {
        let body = std::mem::take(&mut call.data_mut().body);
        give(&mut call, &body, to, &[])
    })?;
    let splice = |mut call: Call<'_>, _: u32, _: u64, _: u64, data: u32, length: u32, to: u32| {
        call.data_mut().body = text(&mut call, (data, length));
        nothing(&mut call, to)
    };
    linker.func_wrap(&types, "[method]body.splice", splice)?;
    let rewrite = |mut call: Call<'_>, _: u32, _: u32, _: u32, _: u32, to: u32| nothing(&mut call, to);
    linker.func_wrap(&message, "rewrite", rewrite)?;
    linker.func_wrap(&message, "set-status", |mut call: Call<'_>, status: u32, to: u32| {
        call.data_mut().status = Some(status);
        nothing(&mut call, to)
    })?;
    let answer = |mut call: Call<'_>, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
        call.data_mut().status = None;
    };
    linker.func_wrap(&message, "answer", answer)?;
    Ok(linker)
}

/// The filter, compiled so that its steps are counted.
struct Counted {
    engine: Engine,
    linker: Linker<Told>,
    module: Module,
}

type Piece = (u32, u32, u32, u32, u32);

impl Counted {
    fn new() -> Self {
        let engine = Engine::new(Config::new().consume_fuel(true)).unwrap();
        let module = Module::new(&engine, filter("soap_json")).unwrap();
        Self { linker: linker(&engine).unwrap(), engine, module }
    }

    /// The steps for an answer with this content, which becomes JSON.
    fn steps(&self, content: &str) -> u64 {
        let told = Told { config: config().to_string(), path: "/orders/7", status: Some(200), ..Told::default() };
        let mut store = Store::new(&self.engine, told);
        store.set_fuel(u64::MAX).unwrap();
        let instance = self.linker.instantiate(&mut store, &self.module).unwrap();
        let name = |callback: &str| format!("tidegate:filter/handler@0.1.0#{callback}");
        let configure: TypedFunc<(), u32> = instance.get_typed_func(&mut store, &name("configure")).unwrap();
        configure.call(&mut store, ()).unwrap();
        let open: TypedFunc<(u32, u64, u32, u32), u32> = instance.get_typed_func(&mut store, &name("open")).unwrap();
        assert_eq!(open.call(&mut store, (0, 1, 0, 1)).unwrap(), BUFFER);
        let body: TypedFunc<Piece, u32> = instance.get_typed_func(&mut store, &name("on-request-body")).unwrap();
        assert_eq!(body.call(&mut store, (0, 1, 0, 2, 1)).unwrap(), FORWARD);
        let head: TypedFunc<(u32, u32, u32, u32), u32> =
            instance.get_typed_func(&mut store, &name("on-response-headers")).unwrap();
        assert_eq!(head.call(&mut store, (0, 200, 0, 0)).unwrap(), BUFFER);
        store.data_mut().body = envelope(content).into_bytes();
        let body: TypedFunc<Piece, u32> = instance.get_typed_func(&mut store, &name("on-response-body")).unwrap();
        let before = store.get_fuel().unwrap();
        assert_eq!(body.call(&mut store, (0, 1, 0, 2, 1)).unwrap(), FORWARD);
        let steps = before - store.get_fuel().unwrap();
        let Told { status, body, .. } = store.data();
        assert_eq!(*status, Some(200), "{}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        steps
    }
}

const BUFFER: u32 = 5;
const FORWARD: u32 = 0;

fn config() -> Value {
    json!({
        "version": "1.1", "path": "/services/orders", "namespace": "urn:orders",
        "operations": [{
            "method": "GET", "path": "/orders/{id}", "element": "GetOrder", "action": "urn:orders#GetOrder",
            "response": "GetOrderResponse",
            "arrays": ["order/line"], "numbers": ["order/line/price"],
        }],
    })
}

fn envelope(content: &str) -> String {
    format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>\
        <GetOrderResponse xmlns='urn:orders'>{content}</GetOrderResponse></e:Body></e:Envelope>"
    )
}

/// Documents that are as large as the filter's limits let them be, each in another way, or this part of that.
fn documents(part: usize) -> [(&'static str, String); 8] {
    let many = |element: &dyn Fn(usize) -> String, count: usize| (0..count / part).map(element).collect::<String>();
    let scope: String = (0..28).map(|n| format!(" xmlns:p{n}='u{n}'")).collect();
    let attributes: String = (0..31).map(|n| format!("a{n}='' ")).collect();
    [
        ("references", many(&|_| "&amp;".to_owned(), 100_000)),
        ("comments", many(&|_| "<!---->".to_owned(), 70_000)),
        ("other names", many(&|n| format!("<n{n:030}/>"), 9900)),
        ("other namespaces", many(&|n| format!("<n{n} xmlns='urn:a-namespace-of-its-own:{n}'/>"), 4900)),
        ("namespaces in scope", format!("<a{scope}>{}</a>", many(&|_| "<p0:n p0:a=''/>".to_owned(), 4900))),
        ("attributes", many(&|_| format!("<n {attributes}/>"), 300)),
        ("text", many(&|_| "x".to_owned(), 520_000)),
        ("depth", format!("{}{}{}", "<a>".repeat(31), many(&|_| "x".to_owned(), 500_000), "</a>".repeat(31))),
    ]
}

#[test]
fn no_document_within_the_limits_of_soap_takes_too_many_steps() {
    let filter = Counted::new();
    for ((what, whole), (_, half)) in documents(1).into_iter().zip(documents(2)) {
        let (steps, of_half) = (filter.steps(&whole), filter.steps(&half));
        assert!(steps < MOST, "{what}: {steps} steps");
        // Twice as much takes twice as long, and a little more where tables grow.
        assert!(steps < of_half * 5 / 2, "{what}: {of_half} steps for a half, {steps} for the whole");
    }
}
