//! Functions of the gateway's own, by name: what typed filters have and Proxy-Wasm has not. Arguments and answers are JSON.
//! A refusal is a failure of the call, so that no filter goes on as if it had been granted; the answer says why.

use super::{Offered, offer};
use crate::{
    filter::{
        audit::{Budget, Fields},
        bindings::tidegate::filter::types::Attr,
        message::Kind,
        proxy_wasm::{
            abi::{Answer, Status},
            memory::{Call, Done, give, range, split, text},
            state::State,
        },
        upstream::{Refused, wished},
    },
    upstream::wish::{Refusal, Terms, TlsSettings, Wish},
};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tidegate_policy::service::{Alpn, TlsMode, TlsVersion};
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(
        offered, "proxy_call_foreign_function", call_foreign_function,
        name: u32, name_size: u32, arguments: u32, arguments_size: u32, at: u32, size: u32
    );
    Ok(())
}

/// What a function of the gateway's says.
enum Said {
    Nothing,
    Json(serde_json::Value),
    Refused(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectService {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectEndpoint {
    address: String,
    port: u16,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OriginateTls {
    mode: Option<Mode>,
    sni: Option<String>,
    names: Option<Vec<String>>,
    trust: Option<String>,
    min_version: Option<TlsVersion>,
    alpn: Option<Vec<Alpn>>,
    certificate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Disabled,
    Simple,
    Mutual,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectSecret {
    header: String,
    credential: String,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Audit {
    kind: String,
    outcome: Outcome,
    /// Fields to be filled with attributes, by field.
    #[serde(default)]
    known: BTreeMap<String, String>,
    #[serde(default)]
    fields: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allowed,
    Denied,
    Modified,
    Error,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    name: String,
}

fn call_foreign_function(
    call: &mut Call<'_>,
    name: u32,
    name_size: u32,
    arguments: u32,
    arguments_size: u32,
    at: u32,
    size: u32,
) -> Done {
    let (memory, state) = split(call)?;
    let name = text(memory, name, name_size)?;
    let arguments = range(memory, arguments, arguments_size)?;
    let said = match name {
        "tidegate.select_service" => {
            let SelectService { name } = read(arguments)?;
            wish(state, |wish, terms| wish.select_service(&name, terms))
        }
        "tidegate.select_endpoint" => {
            let SelectEndpoint { address, port } = read(arguments)?;
            wish(state, |wish, terms| wish.select_endpoint(&address, port, terms))
        }
        "tidegate.originate_tls" => {
            let settings = read::<OriginateTls>(arguments)?.settings();
            wish(state, |wish, terms| wish.originate_tls(&settings, terms))
        }
        "tidegate.inject_secret" => {
            let InjectSecret { header, credential, prefix } = read(arguments)?;
            wish(state, |wish, terms| wish.inject_secret(&header, &credential, &prefix, terms))
        }
        "tidegate.audit" => audit(state, read(arguments)?)?,
        "tidegate.attribute" => attribute(state, &read::<Attribute>(arguments)?.name)?,
        _ => return Err(Status::NotFound.into()),
    };
    match said {
        Said::Nothing => give(call, b"", at, size),
        Said::Json(json) => give(call, json.to_string().as_bytes(), at, size),
        Said::Refused(why) => {
            give(call, serde_json::json!({"refused": why}).to_string().as_bytes(), at, size)?;
            Err(Status::InternalFailure.into())
        }
    }
}

fn read<T: DeserializeOwned>(arguments: &[u8]) -> Answer<T> {
    serde_json::from_slice(arguments).map_err(|_| Status::BadArgument)
}

/// Wishes for something of the way out, as long as the request's head is here.
fn wish(state: &mut State, make: impl FnOnce(&mut Wish, &Terms<'_>) -> std::result::Result<(), Refusal>) -> Said {
    let grants = state.root().map(|root| root.grants.clone()).unwrap_or_default();
    let metrics = state.metrics.clone();
    let lent = state.stream_mut().filter(|stream| stream.request.fields.is_some()).map(|stream| {
        let known = stream.known.clone();
        (known, &mut stream.changed(Kind::Request).line)
    });
    let made = match lent {
        Some((known, line)) => wished(&known, line, &grants, &metrics, make),
        None => Err(Refused::TooLate),
    };
    match made {
        Ok(()) => Said::Nothing,
        Err(refused) => Said::Refused(refused.as_str()),
    }
}

fn audit(state: &mut State, audit: Audit) -> Answer<Said> {
    let Audit { kind, outcome, known, fields } = audit;
    let outcome = match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::Modified => "modified",
        Outcome::Error => "error",
    };
    let (limits, metrics) = (state.limits, state.metrics.clone());
    let Some(stream) = state.stream_mut() else { return Ok(Said::Refused("too_late")) };
    let mut all = Fields::within(&limits);
    for (field, name) in known {
        all.add(field, || stream.known.attribute(&name));
    }
    for (field, value) in fields {
        // What is no attribute is a mistake whether there is room for it or not.
        let value = attr(value)?;
        all.add(field, || Some(value));
    }
    let (events, bytes, count) = (&mut stream.events, &mut stream.event_bytes, &mut stream.event_count);
    let budget = Budget { events, bytes, count, limits: &limits, metrics: &metrics, phase: stream.phase };
    Ok(if budget.record(kind, outcome, all) { Said::Nothing } else { Said::Refused("limit") })
}

fn attr(json: serde_json::Value) -> Answer<Attr> {
    Ok(match json {
        serde_json::Value::String(text) => Attr::Text(text),
        serde_json::Value::Bool(flag) => Attr::Flag(flag),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Attr::Uint(number),
            (None, Some(number)) => Attr::Int(number),
            (None, None) => return Err(Status::BadArgument),
        },
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            return Err(Status::BadArgument);
        }
    })
}

fn attribute(state: &State, name: &str) -> Answer<Said> {
    let value = state.stream().and_then(|stream| stream.known.attribute(name)).ok_or(Status::NotFound)?;
    Ok(Said::Json(match value {
        Attr::Text(text) => text.into(),
        Attr::Int(number) => number.into(),
        Attr::Uint(number) | Attr::TimeNs(number) => number.into(),
        Attr::Flag(flag) => flag.into(),
        Attr::Blob(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
    }))
}

impl OriginateTls {
    fn settings(self) -> TlsSettings {
        let Self { mode, sni, names, trust, min_version, alpn, certificate } = self;
        let mode = mode.map(|mode| match mode {
            Mode::Disabled => TlsMode::Disabled,
            Mode::Simple => TlsMode::Simple,
            Mode::Mutual => TlsMode::Mutual,
        });
        TlsSettings { mode, sni, names, trust, min_version, alpn, certificate }
    }
}
