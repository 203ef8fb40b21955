//! What the configuration can ask for, and its doing.

use crate::Hand;
use std::{fmt::Display, time::Duration};
use tidegate_sdk::{
    Body, BodyFlow, Flow, Headers, Reply, StatusCode, TrailerFlow, attributes,
    attributes::Value,
    audit, clock, kv, log, message,
    metrics::{Counter, Gauge, Histogram},
    upstream,
};

/// One thing to do. What is refused, and what is read, becomes a line of what was seen.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    // Of the headers at hand: a head, or trailers.
    Get(String),
    GetAll(String),
    GetMany(Vec<String>),
    Entries(()),
    Set(String, String),
    Append(String, String),
    Remove(String),
    /// Sets the one and removes the other, or neither.
    Swap(String, String),
    /// Of the head that is held, while a body or trailers are at hand.
    Head(Box<Act>),

    // Of the body at hand.
    Length(()),
    Read(u64, u32),
    Take(()),
    Splice(u64, u64, String),
    Replace(String),
    PrependBody(String),
    AppendBody(String),
    /// Replaces it by so many bytes.
    Fill(usize),

    Rewrite(String, String),
    Status(u16),
    Service(String),
    Endpoint(String, u16),
    Tls(upstream::Tls),
    Secret {
        header: String,
        credential: String,
        prefix: String,
    },

    Attribute(String),
    SetAttribute(String, String),
    /// An event of this kind with one field, and the service as the gateway knows it.
    Event(String, String),
    Log(String),
    Count(String, u64),
    Gauge(String, i64),
    GaugeAdd(String, i64),
    Observe(String, u64),
    KvGet(String),
    KvSet(String, String, Option<u32>),
    KvCompareAndSet(String, String, u64),
    Increment(String, i64),
    KvRemove(String),
    Clock(()),
    Random(u32),

    /// The answer to the callback.
    Flow(Answer),
    /// The answers to one piece of a body after the other; the last one stands for the rest.
    Flows(Vec<Answer>),
    Reply(Local),
}

/// An answer. Those that a callback does not have mean that the message goes on.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Proceed,
    Trailers,
    Stream,
    Hold,
    Buffer,
    Done,
    Forward,
    Drop,
    SkipRest,
    Reset,
    #[serde(skip)]
    Reply(Local),
    #[serde(skip)]
    InTurn(Vec<Answer>),
}

/// An answer of its own.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Local {
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    grpc_status: Option<u32>,
    #[serde(default)]
    details: String,
}

/// How many pieces of a body have come.
#[derive(Debug, Default)]
pub(crate) struct Pieces(usize);

/// Does all of it; the last answer counts.
pub(crate) fn all(acts: &[Act], lines: &mut Vec<String>, mut hand: Hand<'_, '_>) -> Option<Answer> {
    let mut answer = None;
    for act in acts {
        match act {
            Act::Flow(flow) => answer = Some(flow.clone()),
            Act::Flows(flows) => answer = Some(Answer::InTurn(flows.clone())),
            Act::Reply(reply) => answer = Some(Answer::Reply(reply.clone())),
            act => lines.extend(one(act, &mut hand)),
        }
    }
    answer
}

fn one(act: &Act, hand: &mut Hand<'_, '_>) -> Option<String> {
    if let Act::Head(act) = act {
        return match hand.head() {
            Some(head) => headers(act, head),
            None => Some("the head has gone on".to_owned()),
        };
    }
    match hand {
        Hand::Head(head) => headers(act, head),
        Hand::Body(held) => body(act, held),
        Hand::Trailers(trailers) => headers(act, trailers).or_else(|| body(act, trailers.body())),
        Hand::Nothing => None,
    }
    .or_else(|| way(act))
    .or_else(|| shared(act))
    .or_else(|| gateway(act))
}

fn headers(act: &Act, headers: &mut Headers<'_>) -> Option<String> {
    let text = |value: Option<Vec<u8>>| value.map_or("-".to_owned(), |value| String::from_utf8_lossy(&value).into_owned());
    match act {
        Act::Get(name) => Some(format!("get {name}: {}", text(headers.get(name)))),
        Act::GetAll(name) => {
            let values: Vec<_> = headers.get_all(name).into_iter().map(|value| text(Some(value))).collect();
            Some(format!("get_all {name}: {}", values.join(",")))
        }
        Act::GetMany(names) => {
            let values: Vec<_> = headers.get_many(names).into_iter().map(text).collect();
            Some(format!("get_many: {}", values.join(",")))
        }
        Act::Entries(()) => {
            let names: Vec<_> = headers.entries().into_iter().map(|(name, _)| name).collect();
            Some(format!("entries: {}", names.join(",")))
        }
        Act::Set(name, value) => refused("set", name, headers.insert(name, value)),
        Act::Append(name, value) => refused("append", name, headers.append(name, value)),
        Act::Remove(name) => refused("remove", name, headers.remove(name)),
        Act::Swap(set, remove) => refused("swap", set, headers.change().insert(set, "swapped").remove(remove).apply()),
        _ => None,
    }
}

fn body(act: &Act, body: &mut Body<'_>) -> Option<String> {
    match act {
        Act::Length(()) => Some(format!("length: {}", body.len())),
        Act::Read(offset, len) => Some(format!("read: {}", String::from_utf8_lossy(&body.read(*offset, *len)))),
        Act::Take(()) => Some(format!("take: {}", String::from_utf8_lossy(&body.take()))),
        Act::Splice(offset, len, data) => refused("splice", data, body.splice(*offset..offset.saturating_add(*len), data)),
        Act::Replace(data) => refused("replace", data, body.replace(data)),
        Act::PrependBody(data) => refused("prepend", data, body.prepend(data)),
        Act::AppendBody(data) => refused("append", data, body.append(data)),
        Act::Fill(len) => refused("fill", len, body.replace(vec![b'x'; *len])),
        _ => None,
    }
}

