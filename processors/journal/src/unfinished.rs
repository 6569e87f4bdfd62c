//! A database that was being made when the process died.
//!
//! fjall makes `lock`, `keyspaces/` and `0.jnl`, then the file `version`, which it syncs, and only then anything that holds
//! data. Cut off before that it leaves a directory that it can neither open (there is no version) nor make anew (there
//! is a journal: "File exists"), for good. Nothing was ever written to such a database, and its files show it.

use crate::{JournalError, read};
use std::fs::File;
use std::path::Path;

/// What fjall begins its file `version` with.
const MAGIC: &[u8] = b"FJL";

/// Removes what a creation that was cut off has left of a database, so that it can be made anew. Does nothing to a
/// finished one, or where there is none. The caller holds the database's lock.
///
/// # Errors
/// The files cannot be read or removed, or there is no version although there is data: nothing is changed then.
pub(crate) fn clear(database: &Path) -> Result<(), JournalError> {
    let version = database.join("version");
    if version.exists() && read(&version)?.starts_with(MAGIC) {
        return Ok(());
    }
    let journals = crate::journals(database)?;
    for (_, journal) in &journals {
        if read(journal)?.iter().any(|it| *it != 0) {
            return Err(JournalError::NoVersion { database: database.to_owned() });
        }
    }
    let keyspaces = database.join("keyspaces");
    if keyspaces.exists() {
        let io = |error| JournalError::Io { doing: "cannot list", path: keyspaces.clone(), error };
        if std::fs::read_dir(&keyspaces).map_err(io)?.next().is_some() {
            return Err(JournalError::NoVersion { database: database.to_owned() });
        }
    }
    let left = journals.into_iter().map(|(_, journal)| journal);
    for path in left.chain(version.exists().then_some(version)) {
        let io = |error| JournalError::Io { doing: "cannot remove", path: path.clone(), error };
        std::fs::remove_file(&path).map_err(io)?;
    }
    let io = |error| JournalError::Io { doing: "cannot sync", path: database.to_owned(), error };
    File::open(database).and_then(|it| it.sync_all()).map_err(io)
}
