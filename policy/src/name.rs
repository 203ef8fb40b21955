//! The name of a registered thing.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Longest name accepted, in bytes: as long as a DNS label, so that a name can become one.
pub const MAX_NAME_BYTES: usize = 63;

/// The name of a service, route, rule, workload, issuer, credential or plugin: 1 to 63 of `a-z 0-9 - _ .`, beginning
/// and ending with a letter or a digit. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a shared string, for records that outlive the snapshot.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends_are_words = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
        let all_known = bytes.iter().all(|&byte| word(byte) || matches!(byte, b'-' | b'_' | b'.'));
        if bytes.len() > MAX_NAME_BYTES || !ends_are_words || !all_known {
            return Err(format!(
                "{text:?} is not a name: use 1 to {MAX_NAME_BYTES} of a-z, 0-9, '-', '_' and '.', with a letter or a digit at both ends"
            ));
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
