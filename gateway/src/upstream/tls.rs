//! TLS origination: client configurations made once per publication.

/// A client configuration for every way in which the registered services are originated to.
#[derive(Debug, Default)]
pub struct Origination {}
