//! What filters may do to headers. The only place that decides it; pure.

use super::names::Names;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The authority, framing and hop-by-hop fields (RFC 9110 sections 7.2, 7.6.1 and 8.6), and what loops are found by.
/// Filters may read these and never write them, so that what was decided and framed is what is sent.
///
/// The list is part of the contract, where the SDK's test driver finds it too.
const IMMUTABLE: &[&str] = &include!("../../../sdk/wit/immutable-headers.rs");

/// A checked change.
#[derive(Debug)]
pub(super) enum Change {
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    Remove(HeaderName),
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid,
    Immutable,
    TooLarge,
    TooMany,
}

/// What a header section may grow to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

/// Whether a filter may see the field: the caller's secret towards the gateway is not theirs.
pub(super) fn visible(name: &HeaderName) -> bool {
    name != header::PROXY_AUTHORIZATION
}

/// The first value of a field, if there is one that a filter may see.
pub(super) fn get<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a HeaderValue> {
    named(name).and_then(|name| headers.get(name))
}

/// The name that is written so, of a field that a filter may see.
fn named(written: &[u8]) -> Option<HeaderName> {
    HeaderName::from_bytes(written).ok().filter(visible)
}

/// Every value of a field that a filter may see, in order.
pub(super) fn get_all<'a>(headers: &'a HeaderMap, name: &[u8]) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
    named(name).map(|name| headers.get_all(name).into_iter()).into_iter().flatten()
}

/// Every field that a filter may see.
pub(super) fn entries(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| visible(name))
}

/// The first values of these fields; none where they are more than `most` bytes together, as one field may be asked for often.
pub(super) fn get_many(headers: &HeaderMap, names: &[String], most: usize) -> Option<Vec<Option<Vec<u8>>>> {
    let mut left = most;
    let mut value = |name: &String| {
        let Some(value) = get(headers, name.as_bytes()) else { return Some(None) };
        left = left.checked_sub(value.len())?;
        Some(Some(value.as_bytes().to_vec()))
    };
    names.iter().map(&mut value).collect()
}

/// A field name that a filter may write.
pub(crate) fn writable(name: &[u8]) -> Result<HeaderName, Refusal> {
    if name.starts_with(b":") {
        return Err(Refusal::Immutable);
    }
    let name = HeaderName::from_bytes(name).map_err(|_| Refusal::Invalid)?;
    may_write(&name).map(|()| name)
}

/// Whether filters may write fields of this name.
pub(super) fn may_write(name: &HeaderName) -> Result<(), Refusal> {
    if IMMUTABLE.contains(&name.as_str()) || !visible(name) { Err(Refusal::Immutable) } else { Ok(()) }
}

/// A field value; the type refuses CR, LF, NUL and every other control character but the tab.
pub(super) fn value(bytes: &[u8]) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(bytes).map_err(|_| Refusal::Invalid)
}

/// Applies all changes or none. The size is an upper bound: what a `set` replaces counts until the next batch.
pub(super) fn apply(headers: &mut HeaderMap, changes: Vec<Change>, room: Room) -> Result<(), Refusal> {
    fits(headers, &changes, room)?;
    changes.into_iter().for_each(|change| change.make(headers));
    Ok(())
}

/// As `apply`, for one.
pub(super) fn apply_one(headers: &mut HeaderMap, change: Change, room: Room) -> Result<(), Refusal> {
    fits(headers, std::slice::from_ref(&change), room)?;
    change.make(headers);
    Ok(())
}

impl Change {
    pub(super) fn set(names: &mut Names, name: &[u8], value: &[u8]) -> Result<Self, Refusal> {
        names.field(name, value).map(|(name, value)| Self::Set(name, value))
    }

    pub(super) fn append(names: &mut Names, name: &[u8], value: &[u8]) -> Result<Self, Refusal> {
        names.field(name, value).map(|(name, value)| Self::Append(name, value))
    }

