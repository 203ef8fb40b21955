//! Byte streams to a peer, with or without TLS, from an address of the test's choice.

use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

/// A byte stream of whatever kind.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A TCP connection to `to`, from `from` where that matters: all of 127.0.0.0/8 is this machine, so that one machine can
/// have many source networks.
///
/// # Panics
/// When nobody listens at `to`.
pub async fn dial(from: Option<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0)).expect("a loopback address can be bound");
    }
    let stream = socket.connect(to).await.unwrap_or_else(|error| panic!("nobody listens at {to}: {error}"));
    stream.set_nodelay(true).expect("a TCP socket has the option");
    stream
}

/// TLS over `stream` as `config` says, for the server `name`.
///
/// # Errors
/// What the handshake failed of.
pub async fn secure<S: Wire>(
    stream: S,
    config: Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<S>> {
    let name = ServerName::try_from(name.to_owned()).expect("a server name is a host name or an address");
    TlsConnector::from(config).connect(name, stream).await
}
