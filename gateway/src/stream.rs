//! A byte stream to a peer, whatever carries it. Concrete kinds rather than a trait object, so that tunnels can tell
//! two plain sockets apart from the rest.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connected byte stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS, accepted by the gateway.
    Accepted(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS, originated by the gateway.
    Originated(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// One CONNECT stream of an HTTP/2 connection.
    Tunnel(hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>),
}

impl Stream {
    /// The socket underneath; none for a stream of an HTTP/2 connection, which shares its socket.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Accepted(tls) => Some(tls.get_ref().0),
            Self::Originated(tls) => Some(tls.get_ref().0),
            Self::Tunnel(_) => None,
        }
    }
}

/// Calls `$call` on whichever stream it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => $call,
            Stream::Accepted($inner) => $call,
            Stream::Originated($inner) => $call,
            Stream::Tunnel($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Accepted(tls) => tls.is_write_vectored(),
            Self::Originated(tls) => tls.is_write_vectored(),
            Self::Tunnel(tunnel) => tunnel.is_write_vectored(),
        }
    }
}
