//! Compiled code on disk, by module and engine.
//!
//! A file is written under another name and then renamed, so that nobody opens a half one; what has no valid seal is
//! compiled anew. The key lies beside the code. Whoever could write here could put a key and code of their own in the place
//! of ours, so the directory is this user's and nobody else's: it is closed to others, and one that is not ours is not used.

use crate::error::RuleHostError;
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tillstream_rule_engine::{ArtifactError, ArtifactKey, Module, RuleEngine};

const KEY_FILE: &str = "seal.key";
/// Only its owner looks into the directory, and only its owner reads or writes a file.
const OWNER_ALONE_DIR: u32 = 0o700;
const OWNER_ALONE: u32 = 0o600;

/// The cache of one directory.
#[derive(Debug)]
pub struct ArtifactCache {
    dir: PathBuf,
    key: ArtifactKey,
}

impl ArtifactCache {
    /// Opens it, and makes it where it is missing.
    ///
    /// # Errors
    /// [`RuleHostError::Cache`] when the directory or its key cannot be made or read, or is another user's.
    pub fn open(dir: &Path) -> Result<Self, RuleHostError> {
        let failed = |error| RuleHostError::Cache { path: dir.to_path_buf(), error };
        DirBuilder::new().recursive(true).mode(OWNER_ALONE_DIR).create(dir).map_err(failed)?;
        close(&fs::File::open(dir).map_err(failed)?, OWNER_ALONE_DIR).map_err(failed)?;
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
        let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(&beside)?;
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
    close(&file, OWNER_ALONE)?;
    file.read_exact(&mut key)?;
    Ok(key)
}

/// Shuts others out of what is ours; what is somebody else's is an error.
fn close(file: &fs::File, mode: u32) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn make_key(path: &Path) -> Result<[u8; 32], RuleHostError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| RuleHostError::Randomness(error.to_string()))?;
    let failed = |error| RuleHostError::Cache { path: path.to_path_buf(), error };
    // Whole or not at all: a process that starts at the same time finds either no key or all of it.
    let beside = path.with_extension(format!("{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(&beside).map_err(failed)?;
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
