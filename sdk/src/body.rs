//! Bodies and trailers of the message at hand, read and changed in place.

use crate::{Headers, host::RawBody};
use std::{
    fmt,
    ops::{Bound, Deref, DerefMut, RangeBounds},
};

/// Bytes of a body that are read at a time, where a filter goes through all of it.
const READ: u32 = 64 << 10;
/// Bytes that are written at a time: the gateway takes a MiB in one call (`filter_hostcall_bytes`), and copies the body for each.
const WRITTEN: usize = 256 << 10;

/// What of a body is on offer: what has come since the last callback, behind what the filter asked the gateway to hold. A
/// view of what the gateway holds, so reading copies only what is asked for. The message's length follows by itself.
#[derive(Debug)]
pub struct Body<'a> {
    raw: RawBody<'a>,
    head: Option<Headers<'a>>,
}

/// Why a change to a body was refused. The body is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It would become larger than the gateway's limit on what is held for a filter.
    TooLarge,
    /// The range begins behind the end.
    OutOfRange,
}

/// The trailers of a message: headers that came behind its body. With them comes what is still held of the message.
#[derive(Debug)]
pub struct Trailers<'a> {
    headers: Headers<'a>,
    body: Body<'a>,
}

impl<'a> Body<'a> {
    pub(crate) fn new(raw: RawBody<'a>, head: Option<Headers<'a>>) -> Self {
        Self { raw, head }
    }

    /// The head, as long as it has not gone on.
    pub fn head(&mut self) -> Option<&mut Headers<'a>> {
        self.head.as_mut()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.raw.len()
    }

    /// Whether nothing is on offer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `len` bytes from `offset`: fewer at the end, none behind it.
    pub fn read(&self, offset: u64, len: u32) -> Vec<u8> {
        self.raw.read(offset, len)
    }

    /// A copy of all of it.
    pub fn bytes(&self) -> Vec<u8> {
        // The gateway holds far less than this for a filter.
        self.read(0, u32::MAX)
    }

    /// A copy of all of it, piece by piece: for who needs no more than a piece at a time.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.pieces_from(0)
    }

    /// A copy of what follows `offset`, piece by piece: for who holds a body and has seen the beginning of it.
    pub fn pieces_from(&self, mut offset: u64) -> impl Iterator<Item = Vec<u8>> + '_ {
        std::iter::from_fn(move || {
            let piece = self.read(offset, READ);
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// All of it, which leaves nothing.
    pub fn take(&mut self) -> Vec<u8> {
        self.raw.take()
    }

    /// Replaces a range by `data`. More than there is to the end means all of it.
    pub fn splice(&mut self, range: impl RangeBounds<u64>, data: impl AsRef<[u8]>) -> Result<(), BodyError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.checked_add(1).ok_or(BodyError::OutOfRange)?,
            Bound::Unbounded => 0,
        };
        let len = match range.end_bound() {
            Bound::Included(last) => last.checked_sub(start).map(|len| len.saturating_add(1)),
            Bound::Excluded(end) => end.checked_sub(start),
            Bound::Unbounded => Some(u64::MAX),
        };
        self.raw.splice(start, len.ok_or(BodyError::OutOfRange)?, data.as_ref())
    }

    /// Replaces all of it by `data`, of any length: see [`Self::append`].
    pub fn replace(&mut self, data: impl AsRef<[u8]>) -> Result<(), BodyError> {
        let data = data.as_ref();
        if data.len() <= WRITTEN {
            return self.splice(.., data);
        }
        let before = self.take();
        self.append(data).or_else(|error| {
            self.append(before)?;
            Err(error)
        })
    }

    /// Adds `data` before it.
    pub fn prepend(&mut self, data: impl AsRef<[u8]>) -> Result<(), BodyError> {
        self.splice(0..0, data)
    }

    /// Adds `data` behind it, of any length: the gateway is handed it in pieces, since a call takes only so much.
    pub fn append(&mut self, data: impl AsRef<[u8]>) -> Result<(), BodyError> {
        let before = self.len();
        let mut end = before;
        for piece in data.as_ref().chunks(WRITTEN) {
            if let Err(error) = self.splice(end..end, piece) {
                // All of it or nothing. To become shorter is never refused.
                self.splice(before.., "")?;
                return Err(error);
            }
            end += piece.len() as u64;
        }
        Ok(())
    }
}

impl<'a> Trailers<'a> {
    pub(crate) fn new(headers: Headers<'a>, body: Body<'a>) -> Self {
        Self { headers, body }
    }

    /// The head, as long as it has not gone on.
    pub fn head(&mut self) -> Option<&mut Headers<'a>> {
        self.body.head()
    }

    /// What is held of the body; empty when all of it has gone on.
    pub fn body(&mut self) -> &mut Body<'a> {
        &mut self.body
    }
}

impl<'a> Deref for Trailers<'a> {
    type Target = Headers<'a>;

    fn deref(&self) -> &Headers<'a> {
        &self.headers
    }
}

impl<'a> DerefMut for Trailers<'a> {
    fn deref_mut(&mut self) -> &mut Headers<'a> {
        &mut self.headers
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body would be larger than what the gateway holds for a filter (setting filter_body_bytes)",
            Self::OutOfRange => "the range begins behind the end of the body",
        })
    }
}

impl std::error::Error for BodyError {}
