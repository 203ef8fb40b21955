//! Header maps. What a guest may write is decided where it is for typed filters; a change that it may not make is left out
//! and noted in the log, since its SDK would take a refusal for the end of everything.

use super::{Offered, offer, telemetry::note};
use crate::filter::{
    headers::{self, Change, Refusal},
    message::Kind,
    proxy_wasm::{
        abi::{Answer, Map, Status, Version},
        fields::{Field, Line, View},
        maps,
        memory::{Call, Done, give, put_u32, range, split},
        state::State,
    },
};
use bytes::Bytes;
use http::{Method, StatusCode, uri::PathAndQuery};
use std::borrow::Cow;
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_get_header_map_pairs", pairs, map: u32, at: u32, size: u32);
    offer!(offered, "proxy_get_header_map_size", size, map: u32, at: u32);
    offer!(offered, "proxy_get_header_map_value", value, map: u32, name: u32, name_size: u32, at: u32, size: u32);
    offer!(offered, "proxy_set_header_map_pairs", set_pairs, map: u32, at: u32, size: u32);
    offer!(offered, "proxy_add_header_map_value", add, map: u32, name: u32, name_size: u32, value: u32, value_size: u32);
    offer!(
        offered, "proxy_replace_header_map_value", replace,
        map: u32, name: u32, name_size: u32, value: u32, value_size: u32
    );
    offer!(offered, "proxy_remove_header_map_value", remove, map: u32, name: u32, name_size: u32);
    Ok(())
}

impl State {
    /// The map as it is now; none where there is none.
    fn view(&self, map: Map) -> Option<View<'_>> {
        match map {
            Map::RequestHeaders => self.stream()?.head(Kind::Request),
            Map::ResponseHeaders => self.stream()?.head(Kind::Response),
            Map::RequestTrailers => self.stream()?.trailers(Kind::Request),
            Map::ResponseTrailers => self.stream()?.trailers(Kind::Response),
            Map::CallHeaders => {
                let answer = self.callouts.http()?;
                let line = answer.status.map_or(Line::None, Line::Response);
                Some(View { line, fields: &answer.headers })
            }
            Map::CallTrailers => Some(View { line: Line::None, fields: &self.callouts.http()?.trailers }),
            Map::GrpcInitial | Map::GrpcTrailing => Some(View { line: Line::None, fields: self.callouts.metadata()? }),
        }
    }
}

fn encoded(pairs: &[(&[u8], Cow<'_, [u8]>)]) -> Vec<u8> {
    maps::encode(pairs.iter().map(|(name, value)| (*name, &**value)))
}

fn pairs(call: &mut Call<'_>, map: u32, at: u32, size: u32) -> Done {
    let map = Map::try_from(map)?;
    let bytes = call.data().view(map).map(|view| encoded(&view.pairs())).unwrap_or_default();
    give(call, &bytes, at, size)
}

fn size(call: &mut Call<'_>, map: u32, at: u32) -> Done {
    let map = Map::try_from(map)?;
    let pairs = call.data().view(map).map(|view| view.pairs()).unwrap_or_default();
    let size = maps::size(pairs.iter().map(|(name, value)| (*name, &**value)));
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, at, u32::try_from(size).unwrap_or(u32::MAX))?)
}

fn value(call: &mut Call<'_>, map: u32, name: u32, name_size: u32, at: u32, size: u32) -> Done {
    let map = Map::try_from(map)?;
    let (memory, state) = split(call)?;
    let name = range(memory, name, name_size)?;
    let found = state.view(map).and_then(|view| view.get_by(name, &mut state.names.borrow_mut()));
    match found {
        Some(value) => give(call, value.as_bytes(), at, size),
        // SDKs of the first ABI take an absent field for an empty one, and anything else for a failure.
        None if call.data().version == Version::V0_1_0 => give(call, b"", at, size),
        None => Err(Status::NotFound.into()),
    }
}

fn add(call: &mut Call<'_>, map: u32, name: u32, name_size: u32, value: u32, value_size: u32) -> Done {
    let map = Map::try_from(map)?;
    let (memory, state) = split(call)?;
    let (name, value) = (range(memory, name, name_size)?, range(memory, value, value_size)?);
    Ok(write(state, map, name, Write::Add(value))?)
}

fn replace(call: &mut Call<'_>, map: u32, name: u32, name_size: u32, value: u32, value_size: u32) -> Done {
    let map = Map::try_from(map)?;
    let (memory, state) = split(call)?;
    let (name, value) = (range(memory, name, name_size)?, range(memory, value, value_size)?);
    Ok(write(state, map, name, Write::Replace(value))?)
}

fn remove(call: &mut Call<'_>, map: u32, name: u32, name_size: u32) -> Done {
    let map = Map::try_from(map)?;
    let (memory, state) = split(call)?;
    let name = range(memory, name, name_size)?;
    Ok(write(state, map, name, Write::Remove)?)
}

