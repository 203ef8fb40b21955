//! The credential filter's glue: takes what the caller brought away, and has the gateway write what it is to use.

mod config;

use config::{Checked, Config, Entry, Otherwise};
use matching::Seen;
use tidegate_sdk::{ConfigError, Exchange, Filter, Flow, Headers, Reply, StatusCode, audit, upstream};

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
pub struct Credential(Checked);

impl Filter for Credential {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        config.check().map(Self)
    }

    fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
        // Chosen first: a header that is stripped may be one that an entry asks for.
        let entry = self.0.entry(&Seen(head));
        let stripped = self.0.strip.iter().fold(head.change(), |change, name| change.remove(name)).apply();
        if let Err(error) = stripped {
            return refuse(entry, &format!("the caller's own credentials cannot be removed: {error}"));
        }
        let Some(entry) = entry else {
            return match self.0.otherwise {
                Otherwise::Pass => Flow::Done,
                Otherwise::Refuse => refuse(None, "no credential is configured for this caller"),
            };
        };
        if let Err(error) = upstream::inject_secret(&entry.header, &entry.credential, entry.prefix()) {
            return refuse(Some(entry), &format!("credential {:?} cannot be used: {error}", entry.credential));
        }
        event(audit::Outcome::Modified, Some(entry)).emit();
        Flow::Done
    }
}

fn refuse(entry: Option<&Entry>, details: &str) -> Flow {
    event(audit::Outcome::Denied, entry).field("details", details).emit();
    let reply = Reply::new(StatusCode::FORBIDDEN).details(details).grpc_status(GRPC_PERMISSION_DENIED);
    Flow::Reply(reply.header("content-type", "text/plain").body("no credential for this caller\n"))
}

/// Which credential by name; what it is, nobody here knows.
fn event(outcome: audit::Outcome, entry: Option<&Entry>) -> audit::Event<'_> {
    let event = audit::Event::new("credential", outcome).known(&ATTRIBUTES);
    match entry {
        Some(entry) => event.field("credential", entry.credential.as_str()).field("header", entry.header.as_str()),
        None => event,
    }
}

tidegate_sdk::export!(Credential);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_sdk::testing::{Driver, Secret};

    fn driver(otherwise: &str) -> Driver<Credential> {
        let config = json!({
            "entries": [
                {"when": {"namespaces": ["shop"], "labels": {"tenant": "blue"}}, "credential": "blue-key"},
                {"when": {"principals": ["spiffe://cluster.local/ns/shop/*"], "headers": {"x-key": "*"}},
                 "credential": "shop-key", "header": "X-Key"},
            ],
            "otherwise": otherwise, "strip": ["x-old-key"],
        });
        Driver::new(config).unwrap().grants(json!({"credentials": ["blue-key", "shop-key"]}))
    }

    const OWN: [(&str, &str); 4] = [("authorization", "Bearer own"), ("x-key", "own"), ("x-old-key", "own"), ("accept", "*/*")];

    #[test]
    fn a_caller_gets_its_own_credential_and_loses_what_it_brought() {
        let driver = driver("refuse");
        let blue =
            driver.exchange().attribute("caller.namespace", "shop").attribute("caller.label.tenant", "blue").request(OWN);
        let secret = |header: &str, credential: &str, prefix: &str| Secret {
            header: header.to_owned(),
            credential: credential.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(blue.chosen().secrets, [secret("authorization", "blue-key", "Bearer ")]);
        let names: Vec<_> = blue.upstream().unwrap().headers.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["accept"]);
        let shop = driver.exchange().attribute("caller.principal", "spiffe://cluster.local/ns/shop/sa/cart").request(OWN);
        assert_eq!(shop.chosen().secrets, [secret("x-key", "shop-key", "")]);
        assert!(!format!("{:?}", shop.upstream()).contains("own"));
        let events = shop.events();
        assert_eq!((events.len(), events[0].outcome), (1, audit::Outcome::Modified));
        assert_eq!(events[0].field("credential"), Some(&"shop-key".into()));
    }

    #[test]
    fn a_caller_without_an_entry_is_refused() {
        let driver = driver("refuse");
        let exchange = driver.exchange().attribute("caller.namespace", "web").request(OWN);
        assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
        assert!(exchange.upstream().is_none() && exchange.chosen().secrets.is_empty());
        assert_eq!(exchange.events()[0].outcome, audit::Outcome::Denied);
    }

    #[test]
    fn or_it_passes_with_nothing_at_all() {
        let driver = driver("pass");
        let exchange = driver.exchange().attribute("caller.namespace", "web").request(OWN);
        let names: Vec<_> = exchange.upstream().unwrap().headers.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["accept"]);
        assert!(exchange.chosen().secrets.is_empty());
    }

    #[test]
    fn a_credential_that_the_route_does_not_grant_refuses_the_request() {
        let driver = driver("pass").grants(json!({"credentials": ["shop-key"]}));
        let exchange =
            driver.exchange().attribute("caller.namespace", "shop").attribute("caller.label.tenant", "blue").request(OWN);
        assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
        assert!(exchange.replied().unwrap().reason().contains("grants"), "{exchange:?}");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (config, wanted) in [
            (json!(null), "missing field `entries`"),
            (json!({"entries": [{"when": {"namespace": "a"}, "credential": "k"}]}), "/entries/0/when/namespace: unknown field"),
            (json!({"entries": [{"when": {"namespaces": ["a*b"]}, "credential": "k"}]}), "/entries/0/when/namespaces/0: "),
            (json!({"entries": [{"when": {}, "credential": "k"}]}), "/entries/0/when: "),
        ] {
            let error = Driver::<Credential>::new(config).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
