//! What filters cost: CPU time of one exchange through chains of 1, 2, 4 and 16 header filters (two callbacks and five host calls
//! each, besides the close), over an exchange without filters; the same with a Proxy-Wasm module that reads and adds a header in
//! each direction; and of a unary call of 1 KiB through json-grpc. Prints microseconds. Load from elsewhere is in them: run it on
//! a machine that does nothing else.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends the program")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../gateway/tests/filter/setting.rs"]
mod setting;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use setting::{Run, Stage, request, response};
use std::{collections::BTreeMap, hint::black_box, io::Write, path::PathBuf, sync::Arc, time::Instant};
use tidegate_gateway::{
    filter::{Asked, Facts},
    http::body::Body,
};

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Lengths of the chains.
const CHAINS: [u32; 4] = [1, 2, 4, 16];
/// Exchanges per measurement, long enough that the clock does not count.
const BATCH: u32 = 1_000;
/// Measurements of each case, in turn with the others, of which the least disturbed one counts.
const ROUNDS: u32 = 60;
/// A service whose one method takes and gives a text.
const PROTO: &str = "syntax = \"proto3\"; package bench.v1; message Said { string text = 1; int64 number = 2; }
    service Speech { rpc Say(Said) returns (Said); }";

fn main() {
    let call = UnaryCall::new();
    let module = BTreeMap::from([("headers".parse().unwrap(), setting::module(on_proxy_wasm("headers")))]);
    let mut cases = vec![
        Case::new("heads", 1, bare_heads),
        Case::new("heads of json-grpc", 1, || {
            black_box((call.asked(), call.answer()));
        }),
        Case::new("json-grpc", 1, || call.run()),
    ];
    for count in CHAINS {
        for (name, plugin, config) in [("header filter", "stamp", Value::Null), ("audit", "audit", audit())] {
            let link = json!({"plugin": plugin, "config": config});
            let stage = Stage::new((0..count).map(|_| link.clone()).collect());
            cases.push(Case::new(name, count, move || stage.exchange_measured()));
        }
        let links: Vec<_> = (0..count).map(|_| json!({"plugin": "headers"})).collect();
        let mut stage = Stage::new(json!([]));
        stage.publish_modules(&[("api", links.into())], &module);
        cases.push(Case::new("Proxy-Wasm", count, move || stage.exchange_measured()));
    }
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::measure);
    }
    print(&cases);
}

/// One kind of exchange, and what its cheapest batch cost.
struct Case<'a> {
    name: &'static str,
    count: u32,
    exchange: Box<dyn FnMut() + 'a>,
    /// Microseconds an exchange.
    cost: f64,
}

impl<'a> Case<'a> {
    fn new(name: &'static str, count: u32, exchange: impl FnMut() + 'a) -> Self {
        Self { name, count, exchange: Box::new(exchange), cost: f64::INFINITY }
    }

    fn measure(&mut self) {
        let begun = Instant::now();
        for _ in 0..BATCH {
            (self.exchange)();
        }
        self.cost = self.cost.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH));
    }
}

/// Prints what each case costs on top of making its heads.
fn print(cases: &[Case<'_>]) {
    let [heads, heads_of_call, call, chains @ ..] = cases else { unreachable!("main has them") };
    let mut out = std::io::stdout().lock();
    writeln!(out, "making both heads: {:.2} µs, taken off below", heads.cost).unwrap();
    let mut chains: Vec<_> = chains.iter().collect();
    chains.sort_by_key(|case| case.name);
    for Case { name, count, cost, .. } in chains {
        let spent = cost - heads.cost;
        writeln!(out, "{name} × {count:2}: {spent:6.2} µs an exchange, {:5.2} µs a filter", spent / f64::from(*count)).unwrap();
    }
    writeln!(out, "{}: {:6.2} µs a unary call of 1 KiB each way", call.name, call.cost - heads_of_call.cost).unwrap();
}

/// Heads made, and put together with their bodies as they come out of a chain. When the response's came is noted in every exchange,
/// for its record.
fn bare_heads() {
    black_box(Request::from_parts(black_box(request(&[])), Body::empty()));
    black_box(Instant::now());
    black_box(Response::from_parts(black_box(response()), Body::empty()));
}

/// The bytes of a filter on the Proxy-Wasm SDK, which `make filters` builds.
fn on_proxy_wasm(name: &str) -> Arc<[u8]> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let path = target.join("wasm32-wasip1/filter").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; build it first: make filters", path.display())).into()
}

fn audit() -> Value {
    json!({"request_headers": ["x-tenant", "user-agent"], "response_headers": ["x-request-id"]})
}

impl Stage {
    fn exchange_measured(&self) {
        let run = self.instances.begin(&self.chains, self.facts("api")).unwrap().unwrap();
        let (mut asked, mut answer) =
            (Request::from_parts(request(&[]), Body::empty()), Response::from_parts(response(), Body::empty()));
        let requested = black_box(at_once(run.request(&mut asked))).is_ok();
        let came = Instant::now();
        let responded = black_box(at_once(run.response(&mut answer, came))).is_ok();
        let facts = black_box(Run(run).close());
        assert!(requested && responded, "{facts:?}");
    }
}

/// A call of 1 KiB, answered by as much.
struct UnaryCall {
    stage: Stage,
    json: Bytes,
    frame: Bytes,
}

impl UnaryCall {
    fn new() -> Self {
        let config = json!({"descriptors": STANDARD.encode(descriptors())});
        let link = json!([{"plugin": "json-grpc", "config": config, "grants": {"paths": ["/bench.v1.Speech/*"]}}]);
        let text: String = "the tide is out ".repeat(63);
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(text.len()).unwrap() + 5);
        // Field 1, its length in two bytes, and field 2.
        frame.put_slice(&[0x0a, (text.len() & 0x7f) as u8 | 0x80, (text.len() >> 7) as u8]);
        frame.put_slice(text.as_bytes());
        frame.put_slice(&[0x10, 7]);
        // As JSON's own order would have it the number came first, and the frame would be another.
        let said = format!(r#"{{"text":"{text}","number":"7"}}"#);
        Self { stage: Stage::new(link), json: said.into(), frame: frame.freeze() }
    }

    fn asked(&self) -> Request<Body> {
        let asked = Request::post("http://api.example.com/bench.v1.Speech/Say").header("content-type", "application/json");
        asked.body(Body::full(self.json.clone())).unwrap()
    }

    fn answer(&self) -> Response<Body> {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let answer = Response::builder().header("content-type", "application/grpc");
        answer.body(Body::whole(self.frame.clone(), trailers)).unwrap()
    }

    fn run(&self) {
        let mut sent = self.asked();
        let facts = Facts { asked: Some(Asked::of(&sent)), ..self.stage.facts("api") };
        let run = Run(self.stage.instances.begin(&self.stage.chains, facts).unwrap().unwrap());
        assert!(at_once(run.0.request(&mut sent)).unwrap().is_none(), "it is converted");
        assert_eq!(at_once(sent.into_body().collect()).unwrap().to_bytes(), self.frame);
        let mut got = self.answer();
        assert!(at_once(run.0.response(&mut got, Instant::now())).unwrap().is_none(), "it is converted");
        assert_eq!(at_once(got.into_body().collect()).unwrap().to_bytes().len(), self.json.len());
        black_box(run.close());
    }
}

/// The descriptor set of the service.
fn descriptors() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("speech.proto"), PROTO).unwrap();
    let mut compiler = protox::Compiler::new([directory.path()]).unwrap();
    compiler.include_imports(true).open_file("speech.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing that waits")
}
