//! A head that has gone on, as its filter may still read it. Most never do, so it is packed into one piece of memory, which
//! takes less time than to share every field of it, and unpacked by whoever reads it.

use crate::filter::headers::visible;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{cell::OnceCell, fmt};

/// What most fields take, name, value and their lengths. A guess that is too low costs the packing time, and no more.
const FIELD_BYTES: usize = 64;

/// The fields of a head.
pub(super) struct Kept {
    /// For each the length of its name and of its value, 4 bytes each, little-endian, and the two.
    packed: Vec<u8>,
    fields: OnceCell<HeaderMap>,
}

impl Kept {
    /// What filters may see of `fields`.
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut packed = Vec::with_capacity(fields.len() * FIELD_BYTES);
        // No head is larger than the limit on it, which is far from here.
        let length = |part: &[u8]| u64::from(u32::try_from(part.len()).unwrap_or(u32::MAX));
        for (name, value) in fields.iter().filter(|(name, _)| visible(name)) {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            packed.extend_from_slice(&(length(name) | length(value) << 32).to_le_bytes());
            packed.extend_from_slice(name);
            packed.extend_from_slice(value);
        }
        Self { packed, fields: OnceCell::new() }
    }

    /// The fields.
    pub(super) fn fields(&self) -> &HeaderMap {
        self.fields.get_or_init(|| {
            let (mut fields, mut packed) = (HeaderMap::new(), &self.packed[..]);
            while let Some((name, value)) = next(&mut packed) {
                fields.append(name, value);
            }
            fields
        })
    }
}

/// The field in front.
fn next(packed: &mut &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let mut length = || {
        let (length, rest) = packed.split_first_chunk()?;
        *packed = rest;
        Some(u32::from_le_bytes(*length) as usize)
    };
    let (name, value) = (length()?, length()?);
    let (name, rest) = packed.split_at_checked(name)?;
    let (value, rest) = rest.split_at_checked(value)?;
    *packed = rest;
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.packed.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_there_but_for_the_callers_secret() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("host", "api.example"), ("x-a", "1"), ("x-b", ""), ("x-a", "caf\u{e9}\t2")] {
            fields.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let kept = Kept::of(&fields);
        assert_eq!(kept.fields(), &fields);
        fields.insert(http::header::PROXY_AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        let secret = Kept::of(&fields);
        assert_eq!(secret.fields(), kept.fields());
        assert!(!secret.packed.windows(6).any(|bytes| bytes == b"secret"));
        assert!(Kept::of(&HeaderMap::new()).fields().is_empty());
    }
}