/// Sets all fields. What may not be written stays as it is, whether it is among them or not.
fn set_pairs(call: &mut Call<'_>, map: u32, at: u32, size: u32) -> Done {
    let map = Map::try_from(map)?;
    let (memory, state) = split(call)?;
    let bytes = Bytes::copy_from_slice(range(memory, at, size)?);
    let pairs = maps::decode(&bytes).map_err(|_| Status::BadArgument)?;
    let there: Vec<Vec<u8>> = {
        let view = state.view(map).ok_or(Status::BadArgument)?;
        let names = view.fields.keys().filter(|name| headers::writable(name.as_ref()).is_ok());
        names.map(|name| name.as_str().as_bytes().to_vec()).collect()
    };
    // Checked before anything is changed, so that what is refused leaves the map whole.
    for (name, value) in &pairs {
        headers::value(value).map_err(|_| Status::BadArgument)?;
        if let Err(Refusal::Invalid) = headers::writable(name) {
            return Err(Status::BadArgument.into());
        }
    }
    for name in there {
        write(state, map, &name, Write::Remove)?;
    }
    for (name, value) in &pairs {
        let same = state.view(map).and_then(|view| view.get(name)).is_some_and(|there| there.as_bytes() == &value[..]);
        // What was not removed cannot be written, and a guest that hands all of it back does not mean to.
        if !same || headers::writable(name).is_ok() {
            write(state, map, name, Write::Add(value))?;
        }
    }
    Ok(())
}

/// What is to become of a field.
#[derive(Clone, Copy)]
enum Write<'a> {
    Add(&'a [u8]),
    Replace(&'a [u8]),
    Remove,
}

fn write(state: &mut State, map: Map, name: &[u8], write: Write<'_>) -> Answer {
    let (kind, is_head) = match map {
        Map::RequestHeaders => (Kind::Request, true),
        Map::ResponseHeaders => (Kind::Response, true),
        Map::RequestTrailers => (Kind::Request, false),
        Map::ResponseTrailers => (Kind::Response, false),
        // What has come from elsewhere is read.
        Map::GrpcInitial | Map::GrpcTrailing | Map::CallHeaders | Map::CallTrailers => return Err(Status::BadArgument),
    };
    if name.first() == Some(&b':') {
        return if is_head { pseudo(state, kind, name, write) } else { Err(Status::BadArgument) };
    }
    let names = state.names.get_mut();
    let change = match write {
        Write::Add(value) => Change::append(names, name, value),
        Write::Replace(value) => Change::set(names, name, value),
        Write::Remove => Change::remove(names, name),
    };
    let room = headers::Room { count: state.limits.header_count, bytes: state.limits.header_bytes };
    let message = state.stream_mut().ok_or(Status::BadArgument)?.changed(kind);
    // What has gone on can be read and no longer written.
    if !(if is_head { message.fields.is_some() } else { message.has_trailers }) {
        return Err(Status::BadArgument);
    }
    let fields = if is_head { &mut message.fields } else { &mut message.trailers };
    let fields = fields.as_mut().ok_or(Status::BadArgument)?;
    match change.and_then(|change| headers::apply_one(fields, change, room)) {
        Ok(()) => Ok(()),
        Err(refusal) => {
            state.metrics.headers_refused.add(1);
            match refusal {
                Refusal::Invalid => Err(Status::BadArgument),
                Refusal::Immutable => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    note(state, format_args!("it changed the field {name}, which the gateway alone writes: left as it was"));
                    Ok(())
                }
                Refusal::TooLarge | Refusal::TooMany => Err(Status::InternalFailure),
            }
        }
    }
}

/// Writes a part of the first line: the method and path of a request as its grants have it, or a response's status.
fn pseudo(state: &mut State, kind: Kind, name: &[u8], write: Write<'_>) -> Answer {
    let stream = state.stream().filter(|stream| stream.message(kind).fields.is_some()).ok_or(Status::BadArgument)?;
    let there = stream.head(kind).ok_or(Status::BadArgument)?.get(name);
    let value = match write {
        Write::Add(value) | Write::Replace(value) => value,
        Write::Remove => b"",
    };
    if there.as_ref().map(Field::as_bytes) == Some(value) {
        return Ok(());
    }
    let text = std::str::from_utf8(value).map_err(|_| Status::BadArgument)?;
    match (kind, name, write) {
        (Kind::Response, b":status", Write::Add(_) | Write::Replace(_)) => {
            let status = text.parse::<StatusCode>().ok().filter(|status| (200..600).contains(&status.as_u16()));
            let stream = state.stream_mut().ok_or(Status::BadArgument)?;
            stream.changed(kind).line.status = Some(status.ok_or(Status::BadArgument)?);
            Ok(())
        }
        (Kind::Request, b":path" | b":method", Write::Add(_) | Write::Replace(_)) => rewrite(state, name, text),
        _ => {
            state.metrics.headers_refused.add(1);
            let name = String::from_utf8_lossy(name).into_owned();
            note(state, format_args!("it changed {name}, which was decided on: left as it was"));
            Ok(())
        }
    }
}

fn rewrite(state: &mut State, name: &[u8], text: &str) -> Answer {
    let (mut method, mut path) = state.stream().and_then(|stream| stream.line()).ok_or(Status::BadArgument)?;
    if name == b":path" {
        path = Some(text)
            .filter(|text| text.starts_with('/'))
            .and_then(|text| text.parse::<PathAndQuery>().ok())
            .ok_or(Status::BadArgument)?;
    } else {
        let parsed = Method::from_bytes(text.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        method = parsed.ok_or(Status::BadArgument)?;
    }
    if !state.root().is_some_and(|root| root.grants.permits_path(path.path())) {
        state.metrics.headers_refused.add(1);
        note(state, format_args!("it rewrote the request, and grants.paths of its route has no such path: left as it was"));
        return Ok(());
    }
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    stream.changed(Kind::Request).line.rewritten = Some((method, path));
    Ok(())
}
