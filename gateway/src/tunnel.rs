//! CONNECT and upgraded connections: bytes both ways, counted, and looked at only until it is known whether they begin
//! with a TLS ClientHello and whom that names.

mod filtered;

use crate::{fault::Fault, filter::Conduit, http::clock::Clock, record::OpenRecord, stream::Stream};
use bytes::Bytes;
use std::{
    any::Any,
    cell::RefCell,
    future::poll_fn,
    io, mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_policy::{Host, Name, Reason, Snapshot, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes held for one direction; a ClientHello must fit. 64 KiB are four TLS records: more has not made copies
/// cheaper.
const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that one worker keeps for its tunnels' next bytes: 4 MiB.
const SPARE_BUFFERS: usize = 64;

/// A worker's spare buffers. A direction holds one only while it has bytes on their way, so that tunnels at rest cost no
/// memory.
#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Box<[u8]>>>);

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
    /// Where buffers come from.
    pub buffers: Rc<Buffers>,
    /// The filters that its bytes go through, where there are any.
    pub conduit: Option<Box<Conduit>>,
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

/// One direction.
struct Pipe<'a> {
    buffers: &'a Buffers,
    /// Empty while nothing is held.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    shut: bool,
    bytes: u64,
}

/// The end of a direction that failed.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// What the first bytes from the caller turned out to be.
enum Opening {
    /// Not enough of them yet.
    Unknown,
    /// Something that may pass.
    Passes,
}

/// Copies both ways until both directions have ended, one has failed, or both have been silent too long. What happened
/// is in the record; `early` is what was read from the downstream already.
pub async fn run(mut downstream: Stream, early: Bytes, mut joined: Joined, record: &mut OpenRecord) {
    if let Some(conduit) = joined.conduit.take() {
        // In a box, so that tunnels without filters are no larger for it.
        return Box::pin(filtered::run(downstream, early, joined, *conduit, record)).await;
    }
    let Joined { stream: mut upstream, read, agreement, idle, hello, kept, buffers, .. } = joined;
    let (mut up, mut down) = (Pipe::holding(&early, &buffers), Pipe::holding(&read, &buffers));
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
            if up.end != seen || up.ended {
                let began = seen == usize::MAX || seen == 0;
                seen = up.end;
                match agreement.opening(&up.buffer[..up.end], up.ended || up.end >= BUFFER_BYTES) {
                    Ok(Opening::Passes) => {
                        pending = None;
                        clock.arm(idle);
                    }
                    Ok(Opening::Unknown) if began && up.end > 0 => clock.arm(hello),
                    Ok(Opening::Unknown) => {}
                    Err(fault) => return Poll::Ready(Err(fault)),
                }
            }
            if let Err(error) = first {
                return Poll::Ready(Err(left(&error)));
            }
        }
        if pending.is_none() {
            up.poll_copy(&mut downstream, &mut upstream, cx).map_err(|broken| match broken {
                Broken::From(error) => left(&error),
                Broken::To(error) => lost(&error),
            })?;
        }
        down.poll_copy(&mut upstream, &mut downstream, cx).map_err(|broken| match broken {
            Broken::From(error) => lost(&error),
            Broken::To(error) => left(&error),
        })?;
        if up.shut && down.shut {
            return Poll::Ready(Ok(()));
        }
        if moved != (up.bytes, down.bytes) && (pending.is_none() || up.end == 0) {
            moved = (up.bytes, down.bytes);
            clock.arm(idle);
        }
        clock.poll_expired(cx).map(|()| Err(expired(pending.is_some() && up.end > 0)))
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

impl Buffers {
    fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        let mut spare = self.0.borrow_mut();
        if buffer.len() == BUFFER_BYTES && spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    }
}

impl<'a> Pipe<'a> {
    fn holding(bytes: &[u8], buffers: &'a Buffers) -> Self {
        let mut pipe =
            Self { buffers, buffer: Box::default(), start: 0, end: bytes.len(), ended: false, shut: false, bytes: 0 };
        if bytes.len() > BUFFER_BYTES {
            pipe.buffer = bytes.into();
        } else if !bytes.is_empty() {
            pipe.hold();
            pipe.buffer[..bytes.len()].copy_from_slice(bytes);
        }
        pipe
    }

    fn hold(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = self.buffers.take();
        }
    }

    fn let_go(&mut self) {
        (self.start, self.end) = (0, 0);
        self.buffers.give(mem::take(&mut self.buffer));
    }

    /// Reads what fits behind what is held, without passing anything on.
    fn poll_fill(&mut self, from: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        self.hold();
        while !self.ended && self.end < self.buffer.len() {
            let mut buffer = ReadBuf::new(&mut self.buffer[self.end..]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => self.end += buffer.filled().len(),
                Poll::Pending => break,
            }
        }
        if self.end == 0 {
            self.let_go();
        }
        Ok(())
    }

    /// Copies what can be copied; when `from` has ended, so is `to`'s writing half.
    fn poll_copy(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Result<(), Broken> {
        match self.poll_through(from, to, cx) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_through(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.shut {
            if self.start == self.end && !self.ended {
                (self.start, self.end) = (0, 0);
                self.hold();
                let mut buffer = ReadBuf::new(&mut self.buffer);
                match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                    Poll::Ready(read) => read.map_err(Broken::From)?,
                    Poll::Pending => {
                        self.let_go();
                        // Nothing more for now: what a TLS stream holds back goes out.
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::To)?;
                        return Poll::Pending;
                    }
                }
                self.end = buffer.filled().len();
                self.ended = self.end == 0;
            }
            while self.start < self.end {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]));
                let count = written.map_err(Broken::To)?;
                if count == 0 {
                    return Poll::Ready(Err(Broken::To(io::ErrorKind::WriteZero.into())));
                }
                self.start += count;
                self.bytes += count as u64;
            }
            if self.ended {
                self.let_go();
                // The other end may have gone already, which is no fault of this one.
                let _either_way = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.shut = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}
