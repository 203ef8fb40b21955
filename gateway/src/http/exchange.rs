//! The life of one exchange, from its request's head to its record: the spine of the data plane.

use super::{
    Request, Response,
    body::Body,
    deliver::{self, Delivery},
    detour,
    downstream::{Downstream, Metered, Pace, Within},
    forward,
    limits::Place,
    metrics::Open,
    recorded::{Ending, Recorded},
    reply::{self, Dialect},
    settings::Settings,
    target::{self, Canonical},
};
use crate::{
    fault::Fault,
    filter::{self, Answering, Asked, Run},
    identity,
    listen::Peer,
    live::Live,
    record::OpenRecord,
    stream::Stream,
    telemetry::trace,
    tunnel::{self, Joined},
    worker::Worker,
};
use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use futures_util::future::Either;
use http_body::Body as _;
use std::{pin::Pin, rc::Rc, sync::Arc, time::Instant};
use tidegate_policy::{Denial, Identity, Permit, Reason, Target, route::Route, service::Protocol, target::Form};

/// What the caller gets.
pub struct Answer {
    /// The response; its body closes the record when its last byte has gone, or when it is dropped.
    pub response: Response,
    /// For a CONNECT that was answered 2xx and an upgrade that was answered 101: who takes the connection over. It is
    /// handed the downstream stream and the bytes already read from it.
    pub takeover: Option<Takeover>,
    /// Whether there is none at all: the connection is closed, or the stream reset, without a word.
    pub withheld: bool,
}

/// Takes a downstream connection over once its answer has been written.
pub type Takeover = Box<dyn FnOnce(Stream, Bytes) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What an exchange has under way beside its messages; it ends with the response.
struct Course {
    place: Option<Place>,
    /// In a box, since few exchanges have it.
    through: Option<Box<Through>>,
    pace: Pace,
}

/// What follows a CONNECT that was permitted.
enum Through {
    /// Bytes, to and from the upstream.
    Bytes(Joined),
    /// Requests, each decided by itself.
    Requests(Within),
}

/// Handles one request, which stays where it is and is made fit to leave there: moving it from stage to stage costs more than
/// most stages. Never fails: what goes wrong becomes the answer, and exactly one record is written.
pub async fn exchange(worker: &Rc<Worker>, downstream: &Rc<Downstream>, request: &mut Request) -> Answer {
    worker.ledger.room().await;
    let mut record = worker.open_record(&downstream.peer, request);
    let dialect = Dialect::of(request.headers());
    let headless = *request.method() == Method::HEAD;
    let mut course = Course::new(worker);
    downstream.request_bytes.set(0);
    downstream.awaited.set(false);
    downstream.clock.limit(None);
    let outcome = attempt(worker, downstream, request, &mut record, &mut course).await;
    let withheld = matches!(&outcome, Err(fault) if fault.reason() == Reason::FilterReset);
    let response = outcome.unwrap_or_else(|fault| {
        record.failed(&fault);
        let response = reply::to(&fault, dialect, &record.id_text());
        if headless { response.map(|_| Body::empty()) } else { response }
    });
    if withheld {
        return Answer { response: Response::new(Body::empty()), takeover: None, withheld };
    }
    close(worker, downstream, response, record, course)
}

/// Handles a request of a filter's own, which is told of failures as they are. Recorded like any other.
pub(super) async fn for_filter(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    mut request: Request,
) -> Result<Response, Fault> {
    worker.ledger.room().await;
    let mut record = worker.open_record(&downstream.peer, &request);
    let mut course = Course::new(worker);
    match attempt(worker, downstream, &mut request, &mut record, &mut course).await {
        Ok(response) => Ok(close(worker, downstream, response, record, course).response),
        Err(fault) => {
            record.failed(&fault);
            Err(fault)
        }
    }
}

/// The answer to a request that cannot be handled at all, recorded like any other. Where no request could be read,
/// `request` is an empty one.
pub fn refuse(worker: &Rc<Worker>, downstream: &Rc<Downstream>, request: &Request, fault: &Fault) -> Response {
    let mut record = worker.open_record(&downstream.peer, request);
    record.failed(fault);
    let response = reply::to(fault, Dialect::of(request.headers()), &record.id_text());
    record.answered(response.status());
    response
}

