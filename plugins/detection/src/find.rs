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
            Self::AwsKey => byte == b'A',
            Self::Jwt => byte == b'e',
            Self::GithubToken => byte == b'g',
            Self::SlackToken => byte == b'x',
            Self::StripeKey => matches!(byte, b's' | b'r' | b'w'),
            Self::GoogleKey => matches!(byte, b'A' | b'G' | b'y'),
            Self::PrivateKey => byte == b'-',
            Self::BearerToken => matches!(byte, b'b' | b'B'),
        }
    }

    /// From where on something of its kind may begin that does not begin before: a short cut, where one is cheap.
    fn skip(self, text: &[u8], from: usize, end: bool) -> usize {
        if self == Self::Email { email::skip(text, from, end) } else { from }
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

/// What a detector looks for.
#[derive(Debug)]
enum Finder {
    Builtin(Builtin),
    Pattern(Box<Pattern>),
}

impl Finder {
    fn begins(&self, byte: u8) -> bool {
        match self {
            Self::Builtin(builtin) => builtin.begins(byte),
            Self::Pattern(pattern) => pattern.begins(byte),
        }
    }

    fn skip(&self, text: &[u8], from: usize, end: bool) -> usize {
        match self {
            Self::Builtin(builtin) => builtin.skip(text, from, end),
            Self::Pattern(_) => from,
        }
    }

    fn at(&self, text: &[u8], at: usize, end: bool) -> At {
        match self {
            Self::Builtin(builtin) => builtin.at(text, at, end),
            Self::Pattern(pattern) => pattern.at(text, at, end),
        }
    }
}

/// The detectors of one configuration. A detector is known by its index, its place among [`Detectors::names`].
#[derive(Debug)]
pub struct Detectors {
    names: Vec<String>,
    finders: Vec<Finder>,
    /// For each byte, a bit for each of `finders` that something of its kind may begin with it.
    starts: [u32; 256],
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
    /// Where the pass goes on. Before it, nothing more will be found.
    cursor: usize,
    /// For each detector, where the last thing that it found ends, and what still belongs to that.
    detectors: Vec<(usize, Option<Tail>)>,
}

impl Progress {
    /// Another text begins.
    pub(crate) fn restart(&mut self) {
        self.cursor = 0;
        self.detectors.fill((0, None));
    }

    /// The first so many bytes of the text are dropped.
    pub(crate) fn shift(&mut self, by: usize) {
        self.cursor -= by;
        self.detectors.iter_mut().for_each(|(from, _)| *from = from.saturating_sub(by));
    }
}

impl Detectors {
    pub(crate) fn new(builtins: Vec<(String, Builtin)>, patterns: Vec<(String, Pattern)>) -> Self {
        let builtins = builtins.into_iter().map(|(name, builtin)| (name, Finder::Builtin(builtin)));
        let patterns = patterns.into_iter().map(|(name, pattern)| (name, Finder::Pattern(Box::new(pattern))));
        let (names, finders): (Vec<_>, Vec<_>) = builtins.chain(patterns).unzip();
        let mut starts = [0; 256];
        for (bit, finder) in finders.iter().enumerate() {
            for byte in u8::MIN..=u8::MAX {
                starts[usize::from(byte)] |= u32::from(finder.begins(byte)) << bit;
            }
        }
        Self { names, finders, starts }
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
        let Progress { cursor, detectors } = progress;
        detectors.resize(self.finders.len(), (0, None));
        for (detector, (finder, (from, tail))) in self.finders.iter().zip(&mut *detectors).enumerate() {
            follow(detector, text, from, tail, spans);
            *from = finder.skip(text, (*from).max(*cursor), end);
        }
        while let Some(byte) = text.get(*cursor) {
            let mut candidates = self.starts[usize::from(*byte)];
            while candidates != 0 {
                let detector = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let (from, tail) = &mut detectors[detector];
                if *from > *cursor {
                    continue;
                }
                match self.finders[detector].at(text, *cursor, end) {
                    At::Nothing => {}
                    At::Incomplete => return *cursor,
                    At::Found { span, tail: open } => {
                        *from = span.end;
                        *tail = open;
                        spans.push(Span { range: span, detector, tail: false });
                        follow(detector, text, from, tail, spans);
                    }
                }
            }
            *cursor += 1;
        }
        *cursor
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
