//! What changes in a message because a proxy stands between: hop-by-hop fields go (RFC 9110 section 7.6.1), `Via` and
//! `Host` are written, and the two versions of HTTP are bridged.
//!
//! No `X-Forwarded-*` field is added: an egress gateway does not tell the outside who its callers are.

use super::reply;
use crate::fault::Fault;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    path::Path,
};
use tidegate_policy::{
    Reason,
    route::{Rewrite, Route},
    selector::PathPattern,
};

/// The file in the data directory that holds the pseudonym where none is set.
const KEPT_AS: &str = "pseudonym";

/// How this gateway calls itself in `Via` (RFC 9110 section 7.6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym {
    name: String,
    /// `1.1 name`, made once.
    http1: HeaderValue,
    /// `2 name`.
    http2: HeaderValue,
}

impl Default for Pseudonym {
    fn default() -> Self {
        Self {
            name: "tidegate".to_owned(),
            http1: HeaderValue::from_static("1.1 tidegate"),
            http2: HeaderValue::from_static("2 tidegate"),
        }
    }
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

    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pseudonym kept in `data_dir`, made up when it is first asked for: two gateways in a row must not take each
    /// other for themselves.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds what is no pseudonym; a sentence for the operator.
    pub fn kept_in(data_dir: &Path) -> Result<Self, String> {
        let path = data_dir.join(KEPT_AS);
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("{} cannot be {what}: {error}", path.display());
        match std::fs::read_to_string(&path) {
            Ok(name) => Self::new(name.trim()).map_err(|error| failed("used", &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let number = RandomState::new().hash_one(std::process::id());
                let made = Self::new(&format!("tidegate-{:08x}", number as u32))?;
                std::fs::create_dir_all(data_dir)
                    .and_then(|()| std::fs::write(&path, format!("{}\n", made.name)))
                    .map_err(|error| failed("written", &error))?;
                Ok(made)
            }
            Err(error) => Err(failed("read", &error)),
        }
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

/// Makes a request fit to leave: `host` is the canonical authority of the target that was decided.
pub fn request<B>(
    request: &mut ::http::Request<B>,
    host: &HeaderValue,
    bodiless: bool,
    pseudonym: &Pseudonym,
) -> Result<(), Fault> {
    let there = There::of(request.headers());
    if there.any(There::VIA) && pseudonym.named_in(request.headers()) {
        let detail = "the request's Via says that it has passed through this gateway already";
        return Err(Fault::new(Reason::LoopDetected, detail));
    }
    max_forwards(request)?;
    let version = request.version();
    let headers = request.headers_mut();
    let trailers = there.any(There::TE)
        && headers.get(header::TE).is_some_and(|value| {
            value.as_bytes().split(|&byte| byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        });
    let may_upgrade = there.any(There::UPGRADE) && bodiless && version == Version::HTTP_11 && nominates(headers, "upgrade");
    let offer = if may_upgrade { offered_protocol(headers).cloned() } else { None };
    strip(headers, there, There::HOP_BY_HOP);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(offer) = offer {
        headers.insert(header::UPGRADE, offer);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if version == Version::HTTP_2 && there.any(There::COOKIE) {
        join_cookies(headers);
    }
    pseudonym.append(headers, version);
    if headers.get(header::HOST) != Some(host) {
        headers.insert(header::HOST, host.clone());
    }
    Ok(())
}

/// Makes a response fit for the caller.
pub fn response<B>(response: &mut ::http::Response<B>, pseudonym: &Pseudonym) {
    let (status, version) = (response.status(), response.version());
    let headers = response.headers_mut();
    let switches = status == ::http::StatusCode::SWITCHING_PROTOCOLS;
    let offer = if switches { headers.get(header::UPGRADE).cloned() } else { None };
    // An upstream's reason goes, too: callers take it for the gateway's own word.
    strip(headers, There::of(headers), There::HOP_BY_HOP | There::REASON);
    if let Some(offer) = offer {
        headers.insert(header::UPGRADE, offer);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    pseudonym.append(headers, version);
}

/// TRACE and OPTIONS count down (RFC 9110 section 7.6.2). At zero this gateway would be the one to answer; it says so
/// instead of forwarding.
fn max_forwards<B>(request: &mut ::http::Request<B>) -> Result<(), Fault> {
    if !matches!(*request.method(), Method::TRACE | Method::OPTIONS) {
        return Ok(());
    }
    let Some(value) = request.headers().get(header::MAX_FORWARDS) else { return Ok(()) };
    let left = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    match left {
        Some(0) => {
            Err(Fault::new(Reason::LoopDetected, "Max-Forwards is spent: the request goes no further than this gateway"))
        }
        Some(left) => {
            request.headers_mut().insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
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

/// What goes: the first eight are for one hop alone, whether nominated or not, and the last is the gateway's own word.
static GOING: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    reply::REASON,
];

/// Which of the fields that forwarding looks for a message has: a bit for each of `GOING` by its place, and more behind them. One
/// walk over the names that are there costs less than a look-up for each that might be.
#[derive(Clone, Copy)]
struct There(u16);

impl There {
    const CONNECTION: u16 = 1 << 0;
    const TE: u16 = 1 << 3;
    const UPGRADE: u16 = 1 << 5;
    const HOP_BY_HOP: u16 = (1 << 8) - 1;
    const REASON: u16 = 1 << 8;
    const VIA: u16 = 1 << 9;
    const COOKIE: u16 = 1 << 10;

    fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |there, name| there | Self::bit(name)))
    }

    fn bit(name: &HeaderName) -> u16 {
        match name.as_str() {
            "connection" => Self::CONNECTION,
            "keep-alive" => 1 << 1,
            "proxy-connection" => 1 << 2,
            "te" => Self::TE,
            "transfer-encoding" => 1 << 4,
            "upgrade" => Self::UPGRADE,
            "proxy-authorization" => 1 << 6,
            "proxy-authenticate" => 1 << 7,
            "x-tidegate-reason" => Self::REASON,
            "via" => Self::VIA,
            "cookie" => Self::COOKIE,
            _ => 0,
        }
    }

    fn any(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}

/// Removes what was nominated, and which of `GOING` is there.
fn strip(headers: &mut HeaderMap, there: There, which: u16) {
    if there.any(There::CONNECTION) {
        let nominated: Vec<HeaderName> = headers.get_all(header::CONNECTION).iter().flat_map(nominated).collect();
        for name in &nominated {
            headers.remove(name);
        }
    }
    for (place, name) in GOING.iter().enumerate() {
        if there.any(1 << place & which) {
            headers.remove(name);
        }
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

/// Changes the request as its route says. A path prefix replaces what the first matching entry's prefix covers, or the
/// whole path where that is exact or absent.
pub(super) fn rewrite<B>(request: &mut ::http::Request<B>, route: &Route) -> Result<(), Fault> {
    let Some(rewrite) = &route.rewrite else { return Ok(()) };
    let broken = broken_rewrite;
    if let Some(prefix) = &rewrite.path_prefix {
        let path = request.uri().path();
        let rest = route.matches.iter().filter_map(|entry| entry.path.as_ref()).find_map(|pattern| match pattern {
            PathPattern::Exact(whole) => (path == whole).then_some(""),
            PathPattern::Prefix(start) => path.strip_prefix(start.as_str()),
        });
        // A path that a filter has written is not the one that the route matched.
        if rest.is_none() && route.matches.iter().any(|entry| entry.path.is_some()) {
            return rewrite_headers(request.headers_mut(), rewrite);
        }
        let mut text = format!("{prefix}{}", rest.unwrap_or(""));
        if let Some(query) = request.uri().query() {
            text.push('?');
            text.push_str(query);
        }
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(text.parse().map_err(|_| broken())?);
        *request.uri_mut() = ::http::Uri::from_parts(parts).map_err(|_| broken())?;
    }
    rewrite_headers(request.headers_mut(), rewrite)
}

fn broken_rewrite() -> Fault {
    Fault::new(Reason::Internal, "the route's rewrite does not make a valid request: see its document")
}

fn rewrite_headers(headers: &mut HeaderMap, rewrite: &Rewrite) -> Result<(), Fault> {
    for name in &rewrite.remove_headers {
        headers.remove(name.as_str());
    }
    for (name, value) in &rewrite.set_headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| broken_rewrite())?;
        headers.insert(name, HeaderValue::try_from(value.as_str()).map_err(|_| broken_rewrite())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(fields: &[(&str, &str)]) -> Result<HeaderMap, Fault> {
        let mut builder = ::http::Request::builder().uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut asked = builder.body(()).unwrap();
        request(&mut asked, &HeaderValue::from_static("a.example"), true, &Pseudonym::new("gate").unwrap())?;
        Ok(asked.into_parts().0.headers)
    }

    #[test]
    fn what_is_looked_for_is_found() {
        for (place, name) in GOING.iter().enumerate() {
            assert_eq!(There::bit(name), 1 << place, "{name}");
        }
        let others = [&header::VIA, &header::COOKIE, &header::HOST].map(There::bit);
        assert_eq!(others, [There::VIA, There::COOKIE, 0]);
    }

    #[test]
    fn an_upstream_cannot_speak_for_the_gateway() {
        let response = ::http::Response::builder().header("x-tidegate-reason", "allowed_by_rule").header("x-own", "1");
        let mut response = response.body(()).unwrap();
        super::response(&mut response, &Pseudonym::new("gate").unwrap());
        assert!(response.headers().get(&reply::REASON).is_none());
        assert_eq!(response.headers()["x-own"], "1");
    }

    #[test]
    fn what_is_for_one_hop_does_not_pass() {
        let headers = forwarded(&[
            ("connection", "close, X-Private"),
            ("connection", "x-more, via, host, content-length"),
            ("x-private", "1"),
            ("x-more", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "websocket"),
            ("host", "b.example"),
            ("content-length", "3"),
            ("accept", "text/plain"),
            ("via", "1.1 other"),
        ]);
        let headers = headers.unwrap();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "content-length", "host", "te", "trailer", "via"]);
        assert_eq!(
            (&headers["host"], &headers["te"]),
            (&HeaderValue::from_static("a.example"), &HeaderValue::from_static("trailers"))
        );
        assert_eq!(headers.get_all("via").iter().count(), 2);
    }

    #[test]
    fn an_offer_to_upgrade_passes_and_h2c_does_not() {
        let headers = forwarded(&[("connection", "Upgrade"), ("upgrade", "websocket")]).unwrap();
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
        for offer in ["h2c", "H2C", "websocket, h2c"] {
            let headers =
                forwarded(&[("connection", "upgrade, http2-settings"), ("upgrade", offer), ("http2-settings", "x")]).unwrap();
            assert!(
                !headers.contains_key("upgrade")
                    && !headers.contains_key("connection")
                    && !headers.contains_key("http2-settings")
            );
        }
    }

    #[test]
    fn a_loop_is_seen_in_via() {
        for via in ["1.1 gate", "1.0 a, 2 Gate (comment)", "HTTP/1.1 gate"] {
            assert_eq!(forwarded(&[("via", via)]).unwrap_err().reason(), Reason::LoopDetected, "{via}");
        }
        for via in ["1.1 gate2", "1.1 x (gate)", "gate"] {
            assert!(forwarded(&[("via", via)]).is_ok(), "{via}");
        }
    }

    #[test]
    fn max_forwards_counts_down_where_it_means_something() {
        let forwarded = |method: &str, left: &str| {
            let builder = ::http::Request::builder().method(method).uri("/").header("max-forwards", left);
            let mut asked = builder.body(()).unwrap();
            request(&mut asked, &HeaderValue::from_static("a.example"), true, &Pseudonym::default())
                .map(|()| asked.headers()["max-forwards"].clone())
                .map_err(|fault| fault.reason())
        };
        assert_eq!(forwarded("OPTIONS", "3"), Ok(HeaderValue::from_static("2")));
        assert_eq!(forwarded("TRACE", "1"), Ok(HeaderValue::from_static("0")));
        assert_eq!(forwarded("GET", "0"), Ok(HeaderValue::from_static("0")), "it is for TRACE and OPTIONS");
        assert_eq!(forwarded("OPTIONS", "0"), Err(Reason::LoopDetected));
        assert_eq!(forwarded("TRACE", "many"), Err(Reason::BadFraming));
    }

    #[test]
    fn a_gateway_keeps_its_own_name() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = Pseudonym::kept_in(one.path()).unwrap();
        assert!(name.name().starts_with("tidegate-") && name.name().len() == 17, "{name:?}");
        assert_eq!(Pseudonym::kept_in(one.path()).unwrap(), name);
        assert_ne!(Pseudonym::kept_in(other.path()).unwrap(), name);
        std::fs::write(other.path().join(KEPT_AS), "two words").unwrap();
        assert!(Pseudonym::kept_in(other.path()).unwrap_err().contains("pseudonym"));
    }
}
