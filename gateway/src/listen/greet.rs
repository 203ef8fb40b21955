//! What comes before HTTP, on the worker: the TLS handshake where the listener asks for one, and the look at the first
//! bytes that tells HTTP/2 from HTTP/1.

use super::{Accepted, Connection, Entry, Peer, Spoken, Timeouts};
use crate::{http::drain::Drain, identity, stream::Stream};
use bytes::BytesMut;
use std::{future::poll_fn, io, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First read: an ordinary request's head.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// How TLS is accepted on the mutual TLS listener.
#[derive(Clone)]
pub struct Mutual {
    /// Requires and verifies a client certificate; offers `h2` and `http/1.1`.
    pub config: Arc<rustls::ServerConfig>,
}

/// Greets a connection; none where it ended, took too long or came too late. What is wrong is logged for debugging only,
/// since any scanner can cause it.
pub async fn greet(accepted: Accepted, timeouts: Timeouts, mutual: Option<&Mutual>, drain: &Drain) -> Option<Connection> {
    let _registered = drain.register().await;
    let address = accepted.address;
    let greeted = unless_drained(drain, begin(accepted, timeouts, mutual)).await?;
    greeted
        .inspect_err(
            |error| tracing::debug!(peer.address = %address, error = %error, "a connection ended before its first request"),
        )
        .ok()
}

async fn begin(accepted: Accepted, timeouts: Timeouts, mutual: Option<&Mutual>) -> io::Result<Connection> {
    let Accepted { socket, address, entry, held } = accepted;
    let mut socket = TcpStream::from_std(socket)?;
    let mut peer = Peer { address, local: socket.local_addr()?, certificate: None, server_name: None };
    let (stream, first, spoken) = match entry {
        Entry::Plain => {
            // Nothing is allocated for a connection that has nothing to say yet.
            within(timeouts.first_byte, "first bytes", socket.readable()).await?;
            let (first, spoken) = within(timeouts.first_byte, "first bytes", sniff(&mut socket, BytesMut::new())).await?;
            (Stream::Plain(socket), first, spoken)
        }
        Entry::Mutual => {
            let mutual = mutual.ok_or_else(|| io::Error::other("the mutual TLS listener has no certificate"))?;
            let acceptor = TlsAcceptor::from(Arc::clone(&mutual.config));
            let mut stream = within(timeouts.handshake, "TLS handshake", acceptor.accept(socket)).await?;
            describe(&mut peer, &stream)?;
            let (first, spoken) = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                (BytesMut::new(), Spoken::Http2)
            } else {
                within(timeouts.first_byte, "first bytes", sniff(&mut stream, BytesMut::new())).await?
            };
            (Stream::Accepted(Box::new(stream)), first, spoken)
        }
    };
    Ok(Connection { peer: Rc::new(peer), stream, first, spoken, held })
}

/// Writes down who the handshake says is there.
fn describe(peer: &mut Peer, stream: &TlsStream<TcpStream>) -> io::Result<()> {
    let session = stream.get_ref().1;
    peer.server_name = session.server_name().map(Arc::from);
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| io::Error::other("the caller showed no certificate"))?;
    // A certificate that was verified and names nobody leaves the caller to its token or its network.
    peer.certificate = identity::certificate::caller(leaf);
    Ok(())
}

/// What is spoken inside of a tunnel whose first bytes are `first`; none where it ended, was silent for `limit`, or came too
/// late.
pub(crate) async fn tell(stream: &mut Stream, first: BytesMut, limit: Duration, drain: &Drain) -> Option<(BytesMut, Spoken)> {
    let _registered = drain.register().await;
    unless_drained(drain, within(limit, "first bytes in a tunnel", sniff(stream, first))).await?.ok()
}

/// Reads until the first bytes, of which some may have been read already, tell which version of HTTP is spoken.
async fn sniff(stream: &mut (impl AsyncRead + Unpin), mut first: BytesMut) -> io::Result<(BytesMut, Spoken)> {
    loop {
        let compared = first.len().min(PREFACE.len());
        if first[..compared] != PREFACE[..compared] {
            return Ok((first, Spoken::Http1));
        }
        if compared == PREFACE.len() {
            return Ok((first, Spoken::Http2));
        }
        first.reserve(FIRST_READ_BYTES);
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("the caller's {what} did not come in time"))))
}

/// What `work` comes to, or none once the worker drains. The task must be registered with `drain`.
async fn unless_drained<T>(drain: &Drain, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| if drain.begun() { Poll::Ready(None) } else { work.as_mut().poll(context).map(Some) }).await
}
