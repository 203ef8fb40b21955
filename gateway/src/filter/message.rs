//! What filters call in every exchange: headers, attributes and events. Linked by hand, since the generated traits would
//! copy every string and list that a filter hands over; here they are read where they lie in its memory.

use super::{
    bindings::tidegate::filter::{
        audit::Outcome,
        types::{Attr, HeaderError},
    },
    headers::{self, Change, Refusal},
    state::{HeadersView, State},
};
use http::HeaderMap;
use wasmtime::{
    Result, StoreContextMut, bail,
    component::{ComponentType, Lift, Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr},
};

type Call<'a> = StoreContextMut<'a, State>;
type Handle = Resource<HeadersView>;

/// One change, as it lies in the filter's memory.
#[derive(ComponentType, Lift)]
#[component(variant)]
enum Op {
    #[component(name = "set")]
    Set((WasmStr, WasmList<u8>)),
    #[component(name = "append")]
    Append((WasmStr, WasmList<u8>)),
    #[component(name = "remove")]
    Remove(WasmStr),
}

/// Offers the interfaces `types`, `attributes` and `audit`.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    link_types(&mut linker.instance("tidegate:filter/types@0.1.0")?)?;
    linker.instance("tidegate:filter/attributes@0.1.0")?.func_wrap("get", |call: Call<'_>, (name,): (WasmStr,)| {
        let known = call.data().known.as_ref();
        let name = name.to_str(&call)?;
        Ok((known.and_then(|known| known.attribute(&name)),))
    })?;
    linker.instance("tidegate:filter/audit@0.1.0")?.func_wrap("emit", emit)
}

fn link_types(types: &mut LinkerInstance<'_, State>) -> Result<()> {
    // Handles are only ever lent, so there is nothing to drop.
    types.resource("headers", ResourceType::host::<HeadersView>(), |_, _| Ok(()))?;
    types.func_wrap("[method]headers.get", |call: Call<'_>, (handle, name): (Handle, WasmStr)| {
        let value = headers::get(lent(&call, &handle)?, &name.to_str(&call)?);
        Ok((value.map(|value| value.as_bytes().to_vec()),))
    })?;
    types.func_wrap("[method]headers.get-all", |call: Call<'_>, (handle, name): (Handle, WasmStr)| {
        let lent = lent(&call, &handle)?;
        let name = name.to_str(&call)?;
        let all = headers::get(lent, &name).map(|_| lent.get_all(&*name));
        let values: Vec<_> = all.into_iter().flatten().map(|value| value.as_bytes().to_vec()).collect();
        Ok((values,))
    })?;
    types.func_wrap("[method]headers.get-many", |call: Call<'_>, (handle, names): (Handle, Vec<WasmStr>)| {
        let lent = lent(&call, &handle)?;
        let value = |name: &WasmStr| Ok(headers::get(lent, &name.to_str(&call)?).map(|value| value.as_bytes().to_vec()));
        let values: Result<Vec<Option<Vec<u8>>>> = names.iter().map(value).collect();
        Ok((values?,))
    })?;
    types.func_wrap("[method]headers.entries", |call: Call<'_>, (handle,): (Handle,)| {
        let lent = lent(&call, &handle)?.iter().filter(|(name, _)| headers::visible(name));
        let entries: Vec<_> = lent.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        Ok((entries,))
    })?;
    types.func_wrap("[method]headers.apply", apply)
}

/// The headers that `handle` was lent for. The component model already refuses handles that were given back; the number
/// guards against a handle of another callback.
fn lent<'a>(call: &'a Call<'_>, handle: &Handle) -> Result<&'a HeaderMap> {
    let state = call.data();
    if state.lent == Some(handle.rep()) { Ok(&state.headers) } else { bail!("a headers handle was used after its callback") }
}

fn apply(mut call: Call<'_>, (handle, ops): (Handle, Vec<Op>)) -> Result<(Result<(), HeaderError>,)> {
    lent(&call, &handle)?;
    let mut changes = Ok(Vec::with_capacity(ops.len()));
    for op in &ops {
        match (change(&call, op)?, &mut changes) {
            (Ok(change), Ok(changes)) => changes.push(change),
            (Err(refusal), Ok(_)) => changes = Err(refusal),
            (_, Err(_)) => break,
        }
    }
    let state = call.data_mut();
    let room = state.room();
    if state.undoable && state.before.is_none() {
        state.before = Some(state.headers.clone());
    }
    let applied = changes.and_then(|changes| headers::apply(&mut state.headers, changes, room));
    Ok((applied.map_err(|refusal| {
        state.metrics.headers_refused.add(1);
        match refusal {
            Refusal::Invalid => HeaderError::Invalid,
            Refusal::Immutable => HeaderError::Immutable,
            Refusal::TooLarge => HeaderError::TooLarge,
            Refusal::TooMany => HeaderError::TooMany,
        }
    }),))
}

/// The outer error is a filter that does not keep to its own types, such as a name that is not UTF-8.
fn change(call: &Call<'_>, op: &Op) -> Result<Result<Change, Refusal>> {
    let pair = |name: &WasmStr, value: &WasmList<u8>| {
        let name = name.to_str(call)?;
        Ok::<_, wasmtime::Error>(headers::writable(&name).and_then(|name| Ok((name, headers::value(value.as_le_slice(call))?))))
    };
    Ok(match op {
        Op::Set((name, value)) => pair(name, value)?.map(|(name, value)| Change::Set(name, value)),
        Op::Append((name, value)) => pair(name, value)?.map(|(name, value)| Change::Append(name, value)),
        Op::Remove(name) => headers::writable(&name.to_str(call)?).map(Change::Remove),
    })
}

/// An event as a filter hands it over: kind, outcome, field names with the attributes they are to have, other fields.
type Emitted = (String, Outcome, Vec<(String, WasmStr)>, Vec<(String, Attr)>);

fn emit(mut call: Call<'_>, (kind, outcome, known, fields): Emitted) -> Result<(bool,)> {
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
