//! Filters that stop what passes them, and go on with it later: by a timer, or with what comes next.

use super::{
    driven::{BODY, CONTINUE, Came, STOP, TRAILERS, answered, asked, beside, later, passed, trailers},
    written::{Text, stage, stage_with},
};
use crate::setting::{Stage, closing, passed_back, passed_on, request, response};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::Instant;
use tidegate_gateway::{fault::Fault, filter::Limits, http::body::Body};
use tidegate_policy::Reason;

/// Both messages of one exchange.
fn exchange(
    stage: &Stage,
    pieces: &[&'static str],
    trailers: Option<HeaderMap>,
) -> (Result<Came, Fault>, Option<Result<Came, Fault>>) {
    beside(stage, async {
        let run = stage.begin().unwrap().0;
        let request = asked(&run, pieces, trailers.clone()).await;
        let response = match &request {
            Ok(Came::Passed(_)) => Some(answered(&run, pieces, trailers).await),
            _ => None,
        };
        run.close(closing()).await;
        (request, response)
    })
}

fn one(text: &Text) -> Stage {
    stage(&[("wasm", text)], json!([{"plugin": "wasm"}]))
}

#[test]
fn a_head_that_was_stopped_is_changed_and_goes_on() {
    let change = |map: u32| format!("(call $must (call $add_header_map_value (i32.const {map}) `x-later` `1`))");
    let stage = one(&later(&[&change(0), CONTINUE[0]].concat()).on_request_headers(STOP));
    let (request, _) = exchange(&stage, &["one", "two"], None);
    let request = passed(&request);
    assert_eq!(request.headers["x-later"], "1");
    assert_eq!(request.pieces, ["one", "two"], "the body is as it came");
    let stage = one(&later(&[&change(2), CONTINUE[1]].concat()).on_response_headers(STOP));
    let (_, response) = exchange(&stage, &["one", "two"], trailers());
    let response = response.unwrap();
    assert_eq!(passed(&response).headers["x-later"], "1");
    assert_eq!(passed(&response).trailers, trailers());
}

#[test]
fn what_was_stopped_may_be_answered_or_ended() {
    let answer = "(call $must (call $send_local_response (i32.const 403) `` `no` (i32.const 0) (i32.const 0) (i32.const -1)))";
    for on in ["proxy_on_request_headers", "proxy_on_request_body"] {
        let (request, _) = exchange(&one(&later(answer).on(on, BODY, STOP)), &["one", "two"], None);
        assert!(matches!(request, Ok(Came::Answered(StatusCode::FORBIDDEN))), "{on}: {request:?}");
    }
    let (request, _) = exchange(&one(&later(answer).on("proxy_on_request_trailers", TRAILERS, STOP)), &["one"], trailers());
    assert!(matches!(request, Ok(Came::Answered(StatusCode::FORBIDDEN))), "{request:?}");
    let (_, response) = exchange(&one(&later(answer).on_response_headers(STOP)), &["one"], None);
    assert!(matches!(response, Some(Ok(Came::Answered(StatusCode::FORBIDDEN)))), "{response:?}");
    let close = "(call $must (call $close_stream (i32.const 0)))";
    let (request, _) = exchange(&one(&later(close).on_request_headers(STOP)), &["one"], None);
    assert_eq!(request.unwrap_err().reason(), Reason::FilterReset);
}

#[test]
fn a_body_is_held_until_its_end_and_shown_whole() {
    // It stops each piece but the last, and counts what it is shown.
    let code = "(if (result i32) (local.get $end)
            (then
                (call $must (call $set_buffer_bytes (i32.const BUFFER) (i32.const 0) (i32.const 0) `>`))
                (call $must (call $set_buffer_bytes (i32.const BUFFER) (i32.const 1000) (i32.const 0) `<`))
                (i32.const 0))
            (else (i32.const 1)))";
    let text = Text::default().on("proxy_on_request_body", BODY, &code.replace("BUFFER", "0")).on(
        "proxy_on_response_body",
        BODY,
        &code.replace("BUFFER", "1"),
    );
    let (request, response) = exchange(&one(&text), &["one", "two", "three"], None);
    assert_eq!(passed(&request).body(), ">onetwothree<");
    assert_eq!(passed(&response.unwrap()).body(), ">onetwothree<");
    // Trailers go on with what is held.
    let (request, _) = exchange(&one(&text), &["one", "two"], trailers());
    assert_eq!((passed(&request).body(), passed(&request).trailers.clone()), ("onetwo".to_owned(), trailers()));
}

