//! Getting a permitted request to its service and the response's head back: destinations by weight, attempts, time.

use super::{
    Request, Response,
    downstream::{Downstream, Pace},
    target,
    together::together,
};
use crate::{fault::Fault, filter::Run, live::Live, record::OpenRecord, upstream::Wish, worker::Worker};
use ::http::{StatusCode, header};
use http_body::Body as _;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};
use tidegate_policy::{
    Permit, Reason,
    route::{FaultInjection, Retries, RetryOn},
};

/// Attempts that a request gets for free when pooled connections turn out to have been closed. More than a few in a row
/// mean that something else is wrong.
const STALE_ATTEMPTS: u32 = 3;

/// Longest wait before the second attempt, doubled with each further one, in milliseconds: Envoy's 25.
const BACK_OFF_BASE_MS: u64 = 25;
/// Longest wait before any attempt: Envoy's ten times as much.
const BACK_OFF_LONGEST_MS: u64 = 250;

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of the request has left.
    Connecting,
    /// It was given to a new connection.
    Sent,
    /// It was given to a connection that had carried others.
    SentOnPooled,
}

/// What an exchange's delivery needs.
pub(super) struct Delivery<'a> {
    pub(super) worker: &'a Worker,
    pub(super) live: &'a Live,
    pub(super) permit: &'a Permit,
    /// What filters chose, where they chose anything.
    pub(super) wish: Option<&'a Wish>,
    /// The filters that the exchange goes through, where its route has any.
    pub(super) filters: Option<&'a Run>,
    pub(super) downstream: &'a Downstream,
    pub(super) pace: Pace,
}

impl Delivery<'_> {
    /// Delivers `request` and waits for the response's head, as often as the route allows.
    pub(super) async fn run(&self, request: &mut Request, record: &mut OpenRecord) -> Result<Response, Fault> {
        // Before a connection is taken, so that none is held meanwhile or closes unnoticed.
        together().await;
        let redirected = self.destination(request)?;
        let permit = redirected.as_ref().unwrap_or(self.permit);
        let retries = permit.route().and_then(|route| route.document.retries.as_ref());
        let bodiless = request.body().is_end_stream();
        let repeatable = bodiless && request.method().is_idempotent();
        let limit = retries.and_then(|retries| retries.per_try_timeout).map(|span| span.length());
        let limit = limit.map_or(self.pace.first_byte, |limit| limit.min(self.pace.first_byte));
        let (mut stale, mut made) = (0, 0);
        loop {
            self.downstream.clock.arm(limit);
            let mut stage = Stage::Connecting;
            let parties = (self.downstream, self.filters);
            let outcome = within(parties, None, pin!(self.attempt(permit, request, record, &mut stage))).await;
            let cause = match &outcome {
                Ok(response) => (gateway_error(response.status()) && repeatable).then_some(RetryOn::GatewayError),
                Err(fault) if fault.retryable() && stage == Stage::SentOnPooled && stale < STALE_ATTEMPTS => {
                    stale += 1;
                    self.worker.http.metrics.retries_stale.add(1);
                    continue;
                }
                // A body that was given away does not come back, but for a fault that says so.
                Err(fault) if bodiless || fault.retryable() || stage == Stage::Connecting => cause(fault, repeatable),
                Err(_) => None,
            };
            match (cause, retries) {
                (Some(cause), Some(Retries { attempts, on, .. }))
                    if made < *attempts && on.contains(&cause) && !self.downstream.clock.spent() =>
                {
                    self.back_off(made).await;
                    made += 1;
                    self.worker.http.metrics.retries.add(1);
                }
                _ => return outcome,
            }
        }
    }

    async fn attempt(
        &self,
        permit: &Permit,
        request: &mut Request,
        record: &mut OpenRecord,
        stage: &mut Stage,
    ) -> Result<Response, Fault> {
        let connection = self.worker.upstreams.connect(self.live, permit, request, self.wish).await?;
        let mut carrying;
        let request = match self.wish.filter(|wish| wish.has_secrets()) {
            None => request,
            Some(wish) => {
                carrying = match wish.carry(request, &connection, &self.live.credentials) {
                    Ok(carrying) => carrying,
                    Err(fault) => {
                        connection.release();
                        return Err(fault);
                    }
                };
                carrying.request()
            }
        };
        record.connected(&connection.facts);
        *stage = if connection.facts.reused { Stage::SentOnPooled } else { Stage::Sent };
        connection.send(request).await
    }

    /// Waits a random while before attempt `made + 2`, so that callers do not strike a service in trouble in step.
    async fn back_off(&self, made: u32) {
        let most = (BACK_OFF_BASE_MS << made.min(16)).min(BACK_OFF_LONGEST_MS);
        tokio::time::sleep(Duration::from_millis(self.worker.http.random(most))).await;
    }

    /// The route's destination that this exchange goes to, by weight; none where it has none, and where filters chose what
    /// holds for one service alone. `Host` follows.
    fn destination(&self, request: &mut Request) -> Result<Option<Permit>, Fault> {
        if self.wish.is_some_and(Wish::binds) {
            return Ok(None);
        }
        let destinations = self.permit.route().map_or(&[][..], |route| &route.document.destinations);
        let whole: u64 = destinations.iter().map(|destination| u64::from(destination.weight)).sum();
        if whole == 0 {
            return Ok(None);
        }
        let mut left = self.worker.http.random(whole);
        let chosen = destinations.iter().find(|destination| match left.checked_sub(u64::from(destination.weight)) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
        let permit = chosen.and_then(|chosen| self.live.snapshot.redirect(self.permit, chosen.service.as_str()));
        let Some(permit) = permit else {
            let detail = "the route's destination has no such port, or would lose the TLS that was asked for";
            return Err(Fault::new(Reason::NoHealthyEndpoint, detail));
        };
        if permit.target().host != self.permit.target().host {
            request.headers_mut().insert(header::HOST, target::authority_of(permit.target())?);
        }
        Ok(Some(permit))
    }
}