    pub(super) fn remove(names: &mut Names, name: &[u8]) -> Result<Self, Refusal> {
        names.writable(name).map(Self::Remove)
    }

    /// The field that it writes, where it writes one.
    fn field(&self) -> Option<(&HeaderName, &HeaderValue)> {
        match self {
            Self::Set(name, value) | Self::Append(name, value) => Some((name, value)),
            Self::Remove(_) => None,
        }
    }

    fn make(self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => {
                headers.insert(name, value);
            }
            Self::Append(name, value) => {
                headers.append(name, value);
            }
            Self::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

fn fits(headers: &HeaderMap, changes: &[Change], room: Room) -> Result<(), Refusal> {
    let written = || changes.iter().filter_map(Change::field);
    // A message that came too large may still be made smaller.
    if written().next().is_none() {
        return Ok(());
    }
    // Whether a field is there already is only asked where it matters.
    let adds = |change: &&Change| match change {
        Change::Set(name, _) => !headers.contains_key(name),
        Change::Append(..) => true,
        Change::Remove(_) => false,
    };
    if headers.len() + changes.len() > room.count && headers.len() + changes.iter().filter(adds).count() > room.count {
        return Err(Refusal::TooMany);
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let bytes = headers.iter().map(size).sum::<usize>() + written().map(size).sum::<usize>();
    if bytes > room.bytes { Err(Refusal::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { count: 3, bytes: 64 };

    fn set(name: &str, text: &str) -> Result<Change, Refusal> {
        Ok(Change::Set(writable(name.as_bytes())?, value(text.as_bytes())?))
    }

    #[test]
    fn framing_and_authority_are_out_of_reach() {
        for name in IMMUTABLE.iter().copied().chain([":path", ":authority", "proxy-authorization"]) {
            assert_eq!(set(name, "v").unwrap_err(), Refusal::Immutable, "{name}");
            assert_eq!(set(&name.to_ascii_uppercase(), "v").unwrap_err(), Refusal::Immutable, "{name}");
        }
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\rb", "a\nb", "a\r\nb: c", "a\0b", "a\u{7f}b"] {
            assert_eq!(set("x-a", text).unwrap_err(), Refusal::Invalid, "{text:?}");
        }
        for name in ["", "a b", "a\r\nb", "a:", "ä"] {
            assert_eq!(set(name, "v").unwrap_err(), Refusal::Invalid, "{name:?}");
        }
        set("x-a", "tab\tand caf\u{e9}").unwrap();
    }

    #[test]
    fn a_batch_is_applied_whole_or_not_at_all() {
        let mut headers = HeaderMap::new();
        let four = (0..4).map(|n| set(&format!("x-{n}"), "v").unwrap()).collect();
        assert_eq!(apply(&mut headers, four, ROOM).unwrap_err(), Refusal::TooMany);
        assert!(headers.is_empty());
        assert_eq!(apply(&mut headers, vec![set("x-a", &"v".repeat(62)).unwrap()], ROOM).unwrap_err(), Refusal::TooLarge);
        assert!(headers.is_empty());
        apply(&mut headers, vec![set("x-a", "1").unwrap(), Change::Remove(writable(b"x-a").unwrap())], ROOM).unwrap();
        assert!(headers.is_empty());
    }

    #[test]
    fn one_field_that_is_asked_for_often_is_copied_within_a_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("12345678"));
        let names = |count: usize| vec!["x-a".to_owned(); count];
        assert_eq!(get_many(&headers, &names(2), 16), Some(vec![Some(b"12345678".to_vec()); 2]));
        assert_eq!(get_many(&headers, &names(3), 23), None);
        assert_eq!(get_many(&headers, &["x-b".to_owned()], 0), Some(vec![None]));
    }

    #[test]
    fn the_callers_secret_is_not_there() {
        let mut headers = HeaderMap::new();
        headers.insert(header::PROXY_AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        assert!(get(&headers, b"Proxy-Authorization").is_none());
        assert!(!visible(&header::PROXY_AUTHORIZATION));
    }
}
