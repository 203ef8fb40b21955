//! What a selector asks about an exchange, fetched only when it asks.

use tidegate_sdk::{Headers, attributes};

/// An exchange, as far as selectors ask.
pub trait Facts {
    /// What the gateway knows by this name.
    fn attribute(&self, name: &str) -> Option<String>;
    /// Every value of the request's header.
    fn header(&self, name: &str) -> Vec<Vec<u8>>;
}

/// The exchange whose request is at hand.
#[derive(Debug)]
pub struct Seen<'a, 'b>(pub &'a Headers<'b>);

impl Facts for Seen<'_, '_> {
    fn attribute(&self, name: &str) -> Option<String> {
        attributes::text(name)
    }

    fn header(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.get_all(name)
    }
}
