//! Masks text that comes in chunks, of any kind that keeps ASCII as it is.

use crate::{
    find::Detectors,
    mask::Mask,
    scanner::{Piece, Scanner},
};

/// One text in the course of being masked.
#[derive(Debug, Default)]
pub struct TextMasker {
    scanner: Scanner,
}

impl TextMasker {
    /// Takes the next bytes and appends to `out` what may go on by now, at most [`crate::LONGEST`] bytes staying behind.
    /// With `end` all of it may, and another text may begin.
    pub fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        self.scanner.feed(detectors, bytes, end, &mut |piece| match piece {
            Piece::Keep(bytes) => out.extend_from_slice(bytes),
            Piece::Hide { begins: Some(detector), .. } => out.extend_from_slice(mask.plain(detector).as_bytes()),
            Piece::Hide { begins: None, .. } => {}
        });
    }

    /// How many things each detector has found so far, in the order of [`Detectors::names`].
    pub fn counts(&self) -> &[u32] {
        self.scanner.counts()
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.scanner.held()
    }
}

impl Detectors {
    /// The text with everything that was found replaced.
    pub fn masked(&self, mask: &Mask, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        TextMasker::default().feed(self, mask, text.as_bytes(), true, &mut out);
        // Whole characters are hidden and masks are text, so this is text still.
        String::from_utf8(out).unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned())
    }

    /// The detector that finds something first in the text.
    pub fn first(&self, text: &str) -> Option<usize> {
        let mut first = None;
        Scanner::default().feed(self, text.as_bytes(), true, &mut |piece| {
            if let Piece::Hide { begins: Some(detector), .. } = piece {
                first.get_or_insert(detector);
            }
        });
        first
    }
}
