//! The text coding: base64 in pieces. A piece may end anywhere, in the middle of four characters, and padding may come anywhere
//! that it can end: peers encode message by message or flush by flush, and join what they encoded.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Decodes one body.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The characters of a group of four that has not come whole.
    rest: Vec<u8>,
}

/// The body is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Characters of base64 that stand for three bytes.
const GROUP: usize = 4;

impl Decoder {
    /// Decodes what has come, behind what came before.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<u8>, NotBase64> {
        let mut text = std::mem::take(&mut self.rest);
        text.extend_from_slice(piece);
        self.rest = text.split_off(text.len() - text.len() % GROUP);
        let mut decoded = Vec::with_capacity(text.len() / GROUP * 3);
        // Up to padding is one base64, and behind it the next.
        let mut start = 0;
        while start < text.len() {
            let end = match text[start..].iter().position(|character| *character == b'=') {
                Some(padding) => start + padding / GROUP * GROUP + GROUP,
                None => text.len(),
            };
            STANDARD.decode_vec(&text[start..end], &mut decoded).map_err(|_| NotBase64)?;
            start = end;
        }
        Ok(decoded)
    }

    /// The body has ended: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), NotBase64> {
        if self.rest.is_empty() { Ok(()) } else { Err(NotBase64) }
    }
}

/// Encodes a piece that is to be readable as soon as it comes: with its padding.
pub(crate) fn encode(piece: &[u8]) -> String {
    STANDARD.encode(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<u8>, NotBase64> {
        let mut decoder = Decoder::default();
        let mut decoded = Vec::new();
        for piece in pieces {
            decoded.extend(decoder.push(piece)?);
        }
        decoder.finish().map(|()| decoded)
    }

    #[test]
    fn where_pieces_end_does_not_matter() {
        let bytes: Vec<u8> = (0..=255).step_by(23).collect();
        // Every way to encode the bytes in three parts, each with its own padding …
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let text: String = parts.map(encode).concat();
                // … and to cut the text in three pieces.
                for one in 0..=text.len() {
                    for other in one..=text.len() {
                        let text = text.as_bytes();
                        let pieces = [&text[..one], &text[one..other], &text[other..]];
                        assert_eq!(decode(&pieces).as_ref(), Ok(&bytes), "{parts:?} {pieces:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_wherever_it_is_cut() {
        for text in ["A", "AA", "AAA", "AA=", "A===", "AA=A", "====", "AAAA\n", "AAA-", "AAA_", "AA==A", "AB==", "AAA\u{e9}"] {
            for cut in 0..=text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(decode(&[one, other]), Err(NotBase64), "{text:?} at {cut}");
            }
        }
    }
}
