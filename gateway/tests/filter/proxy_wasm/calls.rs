//! Calls of a filter's own: HTTP, gRPC with one message, and gRPC as a stream.

use super::{
    driven::{Came, asked, beside, passed},
    written::{Text, pairs, stage_with},
};
use crate::setting::{Stage, closing};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::json;
use std::cell::RefCell;
use tidegate_gateway::filter::{Answer, CallError, Collected, Errand, Instances, Limits, Received, Sent};
use tokio::sync::mpsc;

/// Stops each request's head, and lets it go on from where a callback says so.
fn text() -> Text {
    Text::default().with("(global $stopped (mut i32) (i32.const 0))")
}

/// Goes on with what was stopped, after it has noted what is at 0, as long as 4 says, as this field.
fn goes_on(field: &str) -> String {
    format!(
        "(call $must (call $set_effective_context (global.get $stopped)))
        (call $must (call $add_header_map_value (i32.const 0) `{field}` (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (call $must (call $continue_stream (i32.const 0)))"
    )
}

fn data(at: usize, bytes: &[u8]) -> String {
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{data}\")")
}

const HTTP_RESPONSE: &str =
    "(param $context i32) (param $call i32) (param $fields i32) (param $body i32) (param $trailers i32)";
const GRPC: &str = "(param $context i32) (param $call i32) (param $what i32)";

/// Makes an HTTP call from a request's head.
fn http_call(upstream: &str, fields: &[(&str, &str)]) -> Text {
    let list = pairs(fields);
    text().with(&data(8192, &list)).on_request_headers(&format!(
        "(global.set $stopped (local.get $context))
        (if (result i32) (call $http_call `{upstream}` (i32.const 8192) (i32.const {}) `ping` (i32.const 0) (i32.const 0)
            (i32.const 100) (i32.const 12))
            (then (call $must (call $add_header_map_value (i32.const 0) `x-refused` `1`)) (i32.const 0))
            (else (i32.const 1)))",
        list.len()
    ))
}

const USUAL: [(&str, &str); 5] =
    [(":method", "POST"), (":path", "/check?a=b"), (":authority", "api.example.com"), ("x-key", "1"), ("host", "evil")];

fn one(limits: Limits, text: &Text) -> (Stage, mpsc::Receiver<Errand>) {
    let mut stage = stage_with(limits, &[("wasm", text)], json!([{"plugin": "wasm"}]));
    let (errands, sent) = mpsc::channel(16);
    stage.instances = Instances::new(errands);
    (stage, sent)
}

/// One exchange whose filter's calls are made by `make`; what they asked for.
fn exchange(text: &Text, make: impl AsyncFn(Errand)) -> (Result<Came, tidegate_gateway::fault::Fault>, Vec<String>) {
    let (stage, mut errands) = one(Limits::default(), text);
    let made = RefCell::new(Vec::new());
    let came = beside(&stage, async {
        let run = stage.begin().unwrap().0;
        let making = async {
            while let Some(errand) = errands.recv().await {
                made.borrow_mut().push(format!("{} {} {}", errand.plugin, errand.request.method(), errand.request.uri()));
                make(errand).await;
            }
            std::future::pending().await
        };
        let came = tokio::select! {
            came = asked(&run, &["body"], None) => came,
            () = making => unreachable!("it goes on for ever"),
        };
        run.close(closing()).await;
        came
    });
    (came, made.into_inner())
}

/// Answers the whole of a call.
fn whole(errand: Errand, answer: Result<Response<Collected>, CallError>) {
    let Answer::Whole(to) = errand.answer else { panic!("{errand:?}") };
    to.send(answer).expect("the filter waits for it");
}

fn collected(body: &'static [u8], trailers: &[(&'static str, &'static str)]) -> Collected {
    let trailers: HeaderMap = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Collected { body: Bytes::from_static(body), trailers }
}

#[test]
fn an_http_call_is_answered_while_the_exchange_waits() {
    let text = http_call("api", &USUAL).on(
        "proxy_on_http_call_response",
        HTTP_RESPONSE,
        &format!(
            "(if (i32.ne (local.get $fields) (i32.const 2)) (then unreachable))
            (if (i32.ne (local.get $body) (i32.const 4)) (then unreachable))
            (if (i32.ne (local.get $trailers) (i32.const 1)) (then unreachable))
            (call $must (call $get_header_map_value (i32.const 7) `x-end` (i32.const 0) (i32.const 4)))
            (call $must (call $get_header_map_value (i32.const 6) `:status` (i32.const 0) (i32.const 4)))
            {}
            (call $must (call $get_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4)))
            (call $must (call $add_header_map_value (i32.const 0) `x-body` (i32.load (i32.const 0)) (i32.load (i32.const 4))))",
            goes_on("x-status")
        ),
    );
    let (came, made) = exchange(&text, async |errand: Errand| {
        let fields = errand.request.headers();
        assert_eq!((fields["x-key"].as_bytes(), fields.len()), (&b"1"[..], 1), "where it goes is not the fields' to say");
        assert!(matches!(errand.request.body(), Sent::Whole(body, _) if body == "ping"));
        let response = Response::builder().status(StatusCode::ACCEPTED).header("x-a", "b");
        whole(errand, Ok(response.body(collected(b"pong", &[("x-end", "1")])).unwrap()));
    });
    assert_eq!(made, ["wasm POST https://api.example.com:443/check?a=b"]);
    let passed = passed(&came);
    assert_eq!((&passed.headers["x-status"], &passed.headers["x-body"]), (&"202".parse().unwrap(), &"pong".parse().unwrap()));
    assert_eq!(passed.body(), "body");
}

#[test]
fn a_call_that_fails_is_answered_all_the_same() {
    let text = http_call("api", &USUAL).on(
        "proxy_on_http_call_response",
        HTTP_RESPONSE,
        &format!(
            "(call $must (call $get_header_map_value (i32.const 6) `:status` (i32.const 0) (i32.const 4))) {}",
            goes_on("x-status")
        ),
    );
    for (error, status) in [(CallError::Timeout, "504"), (CallError::NotPermitted, "403"), (CallError::Connect, "503")] {
        let (came, _) = exchange(&text, async |errand| whole(errand, Err(error)));
        assert_eq!(passed(&came).headers["x-status"], status, "{error:?}");
    }
    let (came, _) = exchange(&text, async |errand: Errand| drop(errand));
    assert_eq!(passed(&came).headers["x-status"], "503", "a worker that ends answers, too");
}

#[test]
fn what_is_wrong_with_a_call_is_said_at_once() {
    let without = |missing: &str| -> Vec<(&str, &str)> { USUAL.into_iter().filter(|(name, _)| *name != missing).collect() };
    let rows = [
        ("nobody", USUAL.to_vec()),
        ("outbound|99||api.example.com", USUAL.to_vec()),
        ("api", without(":method")),
        ("api", without(":path")),
        ("api", without(":authority")),
        ("api", [&without(":path")[..], &[(":path", "no-path")]].concat()),
        ("api", [&without(":method")[..], &[(":method", "CONNECT")]].concat()),
        ("api", [&USUAL[..], &[("x-bad", "a\nb")]].concat()),
    ];
    for (upstream, fields) in rows {
        let (came, made) = exchange(&http_call(upstream, &fields), async |errand| panic!("{errand:?}"));
        assert!(passed(&came).headers.contains_key("x-refused"), "{upstream} {fields:?}");
        assert!(made.is_empty());
    }
    for upstream in ["api", "api.example.com", "outbound|443||api.example.com"] {
        let text = http_call(upstream, &USUAL).on("proxy_on_http_call_response", HTTP_RESPONSE, &goes_on("x-none"));
        let (came, _) = exchange(&text, async |errand| whole(errand, Err(CallError::Connect)));
        assert!(passed(&came).headers.contains_key("x-none"), "{upstream}");
    }
}

#[test]
fn calls_are_counted_and_bounded() {
    let many = text().with(&data(8192, &pairs(&USUAL))).on_request_headers(&format!(
        "(local $made i32)
        (block (loop
            (br_if 1 (call $http_call `api` (i32.const 8192) (i32.const {}) `` (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 12)))
            (local.set $made (i32.add (local.get $made) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $made) (i32.const 100)))))
        (call $must (call $define_metric (i32.const 1) `made` (i32.const 0)))
        (call $must (call $record_metric (i32.load (i32.const 0)) (i64.extend_i32_u (local.get $made))))
        (i32.const 0)",
        pairs(&USUAL).len()
    ));
    for (limits, made) in
        [(Limits { calls_per_exchange: 3, ..Limits::default() }, 3), (Limits { calls: 2, ..Limits::default() }, 2)]
    {
        let (stage, _errands) = one(limits, &many);
        beside(&stage, async {
            let run = stage.begin().unwrap().0;
            passed(&asked(&run, &[], None).await);
            run.close(closing()).await;
        });
        let mut page = tidegate_gateway::telemetry::page::Page::default();
        stage.host.write(&mut page);
        assert!(page.text().contains(&format!("metric=\"made\"}} {made}\n")), "{}", page.text());
        assert_eq!(stage.host.metrics().calls_failed.value(), 1);
    }
}

