//! How the lines of a batch are kept: each is much like the one before, and packed they are an eighth of what they were.

use std::borrow::Cow;

/// The most bytes that one byte of an LZ4 block can stand for: a block that claims more is damaged.
const MOST_FOR_ONE: usize = 255;

/// What is stored of `lines`, and how many bytes these were where it is not they themselves.
pub(super) fn pack(lines: &[u8]) -> (Cow<'_, [u8]>, Option<usize>) {
    let packed = lz4_flex::block::compress(lines);
    if packed.len() < lines.len() { (packed.into(), Some(lines.len())) } else { (lines.into(), None) }
}

/// The lines again, of which there are `count`.
///
/// # Errors
/// They are not what was stored; a sentence that says so.
pub(super) fn unpack(stored: Vec<u8>, unpacked: Option<usize>, count: u32) -> Result<Vec<u8>, String> {
    let lines = match unpacked {
        None => stored,
        Some(bytes) if bytes / MOST_FOR_ONE > stored.len() => {
            return Err(format!("{} bytes are said to be {bytes} bytes of records", stored.len()));
        }
        Some(bytes) => lz4_flex::block::decompress(&stored, bytes).map_err(|error| error.to_string()).and_then(|lines| {
            if lines.len() == bytes { Ok(lines) } else { Err(format!("{} bytes and not {bytes}", lines.len())) }
        })?,
    };
    let there = memchr::memchr_iter(b'\n', &lines).count();
    if there == count as usize { Ok(lines) } else { Err(format!("{there} lines and not {count}")) }
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
        assert_eq!(unpack(packed.into_owned(), unpacked, 400).unwrap(), lines);
        for (short, count) in [(&b""[..], 0), (b"{}\n", 1)] {
            let (kept, unpacked) = pack(short);
            assert_eq!((&*kept, unpacked), (short, None));
            assert_eq!(unpack(short.to_vec(), None, count).unwrap(), short);
        }
        let most = vec![b' '; 1 << 20];
        let (packed, unpacked) = pack(&most);
        assert_eq!(unpack(packed.into_owned(), unpacked, 0).unwrap(), most, "{MOST_FOR_ONE} for one is enough");
    }

    #[test]
    fn what_is_damaged_is_said_to_be() {
        let mut lines = [b'a'; 10_000];
        lines[9_999] = b'\n';
        let (packed, unpacked) = pack(&lines);
        assert!(unpack(packed.to_vec(), unpacked, 1).is_ok());
        for (stored, said, count) in [
            (packed[..packed.len() - 1].to_vec(), unpacked, 1),
            (vec![0xff; 100], Some(1_000), 0),
            (packed.to_vec(), Some(9_999), 1),
            (packed.to_vec(), Some(10_001), 1),
            (packed.to_vec(), Some(usize::MAX), 1),
            (packed.to_vec(), unpacked, 2),
            (Vec::new(), Some(1), 0),
            (lines.to_vec(), None, 2),
        ] {
            assert!(unpack(stored, said, count).is_err());
        }
    }
}
