//! The forms in which a request can come to the gateway, and the ways in which a caller can be known: the two sides of the
//! table that every policy has to hold in.

use crate::{
    Raw,
    certificates::{Authority, client_config},
    h2::{H2, empty},
    raw::Reply,
    wire::{self, Wire},
};
use http::Request;
use rustls::ClientConfig;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// How a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// HTTP/1.1, the whole URL in the request line.
    Absolute,
    /// HTTP/1.1, the path in the request line and the host in `Host`.
    Origin,
    /// HTTP/1.1, a tunnel with the caller's own TLS in it.
    Connect,
    /// HTTP/2 with `:scheme` http.
    Http2,
    /// A tunnel over a stream of HTTP/2, with the caller's own TLS in it.
    Http2Connect,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 5] = [Self::Absolute, Self::Origin, Self::Connect, Self::Http2, Self::Http2Connect];

    /// Whether the gateway sees no more than bytes.
    pub fn is_tunnel(self) -> bool {
        matches!(self, Self::Connect | Self::Http2Connect)
    }
}

/// Who calls, and how it shows that.
#[derive(Clone)]
pub struct Caller {
    /// The address it comes from.
    pub from: IpAddr,
    /// The listener it connects to.
    pub to: SocketAddr,
    /// The token it brings in `Proxy-Authorization`.
    pub token: Option<String>,
    /// What it speaks TLS with, on the mutual TLS listener.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Caller {
    /// A stream to the listener, with TLS where the listener wants it.
    pub async fn dial(&self) -> Box<dyn Wire> {
        let stream = wire::dial(Some(self.from), self.to).await;
        match &self.tls {
            None => Box::new(stream),
            Some(config) => Box::new(wire::secure(stream, Arc::clone(config), "localhost").await.expect("the listener agrees")),
        }
    }

    /// As `config`, offering HTTP/2 alone where `form` needs it.
    fn speaking(&self, form: Form) -> Self {
        let mut caller = self.clone();
        if let (Some(config), Form::Http2 | Form::Http2Connect) = (&self.tls, form) {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            caller.tls = Some(Arc::new(config));
        }
        caller
    }

    fn proof(&self) -> String {
        self.token.as_ref().map_or_else(String::new, |token| format!("Proxy-Authorization: Bearer {token}\r\n"))
    }
}

/// Asks for `GET /path` of `host` in `form`. In a tunnel the caller believes `authority` for what is at the other end.
/// A tunnel that is refused gives the refusal.
pub async fn ask(caller: &Caller, form: Form, host: &str, path: &str, authority: &Authority) -> Reply {
    let caller = caller.speaking(form);
    let proof = caller.proof();
    match form {
        Form::Absolute => Raw::over(caller.dial().await).get(&format!("http://{host}{path}"), host, &proof).await,
        Form::Origin => Raw::over(caller.dial().await).get(path, host, &proof).await,
        Form::Connect => {
            let mut raw = Raw::over(caller.dial().await);
            raw.send(format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{proof}\r\n")).await;
            let answer = raw.head().await;
            if answer.status != 200 {
                return answer;
            }
            within(raw.into_wire(), host, path, authority).await
        }
        Form::Http2 => {
            let mut request = Request::get(format!("http://{host}{path}"));
            if let Some(token) = &caller.token {
                request = request.header("proxy-authorization", format!("Bearer {token}"));
            }
            let request = request.body(empty()).expect("a host and a path make a URL");
            H2::over(caller.dial().await).await.send(request).await
        }
        Form::Http2Connect => {
            let bearer = caller.token.as_ref().map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())).collect();
            let connection = H2::over(caller.dial().await).await;
            match connection.tunnel(&format!("{host}:443"), &headers).await {
                Ok(tunnel) => within(tunnel, host, path, authority).await,
                Err(refusal) => refusal,
            }
        }
    }
}

async fn within(tunnel: impl Wire + 'static, host: &str, path: &str, authority: &Authority) -> Reply {
    let config = client_config(authority, None, &["http/1.1"]);
    let stream = wire::secure(tunnel, config, host).await.expect("the API's own TLS reaches the caller");
    Raw::over(stream).get(path, host, "").await
}
