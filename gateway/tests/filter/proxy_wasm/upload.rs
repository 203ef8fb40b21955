//! What is accepted as a Proxy-Wasm filter, and how a refusal reads.

use super::written::{Text, stage};
use crate::setting::module;
use serde_json::{Value, json};
use tidegate_gateway::filter::{Host, Limits};
use tidegate_policy::route::FilterUse;

fn host() -> Host {
    Host::start(Limits::default()).unwrap()
}

fn refusals(text: &str) -> String {
    host().inspect(&wat::parse_str(text).unwrap()).unwrap_err().join("\n")
}

/// A route's entry with these fields.
fn used(fields: Value) -> FilterUse {
    let mut entry = json!({"plugin": "tried"});
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(entry).unwrap()
}

/// Whether a module starts with this entry.
fn start(text: &Text, fields: Value) -> Result<(), String> {
    host().configure(&text.module(), &used(fields))
}

#[test]
fn every_abi_is_accepted_and_named() {
    for (abi, world) in [
        ("0_1_0", "proxy-wasm 0.1.0"),
        ("0_2_0", "proxy-wasm 0.2.0"),
        ("0_2_1", "proxy-wasm 0.2.1"),
        ("0_2_100", "proxy-wasm 0.2.1"),
    ] {
        let inspection = host().inspect(&Text::of(abi).bytes()).unwrap();
        assert_eq!(inspection.world, world);
        assert_eq!(inspection.imports, ["env"]);
        assert!(inspection.functions.iter().any(|name| name == "env.proxy_log"), "{inspection:?}");
        assert!(inspection.exports.iter().any(|name| name == "proxy_on_memory_allocate"), "{inspection:?}");
    }
}

