//! Another service that filters chose for a request: decided as if the caller had named it, before anything is dialled.

use super::{exchange::sentence, target};
use crate::{fault::Fault, live::Live, record::OpenRecord, upstream::Wish};
use ::http::{header, request::Parts};
use tidegate_policy::{Identity, Permit, Request};

/// The permit for the service that filters chose, where they chose one. The decision is about `head` as it is to leave, so
/// this comes after whatever rewrites it; `Host` follows the service. The record names what was decided last.
pub fn decide(
    live: &Live,
    identity: &Identity,
    permit: &Permit,
    wish: Option<&Wish>,
    head: &mut Parts,
    record: &mut OpenRecord,
) -> Result<Option<Permit>, Fault> {
    let Some(service) = wish.and_then(Wish::service) else { return Ok(None) };
    let request = Request {
        target: permit.target(),
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        time: std::time::SystemTime::now(),
    };
    match live.snapshot.decide_again(permit, identity, &request, service.as_str()) {
        Ok(permit) => {
            record.permitted(&permit);
            head.headers.insert(header::HOST, target::authority_of(permit.target())?);
            Ok(Some(permit))
        }
        Err(denial) => {
            record.denied(&denial);
            let asked = live.snapshot.detour(permit, service.as_str()).map(|detour| detour.target);
            let detail = sentence(&denial, asked.as_ref().unwrap_or(permit.target()));
            Err(Fault::new(denial.reason, format!("a filter sends the request to {service}: {detail}")))
        }
    }
}
