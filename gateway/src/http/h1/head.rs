//! Message heads: found line by line, parsed once by `httparse`, and held to what RFC 9112 lets a recipient be sure of.
//! What two readers could understand differently is refused, never repaired.

use super::{Framing, decode::Decoder};
use crate::http::{Request, body::Body};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use bytes::Bytes;
use std::mem::MaybeUninit;

/// Most header fields in one head. Apache's own limit, and more than any known API sends.
pub(super) const MAX_FIELDS: usize = 100;

/// How far a head has been looked at for its end, so that bytes that trickle in are looked at once.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Scan {
    seen: usize,
    line: usize,
}

/// A request's head.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// Its body is yet to be put in.
    pub(super) request: Request,
    pub(super) decoder: Decoder,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// CONNECT, or an offer to upgrade: bytes that follow may belong to another protocol.
    pub(super) may_switch: bool,
}

/// A response's head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) decoder: Decoder,
    pub(super) keep_alive: bool,
}

impl Scan {
    /// The length of the head that `buffer` begins with, once it is complete. The buffer may only have grown since the
    /// last call.
    pub(super) fn advance(&mut self, buffer: &[u8]) -> Result<Option<usize>, Framing> {
        while let Some(offset) = memchr::memchr(b'\n', &buffer[self.seen..]) {
            let line_feed = self.seen + offset;
            if line_feed == 0 || buffer[line_feed - 1] != b'\r' {
                return Err(Framing::Bad("a line ends in a bare LF"));
            }
            let line = &buffer[self.line..line_feed - 1];
            self.seen = line_feed + 1;
            self.line = self.seen;
            match line.first() {
                None => {
                    *self = Self::default();
                    return Ok(Some(line_feed + 1));
                }
                Some(b' ' | b'\t') => return Err(Framing::Bad("a line begins with white space (obsolete folding)")),
                Some(_) => {}
            }
        }
        self.seen = buffer.len();
        Ok(None)
    }
}

/// What the fields that frame a message say.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    lengths: u32,
    chunked: bool,
    encodings: u32,
    hosts: u32,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    expects_continue: bool,
}

/// Who wrote the message: repeated equal lengths are refused in a request, where they have no excuse.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    Downstream,
    Upstream,
}

/// Parses a complete request head.
pub(super) fn parse_request(head: &Bytes) -> Result<RequestHead, Framing> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Framing::Bad("the head ends early")),
        Err(error) => return Err(refused(error)),
    }
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let method =
        Method::from_bytes(parsed.method.unwrap_or("").as_bytes()).map_err(|_| Framing::Bad("the method is not a token"))?;
    let target = parsed.path.unwrap_or("").as_bytes();
    let (headers, fields) = collect(head, parsed.headers, Writer::Downstream)?;
    if fields.hosts > 1 || (fields.hosts == 0 && version == Version::HTTP_11) {
        return Err(Framing::Bad("a request must have exactly one Host field"));
    }
    let decoder = request_body(&fields, version)?;
    if method == Method::CONNECT && !matches!(decoder, Decoder::Length(0)) {
        return Err(Framing::Bad("CONNECT with content means nothing (RFC 9110 section 9.3.6)"));
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = parse_target(head.slice_ref(target), &method)?;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    let keep_alive = !fields.close && (version == Version::HTTP_11 || fields.keep_alive);
    let may_switch =
        method == Method::CONNECT || (fields.upgrade && crate::http::forward::offered_protocol(request.headers()).is_some());
    *request.method_mut() = method;
    let expects_continue = fields.expects_continue && version == Version::HTTP_11 && !decoder.ended();
    Ok(RequestHead { request, decoder, keep_alive, expects_continue, may_switch })
}

/// Parses a complete response head, the answer to a request of `method`.
pub(super) fn parse_response(head: &Bytes, method: &Method) -> Result<ResponseHead, Framing> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Framing::Bad("the head ends early")),
        Err(error) => return Err(refused(error)),
    }
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let status =
        parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Framing::Bad("the status is not a number"))?;
    let (headers, fields) = collect(head, parsed.headers, Writer::Upstream)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framed = response_body(&fields, version)?;
    let decoder = if bodiless { Decoder::Length(0) } else { framed };
    let keep_alive = !fields.close && (version == Version::HTTP_11 || fields.keep_alive) && !matches!(decoder, Decoder::Close);
    Ok(ResponseHead { status, version, headers, decoder, keep_alive })
}

