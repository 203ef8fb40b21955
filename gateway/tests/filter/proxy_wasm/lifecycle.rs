//! VMs and contexts: when they begin, end and fail.

use super::written::{Text, stage, stage_with};
use crate::setting::{Stage, closing, passed_on, request};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tidegate_gateway::{filter::Limits, http::body::Body};
use tidegate_policy::Reason;

/// Notes each callback as a digit of the number at 32, and shows that number with each response.
fn noting() -> Text {
    let note = |digit: u32| format!("(call $note (i32.const {digit}))");
    Text::default()
        .with(
            "(func $note (param $digit i32)
            (i32.store (i32.const 32) (i32.add (i32.mul (i32.load (i32.const 32)) (i32.const 10)) (local.get $digit))))",
        )
        .on("proxy_on_context_create", "(param $context i32) (param $root i32)", &note(1))
        .on("proxy_on_vm_start", "(param i32 i32) (result i32)", &format!("{} (i32.const 1)", note(2)))
        .on("proxy_on_configure", "(param i32 i32) (result i32)", &format!("{} (i32.const 1)", note(3)))
        .on_request_headers(&format!("{} (i32.const 0)", note(4)))
        .on_response_headers(
            "(call $note (i32.const 5))
            (call $must (call $define_metric (i32.const 1) `order` (i32.const 0)))
            (call $must (call $record_metric (i32.load (i32.const 0)) (i64.extend_i32_u (i32.load (i32.const 32)))))
            (i32.const 0)",
        )
        .on("proxy_on_done", "(param i32) (result i32)", &format!("{} (i32.const 1)", note(6)))
        .on("proxy_on_log", "(param i32)", &note(7))
        .on("proxy_on_delete", "(param i32)", &note(8))
}

/// The value of a metric of a plugin.
fn metric(stage: &Stage, plugin: &str, kind: &str, name: &str) -> Option<u64> {
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    let begins = format!("tidegate_plugin_{kind}{{plugin=\"{plugin}\",metric=\"{name}\"}} ");
    page.text().lines().find_map(|line| line.strip_prefix(&begins)?.parse().ok())
}

#[test]
fn callbacks_come_in_the_order_of_the_abi() {
    let stage = stage(&[("wasm", &noting())], json!([{"plugin": "wasm"}]));
    assert!(stage.exchange().passed());
    assert_eq!(metric(&stage, "wasm", "gauge", "order"), Some(123_145));
    assert!(stage.exchange().passed());
    // What came after the first response's head, and the second exchange up to its own; the number holds nine digits.
    assert_eq!(metric(&stage, "wasm", "gauge", "order"), Some(123_145_678_145_u64 % (1 << 32)));
    assert_eq!(stage.host.metrics().instances.value(), 1);
}

fn routes(stage: &mut Stage, text: &Text, routes: &[(&str, Value)]) {
    let modules: BTreeMap<_, _> = [("wasm".parse().unwrap(), text.module())].into();
    stage.publish_modules(routes, &modules);
}

#[test]
fn places_that_agree_share_a_vm_and_others_do_not() {
    let text = Text::default();
    let rows = [
        (json!({}), json!({}), 1),
        (json!({"root_id": "a"}), json!({"root_id": "b", "config": "other"}), 1),
        (json!({"vm_id": "a"}), json!({"vm_id": "b"}), 2),
        (json!({"vm_config": 1}), json!({"vm_config": 2}), 2),
        (json!({"environment": {"A": "1"}}), json!({"environment": {"A": "2"}}), 2),
    ];
    for (one, other, vms) in rows {
        let entry = |fields: &Value| {
            let mut entry = json!({"plugin": "wasm"});
            entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!([entry])
        };
        let mut stage = Stage::empty(Limits::default());
        routes(&mut stage, &text, &[("one", entry(&one)), ("two", entry(&other))]);
        assert!(stage.exchange_on("one", &[]).passed() && stage.exchange_on("two", &[]).passed());
        assert_eq!(stage.host.metrics().instances.value(), vms, "{one} {other}");
    }
}

#[test]
fn the_place_of_a_configuration_that_is_no_more_is_let_go() {
    // How many contexts there are; those of exchanges are gone after them.
    let count = |by: i64| {
        format!(
            "(call $must (call $define_metric (i32.const 1) `contexts` (i32.const 0)))
            (call $must (call $increment_metric (i32.load (i32.const 0)) (i64.const {by})))"
        )
    };
    let text = Text::default().on("proxy_on_context_create", "(param i32 i32)", &count(1)).on(
        "proxy_on_delete",
        "(param i32)",
        &count(-1),
    );
    let mut stage = Stage::empty(Limits::default());
    for number in 0..5 {
        let filters = json!([{"plugin": "wasm", "config": number}]);
        routes(&mut stage, &text, &[("stays", json!([{"plugin": "wasm"}])), ("changes", filters)]);
        assert!(stage.exchange_on("stays", &[]).passed() && stage.exchange_on("changes", &[]).passed());
    }
    assert_eq!(stage.host.metrics().instances.value(), 1, "one VM for all of them");
    assert_eq!(metric(&stage, "wasm", "gauge", "contexts"), Some(2), "that of the route that stays, and the last");
}

