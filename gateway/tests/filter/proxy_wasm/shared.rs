//! What VMs share, what they count, and what they ask of the gateway by name.

use super::written::{Text, stage};
use crate::setting::Stage;
use serde_json::json;

fn one(text: &Text) -> Stage {
    stage(&[("wasm", text)], json!([{"plugin": "wasm"}]))
}

/// Whether a head's callback of this code comes through.
fn works(code: &str) {
    let outcome = one(&Text::default().on_request_headers(&format!("{code} (i32.const 0)"))).exchange();
    assert!(outcome.passed(), "{code}\n{outcome:?}");
}

/// Code that fails unless `call` answers so.
fn answers(status: u32, call: &str) -> String {
    format!("(if (i32.ne {call} (i32.const {status})) (then unreachable))")
}

#[test]
fn values_are_compared_before_they_are_set() {
    let get = "(call $get_shared_data `key` (i32.const 0) (i32.const 4) (i32.const 8))";
    let code = [
        answers(1, get),
        answers(0, "(call $set_shared_data `key` `one` (i32.const 0))"),
        answers(0, get),
        "(if (i32.eqz (i32.load (i32.const 8))) (then unreachable))".to_owned(),
        answers(0, "(call $set_shared_data `key` `two` (i32.load (i32.const 8)))"),
        answers(8, "(call $set_shared_data `key` `three` (i32.load (i32.const 8)))"),
        answers(0, get),
        "(if (i32.ne (i32.load (i32.const 4)) (i32.const 3)) (then unreachable))".to_owned(),
        answers(0, "(call $set_shared_data `\0raw` `x` (i32.const 0))"),
        answers(0, "(call $get_shared_data `\0raw` (i32.const 0) (i32.const 4) (i32.const 8))"),
    ];
    works(&code.concat());
}

#[test]
fn values_are_a_plugins_own_unless_a_vm_id_says_otherwise() {
    let writes =
        Text::default().on_request_headers("(call $must (call $set_shared_data `key` `value` (i32.const 0))) (i32.const 0)");
    let reads = Text::default().on_request_headers(
        "(if (i32.eqz (call $get_shared_data `key` (i32.const 0) (i32.const 4) (i32.const 8))) (then
            (call $must (call $add_header_map_value (i32.const 0) `x-found` `1`)))) (i32.const 0)",
    );
    for (vm_id, found) in [("", false), ("both", true)] {
        let filters = json!([{"plugin": "writes", "vm_id": vm_id}, {"plugin": "reads", "vm_id": vm_id}]);
        let outcome = stage(&[("writes", &writes), ("reads", &reads)], filters).exchange();
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!(outcome.request_headers.contains_key("x-found"), found, "{vm_id:?}");
    }
}

#[test]
fn queues_hold_what_was_put_in_until_it_is_taken_out() {
    let dequeue = "(call $dequeue_shared_queue (i32.load (i32.const 12)) (i32.const 0) (i32.const 4))";
    let code = [
        answers(1, "(call $resolve_shared_queue `` `queue` (i32.const 12))"),
        answers(0, "(call $register_shared_queue `queue` (i32.const 12))"),
        answers(0, "(call $resolve_shared_queue `` `queue` (i32.const 16))"),
        "(if (i32.ne (i32.load (i32.const 12)) (i32.load (i32.const 16))) (then unreachable))".to_owned(),
        answers(7, dequeue),
        answers(0, "(call $enqueue_shared_queue (i32.load (i32.const 12)) `first`)"),
        answers(0, "(call $enqueue_shared_queue (i32.load (i32.const 12)) `second!`)"),
        answers(0, dequeue),
        "(if (i32.ne (i32.load (i32.const 4)) (i32.const 5)) (then unreachable))".to_owned(),
        answers(0, dequeue),
        "(if (i32.ne (i32.load (i32.const 4)) (i32.const 7)) (then unreachable))".to_owned(),
        answers(7, dequeue),
        answers(1, "(call $enqueue_shared_queue (i32.const 4000) `lost`)"),
        answers(1, "(call $resolve_shared_queue `elsewhere` `queue` (i32.const 12))"),
    ];
    works(&code.concat());
}

