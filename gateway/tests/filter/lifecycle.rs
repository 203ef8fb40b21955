//! What well-behaved filters do, and what becomes of instances over time.

use crate::setting::{FORMS, Flow, Stage, passed_back, passed_on, request, response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use tidegate_gateway::{filter::Limits, http::body::Body};
use tidegate_policy::Reason;

#[test]
fn headers_are_changed_in_both_directions() {
    for form in FORMS {
        let stage = Stage::formed(form, Limits::default(), json!([{"plugin": "stamp", "config": {"value": "hello"}}]));
        let outcome = stage.exchange();
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!(outcome.request_headers["x-stamp"], "hello");
        assert_eq!(outcome.response_headers["x-stamp"], "hello");
        assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret");
        assert_eq!(outcome.facts.len(), 1);
        assert_eq!(outcome.facts[0].plugin.as_str(), "stamp");
        assert_eq!(outcome.facts[0].outcome, "continued");
        assert!(outcome.facts[0].error.is_none());
    }
}

#[test]
fn the_audit_filter_leaves_one_event_without_secrets() {
    for form in FORMS {
        let config = json!({
            "kind": "payments",
            "request_headers": ["x-tenant", "authorization", "proxy-authorization"],
            "response_headers": ["x-request-id"],
        });
        let stage = Stage::formed(form, Limits::default(), json!([{"plugin": "audit", "config": config}]));
        let outcome = stage.exchange();
        assert!(outcome.passed(), "{outcome:?}");
        let [event] = &outcome.facts[0].events[..] else { panic!("{:?}", outcome.facts) };
        assert_eq!(event.kind, "payments");
        assert_eq!(event.outcome, "allowed");
        let expected = [
            ("principal", json!("spiffe://cluster.local/ns/shop/sa/checkout")),
            ("namespace", json!("shop")),
            ("workload", json!("checkout")),
            ("address", json!("10.1.2.3")),
            ("service", json!("api")),
            ("host", json!("api.example.com")),
            ("method", json!("POST")),
            ("path", json!("/v1/charges")),
            ("status", json!(201)),
            ("request.x-tenant", json!("blue")),
            ("request.authorization", json!("(redacted)")),
            ("response.x-request-id", json!("42")),
            ("phase", json!("log")),
        ];
        for (field, value) in expected {
            assert_eq!(event.fields.get(field), Some(&value), "{field}");
        }
        assert!(event.fields["at"].as_u64().unwrap() > 1_600_000_000_000_000);
        assert!(!event.fields.contains_key("request.proxy-authorization"));
        assert!(!format!("{:?}", outcome.facts).contains("secret"));
    }
}

#[test]
fn a_required_filter_that_emits_nothing_is_said_so() {
    let required = |plugin: &str| json!({"plugin": plugin, "required": true});
    let outcome = Stage::new(json!([required("stamp"), required("audit"), {"plugin": "stamp"}])).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    let silent: Vec<_> = outcome.facts.iter().map(|facts| facts.silent).collect();
    assert_eq!(silent, [true, false, false]);
}

#[test]
fn a_filter_answers_in_the_upstreams_place() {
    for form in FORMS {
        let filters = json!([
            {"plugin": "audit"},
            {"plugin": "hostile", "config": {"at": "request", "mode": "reply"}},
            {"plugin": "stamp"},
        ]);
        let outcome = Stage::formed(form, Limits::default(), filters).exchange();
        let Ok(Flow::Reply(reply)) = &outcome.request else { panic!("{outcome:?}") };
        assert_eq!(reply.status(), 403);
        assert_eq!(reply.headers()["x-why"], "told so");
        // The stamp was never asked, so it is not in the record; the audit filter saw an exchange without a response.
        let outcomes: Vec<_> = outcome.facts.iter().map(|facts| (facts.plugin.as_str(), &*facts.outcome)).collect();
        assert_eq!(outcomes, [("audit", "continued"), ("hostile", "replied")]);
        assert_eq!(outcome.facts[1].error.as_deref(), Some("told to answer"));
        assert_eq!(outcome.facts[0].events[0].outcome, "error");
    }
}

#[test]
fn one_instance_serves_many_exchanges_at_once() {
    let stage = Stage::new(json!([{"plugin": "audit", "config": {"request_headers": ["x-n"]}}]));
    let started = stage.host.metrics().starts.value();
    let mut runs: Vec<_> = (0..100).map(|_| stage.begin().unwrap()).collect();
    for run in &mut runs {
        assert!(matches!(run.on_request(&mut request(&[])), Ok(Flow::Continue)));
    }
    for mut run in runs {
        assert!(matches!(run.on_response(&mut response()), Ok(Flow::Continue)));
        assert_eq!(run.close()[0].events.len(), 1);
    }
    assert_eq!(stage.host.metrics().starts.value(), started + 1);
}

#[test]
fn a_failure_costs_the_exchanges_of_its_instance_and_a_new_one_serves_the_next() {
    let stage = Stage::new(json!([{"plugin": "hostile", "config": {"at": "request", "mode": "trap_on_demand"}}]));
    let mut open = stage.begin().unwrap();
    assert!(matches!(open.on_request(&mut request(&[])), Ok(Flow::Continue)));

    let trapped = stage.exchange_with(&[("x-trap", "1")]);
    assert_eq!(trapped.fault().reason(), Reason::FilterFailed);
    assert!(trapped.error().contains("trapped"), "{trapped:?}");

    // What the open exchange had in the instance is lost with it, and the filter's route asked for refusal.
    let lost = open.on_response(&mut response()).unwrap_err();
    assert_eq!(lost.reason(), Reason::FilterFailed);
    assert!(open.close()[0].error.as_deref().unwrap().contains("lost in another exchange"));

    let waited = until_served(&stage);
    assert!(waited.iter().all(|error| error.contains("it is started again in")), "{waited:?}");
}

#[test]
fn waits_do_not_grow_while_exchanges_end_well_between_failures() {
    let stage = Stage::new(json!([{"plugin": "hostile", "config": {"at": "request", "mode": "trap_on_demand"}}]));
    for _ in 0..10 {
        assert!(!stage.exchange_with(&[("x-trap", "1")]).passed());
        let waited = until_served(&stage);
        // The first wait is five milliseconds, and would be five seconds by the tenth failure.
        let longest =
            waited.iter().filter_map(|error| error.split(" in ").nth(1)?.split(' ').next()?.parse::<u64>().ok()).max();
        assert!(longest.is_none_or(|wait| wait <= 5), "{waited:?}");
    }
}

#[test]
fn a_failure_does_not_reach_another_route_with_the_same_filter() {
    let filters = json!([{"plugin": "hostile", "config": {"at": "request", "mode": "trap_on_demand"}}]);
    let stage = Stage::routes(Limits::default(), &[("api", filters.clone()), ("other", filters)]);
    let mut open = stage.begin_on("other").unwrap();
    assert!(matches!(open.on_request(&mut request(&[])), Ok(Flow::Continue)));
    assert_eq!(stage.exchange_with(&[("x-trap", "1")]).fault().reason(), Reason::FilterFailed);

    assert!(matches!(open.on_response(&mut response()), Ok(Flow::Continue)), "an exchange that is open");
    assert!(open.close()[0].error.is_none());
    assert!(stage.exchange_on("other", &[]).passed(), "an exchange that comes while the failed one waits");
}

#[test]
fn a_filter_that_is_twice_on_a_route_has_two_instances() {
    let hostile = json!({"plugin": "hostile", "config": {"at": "request", "mode": "trap_on_demand"}, "on_error": "skip"});
    let stage = Stage::new(json!([hostile, {"plugin": "stamp"}, hostile]));
    let started = stage.host.metrics().starts.value();
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(stage.host.metrics().starts.value(), started + 3, "one instance for each place");
}

/// Tries until an exchange passes; the errors of those before it.
fn until_served(stage: &Stage) -> Vec<String> {
    let mut errors = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < deadline {
        let outcome = stage.exchange();
        if outcome.passed() {
            return errors;
        }
        errors.push(outcome.error().to_owned());
    }
    panic!("never served again: {:?}", errors.last());
}

#[test]
fn restarts_are_rate_limited() {
    let stage = Stage::new(json!([{"plugin": "hostile", "config": {"at": "request", "mode": "trap"}}]));
    let before = stage.host.metrics().starts.value();
    let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
    let mut exchanges = 0;
    while std::time::Instant::now() < until {
        assert_eq!(stage.exchange().fault().reason(), Reason::FilterFailed);
        exchanges += 1;
    }
    // 5 + 10 + 20 + 40 + 80 + 160 ms and more: seven starts at most fit.
    let starts = stage.host.metrics().starts.value() - before;
    assert!((2..=7).contains(&starts), "{starts} starts in {exchanges} exchanges");
    assert!(stage.host.metrics().unavailable.value() > 0);
}

#[test]
fn an_unchanged_filter_keeps_its_instance_when_others_change() {
    let mut stage = Stage::new(json!([{"plugin": "stamp"}]));
    assert!(stage.exchange().passed());
    let compiled = stage.host.metrics().compiled.value();
    let starts = stage.host.metrics().starts.value();
    stage.publish(json!([{"plugin": "stamp"}, {"plugin": "stamp", "config": {"value": "second"}}]));
    let outcome = stage.exchange();
    assert_eq!(outcome.request_headers["x-stamp"], "second");
    assert_eq!(stage.host.metrics().compiled.value(), compiled, "the module was compiled before");
    // The new configuration's canary and its instance; the old one goes on.
    assert_eq!(stage.host.metrics().starts.value(), starts + 2);

    let mut open = stage.begin().unwrap();
    assert!(matches!(open.on_request(&mut request(&[])), Ok(Flow::Continue)));
    assert_eq!(stage.host.metrics().instances.value(), 2);
    stage.publish(json!([{"plugin": "audit"}]));
    // An exchange that began before the change ends as it began.
    let mut head = response();
    assert!(matches!(open.on_response(&mut head), Ok(Flow::Continue)));
    assert_eq!(head.headers["x-stamp"], "stamped");
    assert_eq!(open.close().len(), 2);
    assert!(stage.exchange().passed());
    assert!(stage.exchange().passed());
    assert_eq!(stage.host.metrics().instances.value(), 1, "only the audit filter's instance is left");
}

#[test]
fn a_filter_that_cannot_start_meets_on_error() {
    let bad = json!({"plugin": "stamp", "config": {"value": ""}});
    let fault = Stage::new(json!([bad])).begin().unwrap_err();
    assert_eq!(fault.reason(), Reason::FilterFailed);
    let mut skipped = bad;
    skipped["on_error"] = json!("skip");
    let outcome = Stage::new(json!([skipped, {"plugin": "audit"}])).exchange();
    assert!(outcome.passed());
    assert_eq!(outcome.facts[0].outcome, "skipped");
    assert_eq!(outcome.error(), "/value: a stamp says something");
    assert_eq!(outcome.facts[1].events.len(), 1);
}

#[test]
fn memory_is_counted_for_as_long_as_an_instance_lives() {
    let stage = Stage::new(json!([{"plugin": "stamp"}]));
    let before = stage.host.metrics().memory_bytes.value();
    assert!(stage.exchange().passed());
    let metrics = std::sync::Arc::clone(stage.host.metrics());
    assert!(metrics.memory_bytes.value() >= before + (64 << 10), "a page at least: {}", metrics.memory_bytes.value());
    drop(stage);
    assert_eq!(metrics.memory_bytes.value(), 0);
}

#[test]
fn a_filter_left_out_in_one_direction_is_not_asked_in_the_other() {
    for form in FORMS {
        let hostile = json!({"at": "response", "also": "request_body", "mode": "trap", "flow": "stream"});
        let stage =
            Stage::formed(form, Limits::default(), json!([{"plugin": "hostile", "config": hostile, "on_error": "skip"}]));
        let run = stage.begin().unwrap();
        let body = Body::whole(Bytes::from_static(b"whole"), http::HeaderMap::new());
        let asked = passed_on(&run.0, request(&[]), body).now_or_never().unwrap();
        passed_back(&run.0, response(), Body::empty()).now_or_never().unwrap();
        // The instance that others may have by now must not fail for an exchange that it does not know.
        let sent = asked.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        assert_eq!(sent, "whole");
        assert_eq!(stage.host.metrics().failures.value(), 1);
        assert_eq!(stage.host.metrics().unavailable.value(), 0);
    }
}
