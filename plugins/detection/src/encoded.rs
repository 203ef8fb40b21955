//! A text that is written with escapes: detectors see what it means, and what they leave alone goes on as it was written.

use crate::{
    find::Detectors,
    scanner::{Piece, Scanner},
};

/// Most bytes that wait to be looked at together: to look at each escape by itself takes many times as long.
const TOGETHER: usize = 4 << 10;

/// One such text after the other.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    scanner: Scanner,
    /// How what is held back was written, once there is an escape in the text.
    written: Option<Written>,
    /// What has come since then and was not looked at yet.
    waiting: Vec<u8>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    /// For each byte of the text, how many of `bytes` stand for it.
    lengths: Vec<u8>,
}

impl Encoded {
    pub(crate) fn counts(&self) -> &[u32] {
        self.scanner.counts()
    }

    pub(crate) fn held(&self) -> usize {
        self.scanner.held() + self.waiting.len()
    }

    /// Bytes that mean themselves have come. `masks` are what stands in the place of what each detector finds.
    pub(crate) fn plain(&mut self, detectors: &Detectors, masks: &[String], text: &[u8], out: &mut Vec<u8>) {
        match &mut self.written {
            None => self.scan(detectors, masks, text, false, out),
            Some(written) => {
                written.note(text);
                self.wait(detectors, masks, text, out);
            }
        }
    }

    /// An escape has come that means this, at least one byte.
    pub(crate) fn decoded(&mut self, detectors: &Detectors, masks: &[String], escape: &[u8], text: &[u8], out: &mut Vec<u8>) {
        let held = self.scanner.pending();
        let written = self.written.get_or_insert_with(|| Written { bytes: held.to_vec(), lengths: vec![1; held.len()] });
        written.bytes.extend_from_slice(escape);
        written.lengths.push(u8::try_from(escape.len()).unwrap_or(u8::MAX));
        written.lengths.resize(written.lengths.len() + text.len() - 1, 0);
        self.wait(detectors, masks, text, out);
    }

    /// Nothing more comes for now: what waits is looked at.
    pub(crate) fn pause(&mut self, detectors: &Detectors, masks: &[String], out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            self.scan(detectors, masks, &waiting, false, out);
        }
    }

    /// The text ends with these bytes, which mean themselves. Another may begin.
    pub(crate) fn end(&mut self, detectors: &Detectors, masks: &[String], text: &[u8], out: &mut Vec<u8>) {
        if let Some(written) = &mut self.written {
            written.note(text);
        }
        if self.waiting.is_empty() && text.is_empty() && self.scanner.has_seen_nothing() {
            return;
        }
        if self.waiting.is_empty() {
            self.scan(detectors, masks, text, true, out);
        } else {
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.extend_from_slice(text);
            self.scan(detectors, masks, &waiting, true, out);
        }
        self.written = None;
    }

    fn wait(&mut self, detectors: &Detectors, masks: &[String], text: &[u8], out: &mut Vec<u8>) {
        self.waiting.extend_from_slice(text);
        if self.waiting.len() >= TOGETHER {
            self.pause(detectors, masks, out);
        }
    }

    fn scan(&mut self, detectors: &Detectors, masks: &[String], text: &[u8], end: bool, out: &mut Vec<u8>) {
        let (mut bytes, mut units) = (0, 0);
        let written = self.written.as_ref();
        let mut take = |length: usize| {
            let lengths = written.map_or(&[][..], |written| &written.lengths[units..units + length]);
            let start = bytes;
            bytes += lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
            units += lengths.len();
            written.map(|written| &written.bytes[start..bytes])
        };
        self.scanner.feed(detectors, text, end, &mut |piece| match piece {
            Piece::Keep(text) => out.extend_from_slice(take(text.len()).unwrap_or(text)),
            Piece::Hide { length, begins } => {
                take(length);
                out.extend_from_slice(begins.and_then(|detector| masks.get(detector)).map_or(&[], |mask| mask.as_bytes()));
            }
        });
        if let Some(written) = &mut self.written {
            written.bytes.drain(..bytes);
            written.lengths.drain(..units);
        }
    }
}

impl Written {
    /// Bytes that mean themselves.
    fn note(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.lengths.resize(self.lengths.len() + text.len(), 1);
    }
}
