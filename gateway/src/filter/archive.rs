//! Compiled modules on disk, so that a restart compiles nothing: one sealed file for each in a directory of its own, bounded
//! in number and bytes. What cannot be used is counted, logged and compiled anew; nothing here is needed to go on.

use super::{
    core::contract::TERMS,
    limits::{Limits, Metrics},
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tidegate_artefact::{Key, Native, Refusal};
use tidegate_policy::plugin::Digest;
use wasmtime::Engine;
use zeroize::Zeroizing;

/// How a file is called until it is whole.
const PARTIAL: &str = "new";

/// The directory of compiled modules. Only the gateway writes there; what it finds it believes by its seal alone.
pub(super) struct Archive {
    directory: PathBuf,
    key: Key,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// Held by whoever adds and removes files.
    writing: Mutex<()>,
}

/// A file of the archive.
struct Kept {
    /// Whether a route runs it; such files go last.
    in_use: bool,
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Archive {
    /// The archive in this data directory, made if absent.
    pub(super) fn open(data_dir: &Path, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::on_terms(TERMS, data_dir, limits, metrics)
    }

    /// As `open`, of what is compiled on these terms.
    fn on_terms(terms: &str, data_dir: &Path, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Self> {
        let directory = data_dir.join("filters");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        let key = key(&data_dir.join("filters.key"), terms)?;
        let archive = Self { directory, key, limits, metrics, writing: Mutex::default() };
        archive.make_room(|_| false)?;
        Ok(archive)
    }

    /// What was compiled from this module before, if it is here and can be used.
    pub(super) fn find(&self, engine: &Engine, digest: Digest) -> Option<Native> {
        let path = self.path(digest);
        let sealed = match self.read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                self.failed("read", &path, &error);
                return None;
            }
        };
        match tidegate_artefact::open(&self.key, digest.bytes(), engine, &sealed) {
            Ok(native) => {
                self.metrics.artefacts_loaded.add(1);
                Some(native)
            }
            Err(refusal) => {
                self.refused(&path, &refusal);
                None
            }
        }
    }

    /// Keeps what was compiled from this module; files of modules that are not `in_use` make room for it.
    pub(super) fn keep(&self, digest: Digest, native: &Native, in_use: impl Fn(Digest) -> bool) {
        let path = self.path(digest);
        let sealed = match tidegate_artefact::seal(&self.key, digest.bytes(), native) {
            Ok(sealed) => sealed,
            Err(error) => return self.failed("made", &path, &io::Error::other(error.to_string())),
        };
        if self.limits.artefacts == 0 || sealed.len() > self.limits.artefact_bytes {
            return;
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = write(&path, &sealed).and_then(|()| self.make_room(|kept| kept == digest || in_use(kept)));
        if let Err(error) = kept {
            self.failed("written", &path, &error);
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Reads a file whole, and marks it as used now. No more is read than may be kept.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let most = u64::try_from(self.limits.artefact_bytes).unwrap_or(u64::MAX);
        let mut sealed = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(most)).unwrap_or(0));
        (&file).take(most).read_to_end(&mut sealed)?;
        file.set_modified(SystemTime::now())?;
        Ok(sealed)
    }

    /// Removes the files used longest ago until what is left is within the limits, and what a crash left half written.
    fn make_room(&self, in_use: impl Fn(Digest) -> bool) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(digest) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                if path.extension().is_some_and(|extension| extension == PARTIAL) {
                    fs::remove_file(&path)?;
                }
                continue;
            };
            let known = entry.metadata()?;
            kept.push(Kept { in_use: in_use(digest), used: known.modified()?, bytes: known.len(), path });
        }
        kept.sort_by_key(|kept| (kept.in_use, kept.used));
        let (mut number, mut bytes) = (kept.len(), kept.iter().map(|kept| kept.bytes).sum::<u64>());
        let most = u64::try_from(self.limits.artefact_bytes).unwrap_or(u64::MAX);
        for surplus in kept {
            if number <= self.limits.artefacts && bytes <= most {
                break;
            }
            fs::remove_file(&surplus.path)?;
            self.metrics.artefacts_evicted.add(1);
            (number, bytes) = (number - 1, bytes - surplus.bytes);
        }
        self.metrics.artefacts.set(i64::try_from(number).unwrap_or(i64::MAX));
        self.metrics.artefact_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Says why a file is not used. It is replaced when its module has been compiled.
    fn refused(&self, path: &Path, refusal: &Refusal) {
        let path = path.display();
        match refusal {
            Refusal::Stale => {
                self.metrics.artefacts_stale.add(1);
                tracing::info!(%path, "a compiled filter is of another version of the gateway; it is compiled anew");
            }
            Refusal::Foreign | Refusal::Refused(_) => {
                self.metrics.artefacts_refused.add(1);
                let advice = "look who else can write there";
                tracing::warn!(%path, reason = %refusal, "a compiled filter is not used but compiled anew; {advice}");
            }
        }
    }

    fn failed(&self, what: &str, path: &Path, error: &io::Error) {
        self.metrics.artefacts_failed.add(1);
        let path = path.display();
        tracing::warn!(%path, %error, "a compiled filter could not be {what}; the next start compiles it again");
    }
}

