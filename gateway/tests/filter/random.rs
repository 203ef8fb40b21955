//! Functions of the typed contract called with whatever bytes say, in every callback, by a core module: nothing that a filter
//! hands over may harm the host. The fuzz target `core_abi` in `gateway/fuzz` has the same entry.

use crate::{
    course::{self, Course, Reached},
    interpreter::{fields, imports},
    script::{Function, KEPT, NO_ERROR, Script},
    setting::{Stage, module},
    whole::{
        Given::{Number, Text},
        Whole, whole,
    },
    written::embedded,
};
use serde_json::json;
use std::{cell::RefCell, collections::BTreeMap};
use tidegate_gateway::filter::Limits;
use tidegate_policy::publication::Module;

const TYPES: &str = "tidegate:filter/types@0.1.0";
const MESSAGE: &str = "tidegate:filter/message@0.1.0";
const UPSTREAM: &str = "tidegate:filter/upstream@0.1.0";
const ATTRIBUTES: &str = "tidegate:filter/attributes@0.1.0";
const AUDIT: &str = "tidegate:filter/audit@0.1.0";
const TELEMETRY: &str = "tidegate:filter/telemetry@0.1.0";
const KV: &str = "tidegate:filter/kv@0.1.0";
const HOST: &str = "tidegate:filter/host@0.1.0";

const fn function(module: &'static str, name: &'static str, parameters: &'static str, result: &'static str) -> Function {
    Function { module, name, parameters, result }
}

/// All of the contract.
pub(crate) const FUNCTIONS: [Function; 43] = [
    function(HOST, "config", "o", ""),
    function(HOST, "now-ns", "", "i64"),
    function(HOST, "monotonic-ns", "", "i64"),
    function(HOST, "random", "no", ""),
    function(TYPES, "[resource-drop]headers", "h", ""),
    function(TYPES, "[method]headers.get", "hto", ""),
    function(TYPES, "[method]headers.get-all", "hto", ""),
    function(TYPES, "[method]headers.get-many", "hso", ""),
    function(TYPES, "[method]headers.entries", "ho", ""),
    function(TYPES, "[method]headers.set", "htto", ""),
    function(TYPES, "[method]headers.apply", "hco", ""),
    function(TYPES, "[resource-drop]body", "h", ""),
    function(TYPES, "[method]body.len", "h", "i64"),
    function(TYPES, "[method]body.read", "hlno", ""),
    function(TYPES, "[method]body.splice", "hllto", ""),
    function(TYPES, "[method]body.take", "ho", ""),
    function(MESSAGE, "answer", "nptnnt", ""),
    function(MESSAGE, "rewrite", "tto", ""),
    function(MESSAGE, "set-status", "no", ""),
    function(UPSTREAM, "select-service", "to", ""),
    function(UPSTREAM, "select-endpoint", "tno", ""),
    function(UPSTREAM, "originate-tls", "ro", ""),
    function(UPSTREAM, "inject-secret", "ttto", ""),
    function(ATTRIBUTES, "get", "to", ""),
    function(ATTRIBUTES, "set", "tnln", "i32"),
    function(AUDIT, "emit", "tnpf", "i32"),
    function(TELEMETRY, "enabled", "n", "i32"),
    function(TELEMETRY, "log", "nt", ""),
    function(TELEMETRY, "[constructor]counter", "t", "i32"),
    function(TELEMETRY, "[constructor]gauge", "t", "i32"),
    function(TELEMETRY, "[constructor]histogram", "t", "i32"),
    function(TELEMETRY, "[resource-drop]counter", "h", ""),
    function(TELEMETRY, "[resource-drop]gauge", "h", ""),
    function(TELEMETRY, "[resource-drop]histogram", "h", ""),
    function(TELEMETRY, "[method]counter.add", "hl", ""),
    function(TELEMETRY, "[method]gauge.set", "hl", ""),
    function(TELEMETRY, "[method]gauge.add", "hl", ""),
    function(TELEMETRY, "[method]histogram.observe", "hl", ""),
    function(KV, "get", "to", ""),
    function(KV, "set", "ttnno", ""),
    function(KV, "compare-and-set", "ttlnno", ""),
    function(KV, "increment", "tlnno", ""),
    function(KV, "remove", "t", ""),
];

/// What functions are given that mean something to some of them.
const TEXTS: [&str; 48] = [
    "",
    "a",
    "b",
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "proxy-authorization",
    "authorization",
    "x-tenant",
    "X-Tenant",
    "x-new",
    "a b",
    "value\r\nx: y",
    "12345678",
    "POST",
    "CONNECT",
    "/v1/x?a=b",
    "/",
    "*",
    "api",
    "other",
    "nobody",
    "203.0.113.10",
    "a.example",
    "Bearer ",
    "key",
    "system",
    "state.a",
    "state.",
    "exchange.id",
    "caller.principal",
    "caller.address",
    "caller.label.x",
    "target.host",
    "target.port",
    "upstream.tls",
    "upstream.address",
    "request.path",
    "request.query",
    "response.status",
    "duration.total-us",
    "fault",
    "verdict",
    "requests_total",
    "1_bad",
    "at",
    "phase",
];

