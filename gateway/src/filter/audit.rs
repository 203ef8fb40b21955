//! What filters want to be remembered: events in the exchange's record.

use super::{
    bindings::tidegate::filter::{audit::Outcome, types::Attr},
    state::State,
};
use wasmtime::{
    Result, StoreContextMut,
    component::{Linker, WasmStr},
};

/// Offers the interface `audit`.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.instance("tidegate:filter/audit@0.1.0")?.func_wrap("emit", emit)
}

/// An event as a filter hands it over: kind, outcome, field names with the attributes they are to have, other fields.
type Emitted = (String, Outcome, Vec<(String, WasmStr)>, Vec<(String, Attr)>);

fn emit(mut call: StoreContextMut<'_, State>, (kind, outcome, known, fields): Emitted) -> Result<(bool,)> {
    let mut all = Vec::with_capacity(known.len() + fields.len());
    if let Some(exchange) = &call.data().known {
        for (field, attribute) in known {
            all.extend(exchange.attribute(&attribute.to_str(&call)?).map(|value| (field, value)));
        }
    }
    all.extend(fields);
    let outcome = match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::Modified => "modified",
        Outcome::Error => "error",
    };
    Ok((call.data_mut().record(kind, outcome, all),))
}
