//! JSON pointers (RFC 6901), and which of them lead where. Pure.

use crate::redaction::is_secret_field;
use detection::Kind;
use tidegate_sdk::ConfigError;

/// Most pointers in one direction: each has a bit of its own.
const POINTERS: usize = 32;
/// Longest pointer, in bytes: it is the name of a field.
const POINTER_BYTES: usize = 128;
/// Longest key that one can name, as it may be written: quotes, and each byte as an escape.
pub(crate) const KEY_BYTES: usize = 2 + 6 * POINTER_BYTES;

/// The pointers of one direction, each known by its place among them.
#[derive(Debug)]
pub(crate) struct Pointers(Vec<Pointer>);

/// Some of the pointers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Several(u32);

#[derive(Debug)]
struct Pointer {
    text: String,
    /// The field's name.
    label: String,
    segments: Vec<Segment>,
}

/// One step: into an object by a name, or into an array by an index.
#[derive(Debug)]
struct Segment {
    name: String,
    index: Option<u64>,
    secret: Secret,
}

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    /// It is none.
    Never,
    /// It is one, unless it is a number.
    Text,
    Always,
}

/// What pointers have at a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// They lead to it or into it, and its name says that it is a secret.
    pub(crate) secret: Several,
    /// They lead to it.
    pub(crate) named: Several,
    /// They lead into it.
    pub(crate) within: Several,
}

