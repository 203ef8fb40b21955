//! The filter's glue: asks the rules, and tells the gateway how to originate TLS.

mod config;

use config::{Checked, Config, Then};
use matching::Seen;
use tidegate_sdk::{
    ConfigError, Exchange, Filter, Flow, Headers, Reply, StatusCode,
    attributes::{self, Value},
    audit,
    upstream::{self, Tls},
};

/// What the gateway knows and an event repeats.
const ATTRIBUTES: [(&str, &str); 5] = [
    ("principal", "caller.principal"),
    ("namespace", "caller.namespace"),
    ("service_account", "caller.service-account"),
    ("service", "service"),
    ("host", "target.host"),
];
/// `PERMISSION_DENIED`, for gRPC callers.
const GRPC_PERMISSION_DENIED: u32 = 7;

/// The filter.
#[derive(Debug)]
pub struct TlsOrigination(Checked);

impl Filter for TlsOrigination {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        config.check().map(Self)
    }

    fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
        let rule = self.0.rule(&Seen(head));
        let index = rule.map(|(index, _)| index);
        let tls = match rule {
            None => None,
            Some((index, Then::Refuse)) => return refuse(Some(index), "a rule refuses it"),
            Some((_, Then::Originate(tls))) => Some(tls),
        };
        let registered = match attributes::get("upstream.tls") {
            Some(Value::Flag(registered)) => Some(registered),
            _ => None,
        };
        if !self.0.allows(tls, registered) {
            return refuse(index, "it would go on in plaintext");
        }
        if let (Some(index), Some(tls)) = (index, tls) {
            if let Err(error) = upstream::originate_tls(tls) {
                return refuse(Some(index), &format!("TLS cannot be originated so: {error}"));
            }
            chosen(index, tls).emit();
        }
        Flow::Done
    }
}

fn refuse(rule: Option<usize>, why: &str) -> Flow {
    let details = match rule {
        Some(index) => format!("{why} (rule {index})"),
        None => format!("{why} (no rule is about it)"),
    };
    event(audit::Outcome::Denied, rule).field("details", details.as_str()).emit();
    let reply = Reply::new(StatusCode::FORBIDDEN).details(details).grpc_status(GRPC_PERMISSION_DENIED);
    Flow::Reply(reply.header("content-type", "text/plain").body("refused by the rules for TLS origination\n"))
}

/// What was chosen, by name.
fn chosen(index: usize, tls: &Tls) -> audit::Event<'_> {
    let mut event = event(audit::Outcome::Allowed, Some(index));
    for (name, value) in [("sni", &tls.sni), ("trust", &tls.trust), ("certificate", &tls.certificate)] {
        if let Some(value) = value {
            event = event.field(name, value.as_str());
        }
    }
    event
}

fn event<'a>(outcome: audit::Outcome, rule: Option<usize>) -> audit::Event<'a> {
    let event = audit::Event::new("tls_origination", outcome).known(&ATTRIBUTES);
    match rule {
        Some(index) => event.field("rule", index as u64),
        None => event,
    }
}

tidegate_sdk::export!(TlsOrigination);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_sdk::{
        testing::Driver,
        upstream::{Alpn, TlsMode, TlsVersion},
    };

    fn driver() -> Driver<TlsOrigination> {
        let config = json!({"rules": [
            {"when": {"labels": {"tenant": "blue"}, "hosts": ["bank.example.com"]},
             "tls": {"mode": "mutual", "certificate": "blue-client", "trust": "bank-ca", "sni": "edge.bank.example.com",
                     "min_version": "1.3", "alpn": ["http/1.1"]}},
            {"when": {"hosts": ["bank.example.com"], "paths": ["/admin/*"]}, "refuse": true},
            {"when": {"headers": {"x-strict": "*"}}, "tls": {"min_version": "1.3"}},
        ]});
        Driver::new(config).unwrap().grants(json!({"credentials": ["blue-client", "bank-ca"]}))
    }

    #[test]
    fn a_tenant_shows_its_own_certificate() {
        let driver = driver();
        let exchange =
            driver.exchange().attribute("caller.label.tenant", "blue").attribute("target.host", "bank.example.com").request([]);
        let wanted = Tls {
            mode: Some(TlsMode::Mutual),
            sni: Some("edge.bank.example.com".to_owned()),
            trust: Some("bank-ca".to_owned()),
            min_version: Some(TlsVersion::Tls13),
            alpn: Some(vec![Alpn::Http11]),
            certificate: Some("blue-client".to_owned()),
            names: None,
        };
        assert_eq!(exchange.chosen().tls, Some(wanted));
        let events = exchange.events();
        assert_eq!((events.len(), events[0].outcome), (1, audit::Outcome::Allowed));
        assert_eq!(events[0].field("certificate"), Some(&"blue-client".into()));
        assert_eq!(events[0].field("rule"), Some(&Value::Uint(0)));
    }

    #[test]
    fn what_a_rule_refuses_or_would_be_plaintext_is_403() {
        let driver = driver();
        let bank = || driver.exchange().attribute("target.host", "bank.example.com").attribute("upstream.tls", true);
        let exchange = bank().attribute("request.path", "/x/../admin/keys").request([]);
        assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
        assert_eq!(exchange.replied().unwrap().reason(), "a rule refuses it (rule 1)");
        let exchange = bank().attribute("request.path", "/").request([]);
        assert!(exchange.upstream().is_some() && exchange.chosen().tls.is_none(), "no rule: as the service says");

        let exchange = driver.exchange().attribute("upstream.tls", false).request([]);
        assert_eq!(exchange.replied().unwrap().reason(), "it would go on in plaintext (no rule is about it)");
        let exchange = driver.exchange().attribute("upstream.tls", false).request([("x-strict", "1")]);
        assert_eq!(exchange.replied().unwrap().reason(), "it would go on in plaintext (rule 2)");
        let exchange = driver.exchange().attribute("upstream.tls", true).request([("x-strict", "1")]);
        assert_eq!(exchange.chosen().tls.as_ref().unwrap().min_version, Some(TlsVersion::Tls13));
        assert_eq!(driver.exchange().request([]).status(), Some(StatusCode::FORBIDDEN), "what is not known is plaintext");
    }

    #[test]
    fn what_the_route_does_not_grant_refuses_the_request() {
        let driver = driver().grants(json!({}));
        let exchange =
            driver.exchange().attribute("caller.label.tenant", "blue").attribute("target.host", "bank.example.com").request([]);
        assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
        assert!(exchange.replied().unwrap().reason().contains("grants"));
        assert_eq!(exchange.events()[0].outcome, audit::Outcome::Denied);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (config, wanted) in [
            (json!(null), "missing field `rules`"),
            (json!({"rules": [{"tls": {"mode": "passthrough"}}]}), "/rules/0/tls/mode: unknown variant"),
            (json!({"rules": [{"tls": {"certificates": "a"}}]}), "/rules/0/tls/certificates: unknown field"),
            (json!({"rules": [{"when": {"hosts": ["A.example"]}, "refuse": true}]}), "/rules/0/when/hosts/0: "),
        ] {
            let error = Driver::<TlsOrigination>::new(config).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
