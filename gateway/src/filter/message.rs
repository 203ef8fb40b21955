//! What filters do with the message at hand: its headers, its body and its first line. Linked by hand, since the generated
//! traits would copy every string and list that a filter hands over; here they are read where they lie in its memory.

use super::{
    bindings::tidegate::filter::{
        message::LineError,
        types::{BodyError, HeaderError, LocalReply},
    },
    headers::{self, Change, Refusal},
    lent::{BodyView, HeadersView},
    reply,
    state::State,
};
use crate::upstream::Wish;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, uri::PathAndQuery};
use wasmtime::{
    Result, StoreContextMut, bail,
    component::{ComponentType, Lift, Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr},
};

type Call<'a> = StoreContextMut<'a, State>;
type Handle = Resource<HeadersView>;
type BodyHandle = Resource<BodyView>;

/// What filters have a say in beside a message's fields: its first line, and for a request its way out.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// Of which kind the message is.
    pub(super) kind: Kind,
    /// What the request is to go on with.
    pub(super) rewritten: Option<(Method, PathAndQuery)>,
    /// What the response is to go on with.
    pub(super) status: Option<StatusCode>,
    /// What was chosen for the request's way out.
    pub(super) wish: Option<Box<Wish>>,
}

/// Request or response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Request,
    Response,
}

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

/// Offers the interfaces `types` and `message`.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    let mut types = linker.instance("tidegate:filter/types@0.1.0")?;
    link_headers(&mut types)?;
    link_body(&mut types)?;
    let mut message = linker.instance("tidegate:filter/message@0.1.0")?;
    message.func_wrap("answer", |mut call: StoreContextMut<'_, State>, (reply,): (LocalReply,)| {
        call.data_mut().lent.shown.reply = Some(Box::new(reply));
        Ok(())
    })?;
    message.func_wrap("rewrite", rewrite)?;
    message.func_wrap("set-status", set_status)
}

fn link_headers(types: &mut LinkerInstance<'_, State>) -> Result<()> {
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
    types.func_wrap("[method]headers.set", set)?;
    types.func_wrap("[method]headers.apply", apply)
}

fn link_body(types: &mut LinkerInstance<'_, State>) -> Result<()> {
    types.resource("body", ResourceType::host::<BodyView>(), |_, _| Ok(()))?;
    types
        .func_wrap("[method]body.len", |call: Call<'_>, (handle,): (BodyHandle,)| Ok((body(&call, &handle)?.len() as u64,)))?;
    types.func_wrap("[method]body.read", |call: Call<'_>, (handle, offset, len): (BodyHandle, u64, u32)| {
        let body = body(&call, &handle)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
        let end = start.saturating_add(len as usize).min(body.len());
        Ok((body[start..end].to_vec(),))
    })?;
    types.func_wrap("[method]body.take", |mut call: Call<'_>, (handle,): (BodyHandle,)| {
        body(&call, &handle)?;
        let taken = call.data_mut().lent.body_mut(handle.rep()).map(std::mem::take);
        Ok((taken.unwrap_or_default().to_vec(),))
    })?;
    types.func_wrap("[method]body.splice", splice)
}

/// The headers that `handle` was lent for. The component model already refuses handles that were given back; the number
/// guards against a handle of another callback.
fn lent<'a>(call: &'a Call<'_>, handle: &Handle) -> Result<&'a HeaderMap> {
    match call.data().lent.headers(handle.rep()) {
        Some(headers) => Ok(headers),
        None => bail!("a headers handle was used after its callback"),
    }
}

/// The body that `handle` was lent for.
fn body<'a>(call: &'a Call<'_>, handle: &BodyHandle) -> Result<&'a Bytes> {
    match call.data().lent.body(handle.rep()) {
        Some(body) => Ok(body),
        None => bail!("a body handle was used after its callback"),
    }
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
    let applied = match (changes, state.lent.headers_mut(handle.rep())) {
        (Ok(changes), Some(lent)) => headers::apply(lent, changes, room),
        (Err(refusal), _) => Err(refusal),
        (Ok(_), None) => bail!("a headers handle was used after its callback"),
    };
    Ok((refused(state, applied),))
}

/// The change that filters make most, without a list.
fn set(mut call: Call<'_>, (handle, name, value): (Handle, WasmStr, WasmList<u8>)) -> Result<(Result<(), HeaderError>,)> {
    lent(&call, &handle)?;
    let change = pair(&call, &name, &value)?.map(|(name, value)| Change::Set(name, value));
    let state = call.data_mut();
    let room = state.room();
    let set = match (change, state.lent.headers_mut(handle.rep())) {
        (Ok(change), Some(lent)) => headers::apply_one(lent, change, room),
        (Err(refusal), _) => Err(refusal),
        (Ok(_), None) => bail!("a headers handle was used after its callback"),
    };
    Ok((refused(state, set),))
}

/// Counts changes that were refused.
fn refused(state: &State, changed: Result<(), Refusal>) -> Result<(), HeaderError> {
    changed.map_err(|refusal| {
        state.metrics.headers_refused.add(1);
        match refusal {
            Refusal::Invalid => HeaderError::Invalid,
            Refusal::Immutable => HeaderError::Immutable,
            Refusal::TooLarge => HeaderError::TooLarge,
            Refusal::TooMany => HeaderError::TooMany,
        }
    })
}

