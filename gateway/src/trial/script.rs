//! An exchange as its author writes it down: JSON in, checked messages out, every mistake with a pointer.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_path_to_error::Segment;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};
use tidegate_policy::{Mistake, Name, credential::CredentialKind, service::Service};

/// The request, and what the policy around it is.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Fields,
    #[serde(default)]
    body: Content,
    #[serde(default)]
    trailers: Fields,
    /// Who sends it.
    #[serde(default)]
    pub caller: Caller,
    /// The service that is asked, where the one that follows from the URL will not do.
    pub service: Option<Box<Service>>,
    /// Other services, by name; those that grants name and that are not here are made up.
    #[serde(default)]
    pub services: BTreeMap<Name, Service>,
    /// The kinds of the credentials that grants name; secrets, where nothing is said.
    #[serde(default)]
    pub credentials: BTreeMap<Name, CredentialKind>,
    /// What the filter's own calls are answered, by the start of their URL; the first that fits.
    #[serde(default)]
    pub calls: Vec<Answer>,
}

/// The caller.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caller {
    /// Where it connects from.
    pub address: IpAddr,
    /// Its principal.
    pub principal: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its service account.
    pub service_account: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What the upstream answers.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    status: u16,
    headers: Fields,
    body: Content,
    trailers: Fields,
}

/// What a call of the filter's own is answered.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The start of its URL.
    pub url: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: Fields,
    #[serde(default)]
    body: Content,
}

/// Header fields: an object, or a list of pairs where the order of equal names matters.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged, expecting = "an object of strings or lists of strings, or a list of [name, value]")]
enum Fields {
    Named(BTreeMap<String, Values>),
    Listed(Vec<(String, String)>),
}

#[derive(Debug, serde::Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// A body: one piece, or several that come one after the other.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(untagged, expecting = "a string, {\"base64\": ..} or {\"json\": ..}, or a list of these: a piece each")]
enum Content {
    #[default]
    Nothing,
    Whole(Piece),
    Pieces(Vec<Piece>),
}

#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Encoded(Encoded),
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoded {
    Base64(String),
    Json(serde_json::Value),
}

/// A message's body and trailers, checked.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) pieces: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

fn get() -> String {
    "GET".to_owned()
}

const fn ok() -> u16 {
    200
}

impl Default for Fields {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Default for Response {
    fn default() -> Self {
        Self { status: ok(), headers: Fields::default(), body: Content::default(), trailers: Fields::default() }
    }
}

impl Default for Caller {
    fn default() -> Self {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        Self { address, principal: None, namespace: None, service_account: None, labels: BTreeMap::new() }
    }
}

/// Reads a description; the mistake says where it is.
pub fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| Mistake::at(pointer(error.path()), error.inner().to_string()))?;
    json.end().map_err(|error| Mistake::at("", error.to_string()))?;
    Ok(read)
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(step).collect()
}

impl Request {
    /// The head, as a caller of the proxy would send it.
    pub(super) fn head(&self) -> Result<http::request::Parts, Mistake> {
        let method: Method = self.method.parse().map_err(|_| Mistake::at("/method", "it is not an HTTP method"))?;
        let uri: Uri = self.url.parse().map_err(|error| Mistake::at("/url", format!("it is not a URL: {error}")))?;
        let authority = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")));
        let Some(host) = authority.map(|authority| authority.as_str().to_owned()) else {
            return Err(Mistake::at(
                "/url",
                "give the whole URL, such as http://api.example.com/v1; http means that TLS is originated",
            ));
        };
        let mut headers = self.headers.checked("/headers")?;
        if !headers.contains_key(http::header::HOST) {
            let host = HeaderValue::from_str(&host).map_err(|_| Mistake::at("/url", "its host cannot be a header's value"))?;
            headers.insert(http::header::HOST, host);
        }
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.uri, head.headers) = (method, uri, headers);
        Ok(head)
    }

    pub(super) fn rest(&self) -> Result<Rest, Mistake> {
        rest(&self.body, &self.trailers)
    }
}

impl Response {
    pub(super) fn head(&self) -> Result<http::response::Parts, Mistake> {
        head(self.status, &self.headers, "")
    }

    pub(super) fn rest(&self) -> Result<Rest, Mistake> {
        rest(&self.body, &self.trailers)
    }
}

impl Answer {
    /// The answer; `at` is its pointer.
    pub(super) fn response(&self, at: &str) -> Result<http::Response<Bytes>, Mistake> {
        let head = head(self.status, &self.headers, at)?;
        let body = self.body.checked().map_err(|mistake| mistake.under(at))?.concat();
        Ok(http::Response::from_parts(head, body.into()))
    }
}

