//! Exchanges with bodies, beside what VMs do between callbacks.

use super::written::Text;
use crate::setting::{Stage, request, response};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use std::time::Instant;
use tidegate_gateway::{fault::Fault, filter::Run, http::body::Body};

/// What has passed of a message.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) headers: HeaderMap,
    pub(super) pieces: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Passed {
    pub(super) fn body(&self) -> String {
        String::from_utf8(self.pieces.concat()).unwrap()
    }
}

/// What came of a message that may have been answered instead.
#[derive(Debug)]
pub(super) enum Came {
    Passed(Box<Passed>),
    Answered(StatusCode),
}

/// Does `work` beside what VMs do between callbacks.
pub(crate) fn beside<T>(stage: &Stage, work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = stage.instances.keep() => unreachable!("it goes on for ever"),
            () = tokio::time::sleep(std::time::Duration::from_secs(20)) => panic!("it hangs"),
        }
    })
}

async fn read(headers: HeaderMap, mut body: Body) -> Result<Passed, Fault> {
    let (mut pieces, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => pieces.push(data),
            Err(last) => trailers = last.into_trailers().ok(),
        }
    }
    Ok(Passed { headers, pieces, trailers })
}

pub(super) async fn asked(run: &Run, pieces: &[&'static str], trailers: Option<HeaderMap>) -> Result<Came, Fault> {
    let body = Body::scripted(pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())), trailers);
    let mut request = Request::from_parts(request(&[]), body);
    match run.request(&mut request).await? {
        None => {
            let (head, body) = request.into_parts();
            let read = read(head.headers, body).await;
            match run.late_reply() {
                Some(reply) => Ok(Came::Answered(reply.status())),
                None => read.map(|passed| Came::Passed(Box::new(passed))),
            }
        }
        Some(reply) => Ok(Came::Answered(reply.status())),
    }
}

pub(super) async fn answered(run: &Run, pieces: &[&'static str], trailers: Option<HeaderMap>) -> Result<Came, Fault> {
    let body = Body::scripted(pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())), trailers);
    let mut response = Response::from_parts(response(), body);
    match run.response(&mut response, Instant::now()).await? {
        None => {
            let (head, body) = response.into_parts();
            read(head.headers, body).await.map(|passed| Came::Passed(Box::new(passed)))
        }
        Some(reply) => Ok(Came::Answered(reply.status())),
    }
}

pub(super) fn trailers() -> Option<HeaderMap> {
    Some([("x-last".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())
}

pub(super) fn passed(came: &Result<Came, Fault>) -> &Passed {
    match came {
        Ok(Came::Passed(passed)) => passed,
        other => panic!("{other:?}"),
    }
}

pub(crate) const BODY: &str = "(param $context i32) (param $size i32) (param $end i32) (result i32)";
pub(super) const TRAILERS: &str = "(param $context i32) (param $fields i32) (result i32)";

/// Stops the exchange's current phase, and does this in a timer a little later.
pub(super) fn later(code: &str) -> Text {
    Text::default()
        .with(
            "(global $stopped (mut i32) (i32.const 0))
            (func $stop (param $context i32) (result i32)
                (global.set $stopped (local.get $context))
                (call $must (call $set_tick_period_milliseconds (i32.const 1)))
                (i32.const 1))",
        )
        .on(
            "proxy_on_tick",
            "(param i32)",
            &format!(
                "(call $must (call $set_tick_period_milliseconds (i32.const 0)))
            (if (global.get $stopped) (then
                (call $must (call $set_effective_context (global.get $stopped)))
                (global.set $stopped (i32.const 0))
                {code}))"
            ),
        )
}

pub(super) const STOP: &str = "(call $stop (local.get $context))";
pub(super) const CONTINUE: [&str; 2] =
    ["(call $must (call $continue_stream (i32.const 0)))", "(call $must (call $continue_stream (i32.const 1)))"];
