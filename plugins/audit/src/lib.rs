//! The audit filter's glue: collects what `selection` chose from both heads and emits it when the exchange ends.

mod selection;

use selection::{Config, Field, Sample, Selection};
use tidegate_sdk::{ConfigError, Exchange, Filter, Flow, Headers, StatusCode, audit};

/// What the gateway knows and an event repeats, so that an event can be read on its own. Absent ones are left out.
const ATTRIBUTES: [(&str, &str); 9] = [
    ("principal", "caller.principal"),
    ("namespace", "caller.namespace"),
    ("service_account", "caller.service-account"),
    ("workload", "caller.workload"),
    ("address", "caller.address"),
    ("service", "service"),
    ("host", "target.host"),
    ("method", "request.method"),
    ("path", "request.path"),
];

/// The filter.
#[derive(Debug)]
pub struct Audit {
    kind: String,
    request: Selection,
    response: Selection,
    sample: Sample,
}

/// What is collected of one exchange.
#[derive(Debug, Default)]
pub struct Collected {
    status: Option<u16>,
    request: Vec<Field>,
    response: Vec<Field>,
}

impl Filter for Audit {
    type Config = Config;
    type State = Collected;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let checked = config.check().map_err(|mistake| ConfigError::new(mistake.pointer, mistake.detail))?;
        Ok(Self { kind: checked.kind, request: checked.request, response: checked.response, sample: checked.sample })
    }

    fn on_request(&self, exchange: &mut Exchange<Collected>, head: &mut Headers<'_>, _end: bool) -> Flow {
        if !self.sample.takes(exchange.id()) {
            return Flow::Done;
        }
        let values = head.get_many(self.request.names());
        exchange.state.request = self.request.fields(values);
        Flow::Proceed
    }

    fn on_response(&self, exchange: &mut Exchange<Collected>, status: StatusCode, head: &mut Headers<'_>, _end: bool) -> Flow {
        let values = head.get_many(self.response.names());
        exchange.state.status = Some(status.as_u16());
        exchange.state.response = self.response.fields(values);
        Flow::Proceed
    }

    fn on_log(&self, exchange: &mut Exchange<Collected>) {
        let collected = std::mem::take(&mut exchange.state);
        let outcome = match collected.status {
            Some(_) => audit::Outcome::Allowed,
            // No response was seen: the exchange ended before the upstream answered.
            None => audit::Outcome::Error,
        };
        let mut event = audit::Event::new(&self.kind, outcome).known(&ATTRIBUTES);
        if let Some(status) = collected.status {
            event = event.field("status", u64::from(status));
        }
        for field in collected.request {
            event = event.field(self.request.label(field.index), field.value);
        }
        for field in collected.response {
            event = event.field(self.response.label(field.index), field.value);
        }
        event.emit();
    }
}

tidegate_sdk::export!(Audit);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_sdk::{attributes::Value, testing::Driver};

    #[test]
    fn one_event_holds_what_was_selected() {
        let config =
            json!({"kind": "payments", "request_headers": ["X-Tenant", "authorization"], "response_headers": ["x-id"]});
        let driver = Driver::<Audit>::new(config).unwrap();
        let exchange = driver
            .exchange()
            .attribute("caller.principal", "spiffe://cluster.local/ns/shop/sa/checkout")
            .attribute("request.method", "POST")
            .request([("x-tenant", "blue"), ("authorization", "Bearer topsecret"), ("x-other", "no")])
            .response(StatusCode::CREATED, [("x-id", "42")])
            .log();
        let events = exchange.events();
        assert_eq!(events.len(), 1);
        let event = &events[0];
        assert_eq!(event.kind, "payments");
        assert_eq!(event.outcome, audit::Outcome::Allowed);
        assert_eq!(event.field("principal"), Some(&"spiffe://cluster.local/ns/shop/sa/checkout".into()));
        assert_eq!(event.field("method"), Some(&"POST".into()));
        assert_eq!(event.field("status"), Some(&Value::Uint(201)));
        assert_eq!(event.field("request.x-tenant"), Some(&"blue".into()));
        assert_eq!(event.field("response.x-id"), Some(&"42".into()));
        assert_eq!(event.field("request.authorization"), Some(&"(redacted)".into()));
        assert!(!format!("{event:?}").contains("topsecret"));
        assert!(!format!("{event:?}").contains("x-other"));
    }

    #[test]
    fn an_exchange_without_a_response_is_an_error() {
        let driver = Driver::<Audit>::new(json!(null)).unwrap();
        let events = driver.exchange().request([]).log().events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].kind, "exchange");
        assert_eq!(events[0].outcome, audit::Outcome::Error);
    }

    #[test]
    fn a_share_of_the_exchanges_is_sampled() {
        let driver = Driver::<Audit>::new(json!({"sample": 25})).unwrap();
        let events: usize = (0..400).map(|_| driver.exchange().request([]).log().events().len()).sum();
        assert!((60..=140).contains(&events), "{events} of 400");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let error = |config| Driver::<Audit>::new(config).unwrap_err().to_string();
        assert!(error(json!({"kinds": "a"})).starts_with("/kinds: unknown field"));
        assert!(error(json!({"sample": 0})).starts_with("/sample: "));
        assert!(error(json!({"kind": ""})).starts_with("/kind: "));
        assert!(error(json!({"response_headers": ["a", "b c"]})).starts_with("/response_headers/1: "));
        assert!(error(json!({"request_headers": [1]})).starts_with("/request_headers/0: "));
    }
}
