//! What goes in and what comes out of a scripted exchange.

use crate::{attributes::Value, audit::Outcome, upstream::Tls};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A message that the script sends: a head, the pieces of a body, trailers. An array of headers is one without a body.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub(super) head: HeaderMap,
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) trailers: Option<HeaderMap>,
}

/// A message as the other side received it, so far. Framing is the gateway's own, so `content-length` is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// The head's headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
    /// Whether it has ended as it should.
    pub complete: bool,
}

/// An audit event that a filter emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The filter's word for it.
    pub kind: String,
    /// How the exchange stood.
    pub outcome: Outcome,
    /// Its fields, in order.
    pub fields: Vec<(String, Value)>,
}

/// What the filter chose for the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Another service.
    pub service: Option<String>,
    /// One of the service's endpoints.
    pub endpoint: Option<(String, u16)>,
    /// How TLS is originated.
    pub tls: Option<Tls>,
    /// The secrets to be written, by name.
    pub secrets: Vec<Secret>,
}

/// A header that the gateway is to write: a prefix and a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The header, in lower case.
    pub header: String,
    /// The credential's name.
    pub credential: String,
    /// What stands before the secret.
    pub prefix: String,
}

impl Message {
    /// A head alone.
    ///
    /// # Panics
    /// Where a header is not valid, since the script is wrong then.
    #[must_use]
    pub fn new<const N: usize>(headers: [(&str, &str); N]) -> Self {
        Self { head: fields(headers), ..Self::default() }
    }

    /// Adds a body that comes in these pieces.
    #[must_use]
    pub fn body(mut self, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.pieces.extend(pieces.into_iter().map(|piece| piece.as_ref().to_vec()));
        self
    }

    /// Adds trailers.
    ///
    /// # Panics
    /// Where a trailer is not valid, since the script is wrong then.
    #[must_use]
    pub fn trailers<const N: usize>(mut self, trailers: [(&str, &str); N]) -> Self {
        self.trailers = Some(fields(trailers));
        self
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Message {
    fn from(headers: [(&str, &str); N]) -> Self {
        Self::new(headers)
    }
}

impl Received {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Event {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

/// The headers of a script. What is the caller's secret towards the gateway is not shown to filters, nor sent on.
pub(super) fn fields<const N: usize>(headers: [(&str, &str); N]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name in the script");
        map.append(name, HeaderValue::from_str(value).expect("a header value in the script"));
    }
    map.remove(http::header::PROXY_AUTHORIZATION);
    map
}
