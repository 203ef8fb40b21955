//! A filter's failure: what it means for the exchange, and what the record says of the filter. One that had answered the request
//! before is recorded as one that answered, with its failure as the error: what an operator looks for is who refused, and the
//! exchange's own reason says whether the failure came to the caller.

use super::{Fate, Halt, Steps, refused};
use crate::fault::Fault;
use std::sync::Arc;
use tidegate_policy::{Reason, route::OnError};

impl Steps {
    /// Notes that the filter failed; an error where the exchange is lost with it. With `on_error: skip` what was to be shown to it
    /// goes on without it, and so does an answer of its own.
    pub(super) fn failed(&self, index: usize, error: Arc<str>) -> Result<(), Halt> {
        let link = &self.chain.links[index];
        match link.on_error {
            OnError::Deny => {
                self.note_failure(index, error, Fate::Failed);
                Err(Halt::Fault(refused(link)))
            }
            OnError::Skip => {
                self.note_failure(index, error, Fate::Skipped);
                Ok(())
            }
        }
    }

    /// There is no memory for an instance of the filter that serves this exchange.
    pub(super) fn no_memory(&self, index: usize) -> Halt {
        let link = &self.chain.links[index];
        let limit = link.filter.as_ref().map_or(0, |filter| filter.shared.limits.own_memory_bytes);
        let needs = format!(
            "needs more memory for this exchange than is left of the {limit} bytes that such instances have together (setting filter_own_memory_bytes)"
        );
        // It may not even have been called, and has ended the exchange all the same.
        self.note_failure(index, format!("it {needs}").into(), Fate::Failed);
        Halt::Fault(Fault::new(Reason::Overloaded, format!("the filter {} {needs}", link.plugin)))
    }

    /// Something was to be held for the filter, and as much is held for all as may be.
    pub(super) fn no_room(&self, index: usize) -> Halt {
        let link = &self.chain.links[index];
        let limit = link.filter.as_ref().map_or(0, |filter| filter.shared.limits.held_bytes);
        let detail = format!(
            "more was to be held for the filter {} than is left of the {limit} bytes that are held for all exchanges together (setting filter_held_bytes)",
            link.plugin
        );
        Halt::Fault(Fault::new(Reason::Overloaded, detail))
    }

    /// Notes that the filter failed at its last call, with which nothing is lost any more.
    pub(super) fn failed_at_end(&self, index: usize, error: Arc<str>) {
        let fate = if self.each[index].fate.get() == Fate::Skipped { Fate::Skipped } else { Fate::Failed };
        self.note_failure(index, error, fate);
    }

    fn note_failure(&self, index: usize, error: Arc<str>, fate: Fate) {
        let step = &self.each[index];
        let (fate, error) = match step.fate.get() {
            Fate::Replied | Fate::Undone => {
                let answer = step.error.take().map_or_else(String::new, |details| format!("{details}; "));
                (Fate::Undone, format!("{answer}it failed after its answer: {error}").into())
            }
            _ => (fate, error),
        };
        step.fate.set(fate);
        step.error.replace(Some(error));
    }
}
