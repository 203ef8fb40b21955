//! CONNECT and upgraded connections: bytes both ways, counted, and looked at only until it is known whether they begin
//! with a TLS ClientHello and whom that names.

use crate::{fault::Fault, http::clock::Clock, record::OpenRecord, stream::Stream};
use bytes::Bytes;
use std::{
    any::Any,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_policy::{Host, Name, Reason, Snapshot, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held for each direction; a ClientHello must fit. 16 KiB is one TLS record, so copies keep records whole.
const BUFFER_BYTES: usize = 16 * 1024;

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
struct Pipe {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    shut: bool,
    bytes: u64,
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
pub async fn run(mut downstream: Stream, early: Bytes, joined: Joined, record: &mut OpenRecord) {
    let Joined { stream: mut upstream, read, agreement, idle, hello, kept } = joined;
    let (mut up, mut down) = (Pipe::holding(&early), Pipe::holding(&read));
    drop((early, read));
    let clock = Clock::default();
    let mut pending = agreement.as_ref();
    let mut seen = usize::MAX;
    let mut moved = (0, 0);
    clock.arm(idle);
    let outcome = poll_fn(|cx| {
        if let Some(agreement) = pending {
            let first = up.poll_fill(&mut downstream, cx);
            if up.end != seen || up.ended {
                let began = seen == usize::MAX || seen == 0;
                seen = up.end;
                match agreement.opening(&up.buffer[..up.end], up.ended || up.end == BUFFER_BYTES) {
                    Ok(Opening::Passes) => {
                        pending = None;
                        clock.arm(idle);
                    }
                    Ok(Opening::Unknown) if began && up.end > 0 => clock.arm(hello),
                    Ok(Opening::Unknown) => {}
                    Err(fault) => return Poll::Ready(Err(fault)),
                }
            }
            if first.is_err() {
                return Poll::Ready(Err(lost("the caller's")));
            }
        }
        if pending.is_none() && up.poll_copy(&mut downstream, &mut upstream, cx).is_err() {
            return Poll::Ready(Err(lost("the caller's or the upstream's")));
        }
        if down.poll_copy(&mut upstream, &mut downstream, cx).is_err() {
            return Poll::Ready(Err(lost("the upstream's or the caller's")));
        }
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

fn lost(whose: &str) -> Fault {
    Fault::new(Reason::DownstreamClosed, format!("{whose} end of the tunnel broke off"))
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
        // A TLS record of type handshake, version 3.x. Anything else is not TLS, and was decided by its authority.
        let tls = match first {
            [] => false,
            [0x16] => true,
            [0x16, major, ..] => *major == 3,
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

impl Pipe {
    fn holding(bytes: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER_BYTES.max(bytes.len())];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Self { buffer, start: 0, end: bytes.len(), ended: false, shut: false, bytes: 0 }
    }

    /// Reads what fits behind what is held, without passing anything on.
    fn poll_fill(&mut self, from: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.ended && self.end < self.buffer.len() {
            let mut buffer = ReadBuf::new(&mut self.buffer[self.end..]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => self.end += buffer.filled().len(),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Copies what can be copied; when `from` has ended, so is `to`'s writing half.
    fn poll_copy(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_through(from, to, cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_through(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.shut {
            if self.start == self.end && !self.ended {
                (self.start, self.end) = (0, 0);
                let mut buffer = ReadBuf::new(&mut self.buffer);
                if Pin::new(&mut *from).poll_read(cx, &mut buffer)?.is_pending() {
                    // Nothing more for now: what a TLS stream holds back goes out.
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
                self.end = buffer.filled().len();
                self.ended = self.end == 0;
            }
            while self.start < self.end {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += count;
                self.bytes += count as u64;
            }
            if self.ended {
                // The other end may have gone already, which is no fault of this one.
                let _either_way = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.shut = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}
