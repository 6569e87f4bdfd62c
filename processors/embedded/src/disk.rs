//! Watches the free space, so that the disk never gets so full that a commit cannot end.

use crate::settings::{EmbeddedSettings, FreeSpace, NowMs};
use parking_lot::Mutex;
use std::path::PathBuf;
use tillstream_log::LogError;

/// What asks for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// New records and keys.
    New,
    /// Commits of tasks: they end what has been begun, so they may go on for longer.
    Commit,
}

/// Watches the free space of the data dir.
pub struct DiskWatch {
    data_dir: PathBuf,
    reserve_bytes: u64,
    every_ms: i64,
    free_space: FreeSpace,
    now_ms: NowMs,
    last: Mutex<Option<(i64, u64)>>,
}

impl DiskWatch {
    /// Looks where the settings say.
    pub fn new(settings: &EmbeddedSettings) -> Self {
        Self {
            data_dir: settings.data_dir.clone(),
            reserve_bytes: settings.disk_reserve_bytes,
            every_ms: settings.disk_probe_every_ms,
            free_space: settings.free_space.clone(),
            now_ms: settings.now_ms.clone(),
            last: Mutex::new(None),
        }
    }

    fn available_bytes(&self) -> u64 {
        let now = (self.now_ms)();
        let mut last = self.last.lock();
        if let Some((at, available)) = *last
            && now.saturating_sub(at).abs() < self.every_ms
        {
            return available;
        }
        let available = (self.free_space)(&self.data_dir).unwrap_or_else(|error| {
            // Not knowing is no reason to refuse: a disk that is really full fails the commit.
            tracing::warn!(%error, "the free space cannot be read");
            u64::MAX
        });
        *last = Some((now, available));
        available
    }

    /// An error when there is too little space for that kind of work.
    pub fn check(&self, work: Work) -> Result<(), LogError> {
        let needed_bytes = match work {
            Work::New => self.reserve_bytes,
            Work::Commit => self.reserve_bytes / 4,
        };
        let available_bytes = self.available_bytes();
        if available_bytes < needed_bytes {
            return Err(LogError::DiskFull { available_bytes, needed_bytes });
        }
        Ok(())
    }
}
