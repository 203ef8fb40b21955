//! Host functions called with whatever bytes say, in every callback: nothing that a guest hands over may harm the host. The
//! fuzz target in `gateway/fuzz` has the same entry.

use super::written::IMPORTS;
use crate::{
    course::{self, Course, Reached},
    interpreter::{fields, imports, keep},
    script::{Function, LAST, Script},
    setting::{Stage, module},
    whole::{
        Given::{LiesAt, Map, Number, Text},
        Whole, whole,
    },
};
use serde_json::json;
use std::{cell::RefCell, collections::BTreeMap, fmt::Write as _};
use tidegate_gateway::filter::Limits;
use tidegate_policy::publication::Module;

/// What of WASI a filter may call; there is no such function as the last.
const WASI: [(&str, &str); 13] = [
    ("fd_write", "nono"),
    ("clock_time_get", "nlo"),
    ("clock_res_get", "no"),
    ("random_get", "on"),
    ("environ_sizes_get", "oo"),
    ("environ_get", "oo"),
    ("args_sizes_get", "oo"),
    ("args_get", "oo"),
    ("sched_yield", ""),
    ("fd_prestat_get", "no"),
    ("fd_fdstat_get", "no"),
    ("proc_exit", "n"),
    ("fd_read", "nono"),
];

/// What functions are given that mean something to some of them.
const TEXTS: [&str; 64] = [
    "",
    "a",
    ":path",
    ":method",
    ":authority",
    ":status",
    ":scheme",
    "host",
    "content-length",
    "content-type",
    "proxy-authorization",
    "x-tenant",
    "/",
    "/v1/x?a=b",
    "POST",
    "CONNECT",
    "204",
    "api",
    "other",
    "nobody",
    "api.example.com",
    "outbound|443||api.example.com",
    "application/grpc",
    "charges.v1.Charges",
    "Charge",
    "request\0path",
    "request\0url_path",
    "request\0query",
    "request\0headers",
    "request\0headers\0x-tenant",
    "request\0time",
    "request\0duration",
    "request\0size",
    "request\0protocol",
    "response\0code",
    "response\0code_details",
    "response\0headers",
    "response\0trailers",
    "response\0grpc_status",
    "response\0total_size",
    "source\0address",
    "destination\0port",
    "connection\0id",
    "connection\0uri_san_peer_certificate",
    "upstream\0address",
    "xds\0cluster_name",
    "route_name",
    "node",
    "metadata\0list\x001",
    "plugin_root_id",
    "listener_direction",
    "tidegate.select_service",
    "{\"name\": \"other\"}",
    "tidegate.select_endpoint",
    "{\"address\": \"203.0.113.10\", \"port\": 443}",
    "tidegate.originate_tls",
    "{\"mode\": \"simple\", \"sni\": \"a.example\", \"names\": [\"b.example\"], \"min_version\": \"1.3\", \"alpn\": [\"h2\"]}",
    "tidegate.inject_secret",
    "{\"header\": \"x-key\", \"credential\": \"key\", \"prefix\": \"Bearer \"}",
    "tidegate.audit",
    "{\"kind\": \"k\", \"outcome\": \"denied\", \"known\": {\"a\": \"route\"}, \"fields\": {\"n\": -1, \"f\": true, \"t\": \"u\"}}",
    "tidegate.attribute",
    "{\"name\": \"caller.principal\"}",
    "shared",
];

