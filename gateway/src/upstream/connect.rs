//! From a permit to a connection: the stages in order.

use super::{
    Carrier, Connection, Facts, Lease, Reached, Tunnel, Upstreams,
    dial::dial,
    guard::{self, Asked},
    http1::Exchanger,
    http2,
    pool::{Found, Line, Slot, Turn},
    resolve,
    select::{Around, Candidate, Destination, Origin, Place, Reach},
    tls::{self, Offer, Profile},
    wish::Wish,
};
use crate::{fault::Fault, http::Request, live::Live, stream::Stream};
use ::http::header;
use ipnet::IpNet;
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{
    Host, Permit, Reason,
    service::{ConnectionLimits, Protocol},
};

/// One exchange on its way out.
struct Way<'a> {
    live: &'a Live,
    permit: &'a Permit,
    destination: &'a Destination,
    offer: Offer,
    /// The one endpoint to go to, where a filter chose it.
    endpoint: Option<&'a Place>,
}

/// A TCP connection and how it came about.
struct Open {
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    lease: Lease,
    took: Duration,
}

impl Upstreams {
    /// A connection for one HTTP request: an idle one of the pool, a stream of a shared HTTP/2 one, or a new one. Of
    /// `request` only its `Upgrade` field is looked at: an upgrade needs HTTP/1.1. `wish` is what filters chose; connections
    /// are shared only among exchanges whose TLS settings and key material are the same.
    pub async fn connect(
        &self,
        live: &Live,
        permit: &Permit,
        request: &Request,
        wish: Option<&Wish>,
    ) -> Result<Connection, Fault> {
        let port = permit.port();
        if matches!(port.protocol, Protocol::Tls | Protocol::Tcp) {
            let detail = format!("port {} carries opaque bytes: reach it with CONNECT", port.number);
            return Err(Fault::new(Reason::MalformedTarget, detail));
        }
        let offer = if request.headers().contains_key(header::UPGRADE) { Offer::Http1 } else { Offer::All };
        let origin = self.origin(live, permit, wish)?;
        let destination = self.destinations.of(live, permit, offer, &origin, self.around())?;
        let endpoint = wish.and_then(Wish::endpoint);
        let chosen = match endpoint {
            None => &destination.candidates[destination.choose(&self.health)],
            Some(place) => destination.at(place)?,
        };
        if let Some(connection) = chosen.reach().and_then(|reach| self.pooled(chosen, &reach, None)) {
            return Ok(connection);
        }
        let way = Way { live, permit, destination: &destination, offer, endpoint };
        // In a box, so that exchanges on pooled connections are no larger for it.
        Box::pin(self.first_place(&way, async |candidate| self.connect_to(&way, candidate).await)).await
    }

    /// A stream of its own, for a tunnel. TLS is not originated: the caller's bytes pass through.
    pub async fn tunnel(&self, live: &Live, permit: &Permit) -> Result<Tunnel, Fault> {
        let destination = Destination::new(live, permit, Offer::All, None, self.around());
        let way = Way { live, permit, destination: &destination, offer: Offer::All, endpoint: None };
        self.first_place(&way, async |candidate| {
            let (reach, resolve) = self.find(&way, candidate).await?;
            let open = self.open(&way, &candidate.place, &reach, resolve).await?;
            let facts = Facts { resolve, ..open.facts("tunnel") };
            Ok(Tunnel { stream: Stream::Plain(open.tcp), facts, lease: open.lease })
        })
        .await
    }

    /// Which way of originating TLS is asked for.
    fn origin(&self, live: &Live, permit: &Permit, wish: Option<&Wish>) -> Result<Origin, Fault> {
        let Some(wish) = wish else { return Ok(Origin::Registered) };
        if !wish.is_about(permit) {
            let detail = "what a filter chose was for another service than the request goes to";
            return Err(Fault::new(Reason::Internal, detail));
        }
        match wish.tls() {
            None => Ok(Origin::Registered),
            Some(tls) => self.wished.profile(live, tls, permit.port().protocol).map(Origin::Wished),
        }
    }