fn way(act: &Act) -> Option<String> {
    match act {
        Act::Rewrite(method, path) => refused("rewrite", path, message::rewrite(method, path)),
        Act::Status(status) => refused("status", status, message::set_status(*status)),
        Act::Service(name) => refused("service", name, upstream::select_service(name)),
        Act::Endpoint(address, port) => refused("endpoint", address, upstream::select_endpoint(address, *port)),
        Act::Tls(tls) => refused("tls", "settings", upstream::originate_tls(tls)),
        Act::Secret { header, credential, prefix } => {
            refused("secret", credential, upstream::inject_secret(header, credential, prefix))
        }
        _ => None,
    }
}

fn shared(act: &Act) -> Option<String> {
    let answer = |what: &str, key: &str, answer: Result<String, kv::KvError>| match answer {
        Ok(value) => format!("{what} {key}: {value}"),
        Err(error) => format!("{what} {key}: {error}"),
    };
    match act {
        Act::KvGet(key) => Some(match kv::get(key) {
            Some(entry) => {
                let hex: String = entry.value.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("kv_get {key}: {} {hex}", entry.version)
            }
            None => format!("kv_get {key}: -"),
        }),
        Act::KvSet(key, value, ttl_ms) => {
            let ttl = ttl_ms.map(|ttl| Duration::from_millis(ttl.into()));
            Some(answer("kv_set", key, kv::set(key, value, ttl).map(|version| version.to_string())))
        }
        Act::KvCompareAndSet(key, value, expect) => {
            let set = kv::compare_and_set(key, value, *expect, None);
            Some(answer("kv_compare_and_set", key, set.map(|version| version.to_string())))
        }
        Act::Increment(key, delta) => {
            Some(answer("increment", key, kv::increment(key, *delta, None).map(|sum| sum.to_string())))
        }
        _ => None,
    }
}

fn gateway(act: &Act) -> Option<String> {
    match act {
        Act::Attribute(name) => return Some(format!("attribute {name}: {}", shown(attributes::get(name)))),
        Act::SetAttribute(name, value) => {
            return (!attributes::set(name, value.as_str())).then(|| format!("set_attribute {name}: refused"));
        }
        Act::Event(kind, value) => {
            let event = audit::Event::new(kind, audit::Outcome::Modified).known(&[("service", "service")]);
            return (!event.field("value", value.as_str()).emit()).then(|| format!("event {kind}: dropped"));
        }
        Act::Log(text) if log::enabled(log::Level::Info) => log::info(text),
        Act::Count(name, amount) => Counter::new(name).add(*amount),
        Act::Gauge(name, value) => Gauge::new(name).set(*value),
        Act::GaugeAdd(name, amount) => Gauge::new(name).add(*amount),
        Act::Observe(name, value) => Histogram::new(name).observe(*value),
        Act::KvRemove(key) => kv::remove(key),
        Act::Clock(()) => {
            let before = clock::monotonic();
            let moves = clock::monotonic() >= before;
            return Some(format!("clock: {} {moves}", clock::since_epoch().as_secs()));
        }
        Act::Random(count) => return Some(format!("random: {}", tidegate_sdk::random(*count).len())),
        _ => {}
    }
    None
}

fn shown(value: Option<Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::Text(text)) => text,
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Uint(number) | Value::Time(number)) => number.to_string(),
        Some(Value::Flag(flag)) => flag.to_string(),
        Some(Value::Blob(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn refused(what: &str, which: impl Display, done: Result<(), impl Display>) -> Option<String> {
    done.err().map(|error| format!("{what} {which}: {error}"))
}

impl<'b> Hand<'_, 'b> {
    fn head(&mut self) -> Option<&mut Headers<'b>> {
        match self {
            Self::Nothing => None,
            Self::Head(head) => Some(head),
            Self::Body(body) => body.head(),
            Self::Trailers(trailers) => trailers.head(),
        }
    }
}

impl Answer {
    pub(crate) fn head(self) -> Flow {
        match self {
            Self::Trailers => Flow::Trailers,
            Self::Stream => Flow::Stream,
            Self::Hold => Flow::Hold,
            Self::Buffer => Flow::Buffer,
            Self::Done => Flow::Done,
            Self::Reset => Flow::Reset,
            Self::Reply(reply) => Flow::Reply(reply.into()),
            _ => Flow::Proceed,
        }
    }

    pub(crate) fn piece(self, pieces: &mut Pieces) -> BodyFlow {
        let number = pieces.0;
        pieces.0 += 1;
        match self {
            Self::Hold => BodyFlow::Hold,
            Self::Drop => BodyFlow::Drop,
            Self::SkipRest => BodyFlow::SkipRest,
            Self::Reset => BodyFlow::Reset,
            Self::Reply(reply) => BodyFlow::Reply(reply.into()),
            Self::InTurn(flows) => {
                let flow = flows.get(number).or(flows.last()).cloned();
                flow.map_or(BodyFlow::Forward, |flow| flow.piece(&mut Pieces::default()))
            }
            _ => BodyFlow::Forward,
        }
    }

    pub(crate) fn trailers(self) -> TrailerFlow {
        match self {
            Self::Reset => TrailerFlow::Reset,
            Self::Reply(reply) => TrailerFlow::Reply(reply.into()),
            _ => TrailerFlow::Forward,
        }
    }
}

impl From<Local> for Reply {
    fn from(local: Local) -> Self {
        let status = StatusCode::from_u16(local.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reply = Self::new(status).body(local.body).details(local.details);
        let reply = local.headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, value));
        local.grpc_status.into_iter().fold(reply, Self::grpc_status)
    }
}
