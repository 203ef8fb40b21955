//! The decision: may this caller make this request?

use crate::{Denial, Identity, Permit, Snapshot, target::Request};

impl Snapshot {
    /// Decides. Any matching deny rule wins, else any matching allow rule, else the mode; report rules are listed and
    /// change nothing. Of several matching rules of one action the first by name is named.
    pub fn decide(&self, _identity: &Identity, _request: &Request<'_>) -> Result<Permit, Box<Denial>> {
        unimplemented!()
    }
}
