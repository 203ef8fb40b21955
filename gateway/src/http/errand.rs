//! The calls that filters make: exchanges like any other, but for who asks. No filters run on them, so that none can call
//! itself for ever.

use super::{Request, body::Body, downstream::Downstream, exchange};
use crate::{
    filter::{CallError, Errand},
    listen::Peer,
    worker::Worker,
};
use ::http::Response;
use bytes::{Bytes, BytesMut};
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
    let Errand { plugin, request, timeout, body_bytes, mut answer } = errand;
    let called = tokio::time::timeout(timeout, call(&worker, &plugin, request, body_bytes));
    // Whoever asked may have gone: then nobody needs the answer, and the exchange ends as one whose caller left.
    let outcome = tokio::select! {
        called = called => called.unwrap_or(Err(CallError::Timeout)),
        () = answer.closed() => return,
    };
    let _nobody_may_be_waiting = answer.send(outcome);
}

async fn call(
    worker: &Rc<Worker>,
    plugin: &str,
    request: ::http::Request<Bytes>,
    limit: usize,
) -> Result<Response<Bytes>, CallError> {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let peer = Rc::new(Peer { address: nowhere, local: nowhere, certificate: None, server_name: None });
    let caller = Caller { principal: Some(format!("filter/{plugin}").into()), ..Caller::default() };
    let identity = Identity { source: nowhere.ip(), caller: Arc::new(caller) };
    let downstream = Rc::new(Downstream::of_filter(peer, identity));
    let request: Request = request.map(Body::full);
    let response = exchange::for_filter(worker, &downstream, request).await.map_err(|fault| refusal(fault.reason()))?;
    let (head, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|fault| refusal(fault.reason()))?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(CallError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, whole.freeze()))
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
