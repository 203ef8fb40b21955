//! What core modules call about what is known, remembered, counted and shared: the interfaces `attributes`, `audit`,
//! `telemetry`, `kv` and `host`.

use super::abi::{Call, Lift, Span, case, enter, give, halves, long, number, option, put, span, state};
use crate::filter::{
    attributes::Fact,
    audit::{self, Fields},
    bindings::tidegate::filter::{audit::Outcome, kv::KvError, telemetry::Level, types::Attr},
    calls,
    shared::{Measure, time_to_live},
    state::State,
};
use std::sync::Arc;
use wasmtime::{Linker, Result, bail};

const ATTRIBUTES: &str = "tidegate:filter/attributes@0.1.0";
const AUDIT: &str = "tidegate:filter/audit@0.1.0";
const TELEMETRY: &str = "tidegate:filter/telemetry@0.1.0";
const KV: &str = "tidegate:filter/kv@0.1.0";
const HOST: &str = "tidegate:filter/host@0.1.0";

const OUTCOMES: [Outcome; 4] = [Outcome::Allowed, Outcome::Denied, Outcome::Modified, Outcome::Error];
const LEVELS: [Level; 6] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Critical];

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(ATTRIBUTES, "get", attribute)?;
    linker.func_wrap(ATTRIBUTES, "set", set_attribute)?;
    linker.func_wrap(AUDIT, "emit", emit)?;
    linker.func_wrap(TELEMETRY, "enabled", enabled)?;
    linker.func_wrap(TELEMETRY, "log", log)?;
    link_metrics(linker)?;
    linker.func_wrap(KV, "get", get)?;
    linker.func_wrap(KV, "set", set)?;
    linker.func_wrap(KV, "compare-and-set", compare_and_set)?;
    linker.func_wrap(KV, "increment", increment)?;
    linker.func_wrap(KV, "remove", remove)?;
    linker.func_wrap(HOST, "config", config)?;
    linker.func_wrap(HOST, "now-ns", |mut call: Call<'_>| state(&mut call).map(|_| calls::now_ns()))?;
    linker.func_wrap(HOST, "monotonic-ns", |mut call: Call<'_>| state(&mut call).map(|state| state.monotonic_ns()))?;
    linker.func_wrap(HOST, "random", random)?;
    Ok(())
}

/// An attribute as three words: its case, and the two that say what it holds.
fn give_fact(call: &mut Call<'_>, fact: &Fact<'_>) -> Result<[u32; 3]> {
    let (case, [low, high]) = match fact {
        Fact::Text(text) => (0, give(call, text.as_bytes())?.into()),
        Fact::Uint(number) => (2, halves(*number)),
        Fact::Flag(flag) => (3, [u32::from(*flag), 0]),
        Fact::Set(Attr::Text(text)) => (0, give(call, text.as_bytes())?.into()),
        Fact::Set(Attr::Int(number)) => (1, halves(number.cast_unsigned())),
        Fact::Set(Attr::Uint(number)) => (2, halves(*number)),
        Fact::Set(Attr::Flag(flag)) => (3, [u32::from(*flag), 0]),
        Fact::Set(Attr::Blob(bytes)) => (4, give(call, bytes)?.into()),
        Fact::Set(Attr::TimeNs(number)) => (5, halves(*number)),
    };
    Ok([case, low, high])
}

/// The attribute of this case: a place and a length, or a number.
fn take_attribute(lift: &mut Lift<'_>, case: u32, (at, length): Span, number: u64) -> Result<Attr> {
    Ok(match case {
        0 => Attr::Text(lift.text((at, length))?.to_owned()),
        1 => Attr::Int(number.cast_signed()),
        2 => Attr::Uint(number),
        3 => Attr::Flag(at != 0),
        4 => Attr::Blob(lift.bytes((at, length))?.to_vec()),
        5 => Attr::TimeNs(number),
        other => bail!("unexpected discriminant: {other}"),
    })
}

fn attribute(mut call: Call<'_>, name: u32, length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let name = lift.text((name, length))?;
    // Taken away, so that what it knows is read where it lies while the guest makes room: it may call nothing meanwhile.
    let known = state.known.take();
    let given = match known.as_ref().and_then(|known| known.fact(name)) {
        None => Ok([0; 6]),
        Some(fact) => give_fact(&mut call, &fact).map(|[case, low, high]| [1, 0, case, 0, low, high]),
    };
    call.data_mut().known = known;
    put(&mut call, to, 8, given?)
}

fn set_attribute(mut call: Call<'_>, name: u32, name_length: u32, case: u32, value: u64, length: u32) -> Result<u32> {
    let (mut lift, state) = enter(&mut call)?;
    let name = lift.text((name, name_length))?;
    let value = take_attribute(&mut lift, case, (value as u32, length), value)?;
    Ok(state.set_attribute(name, value).into())
}

#[expect(clippy::too_many_arguments, reason = "they are the contract's, each number by itself")]
fn emit(
    mut call: Call<'_>,
    kind: u32,
    kind_length: u32,
    outcome: u32,
    known: u32,
    known_count: u32,
    fields: u32,
    field_count: u32,
) -> Result<u32> {
    let (mut lift, state) = enter(&mut call)?;
    let kind = lift.text((kind, kind_length))?;
    let outcome = case(&OUTCOMES, outcome)?;
    let mut all = Fields::within(&state.limits);
    for pair in lift.list::<16>((known, known_count), 4)? {
        let (field, name) = (lift.text(span(pair, 0))?, lift.text(span(pair, 8))?);
        all.add(field, || state.attribute(name));
    }
    for field in lift.list::<24>((fields, field_count), 8)? {
        let name = lift.text(span(field, 0))?;
        let (case, value) = (number(field, 8) & 0xff, span(field, 16));
        // Of a flag in memory only its byte counts.
        let value = if case == 3 { (value.0 & 0xff, 0) } else { value };
        let value = take_attribute(&mut lift, case, value, long(field, 16))?;
        all.add(name, || Some(value));
    }
    Ok(state.record(kind.to_owned(), audit::outcome(outcome), all).into())
}

fn enabled(mut call: Call<'_>, level: u32) -> Result<u32> {
    state(&mut call)?;
    Ok(calls::enabled(case(&LEVELS, level)?).into())
}

fn log(mut call: Call<'_>, level: u32, message: u32, length: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let level = case(&LEVELS, level)?;
    state.log(level, lift.text((message, length))?);
    Ok(())
}

fn link_metrics(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(TELEMETRY, "[constructor]counter", |mut call: Call<'_>, name: u32, length: u32| {
        make(&mut call, Measure::Counter, (name, length))
    })?;
    linker.func_wrap(TELEMETRY, "[constructor]gauge", |mut call: Call<'_>, name: u32, length: u32| {
        make(&mut call, Measure::Gauge, (name, length))
    })?;
    linker.func_wrap(TELEMETRY, "[constructor]histogram", |mut call: Call<'_>, name: u32, length: u32| {
        make(&mut call, Measure::Histogram, (name, length))
    })?;
    linker.func_wrap(TELEMETRY, "[resource-drop]counter", |mut call: Call<'_>, handle: u32| {
        state(&mut call)?.drop_instrument(Measure::Counter, place(handle))
    })?;
    linker.func_wrap(TELEMETRY, "[resource-drop]gauge", |mut call: Call<'_>, handle: u32| {
        state(&mut call)?.drop_instrument(Measure::Gauge, place(handle))
    })?;
    linker.func_wrap(TELEMETRY, "[resource-drop]histogram", |mut call: Call<'_>, handle: u32| {
        state(&mut call)?.drop_instrument(Measure::Histogram, place(handle))
    })?;
    linker.func_wrap(TELEMETRY, "[method]counter.add", |mut call: Call<'_>, handle: u32, amount: u64| {
        state(&mut call)?.count(place(handle), amount)
    })?;
    linker.func_wrap(TELEMETRY, "[method]gauge.set", |mut call: Call<'_>, handle: u32, value: i64| {
        state(&mut call)?.set_gauge(place(handle), value)
    })?;
    linker.func_wrap(TELEMETRY, "[method]gauge.add", |mut call: Call<'_>, handle: u32, amount: i64| {
        state(&mut call)?.move_gauge(place(handle), amount)
    })?;
    linker.func_wrap(TELEMETRY, "[method]histogram.observe", |mut call: Call<'_>, handle: u32, value: u64| {
        state(&mut call)?.observe(place(handle), value)
    })?;
    Ok(())
}

