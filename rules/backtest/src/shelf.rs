//! Where backtests are kept between two runs of a process: one file each.

use crate::job::Kept;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A folder.
#[derive(Clone, Debug)]
pub(crate) struct Shelf(PathBuf);

impl Shelf {
    /// Opens it, and makes it where it is missing.
    pub(crate) fn open(dir: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self(dir.to_path_buf()))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// Puts a job there, whole: nobody ever finds half of one.
    pub(crate) fn put(&self, kept: &Kept) -> std::io::Result<()> {
        let path = self.path(&kept.spec.id);
        let beside = path.with_extension("part");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_data()?;
        fs::rename(beside, path)
    }

    pub(crate) fn forget(&self, id: &str) {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(id, %error, "a backtest cannot be removed");
            }
            _ => {}
        }
    }

    /// All that can be read; what cannot is named in the log and left where it is.
    pub(crate) fn all(&self) -> std::io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|it| it != "json") {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(kept) => found.push(kept),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a backtest cannot be read"),
            }
        }
        Ok(found)
    }
}
