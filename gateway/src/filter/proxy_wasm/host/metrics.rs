//! Metrics.

use super::{Offered, offer};
use crate::filter::proxy_wasm::{
    abi::Metric,
    memory::{Call, Done, put_u32, put_u64, range, split, text},
    state::State,
};
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_define_metric", define, kind: u32, name: u32, name_size: u32, id: u32);
    offer!(offered, "proxy_increment_metric", increment, id: u32, by: i64);
    offer!(offered, "proxy_record_metric", record, id: u32, value: u64);
    offer!(offered, "proxy_get_metric", value, id: u32, at: u32);
    Ok(())
}

fn define(call: &mut Call<'_>, kind: u32, name: u32, name_size: u32, id: u32) -> Done {
    let kind = Metric::try_from(kind)?;
    let (memory, state) = split(call)?;
    let name = text(memory, name, name_size)?;
    range(memory, id, 4)?;
    let State { defined, holding, limits, .. } = state;
    let defined = defined.define(kind, name, &holding.instruments, limits.instruments)?;
    Ok(put_u32(memory, id, defined)?)
}

fn increment(call: &mut Call<'_>, id: u32, by: i64) -> Done {
    Ok(call.data().defined.increment(id, by)?)
}

fn record(call: &mut Call<'_>, id: u32, value: u64) -> Done {
    Ok(call.data().defined.record(id, value)?)
}

fn value(call: &mut Call<'_>, id: u32, at: u32) -> Done {
    let value = call.data().defined.value(id)?;
    let (memory, _) = split(call)?;
    Ok(put_u64(memory, at, value)?)
}
