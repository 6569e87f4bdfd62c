//! This build's schema ids beside a registry's.
//!
//! Inside the process a value carries this build's own ids ([`crate::codec::Schema`]'s discriminants and those in
//! [`crate::codec::HISTORY`]); on a cluster's wire it carries the registry's. [`WireIds`] turns bytes 1 to 4 of a value
//! from the one into the other and back.
//!
//! An id the registry gave to somebody else's schema stays as it is, except where this build has that id itself: then
//! [`FOREIGN`] is set, so that no schema of ours is taken for it. Both ways together are a permutation of all ids
//! (but for the further ids a registry gave to one schema), so whatever came in goes out again byte for byte.

use crate::codec::{HEADER_BYTES, Schema, Version};
use thiserror::Error;

/// The bit that marks an id as somebody else's where this build has the same one. No id of ours and no id of a
/// registry (a positive `int`) has it.
pub const FOREIGN: u32 = 1 << 31;

/// The id to show for one that is not known here: the registry's own.
pub fn foreign_id(id: u32) -> u32 {
    let bare = id & !FOREIGN;
    if Version::by_id(bare).is_some() { bare } else { id }
}

/// Why ids cannot be paired.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireIdsError {
    /// A schema of this build has no id there.
    #[error("{schema:?} (id {local} here) has no id in the registry")]
    Missing {
        /// Which schema.
        schema: Schema,
        /// Its id here.
        local: u32,
    },
    /// A pair names an id that this build does not have.
    #[error("no schema has id {0} here")]
    Unknown(u32),
    /// Two schemas would share one id.
    #[error("the registry's id {registry} stands for the ids {first} and {second} here")]
    Shared {
        /// The registry's id.
        registry: u32,
        /// One id here.
        first: u32,
        /// Another id here.
        second: u32,
    },
    /// The registry's id is no positive `int`.
    #[error("{0} is no id of a registry")]
    OutOfRange(u32),
}

/// Which id of ours is which of the registry's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireIds {
    /// The registry's id at the index of ours; at other indexes the index itself.
    dense: Box<[u32]>,
    /// The way out for ids past `dense` that do not stay as they are, sorted.
    moved_out: Box<[(u32, u32)]>,
    /// The way in for ids that do not stay as they are, sorted.
    moved_in: Box<[(u32, u32)]>,
}

impl WireIds {
    /// Without a registry: every id is its own.
    pub fn identity() -> Self {
        Self { dense: Box::new([]), moved_out: Box::new([]), moved_in: Box::new([]) }
    }

    /// From pairs of (id here, the registry's id). An id here may come several times, since a registry may give one
    /// schema several ids: all are understood, the first is written.
    ///
    /// # Errors
    /// [`WireIdsError`] when a version this build writes or reads has no id, a pair names no such version, two
    /// versions share an id, or an id is out of range.
    pub fn new(pairs: impl IntoIterator<Item = (u32, u32)>) -> Result<Self, WireIdsError> {
        let mut written = Vec::new();
        let mut read: Vec<(u32, u32)> = Vec::new();
        for (local, registry) in pairs {
            if Version::by_id(local).is_none() {
                return Err(WireIdsError::Unknown(local));
            }
            if registry & FOREIGN != 0 {
                return Err(WireIdsError::OutOfRange(registry));
            }
            match find(&read, registry) {
                Some(first) if first != local => {
                    return Err(WireIdsError::Shared { registry, first, second: local });
                }
                Some(_) => {}
                None => insert(&mut read, registry, local),
            }
            if find(&written, local).is_none() {
                insert(&mut written, local, registry);
            }
        }
        if let Some(version) = Version::all().find(|it| find(&written, it.id).is_none()) {
            return Err(WireIdsError::Missing { schema: version.schema, local: version.id });
        }
        Ok(Self::complete(&written, read))
    }

    /// Gives every id that is not the registry's name for one of ours a place where it is taken for none of ours, and
    /// from which it finds back.
    fn complete(written: &[(u32, u32)], mut read: Vec<(u32, u32)>) -> Self {
        let mut out = written.to_vec();
        let ours = |id: u32| find(written, id);
        let taken: Vec<u32> = written.iter().map(|it| it.0).filter(|id| find(&read, *id).is_none()).collect();
        for id in taken {
            // The marked id is now in use, so whoever comes with it goes where nobody else does: to the one registry
            // id at the end of this chain that is no id of ours.
            let mut end = id;
            while let Some(next) = ours(end) {
                end = next;
            }
            insert(&mut read, id, id | FOREIGN);
            insert(&mut out, id | FOREIGN, id);
            insert(&mut read, id | FOREIGN, end);
            insert(&mut out, end, id | FOREIGN);
        }
        let top = written.last().map_or(0, |it| it.0 + 1);
        let dense = (0..top).map(|id| find(&out, id).unwrap_or(id)).collect();
        let moved_out = out.into_iter().filter(|it| it.0 >= top).collect();
        Self { dense, moved_out, moved_in: read.into_boxed_slice() }
    }

    /// The registry's id of one of ours; of an id that came in as somebody else's, the one it came in with.
    pub fn to_registry(&self, local: u32) -> u32 {
        match self.dense.get(local as usize) {
            Some(registry) => *registry,
            None => find(&self.moved_out, local).unwrap_or(local),
        }
    }

    /// Our id of one of the registry's; for somebody else's, an id that no schema has here.
    pub fn to_local(&self, registry: u32) -> u32 {
        find(&self.moved_in, registry).unwrap_or(registry)
    }

    /// Rewrites a value's header for the wire. A value that has none is left alone.
    pub fn header_to_registry(&self, value: &mut [u8]) {
        translate(value, |id| self.to_registry(id));
    }

    /// Rewrites a value's header from the wire. A value that has none is left alone.
    pub fn header_to_local(&self, value: &mut [u8]) {
        translate(value, |id| self.to_local(id));
    }
}

impl Default for WireIds {
    fn default() -> Self {
        Self::identity()
    }
}

/// Rewrites the schema id of a value that starts with 0 and is long enough to have one.
pub fn translate(value: &mut [u8], turn: impl FnOnce(u32) -> u32) {
    if let Some([0, id @ ..]) = value.first_chunk_mut::<HEADER_BYTES>() {
        *id = turn(u32::from_be_bytes(*id)).to_be_bytes();
    }
}

fn find(sorted: &[(u32, u32)], key: u32) -> Option<u32> {
    let at = sorted.binary_search_by_key(&key, |it| it.0).ok()?;
    sorted.get(at).map(|it| it.1)
}

/// Adds a pair, or gives the key its new value.
fn insert(sorted: &mut Vec<(u32, u32)>, key: u32, value: u32) {
    match sorted.binary_search_by_key(&key, |it| it.0) {
        Ok(at) => sorted[at].1 = value,
        Err(at) => sorted.insert(at, (key, value)),
    }
}

#[cfg(test)]
mod tests;
