//! A filter that does nothing but take a table of a million elements, which the gateway refuses it. Rust has no way to grow a
//! table while it runs; an instance asks for what its module says in the same way.

use tidegate_sdk::{ConfigError, Filter};

/// The filter.
#[derive(Debug)]
pub struct Hoarder;

impl Filter for Hoarder {
    type Config = ();
    type State = ();

    fn new((): ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }
}

tidegate_sdk::export!(Hoarder);
