//! One record per exchange: opened with the request, closed with the response's last byte or by being dropped.

use crate::{fault::Fault, upstream};
use tidegate_policy::{Denial, Identity, Permit, exchange::FilterFacts};

/// The record of an exchange under way. Written exactly once, on drop too.
#[derive(Debug)]
pub struct OpenRecord {}

impl OpenRecord {
    /// Who called.
    pub fn identified(&mut self, _identity: &Identity) {
        unimplemented!()
    }
    /// That it was permitted.
    pub fn permitted(&mut self, _permit: &Permit) {
        unimplemented!()
    }
    /// That it was denied.
    pub fn denied(&mut self, _denial: &Denial) {
        unimplemented!()
    }
    /// Where it went.
    pub fn connected(&mut self, _facts: &upstream::Facts) {
        unimplemented!()
    }
    /// What the filters did.
    pub fn filtered(&mut self, _filters: Vec<FilterFacts<'static>>) {
        unimplemented!()
    }
    /// That the response's head has come.
    pub fn answered(&mut self, _status: ::http::StatusCode) {
        unimplemented!()
    }
    /// What went wrong.
    pub fn failed(&mut self, _fault: &Fault) {
        unimplemented!()
    }
    /// Body bytes that passed.
    pub fn request_bytes(&mut self, _count: u64) {
        unimplemented!()
    }
    /// Body bytes that passed.
    pub fn response_bytes(&mut self, _count: u64) {
        unimplemented!()
    }
}
