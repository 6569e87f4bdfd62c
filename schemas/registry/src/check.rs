//! What registering would do.

use crate::same::Shape;
use crate::{CALLS_MAX, Registry, RegistryError, subjects};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::fmt;
use tillstream_schemas::codec::{Schema, Version};

/// How a subject stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every version of ours is there, and the subject is held to its level.
    Same,
    /// The subject does not exist.
    Missing,
    /// A version of ours is not there yet, and may be added.
    Addable,
    /// The versions are there, but the subject is held to another level, named here.
    OtherLevel(String),
    /// A version of ours is not there, and may not be added. The registry's words.
    Incompatible(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Missing => f.write_str("missing"),
            Self::Addable => f.write_str("compatible new version"),
            Self::OtherLevel(level) => write!(f, "compatibility level is {level}"),
            Self::Incompatible(words) => write!(f, "incompatible: {words}"),
        }
    }
}

/// One subject, as [`Registry::check`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectStatus {
    /// The subject.
    pub subject: &'static str,
    /// Its schema.
    pub schema: Schema,
    /// How it stands.
    pub standing: Standing,
}

impl Registry {
    /// How every subject stands. Changes nothing.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry does not answer or says no.
    pub async fn check(&self) -> Result<Vec<SubjectStatus>, RegistryError> {
        let there: BTreeSet<String> = self.subjects().await?.into_iter().collect();
        let there = &there;
        stream::iter(subjects())
            .map(|(schema, subject)| async move {
                let standing = match there.contains(subject) {
                    true => self.standing(schema, subject).await?,
                    false => Standing::Missing,
                };
                Ok(SubjectStatus { subject, schema, standing })
            })
            .buffered(CALLS_MAX)
            .try_collect()
            .await
    }

    async fn standing(&self, schema: Schema, subject: &str) -> Result<Standing, RegistryError> {
        let absent = self.absent(schema, subject).await?;
        for version in &absent {
            if let Some(words) = self.refusal(subject, version).await? {
                return Ok(Standing::Incompatible(words));
            }
        }
        if !absent.is_empty() {
            return Ok(Standing::Addable);
        }
        let level = self.level(subject).await?;
        Ok(if level == schema.compatibility().as_str() {
            Standing::Same
        } else {
            Standing::OtherLevel(level)
        })
    }

    /// The versions of a schema that a subject does not have, oldest first.
    pub(crate) async fn absent(
        &self,
        schema: Schema,
        subject: &str,
    ) -> Result<Vec<&'static Version>, RegistryError> {
        let there: Vec<Shape> =
            self.versions(subject).await?.iter().filter_map(|it| Shape::of(&it.text).ok()).collect();
        let mut absent = Vec::new();
        for version in versions_of(schema) {
            if !there.contains(&Shape::of_ours(version)?) {
                absent.push(version);
            }
        }
        Ok(absent)
    }
}

/// The versions of a schema that this build writes or reads, oldest first.
pub(crate) fn versions_of(schema: Schema) -> Vec<&'static Version> {
    let mut versions: Vec<_> = Version::all().filter(|it| it.schema == schema).collect();
    versions.sort_by_key(|it| it.id);
    versions
}