fn head(status: u16, headers: &Fields, at: &str) -> Result<http::response::Parts, Mistake> {
    let (mut head, ()) = http::Response::new(()).into_parts();
    let valid = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    head.status = valid.ok_or_else(|| Mistake::at(format!("{at}/status"), "a status is a number from 200 to 599"))?;
    head.headers = headers.checked(&format!("{at}/headers"))?;
    Ok(head)
}

fn rest(body: &Content, trailers: &Fields) -> Result<Rest, Mistake> {
    let trailers = trailers.checked("/trailers")?;
    Ok(Rest { pieces: body.checked()?, trailers: Some(trailers).filter(|trailers| !trailers.is_empty()) })
}

impl Fields {
    fn checked(&self, at: &str) -> Result<HeaderMap, Mistake> {
        let pairs: Vec<(&str, &str)> = match self {
            Self::Listed(pairs) => pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            Self::Named(named) => {
                named.iter().flat_map(|(name, values)| values.each().map(move |value| (name.as_str(), value))).collect()
            }
        };
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            let wrong = |detail: &str| Mistake::at(format!("{at}/{name}"), detail);
            let header = HeaderName::try_from(name).map_err(|_| wrong("it is not a header's name"))?;
            let value = HeaderValue::try_from(value).map_err(|_| wrong("its value cannot be a header's"))?;
            fields.append(header, value);
        }
        Ok(fields)
    }
}

impl Values {
    fn each(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::Many(many) => many.iter(),
        }
        .map(String::as_str)
    }
}

impl Content {
    fn checked(&self) -> Result<Vec<Bytes>, Mistake> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Whole(piece) => Ok(vec![piece.bytes("/body")?]),
            Self::Pieces(pieces) => {
                pieces.iter().enumerate().map(|(index, piece)| piece.bytes(&format!("/body/{index}"))).collect()
            }
        }
    }
}

impl Piece {
    fn bytes(&self, at: &str) -> Result<Bytes, Mistake> {
        match self {
            Self::Text(text) => Ok(Bytes::from(text.clone())),
            Self::Encoded(Encoded::Json(json)) => Ok(Bytes::from(json.to_string())),
            Self::Encoded(Encoded::Base64(base64)) => base64::engine::general_purpose::STANDARD
                .decode(base64)
                .map(Bytes::from)
                .map_err(|error| Mistake::at(format!("{at}/base64"), error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<(http::request::Parts, Rest), Mistake> {
        let request: Request = read(text)?;
        Ok((request.head()?, request.rest()?))
    }

    #[test]
    fn a_description_becomes_messages() {
        let text = r#"{"method": "POST", "url": "http://api.example.com/v1?a=b", "headers": {"x-a": ["1", "2"]},
            "body": ["ab", {"base64": "/w=="}, {"json": {"c": 1}}], "trailers": [["x-end", "yes"]]}"#;
        let (head, rest) = request(text).unwrap();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1"));
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(head.headers["host"], "api.example.com");
        assert_eq!(rest.pieces, [&b"ab"[..], b"\xff", br#"{"c":1}"#]);
        assert_eq!(rest.trailers.unwrap()["x-end"], "yes");
        let (_, rest) = request(r#"{"url": "https://api.example.com/"}"#).unwrap();
        assert!(rest.pieces.is_empty() && rest.trailers.is_none());
    }

    #[test]
    fn a_mistake_is_named_with_a_pointer() {
        let rows = [
            (r#"{"url": "/v1"}"#, "/url", "whole URL"),
            (r#"{"url": "http://a/", "method": "G T"}"#, "/method", "not an HTTP method"),
            (r#"{"url": "http://a/", "headers": {"x y": "1"}}"#, "/headers/x y", "not a header's name"),
            (r#"{"url": "http://a/", "headers": {"x": "1\n"}}"#, "/headers/x", "cannot be a header's"),
            (r#"{"url": "http://a/", "body": [{"base64": "?"}]}"#, "/body/0/base64", "symbol"),
            (r#"{"url": "http://a/", "boddy": 1}"#, "/boddy", "unknown field"),
            (r#"{"url": "http://a/", "caller": {"address": "here"}}"#, "/caller/address", "IP address"),
            (r#"{"url": "http://a/", "caller": {"labels": {"a.b/c": 1}}}"#, "/caller/labels/a.b~1c", "invalid type"),
            (r#"{"url": "http://a/"} 1"#, "", "trailing"),
        ];
        for (text, pointer, part) in rows {
            let mistake = request(text).unwrap_err();
            assert_eq!(mistake.pointer, pointer, "{text}: {mistake}");
            assert!(mistake.detail.contains(part), "{text}: {mistake}");
        }
    }
}
