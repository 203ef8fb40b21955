//! The API's connections: accepted up to a limit, bounded in time, ended gracefully.

use crate::{control::Control, router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Largest request head, in bytes: tokens of common issuers stay below 8 KiB.
const HEAD_BYTES: usize = 32 * 1024;
/// After a failed accept (out of file descriptors) trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until `stop` resolves, then lets open requests finish within `api_drain_timeout`.
pub(crate) async fn until(control: Arc<Control>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router::router(Arc::clone(&control)));
    let permits = Arc::new(Semaphore::new(control.settings.api_connections));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok((stream, _)), Ok(permit)) => {
                let connection = connection(Arc::clone(&control), stream, service.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (Ok((stream, peer)), Err(_)) => {
                drop(stream);
                control.metrics.connections_refused.add(1);
                tracing::warn!(%peer, limit = control.settings.api_connections, "refused an API connection: api_connections are open");
            }
            (Err(error), _) => {
                tracing::warn!(%error, "the API could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    control.stopping.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(control.settings.api_drain_timeout, finished).await.is_err() {
        tracing::warn!("API requests were still open after api_drain_timeout; they are cut");
    }
}

async fn connection(control: Arc<Control>, stream: TcpStream, service: TowerToHyperService<axum::Router>) {
    // Answers are small; waiting to fill a segment only adds latency. Without the option they are slower, not wrong.
    stream.set_nodelay(true).ok();
    // A caller that never takes its answer would keep its connection, and a follower's place, for ever.
    let patience = Some(control.settings.api_body_timeout);
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_user_timeout(patience) {
        tracing::debug!(%error, "an API connection has no limit on how long its answer may stay untaken");
    }
    let mut stopping = control.stopping.subscribe();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(control.settings.api_header_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let early = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped => None,
    };
    let ended = match early {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an API connection ended early");
    }
}
