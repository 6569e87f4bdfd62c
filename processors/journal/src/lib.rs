//! Looks at fjall's journal before fjall does.
//!
//! A process that dies, or a disk that loses power, leaves the last batch of a journal torn: nobody was told of it, and
//! it is cut off. fjall does so where it meets something that it cannot read, and goes wrong in two cases:
//!
//! - A batch whose frame is whole but whose content is not (a sector in the middle never reached the disk) has the wrong
//!   checksum. fjall then refuses to open, for good, over a batch that was never acknowledged.
//! - Damage further up looks the same to it as a torn end: it cuts off every batch behind it, acknowledged or not.
//!
//! One batch at a time is written and synced, so the two are told apart by what follows: a torn batch is the last one,
//! and behind damage stand whole batches. [`mend`] cuts a torn end off and refuses damage; [`inspect`] is the reading.

mod batch;
mod unfinished;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// What a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Whole batches, then nothing but zeros.
    Whole,
    /// Whole batches up to `at`, then something that is none, and no whole batch behind it.
    Torn {
        /// Where the last whole batch ends, bytes.
        at: usize,
    },
    /// Whole batches behind something that is none.
    Damaged {
        /// Where the damage begins, bytes.
        at: usize,
        /// Where the first whole batch behind it begins, bytes.
        next: usize,
    },
}

/// Why a journal cannot be trusted.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It cannot be read or cut.
    #[error("{doing} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Acknowledged batches stand behind damage, or in a journal that was synced whole.
    #[error("{path} is damaged from byte {at} on, and holds acknowledged changes behind that", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins, bytes.
        at: usize,
    },
    /// A database with data in it does not say which version wrote it.
    #[error("{database} holds data, but its file `version` is missing or empty", database = database.display())]
    NoVersion {
        /// Its directory.
        database: PathBuf,
    },
    /// A process has it open: nothing of it may be changed.
    #[error("{database} is open in another process", database = database.display())]
    InUse {
        /// Its directory.
        database: PathBuf,
    },
}

/// Reads the bytes of a journal.
pub fn inspect(bytes: &[u8]) -> Finding {
    // Journals are made at full length, of zeros.
    let end = bytes.iter().rposition(|it| *it != 0).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    let mut at = 0;
    while let Some(length) = batch::length(&bytes[at..]) {
        at += length;
    }
    if at >= end {
        return Finding::Whole;
    }
    let whole = |from: &usize| batch::length(&bytes[*from..]).is_some();
    match (at + 1..end).find(whole) {
        Some(next) => Finding::Damaged { at, next },
        None => Finding::Torn { at },
    }
}

/// The journals of a database, oldest first.
fn journals(database: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let io = |error| JournalError::Io { doing: "cannot list", path: database.to_owned(), error };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(database).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let number = path.file_name().and_then(|it| it.to_str()?.strip_suffix(".jnl")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, JournalError> {
    std::fs::read(path).map_err(|error| JournalError::Io {
        doing: "cannot read",
        path: path.to_owned(),
        error,
    })
}

/// How often, and after how long each time, a lock is tried: the threads of a database that was just dropped in this
/// process hold it a little longer.
const LOCK_TRIES: u32 = 5;
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Takes fjall's own lock, for as long as the answer lives.
fn lock(database: &Path) -> Result<File, JournalError> {
    let path = database.join("lock");
    let io = |doing, error| JournalError::Io { doing, path: path.clone(), error };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|error| io("cannot open", error))?;
    for tried in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tried == LOCK_TRIES => {
                return Err(JournalError::InUse { database: database.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN_AFTER),
            Err(TryLockError::Error(error)) => return Err(io("cannot lock", error)),
        }
    }
    Ok(file)
}

/// Makes ready for fjall a database that nothing but fjall's lock guards, and that is made in its place: clears what is
/// left of a creation that was cut off, and mends the journal of a finished one as [`mend`] does.
///
/// # Errors
/// Those of [`mend`]; another process has it open; it holds data but no version.
pub fn prepare(database: &Path) -> Result<(), JournalError> {
    if !database.exists() {
        return Ok(());
    }
    let _locked = lock(database)?;
    unfinished::clear(database)?;
    mend(database)
}

fn cut(path: &Path, at: usize) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}

/// Cuts the torn end off the newest journal of a database that the caller has for itself, if it has one; a directory
/// that is not there has nothing to mend.
///
/// # Errors
/// A journal cannot be read, or is damaged: nothing is changed then.
pub fn mend(database: &Path) -> Result<(), JournalError> {
    if !database.exists() {
        return Ok(());
    }
    let mut journals = journals(database)?;
    let Some((_, newest)) = journals.pop() else { return Ok(()) };
    for (_, path) in journals {
        // It was synced whole before the next one was begun.
        match inspect(&read(&path)?) {
            Finding::Whole => {}
            Finding::Torn { at } | Finding::Damaged { at, .. } => {
                return Err(JournalError::Damaged { path, at });
            }
        }
    }
    match inspect(&read(&newest)?) {
        Finding::Whole => Ok(()),
        Finding::Damaged { at, .. } => Err(JournalError::Damaged { path: newest, at }),
        Finding::Torn { at } => {
            cut(&newest, at).map_err(|error| JournalError::Io { doing: "cannot cut", path: newest, error })
        }
    }
}

/// Makes the names in a database's directories durable. fjall syncs what is in the directory of a keyspace, but not that
/// directory's name: a loss of power takes a keyspace away with all that was synced in it.
///
/// # Errors
/// A directory cannot be synced.
pub fn sync_names(database: &Path) -> std::io::Result<()> {
    for dir in [&database.join("keyspaces"), database] {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
