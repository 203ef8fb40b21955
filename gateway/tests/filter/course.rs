//! Exchanges that go as bytes say: with more or less of a body, trailers or none, both directions in turn or at once, or as
//! a tunnel; and calls of a filter's own that are answered, fail, or hear nothing. Nothing of it waits for a clock, except
//! where timers are to have their turn.

use crate::setting::{Stage, closing, request, response};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    ops::AddAssign,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};
use tidegate_gateway::{
    filter::{Answer, CallError, Collected, Errand, Instances, Limits, Received, Run, Sent, Way},
    http::body::Body,
    live::Live,
};
use tidegate_policy::target::Form;
use tokio::sync::mpsc;

/// How often everything is polled, before an exchange counts as one that waits for what nobody will do.
const PATIENCE: usize = 24;
/// A piece that is larger than what fits into most buffers, and one that is larger than what may be held.
const LARGE: &[u8] = &[b'l'; 20_000];

/// Where scripts run: with a credential of each kind. Nobody connects with them, so what is in them is of no interest.
pub(crate) fn stage(limits: Limits) -> Stage {
    Stage::empty(limits).holding(&[
        ("key", json!({"kind": "secret", "value": "material"})),
        ("ca", json!({"kind": "trust", "pem": "material"})),
        ("client", json!({"kind": "certificate", "chain": "material", "key": "material"})),
    ])
}

/// What their filters are granted.
pub(crate) fn grants(loosen_tls: bool) -> Value {
    json!({
        "services": ["other"], "endpoints": true, "credentials": ["key", "ca", "client"], "paths": ["/v1/*"],
        "loosen_tls": loosen_tls,
    })
}

/// What is said by one byte each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Course {
    pub(crate) request: u8,
    pub(crate) response: u8,
    pub(crate) calls: u8,
}

/// How often an exchange came to what is far from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Requests that their filters let go on.
    pub(crate) requests: u32,
    /// Calls that were answered.
    pub(crate) calls: u32,
    /// Streams whose end was sent to a filter.
    pub(crate) streams: u32,
    /// Requests that a secret was to go with.
    pub(crate) secrets: u32,
    /// Requests that were to go to another service.
    pub(crate) services: u32,
}

impl AddAssign for Reached {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.calls += other.calls;
        self.streams += other.streams;
        self.secrets += other.secrets;
        self.services += other.services;
    }
}

impl Course {
    /// How such exchanges come.
    pub(crate) fn form(self) -> Form {
        if self.request & 0x80 != 0 { Form::Tunnel } else { Form::Plain }
    }

