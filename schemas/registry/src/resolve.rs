//! The registry's ids of this build's schemas.

use crate::check::versions_of;
use crate::same::Shape;
use crate::{CALLS_MAX, Registry, RegistryError, cache, subjects};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::path::Path;
use tillstream_schemas::codec::Schema;
use tillstream_schemas::wire_ids::WireIds;

/// Pairs of (id here, the registry's id), the one to write first.
pub(crate) type Pairs = Vec<(u32, u32)>;

impl Registry {
    /// The ids of every version this build writes or reads.
    ///
    /// # Errors
    /// [`RegistryError::Missing`] when one is not registered; other [`RegistryError`]s when the registry does not
    /// answer or says no.
    pub async fn resolve(&self) -> Result<WireIds, RegistryError> {
        Ok(WireIds::new(self.pairs().await?)?)
    }

    /// As [`Registry::resolve`], and writes the ids to the file. When the registry is down, the ids of an earlier
    /// start are taken from the file, if it was written with this registry and holds every version of this build.
    ///
    /// # Errors
    /// As [`Registry::resolve`]; [`RegistryError::NoCache`] when the registry is down and the file does not help.
    pub async fn resolve_or_cached(&self, path: &Path) -> Result<WireIds, RegistryError> {
        match self.pairs().await {
            Ok(pairs) => {
                let ids = WireIds::new(pairs.iter().copied())?;
                if let Err(error) = cache::write(path, &self.url, &pairs) {
                    tracing::warn!(
                        path = %path.display(),
                        "the schema ids cannot be kept for a start without the registry: {error}"
                    );
                }
                Ok(ids)
            }
            Err(down) if down.is_down() => match cache::read(path, &self.url) {
                Ok(pairs) => {
                    let ids = WireIds::new(pairs)?;
                    tracing::warn!(path = %path.display(), "{down}; the schema ids of an earlier start are used");
                    Ok(ids)
                }
                Err(detail) => Err(RegistryError::NoCache {
                    down: Box::new(down),
                    path: path.display().to_string(),
                    detail,
                }),
            },
            Err(error) => Err(error),
        }
    }

    async fn pairs(&self) -> Result<Pairs, RegistryError> {
        let there: BTreeSet<String> = self.subjects().await?.into_iter().collect();
        let there = &there;
        let found: Vec<Pairs> = stream::iter(subjects())
            .map(|(schema, subject)| self.pairs_of(schema, subject, there.contains(subject)))
            .buffered(CALLS_MAX)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// A subject may hold one layout several times, since a registry counts a changed doc or default as a version of
    /// its own: older builds wrote with those ids. Ours is the one that is equal in all but docs, else the newest.
    async fn pairs_of(&self, schema: Schema, subject: &str, exists: bool) -> Result<Pairs, RegistryError> {
        let registered = if exists { self.versions(subject).await? } else { Vec::new() };
        let there: Vec<(u32, Shape)> = registered
            .iter()
            .rev()
            .filter_map(|it| Shape::of(&it.text).ok().map(|shape| (it.id, shape)))
            .collect();
        let mut pairs = Vec::new();
        for version in versions_of(schema) {
            let ours = Shape::of_ours(version)?;
            let mut same: Vec<_> = there.iter().filter(|(_, shape)| shape.reads_as(&ours)).collect();
            same.sort_by_key(|(_, shape)| *shape != ours);
            if same.is_empty() {
                return Err(RegistryError::Missing {
                    subject: subject.to_owned(),
                    schema: schema.name(),
                    local: version.id,
                });
            }
            pairs.extend(same.into_iter().map(|(id, _)| (version.id, *id)));
        }
        Ok(pairs)
    }
}
