//! Compiled code on disk, by module and engine.
//!
//! A file is written under another name and then renamed, so that nobody opens a half one; what has no valid seal is
//! compiled anew. The key lies beside the code and is readable by the owner alone.

use crate::error::RuleHostError;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tillstream_rule_engine::{ArtifactError, ArtifactKey, Module, RuleEngine};

const KEY_FILE: &str = "seal.key";

/// The cache of one data directory.
#[derive(Debug)]
pub struct ArtifactCache {
    dir: PathBuf,
    key: ArtifactKey,
}

impl ArtifactCache {
    /// Opens it, and makes it where it is missing.
    ///
    /// # Errors
    /// [`RuleHostError::Cache`] when the directory or its key cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, RuleHostError> {
        let failed = |error| RuleHostError::Cache { path: dir.to_path_buf(), error };
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join(KEY_FILE);
        let key = match read_key(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == ErrorKind::NotFound => make_key(&path)?,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { dir: dir.to_path_buf(), key: ArtifactKey::new(key) })
    }

    fn path(&self, engine: &RuleEngine, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", engine.version()))
    }

    /// The module, if its code is here and sealed by us.
    pub fn get(&self, engine: &RuleEngine, digest: &str) -> Option<Module> {
        let sealed = fs::read(self.path(engine, digest)).ok()?;
        match self.key.open(engine, digest, &sealed) {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::warn!(digest, %error, "compiled code is not used; the module is compiled anew");
                None
            }
        }
    }

    /// Keeps code that was just compiled, and loads it.
    ///
    /// # Errors
    /// When the code is no rule's. That it cannot be kept on disk is only logged: it is compiled again next time.
    pub fn put(&self, engine: &RuleEngine, digest: &str, code: &[u8]) -> Result<Module, ArtifactError> {
        let sealed = self.key.seal(engine, digest, code);
        if let Err(error) = self.write(&self.path(engine, digest), &sealed) {
            tracing::warn!(digest, %error, "compiled code cannot be kept");
        }
        self.key.open(engine, digest, &sealed)
    }

    fn write(&self, path: &Path, sealed: &[u8]) -> std::io::Result<()> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| std::io::Error::other(error.to_string()))?;
        let beside = self.dir.join(format!("{:016x}.part", u64::from_be_bytes(nonce)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = file.write_all(sealed).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // Left behind it would only take room.
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn read_key(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut key = [0; 32];
    let mut file = fs::File::open(path)?;
    file.read_exact(&mut key)?;
    Ok(key)
}

fn make_key(path: &Path) -> Result<[u8; 32], RuleHostError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| RuleHostError::Randomness(error.to_string()))?;
    let failed = |error| RuleHostError::Cache { path: path.to_path_buf(), error };
    // Whole or not at all: a process that starts at the same time finds either no key or all of it.
    let beside = path.with_extension(format!("{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    let linked = fs::hard_link(&beside, path);
    // The other name has served its purpose whether the link was made or somebody else was first.
    let _ = fs::remove_file(&beside);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read_key(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}