    /// One exchange on `stage`, to its end.
    pub(crate) fn exchange(self, stage: &mut Stage) -> Reached {
        let reached = RefCell::new(Reached::default());
        let (errands, asked) = mpsc::channel(4);
        stage.instances = Instances::new(errands);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            // Calls outside of exchanges are held against it.
            let live = Live { snapshot: stage.snapshot(), ..Live::default() };
            stage.instances.attend(Arc::new(live)).await;
            let Ok(run) = stage.begin() else { return };
            let run = run.0;
            let work = async {
                // What is given up is dropped as it is, as when a caller leaves.
                tokio::select! {
                    biased;
                    () = self.message(&run, &reached) => {}
                    () = self.patience() => {}
                }
                // In a box, so that what is given up is gone before what follows.
                tokio::select! {
                    biased;
                    _facts = Box::pin(run.clone().close(closing())) => {}
                    () = self.patience() => {}
                }
                self.patience().await;
            };
            tokio::select! {
                biased;
                () = work => {}
                () = stage.instances.keep() => unreachable!("it goes on for ever"),
                () = self.answer(asked, &reached) => unreachable!("it goes on for ever"),
            }
        });
        stage.instances = Instances::default();
        reached.into_inner()
    }

    /// Lets everything else have its turn, and where it is to be so, the timers.
    async fn patience(self) {
        for _ in 0..PATIENCE {
            tokio::task::yield_now().await;
        }
        if self.calls >= 0xe0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            tokio::task::yield_now().await;
        }
    }

    async fn message(self, run: &Run, reached: &RefCell<Reached>) {
        if self.form() == Form::Tunnel {
            return self.tunnel(run).await;
        }
        let grpc: &[_] = if self.request & 0x10 != 0 { &[("content-type", "application/grpc")] } else { &[] };
        let mut request = Request::from_parts(request(grpc), body(self.request));
        let Ok(None) = run.request(&mut request).await else { return };
        reached.borrow_mut().requests += 1;
        if let Some(wish) = run.wish() {
            let (secrets, services) = (wish.has_secrets().into(), wish.service().is_some().into());
            *reached.borrow_mut() += Reached { secrets, services, ..Reached::default() };
        }
        // What was decided on, and what is the gateway's own, no filter changes.
        assert_eq!(request.headers()["host"], "api.example.com");
        assert_eq!(request.headers()["proxy-authorization"], "Bearer secret");
        assert!(request.uri().path().starts_with('/'), "{}", request.uri());
        assert!(request.headers().get_all("content-length").iter().count() <= 1);
        let upload = drained(request.into_body());
        if self.request & 0x20 != 0 {
            tokio::join!(upload, self.answered(run));
        } else {
            upload.await;
            if run.late_reply().is_none() {
                self.answered(run).await;
            }
        }
    }

    async fn answered(self, run: &Run) {
        let mut response = Response::from_parts(response(), body(self.response));
        match run.response(&mut response, Instant::now()).await {
            Ok(None) => {
                assert!((200..600).contains(&response.status().as_u16()), "{}", response.status());
                drained(response.into_body()).await;
            }
            Ok(Some(reply)) => drained(reply.into_body()).await,
            Err(_) => {}
        }
    }

    async fn tunnel(self, run: &Run) {
        let Ok(mut conduit) = run.conduit() else { return };
        for piece in pieces(self.request).into_iter().chain(pieces(self.response)) {
            for way in [Way::Up, Way::Down] {
                let room = conduit.room(way);
                if room > 0 {
                    conduit.push(way, piece.slice(..piece.len().min(room)));
                }
                if conduit.run(Waker::noop()).is_err() {
                    return;
                }
                conduit.out(way).clear();
                tokio::task::yield_now().await;
            }
        }
        for way in [Way::Down, Way::Up] {
            conduit.end(way);
            if conduit.run(Waker::noop()).is_err() {
                return;
            }
            conduit.out(way).clear();
        }
    }

    /// Answers the calls that filters make, each otherwise than the one before.
    async fn answer(self, mut asked: mpsc::Receiver<Errand>, reached: &RefCell<Reached>) {
        let (mut kept, mut kind) = (Vec::new(), self.calls);
        while let Some(Errand { request, answer, .. }) = asked.recv().await {
            if let Sent::Streamed(pieces) = request.into_body() {
                kept.push((Some(pieces), None));
            }
            match (kind % 4, answer) {
                (0, Answer::Whole(to)) => reached.borrow_mut().calls += u32::from(to.send(Ok(whole())).is_ok()),
                (1, Answer::Whole(to)) => drop(to.send(Err(CallError::Timeout))),
                (0 | 1, Answer::Streamed(to)) => {
                    // One that does not listen hears no more.
                    let told = stream(kind).into_iter().all(|received| to.try_send(received).is_ok());
                    reached.borrow_mut().streams += u32::from(told);
                    kept.push((None, Some(Answer::Streamed(to))));
                }
                (2, answer) => kept.push((None, Some(answer))),
                (_, answer) => drop(answer),
            }
            kind = kind.rotate_left(3);
        }
        std::future::pending().await
    }
}

fn whole() -> Response<Collected> {
    let collected = Collected { body: Bytes::from_static(b"pong"), trailers: trailers() };
    Response::builder().header("x-a", "b").body(collected).unwrap()
}

/// What a stream of gRPC brings: a message, half of one, and an end of some kind.
fn stream(kind: u8) -> Vec<Received> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap().into_parts().0;
    let message: &[u8] = if kind & 0x10 != 0 { b"\0\0\0\0\x04pong\0\0\0\0\x02ok" } else { b"\x01\0\0\0\x04pong" };
    let end = if kind & 0x20 != 0 { Received::Failed(CallError::Protocol) } else { Received::Ended };
    let trailers = Received::Trailers(trailers());
    vec![Received::Head(Box::new(head)), Received::Data(Bytes::from_static(message)), trailers, end]
}

fn trailers() -> HeaderMap {
    let fields = [("x-last", "1"), ("grpc-status", "7"), ("grpc-message", "no")];
    fields.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn pieces(how: u8) -> Vec<Bytes> {
    let piece = if how & 8 != 0 { LARGE } else { b"a piece" };
    vec![Bytes::from_static(piece); usize::from(how % 4)]
}

fn body(how: u8) -> Body {
    Body::scripted(pieces(how), (how & 4 != 0).then(trailers))
}

async fn drained(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// So little that scripts meet the limits.
pub(crate) fn limits() -> Limits {
    Limits {
        header_count: 24,
        header_bytes: 4 << 10,
        body_bytes: 48 << 10,
        attribute_count: 6,
        attribute_bytes: 1 << 10,
        event_count: 3,
        event_bytes: 1 << 10,
        kv_entries: 4,
        kv_bytes: 4 << 10,
        kv_key_bytes: 64,
        kv_value_bytes: 2 << 10,
        instruments: 4,
        ..Limits::default()
    }
}
