//! Where backtests are kept: one file each, in a folder that several processes may share.
//!
//! Who runs one holds the lock of a file beside it, which the system gives back when the process ends, however it ends.

use crate::job::Kept;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A folder.
#[derive(Clone, Debug)]
pub(crate) struct Shelf(PathBuf);

/// The right to run one, and to write its file.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Locked as long as it is open.
    _lock: File,
}

impl Shelf {
    /// Opens it, and makes it where it is missing.
    pub(crate) fn open(dir: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self(dir.to_path_buf()))
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.0.join(format!("{id}.{ending}"))
    }

    /// Puts a job there, whole: nobody ever finds half of one.
    pub(crate) fn put(&self, kept: &Kept) -> std::io::Result<()> {
        let (path, beside) = (self.path(&kept.spec.id, "json"), self.path(&kept.spec.id, "part"));
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_data()?;
        fs::rename(beside, path)
    }

    pub(crate) fn forget(&self, id: &str) {
        for ending in ["json", "lock"] {
            match fs::remove_file(self.path(id, ending)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(id, %error, "a backtest cannot be removed");
                }
                _ => {}
            }
        }
    }

    /// The right to run one; `None` while somebody has it.
    pub(crate) fn claim(&self, id: &str) -> std::io::Result<Option<Claim>> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.path(id, "lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Claim { _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether nobody runs it.
    pub(crate) fn is_unclaimed(&self, id: &str) -> bool {
        match self.claim(id) {
            Ok(claim) => claim.is_some(),
            Err(error) => {
                tracing::debug!(id, %error, "nobody can tell whether a backtest runs");
                false
            }
        }
    }

    /// One; `None` when it is not there. An id is a name that a caller sends: it never leads out of the folder.
    pub(crate) fn get(&self, id: &str) -> Option<Kept> {
        let is_name = !id.is_empty() && id.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        is_name.then(|| read(&self.path(id, "json"))).flatten()
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> std::io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "json") {
                found.extend(path.file_stem().and_then(|it| it.to_str()).map(str::to_owned));
            }
        }
        Ok(found)
    }

    /// All that can be read.
    pub(crate) fn all(&self) -> std::io::Result<Vec<Kept>> {
        Ok(self.ids()?.iter().filter_map(|id| self.get(id)).collect())
    }
}

/// What cannot be read is named in the log and left where it is.
fn read(path: &Path) -> Option<Kept> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a backtest cannot be read");
            return None;
        }
    };
    let kept = serde_json::from_slice(&bytes);
    kept.map_err(|error| tracing::warn!(path = %path.display(), %error, "a backtest cannot be read")).ok()
}
