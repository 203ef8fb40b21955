//! From a permit to a connection: the stages in order.

use super::{
    Carrier, Connection, Facts, Lease, Tunnel, Upstreams,
    dial::dial,
    guard::{self, Asked, Checked},
    http1::Exchanger,
    http2,
    pool::{Found, Key, Line},
    resolve,
    select::{Destination, Place},
    tls::{self, Offer, Profile},
};
use crate::{fault::Fault, http::Request, live::Live, stream::Stream};
use ::http::header;
use ipnet::IpNet;
use std::{
    net::SocketAddr,
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
    destination: Destination,
    profile: Option<&'a Arc<Profile>>,
    offer: Offer,
}

/// Addresses that may be dialled, and how long finding them took.
struct Reachable {
    addresses: Vec<Checked>,
    resolve: Option<Duration>,
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
    /// `request` only its `Upgrade` field is looked at: an upgrade needs HTTP/1.1.
    pub async fn connect(&self, live: &Live, permit: &Permit, request: &Request) -> Result<Connection, Fault> {
        let destination = Destination::of(permit);
        if matches!(destination.port.protocol, Protocol::Tls | Protocol::Tcp) {
            let detail = format!("port {} carries opaque bytes: reach it with CONNECT", destination.port.number);
            return Err(Fault::new(Reason::MalformedTarget, detail));
        }
        let profile = live.origination.profile(destination.service.as_deref(), destination.port.protocol)?;
        let offer = if request.headers().contains_key(header::UPGRADE) { Offer::Http1 } else { Offer::All };
        let way = Way { live, permit, destination, profile, offer };
        self.first_place(&way, async |place| self.connect_to(&way, place).await).await
    }

    /// A stream of its own, for a tunnel. TLS is not originated: the caller's bytes pass through.
    pub async fn tunnel(&self, live: &Live, permit: &Permit) -> Result<Tunnel, Fault> {
        let destination = Destination::of(permit);
        let way = Way { live, permit, destination, profile: None, offer: Offer::All };
        self.first_place(&way, async |place| {
            let found = self.find(&way, place).await?;
            let open = self.open(&way, place, &found.addresses).await?;
            let facts = Facts { resolve: found.resolve, ..open.facts("tunnel") };
            Ok(Tunnel { stream: Stream::Plain(open.tcp), facts, lease: open.lease })
        })
        .await
    }