/// Writes a file that appears whole. Not synced: what a power cut leaves of it has no valid seal.
fn write(path: &Path, sealed: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(sealed)?;
    fs::rename(&partial, path)
}

/// The key in this file. It protects nothing that cannot be made again, so one that is missing, damaged or was exposed is
/// replaced by another, and with it all that it sealed.
fn key(path: &Path, terms: &str) -> io::Result<Key> {
    match read_key(path, terms) {
        Ok(Ok(key)) => return Ok(key),
        Ok(Err(why)) => {
            let path = path.display();
            tracing::warn!(%path, "the key that seals compiled filters {why}; another is made, and filters are compiled anew");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut secret = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| io::Error::other("the random number generator failed"))?;
    let partial = path.with_extension(PARTIAL);
    // A new file, since one that others have open could be read while it is written.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(secret.as_slice())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(Key::new(&secret, terms))
}

/// The key, or why it is not to be used.
fn read_key(path: &Path, terms: &str) -> io::Result<Result<Key, &'static str>> {
    let mut file = File::open(path)?;
    let known = file.metadata()?;
    if known.permissions().mode() & 0o077 != 0 {
        return Ok(Err("can be read by others"));
    }
    let mut secret = Zeroizing::new([0; 32]);
    if known.len() != 32 || file.read_exact(secret.as_mut_slice()).is_err() {
        return Ok(Err("does not have 32 bytes"));
    }
    Ok(Ok(Key::new(&secret, terms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::engine;
    use wasmtime::Module;

    #[test]
    fn what_was_compiled_on_other_terms_is_compiled_anew() {
        let data = tempfile::tempdir().unwrap();
        let engine = Engine::new(&engine::config()).unwrap();
        let (digest, native) = (Digest::new([7; 32]), Native::Module(Module::new(&engine, b"\0asm\x01\0\0\0").unwrap()));
        let metrics = Arc::<Metrics>::default();
        let limits = Limits { artefacts: 8, ..Limits::default() };
        let on = |terms| Archive::on_terms(terms, data.path(), limits, Arc::clone(&metrics)).unwrap();
        on("the contract of an earlier version").keep(digest, &native, |_| false);
        let opened = Archive::open(data.path(), limits, Arc::clone(&metrics)).unwrap();
        assert!(opened.find(&engine, digest).is_none());
        assert_eq!((metrics.artefacts_stale.value(), metrics.artefacts_refused.value()), (1, 0));
        opened.keep(digest, &native, |_| false);
        assert!(opened.find(&engine, digest).is_some() && on(TERMS).find(&engine, digest).is_some());
        assert!(TERMS.contains("package tidegate:filter"), "a change of the contract changes the terms");
    }
}
