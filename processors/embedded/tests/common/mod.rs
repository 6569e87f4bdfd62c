//! A data dir of its own for a test.

use std::sync::Arc;
use tempfile::TempDir;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};

/// A data dir that goes when the test is over.
pub struct Dir(TempDir);

#[allow(dead_code, reason = "each test file uses what it needs")]
impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Two partitions, no retention by itself.
    pub fn settings(&self) -> EmbeddedSettings {
        let mut settings = EmbeddedSettings::new(self.0.path());
        settings.partitions = 2;
        settings.retention_every_ms = 0;
        settings.cache_bytes = 4 << 20;
        settings
    }

    pub fn open(&self) -> Arc<EmbeddedStore> {
        EmbeddedStore::open(self.settings()).unwrap()
    }
}
