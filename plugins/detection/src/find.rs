//! The detectors of one configuration, and the one pass over a text that asks all of them.
//!
//! Each detector goes its own way: it finds its own leftmost matches, whatever the others find, so that what it counts does
//! not change when another is added.

use crate::{
    card, email, keys,
    keys::{JWT_HEADER, Tail},
    pattern::Pattern,
};
use std::ops::Range;

/// Most bytes of a stream that are held back at a time: what the longest undecided token may have (a JSON Web Token's
/// header, the dot, three bytes more), and a character that has begun.
pub const LONGEST: usize = JWT_HEADER + 4 + 3;

/// What a detector says of one position.
#[derive(Debug)]
pub(crate) enum At {
    /// Nothing of its kind begins here.
    Nothing,
    /// More bytes are needed to say.
    Incomplete,
    /// This is of its kind, and so is the tail that follows.
    Found { span: Range<usize>, tail: Option<Tail> },
}

/// A detector that comes with the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    Card,
    Email,
    AwsKey,
    GithubToken,
    SlackToken,
    StripeKey,
    GoogleKey,
    Jwt,
    PrivateKey,
    BearerToken,
}

/// The built-in detectors and their names.
pub(crate) const BUILTIN: [(&str, Builtin); 10] = [
    ("card", Builtin::Card),
    ("email", Builtin::Email),
    ("aws_key", Builtin::AwsKey),
    ("github_token", Builtin::GithubToken),
    ("slack_token", Builtin::SlackToken),
    ("stripe_key", Builtin::StripeKey),
    ("google_key", Builtin::GoogleKey),
    ("jwt", Builtin::Jwt),
    ("private_key", Builtin::PrivateKey),
    ("bearer_token", Builtin::BearerToken),
];

impl Builtin {
    /// Whether anything of its kind begins with this byte.
    fn begins(self, byte: u8) -> bool {
        match self {
            Self::Card => card::begins(byte),
            Self::Email => email::begins(byte),
            Self::AwsKey | Self::Jwt => byte == if self == Self::Jwt { b'e' } else { b'A' },
            Self::GithubToken => byte == b'g',
            Self::SlackToken => byte == b'x',
            Self::StripeKey => matches!(byte, b's' | b'r' | b'w'),
            Self::GoogleKey => matches!(byte, b'A' | b'G' | b'y'),
            Self::PrivateKey => byte == b'-',
            Self::BearerToken => matches!(byte, b'b' | b'B'),
        }
    }

    fn at(self, text: &[u8], at: usize, end: bool) -> At {
        match self {
            Self::Card => card::at(text, at, end),
            Self::Email => email::at(text, at, end),
            Self::AwsKey => keys::shapes(&keys::AWS, text, at, end),
            Self::GithubToken => keys::shapes(&keys::GITHUB, text, at, end),
            Self::SlackToken => keys::shapes(&keys::SLACK, text, at, end),
            Self::StripeKey => keys::shapes(&keys::STRIPE, text, at, end),
            Self::GoogleKey => keys::shapes(&keys::GOOGLE, text, at, end),
            Self::Jwt => keys::jwt(text, at, end),
            Self::PrivateKey => keys::private_key(text, at, end),
            Self::BearerToken => keys::bearer(text, at, end),
        }
    }
}

/// The detectors of one configuration. A detector is known by its index, its place among [`Detectors::names`].
#[derive(Debug)]
pub struct Detectors {
    names: Vec<String>,
    /// Detector and what it does; those that come with the crate first, as `starts` has it.
    builtins: Vec<(usize, Builtin)>,
    patterns: Vec<(usize, Pattern)>,
    /// For each byte, a bit for each of `builtins` that something of its kind may begin with it.
    starts: [u16; 256],
}

/// Where a detector found something, or where what it found before goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) range: Range<usize>,
    pub(crate) detector: usize,
    /// It goes on with what was found already: it is hidden, not counted.
    pub(crate) tail: bool,
}

/// How far the detectors have come in a text.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Where the pass of the built-in detectors goes on.
    cursor: usize,
    /// For each of them, where the last thing it found ends, and what still belongs to it.
    builtins: Vec<(usize, Option<Tail>)>,
    /// For each pattern, where its search goes on.
    patterns: Vec<usize>,
}

impl Progress {
    /// Before this position, nothing more will be found.
    fn clear(&self) -> usize {
        self.patterns.iter().fold(self.cursor, |clear, position| clear.min(*position))
    }

