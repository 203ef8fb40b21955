//! The log, the clock and the timer. Log and clock may be called at any time, by the guest's allocator too.

use super::{Offered, offer, told};
use crate::filter::{
    bindings::tidegate::filter::telemetry::Level,
    calls::{self, Log},
    proxy_wasm::{
        abi::{Answer, Status},
        jobs,
        memory::{Call, Done, put_u32, put_u64, range, split},
        state::{Context, State, Timer},
    },
};
use std::time::{Duration, Instant, SystemTime};
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offered.add("proxy_log", |linker, name| {
        let log = |mut call: Call<'_>, level: u32, at: u32, size: u32| told(log(&mut call, level, at, size));
        linker.func_wrap("env", name, log).map(drop)
    })?;
    offered.add("proxy_get_current_time_nanoseconds", |linker, name| {
        linker.func_wrap("env", name, |mut call: Call<'_>, at: u32| told(current_time(&mut call, at))).map(drop)
    })?;
    offer!(offered, "proxy_get_log_level", log_level, at: u32);
    offer!(offered, "proxy_set_tick_period_milliseconds", set_tick_period, period: u32);
    Ok(())
}

fn log(call: &mut Call<'_>, level: u32, at: u32, size: u32) -> Done {
    let level = self::level(level)?;
    let (memory, state) = split(call)?;
    let message = range(memory, at, size)?;
    write(state, level, message);
    Ok(())
}

/// Writes a message of the guest's to the gateway's log.
pub(super) fn write(state: &mut State, level: Level, message: &[u8]) {
    // What is longer is cut anyway; one character of UTF-8 has at most four bytes.
    let message = &message[..message.len().min(state.limits.log_bytes.saturating_mul(4))];
    let State { log, metrics, plugin, limits, .. } = state;
    let message = String::from_utf8_lossy(message);
    Log { plugin, budget: log, metrics, limit: limits.log_bytes }.write(level, &message);
}

/// Says in the gateway's log what the guest is not told, since its SDK would take that for a failure.
pub(in crate::filter::proxy_wasm) fn note(state: &mut State, what: std::fmt::Arguments<'_>) {
    if state.log.take() {
        tracing::warn!(target: "tidegate::filter", plugin = &*state.plugin, "{what}");
    } else {
        state.metrics.logs_dropped.add(1);
    }
}

fn level(number: u32) -> Answer<Level> {
    Ok(match number {
        0 => Level::Trace,
        1 => Level::Debug,
        2 => Level::Info,
        3 => Level::Warn,
        4 => Level::Error,
        5 => Level::Critical,
        _ => return Err(Status::BadArgument),
    })
}

/// The lowest level that is written.
fn log_level(call: &mut Call<'_>, at: u32) -> Done {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    let lowest = (0..).zip(levels).find(|(_, level)| calls::enabled(*level)).map_or(5, |(number, _)| number);
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, at, lowest)?)
}

fn current_time(call: &mut Call<'_>, at: u32) -> Done {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (memory, _) = split(call)?;
    Ok(put_u64(memory, at, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))?)
}

/// Has the root context called every so many milliseconds; 0 ends that.
fn set_tick_period(call: &mut Call<'_>, period: u32) -> Done {
    let state = call.data_mut();
    let root = state.root_id().ok_or(Status::BadArgument)?;
    let Some(Context::Root(kept)) = state.contexts.get_mut(root) else { return Err(Status::BadArgument.into()) };
    let period = Duration::from_millis(period.into());
    let timer = (!period.is_zero()).then(|| Timer { period, next: Instant::now() + period });
    kept.timer = timer.filter(|_| !kept.ending);
    if let Some(outside) = &state.outside {
        jobs::keep_time(outside);
    }
    Ok(())
}