    /// Tries one place after the other, the best first, until one works.
    async fn first_place<T>(&self, way: &Way<'_>, attempt: impl AsyncFn(&Place) -> Result<T, Fault>) -> Result<T, Fault> {
        let places = way.destination.places(way.permit, &self.health);
        let several = places.len() > 1;
        let now = Instant::now();
        // Where all are aside they are tried all the same: a gateway that has lost its own network for a while must not
        // go on refusing once it is back.
        let all_aside = several && places.iter().all(|place| self.health.is_aside(&place.host, place.port, now));
        let mut last = None;
        for place in places.iter().take(self.shared.settings.endpoints) {
            match attempt(place).await {
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
            return Err(Fault::new(Reason::NoHealthyEndpoint, detail).before_send());
        }
        Err(fault)
    }

    async fn connect_to(&self, way: &Way<'_>, place: &Place) -> Result<Connection, Fault> {
        let found = self.find(way, place).await?;
        let key = way.key();
        let h2_only = matches!(way.destination.port.protocol, Protocol::Http2 | Protocol::Grpc);
        let mut waited = false;
        loop {
            let (facts, carrier) = match self.pools.find(&key, &found.addresses, h2_only) {
                Found::Http1(exchanger, line) => (line.facts.clone(), Carrier::Http1(exchanger, line)),
                Found::Http2(one, place) => (one.facts.clone(), Carrier::Http2(place)),
                // Once only: were the first to fail, the others must not queue up to fail one after the other.
                Found::Soon(dialled) if !waited => {
                    dialled.notified().await;
                    waited = true;
                    continue;
                }
                Found::Soon(_) | Found::Nothing => break,
            };
            let facts = Facts { reused: true, resolve: found.resolve, connect: None, handshake: None, ..facts };
            return Ok(Connection { facts, carrier });
        }
        let _dialling = self.pools.dialling(&key);
        let open = self.open(way, place, &found.addresses).await?;
        let facts = Facts { resolve: found.resolve, ..open.facts("HTTP/1.1") };
        match way.profile {
            Some(profile) => self.connect_tls(way, key, profile, open, facts).await,
            None if h2_only => self.share(way, &key, Stream::Plain(open.tcp), open.lease, facts).await,
            None => Ok(self.line(way, key, Stream::Plain(open.tcp), open.lease, facts, false)),
        }
    }

    async fn connect_tls(
        &self,
        way: &Way<'_>,
        key: Key,
        profile: &Profile,
        open: Open,
        facts: Facts,
    ) -> Result<Connection, Fault> {
        let Open { tcp, lease, .. } = open;
        let start = Instant::now();
        let limit = self.shared.settings.handshake_timeout;
        let host = &way.permit.target().host;
        let made = tls::originate(way.permit, profile, host, way.offer, tcp, limit, &self.shared.metrics).await?;
        let facts = Facts { tls_version: made.version, tls_peer: Some(made.peer), handshake: Some(start.elapsed()), ..facts };
        let stream = Stream::Originated(made.stream);
        if made.h2 {
            return self.share(way, &key, stream, lease, facts).await;
        }
        if way.destination.port.protocol == Protocol::Grpc {
            let detail = "the upstream did not agree on HTTP/2 (ALPN), which gRPC needs: check the port's protocol";
            return Err(Fault::new(Reason::TlsFailed, detail).before_send());
        }
        Ok(self.line(way, key, stream, lease, facts, made.certificate_wanting))
    }

    fn line(
        &self,
        way: &Way<'_>,
        key: Key,
        stream: Stream,
        lease: Lease,
        facts: Facts,
        certificate_wanting: bool,
    ) -> Connection {
        self.pools.agreed_on_http1(&key);
        let line = Line::new(&self.pools, key, facts.clone(), lease, way.limits(), certificate_wanting);
        Connection { facts, carrier: Carrier::Http1(Exchanger::new(stream, self.shared.settings.h1), line) }
    }

    async fn share(&self, way: &Way<'_>, key: &Key, stream: Stream, lease: Lease, facts: Facts) -> Result<Connection, Fault> {
        let facts = Facts { protocol: "HTTP/2", ..facts };
        let settings = &self.shared.settings;
        let shared = http2::Shared::begin(stream, settings.handshake_timeout, settings.h2, lease).await?;
        let idle_timeout = way.limits().idle_timeout.length();
        let (_, place) = self.pools.share(key, facts.clone(), shared, idle_timeout);
        Ok(Connection { facts, carrier: Carrier::Http2(place) })
    }

    /// Resolves `place` where it is a name, and leaves what the guard passes, in the order in which to try it.
    async fn find(&self, way: &Way<'_>, place: &Place) -> Result<Reachable, Fault> {
        let (settings, metrics) = (&self.shared.settings, &self.shared.metrics);
        let asked = Asked { host: &place.host, port: place.port, networks: way.networks() };
        let check = |answers: &_| guard::check(&asked, answers, &self.shared.listeners, settings.addresses, metrics);
        let (mut addresses, resolve) = match &place.host {
            Host::Address(ip) => (check(&[*ip])?, None),
            Host::Name(name) => {
                let start = Instant::now();
                let (answer, how) = self.names.resolve(name).await;
                let took = (how == resolve::Found::Asked).then(|| start.elapsed());
                let answers = answer.map_err(|failure| {
                    self.health.failed(&place.host, place.port, settings, metrics);
                    failure.fault()
                })?;
                (check(&answers)?, took)
            }
        };
        if addresses.len() > 1 {
            self.spread(&mut addresses);
        }
        Ok(Reachable { addresses, resolve })
    }

    /// Gives each address of a family its turn to be first, and puts those that failed lately last.
    fn spread(&self, addresses: &mut [Checked]) {
        addresses.sort_by_key(|one| one.address().is_ipv4());
        let first_v4 = addresses.partition_point(|one| one.address().is_ipv6());
        let (v6, v4) = addresses.split_at_mut(first_v4);
        for family in [v6, v4] {
            family.rotate_left(self.health.turn(family.len()));
        }
        let now = Instant::now();
        addresses.sort_by_cached_key(|one| self.health.is_aside(&Host::Address(one.address().ip()), one.address().port(), now));
    }

    /// Dials, within the service's connection limit.
    async fn open(&self, way: &Way<'_>, place: &Place, addresses: &[Checked]) -> Result<Open, Fault> {
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
        let dialled = dial(way.permit, addresses, way.connect_timeout(settings.connect_timeout), settings, metrics).await;
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
                Err(fault)
            }
        }
    }
}

impl Way<'_> {
    fn key(&self) -> Key {
        Key {
            service: self.destination.service.as_ref().map(|service| service.name.clone()),
            host: self.permit.target().host.clone(),
            port: self.destination.port.number,
            profile: self.profile.map_or(0, |profile| profile.id),
            offer: self.offer,
        }
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
