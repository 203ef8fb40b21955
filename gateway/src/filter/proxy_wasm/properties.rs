//! Properties by path: segments with a zero between them. Values are typed bytes: numbers, times and lengths of time take
//! 8 bytes, little-endian; a truth takes one; maps are pairs; all else is text. Pure.

use super::{
    fields::{Field, View},
    maps,
    setup::Key,
    state::Root,
    stream::Stream,
};
use crate::filter::{attributes::Known, bindings::tidegate::filter::types::Attr, message::Kind};
use http::{HeaderValue, header};
use serde_json::Value as Json;
use std::time::{Duration, SystemTime};
use tidegate_policy::{identity::Proof, target::Form};

/// What a property may be of.
pub(super) struct Asked<'a> {
    pub(super) key: &'a Key,
    pub(super) root: Option<&'a Root>,
    pub(super) stream: Option<&'a Stream>,
}

/// A property's value. Numbers and short texts need no memory of their own.
#[derive(Debug)]
pub(super) enum Value {
    Number([u8; 8]),
    Flag([u8; 1]),
    Static(&'static str),
    Shared(std::sync::Arc<str>),
    Field(Field),
    Owned(Vec<u8>),
}

impl Value {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Number(bytes) => bytes,
            Self::Flag(bytes) => bytes,
            Self::Static(text) => text.as_bytes(),
            Self::Shared(text) => text.as_bytes(),
            Self::Field(field) => field.as_bytes(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The traffic that this gateway is for, as Envoy numbers directions.
const OUTBOUND: i64 = 2;
/// How the gateway is called as a node.
const NODE: &str = "tidegate";
/// What filters set is kept under this among the exchange's attributes.
const SET: &str = "state.wasm.";

/// The property at `path`; none where there is none, or not yet. A trailing zero is no segment.
pub(super) fn get(path: &[u8], asked: &Asked<'_>) -> Option<Value> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_suffix('\0').unwrap_or(path);
    let (first, rest) = path.split_once('\0').unwrap_or((path, ""));
    let of_exchange = match first {
        "plugin_root_id" => return asked.root.map(|root| Value::Shared(root.setup.root_id.clone())),
        "plugin_name" => return Some(Value::Shared(asked.key.plugin.clone())),
        "plugin_vm_id" => return Some(Value::Shared(asked.key.machine.vm_id.clone())),
        "listener_direction" => return Some(number(OUTBOUND)),
        "node" => return node(rest),
        "metadata" => return metadata(asked.root?, rest),
        // A tunnel has neither.
        "request" | "response" if asked.stream.is_some_and(|stream| stream.ends.is_some()) => None,
        "request" => asked.stream.and_then(|stream| request(rest, stream)),
        "response" => asked.stream.and_then(|stream| response(rest, stream)),
        "source" | "destination" | "connection" | "upstream" => {
            asked.stream.and_then(|stream| connection(first, rest, &stream.known))
        }
        "route_name" | "cluster_name" => asked.stream.and_then(|stream| way(first, &stream.known)),
        "xds" => asked.stream.and_then(|stream| way(rest, &stream.known)),
        _ => None,
    };
    of_exchange.or_else(|| was_set(path, &asked.stream?.known))
}

/// Keeps a value under `path` among the exchange's attributes; false where that may not be.
pub(super) fn set(path: &[u8], value: &[u8], known: &Known, room: (usize, usize)) -> bool {
    std::str::from_utf8(path).is_ok_and(|path| known.set(&set_name(path), Attr::Blob(value.to_vec()), room))
}

fn was_set(path: &str, known: &Known) -> Option<Value> {
    match known.attribute(&set_name(path))? {
        Attr::Blob(bytes) => Some(Value::Owned(bytes)),
        Attr::Text(text) => Some(Value::Owned(text.into_bytes())),
        Attr::Int(value) => Some(number(value)),
        Attr::Uint(value) | Attr::TimeNs(value) => Some(number(value.cast_signed())),
        Attr::Flag(flag) => Some(Value::Flag([flag.into()])),
    }
}

fn set_name(path: &str) -> String {
    let path = path.strip_suffix('\0').unwrap_or(path);
    let mut name = String::with_capacity(SET.len() + path.len());
    name.push_str(SET);
    name.extend(path.chars().map(|letter| if letter == '\0' { '.' } else { letter }));
    name
}

fn request(name: &str, stream: &Stream) -> Option<Value> {
    let known = &stream.known;
    let head = || stream.head(Kind::Request);
    match name.split_once('\0') {
        Some(("headers", field)) => return field_of(head()?, field),
        Some(_) => return None,
        None => {}
    }
    match name {
        "path" => head()?.get(b":path").map(Value::Field),
        "url_path" => {
            let (_, path) = stream.line()?;
            Some(Value::Owned(path.path().as_bytes().to_vec()))
        }
        "query" => stream.line()?.1.query().map(|query| Value::Owned(query.as_bytes().to_vec())),
        "host" => head()?.get(b":authority").map(Value::Field),
        "scheme" => head()?.get(b":scheme").map(Value::Field),
        "method" => head()?.get(b":method").map(Value::Field),
        "headers" => Some(pairs(head()?)),
        "id" => field_of(head()?, "x-request-id"),
        "referer" => field_of(head()?, "referer"),
        "useragent" => field_of(head()?, "user-agent"),
        "protocol" => Some(Value::Static(if known.version()? == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" })),
        "time" => {
            let began = SystemTime::now().checked_sub(known.began().elapsed())?;
            let since = began.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(length(since))
        }
        "duration" => known.closing().map(|closing| length(closing.total)),
        "size" | "total_size" => Some(number(size(known.closing().map(|c| c.request_bytes), &stream.request))),
        _ => None,
    }
}

fn response(name: &str, stream: &Stream) -> Option<Value> {
    let known = &stream.known;
    let head = || stream.head(Kind::Response);
    match name.split_once('\0') {
        Some(("headers", field)) => return field_of(head()?, field),
        Some(("trailers", field)) => return field_of(stream.trailers(Kind::Response)?, field),
        Some(_) => return None,
        None => {}
    }
    match name {
        "code" => Some(number(stream.status()?.as_u16().into())),
        "code_details" => known.closing().map(|closing| Value::Static(closing.reason.as_str())),
        // Envoy's bits for what went wrong on the way; the record says it in words.
        "flags" => stream.status().map(|_| number(0)),
        "headers" => Some(pairs(head()?)),
        "trailers" => Some(pairs(stream.trailers(Kind::Response)?)),
        "size" | "total_size" => Some(number(size(known.closing().map(|c| c.response_bytes), &stream.response))),
        "grpc_status" => {
            let trailers = stream.trailers(Kind::Response)?.get(b"grpc-status")?;
            std::str::from_utf8(trailers.as_bytes()).ok()?.parse().ok().map(number)
        }
        _ => None,
    }
}

fn connection(of: &str, name: &str, known: &Known) -> Option<Value> {
    let caller = || &known.identity().caller;
    let proved = || matches!(caller().proof, Proof::Certificate);
    match (of, name) {
        ("source", "address") => Some(text(known.ends().0.to_string())),
        ("source", "port") => Some(number(known.ends().0.port().into())),
        ("destination", "address") => Some(text(known.ends().1.to_string())),
        ("destination", "port") => Some(number(known.ends().1.port().into())),
        ("connection", "id") => Some(number(known.id().cast_signed())),
        ("connection", "mtls") => Some(Value::Flag([proved().into()])),
        ("connection", "requested_server_name") if known.permit().target().form == Form::Secure => {
            Some(text(known.permit().target().host.to_string()))
        }
        ("connection", "uri_san_peer_certificate") => proved().then(|| caller().principal.clone()).flatten().map(Value::Shared),
        ("upstream", "address") => Some(text(known.upstream()?.address.to_string())),
        ("upstream", "port") => Some(number(known.upstream()?.address.port().into())),
        ("upstream", "tls_version") => known.upstream()?.tls_version.map(Value::Static),
        ("upstream", "requested_server_name") if known.permit().target().form != Form::Plain => {
            Some(text(known.permit().target().host.to_string()))
        }
        _ => None,
    }
}

fn way(name: &str, known: &Known) -> Option<Value> {
    match name {
        "route_name" => Some(text(known.permit().route()?.name.to_string())),
        "cluster_name" => Some(text(known.permit().service()?.name.to_string())),
        "listener_direction" => Some(number(OUTBOUND)),
        _ => None,
    }
}

fn node(name: &str) -> Option<Value> {
    match name {
        "id" | "cluster" | "user_agent_name" => Some(Value::Static(NODE)),
        "" => Some(Value::Owned(maps::encode([(&b"id"[..], NODE.as_bytes()), (b"cluster", NODE.as_bytes())].into_iter()))),
        _ => None,
    }
}

/// What the route's entry says under `metadata`, as far down as the path goes.
fn metadata(root: &Root, path: &str) -> Option<Value> {
    let whole: Json = serde_json::from_str(&root.setup.metadata).ok()?;
    let mut at = &whole;
    for segment in path.split('\0').filter(|segment| !segment.is_empty()) {
        at = match at {
            Json::Array(list) => list.get(segment.parse::<usize>().ok()?)?,
            other => other.get(segment)?,
        };
    }
    Some(Value::Owned(typed(at)))
}

/// JSON as the bytes of a property. Its numbers are all of the kind that JSON has.
fn typed(json: &Json) -> Vec<u8> {
    match json {
        Json::Null => Vec::new(),
        Json::Bool(flag) => vec![u8::from(*flag)],
        Json::Number(number) => number.as_f64().unwrap_or(f64::NAN).to_le_bytes().to_vec(),
        Json::String(text) => text.as_bytes().to_vec(),
        Json::Array(list) => {
            let all: Vec<_> = list.iter().enumerate().map(|(at, json)| (at.to_string(), typed(json))).collect();
            maps::encode(all.iter().map(|(at, value)| (at.as_bytes(), &value[..])))
        }
        Json::Object(map) => {
            let all: Vec<_> = map.iter().map(|(name, json)| (name, typed(json))).collect();
            maps::encode(all.iter().map(|(name, value)| (name.as_bytes(), &value[..])))
        }
    }
}

fn field_of(view: View<'_>, name: &str) -> Option<Value> {
    view.get(name.as_bytes()).map(Value::Field)
}

fn pairs(view: View<'_>) -> Value {
    let pairs = view.pairs();
    Value::Owned(maps::encode(pairs.iter().map(|(name, value)| (*name, &**value))))
}

/// How large a body is: what was counted at the end, what its head announces, or what was seen of it.
fn size(counted: Option<u64>, message: &super::stream::Message) -> i64 {
    let announced = || {
        let length = message.fields()?.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes)?;
        std::str::from_utf8(length).ok()?.parse::<u64>().ok()
    };
    i64::try_from(counted.or_else(announced).unwrap_or(message.body_seen)).unwrap_or(i64::MAX)
}

fn number(number: i64) -> Value {
    Value::Number(number.to_le_bytes())
}

fn length(length: Duration) -> Value {
    number(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}

fn text(text: String) -> Value {
    Value::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::proxy_wasm::setup::{Machine, Setup};
    use std::sync::Arc;
    use tidegate_policy::plugin::Digest;

    fn property(path: &str) -> Option<Vec<u8>> {
        let machine = Machine { vm_id: "vm".into(), ..Machine::default() };
        let key = Key { plugin: "headers".into(), digest: Digest::new([0; 32]), machine };
        let metadata = r#"{"filter_metadata": {"a": {"text": "t", "number": 2, "on": true, "list": ["x"]}}}"#;
        let setup = Setup { root_id: "root".into(), metadata: metadata.into(), ..Setup::default() };
        let root = Root { setup: Arc::new(setup), grants: Arc::default(), timer: None, listens: false, ending: false };
        let asked = Asked { key: &key, root: Some(&root), stream: None };
        get(path.replace('.', "\0").as_bytes(), &asked).map(|value| value.as_bytes().to_vec())
    }

    #[test]
    fn what_every_sdk_asks_for_is_there() {
        assert_eq!(property("plugin_root_id").as_deref(), Some(&b"root"[..]));
        assert_eq!(property("plugin_root_id.").as_deref(), Some(&b"root"[..]), "a zero behind it is no segment");
        assert_eq!(property("plugin_name").as_deref(), Some(&b"headers"[..]));
        assert_eq!(property("plugin_vm_id").as_deref(), Some(&b"vm"[..]));
        assert_eq!(property("listener_direction"), Some(2_i64.to_le_bytes().to_vec()));
        assert_eq!(property("node.id").as_deref(), Some(&b"tidegate"[..]));
    }

    #[test]
    fn metadata_is_typed() {
        let of = |name: &str| property(&format!("metadata.filter_metadata.a.{name}"));
        assert_eq!(of("text").as_deref(), Some(&b"t"[..]));
        assert_eq!(of("number"), Some(2_f64.to_le_bytes().to_vec()));
        assert_eq!(of("on"), Some(vec![1]));
        assert_eq!(of("list.0").as_deref(), Some(&b"x"[..]));
        assert_eq!(of("absent"), None);
        assert!(property("metadata").is_some_and(|all| all.starts_with(&[1, 0, 0, 0])));
    }

    #[test]
    fn there_is_nothing_of_an_exchange_outside_of_one() {
        for path in ["request.path", "response.code", "source.address", "route_name", "xds.cluster_name", "", ".", "no.such"] {
            assert_eq!(property(path), None, "{path}");
        }
    }
}
