//! How the lines of a batch are kept: each is much like the one before, and packed they take an eighth of what they are, of the disk
//! and of the time that writing it takes.

use std::borrow::Cow;

/// The most bytes that one byte of an LZ4 block can stand for: a block that claims more is damaged.
const MOST: usize = 255;

/// What is stored of `lines`, and how many bytes these were where it is not they themselves.
pub(super) fn pack(lines: &[u8]) -> (Cow<'_, [u8]>, Option<usize>) {
    let packed = lz4_flex::block::compress(lines);
    if packed.len() < lines.len() { (packed.into(), Some(lines.len())) } else { (lines.into(), None) }
}

/// The lines again.
///
/// # Errors
/// They are not what was stored; a sentence that says so.
pub(super) fn unpack(stored: Vec<u8>, unpacked: Option<usize>) -> Result<Vec<u8>, String> {
    let Some(bytes) = unpacked else { return Ok(stored) };
    if bytes / MOST > stored.len() {
        return Err(format!("a batch of {} bytes is said to be {bytes} bytes of records", stored.len()));
    }
    match lz4_flex::block::decompress(&stored, bytes) {
        Ok(lines) if lines.len() == bytes => Ok(lines),
        Ok(lines) => Err(format!("a batch is {} bytes of records, and is said to be {bytes}", lines.len())),
        Err(error) => Err(format!("a batch cannot be unpacked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_smaller_than_it_is_or_as_it_is() {
        let lines: Vec<u8> =
            (0..400).flat_map(|number| format!("{{\"id\":{number},\"verdict\":\"allowed\"}}\n").into_bytes()).collect();
        let (packed, unpacked) = pack(&lines);
        assert_eq!(unpacked, Some(lines.len()));
        assert!(packed.len() * 3 < lines.len(), "{} of {}", packed.len(), lines.len());
        assert_eq!(unpack(packed.into_owned(), unpacked).unwrap(), lines);
        for short in [&b""[..], b"{}\n"] {
            let (kept, unpacked) = pack(short);
            assert_eq!((&*kept, unpacked), (short, None));
            assert_eq!(unpack(short.to_vec(), None).unwrap(), short);
        }
        let most = vec![b' '; 1 << 20];
        let (packed, unpacked) = pack(&most);
        assert_eq!(unpack(packed.into_owned(), unpacked).unwrap(), most, "{MOST} for one is enough");
    }

    #[test]
    fn what_is_damaged_is_said_to_be() {
        let lines = [b'a'; 10_000];
        let (packed, unpacked) = pack(&lines);
        for (stored, said) in [
            (packed[..packed.len() - 1].to_vec(), unpacked),
            (vec![0xff; 100], Some(1_000)),
            (packed.to_vec(), Some(9_999)),
            (packed.to_vec(), Some(10_001)),
            (packed.to_vec(), Some(usize::MAX)),
            (Vec::new(), Some(1)),
        ] {
            let error = unpack(stored, said).unwrap_err();
            assert!(error.starts_with("a batch "), "{error}");
        }
    }
}
