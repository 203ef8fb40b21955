//! What concerns the message at hand.

use super::WORLD;
use crate::{BodyError, HeaderError, Headers, attributes::Value, audit::Event, message::LineError};
use http::{HeaderMap, HeaderValue, Method, uri::PathAndQuery};
use std::cell::RefCell;

/// What the gateway holds of a body for one filter, unless its settings say otherwise.
pub(crate) const BODY_BYTES: usize = 1 << 20;

/// A header map of the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawHeaders<'a>(pub(crate) &'a RefCell<HeaderMap>);

/// A body of the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawBody<'a>(pub(crate) &'a RefCell<Vec<u8>>);

/// One change to headers, in the shape of the contract's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    Set((&'a str, &'a [u8])),
    Append((&'a str, &'a [u8])),
    Remove(&'a str),
}

impl RawHeaders<'_> {
    pub(crate) fn get(self, name: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(name).map(|value| value.as_bytes().to_vec())
    }

    pub(crate) fn get_all(self, name: &str) -> Vec<Vec<u8>> {
        self.0.borrow().get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    pub(crate) fn get_many(self, names: &[&str]) -> Vec<Option<Vec<u8>>> {
        names.iter().map(|name| self.get(name)).collect()
    }

    pub(crate) fn entries(self) -> Vec<(String, Vec<u8>)> {
        self.0.borrow().iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }

    /// As the gateway does it: all or nothing, and the same headers are out of reach.
    pub(crate) fn apply(self, changes: &[Change<'_>]) -> Result<(), HeaderError> {
        let mut changed = self.0.borrow().clone();
        for change in changes {
            match *change {
                Change::Set((name, value)) => {
                    changed.insert(Headers::writable(name)?, valid(value)?);
                }
                Change::Append((name, value)) => {
                    changed.append(Headers::writable(name)?, valid(value)?);
                }
                Change::Remove(name) => {
                    changed.remove(Headers::writable(name)?);
                }
            }
        }
        self.0.replace(changed);
        Ok(())
    }

    pub(crate) fn set(self, name: &str, value: &[u8]) -> Result<(), HeaderError> {
        self.apply(&[Change::Set((name, value))])
    }
}

pub(crate) fn valid(value: &[u8]) -> Result<HeaderValue, HeaderError> {
    HeaderValue::from_bytes(value).map_err(|_| HeaderError::Invalid)
}

impl RawBody<'_> {
    pub(crate) fn len(self) -> u64 {
        self.0.borrow().len() as u64
    }

    pub(crate) fn read(self, offset: u64, len: u32) -> Vec<u8> {
        let bytes = self.0.borrow();
        let start = index(offset, bytes.len());
        let end = index(offset.saturating_add(u64::from(len)), bytes.len());
        bytes[start..end].to_vec()
    }

    pub(crate) fn take(self) -> Vec<u8> {
        self.0.take()
    }

    pub(crate) fn splice(self, offset: u64, len: u64, data: &[u8]) -> Result<(), BodyError> {
        let mut bytes = self.0.borrow_mut();
        if offset > bytes.len() as u64 {
            return Err(BodyError::OutOfRange);
        }
        let range = index(offset, bytes.len())..index(offset.saturating_add(len), bytes.len());
        // What came larger than that may stay so.
        if bytes.len() - range.len() + data.len() > BODY_BYTES.max(bytes.len()) {
            return Err(BodyError::TooLarge);
        }
        bytes.splice(range, data.iter().copied());
        Ok(())
    }
}

fn index(offset: u64, len: usize) -> usize {
    usize::try_from(offset).map_or(len, |offset| offset.min(len))
}

pub(crate) fn rewrite(method: &str, path: &str) -> Result<(), LineError> {
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
    let path = Some(path).filter(|path| path.starts_with('/')).and_then(|path| path.parse::<PathAndQuery>().ok());
    WORLD.with_borrow_mut(|world| match method.zip(path) {
        _ if !world.here.request_line => Err(LineError::TooLate),
        None => Err(LineError::Invalid),
        Some((_, path)) if !world.gateway.grants.borrow().path(path.path()) => Err(LineError::NotPermitted),
        Some((method, path)) => {
            world.rewritten = Some((method.to_string(), path.to_string()));
            Ok(())
        }
    })
}

pub(crate) fn set_status(status: u16) -> Result<(), LineError> {
    WORLD.with_borrow_mut(|world| match () {
        () if !world.here.response_line => Err(LineError::TooLate),
        () if !(200..600).contains(&status) => Err(LineError::Invalid),
        () => {
            world.status = Some(status);
            Ok(())
        }
    })
}

pub(crate) fn attribute(name: &str) -> Option<Value> {
    WORLD.with_borrow(|world| world.attributes.get(name).cloned())
}

pub(crate) fn set_attribute(name: &str, value: &Value) -> bool {
    let named = name.strip_prefix("state.").is_some_and(|name| !name.is_empty());
    if named {
        WORLD.with_borrow_mut(|world| world.attributes.insert(name.to_owned(), value.clone()));
    }
    named
}

pub(crate) fn emit(event: &Event<'_>) -> bool {
    let given = |name: &str| event.fields.iter().any(|(field, _)| field == name);
    let known = event.known.iter().filter(|(field, _)| !given(field));
    let known = known.filter_map(|(field, name)| Some(((*field).to_owned(), attribute(name)?)));
    let fields = event.fields.iter().map(|(field, value)| (field.clone().into_owned(), value.clone()));
    let emitted = (event.kind.to_owned(), event.outcome, known.chain(fields).collect());
    WORLD.with_borrow_mut(|world| world.events.push(emitted));
    true
}
