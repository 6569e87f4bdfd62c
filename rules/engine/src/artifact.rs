//! Compiled code at rest: sealed by whoever compiled it, opened only by who holds the same key.
//!
//! # Why `unsafe` stands here
//!
//! `Component::deserialize` maps bytes as machine code. Bytes that the compiler did not write could do anything this
//! process can, so the library makes the call `unsafe` and asks the caller to vouch for them. We vouch by a seal: the
//! first 32 bytes of an artifact are an HMAC-SHA256, under a key that only this deployment's data directory holds, over
//! the module's digest, the engine's version and the code. [`ArtifactKey::open`] checks it, in constant time, before the
//! library sees a byte. Whoever can forge it can read the key, and so can already write to the data directory and to
//! the process that runs from it. A tenant can do neither: what it uploads is a module, never code, and the seal is made
//! in this process from what its own child wrote to a pipe that nobody else holds.
#![allow(unsafe_code, reason = "see the module's documentation")]

use crate::inspect::{Refusal, short};
use crate::{Module, RuleEngine};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use wasmtime::component::Component;

const SEAL_BYTES: usize = 32;
const BLOCK_BYTES: usize = 64;

/// Why an artifact is not used. It is compiled anew then.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The seal.
    #[error("TS0922: compiled code has no valid seal: it was damaged, or written by somebody else")]
    Seal,
    /// The library does not take it.
    #[error("TS0923: compiled code cannot be loaded: {0}")]
    Load(String),
    /// It is no rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Seals and opens compiled code.
#[derive(Clone)]
pub struct ArtifactKey([u8; SEAL_BYTES]);

impl ArtifactKey {
    /// From 32 random bytes.
    pub fn new(bytes: [u8; SEAL_BYTES]) -> Self {
        Self(bytes)
    }

    /// Code with its seal in front.
    pub fn seal(&self, engine: &RuleEngine, module_digest: &str, code: &[u8]) -> Vec<u8> {
        let mut sealed = self.mac(&engine.version(), module_digest, code).to_vec();
        sealed.extend_from_slice(code);
        sealed
    }

    /// The module of a sealed artifact.
    ///
    /// # Errors
    /// When the seal is not ours for this module and engine, or the code cannot be loaded.
    pub fn open(
        &self,
        engine: &RuleEngine,
        module_digest: &str,
        sealed: &[u8],
    ) -> Result<Module, ArtifactError> {
        let (seal, code) = sealed.split_first_chunk::<SEAL_BYTES>().ok_or(ArtifactError::Seal)?;
        let expected = self.mac(&engine.version(), module_digest, code);
        if !bool::from(expected.ct_eq(seal)) {
            return Err(ArtifactError::Seal);
        }
        // SAFETY: the seal says that this deployment's own compiler wrote these bytes for this engine's version.
        let component = unsafe { Component::deserialize(&engine.engine, code) };
        let component = component.map_err(|error| ArtifactError::Load(short(&error)))?;
        Ok(Module::new(engine, &component)?)
    }

    /// HMAC-SHA256 (RFC 2104). Lengths are part of what is sealed, so no field can run into the next.
    fn mac(&self, version: &str, module_digest: &str, code: &[u8]) -> [u8; SEAL_BYTES] {
        let pad = |with: u8| {
            let mut block = [with; BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(self.0) {
                *byte ^= key;
            }
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        for part in [version.as_bytes(), module_digest.as_bytes(), code] {
            inner.update((part.len() as u64).to_be_bytes());
            inner.update(part);
        }
        let mut outer = Sha256::new();
        outer.update(pad(0x5c));
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

impl std::fmt::Debug for ArtifactKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArtifactKey(…)")
    }
}
