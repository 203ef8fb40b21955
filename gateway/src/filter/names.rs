//! Names of fields that a filter has used of late. It uses the same few in every exchange, and to read one anew takes longer
//! than to find it here.

use super::headers::{self, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue};

/// How many are kept.
const PLACES: usize = 16;
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
    pub(super) fn writable(&mut self, written: &str) -> Result<HeaderName, Refusal> {
        match self.find(written) {
            Some(kept) => kept.writable.map(|()| kept.name.clone()),
            None => headers::writable(written),
        }
    }

    /// The first value of the field whose name is written so, if there is one that a filter may see.
    pub(super) fn get<'a>(&mut self, fields: &'a HeaderMap, written: &str) -> Option<&'a HeaderValue> {
        match self.find(written) {
            Some(kept) => fields.get(&kept.name).filter(|_| kept.visible),
            None => headers::get(fields, written),
        }
    }

    /// The name, where it is one that can be kept: in lower case, as filters write names that they know.
    fn find(&mut self, written: &str) -> Option<&Kept> {
        let place = &mut self.0[place(written.as_bytes())?];
        if place.as_ref().is_none_or(|kept| kept.name.as_str() != written) {
            let name = HeaderName::from_bytes(written.as_bytes()).ok().filter(|name| name.as_str() == written)?;
            let (writable, visible) = (headers::may_write(&name), headers::visible(&name));
            *place = Some(Kept { name, writable, visible });
        }
        place.as_ref()
    }
}

/// Where a name would be.
fn place(written: &[u8]) -> Option<usize> {
    let (first, last) = (written.first()?, written.last()?);
    let middle = written[written.len() / 2];
    let mixed = written.len() ^ usize::from(*first) ^ usize::from(*last) << 1 ^ usize::from(middle) << 2;
    (written.len() <= LONGEST).then_some(mixed % PLACES)
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
        let written = [
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
        ];
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
            fields.insert(headers::writable(name).unwrap(), number.into());
        }
        for (name, number) in all.iter().zip(0_u32..).chain(all.iter().zip(0..)) {
            assert_eq!(names.writable(name).unwrap().as_str(), name);
            assert_eq!(names.get(&fields, name), Some(&HeaderValue::from(number)));
        }
    }
}