/// What tells a metric's handle from one to what is lent, whose two lowest bits are never both set.
const METRIC: u32 = 3;

fn make(call: &mut Call<'_>, measure: Measure, name: Span) -> Result<u32> {
    let (mut lift, state) = enter(call)?;
    let name = lift.text(name)?;
    if state.instruments_held() >= state.limits.handles {
        bail!("cannot allocate another handle: store handle limit exceeded");
    }
    Ok(state.make(measure, name) << 2 | METRIC)
}

/// The place of the metric that a handle is to; one where none is for handles that are no metric's.
const fn place(handle: u32) -> u32 {
    if handle & METRIC == METRIC { handle >> 2 } else { u32::MAX }
}

fn get(mut call: Call<'_>, key: u32, length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let entry = state.holding.store.get(lift.text((key, length))?);
    let given = match entry {
        None => [0; 6],
        Some(entry) => {
            let (at, length) = give(&mut call, &entry.value)?;
            let [low, high] = halves(entry.version);
            [1, 0, at, length, low, high]
        }
    };
    put(&mut call, to, 8, given)
}

/// A number, or why there is none.
fn put_number(call: &mut Call<'_>, to: u32, number: std::result::Result<u64, KvError>) -> Result<()> {
    let words = match number {
        Ok(number) => {
            let [low, high] = halves(number);
            [0, 0, low, high]
        }
        Err(error) => [1, 0, error as u32, 0],
    };
    put(call, to, 8, words)
}