    fn around(&self) -> Around<'_> {
        Around { pools: &self.pools, locality: self.shared.settings.locality.as_deref() }
    }

    /// Tries one place after the other, the best first, until one works.
    async fn first_place<T>(&self, way: &Way<'_>, attempt: impl AsyncFn(&Candidate) -> Result<T, Fault>) -> Result<T, Fault> {
        let places = match way.endpoint {
            None => way.destination.order(&self.health),
            Some(place) => vec![way.destination.at(place)?],
        };
        let several = places.len() > 1;
        let now = Instant::now();
        // Where all are aside they are tried all the same: a gateway that has lost its own network for a while must not
        // go on refusing once it is back.
        let is_aside = |place: &Place| self.health.is_aside(&place.host, place.port, now);
        let all_aside = several && places.iter().all(|candidate| is_aside(&candidate.place));
        let mut last = None;
        for candidate in places.into_iter().take(self.shared.settings.endpoints) {
            match attempt(candidate).await {
                Ok(made) => return Ok(made),
                Err(fault) if matches!(fault.reason(), Reason::Overloaded | Reason::Internal | Reason::MalformedTarget) => {
                    return Err(fault);
                }
                Err(fault) => last = Some(fault),
            }
        }
        let fault = last.unwrap_or_else(|| Fault::new(Reason::NoHealthyEndpoint, "the service has no endpoint"));
        if all_aside && matches!(fault.reason(), Reason::ConnectFailed | Reason::Timeout | Reason::ResolveFailed) {
            let detail = format!("every endpoint of the service has been failing; the last one tried: {}", fault.detail());
            let reached = fault.reached().cloned().unwrap_or_default();
            return Err(Fault::new(Reason::NoHealthyEndpoint, detail).before_send().reached_so_far(|so_far| *so_far = reached));
        }
        Err(fault)
    }

    /// An idle connection, or a stream of a shared one. Allocates nothing and asks nobody.
    fn pooled(&self, candidate: &Candidate, reach: &Reach, resolve: Option<Duration>) -> Option<Connection> {
        let (facts, carrier) = match self.pools.find(&candidate.slot, &reach.addresses, reach.choose(&self.health)) {
            Found::Http1(exchanger, line) => (line.facts.clone(), Carrier::Http1(exchanger, line)),
            Found::Http2(one, place) => (one.facts.clone(), Carrier::Http2(place)),
            Found::Nothing => return None,
        };
        let facts = Facts { reused: true, resolve, connect: None, handshake: None, ..facts };
        Some(Connection { facts, carrier })
    }

    async fn connect_to(&self, way: &Way<'_>, candidate: &Candidate) -> Result<Connection, Fault> {
        let (reach, resolve) = self.find(way, candidate).await?;
        let settings = &self.shared.settings;
        let limit = way.connect_timeout(settings.connect_timeout) + settings.handshake_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(connection) = self.pooled(candidate, &reach, resolve) {
                return Ok(connection);
            }
            match self.pools.turn(&candidate.slot, way.may_agree_on_h2(), limit) {
                Turn::Wait(waiting) => match tokio::time::timeout_at(deadline, waiting.over(limit)).await {
                    Ok(over) => over?,
                    Err(_elapsed) => {
                        let detail = format!("no connection to share came about within {} ms", limit.as_millis());
                        return Err(Fault::new(Reason::Timeout, detail).before_send());
                    }
                },
                Turn::Lead(leading) => {
                    let outcome = self.make(way, candidate, &reach, resolve).await;
                    if let Some(leading) = leading {
                        leading.end(&outcome);
                    }
                    return outcome;
                }
            }
        }
    }

    /// A new connection.
    async fn make(
        &self,
        way: &Way<'_>,
        candidate: &Candidate,
        reach: &Reach,
        resolve: Option<Duration>,
    ) -> Result<Connection, Fault> {
        let open = self.open(way, &candidate.place, reach, resolve).await?;
        let facts = Facts { resolve, ..open.facts("HTTP/1.1") };
        let (slot, known) = (&candidate.slot, facts.clone());
        let made = match &way.destination.profile {
            Some(profile) => self.connect_tls(way, slot, profile, open, facts).await,
            None if way.h2_only() => self.share(way, slot, Stream::Plain(open.tcp), open.lease, facts, false).await,
            None => Ok(self.line(way, slot, Stream::Plain(open.tcp), open.lease, facts, false)),
        };
        made.map_err(|fault| fault.reached_so_far(|reached| known.reached(reached)))
    }

    async fn connect_tls(
        &self,
        way: &Way<'_>,
        slot: &Rc<Slot>,
        profile: &Profile,
        open: Open,
        facts: Facts,
    ) -> Result<Connection, Fault> {
        let Open { tcp, lease, .. } = open;
        let start = Instant::now();
        let limit = self.shared.settings.handshake_timeout;
        let host = &way.permit.target().host;
        let made = tls::originate(way.permit, profile, host, way.offer, tcp, limit, &self.shared.metrics)
            .await
            .map_err(|fault| fault.reached_so_far(|reached| reached.handshake = Some(start.elapsed())))?;
        let facts = Facts { tls_version: made.version, tls_peer: Some(made.peer), handshake: Some(start.elapsed()), ..facts };
        let stream = Stream::Originated(made.stream);
        if made.h2 {
            return self.share(way, slot, stream, lease, facts, made.certificate_wanting).await;
        }
        if way.destination.port.protocol == Protocol::Grpc {
            let detail = "the upstream did not agree on HTTP/2 (ALPN), which gRPC needs: check the port's protocol";
            return Err(Fault::new(Reason::TlsFailed, detail).before_send());
        }
        Ok(self.line(way, slot, stream, lease, facts, made.certificate_wanting))
    }

    fn line(
        &self,
        way: &Way<'_>,
        slot: &Rc<Slot>,
        stream: Stream,
        lease: Lease,
        facts: Facts,
        certificate_wanting: bool,
    ) -> Connection {
        slot.agreed_on_http1();
        let line = Line::new(&self.pools, slot, facts.clone(), lease, way.limits(), certificate_wanting);
        Connection { facts, carrier: Carrier::Http1(Exchanger::new(stream, self.shared.settings.h1), line) }
    }

    async fn share(
        &self,
        way: &Way<'_>,
        slot: &Slot,
        stream: Stream,
        lease: Lease,
        facts: Facts,
        certificate_wanting: bool,
    ) -> Result<Connection, Fault> {
        let facts = Facts { protocol: "HTTP/2", ..facts };
        let settings = &self.shared.settings;
        let (limit, busy) = (settings.handshake_timeout, slot.busy(facts.address));
        let beginning = http2::Beginning { limits: settings.h2, limit, lease, certificate_wanting, busy };
        let shared = http2::Shared::begin(stream, beginning).await?;
        let idle_timeout = way.limits().idle_timeout.length();
        let place = self.pools.share(slot, facts.clone(), shared, idle_timeout);
        Ok(Connection { facts, carrier: Carrier::Http2(place) })
    }

    /// The addresses of `candidate` that the guard passes, and how long resolving took where it was needed.
    async fn find(&self, way: &Way<'_>, candidate: &Candidate) -> Result<(Rc<Reach>, Option<Duration>), Fault> {
        if let Some(reach) = candidate.reach() {
            return Ok((reach, None));
        }
        let place = &candidate.place;
        let (settings, metrics) = (&self.shared.settings, &self.shared.metrics);
        let asked = Asked { host: &place.host, port: place.port, networks: way.networks() };
        let check = |answers: &_| guard::check(&asked, answers, &self.shared.listeners, settings.addresses, metrics);
        let name = match &place.host {
            Host::Address(ip) => return Ok((candidate.reached(&check(&[*ip])?, None), None)),
            Host::Name(name) => name,
        };
        let start = Instant::now();
        let (answer, how, until) = self.names.resolve(name).await;
        let took = (how == resolve::Found::Asked).then(|| start.elapsed());
        let answers = answer.map_err(|failure| {
            self.health.failed(&place.host, place.port, settings, metrics);
            failure.fault().reached_so_far(|reached| reached.resolve = took)
        })?;
        let passed = check(&answers).map_err(|fault| fault.reached_so_far(|reached| reached.resolve = took))?;
        Ok((candidate.reached(&passed, Some(until)), took))
    }

    /// Dials, within the service's connection limit. `resolve` is only for saying how far a failure got.
    async fn open(&self, way: &Way<'_>, place: &Place, reach: &Reach, resolve: Option<Duration>) -> Result<Open, Fault> {
        let (settings, metrics) = (&*self.shared.settings, &self.shared.metrics);
        let name = way.destination.service.as_ref().map(|service| &service.name);
        let most = match &way.destination.service {
            Some(service) => service.document.connections.max,
            None => settings.unregistered_connections,
        };
        let load = way.live.loads.of(name);
        let lease = load.lease(most, metrics).or_else(|| {
            let lease = self.pools.give_up_one(name).then(|| load.lease(most, metrics)).flatten();
            // This worker helped itself; no other need give one up.
            if lease.is_some() {
                load.take_pressed();
            }
            lease
        });
        let Some(lease) = lease else {
            metrics.overloaded.add(1);
            let setting = if name.is_some() { "the service's `connections.max`" } else { "`unregistered_connections`" };
            let detail = format!("{most} connections are open, which is the limit: raise {setting}, or send less at once");
            return Err(Fault::new(Reason::Overloaded, detail).before_send());
        };
        let start = Instant::now();
        let dialled =
            dial(way.permit, &reach.order(&self.health), way.connect_timeout(settings.connect_timeout), settings, metrics)
                .await;
        let last = dialled.failed.last().map(|failed| failed.address());
        for failed in dialled.failed {
            self.health.address_failed(failed.address(), settings, metrics);
        }
        match dialled.outcome {
            Ok((tcp, checked)) => {
                self.health.address_succeeded(checked.address());
                self.health.succeeded(&place.host, place.port);
                Ok(Open { tcp, address: checked.address(), lease, took: start.elapsed() })
            }
            Err(fault) => {
                if matches!(place.host, Host::Name(_)) {
                    self.health.failed(&place.host, place.port, settings, metrics);
                }
                Err(fault.reached_so_far(|reached| {
                    *reached = Reached { address: last, resolve, connect: Some(start.elapsed()), handshake: None };
                }))
            }
        }
    }
}

impl Way<'_> {
    fn h2_only(&self) -> bool {
        matches!(self.destination.port.protocol, Protocol::Http2 | Protocol::Grpc)
    }

    /// Whether a new connection may turn out to be one that others can share.
    fn may_agree_on_h2(&self) -> bool {
        let offered = |profile: &Arc<Profile>| self.offer == Offer::All && profile.offers_h2();
        self.h2_only() || self.destination.profile.as_ref().is_some_and(offered)
    }

    fn networks(&self) -> &[IpNet] {
        self.destination.service.as_ref().map_or(&[], |service| &service.document.networks)
    }

    fn limits(&self) -> ConnectionLimits {
        self.destination.service.as_ref().map(|service| service.document.connections).unwrap_or_default()
    }

    fn connect_timeout(&self, default: Duration) -> Duration {
        let of_route = self.permit.route().and_then(|route| route.document.timeouts.connect);
        of_route.map_or(default, |span| span.length())
    }
}

impl Open {
    fn facts(&self, protocol: &'static str) -> Facts {
        Facts {
            address: self.address,
            reused: false,
            tls_version: None,
            tls_peer: None,
            protocol,
            resolve: None,
            connect: Some(self.took),
            handshake: None,
        }
    }
}
