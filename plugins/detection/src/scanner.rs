//! One text that comes in pieces: what of it may go on, and what is hidden.
//!
//! Whatever the pieces, the answer is the same as for the whole text at once: bytes are only let go when no detector can
//! still find something that begins in them.

use crate::{
    bytes::{continues, whole_characters},
    find::{Detectors, Progress, Span},
};

/// Bytes that have gone and are still looked back at: a card number asks for two, a character has three before its last.
const BEHIND: usize = 4;
/// Most bytes by which the end of what is hidden is moved to the end of a character.
const REST_OF_CHARACTER: u8 = 3;

/// What becomes of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// They go on.
    Keep(&'a [u8]),
    /// So many are hidden. Where something hidden begins, the detector that found it is named.
    Hide { length: usize, begins: Option<usize> },
}

/// The text as far as it is not yet decided.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Up to `BEHIND` bytes that have gone, then those that are held back.
    window: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
    progress: Progress,
    spans: Vec<Span>,
    /// Where the last thing hidden ends, once something was.
    hidden: Option<usize>,
    /// By how much that end was moved.
    moved: u8,
    counts: Vec<u32>,
}

impl Scanner {
    /// Takes the next bytes, and hands out what is decided by now. With `end` everything is, and another text may begin.
    pub(crate) fn feed(&mut self, detectors: &Detectors, bytes: &[u8], end: bool, out: &mut impl FnMut(Piece<'_>)) {
        self.window.extend_from_slice(bytes);
        let known = self.spans.len();
        let clear = detectors.advance(&mut self.progress, &self.window, end, &mut self.spans);
        self.counts.resize(detectors.names().len(), 0);
        for span in self.spans.iter().skip(known).filter(|span| !span.tail) {
            self.counts[span.detector] = self.counts[span.detector].saturating_add(1);
        }
        self.spans.sort_by_key(|span| (span.range.start, span.detector));
        // A match may begin inside a character; then all of the character is hidden, so none goes on by halves.
        let clear = if end { clear } else { whole_characters(&self.window[..clear]).max(self.gone) };
        self.release(clear, out);
        if end {
            self.restart();
        } else {
            self.compact();
        }
    }

    /// How many things each detector has found in all texts so far.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Whether nothing of the text has come yet.
    pub(crate) fn has_seen_nothing(&self) -> bool {
        self.window.is_empty()
    }

    /// The bytes that are held back.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.window[self.gone..]
    }

    /// How many they are.
    pub(crate) fn held(&self) -> usize {
        self.window.len() - self.gone
    }

    fn release(&mut self, clear: usize, out: &mut impl FnMut(Piece<'_>)) {
        let due = self.spans.partition_point(|span| span.range.start < clear);
        let mut spans = std::mem::take(&mut self.spans);
        for span in spans.drain(..due) {
            self.hide(&span, clear, out);
        }
        self.spans = spans;
        self.keep(clear, out);
    }

    fn hide(&mut self, span: &Span, clear: usize, out: &mut impl FnMut(Piece<'_>)) {
        let start = whole_characters(&self.window[..span.range.start]);
        self.keep(start.min(clear), out);
        if self.hidden.is_none_or(|end| end < start) {
            out(Piece::Hide { length: 0, begins: Some(span.detector) });
        }
        if self.hidden.is_none_or(|end| end < span.range.end) {
            self.hidden = Some(span.range.end);
            self.moved = 0;
        }
    }

    /// Lets everything before `to` go: hidden up to where it has to be, and as it is from there on.
    fn keep(&mut self, to: usize, out: &mut impl FnMut(Piece<'_>)) {
        if let Some(end) = &mut self.hidden {
            while self.gone <= *end && *end < to && continues(self.window[*end]) && self.moved < REST_OF_CHARACTER {
                *end += 1;
                self.moved += 1;
            }
            let hidden = (*end).min(to);
            if hidden > self.gone {
                out(Piece::Hide { length: hidden - self.gone, begins: None });
                self.gone = hidden;
            }
        }
        if to > self.gone {
            out(Piece::Keep(&self.window[self.gone..to]));
            self.gone = to;
        }
    }

    /// Forgets what has gone, but for a few bytes.
    fn compact(&mut self) {
        let by = self.gone.saturating_sub(BEHIND);
        self.hidden = self.hidden.filter(|end| *end >= self.gone).map(|end| end - by);
        self.window.drain(..by);
        self.gone -= by;
        self.progress.shift(by);
        for span in &mut self.spans {
            span.range = span.range.start - by..span.range.end - by;
        }
    }

    /// Begins another text; what was counted stays.
    fn restart(&mut self) {
        self.window.clear();
        self.gone = 0;
        self.progress.restart();
        self.hidden = None;
        self.moved = 0;
    }
}
