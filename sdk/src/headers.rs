//! Headers of the message at hand, read and changed in place.

use crate::host::{Change, RawHeaders};
use http::HeaderName;
use std::fmt;

/// What filters never write, as the gateway has it.
const IMMUTABLE: &[&str] = &include!("../wit/immutable-headers.rs");

/// A head's headers, or trailers: a view of what the gateway holds, so reading copies only what is asked for. Names are
/// case-insensitive, as HTTP's are.
#[derive(Debug)]
pub struct Headers<'a> {
    raw: RawHeaders<'a>,
}

/// Why a change to headers was refused. Nothing of a refused batch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Not a header name, or a value with a control character in it.
    Invalid,
    /// The authority, framing, hop-by-hop or the gateway's own credentials, which filters never write.
    Immutable,
    /// The header section would become larger than the gateway's limit.
    TooLarge,
    /// The header section would get more fields than the gateway's limit.
    TooMany,
}

/// Changes that are applied together or not at all, in one call to the host.
#[derive(Debug)]
#[must_use = "nothing is changed before `apply`"]
pub struct Changes<'a> {
    raw: RawHeaders<'a>,
    changes: Vec<Change<'a>>,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(raw: RawHeaders<'a>) -> Self {
        Self { raw }
    }

    /// The field name, where a filter may write it: for configurations that name a header, so that a mistake is told when the
    /// route is written.
    ///
    /// ```
    /// # use tidegate_sdk::{HeaderError, Headers};
    /// assert_eq!(Headers::writable("X-Api-Key").unwrap(), "x-api-key");
    /// assert_eq!(Headers::writable("Host"), Err(HeaderError::Immutable));
    /// assert_eq!(Headers::writable("x api key"), Err(HeaderError::Invalid));
    /// ```
    pub fn writable(name: impl AsRef<str>) -> Result<HeaderName, HeaderError> {
        let name = name.as_ref();
        if name.starts_with(':') {
            return Err(HeaderError::Immutable);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::Invalid)?;
        let immutable = IMMUTABLE.contains(&name.as_str()) || name == http::header::PROXY_AUTHORIZATION;
        if immutable { Err(HeaderError::Immutable) } else { Ok(name) }
    }

    /// The first value of `name`.
    pub fn get(&self, name: impl AsRef<str>) -> Option<Vec<u8>> {
        self.raw.get(name.as_ref())
    }

    /// The first value of `name`, where it is UTF-8.
    pub fn text(&self, name: impl AsRef<str>) -> Option<String> {
        self.get(name).and_then(|value| String::from_utf8(value).ok())
    }

    /// Every value of `name`, in order.
    pub fn get_all(&self, name: impl AsRef<str>) -> Vec<Vec<u8>> {
        self.raw.get_all(name.as_ref())
    }

    /// The first value of each name, in one call to the host.
    pub fn get_many(&self, names: &[impl AsRef<str>]) -> Vec<Option<Vec<u8>>> {
        /// So many names need no list on the heap.
        const FEW: usize = 16;
        match names {
            [] => Vec::new(),
            few if few.len() <= FEW => {
                let mut texts = [""; FEW];
                texts.iter_mut().zip(few).for_each(|(text, name)| *text = name.as_ref());
                self.raw.get_many(&texts[..few.len()])
            }
            many => self.raw.get_many(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
        }
    }

    /// Whether there is a field of this name.
    pub fn contains(&self, name: impl AsRef<str>) -> bool {
        self.get(name).is_some()
    }

    /// Every field, names in lower case.
    pub fn entries(&self) -> Vec<(String, Vec<u8>)> {
        self.raw.entries()
    }

    /// Replaces every field of this name by one.
    pub fn insert(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Result<(), HeaderError> {
        self.raw.set(name.as_ref(), value.as_ref())
    }

    /// Adds a field behind those of this name.
    pub fn append(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Result<(), HeaderError> {
        self.raw.apply(&[Change::Append((name.as_ref(), value.as_ref()))])
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, name: impl AsRef<str>) -> Result<(), HeaderError> {
        self.raw.apply(&[Change::Remove(name.as_ref())])
    }

    /// Begins a batch of changes.
    pub fn change(&mut self) -> Changes<'_> {
        Changes { raw: self.raw, changes: Vec::new() }
    }
}

impl<'a> Changes<'a> {
    /// Replaces every field of this name by one.
    pub fn insert(mut self, name: &'a (impl AsRef<str> + ?Sized), value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.changes.push(Change::Set((name.as_ref(), value.as_ref())));
        self
    }

    /// Adds a field behind those of this name.
    pub fn append(mut self, name: &'a (impl AsRef<str> + ?Sized), value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.changes.push(Change::Append((name.as_ref(), value.as_ref())));
        self
    }

    /// Removes every field of this name.
    pub fn remove(mut self, name: &'a (impl AsRef<str> + ?Sized)) -> Self {
        self.changes.push(Change::Remove(name.as_ref()));
        self
    }

    /// Applies all of them, in order, or none.
    pub fn apply(self) -> Result<(), HeaderError> {
        if self.changes.is_empty() { Ok(()) } else { self.raw.apply(&self.changes) }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "a header name or value is not valid",
            Self::Immutable => "a header that filters may not write",
            Self::TooLarge => "the header section would be larger than a filter may make it (setting filter_header_bytes)",
            Self::TooMany => {
                "the header section would have more fields than a filter may make it have (setting filter_header_count)"
            }
        })
    }
}

impl std::error::Error for HeaderError {}
