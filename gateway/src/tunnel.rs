//! CONNECT and upgraded connections: bytes both ways, counted, and looked at only until it is known whether they begin
//! with a TLS ClientHello and whom that names.

mod buffers;
mod direction;
mod filtered;
mod splice;

pub use buffers::Buffers;
pub use splice::Pipes;

use crate::{fault::Fault, filter::Conduit, http::clock::Clock, record::OpenRecord, stream::Stream};
use buffers::BUFFER_BYTES;
use bytes::Bytes;
use direction::{Broken, Direction};
use std::{any::Any, future::poll_fn, io, rc::Rc, sync::Arc, task::Poll, time::Duration};
use tidegate_policy::{Host, Name, Reason, Snapshot, Target};

/// The upstream end of a tunnel, ready to be joined to a downstream one.
pub struct Joined {
    /// The stream.
    pub stream: Stream,
    /// Bytes of it that were read already.
    pub read: Bytes,
    /// What the tunnel's first bytes must agree with; none where they were decided as an HTTP request.
    pub agreement: Option<Agreement>,
    /// How long it may stay silent both ways.
    pub idle: Duration,
    /// How long the caller may take over its ClientHello.
    pub hello: Duration,
    /// What is kept for as long as the tunnel.
    pub kept: Option<Box<dyn Any>>,
    /// Where buffers come from, and pipes of the kernel's.
    pub spares: Rc<Spares>,
    /// The filters that its bytes go through, where there are any.
    pub conduit: Option<Box<Conduit>>,
}

/// What one worker has for its tunnels' bytes.
#[derive(Debug)]
pub struct Spares {
    /// For those that are copied.
    pub buffers: Buffers,
    /// For those that never leave the kernel.
    pub pipes: Pipes,
}

/// What was decided, for comparing it with the server name that the caller sends.
#[derive(Debug)]
pub struct Agreement {
    /// The policy that decided.
    pub snapshot: Arc<Snapshot>,
    /// The service it decided for; none in `open` mode.
    pub service: Option<Name>,
    /// The target it decided for.
    pub target: Target,
}

/// What the first bytes from the caller turned out to be.
enum Opening {
    /// Not enough of them yet.
    Unknown,
    /// Something that may pass.
    Passes,
}

/// Moves bytes both ways until both directions have ended, one has failed, or both have been silent too long. What happened
/// is in the record; `early` is what was read from the downstream already.
pub async fn run(mut downstream: Stream, early: Bytes, mut joined: Joined, record: &mut OpenRecord) {
    if let Some(conduit) = joined.conduit.take() {
        // In a box, so that tunnels without filters are no larger for it.
        return Box::pin(filtered::run(downstream, early, joined, *conduit, record)).await;
    }
    let Joined { stream: mut upstream, read, agreement, idle, hello, kept, spares, .. } = joined;
    let (mut up, mut down) = (Direction::holding(&early, &spares), Direction::holding(&read, &spares));
    drop((early, read));
    let clock = Clock::default();
    // Dropped once it has been held to: a tunnel that lives for days must not keep a policy of days ago in memory.
    let mut pending = agreement;
    let mut seen = usize::MAX;
    let mut moved = (0, 0);
    clock.arm(idle);
    let outcome = poll_fn(|cx| {
        if let Some(agreement) = &pending {
            let first = up.poll_fill(&mut downstream, cx);
            if up.held().len() != seen || up.ended {
                let began = seen == usize::MAX || seen == 0;
                seen = up.held().len();
                match agreement.opening(up.held(), up.ended || seen >= BUFFER_BYTES) {
                    Ok(Opening::Passes) => {
                        pending = None;
                        clock.arm(idle);
                    }
                    Ok(Opening::Unknown) if began && seen > 0 => clock.arm(hello),
                    Ok(Opening::Unknown) => {}
                    Err(fault) => return Poll::Ready(Err(fault)),
                }
            }
            if let Err(error) = first {
                return Poll::Ready(Err(left(&error)));
            }
        }
        if pending.is_none() {
            up.poll_pass(&mut downstream, &mut upstream, cx).map_err(|broken| match broken {
                Broken::From(error) => left(&error),
                Broken::To(error) => lost(&error),
            })?;
        }
        down.poll_pass(&mut upstream, &mut downstream, cx).map_err(|broken| match broken {
            Broken::From(error) => lost(&error),
            Broken::To(error) => left(&error),
        })?;
        if up.shut && down.shut {
            return Poll::Ready(Ok(()));
        }
        if moved != (up.bytes, down.bytes) && (pending.is_none() || up.held().is_empty()) {
            moved = (up.bytes, down.bytes);
            clock.arm(idle);
        }
        clock.poll_expired(cx).map(|()| Err(expired(pending.is_some() && !up.held().is_empty())))
    })
    .await;
    record.request_bytes(up.bytes);
    record.response_bytes(down.bytes);
    if let Err(fault) = outcome {
        record.failed(&fault);
    }
    drop(kept);
}