impl Pointers {
    /// `at` says where in the configuration they stand; `prefix` is what their fields' names begin with.
    pub(crate) fn new(prefix: &str, at: &str, pointers: Vec<String>) -> Result<Self, ConfigError> {
        if pointers.len() > POINTERS {
            return Err(ConfigError::new(at, format!("at most {POINTERS} pointers are followed")));
        }
        for (index, pointer) in pointers.iter().enumerate() {
            check(pointer).map_err(|detail| ConfigError::new(format!("{at}/{index}"), detail))?;
        }
        let pointers = pointers.into_iter().map(|text| Pointer {
            label: format!("{prefix}.body{text}"),
            segments: text.split('/').skip(1).map(Segment::new).collect(),
            text,
        });
        Ok(Self(pointers.collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the field for what this one names.
    pub(crate) fn label(&self, pointer: usize) -> &str {
        self.0.get(pointer).map_or("", |pointer| &pointer.label)
    }

    /// The first of them as it was written, and how many more there are.
    pub(crate) fn list(&self, several: Several) -> String {
        let mut texts = several.places().filter_map(|pointer| self.0.get(pointer)).map(|pointer| pointer.text.as_str());
        let first = texts.next().unwrap_or_default();
        match texts.count() {
            0 => format!("{first:?}"),
            more => format!("{first:?} and {more} more"),
        }
    }

    pub(crate) fn all(&self) -> Several {
        self.those(Several(u32::MAX), |_| true)
    }

    /// Those that go on, behind `depth` segments, with this name.
    pub(crate) fn by_name(&self, from: Several, depth: usize, name: &[u8]) -> Several {
        self.those(from, |pointer| pointer.segments.get(depth).is_some_and(|segment| segment.name.as_bytes() == name))
    }

    /// Those that go on, behind `depth` segments, with this index.
    pub(crate) fn by_index(&self, from: Several, depth: usize, index: u64) -> Several {
        self.those(from, |pointer| pointer.segments.get(depth).is_some_and(|segment| segment.index == Some(index)))
    }

    /// What those that lead as far as to a value of this kind, `depth` segments down, have there.
    pub(crate) fn here(&self, there: Several, depth: usize, kind: Kind) -> Here {
        let name = |pointer: &Pointer| depth.checked_sub(1).and_then(|last| Some(pointer.segments.get(last)?.secret));
        let secret = self.those(there, |pointer| name(pointer).is_some_and(|secret| secret.hides(kind)));
        let rest = there.without(secret);
        let named = self.those(rest, |pointer| pointer.segments.len() == depth);
        Here { secret, named, within: rest.without(named) }
    }

    fn those(&self, from: Several, fit: impl Fn(&Pointer) -> bool) -> Several {
        let bit = |(index, pointer): (usize, &Pointer)| u32::from(fit(pointer)) << index;
        let chosen = self.0.iter().enumerate().filter(|(index, _)| from.0 >> index & 1 == 1);
        Several(chosen.map(bit).fold(0, |several, bit| several | bit))
    }
}

impl Several {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, pointer: usize) -> bool {
        self.0 >> pointer & 1 == 1
    }

    /// Their places.
    pub(crate) fn places(self) -> impl Iterator<Item = usize> {
        (0..POINTERS).filter(move |pointer| self.has(*pointer))
    }

    pub(crate) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

impl Segment {
    fn new(written: &str) -> Self {
        let name = written.replace("~1", "/").replace("~0", "~");
        let index = name.parse().ok().filter(|index: &u64| index.to_string() == name);
        let secret = match (is_secret_field(&name, Kind::Number), is_secret_field(&name, Kind::Text)) {
            (true, _) => Secret::Always,
            (false, true) => Secret::Text,
            (false, false) => Secret::Never,
        };
        Self { name, index, secret }
    }
}

impl Secret {
    fn hides(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Never, _) | (_, Kind::Word) | (Self::Text, Kind::Number) => false,
            (Self::Always | Self::Text, _) => true,
        }
    }
}

fn check(pointer: &str) -> Result<(), String> {
    let unescaped = pointer.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
    match pointer {
        _ if pointer.len() > POINTER_BYTES => Err(format!("a pointer has at most {POINTER_BYTES} bytes")),
        _ if !pointer.is_empty() && !pointer.starts_with('/') => {
            Err(format!("{pointer:?} is not a JSON pointer (RFC 6901): it begins with '/', or is empty for the whole body"))
        }
        _ if unescaped => Err(format!("{pointer:?} is not a JSON pointer (RFC 6901): '~' is written ~0, '/' inside a name ~1")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(texts: &[&str]) -> Result<Pointers, ConfigError> {
        Pointers::new("request", "/request_pointers", texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn segments_are_names_and_indexes() {
        let pointers = pointers(&["/a/0", "/a/00", "/~01", "/a", ""]).unwrap();
        let down = |name: &str| pointers.by_name(pointers.all(), 0, name.as_bytes());
        assert_eq!(down("a").places().collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(down("~1").places().collect::<Vec<_>>(), [2]);
        assert_eq!(pointers.by_index(down("a"), 1, 0).places().collect::<Vec<_>>(), [0], "no index begins with a zero");
        let here = pointers.here(down("a"), 1, Kind::Array);
        assert_eq!((here.named, here.within), (Several(0b1000), Several(0b11)));
        assert_eq!(pointers.here(pointers.all(), 0, Kind::Array).named, Several(0b10000));
        assert_eq!(pointers.list(down("a")), "\"/a/0\" and 2 more");
        assert_eq!(pointers.label(3), "request.body/a");
    }

    #[test]
    fn names_of_secrets_hide_what_is_behind_them() {
        let pointers = pointers(&["/token/a", "/token", "/pin"]).unwrap();
        let secret = |name: &str, kind| pointers.here(pointers.by_name(pointers.all(), 0, name.as_bytes()), 1, kind).secret;
        assert_eq!(secret("token", Kind::Object), Several(0b11));
        assert_eq!(secret("token", Kind::Number), Several(0));
        assert_eq!(secret("pin", Kind::Number), Several(0b100));
        assert_eq!(secret("pin", Kind::Word), Several(0));
    }

    #[test]
    fn pointers_that_are_none_are_pointed_at() {
        for wrong in ["a", "/a~", "/~2", "a/b"] {
            assert_eq!(pointers(&["", wrong]).unwrap_err().pointer(), "/request_pointers/1", "{wrong}");
        }
        assert!(pointers(&["/a~0b~1"]).is_ok());
        assert_eq!(pointers(&[""; 33]).unwrap_err().pointer(), "/request_pointers");
    }
}
