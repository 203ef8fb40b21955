//! HTTP on both sides. `exchange` is the spine; the rest is what it calls, named for its stage.

pub mod body;
pub mod clock;
mod deliver;
pub mod detour;
pub mod downstream;
pub mod drain;
pub mod errand;
pub mod exchange;
#[cfg(test)]
mod exchange_tests;
pub mod forward;
pub mod h1;
pub mod h2;
pub mod limits;
pub mod metrics;
mod recorded;
pub mod reply;
pub mod settings;
mod stall;
pub mod target;
mod together;

pub use metrics::Metrics;
pub use settings::{Context, Settings};

use crate::{
    fault::Fault,
    listen::{Connection, Peer, Spoken, greet},
    stream::Stream,
    worker::Worker,
};
use bytes::{Bytes, BytesMut};
use downstream::{Downstream, Within};
use std::rc::Rc;

/// A request in the making, whatever version of HTTP it came by.
pub type Request = ::http::Request<body::Body>;
/// A response in the making.
pub type Response = ::http::Response<body::Body>;

/// Serves a greeted connection until it ends.
pub async fn serve(worker: Rc<Worker>, connection: Connection) {
    let Connection { peer, stream, first, spoken, held } = connection;
    match spoken {
        Spoken::Http1 => {
            let caller = Caller { downstream: Rc::new(Downstream::new(peer)), worker };
            let Caller { downstream, worker } = &caller;
            h1::server::serve(stream, first, &caller, worker.terms(&downstream.clock)).await;
        }
        Spoken::Http2 => h2::serve(&worker, &peer, None, stream, first.freeze()).await,
    }
    drop(held);
}

/// Serves the requests that come through a tunnel to a port that speaks HTTP, as if they had come without it.
async fn serve_within(worker: Rc<Worker>, peer: Rc<Peer>, within: Within, mut stream: Stream, first: Bytes) {
    let limit = worker.http.settings.h1.idle_timeout;
    let Some((first, spoken)) = greet::tell(&mut stream, BytesMut::from(first), limit, &worker.drain).await else { return };
    match spoken {
        Spoken::Http1 => {
            let caller = Caller { downstream: Rc::new(Downstream::within(peer, within)), worker };
            let terms = caller.worker.terms(&caller.downstream.clock);
            h1::server::serve(stream, first, &caller, terms).await;
        }
        Spoken::Http2 => h2::serve(&worker, &peer, Some(&within), stream, first.freeze()).await,
    }
}

/// The exchanges of one HTTP/1 connection.
struct Caller {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
}

impl h1::server::Handler for Caller {
    async fn exchange(&self, request: &mut Request) -> exchange::Answer {
        exchange::exchange(&self.worker, &self.downstream, request).await
    }

    fn refuse(&self, fault: Fault) -> Response {
        self.worker.http.metrics.head_refused(fault.reason());
        exchange::refuse(&self.worker, &self.downstream, &Request::new(body::Body::empty()), &fault)
    }
}