#[test]
fn a_trap_costs_its_exchange_and_the_vm_starts_again() {
    let text = Text::default().on_request_headers(
        "(if (i32.eqz (call $get_header_map_value (i32.const 0) `x-trap` (i32.const 0) (i32.const 4))) (then unreachable))
        (call $must (call $add_header_map_value (i32.const 0) `x-half` `1`)) (i32.const 0)",
    );
    let fails = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    assert!(fails.exchange().passed());
    let outcome = fails.exchange_with(&[("x-trap", "1")]);
    assert_eq!(outcome.fault().reason(), Reason::FilterFailed);
    assert!(outcome.error().contains("trapped"), "{}", outcome.error());
    assert_eq!(fails.host.metrics().instances.value(), 0);
    let waits = fails.exchange();
    assert!(waits.passed() || waits.error().contains("started again in"), "{waits:?}");
    let skips = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}]));
    let outcome = skips.exchange_with(&[("x-trap", "1")]);
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.facts[0].outcome, "skipped");
}

#[test]
fn a_failure_leaves_the_message_as_it_was_where_it_is_skipped() {
    let change = "(call $must (call $add_header_map_value (i32.const 0) `x-half` `1`))
        (call $must (call $remove_header_map_value (i32.const 0) `x-tenant`)) unreachable";
    let text = Text::default().on_request_headers(change);
    let outcome = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}])).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert!(!outcome.request_headers.contains_key("x-half"));
    assert_eq!(outcome.request_headers["x-tenant"], "blue");
}

#[test]
fn an_exchange_is_lost_with_the_vm_that_another_has_ended() {
    let text = Text::default().on_request_headers(
        "(if (i32.eqz (call $get_header_map_value (i32.const 0) `x-trap` (i32.const 0) (i32.const 4))) (then unreachable)) (i32.const 0)",
    );
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    let mut run = stage.begin().unwrap();
    run.on_request(&mut request(&[])).unwrap();
    assert!(!stage.exchange_with(&[("x-trap", "1")]).passed());
    let fault = run.on_response(&mut crate::setting::response()).unwrap_err();
    assert_eq!(fault.reason(), Reason::FilterFailed);
    assert!(run.close()[0].error.as_ref().unwrap().contains("lost in another exchange"));
}

#[test]
fn what_lost_vms_had_is_there_for_as_long_as_its_exchange() {
    let text = Text::default().on_request_headers(
        "(if (i32.eqz (call $get_header_map_value (i32.const 0) `x-trap` (i32.const 0) (i32.const 4))) (then unreachable)) (i32.const 1)",
    );
    // One VM after the other is lost with what it has stopped, and nobody looks after that for so long.
    const LOST: usize = 20;
    let limits = Limits { exchanges: 4, back_off: Duration::ZERO, ..Limits::default() };
    let stage = stage_with(limits, &[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}]));
    let stopped = (0..LOST).map(|_| {
        let run = stage.begin().unwrap().0;
        let asked = run.clone();
        let mut stopped = Box::pin(async move { passed_on(&asked, request(&[]), Body::empty()).await });
        assert!((&mut stopped).now_or_never().is_none(), "it waits");
        assert!(stage.exchange_with(&[("x-trap", "1")]).passed());
        (run, stopped)
    });
    for (run, stopped) in stopped.collect::<Vec<_>>() {
        let request = stopped.now_or_never().expect("what it waits for is lost");
        assert_eq!(request.headers()["x-tenant"], "blue", "its head is as it was");
        let closed = run.close(closing()).now_or_never().unwrap();
        assert_eq!(closed[0].outcome, "skipped", "{closed:?}");
    }
}

#[test]
fn memory_and_time_are_bounded() {
    let grows = Text::default()
        .on_request_headers("(if (i32.ne (memory.grow (i32.const 10000)) (i32.const -1)) (then unreachable)) (i32.const 0)");
    let stage_of = |text: &Text| stage(&[("wasm", text)], json!([{"plugin": "wasm"}]));
    let grown = stage_of(&grows);
    assert!(grown.exchange().passed());
    assert!(grown.host.metrics().memory_refused.value() > 0);
    let loops = stage_of(&Text::default().on_request_headers("(loop (br 0)) (i32.const 0)"));
    let outcome = loops.exchange();
    assert!(outcome.error().contains("filter_callback_timeout"), "{outcome:?}");
}

#[test]
fn the_end_of_an_exchange_may_be_put_off() {
    // `done` says no; the next exchange's head turns to that context and says that it is done.
    let text = Text::default()
        .with("(global $waiting (mut i32) (i32.const 0)) (global $logged (mut i32) (i32.const 0))")
        .on("proxy_on_done", "(param $context i32) (result i32)", "(global.set $waiting (local.get $context)) (i32.const 0)")
        .on("proxy_on_log", "(param $context i32)", "(global.set $logged (local.get $context))")
        .on_request_headers(
            "(if (global.get $waiting) (then
                (call $must (call $set_effective_context (global.get $waiting)))
                (call $must (call $done))))
            (i32.const 0)",
        )
        .on_response_headers(
            "(call $must (call $define_metric (i32.const 1) `logged` (i32.const 0)))
            (call $must (call $record_metric (i32.load (i32.const 0)) (i64.extend_i32_u (global.get $logged)))) (i32.const 0)",
        );
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    assert!(stage.exchange().passed());
    assert_eq!(metric(&stage, "wasm", "gauge", "logged"), Some(0), "not yet");
    assert!(stage.exchange().passed());
    assert_eq!(metric(&stage, "wasm", "gauge", "logged"), Some(2), "the first exchange's context");
}
