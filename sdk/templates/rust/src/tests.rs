use super::*;
use serde_json::json;
use tidegate_sdk::testing::{Driver, Scripted};

fn driver() -> Driver<RequireHeader> {
    Driver::new(json!({"header": "x-team", "values": ["checkout", "billing"]})).unwrap()
}

/// The outcome of the only event.
fn outcome(exchange: &Scripted<'_, RequireHeader>) -> Outcome {
    let events = exchange.events();
    assert_eq!(events.len(), 1, "{events:?}");
    events[0].outcome
}

#[test]
fn a_listed_value_goes_on_with_a_stamp() {
    let driver = driver();
    let exchange = driver.exchange().request([("x-team", "checkout")]);
    assert_eq!(
        exchange.upstream().unwrap().header("x-checked-by"),
        Some("{{name}}")
    );
    assert_eq!(outcome(&exchange), Outcome::Allowed);
}

#[test]
fn no_header_and_another_value_are_answered() {
    let driver = driver();
    for header in [("x-other", "checkout"), ("x-team", "nobody")] {
        let exchange = driver.exchange().request([header]);
        assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN), "{header:?}");
        assert!(exchange.upstream().is_none(), "{header:?}");
        assert_eq!(outcome(&exchange), Outcome::Denied);
    }
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let error = Driver::<RequireHeader>::new(json!({"header": "no header"})).unwrap_err();
    assert!(error.to_string().contains("/header"), "{error}");
    let error =
        Driver::<RequireHeader>::new(json!({"header": "x-team", "valeus": []})).unwrap_err();
    assert!(error.to_string().contains("valeus"), "{error}");
}