/// Parses a complete trailer section, the empty line that ends it included.
pub(super) fn parse_trailers(section: &Bytes) -> Result<HeaderMap, Framing> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => fields,
        Ok(_) => return Err(Framing::Bad("the trailer section ends early")),
        Err(error) => return Err(refused(error)),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) = convert(section, field)?;
        // Fields that frame, route or authorise must not come late (RFC 9110 section 6.5.1): they are left out.
        if !forbidden_in_trailers(&name) {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

/// Whether a field has no place in a trailer section.
pub(in crate::http) fn forbidden_in_trailers(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length"
            | "transfer-encoding"
            | "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "authorization"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "set-cookie"
            | "cookie"
            | "max-forwards"
            | "via"
    )
}

fn refused(error: httparse::Error) -> Framing {
    match error {
        httparse::Error::HeaderName => Framing::Bad("a field name is not a token, or has white space around it"),
        httparse::Error::HeaderValue => Framing::Bad("a field value holds a control character"),
        httparse::Error::NewLine => Framing::Bad("a line does not end in CRLF"),
        httparse::Error::Status => Framing::Bad("the status line is malformed"),
        httparse::Error::Token => Framing::Bad("the first line is malformed"),
        httparse::Error::TooManyHeaders => Framing::TooLarge("more than 100 header fields"),
        httparse::Error::Version => Framing::Bad("only HTTP/1.0 and HTTP/1.1 are spoken here"),
    }
}

fn convert(head: &Bytes, field: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), Framing> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Framing::Bad("a field name is not a token"))?;
    let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
        .map_err(|_| Framing::Bad("a field value holds a control character"))?;
    Ok((name, value))
}

/// Fields as a map, values as slices of the head, and what those that frame the message say.
fn collect(head: &Bytes, parsed: &[httparse::Header<'_>], writer: Writer) -> Result<(HeaderMap, Fields), Framing> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + 4);
    let mut fields = Fields::default();
    for field in parsed {
        let (name, value) = convert(head, field)?;
        match name.as_str() {
            "content-length" => {
                let length = parse_length(value.as_bytes())?;
                fields.lengths += 1;
                if fields.lengths > 1 && (writer == Writer::Downstream || fields.length != Some(length)) {
                    return Err(Framing::Bad("more than one Content-Length"));
                }
                fields.length = Some(length);
                if fields.lengths > 1 {
                    continue;
                }
            }
            "transfer-encoding" => {
                fields.encodings += 1;
                fields.chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            "host" => fields.hosts += 1,
            "expect" => fields.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            "connection" => {
                for option in value.as_bytes().split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    fields.close |= option.eq_ignore_ascii_case(b"close");
                    fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    fields.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            _ => {}
        }
        headers.append(name, value);
    }
    if fields.encodings > 0 && fields.lengths > 0 {
        return Err(Framing::Bad("Content-Length together with Transfer-Encoding"));
    }
    if fields.encodings > 1 || (fields.encodings == 1 && !fields.chunked) {
        return Err(Framing::Bad("a Transfer-Encoding other than one \"chunked\""));
    }
    Ok((headers, fields))
}

fn parse_length(text: &[u8]) -> Result<u64, Framing> {
    // Nineteen digits always fit, and no body comes near them.
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(Framing::Bad("a Content-Length is not a decimal number alone"));
    }
    Ok(text.iter().fold(0, |length, &digit| length * 10 + u64::from(digit - b'0')))
}

fn request_body(fields: &Fields, version: Version) -> Result<Decoder, Framing> {
    match fields.length {
        _ if fields.chunked && version == Version::HTTP_10 => Err(Framing::Bad("Transfer-Encoding in HTTP/1.0")),
        _ if fields.chunked => Ok(Decoder::Chunked(super::decode::Chunks::default())),
        Some(length) => Ok(Decoder::Length(length)),
        None => Ok(Decoder::Length(0)),
    }
}

fn response_body(fields: &Fields, version: Version) -> Result<Decoder, Framing> {
    match fields.length {
        None if !fields.chunked => Ok(Decoder::Close),
        _ => request_body(fields, version),
    }
}

/// A request target in one of the four forms of RFC 9112 section 3.2. A fragment is refused: it is never sent, and
/// readers differ in what they make of one.
fn parse_target(target: Bytes, method: &Method) -> Result<Uri, Framing> {
    let malformed = Framing::Bad("the request target has none of the forms of RFC 9112 section 3.2");
    if memchr::memchr(b'#', &target).is_some() || !target.is_ascii() {
        return Err(malformed);
    }
    let origin_form = target.first() == Some(&b'/');
    let asterisk_form = target.as_ref() == b"*";
    let uri = Uri::from_maybe_shared(target).map_err(|_| malformed)?;
    let well_formed = match *method {
        Method::CONNECT => uri.scheme().is_none() && uri.authority().is_some() && uri.path_and_query().is_none(),
        _ if asterisk_form => *method == Method::OPTIONS,
        _ => origin_form || (uri.scheme().is_some() && uri.authority().is_some()),
    };
    if well_formed { Ok(uri) } else { Err(malformed) }
}
