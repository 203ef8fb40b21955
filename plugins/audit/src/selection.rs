//! What is remembered of an exchange and what never is: pure, and knows nothing of the gateway.

/// Longest value that is remembered, in bytes; longer ones are cut. An event of 32 such values fits the gateway's limit
/// on events with room to spare.
const VALUE_BYTES: usize = 256;
/// Most header names in one direction.
const NAMES: usize = 32;
/// What stands in the place of a secret.
const REDACTED: &str = "(redacted)";

/// The configuration. Every field has a default.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    kind: String,
    request_headers: Vec<String>,
    response_headers: Vec<String>,
    sample: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self { kind: "exchange".to_owned(), request_headers: Vec::new(), response_headers: Vec::new(), sample: 100 }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) kind: String,
    pub(crate) request: Selection,
    pub(crate) response: Selection,
    pub(crate) sample: Sample,
}

/// The headers of one direction that are remembered.
#[derive(Debug)]
pub(crate) struct Selection {
    names: Vec<String>,
    chosen: Vec<Chosen>,
}

/// What an event has of a header.
#[derive(Debug)]
struct Chosen {
    /// The field's name.
    label: String,
    secret: bool,
}

/// One field of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The place of its header in the selection.
    pub(crate) index: usize,
    pub(crate) value: String,
}

/// The share of the exchanges that leave an event, in percent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample(u8);

impl Config {
    pub(crate) fn check(self) -> Result<Checked, Mistake> {
        let mistake = |pointer: &str, detail: String| Err(Mistake { pointer: pointer.to_owned(), detail });
        if self.kind.is_empty() || self.kind.len() > 64 {
            return mistake("/kind", "a kind has 1 to 64 bytes".to_owned());
        }
        if !(1..=100).contains(&self.sample) {
            return mistake("/sample", format!("{} is not a percentage from 1 to 100", self.sample));
        }
        Ok(Checked {
            kind: self.kind,
            request: Selection::new("request", "/request_headers", self.request_headers)?,
            response: Selection::new("response", "/response_headers", self.response_headers)?,
            sample: Sample(self.sample),
        })
    }
}

impl Selection {
    fn new(prefix: &str, pointer: &str, names: Vec<String>) -> Result<Self, Mistake> {
        if names.len() > NAMES {
            return Err(Mistake { pointer: pointer.to_owned(), detail: format!("at most {NAMES} headers are remembered") });
        }
        if let Some(index) = names.iter().position(|name| !is_token(name)) {
            let detail = format!("{:?} is not a header name (RFC 9110 section 5.1)", names[index]);
            return Err(Mistake { pointer: format!("{pointer}/{index}"), detail });
        }
        let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let chosen = names.iter().map(|name| Chosen { label: format!("{prefix}.{name}"), secret: is_secret(name) }).collect();
        Ok(Self { names, chosen })
    }

    /// The names to ask for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The fields for the values that were got; what is absent is left out, what is secret never gets in.
    pub(crate) fn fields(&self, values: Vec<Option<Vec<u8>>>) -> Vec<Field> {
        let fields = self.chosen.iter().zip(values).enumerate().filter_map(|(index, (chosen, value))| {
            let value = value?;
            Some(Field { index, value: if chosen.secret { REDACTED.to_owned() } else { readable(value) } })
        });
        fields.collect()
    }

    /// The name of the field for the header at this place.
    pub(crate) fn label(&self, index: usize) -> &str {
        self.chosen.get(index).map_or("", |chosen| &chosen.label)
    }
}

impl Sample {
    /// Whether the exchange of this number leaves an event. Numbers follow each other, so they are mixed first
    /// (SplitMix64), or one of two workers could be left out altogether.
    pub(crate) fn takes(self, number: u64) -> bool {
        let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100 < u64::from(self.0)
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a header of this (lower-case) name holds a credential. Better one too many than one too few.
fn is_secret(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["authorization", "cookie", "set-cookie", "proxy-authorization", "authentication-info", "www-authenticate"];
    const PARTS: [&str; 10] =
        ["api-key", "apikey", "api_key", "token", "secret", "password", "credential", "session", "signature", "private-key"];
    NAMES.contains(&name)
        || name.ends_with("-authorization")
        || name.ends_with("-key")
        || name.ends_with("-auth")
        || PARTS.iter().any(|part| name.contains(part))
}

/// The value as text, cut to size; what is not UTF-8 is shown as replacement characters.
fn readable(value: Vec<u8>) -> String {
    if value.len() <= VALUE_BYTES {
        return String::from_utf8(value).unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned());
    }
    let mut text = String::from_utf8_lossy(&value[..VALUE_BYTES]).into_owned();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_remembered() {
        let secrets = [
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "Proxy-Authorization",
            "X-Api-Key",
            "apikey",
            "X-Amz-Security-Token",
            "X-Auth-Token",
            "Ocp-Apim-Subscription-Key",
            "X-Client-Secret",
            "X-Forwarded-Authorization",
            "X-Hub-Signature",
        ];
        for name in secrets {
            let selection = Selection::new("request", "/request_headers", vec![name.to_owned()]).unwrap();
            let fields = selection.fields(vec![Some(b"hunter2".to_vec())]);
            assert_eq!(fields.len(), 1, "{name}");
            assert_eq!(fields[0].value, REDACTED, "{name}");
        }
        for name in ["x-request-id", "user-agent", "content-type", "etag"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn long_and_odd_values_are_made_readable() {
        assert_eq!(readable(b"caf\xe9".to_vec()), "caf\u{fffd}");
        assert_eq!(readable(vec![b'a'; 300]), format!("{}…", "a".repeat(256)));
    }

    #[test]
    fn everything_is_sampled_unless_told_otherwise() {
        assert!((0..1000).all(|number| Sample(100).takes(number)));
        let taken = (0..10_000).filter(|number| Sample(10).takes(*number)).count();
        assert!((800..1200).contains(&taken), "{taken}");
    }
}
