//! Calls into the test driver: a small host on the test's own thread.

use crate::{
    HeaderError,
    attributes::Value,
    audit::{Event, Outcome},
    headers::Change,
    log::Level,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

thread_local! {
    pub(crate) static WORLD: RefCell<World> = RefCell::default();
}

/// An event as it was emitted: kind, outcome, fields.
pub(crate) type Emitted = (String, Outcome, Vec<(String, Value)>);

/// What the calls read and leave behind.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) events: Vec<Emitted>,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) now_ns: u64,
    pub(crate) random: u8,
}

/// A header map of the driver.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawHeaders(pub(crate) Rc<RefCell<HeaderMap>>);

impl RawHeaders {
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(name).map(|value| value.as_bytes().to_vec())
    }

    pub(crate) fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.borrow().get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    pub(crate) fn get_many(&self, names: &[String]) -> Vec<Option<Vec<u8>>> {
        names.iter().map(|name| self.get(name)).collect()
    }

    pub(crate) fn entries(&self) -> Vec<(String, Vec<u8>)> {
        self.0.borrow().iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }

    /// As the gateway does it: all or nothing, and the same headers are out of reach.
    pub(crate) fn apply(&self, changes: &[Change<'_>]) -> Result<(), HeaderError> {
        let mut changed = self.0.borrow().clone();
        for change in changes {
            match *change {
                Change::Set(name, value) => {
                    changed.insert(writable(name)?, valid(value)?);
                }
                Change::Append(name, value) => {
                    changed.append(writable(name)?, valid(value)?);
                }
                Change::Remove(name) => {
                    changed.remove(writable(name)?);
                }
            }
        }
        *self.0.borrow_mut() = changed;
        Ok(())
    }
}

fn writable(name: &str) -> Result<HeaderName, HeaderError> {
    const IMMUTABLE: [&str; 14] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    if name.starts_with(':') {
        return Err(HeaderError::Immutable);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::Invalid)?;
    if IMMUTABLE.contains(&name.as_str()) { Err(HeaderError::Immutable) } else { Ok(name) }
}

fn valid(value: &[u8]) -> Result<HeaderValue, HeaderError> {
    HeaderValue::from_bytes(value).map_err(|_| HeaderError::Invalid)
}

pub(crate) fn attribute(name: &str) -> Option<Value> {
    WORLD.with_borrow(|world| world.attributes.get(name).cloned())
}

pub(crate) fn emit(event: &Event<'_>) -> bool {
    let known = event.known.iter().filter_map(|(field, name)| Some(((*field).to_owned(), attribute(name)?)));
    let fields = event.fields.iter().map(|(field, value)| (field.clone().into_owned(), value.clone()));
    let emitted = (event.kind.to_owned(), event.outcome, known.chain(fields).collect());
    WORLD.with_borrow_mut(|world| world.events.push(emitted));
    true
}

pub(crate) fn log_enabled(_level: Level) -> bool {
    true
}

pub(crate) fn log(level: Level, message: &str) {
    WORLD.with_borrow_mut(|world| world.log.push((level, message.to_owned())));
}

pub(crate) fn now_ns() -> u64 {
    WORLD.with_borrow(|world| world.now_ns)
}

pub(crate) fn monotonic_ns() -> u64 {
    now_ns()
}

/// Counts up, so that tests are repeatable.
pub(crate) fn random(count: u32) -> Vec<u8> {
    WORLD.with_borrow_mut(|world| {
        (0..count)
            .map(|_| {
                world.random = world.random.wrapping_add(1);
                world.random
            })
            .collect()
    })
}
