//! Who may use the API: JSON Web Tokens (RFC 7519) signed with a key of the gateway's own, and three roles.

use crate::{StartError, problem::Problem, secret_file};
use axum::http::{HeaderMap, Method, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use std::{
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

const ISSUER: &str = "tidegate";
const AUDIENCE: &str = "tidegate-admin";
const KEY_BYTES: usize = 32;
const KEY_FORM: &str = "32 random bytes are needed; remove the file to have a new one made, which ends all tokens";
/// The first token lasts a year: long enough to set up with, and it does not stay valid for ever when it is forgotten.
const FIRST_TOKEN: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest life of a token, ten years; more is a mistake in the unit.
const MAX_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What a token permits. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything but key material, which nobody reads.
    Viewer,
    /// Changes services, routes, rules, workloads and plugins.
    Editor,
    /// Changes credentials and issuers too.
    Admin,
}

impl Role {
    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "editor" => Ok(Self::Editor),
            "admin" => Ok(Self::Admin),
            other => Err(format!("{other:?} is not a role: use viewer, editor or admin")),
        }
    }
}

/// A caller whose token held.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) who: String,
    pub(crate) role: Role,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    /// Tells one token's changes from another's in the audit.
    jti: String,
    role: Role,
    iat: u64,
    exp: u64,
}

/// Verifies tokens.
pub(crate) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// Mints a token for `role` that lasts `ttl` (a second to ten years), signed with the key in `data_dir`, which is made at
/// the first need. For `tidegate token`.
pub fn mint_token(data_dir: &Path, role: Role, ttl: Duration) -> Result<String, StartError> {
    let key = signing_key(data_dir)?;
    let mut id = [0; 8];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| StartError::Random)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: role.as_str().to_owned(),
        jti: format!("{:016x}", u64::from_be_bytes(id)),
        role,
        iat: now,
        exp: now + ttl.as_secs(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&key))
        .map_err(|_| StartError::KeyForm { origin: data_dir.join("token.key").display().to_string(), detail: KEY_FORM })
}

/// The key that tokens are signed with, made at the first need.
fn signing_key(data_dir: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let path = data_dir.join("token.key");
    let key = secret_file::read_or_make(&path, KEY_BYTES)?;
    if key.len() < KEY_BYTES {
        return Err(StartError::KeyForm { origin: path.display().to_string(), detail: KEY_FORM });
    }
    Ok(key)
}

impl Verifier {
    /// Whether the signing key, if there is one already, can be read and is one. Makes nothing.
    pub(crate) fn check_form(data_dir: &Path) -> Result<(), StartError> {
        if data_dir.join("token.key").exists() { signing_key(data_dir).map(drop) } else { Ok(()) }
    }

    /// Loads the signing key, and at the very first start writes the first token to `DIR/admin.token`.
    pub(crate) fn load(data_dir: &Path, first_start: bool) -> Result<Self, StartError> {
        let key = signing_key(data_dir)?;
        let path = data_dir.join("admin.token");
        if first_start && !path.exists() {
            let token = mint_token(data_dir, Role::Admin, FIRST_TOKEN)?;
            secret_file::write(&path, format!("{token}\n").as_bytes())?;
            tracing::info!(path = %path.display(), "wrote a token with the admin role, valid for a year");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Tokens are minted and checked by the same clock.
        validation.leeway = 0;
        Ok(Self { key: DecodingKey::from_secret(&key), validation })
    }

    /// The caller of a request, or the 401 that says what to do.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let refused = |detail: &str| {
            let how = "send `Authorization: Bearer <token>`; the first token is in admin.token in the data directory, and `tidegate token` mints more";
            Problem::new(StatusCode::UNAUTHORIZED, format!("{detail}: {how}"))
        };
        let value = headers.get(header::AUTHORIZATION).ok_or_else(|| refused("this resource needs a token"))?;
        let token = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| refused("the Authorization header is not a bearer token"))?;
        match jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation) {
            Ok(data) => Ok(Caller { who: format!("{}:{}", data.claims.sub, data.claims.jti), role: data.claims.role }),
            Err(error) => Err(refused(match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => "the token has expired",
                jsonwebtoken::errors::ErrorKind::InvalidSignature => "the token was not signed by this gateway",
                jsonwebtoken::errors::ErrorKind::InvalidIssuer | jsonwebtoken::errors::ErrorKind::InvalidAudience => {
                    "the token was not made for this API"
                }
                _ => "the token cannot be read",
            })),
        }
    }
}

/// The role that `method` needs on an entry of `collection`, or on a resource that is none (`explain`, which only reads):
/// one table, so that no handler can forget it. The collection is the one that the router found, percent-encoding undone:
/// a guard that reads the path otherwise than the handler does is none.
pub(crate) fn needed(method: &Method, collection: Option<&str>) -> Role {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match collection {
        Some("credentials" | "issuers") if !reads => Role::Admin,
        Some(_) if !reads => Role::Editor,
        _ => Role::Viewer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_needed_as_documented() {
        assert_eq!(needed(&Method::GET, Some("credentials")), Role::Viewer);
        assert_eq!(needed(&Method::POST, None), Role::Viewer);
        assert_eq!(needed(&Method::PUT, Some("rules")), Role::Editor);
        assert_eq!(needed(&Method::DELETE, Some("issuers")), Role::Admin);
        assert!(Role::Viewer < Role::Editor && Role::Editor < Role::Admin);
    }
}
