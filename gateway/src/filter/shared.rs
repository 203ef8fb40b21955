//! What filters call about what their plugin holds beyond their instances: the values it shares and what it counts.

use super::{
    bindings::tidegate::filter::{
        kv,
        telemetry::{Counter, Gauge, Histogram},
    },
    instruments,
    kv::Refusal,
    state::State,
};
use crate::telemetry;
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Result, StoreContextMut,
    component::{Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr},
};

type Call<'a> = StoreContextMut<'a, State>;

/// A metric that an instance has a handle to.
#[derive(Debug)]
pub(super) enum Instrument {
    Counter(Arc<telemetry::Counter>),
    Gauge(Arc<telemetry::Gauge>),
    Histogram(Arc<instruments::Histogram>),
    /// It could not be made: what is counted with it is lost.
    Nothing,
}

/// Offers the interface `kv`, and the metrics of `telemetry`.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    link_kv(&mut linker.instance("tidegate:filter/kv@0.1.0")?)?;
    link_metrics(&mut linker.instance("tidegate:filter/telemetry@0.1.0")?)
}

fn link_kv(values: &mut LinkerInstance<'_, State>) -> Result<()> {
    values.func_wrap("get", |call: Call<'_>, (key,): (WasmStr,)| {
        let entry = call.data().holding.store.get(&key.to_str(&call)?);
        Ok((entry.map(|entry| kv::Entry { value: entry.value, version: entry.version }),))
    })?;
    values.func_wrap("set", |call: Call<'_>, (key, value, ttl): (WasmStr, WasmList<u8>, Option<u32>)| {
        let set = call.data().holding.store.set(&key.to_str(&call)?, value.as_le_slice(&call), ttl.map(millis));
        Ok((set.map_err(error),))
    })?;
    values.func_wrap(
        "compare-and-set",
        |call: Call<'_>, (key, value, expect, ttl): (WasmStr, WasmList<u8>, u64, Option<u32>)| {
            let store = &call.data().holding.store;
            let set = store.compare_and_set(&key.to_str(&call)?, value.as_le_slice(&call), expect, ttl.map(millis));
            Ok((set.map_err(error),))
        },
    )?;
    values.func_wrap("increment", |call: Call<'_>, (key, delta, ttl): (WasmStr, i64, Option<u32>)| {
        let sum = call.data().holding.store.increment(&key.to_str(&call)?, delta, ttl.map(millis));
        Ok((sum.map_err(error),))
    })?;
    values.func_wrap("remove", |call: Call<'_>, (key,): (WasmStr,)| {
        call.data().holding.store.remove(&key.to_str(&call)?);
        Ok(())
    })
}

fn millis(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}

fn error(refusal: Refusal) -> kv::KvError {
    match refusal {
        Refusal::TooLarge => kv::KvError::TooLarge,
        Refusal::Full => kv::KvError::Full,
        Refusal::Mismatch => kv::KvError::Mismatch,
    }
}

fn link_metrics(telemetry: &mut LinkerInstance<'_, State>) -> Result<()> {
    telemetry.resource("counter", ResourceType::host::<Counter>(), |mut call, handle| drop_handle(&mut call, handle))?;
    telemetry.resource("gauge", ResourceType::host::<Gauge>(), |mut call, handle| drop_handle(&mut call, handle))?;
    telemetry.resource("histogram", ResourceType::host::<Histogram>(), |mut call, handle| drop_handle(&mut call, handle))?;
    telemetry.func_wrap("[constructor]counter", |mut call: Call<'_>, (name,): (WasmStr,)| {
        let made = call.data().holding.instruments.counter(&name.to_str(&call)?).map(Instrument::Counter);
        Ok((Resource::<Counter>::new_own(handle(&mut call, made)),))
    })?;
    telemetry.func_wrap("[constructor]gauge", |mut call: Call<'_>, (name,): (WasmStr,)| {
        let made = call.data().holding.instruments.gauge(&name.to_str(&call)?).map(Instrument::Gauge);
        Ok((Resource::<Gauge>::new_own(handle(&mut call, made)),))
    })?;
    telemetry.func_wrap("[constructor]histogram", |mut call: Call<'_>, (name,): (WasmStr,)| {
        let made = call.data().holding.instruments.histogram(&name.to_str(&call)?).map(Instrument::Histogram);
        Ok((Resource::<Histogram>::new_own(handle(&mut call, made)),))
    })?;
    telemetry.func_wrap("[method]counter.add", |call: Call<'_>, (this, amount): (Resource<Counter>, u64)| {
        if let Some(Instrument::Counter(counter)) = instrument(&call, this.rep()) {
            counter.add(amount);
        }
        Ok(())
    })?;
    telemetry.func_wrap("[method]gauge.set", |call: Call<'_>, (this, value): (Resource<Gauge>, i64)| {
        if let Some(Instrument::Gauge(gauge)) = instrument(&call, this.rep()) {
            gauge.set(value);
        }
        Ok(())
    })?;
    telemetry.func_wrap("[method]gauge.add", |call: Call<'_>, (this, amount): (Resource<Gauge>, i64)| {
        if let Some(Instrument::Gauge(gauge)) = instrument(&call, this.rep()) {
            gauge.add(amount);
        }
        Ok(())
    })?;
    telemetry.func_wrap("[method]histogram.observe", |call: Call<'_>, (this, value): (Resource<Histogram>, u64)| {
        if let Some(Instrument::Histogram(histogram)) = instrument(&call, this.rep()) {
            histogram.observe(value);
        }
        Ok(())
    })
}

/// The metric behind a handle; none where it was over a limit when it was made.
fn instrument<'a>(call: &'a Call<'_>, handle: u32) -> Option<&'a Instrument> {
    call.data().instruments.get(handle as usize)?.as_ref()
}

/// A handle's number: its place among the instance's metrics.
fn handle(call: &mut Call<'_>, made: Option<Instrument>) -> u32 {
    let instruments = &mut call.data_mut().instruments;
    let made = Some(made.unwrap_or(Instrument::Nothing));
    // What was dropped leaves its place to the next; how many there are is bounded by the handles an instance may hold.
    let place = instruments.iter().position(Option::is_none).unwrap_or(instruments.len());
    match instruments.get_mut(place) {
        Some(slot) => *slot = made,
        None => instruments.push(made),
    }
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn drop_handle(call: &mut Call<'_>, handle: u32) -> Result<()> {
    if let Some(slot) = call.data_mut().instruments.get_mut(handle as usize) {
        *slot = None;
    }
    Ok(())
}
