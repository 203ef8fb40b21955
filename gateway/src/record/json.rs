//! An exchange as JSON. The same bytes as `serde_json` makes of it (a test compares them), at a quarter of the cost: keys and the
//! gateway's own words are written as they are, and what comes from elsewhere is looked at for characters to be escaped many bytes
//! at a time. One is written for every request, where that was an eighth of the gateway's own work.

use serde::Serialize;
use std::borrow::Cow;
use tidegate_policy::exchange::{Durations, EndpointFacts, Exchange, FilterFacts, Verdict};

/// Appends `exchange`.
pub(super) fn write(exchange: &Exchange<'_>, out: &mut Vec<u8>) {
    let mut line = Line { out };
    line.as_is(b"{\"id\":\"", &exchange.id);
    line.as_is(b",\"time\":\"", &exchange.time);
    if !exchange.trace_id.is_empty() {
        line.as_is(b",\"trace_id\":\"", &exchange.trace_id);
    }
    line.text_if(b",\"workload\":\"", exchange.workload.as_ref());
    line.as_is(b",\"source\":\"", &exchange.source);
    line.text(b",\"method\":\"", &exchange.method);
    line.text(b",\"target\":\"", &exchange.target);
    line.as_is(b",\"protocol\":\"", &exchange.protocol);
    line.word(b",\"verdict\":\"", exchange.verdict.map(verdict));
    line.text_if(b",\"rule\":\"", exchange.rule.as_ref());
    line.word(b",\"reason\":\"", exchange.reason.map(|reason| reason.as_str()));
    if !exchange.reports.is_empty() {
        line.value(b",\"reports\":", &exchange.reports);
    }
    line.text_if(b",\"route\":\"", exchange.route.as_ref());
    line.text_if(b",\"service\":\"", exchange.service.as_ref());
    if let Some(endpoint) = &exchange.endpoint {
        line.endpoint(endpoint);
    }
    line.filters(&exchange.filters);
    line.number_if(b",\"status\":", exchange.status.map(u64::from));
    line.number(b",\"request_bytes\":", exchange.request_bytes);
    line.number(b",\"response_bytes\":", exchange.response_bytes);
    line.durations(exchange.durations);
    line.text_if(b",\"fault\":\"", exchange.fault.as_ref());
    line.out.push(b'}');
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::Denied => "denied",
        Verdict::Invalid => "invalid",
    }
}