/// What kind of failure this is to a route's retries; none where another attempt could do harm.
fn cause(fault: &Fault, harmless: bool) -> Option<RetryOn> {
    match fault.reason() {
        // TLS can also fail once a part of the body is gone, which no other attempt could send.
        Reason::TlsFailed if !fault.retryable() => None,
        Reason::ConnectFailed | Reason::ResolveFailed | Reason::TlsFailed => Some(RetryOn::ConnectFailure),
        Reason::UpstreamProtocol if fault.retryable() => Some(RetryOn::Reset),
        Reason::Timeout if harmless || fault.retryable() => Some(RetryOn::Reset),
        _ => None,
    }
}

fn gateway_error(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Runs `work`, which filters have a part in, for at most `pace` from when it first has to wait; what never waits needs no
/// reading of the clock. It is pinned where it was made: a future is as large as all that it ever holds, and dear to move.
pub(super) async fn paced<T>(
    parties: (&Downstream, &Run),
    pace: Duration,
    work: Pin<&mut (impl Future<Output = Result<T, Fault>> + ?Sized)>,
) -> Result<T, Fault> {
    let (downstream, filters) = parties;
    within((downstream, Some(filters)), Some(pace), work).await
}

/// Runs `work` until the clock expires, which begins anew where there is a `pace`. Whoever is waited for then is at fault.
async fn within<T>(
    (downstream, filters): (&Downstream, Option<&Run>),
    mut pace: Option<Duration>,
    mut work: Pin<&mut (impl Future<Output = Result<T, Fault>> + ?Sized)>,
) -> Result<T, Fault> {
    let clock = &downstream.clock;
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome),
        Poll::Pending => {
            if let Some(pace) = pace.take() {
                clock.arm(pace);
            }
            clock.poll_expired(cx).map(|()| {
                if let Some(fault) = filters.and_then(Run::overdue) {
                    return Err(fault);
                }
                if downstream.awaited.get() && !clock.spent() {
                    let detail = "the request's body did not go on in time (timeouts.idle or http_body_timeout)";
                    return Err(Fault::new(Reason::DownstreamTimeout, detail));
                }
                Err(Fault::new(Reason::Timeout, "the upstream did not answer in time (timeouts.first_byte or timeouts.total)"))
            })
        }
    })
    .await
}

/// Does to an exchange what its route says to do to a share of them: waits, then refuses.
pub(super) async fn inject(worker: &Worker, fault: Option<&FaultInjection>) -> Result<(), Fault> {
    let Some(fault) = fault.filter(|fault| worker.http.random(100) < u64::from(fault.percent)) else { return Ok(()) };
    if let Some(delay) = fault.delay {
        tokio::time::sleep(delay.length().min(Duration::from_secs(3600))).await;
    }
    match fault.abort.map(StatusCode::from_u16) {
        Some(Ok(status)) => Err(Fault::new(Reason::FaultInjected, "the route injected this fault").answered_with(status)),
        Some(Err(_)) | None => Ok(()),
    }
}
