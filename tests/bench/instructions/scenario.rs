//! What is counted.

use crate::{
    exchange,
    setting::{self, Run, Stage, answered, request, response, taken},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, hint::black_box, path::PathBuf, sync::Arc, time::SystemTime};
use tidegate_gateway::{filter::Limits, http::body::Body};
use tidegate_policy::{
    Identity, Name, Request, Rows, Snapshot, Target,
    identity::{Caller, Proof},
    target::Form,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// A decision among ten thousand services and rules.
    Decide,
    /// The heads of an exchange, without filters; in every filter's count, too.
    Heads,
    /// With a filter that does nothing.
    Noop,
    /// With one of two callbacks and five host calls.
    Stamp,
    /// With a Proxy-Wasm one that reads and adds a header in each direction.
    ProxyWasm,
    /// A whole exchange of the data plane, the client's and the API's few instructions with it.
    Exchange,
}

impl Scenario {
    pub(crate) const ALL: [Self; 6] = [Self::Decide, Self::Heads, Self::Noop, Self::Stamp, Self::ProxyWasm, Self::Exchange];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Heads => "heads",
            Self::Noop => "noop",
            Self::Stamp => "stamp",
            Self::ProxyWasm => "proxy-wasm",
            Self::Exchange => "exchange",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Whether its turns are a function of this thread, so that nothing else need be counted.
    pub(crate) fn is_one_function(self) -> bool {
        self != Self::Exchange
    }

    /// Runs it so many times.
    pub(crate) fn run(self, times: u32) {
        match self {
            Self::Decide => decide(times),
            Self::Heads => counted(times, &mut heads),
            Self::Noop => exchanges(&of_typed("hostile", &json!({"at": "configure", "mode": "nothing"})), times),
            Self::Stamp => exchanges(&of_typed("stamp", &Value::Null), times),
            Self::ProxyWasm => exchanges(&of_proxy_wasm(), times),
            Self::Exchange => exchange::run(times),
        }
    }
}

/// The function within which callgrind counts.
pub(crate) const COUNTED: &str = "*turns_counted*";

/// Takes so many turns. What the first ones make for the others is not counted.
fn counted(times: u32, turn: &mut dyn FnMut()) {
    for _ in 0..20 {
        turn();
    }
    turns_counted(times, turn);
}

#[inline(never)]
fn turns_counted(times: u32, turn: &mut dyn FnMut()) {
    for _ in 0..times {
        turn();
    }
}

/// Under valgrind everything takes tens of times as long.
fn limits() -> Limits {
    let second = std::time::Duration::from_secs(1);
    Limits { callback: second * 10, configure: second * 100, compile: second * 300, ..Limits::default() }
}

fn of_typed(plugin: &str, config: &Value) -> Stage {
    Stage::with(limits(), json!([{"plugin": plugin, "config": config}]))
}

fn of_proxy_wasm() -> Stage {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let path = target.join("wasm32-wasip1/filter/headers.wasm");
    let bytes =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; build it first: make filters", path.display()));
    let modules = BTreeMap::from([("headers".parse().unwrap(), setting::module(bytes.into()))]);
    let mut stage = Stage::with(limits(), json!([]));
    stage.publish_modules(&[("api", json!([{"plugin": "headers"}]))], &modules);
    stage
}

fn exchanges(stage: &Stage, times: u32) {
    counted(times, &mut || {
        let mut run = Run(stage.instances.begin(&stage.chains, stage.facts("api")).unwrap().unwrap());
        let requested = run.on_request(&mut request(&[])).is_ok();
        let responded = run.on_response(&mut response()).is_ok();
        let facts = black_box(run.close());
        assert!(requested && responded, "{facts:?}");
    });
}

/// What an exchange takes that meets no filter: its heads, taken apart and put together as around a chain.
fn heads() {
    let (mut asked, mut answer) = (request(&[]), response());
    asked = http::Request::from_parts(taken(&mut asked), Body::empty()).into_parts().0;
    answer = http::Response::from_parts(answered(&mut answer), Body::empty()).into_parts().0;
    black_box((asked, answer));
}

fn decide(times: u32) {
    let mut rows = Rows::default();
    for number in 0..10_000 {
        let name: Name = format!("api-{number}").parse().unwrap();
        let service = json!({"hosts": [format!("api-{number}.example.com")], "ports": [{"number": 443, "protocol": "https"}]});
        let rule = json!({"action": "allow", "from": [{"namespaces": ["shop"]}], "to": [{"services": [name]}]});
        rows.services.insert(name.clone(), Arc::new(serde_json::from_value(service).unwrap()));
        rows.rules.insert(name, Arc::new(serde_json::from_value(rule).unwrap()));
    }
    let snapshot = Snapshot::compile(&rows).unwrap();
    let caller = Caller { proof: Proof::Certificate, namespace: Some("shop".into()), ..Caller::default() };
    let identity = Identity { source: [10, 0, 0, 1].into(), caller: Arc::new(caller) };
    let target = Target { form: Form::Plain, host: "api-4711.example.com".parse().unwrap(), port: 443 };
    let headers = http::HeaderMap::new();
    let time = SystemTime::UNIX_EPOCH;
    counted(times, &mut || {
        let asked = Request { target: &target, method: &http::Method::GET, path: "/v1", query: None, headers: &headers, time };
        assert!(black_box(snapshot.decide(&identity, &asked)).is_ok());
    });
}