#[test]
fn every_action_on_a_body_is_known() {
    // The action, and what passes of two pieces and an end.
    for (action, body) in [(0, Some("onetwo")), (1, Some("onetwo")), (2, Some("onetwo")), (3, Some("")), (9, Some(""))] {
        let text = later(CONTINUE[0]).on("proxy_on_request_body", BODY, &format!("(drop {STOP}) (i32.const {action})"));
        let (request, _) = exchange(&one(&text), &["one", "two"], None);
        assert_eq!(Some(passed(&request).body().as_str()), body, "action {action}");
    }
}

#[test]
fn every_action_on_a_head_is_known() {
    for (action, body) in [(0, "onetwo"), (1, "onetwo"), (2, "onetwo"), (3, "onetwo"), (4, "onetwo"), (77, "onetwo")] {
        let text = later(CONTINUE[0]).on_request_headers(&format!("(drop {STOP}) (i32.const {action})"));
        let (request, _) = exchange(&one(&text), &["one", "two"], None);
        assert_eq!(passed(&request).body(), body, "action {action}");
    }
}

#[test]
fn what_is_held_goes_on_between_two_pieces() {
    // The second piece comes only when the first has been read: who waits for it before it reads would wait for ever.
    let stage = one(&later(CONTINUE[0]).on(
        "proxy_on_request_body",
        BODY,
        &format!("(if (result i32) (local.get $end) (then (i32.const 0)) (else {STOP}))"),
    ));
    let body = beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let (pieces, piped) = tokio::sync::mpsc::channel(1);
        pieces.send(Bytes::from_static(b"first")).await.unwrap();
        let passed = passed_on(&run, request(&[]), Body::piped(piped)).await;
        let mut body = passed.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        pieces.send(Bytes::from_static(b"second")).await.unwrap();
        drop(pieces);
        let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        run.close(closing()).await;
        [first, second]
    });
    assert_eq!(body, ["first", "second"]);
}

#[test]
fn a_head_that_stops_alone_waits_for_its_body() {
    let entry = json!([{"plugin": "wasm", "allow_on_headers_stop_iteration": true}]);
    let with = |text: &Text| stage(&[("wasm", text)], entry.clone());
    let end = "(if (result i32) (local.get $end)
        (then (call $must (call $add_header_map_value (i32.const 0) `x-after` `1`)) (i32.const 0)) (else (i32.const 1)))";
    let text = Text::default().on_request_headers("(i32.const 1)").on("proxy_on_request_body", BODY, end);
    let (request, _) = exchange(&with(&text), &["one", "two"], None);
    let request = passed(&request);
    assert_eq!((request.body().as_str(), &request.headers["x-after"]), ("onetwo", &"1".parse().unwrap()));
    // Without its body there is nothing to wait for but a call.
    let text = later(CONTINUE[0]).on_request_headers(STOP);
    let (request, _) = exchange(&with(&text), &[], None);
    assert_eq!(passed(&request).body(), "");
}

#[test]
fn trailers_are_stopped_and_changed() {
    let change = "(call $must (call $add_header_map_value (i32.const MAP) `x-more` `2`))";
    let request = later(&[&change.replace("MAP", "1"), CONTINUE[0]].concat()).on("proxy_on_request_trailers", TRAILERS, STOP);
    let (came, _) = exchange(&one(&request), &["one"], trailers());
    assert_eq!(passed(&came).trailers.as_ref().unwrap()["x-more"], "2");
    let response = later(&[&change.replace("MAP", "3"), CONTINUE[1]].concat()).on("proxy_on_response_trailers", TRAILERS, STOP);
    let (_, came) = exchange(&one(&response), &["one"], trailers());
    assert_eq!(passed(&came.unwrap()).trailers.as_ref().unwrap()["x-more"], "2");
}

