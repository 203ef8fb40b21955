//! Filters that misbehave in every way we know, each beside a healthy one.

use crate::setting::{FORMS, Flow, Form, Outcome, Stage};
use serde_json::json;
use tidegate_gateway::filter::Limits;
use tidegate_policy::Reason;

/// The callbacks in which filters misbehave.
const PHASES: [&str; 3] = ["request", "response", "log"];

/// The route whose filter misbehaves so in this callback.
fn route(at: &str, mode: &str) -> String {
    format!("{at}-{}", mode.replace('_', "-"))
}

/// A route for each of these ways to misbehave, in each callback.
fn modes(form: Form, modes: &[&str]) -> Stage {
    let mut stage = Stage::formed(form, Limits::default(), json!([]));
    let names: Vec<_> = PHASES.into_iter().flat_map(|at| modes.iter().map(move |mode| (at, *mode))).collect();
    let hostile =
        |(at, mode): &(&str, &str)| (route(at, mode), json!([{"plugin": "hostile", "config": {"at": at, "mode": mode}}]));
    let routes: Vec<_> = names.iter().map(hostile).collect();
    let routes: Vec<_> = routes.iter().map(|(name, filters)| (name.as_str(), filters.clone())).collect();
    stage.publish_routes(&routes);
    stage
}

/// A route whose only filter misbehaves, in this form.
fn stage(form: Form, at: &str, mode: &str) -> Stage {
    within(Limits::default(), form, at, mode)
}

fn within(limits: Limits, form: Form, at: &str, mode: &str) -> Stage {
    Stage::formed(form, limits, json!([{"plugin": "hostile", "config": {"at": at, "mode": mode}}]))
}

fn outcome(form: Form, at: &str, mode: &str) -> Outcome {
    stage(form, at, mode).exchange()
}

#[test]
fn each_failure_refuses_its_exchange_and_is_named() {
    let cases = [
        ("trap", "trapped: a panic"),
        ("loop", "ran for longer than"),
        ("memory", "trapped: a panic"),
        ("stack", "trapped"),
        ("log_size", "fuel"),
        ("random", "random bytes were asked for"),
    ];
    for form in FORMS {
        let stage = modes(form, &cases.map(|(mode, _)| mode));
        for (at, (mode, named)) in ["request", "response"].into_iter().flat_map(|at| cases.map(|case| (at, case))) {
            let outcome = stage.exchange_on(&route(at, mode), &[]);
            assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "{mode} at {at} as {form:?}");
            assert_eq!(outcome.facts[0].outcome, "failed", "{mode} at {at} as {form:?}");
            assert!(outcome.error().contains(named), "{mode} at {at} as {form:?}: {}", outcome.error());
        }
    }
}

#[test]
fn a_failure_at_the_beginning_is_one_of_the_request() {
    for form in FORMS {
        let outcome = outcome(form, "begin", "nothing");
        assert!(matches!(&outcome.request, Err(fault) if fault.reason() == Reason::FilterFailed), "{outcome:?}");
    }
}

#[test]
fn a_failure_at_the_end_is_recorded_only() {
    for form in FORMS {
        let ways = ["trap", "loop", "stack"];
        let stage = modes(form, &ways);
        for mode in ways {
            let outcome = stage.exchange_on(&route("log", mode), &[]);
            assert!(outcome.passed(), "{mode} as {form:?}: {outcome:?}");
            assert_eq!(outcome.facts[0].outcome, "failed", "{mode} as {form:?}");
            assert!(!outcome.error().is_empty(), "{mode} as {form:?}");
        }
    }
}