#[test]
fn every_reason_to_refuse_a_module_is_given() {
    let rows = [
        ("(module (memory (export \"memory\") 1))", "neither kind of filter"),
        ("(module (func (export \"proxy_abi_version_0_3_0\")))", "ABI 0.3.0"),
        ("(module (func (export \"proxy_abi_version_0_2_1\")))", "no memory"),
        ("(module (func (export \"proxy_abi_version_0_2_1\")))", "no allocator"),
        (
            "(module (import \"env\" \"proxy_teleport\" (func)) (func (export \"proxy_abi_version_0_2_1\")))",
            "env.proxy_teleport, which is no function of Proxy-Wasm",
        ),
        (
            "(module (import \"env\" \"abort\" (func)) (func (export \"proxy_abi_version_0_2_1\")))",
            "env.abort, which is no function of Proxy-Wasm",
        ),
        (
            "(module (import \"env\" \"memory\" (memory 1)) (func (export \"proxy_abi_version_0_2_1\")))",
            "env.memory, which is no function",
        ),
        (
            "(module (func (export \"proxy_abi_version_0_2_1\")) (func (export \"proxy_on_tick\") (param i64)))",
            "proxy_on_tick has another signature",
        ),
        (
            "(module (func (export \"proxy_abi_version_0_2_1\")) (global (export \"proxy_on_log\") i32 (i32.const 0)))",
            "proxy_on_log is no function",
        ),
    ];
    for (text, reason) in rows {
        let reasons = refusals(text);
        assert!(reasons.contains(reason), "{text}\n{reasons}");
    }
    let wrong = "(module (import \"env\" \"proxy_log\" (func (param i64))) (memory (export \"memory\") 1)
        (func (export \"malloc\") (param i32) (result i32) unreachable) (func (export \"proxy_abi_version_0_2_1\")))";
    assert!(refusals(wrong).contains("proxy_log"), "{}", refusals(wrong));
}

#[test]
fn the_three_functions_of_the_first_abi_may_have_no_result() {
    let module = |result: &str| {
        let import = |name: &str| format!("(import \"env\" \"{name}\" (func {result}))");
        let imports: String =
            ["proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"].map(import).concat();
        wat::parse_str(format!(
            "(module {imports} (memory (export \"memory\") 1)
            (func (export \"malloc\") (param i32) (result i32) unreachable) (func (export \"proxy_abi_version_0_1_0\")))"
        ))
        .unwrap()
    };
    for result in ["", "(result i32)"] {
        host().inspect(&module(result)).unwrap();
    }
    host().inspect(&module("(result i64)")).unwrap_err();
}

#[test]
fn what_wasi_has_beyond_what_filters_need_says_that_it_is_not_there() {
    let text = "(module
        (import \"wasi_snapshot_preview1\" \"path_open_v9\" (func $new (param i32 i64 f32) (result i32)))
        (import \"wasi_unstable\" \"fd_seek\" (func $seek (param i32 i64 i32 i32) (result i32)))
        (memory (export \"memory\") 1)
        (func (export \"malloc\") (param i32) (result i32) unreachable)
        (func (export \"proxy_abi_version_0_2_0\"))
        (func (export \"_initialize\")
            (if (i32.ne (call $new (i32.const 1) (i64.const 2) (f32.const 3)) (i32.const 52)) (then (unreachable)))
            (if (i32.ne (call $seek (i32.const 1) (i64.const 2) (i32.const 3) (i32.const 4)) (i32.const 52)) (then (unreachable)))))";
    let module = module(wat::parse_str(text).unwrap().into());
    host().configure(&module, &used(json!({}))).unwrap();
}

#[test]
fn a_module_is_started_before_it_takes_traffic() {
    let answers = |name: &str, code: &str| Text::default().on(name, "(param i32 i32) (result i32)", code);
    start(&answers("proxy_on_vm_start", "(i32.const 1)"), json!({})).unwrap();
    let refusal = start(&answers("proxy_on_vm_start", "(i32.const 0)"), json!({})).unwrap_err();
    assert!(refusal.contains("vm_config"), "{refusal}");
    let refusal = start(&answers("proxy_on_configure", "(i32.const 0)"), json!({})).unwrap_err();
    assert!(refusal.contains("refuses its configuration"), "{refusal}");
    let refusal = start(&answers("proxy_validate_configuration", "(i32.const 0)"), json!({})).unwrap_err();
    assert!(refusal.contains("not valid"), "{refusal}");
    let refusal = start(&answers("proxy_on_configure", "unreachable"), json!({})).unwrap_err();
    assert!(refusal.contains("trapped"), "{refusal}");
    let refusal = start(&answers("proxy_on_vm_start", "(loop (br 0)) (i32.const 1)"), json!({})).unwrap_err();
    assert!(refusal.contains("ran for longer than"), "{refusal}");
}

#[test]
fn configurations_are_read_as_the_entry_has_them() {
    // It starts only if its configurations have these sizes, as parameters and as buffers.
    let text = |vm: usize, own: usize| {
        let check = |size: usize, buffer: u32| {
            format!(
                "(call $must (call $get_buffer_bytes (i32.const {buffer}) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4)))
                (i32.and (i32.eq (local.get $size) (i32.const {size})) (i32.eq (i32.load (i32.const 4)) (i32.const {size})))"
            )
        };
        Text::default().on("proxy_on_vm_start", "(param i32) (param $size i32) (result i32)", &check(vm, 6)).on(
            "proxy_on_configure",
            "(param i32) (param $size i32) (result i32)",
            &check(own, 7),
        )
    };
    start(&text(0, 0), json!({})).unwrap();
    start(&text(3, 5), json!({"vm_config": "abc", "config": "hello"})).unwrap();
    start(&text(7, 9), json!({"vm_config": {"a": 1}, "config": {"a": "b"}})).unwrap();
    start(&text(1, 1), json!({"config": "hello"})).unwrap_err();
}

#[test]
fn an_entry_says_to_each_kind_of_filter_what_is_for_it() {
    let refusals = |plugin: &str, fields: Value| {
        let mut entry = json!({"plugin": plugin});
        entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let modules = [("wasm".parse().unwrap(), Text::default().module())].into();
        crate::setting::mistakes(&[("api", json!([entry]))], &modules)
    };
    assert_eq!(refusals("wasm", json!({"root_id": "r", "vm_id": "v", "environment": {"A": "b"}, "metadata": {}})), "");
    let said = refusals("wasm", json!({"isolation": "exchange"}));
    assert!(said.contains("/routes/api/filters/0/isolation"), "{said}");
    let said = refusals("wasm", json!({"environment": {"A=B": "c"}}));
    assert!(said.contains("/routes/api/filters/0/environment/A=B"), "{said}");
    let fields = json!({
        "traffic": "both", "root_id": "r", "vm_id": "v", "vm_config": 1, "environment": {"A": "b"},
        "allow_on_headers_stop_iteration": true, "metadata": {"a": 1},
    });
    let said = refusals("typed", fields.clone());
    for field in fields.as_object().unwrap().keys() {
        assert!(said.contains(&format!("/routes/api/filters/0/{field}: is for Proxy-Wasm filters")), "{field}: {said}");
    }
}

#[test]
fn the_smallest_module_is_a_filter() {
    let outcome = stage(&[("wasm", &Text::default())], json!([{"plugin": "wasm"}])).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.facts[0].outcome, "continued");
}
