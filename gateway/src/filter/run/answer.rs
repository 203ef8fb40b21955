//! A filter's own answer to a request, on its way back to the caller. Filters written for other hosts of Proxy-Wasm expect to see
//! those, whoever gave them, as they see any response; to typed filters an answer is final.

use super::{Fate, Run, Steps};
use crate::{
    fault::Fault,
    http::{
        Response,
        body::Body,
        reply::{refused, refuses},
    },
};
use ::http::{HeaderValue, header};
use http_body::Body as _;
use std::time::Instant;

impl Run {
    /// Shows an answer that a filter gave in the upstream's place to the Proxy-Wasm filters that have seen the request, in
    /// reverse order; what is to go to the caller. What one of them answers in its place is seen by nobody else. A refusal stays
    /// one, whatever they make of its status: the request has gone nowhere.
    pub async fn answer(&self, mut answer: Response) -> Result<Response, Fault> {
        let steps = &self.0;
        steps.answered.set(true);
        if !(0..steps.len()).any(|index| steps.takes_part(index)) {
            return Ok(answer);
        }
        let is_refusal = refuses(&answer);
        if let Some(length) = answer.body().size_hint().exact().filter(|length| *length > 0) {
            answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if steps.known.asked_for_head() {
            *answer.body_mut() = Body::empty();
        }
        let other = self.response(&mut answer, Instant::now()).await?;
        let answer = other.map_or(answer, |other| *other);
        Ok(if is_refusal { refused(answer) } else { answer })
    }
}

impl Steps {
    /// Whether the filter at this place is shown anything more. Of an answer those see something that know the exchange, and only
    /// in VMs.
    pub(in crate::filter) fn takes_part(&self, index: usize) -> bool {
        let step = &self.each[index];
        match (step.fate.get(), self.answered.get()) {
            (Fate::Waiting | Fate::Continued, false) => true,
            (Fate::Continued | Fate::Replied, true) => step.seat.as_ref().is_some_and(|seat| seat.vm().is_some()),
            _ => false,
        }
    }
}