#[test]
fn what_a_call_sends_is_held_until_it_is_sent() {
    let text = http_call("api", &USUAL);
    let (stage, mut errands) = one(Limits { held_bytes: "ping".len() * 2 - 1, ..Limits::default() }, &text);
    let metrics = stage.host.metrics();
    beside(&stage, async {
        let run = stage.begin().unwrap().0;
        {
            let mut waiting = std::pin::pin!(asked(&run, &[], None));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            let errand = errands.recv().await.unwrap();
            assert_eq!(metrics.held_bytes.value(), 4);
            let other = stage.begin().unwrap().0;
            assert_eq!(passed(&asked(&other, &[], None).await).headers["x-refused"], "1", "there is no room for another");
            other.close(closing()).await;
            assert_eq!((metrics.held_bytes.value(), metrics.held_refused.value()), (4, 1));
            drop(errand);
        }
        run.close(closing()).await;
    });
    assert_eq!(metrics.held_bytes.value(), 0);
}

fn grpc_call(upstream: &str) -> Text {
    let metadata = pairs(&[("x-meta", "1")]);
    text().with(&data(8192, &metadata)).on_request_headers(&format!(
        "(global.set $stopped (local.get $context))
        (if (result i32) (i32.eq (i32.const 4) (call $grpc_call `{upstream}` `pkg.Service` `Method` (i32.const 8192) (i32.const {})
            `ask` (i32.const 100) (i32.const 12)))
            (then (call $must (call $add_header_map_value (i32.const 0) `x-refused` `1`)) (i32.const 0))
            (else (i32.const 1)))",
        metadata.len()
    ))
}

