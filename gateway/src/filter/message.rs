//! What filters do with the message at hand: its headers, its body and its first line. What is decided here is the same for
//! components and for core modules, which only differ in how they hand things over.

use super::{
    bindings::tidegate::filter::{
        message::LineError,
        types::{BodyError, HeaderError, LocalReply},
    },
    headers::{self, Change, Refusal, Room},
    reply,
    state::State,
};
use crate::upstream::Wish;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};
use wasmtime::{Result, bail};

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

fn stale() -> wasmtime::Error {
    wasmtime::format_err!("a headers handle was used after its callback")
}

impl State {
    /// The header map that a handle of this number was lent for. The number guards against a handle of another callback.
    pub(super) fn headers(&self, handle: u32) -> Result<&HeaderMap> {
        self.lent.headers(handle).ok_or_else(stale)
    }

    /// Applies all of these changes or none.
    pub(super) fn change_headers(
        &mut self,
        handle: u32,
        changes: Result<Vec<Change>, Refusal>,
    ) -> Result<Result<(), HeaderError>> {
        self.write_headers(handle, changes, headers::apply)
    }

    /// The change that filters make most, without a list.
    pub(super) fn change_header(&mut self, handle: u32, change: Result<Change, Refusal>) -> Result<Result<(), HeaderError>> {
        self.write_headers(handle, change, headers::apply_one)
    }

    fn write_headers<C>(
        &mut self,
        handle: u32,
        changes: Result<C, Refusal>,
        apply: impl FnOnce(&mut HeaderMap, C, Room) -> Result<(), Refusal>,
    ) -> Result<Result<(), HeaderError>> {
        let room = self.room();
        let changed = match changes {
            Ok(changes) => apply(self.lent.headers_mut(handle).ok_or_else(stale)?, changes, room),
            Err(refusal) => self.headers(handle).map(|_| Err(refusal))?,
        };
        Ok(changed.map_err(|refusal| {
            self.metrics.headers_refused.add(1);
            match refusal {
                Refusal::Invalid => HeaderError::Invalid,
                Refusal::Immutable => HeaderError::Immutable,
                Refusal::TooLarge => HeaderError::TooLarge,
                Refusal::TooMany => HeaderError::TooMany,
            }
        }))
    }

    /// The body that a handle of this number was lent for.
    pub(super) fn body(&self, handle: u32) -> Result<&Bytes> {
        match self.lent.body(handle) {
            Some(body) => Ok(body),
            None => bail!("a body handle was used after its callback"),
        }
    }

    fn body_mut(&mut self, handle: u32) -> Result<&mut Bytes> {
        match self.lent.body_mut(handle) {
            Some(body) => Ok(body),
            None => bail!("a body handle was used after its callback"),
        }
    }

    /// At most `length` bytes of the body from `offset`, shared with it.
    pub(super) fn read_body(&self, handle: u32, offset: u64, length: u32) -> Result<Bytes> {
        let body = self.body(handle)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
        let end = start.saturating_add(length as usize).min(body.len());
        Ok(body.slice(start..end))
    }

    /// All of the body, which leaves nothing.
    pub(super) fn take_body(&mut self, handle: u32) -> Result<Bytes> {
        self.body_mut(handle).map(std::mem::take)
    }

    /// Replaces a range of the body.
    pub(super) fn splice_body(&mut self, handle: u32, range: Range, data: &[u8]) -> Result<Result<(), BodyError>> {
        let limit = self.limits.body_bytes;
        let body = self.body_mut(handle)?;
        let spliced = spliced(body, range, data, limit.max(body.len())).map(|after| *body = after);
        Ok(spliced.inspect_err(|_| self.metrics.bodies_refused.add(1)))
    }

    /// Notes what is to be answered if the callback ends so.
    pub(super) fn answer(&mut self, reply: LocalReply) {
        self.lent.shown.reply = Some(Box::new(reply));
    }

    /// Sends the request on with this method and path.
    pub(super) fn rewrite(&mut self, method: &str, path: &str) -> Result<(), LineError> {
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        let path = Some(path).filter(|path| path.starts_with('/')).and_then(|path| path.parse::<PathAndQuery>().ok());
        let asked = method.zip(path);
        // Rules do not see the path again: where servers could read it differently, each reading must be granted.
        let permitted = asked.as_ref().is_some_and(|(_, path)| self.grants.permits_path(path.path()));
        let line = self.lent.line_mut().filter(|line| line.kind == Kind::Request);
        let rewritten = match (line, asked) {
            (None, _) => Err(LineError::TooLate),
            (Some(_), None) => Err(LineError::Invalid),
            (Some(_), Some(_)) if !permitted => Err(LineError::NotPermitted),
            (Some(line), asked) => {
                line.rewritten = asked;
                Ok(())
            }
        };
        self.counted(rewritten)
    }

    /// Sends the response on with this status.
    pub(super) fn set_status(&mut self, status: u16) -> Result<(), LineError> {
        let line = self.lent.line_mut().filter(|line| line.kind == Kind::Response);
        let set = match (line, reply::status(status)) {
            (None, _) => Err(LineError::TooLate),
            (Some(_), None) => Err(LineError::Invalid),
            (Some(line), status) => {
                line.status = status;
                Ok(())
            }
        };
        self.counted(set)
    }

    /// Counts a change of a first line that was refused.
    fn counted(&self, changed: Result<(), LineError>) -> Result<(), LineError> {
        changed.inspect_err(|_| self.metrics.lines_refused.add(1))
    }
}

/// Where a splice goes: offset and length.
type Range = (u64, u64);

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
