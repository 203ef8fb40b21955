//! The address guard at the last moment before a socket: every address is classified, whether it was resolved, written in
//! a document or asked for literally. A [`Checked`] address is the only kind that can be dialled.
//!
//! A name with both permitted and refused answers is dialled at the permitted ones alone: whoever controls the name can
//! make it resolve to nothing but permitted addresses anyway, so refusing the whole name would protect nothing, and would
//! let one stray record take a service down. The refusal is counted and logged. Because the checked address is the one
//! dialled, a name that answers differently the next time (DNS rebinding) gains nothing.

use super::settings::Metrics;
use crate::fault::Fault;
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};
use tidegate_policy::{Host, Reason, address};

/// An address that may be dialled. Only the guard makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Checked(SocketAddr);

/// Where the gateway itself listens: never dialled, whatever a document says, or an exchange could reach the REST API or
/// turn in circles.
#[derive(Debug, Clone, Default)]
pub struct Listeners(Arc<[SocketAddr]>);

/// What is dialled, for the guard: which service's ranges hold, and what it is called in a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The name or address that was asked for.
    pub(super) host: &'a Host,
    /// The port to dial.
    pub(super) port: u16,
    /// The ranges that the service names.
    pub(super) networks: &'a [IpNet],
}

impl Checked {
    /// The address.
    pub(super) fn address(self) -> SocketAddr {
        self.0
    }
}

impl Listeners {
    /// All bound addresses, with the ports they got.
    pub fn new(bound: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(bound.into_iter().map(|address| SocketAddr::new(plain(address.ip()), address.port())).collect())
    }

    /// Whether dialling `address` would reach one of them.
    fn include(&self, address: SocketAddr) -> bool {
        let ip = plain(address.ip());
        self.0
            .iter()
            .filter(|listener| listener.port() == address.port())
            .any(|listener| listener.ip() == ip || ip.is_unspecified() || (listener.ip().is_unspecified() && is_own(ip)))
    }
}

/// Whether `ip` is one of this machine's own. Asked of the kernel, which binds to nothing else; this happens only for
/// addresses whose port is a listener's.
fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The IPv4 address that an IPv6 one stands for on this machine's own sockets, else the address itself.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) if v6 == Ipv6Addr::UNSPECIFIED => ip,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, |v4: Ipv4Addr| IpAddr::V4(v4)),
    }
}

/// Those of `addresses` that may be dialled, in their order, at most `most` of them. The fault names the host, and what
/// it resolved to.
pub(super) fn check(
    asked: &Asked<'_>,
    addresses: &[IpAddr],
    listeners: &Listeners,
    most: usize,
    metrics: &Metrics,
) -> Result<Vec<Checked>, Fault> {
    let mut passed = Vec::with_capacity(addresses.len().min(most));
    let mut refusal = None;
    for &ip in addresses {
        let address = SocketAddr::new(ip, asked.port);
        match judge(address, asked.networks, listeners) {
            Ok(()) if passed.len() < most && !passed.contains(&Checked(address)) => passed.push(Checked(address)),
            Ok(()) => {}
            Err(class) => {
                metrics.addresses_refused.add(1);
                refusal.get_or_insert((ip, class));
            }
        }
    }
    let Some((ip, class)) = refusal else { return Ok(passed) };
    if !passed.is_empty() {
        tracing::debug!(host = %asked.host, address = %ip, class, "one of a host's addresses is refused; the others are used");
        return Ok(passed);
    }
    let meaning = match asked.host {
        Host::Name(name) => format!("{name} resolves to {ip}"),
        Host::Address(_) => format!("{ip} was asked for"),
    };
    let remedy = if class == OWN_LISTENER {
        "the gateway never dials itself"
    } else {
        "if it is meant, name its range in the service's `networks`"
    };
    Err(Fault::new(Reason::AddressRefused, format!("{meaning}, which is {class}: {remedy}")))
}

const OWN_LISTENER: &str = "the gateway's own listener";

fn judge(address: SocketAddr, networks: &[IpNet], listeners: &Listeners) -> Result<(), &'static str> {
    if listeners.include(address) {
        return Err(OWN_LISTENER);
    }
    address::guard(address.ip(), networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().expect("a host")
    }

    fn checked(text: &str, networks: &[&str], answers: &[&str], listeners: &Listeners) -> Result<Vec<String>, Fault> {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().expect("a network")).collect();
        let answers: Vec<IpAddr> = answers.iter().map(|answer| answer.parse().expect("an address")).collect();
        let host = host(text);
        let asked = Asked { host: &host, port: 443, networks: &networks };
        check(&asked, &answers, listeners, 8, &Metrics::default())
            .map(|passed| passed.into_iter().map(|address| address.address().ip().to_string()).collect())
    }

    #[test]
    fn only_permitted_answers_are_dialled() {
        let none = Listeners::default();
        let answers = ["10.0.0.1", "93.184.216.34", "169.254.169.254"];
        assert_eq!(checked("a.example", &[], &answers, &none).expect("one passes"), ["93.184.216.34"]);
        assert_eq!(checked("a.example", &["10.0.0.0/8"], &answers, &none).expect("two pass"), ["10.0.0.1", "93.184.216.34"]);
    }

    #[test]
    fn a_refusal_names_host_address_and_class() {
        let fault = checked("meta.example", &[], &["169.254.169.254"], &Listeners::default()).expect_err("refused");
        assert_eq!(fault.reason(), Reason::AddressRefused);
        assert!(fault.detail().contains("meta.example resolves to 169.254.169.254"), "{fault}");
        assert!(fault.detail().contains("networks"), "{fault}");
        assert!(!fault.retryable());
    }

    #[test]
    fn own_listeners_are_refused_in_every_form() {
        let everything = ["0.0.0.0/0", "::/0"];
        let any = Listeners::new(["0.0.0.0:443".parse().expect("an address")]);
        for own in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
            let fault = checked("a.example", &everything, &[own], &any).expect_err(own);
            assert!(fault.detail().contains("never dials itself"), "{own}: {fault}");
        }
        let one = Listeners::new(["127.0.0.1:443".parse().expect("an address")]);
        assert!(checked("a.example", &everything, &["127.0.0.1"], &one).is_err());
        assert!(checked("a.example", &everything, &["127.0.0.2"], &one).is_ok(), "another address is not the listener");
        let other_port = Listeners::new(["127.0.0.1:444".parse().expect("an address")]);
        assert!(checked("a.example", &everything, &["127.0.0.1"], &other_port).is_ok());
    }
}
