//! Another service that filters chose for a request: decided as if the caller had named it, before anything is dialled.

use super::{exchange::sentence, target};
use crate::{fault::Fault, live::Live, record::OpenRecord, upstream::Wish};
use ::http::{Request, header};
use std::sync::Arc;
use tidegate_policy::{Identity, Permit};

/// The permit for the service that filters chose, where they chose one. The decision is about `request` as it is to leave, so
/// this comes after whatever rewrites it; `Host` follows the service. The record names what was decided last.
pub fn decide<B>(
    live: &Live,
    identity: &Identity,
    permit: &Permit,
    wish: Option<&Wish>,
    request: &mut Request<B>,
    record: &mut OpenRecord,
) -> Result<Option<Arc<Permit>>, Fault> {
    let Some(service) = wish.and_then(Wish::service) else { return Ok(None) };
    let asked = tidegate_policy::Request {
        target: permit.target(),
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        time: std::time::SystemTime::now(),
    };
    match live.snapshot.decide_again(permit, identity, &asked, service.as_str()) {
        Ok(permit) => {
            let permit = Arc::new(permit);
            record.permitted(&permit);
            request.headers_mut().insert(header::HOST, target::authority_of(permit.target())?);
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
