//! Sets of bytes, and what stands beside a position.

/// A set of bytes, looked up in one step.
#[derive(Debug)]
pub(crate) struct ByteSet([bool; 256]);

impl ByteSet {
    /// The ASCII letters and digits, and these.
    pub(crate) const fn alphanumeric_and(more: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < more.len() {
            set[more[at] as usize] = true;
            at += 1;
        }
        Self(set)
    }

    pub(crate) const fn contains(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }

    /// How many of the bytes from `from` on are in the set, counted no further than `most`.
    pub(crate) fn run(&self, text: &[u8], from: usize, most: usize) -> usize {
        let rest = text.get(from..).unwrap_or_default();
        let rest = &rest[..most.min(rest.len())];
        rest.iter().position(|byte| !self.contains(*byte)).unwrap_or(rest.len())
    }
}

/// Whether the byte before `at` is of this kind; there is none before the first.
pub(crate) fn after(text: &[u8], at: usize, kind: impl Fn(u8) -> bool) -> bool {
    at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| kind(*byte))
}

/// Whether the byte continues a character of UTF-8 rather than beginning one.
pub(crate) const fn continues(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// The length of `text` without a character that has begun and not ended.
pub(crate) fn whole_characters(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let byte = text[text.len() - back];
        if continues(byte) {
            continue;
        }
        let length = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        return if length > back { text.len() - back } else { text.len() };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_has_not_ended_is_left_out() {
        let text = "a€😀".as_bytes();
        let whole: Vec<_> = (0..=text.len()).map(|length| whole_characters(&text[..length])).collect();
        assert_eq!(whole, [0, 1, 1, 1, 4, 4, 4, 4, 8]);
        assert_eq!(whole_characters(&[0x80; 9]), 9, "what is not UTF-8 is not held back");
    }
}