#[test]
fn a_skipped_failure_leaves_the_exchange_as_it_was() {
    for form in FORMS {
        let mut stage = Stage::formed(form, Limits::default(), json!([]));
        for mode in ["trap", "loop", "memory", "stack", "change_and_trap"] {
            stage.publish(json!([
                {"plugin": "stamp"},
                {"plugin": "hostile", "config": {"at": "request", "mode": mode}, "on_error": "skip"},
                {"plugin": "audit"},
            ]));
            let outcome = stage.exchange();
            assert!(outcome.passed(), "{mode} as {form:?}: {outcome:?}");
            assert_eq!(outcome.facts[1].outcome, "skipped", "{mode} as {form:?}");
            assert!(outcome.facts[1].error.is_some(), "{mode} as {form:?}");
            assert_eq!(outcome.request_headers["x-stamp"], "stamped", "{mode} as {form:?}");
            assert!(!outcome.request_headers.contains_key("x-half"), "{mode} as {form:?}");
            assert_eq!(outcome.facts[2].events.len(), 1, "{mode} as {form:?}");
        }
    }
}

#[test]
fn memory_stops_at_the_limit() {
    for form in FORMS {
        let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
        let stage = within(limits, form, "request", "memory_report");
        let outcome = stage.exchange();
        assert!(outcome.passed(), "{outcome:?}");
        let mib = outcome.number("mib");
        assert!((4..=8).contains(&mib), "{mib} MiB");
        assert!(stage.host.metrics().memory_refused.value() > 0);
    }
}

#[test]
fn a_loop_ends_at_the_limit() {
    for form in FORMS {
        let stage = stage(form, "request", "loop");
        let begun = std::time::Instant::now();
        let outcome = stage.exchange();
        assert!(outcome.error().contains("100 ms (setting filter_callback_timeout)"), "{outcome:?}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
        assert_eq!(stage.host.metrics().timeouts.value(), 1);
    }
}

#[test]
fn nothing_can_be_injected() {
    for form in FORMS {
        for at in ["request", "response"] {
            let outcome = outcome(form, at, "inject");
            assert!(outcome.passed(), "{outcome:?}");
            assert_eq!(outcome.number("accepted"), 0, "{at}");
            let headers = if at == "request" { &outcome.request_headers } else { &outcome.response_headers };
            assert!(headers.keys().all(|name| !name.as_str().contains("smuggled") && name != "x-good"), "{headers:?}");
        }
        let outcome = outcome(form, "request", "inject");
        assert_eq!(outcome.request_headers["host"], "api.example.com");
        assert_eq!(outcome.request_headers["content-length"], "0");
        assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret");
    }
}

#[test]
fn the_callers_secret_cannot_be_read() {
    for form in FORMS {
        assert_eq!(outcome(form, "request", "peek").number("seen"), 0);
    }
}

#[test]
fn headers_stop_at_the_limits() {
    for form in FORMS {
        let limits = Limits { callback: std::time::Duration::from_secs(5), ..Limits::default() };
        let outcome = within(limits, form, "request", "header_count").exchange();
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!(outcome.request_headers.len(), limits.header_count);
        assert_eq!(outcome.number("refused"), 10_000 - (limits.header_count as u64 - 6));

        let outcome = self::outcome(form, "request", "header_size");
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!(outcome.number("refused"), 1);
        assert!(!outcome.request_headers.contains_key("x-large"));
    }
}

#[test]
fn events_and_logs_stop_at_the_limits() {
    for form in FORMS {
        let limits = Limits { callback: std::time::Duration::from_secs(30), ..Limits::default() };
        let stage = |mode| within(limits, form, "request", mode);
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
}

#[test]
fn a_handle_is_of_no_use_after_its_phase() {
    for form in FORMS {
        let outcome = outcome(form, "request", "keep");
        assert!(matches!(outcome.request, Ok(Flow::Continue)));
        assert_eq!(outcome.fault().reason(), Reason::FilterFailed);
        assert!(outcome.facts[0].events.is_empty(), "nothing was read: {outcome:?}");
        assert!(outcome.error().contains("handle"), "{}", outcome.error());
    }
}

#[test]
fn an_answer_that_is_none_is_a_failure() {
    for form in FORMS {
        for (mode, named) in [("reply_status", "status 100"), ("reply_header", "header")] {
            let outcome = outcome(form, "request", mode);
            assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "{mode}");
            assert!(outcome.error().contains(named), "{mode}: {}", outcome.error());
        }
    }
}
