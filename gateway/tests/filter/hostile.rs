//! Filters that misbehave in every way we know, each beside a healthy one.

use crate::setting::{Flow, Outcome, Stage};
use serde_json::json;
use tidegate_gateway::filter::Limits;
use tidegate_policy::Reason;

/// A route whose only filter misbehaves.
fn stage(at: &str, mode: &str) -> Stage {
    Stage::new(json!([{"plugin": "hostile", "config": {"at": at, "mode": mode}}]))
}

fn outcome(at: &str, mode: &str) -> Outcome {
    stage(at, mode).exchange()
}

#[test]
fn each_failure_refuses_its_exchange_and_is_named() {
    let cases = [
        ("trap", "trapped: a panic"),
        ("loop", "ran for longer than"),
        ("memory", "trapped: a panic"),
        ("stack", "trapped"),
        ("log_size", "hostcall"),
        ("random", "random bytes were asked for"),
    ];
    for at in ["request", "response"] {
        for (mode, named) in cases {
            let outcome = outcome(at, mode);
            assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "{mode} at {at}");
            assert_eq!(outcome.facts[0].outcome, "failed", "{mode} at {at}");
            let error = outcome.error();
            assert!(error.contains(named) || (mode == "log_size" && error.contains("fuel")), "{mode} at {at}: {error}");
        }
    }
}

#[test]
fn a_failure_at_the_beginning_is_one_of_the_request() {
    let outcome = outcome("begin", "nothing");
    assert!(matches!(&outcome.request, Err(fault) if fault.reason() == Reason::FilterFailed), "{outcome:?}");
}

#[test]
fn a_failure_at_the_end_is_recorded_only() {
    for mode in ["trap", "loop", "stack"] {
        let outcome = outcome("log", mode);
        assert!(outcome.passed(), "{mode}: {outcome:?}");
        assert_eq!(outcome.facts[0].outcome, "failed", "{mode}");
        assert!(!outcome.error().is_empty(), "{mode}");
    }
}

#[test]
fn a_skipped_failure_leaves_the_exchange_as_it_was() {
    for mode in ["trap", "loop", "memory", "stack", "change_and_trap"] {
        let filters = json!([
            {"plugin": "stamp"},
            {"plugin": "hostile", "config": {"at": "request", "mode": mode}, "on_error": "skip"},
            {"plugin": "audit"},
        ]);
        let outcome = Stage::new(filters).exchange();
        assert!(outcome.passed(), "{mode}: {outcome:?}");
        assert_eq!(outcome.facts[1].outcome, "skipped", "{mode}");
        assert!(outcome.facts[1].error.is_some(), "{mode}");
        assert_eq!(outcome.request_headers["x-stamp"], "stamped", "{mode}");
        assert!(!outcome.request_headers.contains_key("x-half"), "{mode}");
        assert_eq!(outcome.facts[2].events.len(), 1, "{mode}");
    }
}

#[test]
fn memory_stops_at_the_limit() {
    let filters = json!([{"plugin": "hostile", "config": {"at": "request", "mode": "memory_report"}}]);
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let stage = Stage::with(limits, filters);
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{outcome:?}");
    let mib = outcome.number("mib");
    assert!((4..=8).contains(&mib), "{mib} MiB");
    assert!(stage.host.metrics().memory_refused.value() > 0);
}

#[test]
fn a_loop_ends_at_the_limit() {
    let stage = stage("request", "loop");
    let begun = std::time::Instant::now();
    let outcome = stage.exchange();
    assert!(outcome.error().contains("100 ms (setting filter_callback_timeout)"), "{outcome:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(stage.host.metrics().timeouts.value(), 1);
}

#[test]
fn nothing_can_be_injected() {
    for at in ["request", "response"] {
        let outcome = outcome(at, "inject");
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!(outcome.number("accepted"), 0, "{at}");
        let headers = if at == "request" { &outcome.request_headers } else { &outcome.response_headers };
        assert!(headers.keys().all(|name| !name.as_str().contains("smuggled") && name != "x-good"), "{headers:?}");
    }
    let outcome = outcome("request", "inject");
    assert_eq!(outcome.request_headers["host"], "api.example.com");
    assert_eq!(outcome.request_headers["content-length"], "0");
    assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret");
}

#[test]
fn the_callers_secret_cannot_be_read() {
    assert_eq!(outcome("request", "peek").number("seen"), 0);
}

#[test]
fn headers_stop_at_the_limits() {
    let limits = Limits { callback: std::time::Duration::from_secs(5), ..Limits::default() };
    let filters = json!([{"plugin": "hostile", "config": {"at": "request", "mode": "header_count"}}]);
    let outcome = Stage::with(limits, filters).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.request_headers.len(), limits.header_count);
    assert_eq!(outcome.number("refused"), 10_000 - (limits.header_count as u64 - 6));

    let outcome = self::outcome("request", "header_size");
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.number("refused"), 1);
    assert!(!outcome.request_headers.contains_key("x-large"));
}

#[test]
fn events_and_logs_stop_at_the_limits() {
    let limits = Limits { callback: std::time::Duration::from_secs(30), ..Limits::default() };
    let stage = |mode| Stage::with(limits, json!([{"plugin": "hostile", "config": {"at": "request", "mode": mode}}]));
    let events = stage("event_count");
    let outcome = events.exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.facts[0].events.len(), limits.event_count);
    assert_eq!(events.host.metrics().events_dropped.value(), 1_000_000 - limits.event_count as u64);

    let large = stage("event_size");
    assert!(large.exchange().facts[0].events.is_empty());
    assert_eq!(large.host.metrics().events_dropped.value(), 1);

    let logs = stage("log_count");
    assert!(logs.exchange().passed());
    assert!(logs.host.metrics().logs_dropped.value() > 900_000);
}

#[test]
fn a_handle_is_of_no_use_after_its_phase() {
    let filters = json!([{"plugin": "hostile", "config": {"at": "request", "mode": "keep"}}]);
    let outcome = Stage::new(filters).exchange();
    assert!(matches!(outcome.request, Ok(Flow::Continue)));
    assert_eq!(outcome.fault().reason(), Reason::FilterFailed);
    assert!(outcome.facts[0].events.is_empty(), "nothing was read: {outcome:?}");
    assert!(outcome.error().contains("handle"), "{}", outcome.error());
}

#[test]
fn an_answer_that_is_none_is_a_failure() {
    for (mode, named) in [("reply_status", "status 100"), ("reply_header", "header")] {
        let outcome = outcome("request", mode);
        assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "{mode}");
        assert!(outcome.error().contains(named), "{mode}: {}", outcome.error());
    }
}
