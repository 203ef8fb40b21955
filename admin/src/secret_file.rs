//! Files that only the gateway's user may read: keys and the first token.

use crate::StartError;
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// Reads a key of `length` random bytes, made if the file is absent. A file that others can read is refused.
pub(crate) fn read_or_make(path: &Path, length: usize) -> Result<Zeroizing<Vec<u8>>, StartError> {
    match read(path) {
        Err(StartError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    let mut key = Zeroizing::new(vec![0; length]);
    aws_lc_rs::rand::fill(&mut key).map_err(|_| StartError::Random)?;
    match write(path, &key) {
        // Another process was faster; its key is the one.
        Err(StartError::File { source, .. }) if source.kind() == ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(error),
        Ok(()) => Ok(key),
    }
}

/// Reads a file that nobody else may be able to read.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let failed = |source| StartError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StartError::KeyExposed { path: path.to_owned(), mode });
    }
    // Longer than any key, so that reading does not leave copies behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    file.take(4096).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a new file that nobody else may read. It appears whole or not at all, and survives a power cut.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let failed = |source| StartError::File { path: path.to_owned(), source };
    let partial = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::hard_link(&partial, path));
    let removed = std::fs::remove_file(&partial);
    written.and(removed).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
