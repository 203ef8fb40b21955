//! A credential: key material by name. The only types that hold secrets, and none of them can be printed.

use std::fmt;
use zeroize::Zeroizing;

/// What kind of key material a credential holds. All that anything but its use ever learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CredentialKind {
    /// A certificate chain and its private key.
    Certificate,
    /// Certificates that are believed.
    Trust,
    /// A secret value, such as an API key.
    Secret,
}

/// Key material as an operator writes it. It can be read from JSON and used, and can be neither printed nor written
/// back as JSON.
#[derive(Clone, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Credential {
    /// A certificate chain, leaf first, and its private key, both PEM.
    Certificate {
        /// PEM certificates, leaf first.
        chain: String,
        /// PEM private key: PKCS#8, PKCS#1 or SEC1.
        #[cfg_attr(feature = "openapi", schema(value_type = String, write_only))]
        key: Secret,
    },
    /// Certificates that are believed.
    Trust {
        /// PEM certificates.
        pem: String,
    },
    /// A secret value.
    Secret {
        /// The value.
        #[cfg_attr(feature = "openapi", schema(value_type = String, write_only))]
        value: Secret,
    },
}

/// Text that is wiped when dropped and never printed.
#[derive(Clone, serde::Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Credential {
    /// What kind it is.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Certificate { .. } => CredentialKind::Certificate,
            Self::Trust { .. } => CredentialKind::Trust,
            Self::Secret { .. } => CredentialKind::Secret,
        }
    }
}

impl fmt::Display for CredentialKind {
    /// The word that documents use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Trust => "trust",
            Self::Secret => "secret",
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?}, [sealed])", self.kind())
    }
}

impl Secret {
    /// The text, for its one use. Never put it in anything that is logged, recorded or answered.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}
