//! Sealing key material at rest: AES-256-GCM with a random nonce, the credential's name and kind as associated data, in a
//! versioned envelope. The key lives in a 0600 file or comes from the environment; it is wiped when dropped.

use crate::{StartError, secret_file};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::Path;
use tidegate_policy::credential::Secret;
use zeroize::Zeroizing;

/// First byte of an envelope: which algorithm and layout follow.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// What the seal check holds. Known, so that opening it says whether the key is right.
const CHECK: &[u8] = b"tidegate";

/// Seals and opens key material.
pub(crate) struct Sealer {
    key: RandomizedNonceKey,
    origin: String,
}

/// A sealed text that cannot be opened: another key, another name, or changed bytes.
#[derive(Debug)]
pub(crate) struct CannotOpen;

impl Sealer {
    /// The sealer with the key from the environment or `DIR/tidegate.key`, which is made when there is none and
    /// `may_make` says that nothing was sealed yet.
    pub(crate) fn load(data_dir: &Path, given: Option<&Secret>, may_make: bool) -> Result<Self, StartError> {
        let Some(given) = given else {
            let path = data_dir.join("tidegate.key");
            if !may_make && !path.exists() {
                return Err(StartError::KeyMissing { path });
            }
            let origin = path.display().to_string();
            return Self::with_key(&secret_file::read_or_make(&path, KEY_BYTES)?, origin);
        };
        let origin = "TIDEGATE_KEY".to_owned();
        match STANDARD.decode(given.reveal().trim()).map(Zeroizing::new) {
            Ok(bytes) => Self::with_key(&bytes, origin),
            Err(_) => Err(StartError::KeyForm { origin, detail: FORM }),
        }
    }

    /// Whether the key that [`Sealer::load`] would take is one. Makes nothing; a file that is not there is none's fault yet.
    pub(crate) fn check_form(data_dir: &Path, given: Option<&Secret>) -> Result<(), StartError> {
        if given.is_none() && !data_dir.join("tidegate.key").exists() {
            return Ok(());
        }
        Self::load(data_dir, given, false).map(drop)
    }

    fn with_key(bytes: &[u8], origin: String) -> Result<Self, StartError> {
        let key = Some(bytes)
            .filter(|bytes| bytes.len() == KEY_BYTES)
            .and_then(|bytes| RandomizedNonceKey::new(&AES_256_GCM, bytes).ok());
        match key {
            Some(key) => Ok(Self { key, origin }),
            None => Err(StartError::KeyForm { origin, detail: FORM }),
        }
    }

    /// Seals `text` for `name` of `kind`.
    pub(crate) fn seal(&self, kind: &str, name: &str, text: &[u8]) -> Result<Vec<u8>, StartError> {
        // The tag is appended in place: room for it now keeps the vector from moving and leaving a copy of the text behind.
        let mut sealed = Vec::with_capacity(text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(text);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(associated(kind, name)), &mut sealed)
            .map_err(|_| StartError::Random)?;
        Ok([&[VERSION], nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for `name` of `kind`.
    pub(crate) fn open(&self, kind: &str, name: &str, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (&VERSION, rest) = envelope.split_first().ok_or(CannotOpen)? else { return Err(CannotOpen) };
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let length = self.key.open_in_place(nonce, Aad::from(associated(kind, name)), &mut text).map_err(|_| CannotOpen)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// The sealed text that [`Sealer::check`] recognises.
    pub(crate) fn make_check(&self) -> Result<Vec<u8>, StartError> {
        self.seal("check", "key", CHECK)
    }

    /// Whether this is the key that sealed `envelope`.
    pub(crate) fn check(&self, envelope: &[u8]) -> Result<(), StartError> {
        match self.open("check", "key", envelope) {
            Ok(text) if text.as_slice() == CHECK => Ok(()),
            _ => Err(StartError::KeyWrong { origin: self.origin.clone() }),
        }
    }
}

const FORM: &str = "32 bytes are needed (in the environment as base64, such as `openssl rand -base64 32` prints)";

/// Neither part holds a NUL, so no two pairs are written alike.
fn associated(kind: &str, name: &str) -> Vec<u8> {
    format!("tidegate credential\0{kind}\0{name}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_only_with_its_key_name_and_kind_and_unchanged() {
        let directory = tempfile::tempdir().expect("a directory");
        let sealer = Sealer::load(directory.path(), None, true).expect("a key is made");
        let envelope = sealer.seal("secret", "stripe", b"sk_live_1").expect("it is sealed");
        assert!(!envelope.windows(9).any(|window| window == b"sk_live_1"));
        assert_eq!(sealer.open("secret", "stripe", &envelope).expect("it opens").as_slice(), b"sk_live_1");
        assert!(sealer.open("secret", "other", &envelope).is_err());
        assert!(sealer.open("trust", "stripe", &envelope).is_err());
        for place in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[place] ^= 1;
            assert!(sealer.open("secret", "stripe", &changed).is_err(), "byte {place}");
        }
        let other = tempfile::tempdir().expect("a directory");
        let other = Sealer::load(other.path(), None, true).expect("another key is made");
        assert!(other.open("secret", "stripe", &envelope).is_err());
        assert!(matches!(other.check(&sealer.make_check().expect("sealed")), Err(StartError::KeyWrong { .. })));
        let again = Sealer::load(directory.path(), None, false).expect("the key is read again");
        again.check(&sealer.make_check().expect("sealed")).expect("the same key");
    }

    #[test]
    fn keys_that_are_missing_exposed_or_malformed_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(Sealer::load(directory.path(), None, false), Err(StartError::KeyMissing { .. })));
        let given = Secret::from("c2hvcnQ=".to_owned());
        assert!(matches!(Sealer::load(directory.path(), Some(&given), true), Err(StartError::KeyForm { .. })));
        drop(Sealer::load(directory.path(), None, true).expect("a key is made"));
        let path = directory.path().join("tidegate.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("permissions are changed");
        assert!(matches!(Sealer::load(directory.path(), None, true), Err(StartError::KeyExposed { mode: 0o640, .. })));
    }
}