#[expect(clippy::too_many_arguments, reason = "they are the contract's, each number by itself")]
fn set(mut call: Call<'_>, key: u32, key_length: u32, value: u32, length: u32, has_ttl: u32, ttl: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let (key, value) = (lift.text((key, key_length))?, lift.bytes((value, length))?);
    let version = state.holding.store.set(key, value, time_to_live(option(has_ttl, ttl)?));
    put_number(&mut call, to, version.map_err(KvError::from))
}

#[expect(clippy::too_many_arguments, reason = "they are the contract's, each number by itself")]
fn compare_and_set(
    mut call: Call<'_>,
    key: u32,
    key_length: u32,
    value: u32,
    length: u32,
    expected: u64,
    has_ttl: u32,
    ttl: u32,
    to: u32,
) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let (key, value) = (lift.text((key, key_length))?, lift.bytes((value, length))?);
    let version = state.holding.store.compare_and_set(key, value, expected, time_to_live(option(has_ttl, ttl)?));
    put_number(&mut call, to, version.map_err(KvError::from))
}

fn increment(mut call: Call<'_>, key: u32, length: u32, delta: i64, has_ttl: u32, ttl: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let sum = state.holding.store.increment(lift.text((key, length))?, delta, time_to_live(option(has_ttl, ttl)?));
    put_number(&mut call, to, sum.map(i64::cast_unsigned).map_err(KvError::from))
}

fn remove(mut call: Call<'_>, key: u32, length: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    state.holding.store.remove(lift.text((key, length))?);
    Ok(())
}

fn config(mut call: Call<'_>, to: u32) -> Result<()> {
    let config = Arc::clone(&state(&mut call)?.config);
    let given = give(&mut call, &config)?;
    put(&mut call, to, 4, given.into())
}

fn random(mut call: Call<'_>, length: u32, to: u32) -> Result<()> {
    state(&mut call)?;
    let bytes = calls::random(length)?;
    let given = give(&mut call, &bytes)?;
    put(&mut call, to, 4, given.into())
}
