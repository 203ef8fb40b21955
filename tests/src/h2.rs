//! An HTTP/2 client, by prior knowledge or over a TLS stream that has agreed on it.

use crate::{
    raw::Reply,
    wait::soon,
    wire::{self, Wire},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http2::SendRequest,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::{IpAddr, SocketAddr};

/// What a request carries.
pub type Outgoing = BoxBody<Bytes, hyper::Error>;

/// A connection that carries many requests at once. Cloning shares it.
#[derive(Clone)]
pub struct H2 {
    sender: SendRequest<Outgoing>,
}

impl H2 {
    /// Connects in the clear, from the loopback address `from`.
    pub async fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        Self::over(wire::dial(Some(from), to).await).await
    }

    /// Speaks over a stream that stands already.
    pub async fn over(wire: impl Wire + 'static) -> Self {
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(wire));
        let (sender, connection) = soon("an HTTP/2 connection", shaken).await.expect("a preface can be sent");
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends `request` and waits for the answer's head.
    ///
    /// # Errors
    /// What the stream or the connection failed of.
    pub async fn open(&self, request: Request<Outgoing>) -> hyper::Result<Response<Incoming>> {
        let mut sender = self.sender.clone();
        soon("room for one more stream", sender.ready()).await?;
        soon("an answer over HTTP/2", sender.send_request(request)).await
    }

    /// Sends `request` and reads the answer whole.
    pub async fn send(&self, request: Request<Outgoing>) -> Reply {
        let response = self.open(request).await.unwrap_or_else(|error| panic!("no answer over HTTP/2: {error:?}"));
        crate::rest::read(response).await.unwrap_or_else(|error| panic!("no whole answer over HTTP/2: {error:?}"))
    }

    /// Opens a tunnel to `authority` (RFC 9113 section 8.5): the stream, or the refusal.
    pub async fn tunnel(&self, authority: &str, headers: &[(&str, &str)]) -> Result<TokioIo<Upgraded>, Reply> {
        let mut request = Request::builder().method("CONNECT").uri(authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(empty()).expect("an authority is a URI");
        let mut response = self.open(request).await.unwrap_or_else(|error| panic!("no answer to CONNECT: {error:?}"));
        if !response.status().is_success() {
            return Err(crate::rest::read(response).await.expect("a refusal has a whole body"));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.expect("a tunnel that was granted opens");
        Ok(TokioIo::new(upgraded))
    }
}

/// No body.
pub fn empty() -> Outgoing {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body that is all here.
pub fn full(bytes: impl Into<Bytes>) -> Outgoing {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that is made while it is sent.
pub fn boxed<B>(body: B) -> Outgoing
where
    B: Body<Data = Bytes, Error = hyper::Error> + Send + Sync + 'static,
{
    body.boxed()
}