/// What filters may choose for the way out. What comes of it is written to 40.
const WHOLES: [Whole; 4] = [
    whole("inject-secret", &[Text("x-key"), Text("key"), Text("Bearer "), Number(40)]),
    whole("select-service", &[Text("other"), Number(40)]),
    whole("select-endpoint", &[Text("203.0.113.10"), Number(443), Number(40)]),
    whole("rewrite", &[Text("POST"), Text("/v1/x?a=b"), Number(40)]),
];

fn limits() -> Limits {
    Limits { handles: 6, hostcall_bytes: 24 << 10, ..course::limits() }
}

/// A host with a module that does as scripts say.
struct World {
    stage: Stage,
    module: Module,
    /// Counts what was tried, so that nothing that plugins share goes from one to the next.
    tried: u64,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        stage: course::stage(limits()),
        module: module(embedded(&text()).into()),
        tried: 0,
    });
}

/// Makes an exchange in which a filter does what `bytes` say; how far it came. The exchange may fail; the host may not.
pub(crate) fn drive(bytes: &[u8]) -> Reached {
    WORLD.with_borrow_mut(|world| world.drive(bytes))
}

/// How far a filter comes that makes these of its whole calls about a request's head, and traps where the last is refused.
pub(crate) fn make(calls: &[usize]) -> Reached {
    WORLD.with_borrow_mut(|world| {
        let script = Script::of(&[], &FUNCTIONS, &TEXTS, &WHOLES).after(1).making(calls, 40);
        world.exchange(8, Course::default(), &script.letters())
    })
}

impl World {
    fn drive(&mut self, bytes: &[u8]) -> Reached {
        let Some(([how, request, response], bytes)) = bytes.split_first_chunk() else { return Reached::default() };
        // Typed filters are shown no tunnels.
        let course = Course { request: request & 0x7f, response: *response, calls: 0 };
        // What fails in `configure` has no exchange.
        let script = Script::of(bytes, &FUNCTIONS, &TEXTS, &WHOLES).after(if how & 32 != 0 { 0 } else { 1 });
        self.exchange(*how, course, &script.letters())
    }

    fn exchange(&mut self, how: u8, course: Course, script: &str) -> Reached {
        let plugin = format!("typed-{}", self.tried % 2);
        self.tried += 1;
        let filter = json!({
            "plugin": plugin,
            "config": script,
            "on_error": if how & 1 != 0 { "skip" } else { "deny" },
            "isolation": if how & 2 != 0 { "exchange" } else { "shared" },
            "required": how & 4 != 0,
            "grants": course::grants(how & 8 != 0),
        });
        let filters = if how & 16 != 0 { json!([filter, filter]) } else { json!([filter]) };
        let modules = BTreeMap::from([(plugin.parse().unwrap(), self.module.clone())]);
        self.stage.publish_modules(&[("api", filters), ("other", json!([]))], &modules);
        let reached = course.exchange(&mut self.stage);
        // Of an exchange that is over nothing is left, however it ended.
        let metrics = self.stage.host.metrics();
        assert_eq!((metrics.instances.value(), metrics.memory_bytes.value()), (0, 0), "instances and their memory");
        assert_eq!(metrics.held_bytes.value(), 0, "bytes that are held");
        reached
    }
}

/// The module. Its configuration is its script, as JSON.
fn text() -> String {
    let handler = "tidegate:filter/handler@0.1.0#";
    let keep = |head: &str| {
        let kept = [(KEPT, "$x"), (KEPT + 4, "$has"), (KEPT + 8, head)]
            .map(|(at, of)| format!("(i32.store (i32.const {at}) (local.get {of}))"));
        kept.concat()
    };
    let pieces: String = ["request-body", "request-trailers", "response-body", "response-trailers"]
        .map(|callback| {
            format!(
                r#"(func (export "{handler}on-{callback}")
                (param $x i32) (param $has i32) (param $head i32) (param $body i32) (param $last i32) (result i32)
                {} (i32.store (i32.const {}) (local.get $body)) (i32.store (i32.const {}) (local.get $last)) (call $run))"#,
                keep("$head"),
                KEPT + 12,
                KEPT + 16
            )
        })
        .concat();
    format!(
        r#"(module {} {}
        (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32) (call $room (local.get $size)))
        (func (export "{handler}configure") (result i32) (local $answer i32)
            (call $f0 (i32.const 0))
            (call $load
                (i32.add (i32.load (i32.const 0)) (i32.const 1))
                (i32.sub (i32.load (i32.const 4)) (i32.const 2)))
            (local.set $answer (call $run))
            (if (result i32) (local.get $answer) (then (local.get $answer)) (else (i32.const {NO_ERROR}))))
        (func (export "cabi_post_{handler}configure") (param i32)
            (if (i32.eq (global.get $so) (i32.const 4)) (then (drop (call $run)))))
        (func (export "{handler}open") (param $x i32) (param $id i64) (param $head i32) (param $has i32) (result i32)
            {} (call $run))
        (func (export "{handler}on-response-headers")
            (param $x i32) (param $status i32) (param $head i32) (param $has i32) (result i32)
            {} (call $run))
        {pieces}
        (func (export "{handler}close") (param $x i32) (drop (call $run))))"#,
        imports(&FUNCTIONS),
        fields(&FUNCTIONS, &TEXTS),
        keep("$head"),
        keep("$head"),
    )
}