async fn attempt(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    request: &mut Request,
    record: &mut OpenRecord,
    course: &mut Course,
) -> Result<Response, Fault> {
    let live = worker.live.load(); // one snapshot for the whole exchange, without touching its shared count
    let named = match &downstream.within {
        None => target::of(request, &downstream.targets)?,
        Some(within) => target::within(request, &downstream.targets, &within.target)?,
    };
    record.targeted(&named.target);
    let identity = match (&downstream.within, &downstream.filter) {
        (None, None) => identity::of(&live, &worker.tokens, &downstream.peer, request.headers_mut())?,
        (Some(Within { identity, .. }), _) | (None, Some(identity)) => identity.clone(),
    };
    record.identified(&identity);
    let permit = decide(&live, &identity, &named, request, record)?; // no permit, no socket
    let route = permit.route().map(|route| &*route.document);
    course.begin(worker, downstream, &permit)?;
    deliver::inject(worker, route.and_then(|route| route.fault.as_ref())).await?;
    if named.target.form == Form::Tunnel {
        let opaque = downstream.filter.is_none() && !carries_requests(&permit);
        let run = match opaque {
            true => begin(worker, &downstream.peer, &live, &permit, &identity, (None, request.headers()), record)?,
            false => None,
        };
        // In a box, so that other exchanges are no larger for it.
        return Box::pin(connect(worker, &live, &permit, &identity, run, record, course)).await;
    }
    let bodiless = request.body().is_end_stream();
    forward::request(request, &named.authority, bodiless, &worker.http.settings.pseudonym)?;
    trace::pass_on(request.headers_mut(), record.trace());
    course.meter(downstream, request.body_mut())?;
    let run = if downstream.filter.is_some() {
        None
    } else {
        let asked = Some(Asked::of(request));
        begin(worker, &downstream.peer, &live, &permit, &identity, (asked, request.headers()), record)?
    };
    if let Some(run) = &run
        && let Some(response) = course.ask(downstream, run, request).await?
    {
        return Ok(reply::of_filter(*response, record));
    }
    let wish = run.as_ref().and_then(Run::wish);
    let mut again = None;
    if wish.is_some() || route.is_some_and(|route| route.rewrite.is_some()) {
        route.map_or(Ok(()), |route| forward::rewrite(request, route))?;
        again = detour::decide(&live, &identity, &permit, wish.as_deref(), request, record)?; // nor to another service
    }
    let permit = again.as_ref().unwrap_or(&permit);
    let (wish, filters) = (wish.as_deref(), run.as_ref());
    let delivery = Delivery { worker, live: &live, permit, wish, filters, downstream, pace: course.pace };
    let delivered = delivery.run(request, record).await;
    let came = Instant::now();
    if delivered.is_ok() {
        record.head_came(came);
    }
    let delivered = delivered.map(|response| fit(worker, response));
    match run {
        None => delivered,
        Some(run) => course.tell(downstream, &run, (delivered, came), record).await,
    }
}