#[test]
fn a_grpc_call_brings_its_message_or_its_status() {
    let text = grpc_call("api")
        .on(
            "proxy_on_grpc_receive",
            GRPC,
            &format!(
                "(if (i32.ne (local.get $what) (i32.const 4)) (then unreachable))
                (call $must (call $get_buffer_bytes (i32.const 5) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4))) {}",
                goes_on("x-message")
            ),
        )
        .on(
            "proxy_on_grpc_close",
            GRPC,
            &format!(
                "(call $must (call $get_status (i32.const 20) (i32.const 0) (i32.const 4)))
                (if (i32.ne (local.get $what) (i32.load (i32.const 20))) (then unreachable)) {}",
                goes_on("x-closed")
            ),
        );
    let good: &[(&str, &str)] = &[("grpc-status", "0")];
    let bad: &[(&str, &str)] = &[("grpc-status", "5"), ("grpc-message", "gone")];
    for (body, trailers, field, value) in [
        (&b"\0\0\0\0\x04tell"[..], good, "x-message", "tell"),
        (b"", bad, "x-closed", "gone"),
        (b"\0\0\0\0\x09tell", good, "x-closed", "the answer has no whole message"),
        (b"\0\0\0\0\x04tell", &[], "x-closed", "the answer ended without a status"),
    ] {
        let (came, made) = exchange(&text, async |errand: Errand| {
            let fields = errand.request.headers();
            assert_eq!(
                (&fields["content-type"], &fields["te"], &fields["x-meta"]),
                (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap(), &"1".parse().unwrap())
            );
            assert!(matches!(errand.request.body(), Sent::Whole(body, _) if body == "\0\0\0\0\x03ask"));
            whole(errand, Ok(Response::new(collected(body, trailers))));
        });
        assert_eq!(made, ["wasm POST https://api.example.com:443/pkg.Service/Method"]);
        assert_eq!(passed(&came).headers[field], value, "{body:?}");
    }
    let (came, _) = exchange(&text, async |errand| whole(errand, Err(CallError::Timeout)));
    assert_eq!(passed(&came).headers["x-closed"], "it took too long");
    let (came, _) = exchange(&grpc_call("nobody"), async |errand| panic!("{errand:?}"));
    assert!(passed(&came).headers.contains_key("x-refused"));
}