    /// Another text begins.
    pub(crate) fn restart(&mut self) {
        self.cursor = 0;
        self.builtins.fill((0, None));
        self.patterns.fill(0);
    }

    /// The first so many bytes of the text are dropped.
    pub(crate) fn shift(&mut self, by: usize) {
        self.cursor -= by;
        self.builtins.iter_mut().for_each(|(from, _)| *from = from.saturating_sub(by));
        self.patterns.iter_mut().for_each(|from| *from -= by);
    }
}

impl Detectors {
    pub(crate) fn new(builtins: Vec<(String, Builtin)>, patterns: Vec<(String, Pattern)>) -> Self {
        let mut names = Vec::new();
        let mut index = |name: String| {
            names.push(name);
            names.len() - 1
        };
        let builtins: Vec<_> = builtins.into_iter().map(|(name, builtin)| (index(name), builtin)).collect();
        let patterns: Vec<_> = patterns.into_iter().map(|(name, pattern)| (index(name), pattern)).collect();
        let mut starts = [0; 256];
        for (bit, (_, builtin)) in builtins.iter().enumerate() {
            for byte in u8::MIN..=u8::MAX {
                starts[usize::from(byte)] |= u16::from(builtin.begins(byte)) << bit;
            }
        }
        Self { names, builtins, patterns, starts }
    }

    /// The detectors' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Goes on in `text`, of which `progress` says how far it was looked at, and pushes what is found. Returns the position
    /// before which nothing more will be found.
    pub(crate) fn advance(&self, progress: &mut Progress, text: &[u8], end: bool, spans: &mut Vec<Span>) -> usize {
        progress.builtins.resize(self.builtins.len(), (0, None));
        progress.patterns.resize(self.patterns.len(), 0);
        for ((detector, _), (from, tail)) in self.builtins.iter().zip(&mut progress.builtins) {
            follow(*detector, text, from, tail, spans);
        }
        progress.cursor = self.advance_builtins(progress.cursor, &mut progress.builtins, text, end, spans);
        for ((detector, pattern), from) in self.patterns.iter().zip(&mut progress.patterns) {
            let mut found = |range: Range<usize>| spans.push(Span { range, detector: *detector, tail: false });
            *from = pattern.advance(text, *from, end, &mut found);
        }
        progress.clear()
    }

    fn advance_builtins(
        &self,
        cursor: usize,
        progress: &mut [(usize, Option<Tail>)],
        text: &[u8],
        end: bool,
        spans: &mut Vec<Span>,
    ) -> usize {
        for (at, byte) in text.iter().enumerate().skip(cursor) {
            let mut candidates = self.starts[usize::from(*byte)];
            while candidates != 0 {
                let bit = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let (detector, builtin) = self.builtins[bit];
                let (from, open) = &mut progress[bit];
                if *from > at {
                    continue;
                }
                match builtin.at(text, at, end) {
                    At::Nothing => {}
                    At::Incomplete => return at,
                    At::Found { span, tail } => {
                        *from = span.end;
                        spans.push(Span { range: span, detector, tail: false });
                        *open = tail;
                        follow(detector, text, from, open, spans);
                    }
                }
            }
        }
        text.len()
    }
}

/// Takes what belongs to the tail that is open, if one is.
fn follow(detector: usize, text: &[u8], from: &mut usize, tail: &mut Option<Tail>, spans: &mut Vec<Span>) {
    let Some(open) = tail else { return };
    let (length, ended) = open.swallow(&text[*from..]);
    if length > 0 {
        spans.push(Span { range: *from..*from + length, detector, tail: true });
    }
    *from += length;
    if ended {
        *tail = None;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::setting::Setting;

    pub(crate) fn detectors(setting: serde_json::Value) -> Detectors {
        serde_json::from_value::<Setting>(setting).unwrap().check("/detectors").unwrap()
    }

    /// What the detector finds in the text, tails joined to their heads.
    pub(crate) fn found<'a>(detector: &str, text: &'a str) -> Vec<&'a str> {
        let detectors = detectors(serde_json::json!([detector]));
        let mut spans = Vec::new();
        detectors.advance(&mut Progress::default(), text.as_bytes(), true, &mut spans);
        let mut found: Vec<Range<usize>> = Vec::new();
        for span in spans {
            match found.last_mut() {
                Some(last) if span.tail => last.end = span.range.end,
                _ => found.push(span.range),
            }
        }
        found.into_iter().map(|range| &text[range]).collect()
    }
}