#[test]
fn metrics_are_the_plugins() {
    let code = [
        answers(0, "(call $define_metric (i32.const 0) `Wasm.Requests` (i32.const 0))"),
        answers(0, "(call $increment_metric (i32.load (i32.const 0)) (i64.const 3))"),
        answers(0, "(call $get_metric (i32.load (i32.const 0)) (i32.const 8))"),
        "(if (i64.ne (i64.load (i32.const 8)) (i64.const 3)) (then unreachable))".to_owned(),
        answers(0, "(call $record_metric (i32.load (i32.const 0)) (i64.const 4))"),
        answers(0, "(call $define_metric (i32.const 2) `sizes` (i32.const 0))"),
        answers(0, "(call $record_metric (i32.load (i32.const 0)) (i64.const 100))"),
        answers(2, "(call $get_metric (i32.load (i32.const 0)) (i32.const 8))"),
        answers(2, "(call $increment_metric (i32.const 99) (i64.const 1))"),
    ];
    let stage = one(&Text::default().on_request_headers(&format!("{} (i32.const 0)", code.concat())));
    assert!(stage.exchange().passed());
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    let text = page.text();
    assert!(text.contains("tidegate_plugin_counter_total{plugin=\"wasm\",metric=\"wasm_requests\"} 7"), "{text}");
}

#[test]
fn the_gateways_own_functions_are_called_by_name() {
    let call = |name: &str, arguments: &str| {
        format!("(call $call_foreign_function `{name}` `{arguments}` (i32.const 0) (i32.const 4))")
    };
    let code = [
        answers(
            0,
            &call(
                "tidegate.audit",
                r#"{"kind": "seen", "outcome": "allowed", "known": {"method": "request.method"}, "fields": {"n": 7}}"#,
            ),
        ),
        answers(0, &call("tidegate.attribute", r#"{"name": "request.method"}"#)),
        "(if (i32.ne (i32.load (i32.const 4)) (i32.const 6)) (then unreachable))".to_owned(),
        answers(1, &call("tidegate.attribute", r#"{"name": "no.such"}"#)),
        answers(1, &call("tidegate.no_such", "{}")),
        answers(1, &call("verify_signature", "")),
        answers(2, &call("tidegate.audit", r#"{"kind": 1}"#)),
        answers(2, &call("tidegate.audit", "not JSON")),
        answers(2, &call("tidegate.select_service", r#"{"name": "x", "nmae": "y"}"#)),
        answers(10, &call("tidegate.select_service", r#"{"name": "nobody"}"#)),
        answers(10, &call("tidegate.inject_secret", r#"{"header": "authorization", "credential": "none"}"#)),
        answers(10, &call("tidegate.select_endpoint", r#"{"address": "10.0.0.1", "port": 443}"#)),
        answers(2, &call("tidegate.originate_tls", r#"{"mode": "passthrough"}"#)),
        answers(0, &call("tidegate.originate_tls", r#"{"sni": "api.example.com", "min_version": "1.3"}"#)),
    ];
    let text = Text::default().on_request_headers(&format!("{} (i32.const 0)", code.concat())).on_response_headers(&format!(
        "{} (i32.const 0)",
        answers(10, &call("tidegate.originate_tls", r#"{"min_version": "1.3"}"#))
    ));
    let stage = one(&text);
    let mut run = stage.begin().unwrap();
    run.on_request(&mut crate::setting::request(&[])).unwrap();
    assert!(run.0.wish().is_some_and(|wish| !wish.is_empty()), "it was wished for");
    run.on_response(&mut crate::setting::response()).unwrap();
    let facts = run.close();
    let event = &facts[0].events[0];
    assert_eq!((event.kind.as_str(), event.outcome.as_str()), ("seen", "allowed"));
    assert_eq!((&event.fields["method"], &event.fields["n"]), (&json!("POST"), &json!(7)));
}