#[test]
fn a_grpc_stream_carries_messages_both_ways() {
    let text = text()
        .on_request_headers(
            "(global.set $stopped (local.get $context))
            (call $must (call $grpc_stream `api` `pkg.Service` `Method` (i32.const 0) (i32.const 0) (i32.const 12)))
            (call $must (call $grpc_send (i32.load (i32.const 12)) `one` (i32.const 0)))
            (i32.const 1)",
        )
        .on(
            "proxy_on_grpc_receive",
            GRPC,
            // Sends back what it is sent, and then ends its side.
            "(call $must (call $get_buffer_bytes (i32.const 5) (i32.const 0) (i32.const 100) (i32.const 0) (i32.const 4)))
            (call $must (call $grpc_send (local.get $call) (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 1)))",
        )
        .on(
            "proxy_on_grpc_receive_trailing_metadata",
            GRPC,
            "(call $must (call $get_header_map_value (i32.const 5) `grpc-status` (i32.const 0) (i32.const 4)))",
        )
        .on(
            "proxy_on_grpc_close",
            GRPC,
            &format!("(call $must (call $get_status (i32.const 20) (i32.const 0) (i32.const 4))) {}", goes_on("x-closed")),
        );
    let (came, _) = exchange(&text, async |errand: Errand| {
        let Answer::Streamed(to) = errand.answer else { panic!("it is no stream") };
        let Sent::Streamed(mut sent) = errand.request.into_body() else { panic!("it is no stream") };
        assert_eq!(sent.recv().await.as_deref(), Some(&b"\0\0\0\0\x03one"[..]));
        to.send(Received::Head(Box::new(Response::new(()).into_parts().0))).await.unwrap();
        // In two pieces, neither of which is a message.
        to.send(Received::Data(Bytes::from_static(b"\0\0\0\0\x04ec"))).await.unwrap();
        to.send(Received::Data(Bytes::from_static(b"ho"))).await.unwrap();
        assert_eq!(sent.recv().await.as_deref(), Some(&b"\0\0\0\0\x04echo"[..]));
        assert_eq!(sent.recv().await, None, "its side has ended");
        let trailers = [("grpc-status", "0"), ("grpc-message", "bye")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        to.send(Received::Trailers(trailers.into_iter().collect())).await.unwrap();
        to.send(Received::Ended).await.unwrap();
    });
    assert_eq!(passed(&came).headers["x-closed"], "bye");
}

#[test]
fn a_stream_ends_with_its_last_message_although_there_is_no_room_for_it() {
    let text = text().on_request_headers(
        "(call $must (call $grpc_stream `api` `pkg.Service` `Method` (i32.const 0) (i32.const 0) (i32.const 12)))
        (call $must (call $grpc_send (i32.load (i32.const 12)) `fits` (i32.const 0)))
        (if (i32.ne (call $grpc_send (i32.load (i32.const 12)) `fits no more` (i32.const 1)) (i32.const 10)) (then unreachable))
        (if (i32.ne (call $grpc_send (i32.load (i32.const 12)) `late` (i32.const 0)) (i32.const 2)) (then unreachable))
        (i32.const 0)",
    );
    let (stage, mut errands) = one(Limits { held_bytes: 16, ..Limits::default() }, &text);
    beside(&stage, async {
        let run = stage.begin().unwrap().0;
        passed(&asked(&run, &[], None).await);
        let errand = errands.recv().await.unwrap();
        let Sent::Streamed(mut sent) = errand.request.into_body() else { panic!("it is no stream") };
        assert_eq!(sent.recv().await.as_deref(), Some(&b"\0\0\0\0\x04fits"[..]));
        assert_eq!(sent.recv().await, None, "its side has ended");
        run.close(closing()).await;
    });
    let metrics = stage.host.metrics();
    assert_eq!((metrics.failures.value(), metrics.held_bytes.value()), (0, 0));
    assert!(metrics.held_refused.value() >= 1);
}

#[test]
fn a_stream_that_is_cancelled_ends_without_a_word() {
    let text = text().on_request_headers(
        "(call $must (call $grpc_stream `api` `pkg.Service` `Method` (i32.const 0) (i32.const 0) (i32.const 12)))
        (call $must (call $grpc_cancel (i32.load (i32.const 12))))
        (if (i32.ne (call $grpc_cancel (i32.load (i32.const 12))) (i32.const 1)) (then unreachable))
        (if (i32.ne (call $grpc_send (i32.load (i32.const 12)) `x` (i32.const 0)) (i32.const 2)) (then unreachable))
        (i32.const 0)",
    );
    let text = text.on("proxy_on_grpc_close", GRPC, "unreachable");
    let (stage, mut errands) = one(Limits::default(), &text);
    beside(&stage, async {
        let run = stage.begin().unwrap().0;
        passed(&asked(&run, &[], None).await);
        let Answer::Streamed(to) = errands.recv().await.unwrap().answer else { panic!("it is no stream") };
        to.closed().await;
        run.close(closing()).await;
    });
    assert_eq!(stage.host.metrics().failures.value(), 0);
}
