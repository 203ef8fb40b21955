//! Calls of a VM's own: which are open, and what came of the one whose callback runs. Where they may go is decided here,
//! and again, by the rules, when they are made. Pure.

use bytes::{Bytes, BytesMut};
use foldhash::HashMap;
use http::{HeaderMap, StatusCode};
use tidegate_policy::{Host, Snapshot, service::Service};
use tokio::sync::{mpsc, oneshot};

/// The calls of one VM.
#[derive(Debug, Default)]
pub(super) struct Callouts {
    last: u32,
    open: HashMap<u32, Open>,
    at_hand: AtHand,
}

/// A call that is open.
#[derive(Debug)]
pub(super) struct Open {
    /// The root context that is told of it.
    pub(super) root: u32,
    pub(super) kind: Kind,
    /// Dropped when it is given up.
    _given_up: oneshot::Sender<()>,
}

/// What a call is.
#[derive(Debug)]
pub(super) enum Kind {
    Http,
    /// One message, and one in answer.
    Grpc,
    /// Messages in both directions; none any more when the guest has closed its own.
    GrpcStream(Option<mpsc::Sender<Bytes>>),
}

/// What came of a call.
#[derive(Debug, Default)]
pub(super) struct Answered {
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// What host functions find in a callback about a call.
#[derive(Debug, Default)]
enum AtHand {
    #[default]
    Nothing,
    Http(Answered),
    Message(Bytes),
    Metadata(HeaderMap),
    Closed(u32, String),
}

impl Callouts {
    /// Opens a call; its number, and what ends when it is given up.
    pub(super) fn open(&mut self, root: u32, kind: Kind) -> (u32, oneshot::Receiver<()>) {
        let (given_up, is_given_up) = oneshot::channel();
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.open.contains_key(&self.last) {
                break;
            }
        }
        self.open.insert(self.last, Open { root, kind, _given_up: given_up });
        (self.last, is_given_up)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Open> {
        self.open.get_mut(&id)
    }

    /// Ends a call; none where it was given up.
    pub(super) fn close(&mut self, id: u32) -> Option<Open> {
        self.open.remove(&id)
    }

    /// What came of the HTTP call whose callback runs.
    pub(super) fn http(&self) -> Option<&Answered> {
        match &self.at_hand {
            AtHand::Http(answered) => Some(answered),
            _ => None,
        }
    }

