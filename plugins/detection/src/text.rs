//! Masks text that comes in chunks, of any kind that keeps ASCII as it is.

use crate::{
    find::{Detectors, Progress},
    mask::Mask,
    scanner::{Piece, Scanner},
};
use std::borrow::Cow;

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
            Piece::Hide { begins: Some(detector), .. } => out.extend_from_slice(mask.text(detector).as_bytes()),
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
    pub fn masked<'a>(&self, mask: &Mask, text: &'a str) -> Cow<'a, str> {
        if self.first(text).is_none() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        TextMasker::default().feed(self, mask, text.as_bytes(), true, &mut out);
        // Whole characters are hidden and masks are text, so this is text still.
        Cow::Owned(String::from_utf8(out).unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned()))
    }

    /// The detector that finds something first in the text.
    pub fn first(&self, text: &str) -> Option<usize> {
        self.first_by(&mut Progress::default(), text)
    }

    /// As [`Self::first`], for who has asked before and has kept what that took.
    pub(crate) fn first_by(&self, progress: &mut Progress, text: &str) -> Option<usize> {
        let mut spans = Vec::new();
        progress.restart();
        self.advance(progress, text.as_bytes(), true, &mut spans);
        spans.iter().min_by_key(|span| (span.range.start, span.detector)).map(|span| span.detector)
    }
}
