//! What core modules do with the message at hand: the interfaces `types` and `message`.

use super::abi::{Call, enter, give, give_list, number, option, put, put_done, span, state};
use crate::filter::{
    bindings::tidegate::filter::types::LocalReply,
    headers::{self, Change, Refusal},
    inspect::TYPES,
    state::State,
};
use http::{HeaderMap, HeaderValue};
use wasmtime::{Linker, Result, bail};

const MESSAGE: &str = "tidegate:filter/message@0.1.0";

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(TYPES, "[resource-drop]headers", give_back_headers)?;
    linker.func_wrap(TYPES, "[method]headers.get", get)?;
    linker.func_wrap(TYPES, "[method]headers.get-all", get_all)?;
    linker.func_wrap(TYPES, "[method]headers.get-many", get_many)?;
    linker.func_wrap(TYPES, "[method]headers.entries", entries)?;
    linker.func_wrap(TYPES, "[method]headers.set", set)?;
    linker.func_wrap(TYPES, "[method]headers.apply", apply)?;
    linker.func_wrap(TYPES, "[resource-drop]body", give_back_body)?;
    linker.func_wrap(TYPES, "[method]body.len", length)?;
    linker.func_wrap(TYPES, "[method]body.read", read)?;
    linker.func_wrap(TYPES, "[method]body.splice", splice)?;
    linker.func_wrap(TYPES, "[method]body.take", take)?;
    linker.func_wrap(MESSAGE, "answer", answer)?;
    linker.func_wrap(MESSAGE, "rewrite", rewrite)?;
    linker.func_wrap(MESSAGE, "set-status", set_status)?;
    Ok(())
}

/// Handles to what is lent are worth nothing after their callback, so there is nothing to give back. A filter that gives back what it
/// was not lent has failed, as components have; who gives the same back twice goes on, since nobody keeps account of that.
fn give_back_headers(mut call: Call<'_>, handle: u32) -> Result<()> {
    match state(&mut call)?.lent.headers(handle) {
        Some(_) => Ok(()),
        None => bail!("a headers handle was given back that is not lent"),
    }
}

fn give_back_body(mut call: Call<'_>, handle: u32) -> Result<()> {
    match state(&mut call)?.lent.body(handle) {
        Some(_) => Ok(()),
        None => bail!("a body handle was given back that is not lent"),
    }
}

/// Takes the header map of this handle away while the guest makes room for what is read from it: it may call nothing
/// meanwhile, so it cannot miss it. Whatever comes of it, `put_back` follows.
fn take_away(state: &mut State, handle: u32) -> Result<HeaderMap> {
    match state.lent.take_headers(handle) {
        Some(headers) => Ok(headers),
        None => bail!("a headers handle was used after its callback"),
    }
}

fn put_back(call: &mut Call<'_>, handle: u32, headers: HeaderMap) {
    call.data_mut().lent.put_headers(handle, headers);
}

/// A value that may be absent, as words.
fn give_value(call: &mut Call<'_>, value: Option<&HeaderValue>) -> Result<[u32; 3]> {
    Ok(match value {
        None => [0; 3],
        Some(value) => {
            let (at, length) = give(call, value.as_bytes())?;
            [1, at, length]
        }
    })
}

fn get(mut call: Call<'_>, handle: u32, name: u32, name_length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let name = lift.name((name, name_length))?;
    let lent = take_away(state, handle)?;
    let value = state.names.get(&lent, name);
    let given = give_value(&mut call, value);
    put_back(&mut call, handle, lent);
    put(&mut call, to, 4, given?)
}

fn get_all(mut call: Call<'_>, handle: u32, name: u32, name_length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let name = lift.name((name, name_length))?;
    let lent = take_away(state, handle)?;
    let (count, values) = (headers::get_all(&lent, name).count(), headers::get_all(&lent, name));
    let given = give_list(&mut call, count, values, |call, value| give(call, value.as_bytes()).map(<[u32; 2]>::from));
    put_back(&mut call, handle, lent);
    put(&mut call, to, 4, given?.into())
}

fn get_many(mut call: Call<'_>, handle: u32, names: u32, count: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let names = lift.list::<8>((names, count), 4)?;
    let lent = take_away(state, handle)?;
    // All of them before the guest runs again, which could change what they are.
    let mut value = |name| Ok(state.names.get(&lent, lift.name(span(name, 0))?));
    let values = names.iter().map(|name| value(name)).collect::<Result<Vec<_>>>();
    let given = values.and_then(|values| give_list(&mut call, values.len(), values.into_iter(), give_value));
    put_back(&mut call, handle, lent);
    put(&mut call, to, 4, given?.into())
}

