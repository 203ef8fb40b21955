//! How header maps and lists of pairs lie in a guest's memory: a count, the lengths of each name and value, and then the
//! texts, each with a zero behind it; all numbers 32 bits, little-endian. Pure.

use bytes::Bytes;

/// The most pairs in one map, as the ABI's other hosts have it.
const MOST_PAIRS: usize = 1024;
/// The most bytes of one map.
const MOST_BYTES: usize = 1 << 20;

/// Why bytes are no list of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It ends before what its count or its lengths announce.
    TooShort,
    /// It has more pairs or bytes than a map may have.
    TooLarge,
    /// A text is not followed by a zero.
    Unterminated,
}

/// The pairs as they lie in memory. An empty list has no bytes at all.
pub(super) fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let (mut count, mut size) = (0_usize, 4);
    for (name, value) in pairs.clone() {
        count += 1;
        size += 8 + name.len() + value.len() + 2;
    }
    if count == 0 {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(length(count));
    for (name, value) in pairs.clone() {
        bytes.extend(length(name.len()));
        bytes.extend(length(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

/// The size that `encode` makes of them.
pub(super) fn size<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    let size = pairs.fold(0, |size, (name, value)| size + 8 + name.len() + value.len() + 2);
    if size == 0 { 0 } else { 4 + size }
}

/// The pairs in `bytes`; they share its memory. What stands behind the last is not looked at.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<(Bytes, Bytes)>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    if bytes.len() > MOST_BYTES {
        return Err(Malformed::TooLarge);
    }
    let count = number(bytes, 0)?;
    if count > MOST_PAIRS {
        return Err(Malformed::TooLarge);
    }
    // At most 1024 pairs of 8 bytes: no sum here can wrap.
    let mut at = 4 + 8 * count;
    let mut pairs = Vec::with_capacity(count);
    for pair in 0..count {
        let (name, value) = (number(bytes, 4 + 8 * pair)?, number(bytes, 8 + 8 * pair)?);
        let name = text(bytes, &mut at, name)?;
        let value = text(bytes, &mut at, value)?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Malformed::TooShort)?;
    usize::try_from(u32::from_le_bytes(*four)).map_err(|_| Malformed::TooLarge)
}

fn text(bytes: &Bytes, at: &mut usize, length: usize) -> Result<Bytes, Malformed> {
    let end = at.checked_add(length).ok_or(Malformed::TooLarge)?;
    match bytes.get(end) {
        None => return Err(Malformed::TooShort),
        Some(0) => {}
        Some(_) => return Err(Malformed::Unterminated),
    }
    let text = bytes.slice(*at..end);
    *at = end + 1;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a>(of: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        of.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for of in [&[][..], &[("a", "b")], &[(":path", "/"), ("x-empty", ""), ("set-cookie", "a"), ("set-cookie", "b")]] {
            let bytes = encode(pairs(of));
            assert_eq!(bytes.len(), size(pairs(of)), "{of:?}");
            let decoded = decode(&bytes.into()).unwrap();
            let decoded: Vec<_> = decoded.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            assert_eq!(decoded, pairs(of).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_map_has_no_bytes() {
        assert!(encode(pairs(&[])).is_empty());
        assert_eq!(decode(&Bytes::from_static(&[0, 0, 0, 0])), Ok(Vec::new()));
    }

    #[test]
    fn maps_that_lie_about_themselves_are_refused() {
        let whole = encode(pairs(&[("name", "value"), ("n", "v")]));
        for kept in 1..whole.len() {
            assert!(decode(&Bytes::copy_from_slice(&whole[..kept])).is_err(), "{kept} bytes");
        }
        let with = |at: usize, number: u32| {
            let mut bytes = whole.clone();
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            decode(&bytes.into())
        };
        assert_eq!(with(0, 1025), Err(Malformed::TooLarge));
        assert_eq!(with(0, u32::MAX), Err(Malformed::TooLarge));
        assert_eq!(with(0, 1024), Err(Malformed::TooShort));
        assert_eq!(with(4, u32::MAX), Err(Malformed::TooShort));
        assert_eq!(with(8, u32::MAX), Err(Malformed::TooShort));
        assert_eq!(with(4, 3), Err(Malformed::Unterminated));
        assert_eq!(decode(&vec![0; MOST_BYTES + 1].into()), Err(Malformed::TooLarge));
    }
}