    /// The gRPC message whose callback runs.
    pub(super) fn message(&self) -> Option<&Bytes> {
        match &self.at_hand {
            AtHand::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The gRPC metadata whose callback runs.
    pub(super) fn metadata(&self) -> Option<&HeaderMap> {
        match &self.at_hand {
            AtHand::Metadata(metadata) => Some(metadata),
            _ => None,
        }
    }

    /// The status of the gRPC call whose callback runs.
    pub(super) fn status(&self) -> Option<(u32, &str)> {
        match &self.at_hand {
            AtHand::Closed(code, text) => Some((*code, text)),
            _ => None,
        }
    }

    pub(super) fn show_http(&mut self, answered: Answered) {
        self.at_hand = AtHand::Http(answered);
    }

    pub(super) fn show_message(&mut self, message: Bytes) {
        self.at_hand = AtHand::Message(message);
    }

    pub(super) fn show_metadata(&mut self, metadata: HeaderMap) {
        self.at_hand = AtHand::Metadata(metadata);
    }

    pub(super) fn show_status(&mut self, code: u32, text: String) {
        self.at_hand = AtHand::Closed(code, text);
    }

    /// The callback is over.
    pub(super) fn put_away(&mut self) {
        self.at_hand = AtHand::Nothing;
    }
}

/// Where a call goes: a scheme and an authority.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) scheme: &'static str,
    pub(super) authority: String,
}

/// Where a call to `upstream` with this `:authority` goes; none where there is no such service.
///
/// `upstream` is a service's name, a host that one registers, or Istio's `outbound|443||host`. An authority that the service
/// does not register gives way to its first host.
pub(super) fn destination(snapshot: &Snapshot, upstream: &str, authority: Option<&str>) -> Option<Destination> {
    let (host, port) = match upstream.strip_prefix("outbound|") {
        Some(rest) => {
            let mut parts = rest.split('|');
            let port = parts.next()?.parse::<u16>().ok()?;
            (parts.nth(1)?, Some(port))
        }
        None => (upstream, None),
    };
    let of_host = |host: &str| host.parse::<Host>().ok().and_then(|host| snapshot.service_for(&host).map(|s| (s, Some(host))));
    let by_name = || snapshot.service(host).map(|service| (service, None));
    let (service, named) = by_name().or_else(|| of_host(host))?;
    let service: &Service = &service.document;
    let (asked, asked_port) = authority.map_or((None, None), split);
    let asked = asked.filter(|host| service.hosts.iter().any(|pattern| pattern.matches(host)));
    let host = asked.or(named).or_else(|| service.first_host().cloned())?;
    let registered = |number: u16| service.ports.iter().find(|port| port.number == number);
    let port = match port {
        Some(number) => registered(number)?,
        None => {
            let secure = || service.ports.iter().find(|port| service.originates(**port));
            asked_port.and_then(registered).or_else(secure).or_else(|| service.ports.first())?
        }
    };
    let scheme = if service.originates(*port) { "https" } else { "http" };
    Some(Destination { scheme, authority: format!("{}:{}", bracketed(&host), port.number) })
}

fn split(authority: &str) -> (Option<Host>, Option<u16>) {
    let Ok(parsed) = authority.parse::<http::uri::Authority>() else { return (None, None) };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    (host.parse().ok(), parsed.port_u16())
}

fn bracketed(host: &Host) -> String {
    let text = host.to_string();
    if text.contains(':') && !text.starts_with('[') { format!("[{text}]") } else { text }
}

/// A gRPC message as it is sent: whether it is compressed, its length, and itself.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// Why what was received are no gRPC messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unframed {
    /// It is compressed, which nobody asked for.
    Compressed,
    TooLarge,
}

/// Takes the first whole message from what was received.
pub(super) fn unframe(received: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, Unframed> {
    let Some((flag, rest)) = received.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    if *flag != 0 {
        return Err(Unframed::Compressed);
    }
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(Unframed::TooLarge);
    }
    if received.len() < 5 + length {
        return Ok(None);
    }
    let mut message = received.split_to(5 + length);
    Ok(Some(message.split_off(5).freeze()))
}

/// The status that gRPC metadata ends with; none where it has none.
pub(super) fn grpc_status(metadata: &HeaderMap) -> Option<(u32, String)> {
    let code = metadata.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = metadata.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    Some((code, message.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_policy::snapshot::Rows;

    fn snapshot() -> Snapshot {
        let service = |json: serde_json::Value| Arc::new(serde_json::from_value(json).unwrap());
        let payments = serde_json::json!({
            "hosts": ["api.payments.example", "*.eu.payments.example"],
            "resolution": "forward",
            "ports": [{"number": 80, "protocol": "http"}, {"number": 443, "protocol": "https"}],
        });
        let plain = serde_json::json!({
            "hosts": ["10.1.2.3"], "ports": [{"number": 8080, "protocol": "http"}], "networks": ["10.1.2.0/24"],
        });
        let rows = Rows {
            services: [("payments".parse().unwrap(), service(payments)), ("plain".parse().unwrap(), service(plain))].into(),
            ..Rows::default()
        };
        Snapshot::compile(&rows).unwrap()
    }

    #[test]
    fn a_call_goes_to_a_registered_service_and_nowhere_else() {
        let snapshot = snapshot();
        let to = |upstream: &str, authority: Option<&str>| {
            destination(&snapshot, upstream, authority).map(|to| format!("{}://{}", to.scheme, to.authority))
        };
        for (upstream, authority, url) in [
            ("payments", None, Some("https://api.payments.example:443")),
            ("payments", Some("api.payments.example"), Some("https://api.payments.example:443")),
            ("payments", Some("api.payments.example:80"), Some("http://api.payments.example:80")),
            ("payments", Some("de.eu.payments.example"), Some("https://de.eu.payments.example:443")),
            ("payments", Some("evil.example"), Some("https://api.payments.example:443")),
            ("payments", Some("api.payments.example:99"), Some("https://api.payments.example:443")),
            ("api.payments.example", None, Some("https://api.payments.example:443")),
            ("fr.eu.payments.example", None, Some("https://fr.eu.payments.example:443")),
            ("outbound|80||api.payments.example", None, Some("http://api.payments.example:80")),
            ("outbound|99||api.payments.example", None, None),
            ("outbound|x||api.payments.example", None, None),
            ("outbound|443", None, None),
            ("plain", None, Some("http://10.1.2.3:8080")),
            ("nobody", None, None),
            ("", None, None),
            ("\0", None, None),
        ] {
            assert_eq!(to(upstream, authority).as_deref(), url, "{upstream} {authority:?}");
        }
    }

    #[test]
    fn messages_are_taken_as_they_become_whole() {
        let mut received = BytesMut::new();
        let whole = [&framed(b"one")[..], &framed(b""), &framed(b"three")].concat();
        let mut messages = Vec::new();
        for byte in whole {
            received.extend_from_slice(&[byte]);
            messages.extend(unframe(&mut received, 5).unwrap());
        }
        assert_eq!(messages, [&b"one"[..], b"", b"three"]);
        assert_eq!(unframe(&mut BytesMut::from(&framed(b"123456")[..5]), 5), Err(Unframed::TooLarge));
        assert_eq!(unframe(&mut BytesMut::from(&[1, 0, 0, 0, 0][..]), 5), Err(Unframed::Compressed));
    }

    #[test]
    fn numbers_of_calls_are_not_used_twice_at_once() {
        let mut callouts = Callouts { last: u32::MAX - 1, ..Callouts::default() };
        let ids: Vec<_> = (0..3).map(|_| callouts.open(1, Kind::Http).0).collect();
        assert_eq!(ids, [u32::MAX, 1, 2]);
        callouts.last = 0;
        assert_eq!(callouts.open(1, Kind::Http).0, 3);
        assert!(callouts.close(2).is_some() && callouts.close(2).is_none());
    }
}