/// Calls to a service that is there, what follows them, and what filters may choose for the way out. The numbers of calls and
/// streams are written to 8 and 16, and everything else to 24 and 32.
const WHOLES: [Whole; 13] = [
    whole("proxy_http_call", &[Text("other"), Map(HEAD), Text("ping"), Map(&[]), Number(1_000), Number(8)]),
    whole("proxy_grpc_call", &[Text("other"), Text("a.B"), Text("Call"), Map(FIELDS), Text("ping"), Number(1_000), Number(8)]),
    whole("proxy_grpc_stream", &[Text("other"), Text("a.B"), Text("Watch"), Map(FIELDS), Number(16)]),
    whole("proxy_grpc_send", &[LiesAt(16), Text("ping"), Number(0)]),
    whole("proxy_grpc_send", &[LiesAt(16), Text("last"), Number(1)]),
    whole("proxy_grpc_close", &[LiesAt(16)]),
    whole("proxy_grpc_cancel", &[LiesAt(8)]),
    // What an answer of gRPC is read by: its message, and its head.
    whole("proxy_get_buffer_bytes", &[Number(5), Number(0), Number(64), Number(24), Number(32)]),
    whole("proxy_get_header_map_pairs", &[Number(4), Number(24), Number(32)]),
    whole("proxy_call_foreign_function", &[Text("tidegate.inject_secret"), Text(SECRET), Number(24), Number(32)]),
    whole("proxy_call_foreign_function", &[Text("tidegate.originate_tls"), Text(SIMPLE), Number(24), Number(32)]),
    whole("proxy_call_foreign_function", &[Text("tidegate.originate_tls"), Text(MUTUAL), Number(24), Number(32)]),
    whole(
        "proxy_call_foreign_function",
        &[Text("tidegate.select_service"), Text(r#"{"name": "other"}"#), Number(24), Number(32)],
    ),
];
const HEAD: &[(&str, &str)] = &[(":method", "POST"), (":path", "/v1/x"), (":authority", "other.example.com"), ("x-a", "b")];
const FIELDS: &[(&str, &str)] = &[("x-a", "b")];
const SECRET: &str = r#"{"header": "x-key", "credential": "key", "prefix": "Bearer "}"#;
const SIMPLE: &str = r#"{"mode": "simple", "names": ["b.example"], "trust": "ca"}"#;
const MUTUAL: &str = r#"{"mode": "mutual", "certificate": "client"}"#;

/// What the host calls: a name, its parameters, and what is made of the number that the script answers, where one is.
const CALLED: [(&str, usize, Option<Answer>); 29] = [
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(Answer::GoesOn)),
    ("proxy_validate_configuration", 2, Some(Answer::GoesOn)),
    ("proxy_on_configure", 2, Some(Answer::GoesOn)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_done", 1, Some(Answer::GoesOn)),
    ("proxy_on_log", 1, None),
    ("proxy_on_delete", 1, None),
    ("proxy_on_request_body", 3, Some(Answer::Number)),
    ("proxy_on_request_trailers", 2, Some(Answer::Number)),
    ("proxy_on_request_metadata", 2, Some(Answer::Number)),
    ("proxy_on_response_body", 3, Some(Answer::Number)),
    ("proxy_on_response_trailers", 2, Some(Answer::Number)),
    ("proxy_on_response_metadata", 2, Some(Answer::Number)),
    ("proxy_on_new_connection", 1, Some(Answer::Number)),
    ("proxy_on_downstream_data", 3, Some(Answer::Number)),
    ("proxy_on_upstream_data", 3, Some(Answer::Number)),
    ("proxy_on_downstream_connection_close", 2, None),
    ("proxy_on_upstream_connection_close", 2, None),
    ("proxy_on_http_call_response", 5, None),
    ("proxy_on_grpc_receive_initial_metadata", 3, None),
    ("proxy_on_grpc_create_initial_metadata", 3, None),
    ("proxy_on_grpc_receive", 3, None),
    ("proxy_on_grpc_receive_trailing_metadata", 3, None),
    ("proxy_on_grpc_close", 3, None),
    ("proxy_on_queue_ready", 2, None),
    ("proxy_on_foreign_function", 3, None),
    ("proxy_on_request_done", 1, None),
    ("proxy_on_response_done", 1, None),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// As it is.
    Number,
    /// Unless it is one of its own, what lets everything go on.
    GoesOn,
}

/// The ABIs, whose modules differ in the parameters of heads, and in what three functions answer.
const VERSIONS: [&str; 3] = ["0_1_0", "0_2_0", "0_2_1"];

fn limits() -> Limits {
    Limits { calls: 4, call_bytes: 4 << 10, queues: 3, queue_messages: 3, queue_bytes: 2 << 10, ..course::limits() }
}

/// A host with modules that do as scripts say.
struct World {
    stage: Stage,
    functions: Vec<Function>,
    modules: [Module; 3],
    /// Counts what was tried, so that nothing that plugins share goes from one to the next.
    tried: u64,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// Makes an exchange in which a filter does what `bytes` say; how far it came. The exchange may fail; the host may not.
pub(crate) fn drive(bytes: &[u8]) -> Reached {
    WORLD.with_borrow_mut(|world| world.drive(bytes))
}

/// How far a filter comes that makes these of its whole calls about a request's head, and traps where the last is answered with
/// something else than 0.
pub(crate) fn make(calls: &[usize]) -> Reached {
    WORLD.with_borrow_mut(|world| {
        // The three that begin the VM and its root context come before it, and the one of its own context.
        let script = Script::of(&[], &world.functions, &TEXTS, &WHOLES).after(4).making(calls, LAST);
        world.exchange(34, Course::default(), &script.letters())
    })
}

impl World {
    fn new() -> Self {
        let functions = functions(VERSIONS[2]);
        let modules = VERSIONS.map(|version| module(wat::parse_str(text(version)).unwrap().into()));
        Self { stage: course::stage(limits()), functions, modules, tried: 0 }
    }

    fn drive(&mut self, bytes: &[u8]) -> Reached {
        let Some(([how, request, response, calls], bytes)) = bytes.split_first_chunk() else { return Reached::default() };
        let course = Course { request: *request, response: *response, calls: *calls };
        // What fails before its context is made has no exchange.
        let script = Script::of(bytes, &self.functions, &TEXTS, &WHOLES).after(if how & 128 != 0 { 0 } else { 4 });
        let script = script.letters();
        self.exchange(*how, course, &script)
    }

    fn exchange(&mut self, how: u8, course: Course, script: &str) -> Reached {
        let plugin = format!("wasm-{}", self.tried % 2);
        self.tried += 1;
        let filter = json!({
            "plugin": plugin,
            "vm_config": script,
            "config": {"a": 1},
            "vm_id": if how & 4 != 0 { "vm" } else { "" },
            "environment": {"A": "1", "LONG": "value"},
            "metadata": {"list": [1, "two", {"three": null}], "on": true},
            "traffic": "both",
            "on_error": if how & 8 != 0 { "skip" } else { "deny" },
            "allow_on_headers_stop_iteration": how & 16 != 0,
            "grants": course::grants(how & 32 != 0),
        });
        let filters = if how & 64 != 0 { json!([filter, filter]) } else { json!([filter]) };
        let module = self.modules[usize::from(how % 4) % VERSIONS.len()].clone();
        self.stage.come = course.form();
        let modules = BTreeMap::from([(plugin.parse().unwrap(), module)]);
        self.stage.publish_modules(&[("api", filters), ("other", json!([]))], &modules);
        let reached = course.exchange(&mut self.stage);
        // Of an exchange that is over nothing is left, however it ended.
        let metrics = self.stage.host.metrics();
        assert_eq!((metrics.instances.value(), metrics.memory_bytes.value()), (0, 0), "instances and their memory");
        assert_eq!(metrics.held_bytes.value(), 0, "bytes that are held");
        reached
    }
}

fn functions(version: &str) -> Vec<Function> {
    let without_answer = |name: &str| {
        let of_old = ["proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"].contains(&name);
        of_old && version == "0_1_0"
    };
    let of_proxies = IMPORTS.iter().map(|&(name, parameters)| {
        let result = if without_answer(name) { "" } else { "i32" };
        Function { module: "env", name, parameters, result }
    });
    let of_wasi = WASI.iter().map(|&(name, parameters)| {
        let module = if version == "0_1_0" { "wasi_unstable" } else { "wasi_snapshot_preview1" };
        Function { module, name, parameters, result: if name == "proc_exit" { "" } else { "i32" } }
    });
    of_proxies.chain(of_wasi).collect()
}

/// The module of this ABI. The VM's configuration is its script.
fn text(version: &str) -> String {
    let functions = functions(version);
    let configuration = functions.iter().position(|function| function.name == "proxy_get_buffer_bytes").unwrap();
    let mut text = format!(
        r#"(module {} {}
        (func (export "proxy_abi_version_{version}"))
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (call $room (local.get $size)))
        (func $begin
            (drop (call $f{configuration} (i32.const 6) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
            (call $load (i32.load (i32.const 0)) (i32.load (i32.const 4))))"#,
        imports(&functions),
        fields(&functions, &TEXTS)
    );
    let heads = if version == "0_1_0" { 2 } else { 3 };
    let of_heads = ["proxy_on_request_headers", "proxy_on_response_headers"].map(|name| (name, heads, Some(Answer::Number)));
    for (name, parameters, answer) in CALLED.into_iter().chain(of_heads) {
        let declared: String = (0..parameters).map(|number| format!("(param $p{number} i32)")).collect();
        let begin = if name == "proxy_on_vm_start" { "(call $begin)" } else { "" };
        let (result, run) = match answer {
            None => ("", "(drop (call $run))"),
            Some(Answer::Number) => ("(result i32)", "(call $run)"),
            Some(Answer::GoesOn) => ("(result i32)", "(i32.ne (call $run) (i32.const 31))"),
        };
        let _ = writeln!(text, r#"(func (export "{name}") {declared} {result} {begin} {} {run})"#, keep(parameters));
    }
    text + ")"
}
