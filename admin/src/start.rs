//! Why the control plane did not start. Each says what is wrong and what to do; none has changed anything. What the
//! system said is the error's source.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used; create it, or give the gateway's user the right to write there", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in it cannot be read or written.
    #[error("{} cannot be used; check its owner and permissions", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The API's address cannot be listened on.
    #[error(
        "admin_listen: the API cannot listen on {address}; stop what listens there, or choose another address with --admin-listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another gateway uses the data directory.
    #[error("another gateway uses the data directory {}: stop it, or give this one its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The database was written by a newer release.
    #[error("{} has schema {found} and this release knows schemas up to {known}: it was written by a newer release; start that one, or restore a backup (of exchanges.db, which holds records alone, the gateway makes a new one where it is moved away)", path.display())]
    DatabaseNewer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// The database is damaged.
    #[error("{} is damaged ({detail}); nothing was changed: restore it from a backup, or move it away to begin anew", path.display())]
    DatabaseDamaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// The database cannot be opened.
    #[error("{} cannot be opened: {detail}; check its owner and permissions, and that no other gateway uses it", path.display())]
    DatabaseUnreadable {
        /// The file.
        path: PathBuf,
        /// What the database engine said.
        detail: String,
    },
    /// What is stored does not compile.
    #[error("what {} holds cannot be put in force: {}", path.display(), .mistakes.join("; "))]
    Stored {
        /// The file.
        path: PathBuf,
        /// Everything wrong with it.
        mistakes: Vec<String>,
    },
    /// A key file can be read by others.
    #[error("{} can be read by others (mode {mode:03o}): run chmod 600 on it; if others had access to this machine, replace what it protects", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key has the wrong form.
    #[error("{origin} does not hold a key: {detail}")]
    KeyForm {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The key is missing while there is something sealed with it.
    #[error("{} is missing and the database holds credentials sealed with it: restore the file, or set TIDEGATE_KEY", path.display())]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one that sealed what is stored.
    #[error("the key from {origin} is not the one that sealed the credentials in the database: give the original key")]
    KeyWrong {
        /// Where it came from.
        origin: String,
    },
    /// The system has no randomness to make keys with.
    #[error("the system's random number generator failed: no key can be made")]
    Random,
}
