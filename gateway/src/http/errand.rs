//! The calls that filters make: exchanges like any other, but for who asks. No filters run on them, so that none can call
//! itself for ever.

use super::{Request, body::Body, downstream::Downstream, exchange};
use crate::{
    filter::{Answer, CallError, Collected, Errand, Held, Received, Sent},
    listen::Peer,
    worker::Worker,
};
use ::http::{HeaderMap, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};
use tidegate_policy::{Identity, Reason, identity::Caller};
use tokio::{sync::mpsc, task::JoinSet};

/// Makes the calls of a worker's filters until the worker ends.
pub async fn serve(worker: Rc<Worker>, mut errands: mpsc::Receiver<Errand>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            errand = errands.recv() => match errand {
                Some(errand) => drop(open.spawn_local(run(Rc::clone(&worker), errand))),
                None => return,
            },
            Some(ended) = open.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!("a filter's call panicked; please report this: {error}");
                }
            }
        }
    }
}

async fn run(worker: Rc<Worker>, errand: Errand) {
    let Errand { plugin, request, timeout, body_bytes, held, answer } = errand;
    // Whoever asked may have gone: then nobody needs the answer, and the exchange ends as one whose caller left.
    match answer {
        Answer::Whole(mut answer) => {
            let called = tokio::time::timeout(timeout, whole(&worker, &plugin, request, (body_bytes, held)));
            let outcome = tokio::select! {
                called = called => called.unwrap_or(Err(CallError::Timeout)),
                () = answer.closed() => return,
            };
            let _nobody_may_be_waiting = answer.send(outcome);
        }
        Answer::Streamed(answer) => {
            let ended = tokio::select! {
                ended = streamed(&worker, &plugin, request, &answer) => ended,
                () = answer.closed() => return,
            };
            let last = ended.map_or_else(Received::Failed, |()| Received::Ended);
            let _nobody_may_be_waiting = answer.send(last).await;
        }
    }
}

/// Makes a call, and brings its whole answer.
async fn whole(
    worker: &Rc<Worker>,
    plugin: &str,
    request: ::http::Request<Sent>,
    (limit, mut held): (usize, Held),
) -> Result<Response<Collected>, CallError> {
    let (head, mut body) = call(worker, plugin, request).await?.into_parts();
    let (mut whole, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|fault| refusal(fault.reason()))?.into_data() {
            Ok(data) if whole.len() + data.len() > limit => return Err(CallError::TooLarge),
            Ok(data) => {
                held.resize(whole.len() + data.len())?;
                whole.extend_from_slice(&data);
            }
            Err(last) => trailers = last.into_trailers().unwrap_or_default(),
        }
    }
    Ok(Response::from_parts(head, Collected { body: held.cover(whole.freeze()), trailers }))
}

/// Makes a call, and brings its answer as it comes, no faster than it is taken.
async fn streamed(
    worker: &Rc<Worker>,
    plugin: &str,
    request: ::http::Request<Sent>,
    answer: &mpsc::Sender<Received>,
) -> Result<(), CallError> {
    let (head, mut body) = call(worker, plugin, request).await?.into_parts();
    let gone = |_| CallError::Protocol;
    answer.send(Received::Head(Box::new(head))).await.map_err(gone)?;
    while let Some(frame) = body.frame().await {
        let piece = match frame.map_err(|fault| refusal(fault.reason()))?.into_data() {
            Ok(data) => Received::Data(data),
            Err(last) => Received::Trailers(last.into_trailers().unwrap_or_default()),
        };
        answer.send(piece).await.map_err(gone)?;
    }
    Ok(())
}

async fn call(worker: &Rc<Worker>, plugin: &str, request: ::http::Request<Sent>) -> Result<Response<Body>, CallError> {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let peer = Rc::new(Peer { address: nowhere, local: nowhere, certificate: None, server_name: None });
    let caller = Caller { principal: Some(format!("filter/{plugin}").into()), ..Caller::default() };
    let identity = Identity { source: nowhere.ip(), caller: Arc::new(caller) };
    let downstream = Rc::new(Downstream::of_filter(peer, identity));
    let request: Request = request.map(|sent| match sent {
        Sent::Whole(body, trailers) if trailers.is_empty() => Body::full(body),
        Sent::Whole(body, trailers) => Body::whole(body, trailers),
        Sent::Streamed(pieces) => Body::piped(pieces),
    });
    exchange::for_filter(worker, &downstream, request).await.map_err(|fault| refusal(fault.reason()))
}

/// What the filter is told of a failure; the call's own record says more.
fn refusal(reason: Reason) -> CallError {
    match reason {
        Reason::UnregisteredHost => CallError::UnknownTarget,
        Reason::MalformedTarget | Reason::BadFraming | Reason::HeaderTooLarge => CallError::Invalid,
        Reason::Timeout | Reason::DownstreamTimeout => CallError::Timeout,
        Reason::ResolveFailed | Reason::ConnectFailed | Reason::NoHealthyEndpoint | Reason::Overloaded => CallError::Connect,
        Reason::TlsFailed => CallError::Tls,
        Reason::BodyTooLarge => CallError::TooLarge,
        reason if reason.verdict() == Some(tidegate_policy::exchange::Verdict::Allowed) => CallError::Protocol,
        Reason::Internal | Reason::Draining | Reason::DownstreamClosed => CallError::Protocol,
        _ => CallError::NotPermitted,
    }
}
