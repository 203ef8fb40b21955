//! Hands 4 MiB, or a list of very many entries, to one call of the host at a time. The filter's own memory holds either.

use crate::Hand;
use tidegate_sdk::{attributes, audit, kv, log, message, metrics, upstream};

const SIZE: usize = 4 << 20;
const ENTRIES: usize = 1 << 17;

/// The call that gets too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    HeaderGet,
    HeaderGetAll,
    HeaderGetMany,
    HeaderName,
    HeaderValue,
    HeaderRemove,
    HeaderChanges,
    BodySplice,
    AttributeGet,
    AttributeName,
    AttributeValue,
    RewriteMethod,
    RewritePath,
    SelectService,
    SelectEndpoint,
    TlsSni,
    TlsNames,
    TlsCredential,
    SecretHeader,
    SecretCredential,
    SecretPrefix,
    EventKind,
    EventKnown,
    EventField,
    EventFields,
    Log,
    Counter,
    Gauge,
    Histogram,
    KvGet,
    KvKey,
    KvValue,
    KvCompare,
    KvIncrement,
    KvRemove,
}

/// Makes the call, and says whether it was accepted; where it traps, nothing is said.
pub(super) fn hand_over(call: Option<Call>, hand: Hand<'_, '_>) {
    let Some(call) = call else { return };
    let giant = "x".repeat(SIZE);
    let accepted = match call {
        Call::BodySplice => hand.body().is_some_and(|body| body.splice(.., &giant).is_ok()),
        Call::HeaderGet
        | Call::HeaderGetAll
        | Call::HeaderGetMany
        | Call::HeaderName
        | Call::HeaderValue
        | Call::HeaderRemove
        | Call::HeaderChanges => headers(call, &giant, hand),
        Call::AttributeGet | Call::AttributeName | Call::AttributeValue | Call::RewriteMethod | Call::RewritePath => {
            message(call, giant)
        }
        Call::EventKind | Call::EventKnown | Call::EventField | Call::EventFields => event(call, giant),
        Call::Log | Call::Counter | Call::Gauge | Call::Histogram => telemetry(call, &giant),
        Call::KvGet | Call::KvKey | Call::KvValue | Call::KvCompare | Call::KvIncrement | Call::KvRemove => {
            values(call, &giant)
        }
        _ => way(call, giant),
    };
    super::report("giant", "accepted", u64::from(accepted));
}

fn headers(call: Call, giant: &str, hand: Hand<'_, '_>) -> bool {
    let Some(headers) = hand.headers() else { return false };
    match call {
        Call::HeaderGet => headers.get(giant).is_some(),
        Call::HeaderGetAll => !headers.get_all(giant).is_empty(),
        Call::HeaderGetMany => headers.get_many(&vec!["x-none"; ENTRIES]).iter().any(Option::is_some),
        Call::HeaderName => headers.insert(giant, "v").is_ok(),
        Call::HeaderValue => headers.insert("x-large", giant).is_ok(),
        Call::HeaderRemove => headers.remove(giant).is_ok(),
        _ => (0..ENTRIES).fold(headers.change(), |change, _| change.append("x-many", "v")).apply().is_ok(),
    }
}

fn message(call: Call, giant: String) -> bool {
    match call {
        Call::AttributeGet => attributes::get(&giant).is_some(),
        Call::AttributeName => attributes::set(&format!("state.{giant}"), 1_u64),
        Call::AttributeValue => attributes::set("state.large", giant),
        Call::RewriteMethod => message::rewrite(giant, "/").is_ok(),
        _ => message::rewrite("GET", format!("/{giant}")).is_ok(),
    }
}

fn way(call: Call, giant: String) -> bool {
    let as_registered = upstream::Tls::default();
    let chosen = match call {
        Call::SelectService => upstream::select_service(giant),
        Call::SelectEndpoint => upstream::select_endpoint(giant, 443),
        Call::SecretHeader => upstream::inject_secret(giant, "key", ""),
        Call::SecretCredential => upstream::inject_secret("x-key", giant, ""),
        Call::SecretPrefix => upstream::inject_secret("x-key", "key", giant),
        Call::TlsNames => {
            upstream::originate_tls(&upstream::Tls { names: Some(vec!["a.example".to_owned(); ENTRIES]), ..as_registered })
        }
        Call::TlsCredential => upstream::originate_tls(&upstream::Tls { certificate: Some(giant), ..as_registered }),
        _ => upstream::originate_tls(&upstream::Tls { sni: Some(giant), ..as_registered }),
    };
    chosen.is_ok()
}

fn event(call: Call, giant: String) -> bool {
    let event = audit::Event::new("large", audit::Outcome::Allowed);
    match call {
        Call::EventKind => audit::Event::new(&giant, audit::Outcome::Allowed).emit(),
        Call::EventKnown => event.known(&vec![("service", "service"); ENTRIES]).emit(),
        Call::EventField => event.field("text", giant).emit(),
        _ => (0..ENTRIES).fold(event, |event, _| event.field("n", 1_u64)).emit(),
    }
}

/// Nothing is answered to these.
fn telemetry(call: Call, giant: &str) -> bool {
    match call {
        Call::Log => log::info(giant),
        Call::Counter => metrics::Counter::new(giant).add(1),
        Call::Gauge => metrics::Gauge::new(giant).set(1),
        _ => metrics::Histogram::new(giant).observe(1),
    }
    false
}

fn values(call: Call, giant: &str) -> bool {
    match call {
        Call::KvGet => kv::get(giant).is_some(),
        Call::KvKey => kv::set(giant, "v", None).is_ok(),
        Call::KvValue => kv::set("large", giant, None).is_ok(),
        Call::KvCompare => kv::compare_and_set("large", giant, 0, None).is_ok(),
        Call::KvIncrement => kv::increment(giant, 1, None).is_ok(),
        _ => {
            kv::remove(giant);
            false
        }
    }
}
