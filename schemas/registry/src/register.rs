//! Registering.

use crate::check::versions_of;
use crate::{Registry, RegistryError, Standing, subjects};
use tillstream_schemas::codec::Compatibility;

/// What [`Registry::register`] did to one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The subject.
    pub subject: &'static str,
    /// The registry's ids of the versions that were added, oldest first; none when all were there.
    pub added: Vec<u32>,
    /// The level the subject is held to now.
    pub level: Compatibility,
}

impl Registry {
    /// Puts every version of this build under each of its subjects, and holds the subjects to their levels. What is
    /// there stays; doing it again changes nothing. Nothing is changed when a subject refuses a version.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] with the subject; other [`RegistryError`]s when the registry does not answer or
    /// says no. What was registered before that stays.
    pub async fn register(&self, mut progress: impl FnMut(&Step)) -> Result<(), RegistryError> {
        let found = self.check().await?;
        if let Some(status) = found.iter().find(|it| matches!(it.standing, Standing::Incompatible(_))) {
            return Err(RegistryError::Incompatible {
                subject: status.subject.to_owned(),
                words: status.standing.to_string(),
            });
        }
        for ((schema, subject), status) in subjects().zip(found) {
            let level = schema.compatibility();
            let mut added = Vec::new();
            match status.standing {
                // A level needs a subject, in some registries; so its first version comes first.
                Standing::Missing => {
                    let versions = versions_of(schema);
                    for (at, version) in versions.iter().enumerate() {
                        added.push(self.post(subject, version).await?);
                        if at == 0 {
                            self.set_level(subject, level).await?;
                        }
                    }
                }
                Standing::Addable => {
                    self.set_level(subject, level).await?;
                    for version in self.absent(schema, subject).await? {
                        added.push(self.post(subject, version).await?);
                    }
                }
                Standing::OtherLevel(_) => self.set_level(subject, level).await?,
                Standing::Same | Standing::Incompatible(_) => {}
            }
            progress(&Step { subject, added, level });
        }
        Ok(())
    }
}
