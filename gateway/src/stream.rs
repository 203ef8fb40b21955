//! A byte stream to a peer, whatever carries it. Concrete kinds rather than a trait object, so that tunnels can tell
//! two plain sockets apart from the rest.

use tokio::net::TcpStream;

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
// impl AsyncRead and AsyncWrite (vectored too) for Stream: helper H