/// The outer error is a filter that does not keep to its own types, such as a name that is not UTF-8.
fn change(call: &Call<'_>, op: &Op) -> Result<Result<Change, Refusal>> {
    Ok(match op {
        Op::Set((name, value)) => pair(call, name, value)?.map(|(name, value)| Change::Set(name, value)),
        Op::Append((name, value)) => pair(call, name, value)?.map(|(name, value)| Change::Append(name, value)),
        Op::Remove(name) => headers::writable(&name.to_str(call)?).map(Change::Remove),
    })
}

/// A field that a filter writes.
fn pair(call: &Call<'_>, name: &WasmStr, value: &WasmList<u8>) -> Result<Result<(HeaderName, HeaderValue), Refusal>> {
    let name = name.to_str(call)?;
    Ok(headers::writable(&name).and_then(|name| Ok((name, headers::value(value.as_le_slice(call))?))))
}

/// Where a splice goes: offset and length.
type Range = (u64, u64);

fn splice(
    mut call: Call<'_>,
    (handle, offset, len, data): (BodyHandle, u64, u64, WasmList<u8>),
) -> Result<(Result<(), BodyError>,)> {
    let before = body(&call, &handle)?;
    let limit = call.data().limits.body_bytes.max(before.len());
    let spliced = spliced(before, (offset, len), data.as_le_slice(&call), limit);
    let state = call.data_mut();
    Ok((match (spliced, state.lent.body_mut(handle.rep())) {
        (Ok(after), Some(body)) => {
            *body = after;
            Ok(())
        }
        (Err(error), _) => {
            state.metrics.bodies_refused.add(1);
            Err(error)
        }
        (Ok(_), None) => bail!("a body handle was used after its callback"),
    },))
}

/// `before` with a range of it replaced. It may become smaller whatever the limit.
fn spliced(before: &Bytes, (offset, len): Range, data: &[u8], limit: usize) -> Result<Bytes, BodyError> {
    let start = usize::try_from(offset).ok().filter(|start| *start <= before.len()).ok_or(BodyError::OutOfRange)?;
    let end = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(start).min(before.len());
    let length = before.len() - (end - start) + data.len();
    if length > limit {
        return Err(BodyError::TooLarge);
    }
    let mut after = BytesMut::with_capacity(length);
    after.extend_from_slice(&before[..start]);
    after.extend_from_slice(data);
    after.extend_from_slice(&before[end..]);
    Ok(after.freeze())
}

fn rewrite(mut call: Call<'_>, (method, path): (WasmStr, WasmStr)) -> Result<(Result<(), LineError>,)> {
    let asked = {
        let (method, path) = (method.to_str(&call)?, path.to_str(&call)?);
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        method.zip(Some(&*path).filter(|path| path.starts_with('/')).and_then(|path| path.parse::<PathAndQuery>().ok()))
    };
    let state = call.data_mut();
    // Rules do not see the path again: where servers could read it differently, each reading must be granted.
    let permitted = asked.as_ref().is_some_and(|(_, path)| state.grants.permits_path(path.path()));
    let line = state.lent.line_mut().filter(|line| line.kind == Kind::Request);
    let rewritten = match (line, asked) {
        (None, _) => Err(LineError::TooLate),
        (Some(_), None) => Err(LineError::Invalid),
        (Some(_), Some(_)) if !permitted => Err(LineError::NotPermitted),
        (Some(line), asked) => {
            line.rewritten = asked;
            Ok(())
        }
    };
    Ok((counted(state, rewritten),))
}

/// Counts a change of a first line that was refused.
fn counted(state: &State, changed: Result<(), LineError>) -> Result<(), LineError> {
    changed.inspect_err(|_| state.metrics.lines_refused.add(1))
}

fn set_status(mut call: Call<'_>, (status,): (u16,)) -> Result<(Result<(), LineError>,)> {
    let state = call.data_mut();
    let line = state.lent.line_mut().filter(|line| line.kind == Kind::Response);
    let set = match (line, reply::status(status)) {
        (None, _) => Err(LineError::TooLate),
        (Some(_), None) => Err(LineError::Invalid),
        (Some(line), status) => {
            line.status = status;
            Ok(())
        }
    };
    Ok((counted(state, set),))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_spliced_anywhere_and_stays_within_its_limit() {
        let before = Bytes::from_static(b"0123456789");
        type Row<'a> = (u64, u64, &'a [u8], Result<&'a [u8], BodyError>);
        let rows: [Row<'_>; 9] = [
            (0, 0, b"ab", Ok(b"ab0123456789")),
            (10, 0, b"ab", Ok(b"0123456789ab")),
            (2, 3, b"", Ok(b"0156789")),
            (2, u64::MAX, b"x", Ok(b"01x")),
            (0, 10, b"", Ok(b"")),
            (11, 0, b"", Err(BodyError::OutOfRange)),
            (u64::MAX, 0, b"a", Err(BodyError::OutOfRange)),
            (5, 0, b"123", Err(BodyError::TooLarge)),
            (5, 1, b"123", Ok(b"012341236789")),
        ];
        for (offset, len, data, expected) in rows {
            let after = spliced(&before, (offset, len), data, 12);
            assert_eq!(after.as_deref(), expected.as_deref(), "{offset} {len} {data:?}");
        }
    }
}
