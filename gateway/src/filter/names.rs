//! Names of fields that a filter has used of late, and what it writes to those that it always gives the same value. It uses the
//! same few in every exchange, and to read one anew takes longer than to find it here.

use super::headers::{self, Refusal};
use foldhash::fast::FixedState;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _},
};

/// How many are kept. Each may be at two places, so that a handful rarely drive each other out.
const PLACES: usize = 32;
/// Longer ones are not worth their memory, and no more are longer values.
const LONGEST: usize = 64;

/// The names of one instance or VM.
#[derive(Default)]
pub(super) struct Names([Option<Kept>; PLACES]);

struct Kept {
    name: HeaderName,
    /// Whether a filter may write it, and may see it.
    writable: Result<(), Refusal>,
    visible: bool,
    constant: Constant,
}

/// What a filter writes to a field, where that is always the same.
enum Constant {
    Unknown,
    Is(HeaderValue),
    /// To keep the last value would only cost.
    Varies,
}

impl Names {
    /// The name that is written so, for a field that a filter writes.
    pub(super) fn writable(&mut self, written: &[u8]) -> Result<HeaderName, Refusal> {
        match self.find(written) {
            Some(kept) => kept.writable.map(|()| kept.name.clone()),
            None => headers::writable(written),
        }
    }

    /// A field as a filter writes it.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
        let Some(kept) = self.find(name) else { return Ok((headers::writable(name)?, headers::value(value)?)) };
        kept.writable?;
        let value = match &kept.constant {
            Constant::Is(constant) if constant.as_bytes() == value => constant.clone(),
            Constant::Unknown if value.len() <= LONGEST => {
                let value = headers::value(value)?;
                kept.constant = Constant::Is(value.clone());
                value
            }
            Constant::Unknown | Constant::Is(_) => {
                kept.constant = Constant::Varies;
                headers::value(value)?
            }
            Constant::Varies => headers::value(value)?,
        };
        Ok((kept.name.clone(), value))
    }

    /// The first value of the field whose name is written so, if there is one that a filter may see.
    pub(super) fn get<'a>(&mut self, fields: &'a HeaderMap, written: &[u8]) -> Option<&'a HeaderValue> {
        match self.find(written) {
            Some(kept) => fields.get(&kept.name).filter(|_| kept.visible),
            None => headers::get(fields, written),
        }
    }

    /// The name, where it is one that can be kept: in lower case, as filters write names that they know.
    fn find(&mut self, written: &[u8]) -> Option<&mut Kept> {
        let places = places(written)?;
        let is_it = |place: &&usize| self.0[**place].as_ref().is_some_and(|kept| kept.name.as_str().as_bytes() == written);
        let place = match places.iter().find(is_it) {
            Some(place) => *place,
            None => self.keep(written, places)?,
        };
        self.0[place].as_mut()
    }

    /// Keeps the name at one of these places.
    fn keep(&mut self, written: &[u8], places: [usize; 2]) -> Option<usize> {
        let name = HeaderName::from_bytes(written).ok().filter(|name| name.as_str().as_bytes() == written)?;
        let place = places.into_iter().find(|place| self.0[*place].is_none()).unwrap_or(places[0]);
        let (writable, visible) = (headers::may_write(&name), headers::visible(&name));
        self.0[place] = Some(Kept { name, writable, visible, constant: Constant::Unknown });
        Some(place)
    }
}

impl fmt::Debug for Names {
    /// Without what is written, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flatten().map(|kept| &kept.name)).finish()
    }
}

/// Where a name would be.
fn places(written: &[u8]) -> Option<[usize; 2]> {
    if written.len() > LONGEST {
        return None;
    }
    // Who wants two names at one place may have them there: it is their filter that is slower for it.
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(written);
    let [first, .., last] = hasher.finish().to_le_bytes();
    Some([usize::from(first) % PLACES, usize::from(last) % PLACES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_are_without_it() {
        let mut names = Names::default();
        let fields: HeaderMap =
            [("x-a", "1"), ("proxy-authorization", "secret"), ("content-type", "text/plain"), ("host", "api.example")]
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
        let long = "x".repeat(LONGEST + 1);
        let written: Vec<&[u8]> = [
            "x-a",
            "X-A",
            "x-b",
            "proxy-authorization",
            "Proxy-Authorization",
            "content-type",
            "host",
            ":path",
            "",
            "a b",
            &long,
        ]
        .map(str::as_bytes)
        .into_iter()
        .chain([&b"x-\xff"[..], b"\xff"])
        .collect();
        // The second time they are found.
        for name in written.iter().chain(&written) {
            assert_eq!(names.writable(name), headers::writable(name), "{name:?}");
            assert_eq!(names.get(&fields, name), headers::get(&fields, name), "{name:?}");
        }
    }

    #[test]
    fn a_value_that_is_always_the_same_is_read_once() {
        let mut names = Names::default();
        let mut write = |value: &[u8]| {
            let written = names.field(b"x-a", value);
            let kept =
                names.find(b"x-a").is_some_and(|kept| matches!(&kept.constant, Constant::Is(constant) if constant == value));
            (written, kept)
        };
        let field = |value: &'static str| Ok((HeaderName::from_static("x-a"), HeaderValue::from_static(value)));
        assert_eq!(write(b"one"), (field("one"), true));
        assert_eq!(write(b"one"), (field("one"), true));
        assert_eq!(write(b"two"), (field("two"), false), "another one is not the one before");
        assert_eq!(write(b"one"), (field("one"), false), "nor is any kept from there on");
        assert_eq!(write(b"a\r\nb"), (Err(Refusal::Invalid), false));
        assert_eq!(names.field(b"x-b", b"a\nb"), Err(Refusal::Invalid));
        assert_eq!(names.field(b"x-b", b"ab").unwrap().1, "ab", "what was refused is no value of it");
        assert_eq!(names.field(b"host", b"api.example"), Err(Refusal::Immutable));
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(names.field(b"x-c", long.as_bytes()).unwrap().1, long);
        assert_eq!(names.field(b"X-C", b"1").unwrap().0, "x-c");
        assert!(!format!("{names:?}").contains("ab"), "what is written may be a secret");
    }

    #[test]
    fn one_gives_way_to_another() {
        let (mut names, mut fields) = (Names::default(), HeaderMap::new());
        let all: Vec<String> = (0..40).map(|number| format!("x-{number}")).collect();
        for (name, number) in all.iter().zip(0_u32..) {
            fields.insert(headers::writable(name.as_bytes()).unwrap(), number.into());
        }
        for (name, number) in all.iter().zip(0_u32..).chain(all.iter().zip(0..)) {
            assert_eq!(names.writable(name.as_bytes()).unwrap().as_str(), name);
            assert_eq!(names.get(&fields, name.as_bytes()), Some(&HeaderValue::from(number)));
        }
    }
}
