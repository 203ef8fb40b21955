//! Names of fields that a filter has used of late. It uses the same few in every exchange, and to read one anew takes longer
//! than to find it here.

use super::headers::{self, Refusal};
use foldhash::fast::FixedState;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::hash::{BuildHasher as _, Hasher as _};

/// How many are kept. Each may be at two places, so that a handful rarely drive each other out.
const PLACES: usize = 32;
/// Longer ones are not worth their memory.
const LONGEST: usize = 64;

/// The names of one instance or VM.
#[derive(Debug, Default)]
pub(super) struct Names([Option<Kept>; PLACES]);

#[derive(Debug)]
struct Kept {
    name: HeaderName,
    /// Whether a filter may write it, and may see it.
    writable: Result<(), Refusal>,
    visible: bool,
}

impl Names {
    /// The name that is written so, for a field that a filter writes.
    pub(super) fn writable(&mut self, written: &[u8]) -> Result<HeaderName, Refusal> {
        match self.find(written) {
            Some(kept) => kept.writable.map(|()| kept.name.clone()),
            None => headers::writable(written),
        }
    }

    /// The first value of the field whose name is written so, if there is one that a filter may see.
    pub(super) fn get<'a>(&mut self, fields: &'a HeaderMap, written: &[u8]) -> Option<&'a HeaderValue> {
        match self.find(written) {
            Some(kept) => fields.get(&kept.name).filter(|_| kept.visible),
            None => headers::get(fields, written),
        }
    }

    /// The name, where it is one that can be kept: in lower case, as filters write names that they know.
    fn find(&mut self, written: &[u8]) -> Option<&Kept> {
        let places = places(written)?;
        let is_it = |place: &&usize| self.0[**place].as_ref().is_some_and(|kept| kept.name.as_str().as_bytes() == written);
        let place = match places.iter().find(is_it) {
            Some(place) => *place,
            None => self.keep(written, places)?,
        };
        self.0[place].as_ref()
    }

    /// Keeps the name at one of these places.
    fn keep(&mut self, written: &[u8], places: [usize; 2]) -> Option<usize> {
        let name = HeaderName::from_bytes(written).ok().filter(|name| name.as_str().as_bytes() == written)?;
        let place = places.into_iter().find(|place| self.0[*place].is_none()).unwrap_or(places[0]);
        let (writable, visible) = (headers::may_write(&name), headers::visible(&name));
        self.0[place] = Some(Kept { name, writable, visible });
        Some(place)
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
