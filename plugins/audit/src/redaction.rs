//! What never gets into an event: secrets by their name, and whatever the detectors find in what is left.

use detection::{Detectors, Kind, Mask};
use serde_json::Value;

/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "(redacted)";
/// Longest value that is remembered, in bytes; longer ones are cut. An event of 32 such values fits the gateway's limit
/// on events with room to spare.
const VALUE_BYTES: usize = 256;

/// The detectors that every value passes.
#[derive(Debug)]
pub(crate) struct Redaction {
    detectors: Detectors,
    mask: Mask,
}

impl Redaction {
    pub(crate) fn new(detectors: Detectors) -> Self {
        let mask = Mask::new(REDACTED, &detectors);
        Self { detectors, mask }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let nothing: detection::Setting = serde_json::from_str("[]").unwrap();
        Self::new(nothing.check("").unwrap())
    }

    /// The bytes as text, what is not UTF-8 shown as replacement characters.
    pub(crate) fn bytes(&self, value: &[u8]) -> String {
        self.text(&String::from_utf8_lossy(value))
    }

    /// The text without what the detectors find in it, cut to size. Cut last: half a card number is none to a detector.
    pub(crate) fn text(&self, text: &str) -> String {
        let masked = self.detectors.masked(&self.mask, text);
        if masked.len() <= VALUE_BYTES {
            return masked.into_owned();
        }
        format!("{}…", &masked[..masked.floor_char_boundary(VALUE_BYTES)])
    }

    /// What is left of a JSON value that is found under a name that holds no secret.
    pub(crate) fn value(&self, mut value: Value) -> Value {
        hide_secrets(&mut value);
        self.detectors.mask_value(&self.mask, &mut value);
        value
    }
}

/// Replaces what is named like a secret, at any depth.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(hide_secrets),
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret_field(name, kind(value)) {
                    *value = Value::from(REDACTED);
                } else {
                    hide_secrets(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a header of this (lower-case) name holds a credential. Better one too many than one too few.
pub(crate) fn is_secret_header(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["authorization", "cookie", "set-cookie", "proxy-authorization", "authentication-info", "www-authenticate"];
    NAMES.contains(&name) || name.ends_with("-authorization") || is_secret(name)
}

/// Whether the field of a JSON object holds a credential. Numbers do only where secrets are numbers: models and gateways
/// count `total_tokens`.
pub(crate) fn is_secret_field(name: &str, kind: Kind) -> bool {
    const DIGITS: [&str; 10] = ["password", "passwd", "pwd", "passcode", "pin", "cvv", "cvc", "cvv2", "cvc2", "otp"];
    let name = name.to_ascii_lowercase().replace('_', "-");
    match kind {
        Kind::Word => false,
        Kind::Number => DIGITS.contains(&name.as_str()),
        Kind::Text | Kind::Array | Kind::Object => {
            DIGITS.contains(&name.as_str()) || matches!(name.as_str(), "authorization" | "cookie") || is_secret(&name)
        }
    }
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null | Value::Bool(_) => Kind::Word,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::Text,
        Value::Array(_) => Kind::Array,
        Value::Object(_) => Kind::Object,
    }
}

fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 14] = [
        "api-key",
        "apikey",
        "api_key",
        "token",
        "secret",
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "credential",
        "session",
        "signature",
        "private-key",
        "privatekey",
    ];
    name.ends_with("-key") || name.ends_with("-auth") || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_that_hold_credentials_are_known() {
        for name in [
            "authorization",
            "cookie",
            "set-cookie",
            "proxy-authorization",
            "x-api-key",
            "apikey",
            "x-amz-security-token",
            "x-auth-token",
            "ocp-apim-subscription-key",
            "x-client-secret",
            "x-forwarded-authorization",
            "x-hub-signature",
            "x-pwd",
        ] {
            assert!(is_secret_header(name), "{name}");
        }
        for name in ["x-request-id", "user-agent", "content-type", "etag"] {
            assert!(!is_secret_header(name), "{name}");
        }
    }

    #[test]
    fn fields_that_hold_credentials_are_hidden_at_any_depth() {
        let redaction = Redaction::none();
        let value = json!({
            "user": {"name": "bob", "Password": "hunter2", "api_key": "k", "accessToken": "t", "pin": 1234, "pwd": 7, "userPwd": "x"},
            "usage": {"total_tokens": 12}, "list": [{"client_secret": ["a"]}], "cookies": null, "private_key": {"a": 1},
        });
        let wanted = json!({
            "user": {"name": "bob", "Password": REDACTED, "api_key": REDACTED, "accessToken": REDACTED, "pin": REDACTED, "pwd": REDACTED, "userPwd": REDACTED},
            "usage": {"total_tokens": 12}, "list": [{"client_secret": REDACTED}], "cookies": null, "private_key": REDACTED,
        });
        assert_eq!(redaction.value(value), wanted);
    }

    #[test]
    fn long_and_odd_values_are_made_readable() {
        let redaction = Redaction::none();
        assert_eq!(redaction.bytes(b"caf\xe9"), "caf\u{fffd}");
        assert_eq!(redaction.text(&"a".repeat(300)), format!("{}…", "a".repeat(256)));
        assert_eq!(redaction.text(&format!("{}é", "a".repeat(255))), format!("{}…", "a".repeat(255)));
    }

    #[test]
    fn what_is_found_is_hidden_before_a_value_is_cut() {
        let redaction = Redaction::new(detection::Setting::all().check("").unwrap());
        let text = format!("{} 4111111111111111", "a".repeat(248));
        assert!(!redaction.text(&text).contains("41111"), "half a card would have been left");
        assert_eq!(redaction.value(json!([4111111111111111_u64, "bob@example.com"])), json!([REDACTED, REDACTED]));
    }
}