/// The caller's end failed.
fn left(error: &io::Error) -> Fault {
    Fault::new(Reason::DownstreamClosed, format!("the caller's end of the tunnel broke off: {error}"))
}

/// The upstream's end failed.
fn lost(error: &io::Error) -> Fault {
    let reason = if error.kind() == io::ErrorKind::TimedOut { Reason::Timeout } else { Reason::UpstreamProtocol };
    Fault::new(reason, format!("the upstream's end of the tunnel broke off: {error}"))
}

fn expired(within_hello: bool) -> Fault {
    if within_hello {
        return Fault::new(
            Reason::DownstreamTimeout,
            "the tunnel's TLS ClientHello was not complete within http_hello_timeout",
        );
    }
    Fault::new(Reason::Timeout, "the tunnel was silent both ways for longer than timeouts.idle or http_tunnel_timeout")
}

impl Agreement {
    /// What the first bytes are: a ClientHello must name the service that was decided. `complete` says that no more of
    /// them will come or fit.
    fn opening(&self, first: &[u8], complete: bool) -> Result<Opening, Fault> {
        // A TLS record, version 3.x. Anything else is not TLS, and was decided by its authority. A record of another type
        // than handshake (22) is no beginning, but there are servers that pass over one and read the ClientHello behind it.
        let tls = match first {
            [20..=23] => true,
            [20..=23, major, ..] => *major == 3,
            _ => false,
        };
        if !tls {
            return Ok(if first.is_empty() && !complete { Opening::Unknown } else { Opening::Passes });
        }
        let mut acceptor = rustls::server::Acceptor::default();
        let mut rest = first;
        while !rest.is_empty() {
            if !matches!(acceptor.read_tls(&mut rest), Ok(count) if count > 0) {
                break;
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => self.agrees(accepted.client_hello().server_name()).map(|()| Opening::Passes),
            Ok(None) if !complete => Ok(Opening::Unknown),
            Ok(None) | Err(_) => {
                let detail = "the tunnel begins like TLS, and its ClientHello cannot be read to check whom it names";
                Err(Fault::new(Reason::AuthorityMismatch, detail))
            }
        }
    }

    /// Whether a server name leads where the decision did. Without one there is nothing that could disagree.
    fn agrees(&self, name: Option<&str>) -> Result<(), Fault> {
        let Some(name) = name else { return Ok(()) };
        let mismatch = || {
            let detail = format!("the TLS server name {name:?} belongs to another service than {}", self.target.host);
            Fault::new(Reason::AuthorityMismatch, detail)
        };
        let host: Host = name.parse().map_err(|_| mismatch())?;
        if host == self.target.host {
            return Ok(());
        }
        let named = self.snapshot.service_for(&host).map(|service| &service.name);
        if self.service.is_some() && named == self.service.as_ref() { Ok(()) } else { Err(mismatch()) }
    }
}