/// The filters' part in the exchange, where its route has any.
fn begin(
    worker: &Worker,
    peer: &Peer,
    live: &Live,
    permit: &Arc<Permit>,
    identity: &Identity,
    (asked, headers): (Option<Asked<'_>>, &HeaderMap),
    record: &mut OpenRecord,
) -> Result<Option<Run>, Fault> {
    if permit.route().is_none_or(|route| route.document.filters.is_empty()) {
        return Ok(None);
    }
    let dialect = Dialect::of(headers);
    let facts =
        filter::Facts { id: record.id(), identity, asked, permit, live, dialect, peer: peer.address, local: peer.local };
    let run = worker.instances.begin(&live.chains, facts).transpose()?;
    record.filtered_by(run.as_ref());
    Ok(run)
}

/// A response from outside, made fit for the caller.
fn fit(worker: &Worker, mut response: Response) -> Response {
    forward::response(&mut response, &worker.http.settings.pseudonym);
    response
}

/// The decision, and its place in the record.
fn decide(
    live: &Live,
    identity: &Identity,
    named: &Canonical,
    request: &Request,
    record: &mut OpenRecord,
) -> Result<Arc<Permit>, Fault> {
    let tunnel = named.target.form == Form::Tunnel;
    let asked = tidegate_policy::Request {
        target: &named.target,
        method: request.method(),
        path: if tunnel { "" } else { request.uri().path() },
        query: request.uri().query(),
        headers: request.headers(),
        time: std::time::SystemTime::now(),
    };
    match live.snapshot.decide(identity, &asked) {
        Ok(permit) => {
            let permit = Arc::new(permit);
            record.permitted(&permit);
            Ok(permit)
        }
        Err(denial) => {
            record.denied(&denial);
            Err(Fault::new(denial.reason, sentence(&denial, &named.target)))
        }
    }
}

/// What a denial says to its caller: never which other rules there are.
pub(super) fn sentence(denial: &Denial, target: &Target) -> String {
    let (host, port) = (&target.host, target.port);
    match denial.reason {
        Reason::UnregisteredHost => format!("no service registers {host} with port {port}: an operator can register it"),
        Reason::DeniedByRule => format!("a rule denies this caller {host}"),
        Reason::NoRuleAllows => format!("no rule allows this caller this request to {host}"),
        Reason::CredentialsRequired => {
            format!("{host} is allowed to known callers only: bring credentials in Proxy-Authorization")
        }
        Reason::MalformedTarget => format!("port {port} of {host} does not speak what was asked for: see the service's ports"),
        _ => format!("this request to {host} is refused"),
    }
}

/// Whether what flows in a tunnel to this port are requests in the clear, of either version of HTTP.
fn carries_requests(permit: &Permit) -> bool {
    let (service, port) = (permit.service().map(|service| &service.document), permit.port());
    let in_the_clear = match port.protocol {
        Protocol::Http | Protocol::Http2 => true,
        Protocol::Grpc => service.is_some_and(|service| !service.originates(port)),
        Protocol::Https | Protocol::Tls | Protocol::Tcp => false,
    };
    in_the_clear && !service.is_some_and(|service| service.passes_through())
}

/// Opens a tunnel, through the filters of `run` where its route has any for tunnels; bytes flow once the answer has been
/// written. One to a port that speaks HTTP in the clear ends here:
/// its requests are exchanges of their own, so that no rule can be passed by inside of it.
async fn connect(
    worker: &Worker,
    live: &Live,
    permit: &Permit,
    identity: &Identity,
    run: Option<Run>,
    record: &mut OpenRecord,
    course: &mut Course,
) -> Result<Response, Fault> {
    if carries_requests(permit) {
        let within = Within { target: permit.target().clone(), identity: identity.clone() };
        course.through = Some(Box::new(Through::Requests(within)));
        return Ok(Response::new(Body::empty()));
    }
    let upstream = worker.upstreams.tunnel(live, permit).await?;
    record.connected(&upstream.facts);
    let opened = run.map(|run| {
        record.tell(&run, Instant::now());
        run.conduit().map(Box::new)
    });
    let conduit = opened.transpose()?;
    let service = permit.service().map(|service| service.name.clone());
    let idle = permit.route().and_then(|route| route.document.timeouts.idle).map(|span| span.length());
    course.through = Some(Box::new(Through::Bytes(Joined {
        stream: upstream.stream,
        read: Bytes::new(),
        agreement: Some(tunnel::Agreement { snapshot: Arc::clone(&live.snapshot), service, target: permit.target().clone() }),
        idle: idle.unwrap_or(worker.http.settings.tunnel_timeout),
        hello: worker.http.settings.hello_timeout,
        kept: Some(Box::new(upstream.lease)),
        spares: Rc::clone(&worker.http.spares),
        conduit,
    })));
    Ok(Response::new(Body::empty()))
}

/// Wraps the answer so that the record closes with it.
fn close(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    mut response: Response,
    mut record: OpenRecord,
    course: Course,
) -> Answer {
    record.answered(response.status());
    let status = response.status();
    let Course { place, through, pace } = course;
    let upgraded = if status == StatusCode::SWITCHING_PROTOCOLS { response.body_mut().take_upgrade() } else { None };
    let metrics = &worker.http.metrics;
    let through = if status.is_success() { through } else { None }.or_else(|| {
        let (stream, read) = upgraded?;
        metrics.upgrades.add(1);
        let &Settings { tunnel_timeout, hello_timeout, .. } = &worker.http.settings;
        let spares = Rc::clone(&worker.http.spares);
        Some(Box::new(Through::Bytes(Joined {
            stream,
            read,
            agreement: None,
            idle: tunnel_timeout,
            hello: hello_timeout,
            kept: None,
            spares,
            conduit: None,
        })))
    });
    let Some(through) = through else {
        let ending = Ending { record, place, idle: pace.idle };
        let downstream = Rc::clone(downstream);
        let response = response.map(|body| Body::recorded(Box::new(Recorded::new(body, downstream, ending))));
        return Answer { response, takeover: None, withheld: false };
    };
    if status.is_success() {
        metrics.tunnels.add(1);
    }
    let open = Open::one(metrics, |metrics| &metrics.tunnels_open);
    let (worker, peer) = (Rc::clone(worker), Rc::clone(&downstream.peer));
    let takeover: Takeover = Box::new(move |stream, early| {
        Box::pin(async move {
            match *through {
                Through::Bytes(joined) => tunnel::run(stream, early, joined, &mut record).await,
                Through::Requests(within) => {
                    super::serve_within(worker, peer, within, stream, early).await;
                }
            }
            drop((place, open));
        })
    });
    Answer { response, takeover: Some(takeover), withheld: false }
}

impl Course {
    fn new(worker: &Worker) -> Self {
        let settings = &worker.http.settings;
        let pace = Pace { bytes: None, idle: settings.body_timeout, first_byte: settings.first_byte_timeout };
        Self { place: None, through: None, pace }
    }

    /// Takes a place under the route's limits and sets its times.
    fn begin(&mut self, worker: &Worker, downstream: &Downstream, permit: &Permit) -> Result<(), Fault> {
        let Some(route) = permit.route() else { return Ok(()) };
        let Route { timeouts, limits, .. } = &*route.document;
        let admitted = worker.http.limiters.admit(&worker.http.known, &route.name, limits);
        self.place = admitted.inspect_err(|fault| worker.http.metrics.limited(fault.reason()))?;
        self.pace.bytes = limits.request_body_bytes;
        if let Some(idle) = timeouts.idle {
            self.pace.idle = idle.length();
        }
        if let Some(first_byte) = timeouts.first_byte {
            self.pace.first_byte = first_byte.length();
        }
        if permit.target().form != Form::Tunnel {
            downstream.clock.limit(timeouts.total.map(|total| total.length()));
        }
        Ok(())
    }

    /// Puts a meter on the request's body, where it has one. A body that says it is too large goes no further.
    fn meter(&self, downstream: &Rc<Downstream>, body: &mut Body) -> Result<(), Fault> {
        if body.is_end_stream() {
            return Ok(());
        }
        if self.pace.bytes.is_some_and(|limit| body.size_hint().lower() > limit) {
            return Err(Fault::new(
                Reason::BodyTooLarge,
                "the request's body is larger than its route's limits.request_body_bytes",
            ));
        }
        let metered = Metered::new(std::mem::take(body), Rc::clone(downstream), self.pace);
        *body = Body::metered(Box::new(metered));
        Ok(())
    }

    /// Leaves the request as its filters let it go on; what one of them answers in place of it. They may have to see of its body
    /// first, within its pace.
    async fn ask(&self, downstream: &Downstream, run: &Run, request: &mut Request) -> Result<Option<Box<Response>>, Fault> {
        self.answered(downstream, run, run.request(request)).await
    }

    /// What was delivered, and came at that moment, as the filters let it go back. One may have answered in the middle of the
    /// request's body, which is why its delivery failed.
    async fn tell(
        &self,
        downstream: &Downstream,
        run: &Run,
        (delivered, came): (Result<Response, Fault>, Instant),
        record: &mut OpenRecord,
    ) -> Result<Response, Fault> {
        let mut response = match (delivered, run.late_reply()) {
            (Ok(response), _) => response,
            (Err(_), Some(reply)) => {
                let answer = deliver::paced((downstream, run), self.pace.idle, Box::pin(run.answer(reply)).as_mut()).await?;
                return Ok(reply::of_filter(answer, record));
            }
            (Err(fault), None) => return Err(fault),
        };
        record.tell(run, came);
        let answered = self.answered(downstream, run, run.response(&mut response, came)).await?;
        Ok(answered.map_or(response, |reply| reply::of_filter(*reply, record)))
    }

    /// What a route's filters answer in a message's place, where it has to be waited for within the pace.
    async fn answered(
        &self,
        downstream: &Downstream,
        run: &Run,
        answering: Answering<'_>,
    ) -> Result<Option<Box<Response>>, Fault> {
        match answering {
            Either::Left(answered) => answered.into_inner(),
            Either::Right(mut waits) => deliver::paced((downstream, run), self.pace.idle, waits.as_mut()).await,
        }
    }
}