#[test]
fn what_is_held_is_bounded() {
    let limits = Limits { body_bytes: 5, ..Limits::default() };
    let with = |text: &Text| stage_with(limits, &[("wasm", text)], json!([{"plugin": "wasm"}]));
    let holds = |name: &str| Text::default().on(name, BODY, "(i32.const 1)");
    let (request, _) = exchange(&with(&holds("proxy_on_request_body")), &["one", "two"], None);
    assert_eq!(request.unwrap_err().reason(), Reason::BodyTooLarge);
    let (_, response) = exchange(&with(&holds("proxy_on_response_body")), &["one", "two"], None);
    let fault = response.unwrap().unwrap_err();
    assert_eq!((fault.reason(), fault.status()), (Reason::BodyTooLarge, StatusCode::INTERNAL_SERVER_ERROR));
    // At the mark nothing more is read, until the filter goes on.
    let stops = format!("(drop {STOP}) (i32.const 2)");
    let (request, _) =
        exchange(&with(&later(CONTINUE[0]).on("proxy_on_request_body", BODY, &stops)), &["one", "two", "three"], None);
    assert_eq!(passed(&request).body(), "onetwothree");
}

#[test]
fn several_filters_hold_one_body() {
    let hold = |mark: &str| {
        Text::default().on(
            "proxy_on_request_body",
            BODY,
            &format!(
                "(if (result i32) (local.get $end)
                (then (call $must (call $set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 0) `{mark}`)) (i32.const 0))
                (else (i32.const 1)))"
            ),
        )
    };
    let late = later(CONTINUE[0]).on("proxy_on_request_body", BODY, STOP);
    let plugins = [("one", &hold("1")), ("late", &late), ("two", &hold("2"))];
    for order in [["one", "late", "two"], ["late", "one", "two"], ["one", "two", "late"]] {
        let filters: Vec<Value> = order.iter().map(|plugin| json!({"plugin": plugin})).collect();
        let (request, _) = exchange(&stage(&plugins, Value::from(filters)), &["a", "b", "c"], None);
        assert_eq!(passed(&request).body(), "21abc", "{order:?}");
    }
}

#[test]
fn a_vm_that_fails_meanwhile_gives_back_what_it_had() {
    let trap = |on_error: &str| {
        let text = later("(call $must (call $add_header_map_value (i32.const 0) `x-half` `1`)) unreachable");
        let text = text.on_request_headers(STOP);
        stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": on_error}]))
    };
    let (request, _) = exchange(&trap("deny"), &["one", "two"], None);
    assert_eq!(request.unwrap_err().reason(), Reason::FilterFailed);
    let (request, _) = exchange(&trap("skip"), &["one", "two"], None);
    let request = passed(&request);
    assert_eq!(request.body(), "onetwo");
    assert_eq!(request.headers["x-tenant"], "blue");
    assert!(!request.headers.contains_key("x-half"));
    // The same with a body that it holds.
    let text = later("unreachable").on("proxy_on_request_body", BODY, STOP);
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}]));
    let (request, _) = exchange(&stage, &["one", "two", "three"], None);
    assert_eq!(passed(&request).body(), "onetwothree");
}

#[test]
fn a_failure_at_one_message_loses_nothing_of_the_other() {
    let text =
        Text::default().on("proxy_on_request_body", BODY, "(i32.eqz (local.get $end))").on_response_headers("unreachable");
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}]));
    let pieces = beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let (pieces, piped) = tokio::sync::mpsc::channel(1);
        let passed = passed_on(&run, request(&[]), Body::piped(piped)).await;
        let mut body = passed.into_body();
        pieces.send(Bytes::from_static(b"held")).await.unwrap();
        let next = async {
            let frame = body.frame().await.unwrap().unwrap();
            (frame.into_data().unwrap(), body)
        };
        let mut next = std::pin::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending(), "it is held");
        passed_back(&run, response(), Body::empty()).await;
        // It goes on at once, although nothing comes behind it.
        let (held, mut body) = next.await;
        pieces.send(Bytes::from_static(b"behind")).await.unwrap();
        drop(pieces);
        let behind = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        let facts = run.close(closing()).await;
        assert_eq!(facts[0].outcome, "skipped");
        assert!(facts[0].error.as_deref().unwrap().starts_with("it trapped"), "{:?}", facts[0].error);
        [held, behind]
    });
    assert_eq!(pieces, ["held", "behind"]);
    assert_eq!(stage.host.metrics().held_bytes.value(), 4, "until it is dropped");
    drop(pieces);
    assert_eq!(stage.host.metrics().held_bytes.value(), 0);
}

