//! Callers must send a header, with one of these values where some are listed. The request that
//! goes on bears a stamp, and one audit event says who was let through and who was not.

#[cfg(test)]
mod tests;

use tidegate_sdk::{
    ConfigError, Exchange, Filter, Flow, HeaderName, Headers, Reply, StatusCode,
    audit::{Event, Outcome},
};

/// What the route says. An unknown field is refused when the route is written, with a pointer to it.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The header that callers must send.
    header: String,
    /// The values that it may have; any where none is listed.
    #[serde(default)]
    values: Vec<String>,
    /// The header that the upstream sees, with this filter's name in it.
    #[serde(default = "stamp")]
    stamp: String,
}

fn stamp() -> String {
    "x-checked-by".to_owned()
}

/// The filter: made once, shown many exchanges.
#[derive(Debug)]
pub struct RequireHeader(Config);

impl Filter for RequireHeader {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        for (pointer, name) in [("/header", &config.header), ("/stamp", &config.stamp)] {
            if HeaderName::try_from(name.as_str()).is_err() {
                return Err(ConfigError::new(
                    pointer,
                    format!("{name:?} is not a header's name"),
                ));
            }
        }
        Ok(Self(config))
    }

    fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
        let Config {
            header,
            values,
            stamp,
        } = &self.0;
        let Some(value) = head.text(header) else {
            return refuse(format!("the header {header} is missing"));
        };
        if !values.is_empty() && !values.contains(&value) {
            return refuse(format!(
                "the header {header} has a value that is not listed"
            ));
        }
        // Some headers are the gateway's own, and it refuses to have them written.
        if let Err(error) = head.insert(stamp, "{{name}}") {
            return refuse(format!("the header {stamp} cannot be set: {error}"));
        }
        remember(Outcome::Allowed, "value", value);
        // Nothing more of this exchange is to be shown to this filter.
        Flow::Done
    }
}

/// Answers in the upstream's place.
fn refuse(why: String) -> Flow {
    remember(Outcome::Denied, "why", why.clone());
    let reply = Reply::new(StatusCode::FORBIDDEN).header("content-type", "text/plain");
    Flow::Reply(reply.body(format!("{why}\n")).details(why))
}

/// Leaves the one event, with what the gateway knows of the caller.
fn remember(outcome: Outcome, field: &str, value: String) {
    let known = [("principal", "caller.principal")];
    let event = Event::new("{{name}}", outcome)
        .known(&known)
        .field(field, value);
    // False where the gateway's limit on events is reached; the exchange goes on all the same.
    let _kept = event.emit();
}

tidegate_sdk::export!(RequireHeader);
