//! Properties: what is known of an exchange, of the VM and of the route's entry, by path.

use super::{Offered, offer, telemetry::note};
use crate::filter::proxy_wasm::{
    abi::Status,
    memory::{Call, Done, give, range, split},
    properties::{self, Asked},
};
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_get_property", get, path: u32, path_size: u32, at: u32, size: u32);
    offer!(offered, "proxy_set_property", set, path: u32, path_size: u32, value: u32, value_size: u32);
    Ok(())
}

fn get(call: &mut Call<'_>, path: u32, path_size: u32, at: u32, size: u32) -> Done {
    let (memory, state) = split(call)?;
    let path = range(memory, path, path_size)?;
    let asked = Asked { key: &state.key, root: state.root(), stream: state.stream() };
    let value = properties::get(path, &asked).ok_or(Status::NotFound)?;
    give(call, value.as_bytes(), at, size)
}

/// Keeps a value for the rest of the exchange, where every filter of it finds it. What cannot be kept is noted, since SDKs
/// take any other answer for a failure.
fn set(call: &mut Call<'_>, path: u32, path_size: u32, value: u32, value_size: u32) -> Done {
    let (memory, state) = split(call)?;
    let (path, value) = (range(memory, path, path_size)?, range(memory, value, value_size)?);
    let room = (state.limits.attribute_count, state.limits.attribute_bytes);
    let kept = state.stream().is_some_and(|stream| properties::set(path, value, &stream.known, room));
    if !kept {
        state.metrics.attributes_refused.add(1);
        let path = String::from_utf8_lossy(path).replace('\0', ".");
        note(state, format_args!("the property {path} cannot be set: outside of an exchange, or beyond filter_attribute_*"));
    }
    Ok(())
}
