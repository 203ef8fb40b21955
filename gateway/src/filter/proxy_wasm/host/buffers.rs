//! Buffers: bodies, what calls brought, and configurations.

use super::{Offered, offer};
use crate::filter::{
    message::Kind,
    proxy_wasm::{
        abi::{Answer, Buffer, Status},
        memory::{Call, Done, give, put_u32, range, split},
        state::State,
        stream::{Stream, Wait},
    },
    share::NoRoom,
};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_get_buffer_bytes", bytes, buffer: u32, start: u32, most: u32, at: u32, size: u32);
    offer!(offered, "proxy_set_buffer_bytes", set_bytes, buffer: u32, start: u32, length: u32, at: u32, size: u32);
    offer!(offered, "proxy_get_buffer_status", status, buffer: u32, length: u32, flags: u32);
    offer!(offered, "proxy_get_configuration", configuration, at: u32, size: u32);
    Ok(())
}

/// Bytes that are held while the guest makes room for them.
enum Held {
    Shared(Bytes),
    Configured(Arc<[u8]>),
}

impl Held {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Configured(bytes) => bytes,
        }
    }
}

impl State {
    /// What is in a buffer; none where there is no such buffer now.
    fn buffer(&self, buffer: Buffer) -> Option<Held> {
        Some(match buffer {
            Buffer::RequestBody | Buffer::ResponseBody | Buffer::Downstream | Buffer::Upstream => {
                let stream = self.stream()?;
                Held::Shared(stream.message(flowing(buffer, stream)?).body.clone())
            }
            Buffer::CallBody => Held::Shared(self.callouts.http()?.body.clone()),
            Buffer::Grpc => Held::Shared(self.callouts.message()?.clone()),
            Buffer::VmConfiguration => Held::Configured(self.key.machine.vm_config.clone()),
            Buffer::PluginConfiguration => Held::Configured(self.root()?.setup.config.clone()),
            Buffer::ForeignArguments => Held::Shared(self.foreign.clone()),
        })
    }
}

/// Which way this buffer's bytes flow, where it is one of the exchange's: tunnels have two of their own.
fn flowing(buffer: Buffer, stream: &Stream) -> Option<Kind> {
    match (buffer, &stream.ends) {
        (Buffer::RequestBody, None) | (Buffer::Downstream, Some(_)) => Some(Kind::Request),
        (Buffer::ResponseBody, None) | (Buffer::Upstream, Some(_)) => Some(Kind::Response),
        _ => None,
    }
}

fn bytes(call: &mut Call<'_>, buffer: u32, start: u32, most: u32, at: u32, size: u32) -> Done {
    let buffer = Buffer::try_from(buffer)?;
    let held = call.data().buffer(buffer).ok_or(Status::NotFound)?;
    let bytes = held.as_slice();
    if start.checked_add(most).is_none() && most != u32::MAX {
        return Err(Status::BadArgument.into());
    }
    let start = (start as usize).min(bytes.len());
    let end = start.saturating_add(most as usize).min(bytes.len());
    give(call, &bytes[start..end], at, size)
}

fn status(call: &mut Call<'_>, buffer: u32, length: u32, flags: u32) -> Done {
    let buffer = Buffer::try_from(buffer)?;
    let held = call.data().buffer(buffer).ok_or(Status::NotFound)?;
    let size = u32::try_from(held.as_slice().len()).unwrap_or(u32::MAX);
    let (memory, _) = split(call)?;
    range(memory, flags, 4)?;
    put_u32(memory, length, size)?;
    Ok(put_u32(memory, flags, 0)?)
}

fn configuration(call: &mut Call<'_>, at: u32, size: u32) -> Done {
    let held = call.data().buffer(Buffer::PluginConfiguration).ok_or(Status::NotFound)?;
    give(call, held.as_slice(), at, size)
}

/// Replaces a part of a body.
fn set_bytes(call: &mut Call<'_>, buffer: u32, start: u32, length: u32, at: u32, size: u32) -> Done {
    let buffer = Buffer::try_from(buffer)?;
    let (memory, state) = split(call)?;
    let kind = state.stream().and_then(|stream| flowing(buffer, stream)).ok_or(Status::BadArgument)?;
    let data = range(memory, at, size)?;
    let limit = state.limits.body_bytes;
    let stream = state.stream().filter(|stream| stream.offers_body(kind)).ok_or(Status::BadArgument)?;
    let before = stream.message(kind).body.clone();
    let spliced = spliced(&before, (start, length), data, limit.max(before.len()));
    match spliced {
        Ok(after) => {
            if stream.message(kind).wait != Wait::Nothing {
                let (limits, metrics) = (state.limits, Arc::clone(&state.metrics));
                let stream = state.stream_mut().ok_or(Status::BadArgument)?;
                let share = &mut stream.message_mut(kind).share;
                share.resize(after.len(), &limits, &metrics).map_err(|NoRoom| Status::InternalFailure)?;
            }
            let stream = state.stream_mut().ok_or(Status::BadArgument)?;
            stream.changed(kind).body = after;
            // Whoever waits for room in what a tunnel's filter holds may find some.
            if stream.ends.is_some() && stream.message(kind).is_held() {
                stream.ring();
            }
            Ok(())
        }
        Err(status) => {
            state.metrics.bodies_refused.add(1);
            Err(status.into())
        }
    }
}

/// `before` with a range of it replaced; a range beyond its end is at its end.
fn spliced(before: &Bytes, (start, length): (u32, u32), data: &[u8], limit: usize) -> Answer<Bytes> {
    let start = (start as usize).min(before.len());
    let end = start.saturating_add(length as usize).min(before.len());
    let size = before.len() - (end - start) + data.len();
    if size > limit {
        return Err(Status::InternalFailure);
    }
    if start == 0 && end == before.len() {
        return Ok(Bytes::copy_from_slice(data));
    }
    let mut after = BytesMut::with_capacity(size);
    after.extend_from_slice(&before[..start]);
    after.extend_from_slice(data);
    after.extend_from_slice(&before[end..]);
    Ok(after.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_spliced_as_the_abi_has_it() {
        let before = Bytes::from_static(b"0123456789");
        type Row<'a> = (u32, u32, &'a [u8], Answer<&'a [u8]>);
        let rows: [Row<'_>; 8] = [
            (0, 0, b"ab", Ok(b"ab0123456789")),
            (10, 0, b"ab", Ok(b"0123456789ab")),
            (u32::MAX, u32::MAX, b"ab", Ok(b"0123456789ab")),
            (0, 10, b"ab", Ok(b"ab")),
            (0, u32::MAX, b"", Ok(b"")),
            (2, 3, b"x", Ok(b"01x56789")),
            (5, 0, b"123", Err(Status::InternalFailure)),
            (8, 9, b"xyz", Ok(b"01234567xyz")),
        ];
        for (start, length, data, expected) in rows {
            let after = spliced(&before, (start, length), data, 12);
            assert_eq!(after.as_deref(), expected.as_deref(), "{start} {length} {data:?}");
        }
    }
}