#[test]
fn what_a_vm_lost_while_others_took_their_time_goes_before_what_they_let_on() {
    let slow = later(CONTINUE[0]).on("proxy_on_request_trailers", TRAILERS, STOP);
    let lost =
        Text::default().on("proxy_on_request_body", BODY, "(i32.eqz (local.get $end))").on_response_headers("unreachable");
    let filters = json!([{"plugin": "slow"}, {"plugin": "lost", "on_error": "skip"}]);
    let stage = stage(&[("slow", &slow), ("lost", &lost)], filters);
    let came = beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let body = Body::scripted([Bytes::from_static(b"held")], trailers());
        let passed = passed_on(&run, request(&[]), body).await;
        let mut came = std::pin::pin!(passed.into_body().collect());
        assert!(futures_util::poll!(&mut came).is_pending(), "the trailers are stopped, behind a body that is held");
        passed_back(&run, response(), Body::empty()).await;
        let came = came.await.unwrap();
        run.close(closing()).await;
        (came.trailers().cloned(), came.to_bytes())
    });
    assert_eq!(came, (trailers(), Bytes::from_static(b"held")));
}

#[test]
fn what_a_lost_vm_has_of_an_exchange_that_ends_is_dropped() {
    let text = Text::default().on("proxy_on_request_body", BODY, "(i32.const 1)").on_response_headers("unreachable");
    for on_error in ["skip", "deny"] {
        let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": on_error}]));
        beside(&stage, async {
            let run = stage.begin().unwrap().0;
            let (pieces, piped) = tokio::sync::mpsc::channel(1);
            let passed = passed_on(&run, request(&[]), Body::piped(piped)).await;
            let mut body = passed.into_body();
            pieces.send(Bytes::from_static(b"held")).await.unwrap();
            assert!(futures_util::poll!(std::pin::pin!(body.frame())).is_pending(), "it is held");
            assert_eq!(stage.host.metrics().held_bytes.value(), 4);
            let mut answer = Response::from_parts(response(), Body::empty());
            assert_eq!(run.response(&mut answer, Instant::now()).await.is_ok(), on_error == "skip");
            drop(body);
            run.close(closing()).await;
        });
        assert_eq!(stage.host.metrics().held_bytes.value(), 0, "{on_error}");
    }
}

#[test]
fn an_exchange_that_is_given_up_while_it_waits_leaves_nothing() {
    let stage = one(&Text::default().on_request_headers("(i32.const 1)").on(
        "proxy_on_log",
        "(param i32)",
        "(call $must (call $define_metric (i32.const 0) `logged` (i32.const 0)))
        (call $must (call $increment_metric (i32.load (i32.const 0)) (i64.const 1)))",
    ));
    beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(5), asked(&run, &["one"], None)).await;
        assert!(given_up.is_err(), "nobody goes on with it");
        run.close(closing()).await;
    });
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    assert!(page.text().contains("metric=\"logged\"} 1"), "{}", page.text());
}

#[test]
fn timers_tick_until_they_are_stopped() {
    let text = Text::default()
        .on(
            "proxy_on_configure",
            "(param i32 i32) (result i32)",
            "(call $must (call $set_tick_period_milliseconds (i32.const 1))) (i32.const 1)",
        )
        .on(
            "proxy_on_tick",
            "(param i32)",
            "(call $must (call $define_metric (i32.const 0) `ticks` (i32.const 0)))
            (call $must (call $increment_metric (i32.load (i32.const 0)) (i64.const 1)))
            (call $must (call $get_metric (i32.load (i32.const 0)) (i32.const 8)))
            (if (i32.eq (i32.load (i32.const 8)) (i32.const 3)) (then
                (call $must (call $set_tick_period_milliseconds (i32.const 0)))))",
        );
    let stage = one(&text);
    let ticks = || {
        let mut page = tidegate_gateway::telemetry::page::Page::default();
        stage.host.write(&mut page);
        page.text().lines().find_map(|line| line.split_once("metric=\"ticks\"} ")?.1.parse::<u32>().ok())
    };
    beside(&stage, async {
        let run = stage.begin().unwrap().0;
        passed(&asked(&run, &[], None).await);
        while ticks() < Some(3) {
            tokio::task::yield_now().await;
        }
        // It has stopped its timer: another one would be noticed by now.
        tokio::time::timeout(std::time::Duration::from_millis(20), std::future::pending::<()>()).await.unwrap_err();
        run.close(closing()).await;
    });
    assert_eq!(ticks(), Some(3));
}