/// Whether `text` is its own JSON.
fn plain(text: &str) -> bool {
    // Without a way out, so that the loop is made of wide instructions.
    text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'))
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// Text from elsewhere. The key ends in the quotation mark that begins it.
    fn text(&mut self, key: &[u8], text: &str) {
        if plain(text) {
            self.as_is(key, text);
        } else {
            self.out.extend_from_slice(&key[..key.len() - 1]);
            self.json(text);
        }
    }

    /// Text with nothing in it to be escaped, as what the gateway makes itself. The key ends as for `text`.
    fn as_is(&mut self, key: &[u8], text: &str) {
        debug_assert!(plain(text), "{text:?} is to be escaped");
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn text_if(&mut self, key: &[u8], text: Option<&Cow<'_, str>>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    /// A word of the gateway's own, or `null`. The key ends as for `text`.
    fn word(&mut self, key: &[u8], word: Option<&'static str>) {
        match word {
            Some(word) => self.as_is(key, word),
            None => self.value(&key[..key.len() - 1], &()),
        }
    }

    fn number(&mut self, key: &[u8], number: u64) {
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn number_if(&mut self, key: &[u8], number: Option<u64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    fn flag(&mut self, key: &[u8], flag: bool) {
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    fn endpoint(&mut self, endpoint: &EndpointFacts<'_>) {
        self.as_is(b",\"endpoint\":{\"address\":\"", &endpoint.address);
        self.flag(b",\"reused\":", endpoint.reused);
        if let Some(version) = &endpoint.tls_version {
            self.as_is(b",\"tls_version\":\"", version);
        }
        self.text_if(b",\"tls_peer\":\"", endpoint.tls_peer.as_ref());
        self.as_is(b",\"protocol\":\"", &endpoint.protocol);
        self.out.push(b'}');
    }

    fn filters(&mut self, filters: &[FilterFacts<'_>]) {
        for (place, filter) in filters.iter().enumerate() {
            self.text(if place == 0 { b",\"filters\":[{\"plugin\":\"" } else { b",{\"plugin\":\"" }, filter.plugin.as_str());
            self.as_is(b",\"outcome\":\"", &filter.outcome);
            self.number(b",\"time_us\":", filter.time_us);
            self.text_if(b",\"error\":\"", filter.error.as_ref());
            if filter.silent {
                self.flag(b",\"silent\":", true);
            }
            if !filter.events.is_empty() {
                self.value(b",\"events\":", &filter.events);
            }
            self.out.push(b'}');
        }
        if !filters.is_empty() {
            self.out.push(b']');
        }
    }

    fn durations(&mut self, durations: Durations) {
        let Durations { total_us, resolve_us, connect_us, tls_us, filters_us, first_byte_us } = durations;
        self.number(b",\"durations\":{\"total_us\":", total_us);
        self.number_if(b",\"resolve_us\":", resolve_us);
        self.number_if(b",\"connect_us\":", connect_us);
        self.number_if(b",\"tls_us\":", tls_us);
        self.number_if(b",\"filters_us\":", filters_us);
        self.number_if(b",\"first_byte_us\":", first_byte_us);
        self.out.push(b'}');
    }

    /// What few exchanges have.
    fn value(&mut self, key: &[u8], value: &impl Serialize) {
        self.out.extend_from_slice(key);
        self.json(value);
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        let before = self.out.len();
        // Writing to a Vec cannot fail, and every key is a string; what failed all the same is left out whole.
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.out.truncate(before);
            self.out.extend_from_slice(b"null");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::{Reason, exchange::AuditEvent};

    fn same(exchange: &Exchange<'_>) {
        let mut out = b"before ".to_vec();
        write(exchange, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, format!("before {}", serde_json::to_string(exchange).unwrap()));
    }

    fn full(text: &str) -> Exchange<'_> {
        let (text, own) = (|| Cow::Borrowed(text), || Cow::Borrowed("its-own"));
        let event = AuditEvent { kind: "seen".to_owned(), outcome: "allowed".to_owned(), fields: serde_json::Map::new() };
        let plugin = || "watch".parse().expect("a name");
        let quiet =
            FilterFacts { plugin: plugin(), outcome: own(), time_us: 0, error: None, silent: false, events: Vec::new() };
        let whole = FilterFacts { error: Some(text()), silent: true, events: vec![event], time_us: 7, ..quiet.clone() };
        Exchange {
            id: own(),
            time: own(),
            trace_id: own(),
            workload: Some(text()),
            source: own(),
            method: text(),
            target: text(),
            protocol: own(),
            verdict: Some(Verdict::Denied),
            rule: Some(text()),
            reason: Some(Reason::Timeout),
            reports: vec![text(), text()],
            route: Some(text()),
            service: Some(text()),
            endpoint: Some(EndpointFacts {
                address: own(),
                reused: true,
                tls_version: Some(own()),
                tls_peer: Some(text()),
                protocol: own(),
            }),
            filters: vec![whole, quiet],
            status: Some(599),
            request_bytes: u64::MAX,
            response_bytes: 1,
            durations: Durations {
                total_us: 1,
                resolve_us: Some(2),
                connect_us: Some(3),
                tls_us: Some(4),
                filters_us: Some(5),
                first_byte_us: Some(6),
            },
            fault: Some(text()),
        }
    }

    #[test]
    fn every_exchange_is_written_as_serde_writes_it() {
        same(&Exchange::default());
        same(&Exchange { endpoint: Some(EndpointFacts::default()), ..Exchange::default() });
        for text in ["", "plain", "a \"quoted\" \\ path", "\0\u{1f}\u{7f}\n\r\t\u{8}\u{c}", "h\u{e9}\u{2028}\u{1f600}"] {
            same(&full(text));
        }
        for byte in 0..=127_u8 {
            same(&full(&format!("{}{}{}", "x".repeat(40), char::from(byte), "y".repeat(40))));
        }
        for reason in Reason::ALL {
            same(&Exchange { reason: Some(reason), ..Exchange::default() });
        }
        for verdict in [Verdict::Allowed, Verdict::Denied, Verdict::Invalid] {
            same(&Exchange { verdict: Some(verdict), ..Exchange::default() });
        }
    }
}