fn entries(mut call: Call<'_>, handle: u32, to: u32) -> Result<()> {
    let lent = take_away(state(&mut call)?, handle)?;
    let count = headers::entries(&lent).count();
    let given = give_list(&mut call, count, headers::entries(&lent), |call, (name, value)| {
        let (name, name_length) = give(call, name.as_str().as_bytes())?;
        let (value, value_length) = give(call, value.as_bytes())?;
        Ok([name, name_length, value, value_length])
    });
    put_back(&mut call, handle, lent);
    put(&mut call, to, 4, given?.into())
}

fn set(mut call: Call<'_>, handle: u32, name: u32, name_length: u32, value: u32, length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let change = Change::set(&mut state.names, lift.name((name, name_length))?, lift.bytes((value, length))?);
    let set = state.change_header(handle, change)?;
    put_done(&mut call, to, set.map_err(|error| error as u8))
}

fn apply(mut call: Call<'_>, handle: u32, ops: u32, count: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let mut changes: std::result::Result<_, Refusal> = Ok(Vec::new());
    for op in lift.list::<20>((ops, count), 4)? {
        let (name, names) = (lift.name(span(op, 4))?, &mut state.names);
        let change = match number(op, 0) & 0xff {
            0 => Change::set(names, name, lift.bytes(span(op, 12))?),
            1 => Change::append(names, name, lift.bytes(span(op, 12))?),
            2 => Change::remove(names, name),
            other => bail!("unexpected discriminant: {other}"),
        };
        // What follows one that is refused is looked at, too: a guest that does not keep to its types has failed.
        match (change, &mut changes) {
            (Ok(change), Ok(changes)) => changes.push(change),
            (Err(refusal), Ok(_)) => changes = Err(refusal),
            (_, Err(_)) => {}
        }
    }
    let changed = state.change_headers(handle, changes)?;
    put_done(&mut call, to, changed.map_err(|error| error as u8))
}

fn length(mut call: Call<'_>, handle: u32) -> Result<u64> {
    Ok(state(&mut call)?.body(handle)?.len() as u64)
}

fn read(mut call: Call<'_>, handle: u32, offset: u64, length: u32, to: u32) -> Result<()> {
    let piece = state(&mut call)?.read_body(handle, offset, length)?;
    let given = give(&mut call, &piece)?;
    put(&mut call, to, 4, given.into())
}

fn splice(mut call: Call<'_>, handle: u32, offset: u64, length: u64, data: u32, data_length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let data = lift.bytes((data, data_length))?;
    let spliced = state.splice_body(handle, (offset, length), data)?;
    put_done(&mut call, to, spliced.map_err(|error| error as u8))
}

fn take(mut call: Call<'_>, handle: u32, to: u32) -> Result<()> {
    let body = state(&mut call)?.take_body(handle)?;
    let given = give(&mut call, &body)?;
    put(&mut call, to, 4, given.into())
}

#[expect(clippy::too_many_arguments, reason = "they are the contract's, each number by itself")]
fn answer(
    mut call: Call<'_>,
    status: u32,
    headers: u32,
    header_count: u32,
    body: u32,
    body_length: u32,
    has_grpc_status: u32,
    grpc_status: u32,
    details: u32,
    details_length: u32,
) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let mut fields = Vec::new();
    for field in lift.list::<16>((headers, header_count), 4)? {
        fields.push((lift.text(span(field, 0))?.to_owned(), lift.bytes(span(field, 8))?.to_vec()));
    }
    state.answer(LocalReply {
        // Of wider numbers the lower bits count.
        status: status as u16,
        headers: fields,
        body: lift.bytes((body, body_length))?.to_vec(),
        grpc_status: option(has_grpc_status, grpc_status)?,
        details: lift.text((details, details_length))?.to_owned(),
    });
    Ok(())
}

fn rewrite(mut call: Call<'_>, method: u32, method_length: u32, path: u32, path_length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let rewritten = state.rewrite(lift.text((method, method_length))?, lift.text((path, path_length))?);
    put_done(&mut call, to, rewritten.map_err(|error| error as u8))
}

fn set_status(mut call: Call<'_>, status: u32, to: u32) -> Result<()> {
    let set = state(&mut call)?.set_status(status as u16);
    put_done(&mut call, to, set.map_err(|error| error as u8))
}
