//! What changes in a message because a proxy stands between: hop-by-hop fields go (RFC 9110 section 7.6.1), `Via` and
//! `Host` are written, and the two versions of HTTP are bridged.
//!
//! No `X-Forwarded-*` field is added: an egress gateway does not tell the outside who its callers are.

use crate::fault::Fault;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request, response};
use tidegate_policy::Reason;

/// How this gateway calls itself in `Via` (RFC 9110 section 7.6.3).
#[derive(Debug, Clone)]
pub struct Pseudonym {
    name: String,
    /// `1.1 name`, made once.
    http1: HeaderValue,
    /// `2 name`.
    http2: HeaderValue,
}

impl Pseudonym {
    /// A pseudonym; an error says why `name` cannot be one. It must differ between gateways that forward to each other.
    pub fn new(name: &str) -> Result<Self, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("{name:?} cannot name a gateway in Via: use letters, digits, '-', '_' and '.'"));
        }
        let value = |version: &str| HeaderValue::try_from(format!("{version} {name}")).map_err(|error| error.to_string());
        Ok(Self { name: name.to_owned(), http1: value("1.1")?, http2: value("2")? })
    }

    fn value(&self, version: Version) -> HeaderValue {
        if version == Version::HTTP_2 { self.http2.clone() } else { self.http1.clone() }
    }

    /// Whether a `Via` field says that the message has been here.
    fn named_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::VIA).iter().any(|value| {
            value.as_bytes().split(|&byte| byte == b',').any(|entry| {
                let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.as_bytes()))
            })
        })
    }

    fn append(&self, headers: &mut HeaderMap, version: Version) {
        headers.append(header::VIA, self.value(version));
    }
}

/// The protocol a request offers to upgrade to; none where it offers none. `h2c` is not passed on: behind it requests
/// would go undecided (RFC 9113 section 3.1 has retired it).
pub(super) fn offered_protocol(headers: &HeaderMap) -> Option<&HeaderValue> {
    let offer = headers.get(header::UPGRADE)?;
    let h2c = |token: &[u8]| token.trim_ascii().get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"));
    (!offer.as_bytes().split(|&byte| byte == b',').any(h2c)).then_some(offer)
}

/// Makes `head` fit to leave: `host` is the canonical authority of the target that was decided.
pub fn request(head: &mut request::Parts, host: &HeaderValue, bodiless: bool, pseudonym: &Pseudonym) -> Result<(), Fault> {
    if pseudonym.named_in(&head.headers) {
        let detail = "the request's Via says that it has passed through this gateway already";
        return Err(Fault::new(Reason::LoopDetected, detail));
    }
    max_forwards(head)?;
    let trailers = head.headers.get(header::TE).is_some_and(|value| {
        value.as_bytes().split(|&byte| byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    let offer = if bodiless && head.version == Version::HTTP_11 && nominates(&head.headers, "upgrade") {
        offered_protocol(&head.headers).cloned()
    } else {
        None
    };
    strip(&mut head.headers);
    if trailers {
        head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(offer) = offer {
        head.headers.insert(header::UPGRADE, offer);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    pseudonym.append(&mut head.headers, head.version);
    if head.headers.get(header::HOST) != Some(host) {
        head.headers.insert(header::HOST, host.clone());
    }
    Ok(())
}

/// Makes a response's head fit for the caller.
pub fn response(head: &mut response::Parts, pseudonym: &Pseudonym) {
    let offer = head.headers.get(header::UPGRADE).filter(|_| head.status == ::http::StatusCode::SWITCHING_PROTOCOLS).cloned();
    strip(&mut head.headers);
    if let Some(offer) = offer {
        head.headers.insert(header::UPGRADE, offer);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    pseudonym.append(&mut head.headers, head.version);
}

/// Bridges a head that is fit to leave to an HTTP/2 upstream: no `Host` (it is in `:authority`), no connection fields,
/// and an absolute target. `Expect` goes too: HTTP/2 has flow control for that.
pub fn to_http2(head: &mut request::Parts, scheme: ::http::uri::Scheme) -> Result<(), Fault> {
    let malformed = || Fault::new(Reason::MalformedTarget, "the request's target cannot be written for HTTP/2");
    let host = head.headers.remove(header::HOST).ok_or_else(malformed)?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(
        ::http::uri::Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes())).map_err(|_| malformed())?,
    );
    parts.path_and_query.get_or_insert_with(|| ::http::uri::PathAndQuery::from_static("/"));
    head.uri = ::http::Uri::from_parts(parts).map_err(|_| malformed())?;
    head.version = Version::HTTP_2;
    for name in [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, header::EXPECT] {
        head.headers.remove(name);
    }
    Ok(())
}

/// TRACE and OPTIONS count down (RFC 9110 section 7.6.2). At zero this gateway would be the one to answer; it says so
/// instead of forwarding.
fn max_forwards(head: &mut request::Parts) -> Result<(), Fault> {
    if !matches!(head.method, Method::TRACE | Method::OPTIONS) {
        return Ok(());
    }
    let Some(value) = head.headers.get(header::MAX_FORWARDS) else { return Ok(()) };
    let left = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    match left {
        Some(0) => {
            Err(Fault::new(Reason::LoopDetected, "Max-Forwards is spent: the request goes no further than this gateway"))
        }
        Some(left) => {
            head.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(())
        }
        None => Err(Fault::new(Reason::BadFraming, "Max-Forwards is not a number")),
    }
}

fn nominates(headers: &HeaderMap, option: &str) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}

/// Removes what is for this hop alone.
fn strip(headers: &mut HeaderMap) {
    static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    let nominated: Vec<HeaderName> = headers.get_all(header::CONNECTION).iter().flat_map(nominated).collect();
    headers.remove(header::CONNECTION);
    for name in &nominated {
        headers.remove(name);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &header::TE,
        &header::TRAILER,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &header::PROXY_AUTHORIZATION,
        &header::PROXY_AUTHENTICATE,
    ] {
        headers.remove(name);
    }
}

fn nominated(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let tokens = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    tokens
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !end_to_end(name))
}

/// Fields that the peer may not have removed by nominating them: those that say where a message goes and how long it is,
/// and `Via`, whose removal would hide a loop.
fn end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::VIA, header::CONNECTION, header::AUTHORIZATION, header::CONTENT_TYPE]
        .contains(name)
}

/// HTTP/2 lets one `Cookie` come in pieces (RFC 9113 section 8.2.3); elsewhere it must be one.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = pieces.join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}
