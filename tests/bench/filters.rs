//! What filters cost: CPU time of one exchange through chains of 1, 4 and 16 header filters (two callbacks and five host calls
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
use setting::{Run, Stage, answered, request, response, taken};
use std::{collections::BTreeMap, hint::black_box, io::Write, path::PathBuf, sync::Arc, time::Instant};
use tidegate_gateway::{filter::Outcome, http::body::Body};

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exchanges per measurement, long enough that the clock does not count.
const BATCH: u32 = 2_000;
/// Measurements, of which the least disturbed one counts.
const BATCHES: u32 = 50;
/// A service whose one method takes and gives a text.
const PROTO: &str = "syntax = \"proto3\"; package bench.v1; message Said { string text = 1; int64 number = 2; }
    service Speech { rpc Say(Said) returns (Said); }";

fn main() {
    let mut out = std::io::stdout().lock();
    // Taken apart and put together as around a chain.
    let bare = cheapest(|| {
        let (mut asked, mut answer) = (request(&[]), response());
        asked = Request::from_parts(taken(&mut asked), Body::empty()).into_parts().0;
        answer = Response::from_parts(answered(&mut answer), Body::empty()).into_parts().0;
        black_box((asked, answer));
    });
    writeln!(out, "building both heads: {bare:.2} µs, taken off below").unwrap();
    for (name, plugin, config) in [("header filter", "stamp", Value::Null), ("audit", "audit", audit())] {
        for count in [1, 4, 16] {
            let link = json!({"plugin": plugin, "config": config});
            let stage = Stage::new((0..count).map(|_| link.clone()).collect());
            let spent = cheapest(|| stage.exchange_measured()) - bare;
            writeln!(out, "{name} × {count:2}: {spent:6.2} µs an exchange, {:5.2} µs a filter", spent / f64::from(count))
                .unwrap();
        }
    }
    let module = BTreeMap::from([("headers".parse().unwrap(), setting::module(on_proxy_wasm("headers")))]);
    for count in [1, 4, 16] {
        let links: Vec<_> = (0..count).map(|_| json!({"plugin": "headers"})).collect();
        let mut stage = Stage::new(json!([]));
        stage.publish_modules(&[("api", links.into())], &module);
        let spent = cheapest(|| stage.exchange_measured()) - bare;
        writeln!(out, "Proxy-Wasm × {count:2}: {spent:6.2} µs an exchange, {:5.2} µs a filter", spent / f64::from(count))
            .unwrap();
    }
    let call = UnaryCall::new();
    let bare = cheapest(|| {
        black_box((call.asked(), call.answer()));
    });
    let spent = cheapest(|| call.run()) - bare;
    writeln!(out, "json-grpc: {spent:6.2} µs a unary call of 1 KiB each way").unwrap();
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
        let facts = self.facts("api");
        let mut run = Run(self.instances.begin(&self.chains, facts).unwrap().unwrap());
        let requested = run.on_request(&mut request(&[])).is_ok();
        let responded = run.on_response(&mut response()).is_ok();
        let facts = black_box(run.close());
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
        let run = self.stage.begin().unwrap();
        let (head, body) = self.asked().into_parts();
        let Outcome::Continue(sent) = at_once(run.0.request(head, body)).unwrap() else { panic!("it is converted") };
        assert_eq!(at_once(sent.into_body().collect()).unwrap().to_bytes(), self.frame);
        let (head, body) = self.answer().into_parts();
        let Outcome::Continue(got) = at_once(run.0.response(head, body)).unwrap() else { panic!("it is converted") };
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

/// Microseconds of the cheapest batch, per call.
fn cheapest(mut exchange: impl FnMut()) -> f64 {
    let batch = |exchange: &mut dyn FnMut()| {
        let begun = Instant::now();
        for _ in 0..BATCH {
            exchange();
        }
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH)
    };
    (0..BATCHES).map(|_| batch(&mut exchange)).fold(f64::INFINITY, f64::min)
}
