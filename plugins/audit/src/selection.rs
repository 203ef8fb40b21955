//! Which headers are remembered of which exchanges: pure, and knows nothing of the gateway.

use crate::redaction::{REDACTED, Redaction, is_secret_header};
use matching::is_header_name;
use tidegate_sdk::ConfigError;

/// Most header names in one direction.
const NAMES: usize = 32;

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
pub(crate) struct Sample(pub(crate) u8);

impl Selection {
    pub(crate) fn new(prefix: &str, pointer: &str, names: Vec<String>) -> Result<Self, ConfigError> {
        if names.len() > NAMES {
            return Err(ConfigError::new(pointer, format!("at most {NAMES} headers are remembered")));
        }
        if let Some(index) = names.iter().position(|name| !is_header_name(name)) {
            let detail = format!("{:?} is not a header name (RFC 9110 section 5.1)", names[index]);
            return Err(ConfigError::new(format!("{pointer}/{index}"), detail));
        }
        let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let chosen =
            names.iter().map(|name| Chosen { label: format!("{prefix}.{name}"), secret: is_secret_header(name) }).collect();
        Ok(Self { names, chosen })
    }

    /// The names to ask for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The fields for the values that were got; what is absent is left out, what is secret never gets in.
    pub(crate) fn fields(&self, values: Vec<Option<Vec<u8>>>, redaction: &Redaction) -> Vec<Field> {
        let fields = self.chosen.iter().zip(values).enumerate().filter_map(|(index, (chosen, value))| {
            let value = value?;
            Some(Field { index, value: if chosen.secret { REDACTED.to_owned() } else { redaction.bytes(&value) } })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_remembered() {
        let redaction = Redaction::none();
        let selection =
            Selection::new("request", "/request_headers", vec!["Authorization".to_owned(), "x-id".to_owned()]).unwrap();
        let fields = selection.fields(vec![Some(b"hunter2".to_vec()), Some(b"7".to_vec())], &redaction);
        assert_eq!(fields[0].value, REDACTED);
        assert_eq!(fields[1].value, "7");
    }

    #[test]
    fn everything_is_sampled_unless_told_otherwise() {
        assert!((0..1000).all(|number| Sample(100).takes(number)));
        let taken = (0..10_000).filter(|number| Sample(10).takes(*number)).count();
        assert!((800..1200).contains(&taken), "{taken}");
    }
}
