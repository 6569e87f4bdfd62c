//! One rule.

use crate::dry_run::DryRun;
use crate::trial::Trial;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rules::RuleFallback;
use tillstream_stage::rule::Hooks;

/// A module that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// 1, 2, 3 …
    pub number: i64,
    /// SHA-256 of its module, in hex.
    pub digest: Text,
    /// The module's size, bytes.
    pub size_bytes: i64,
    /// The hooks it implements.
    pub hooks: Hooks,
    /// When it was taken, ms since the epoch.
    pub uploaded_at_ms: i64,
    /// Who uploaded it.
    pub actor: Text,
    /// The JSON schema of its settings; `None`: any object will do.
    pub settings_schema: Option<Text>,
    /// The signing key that its module is signed by.
    pub signed_by: Option<Text>,
    /// What it made of its tenant's recent inputs when it was last tried on them.
    pub dry_run: Option<DryRun>,
}

/// A version in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// The version's number.
    pub version: i64,
    /// The rule's revision that this activation made: no two of a rule share one.
    pub revision: i64,
    /// Its place among the tenant's rules of a hook.
    pub order: i32,
    /// A JSON object.
    pub settings: Text,
    /// What holds when it gives no answer.
    pub fallback: RuleFallback,
    /// Since when, ms since the epoch.
    pub since_ms: i64,
    /// Who activated it.
    pub actor: Text,
}

/// Why a rule is no longer asked, though it is active.
#[derive(Clone, Debug, PartialEq)]
pub struct Trip {
    /// Since when, ms since the epoch.
    pub at_ms: i64,
    /// Calls that were watched.
    pub calls: i64,
    /// How many of them failed.
    pub failures: i64,
    /// How most of them failed.
    pub outcome: Text,
}

/// A rule of a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Its versions, by number.
    pub versions: Vec<Version>,
    /// What is in force.
    pub active: Option<Activation>,
    /// What was in force before, newest last.
    pub before: Vec<Option<Activation>>,
    /// Set while the breaker holds the rule out.
    pub tripped: Option<Trip>,
    /// A version on trial, also after it stopped by itself.
    pub trial: Option<Trial>,
    /// Grows by one with every change.
    pub revision: i64,
}

impl Rule {
    /// A version by its number.
    pub fn version(&self, number: i64) -> Option<&Version> {
        self.versions.iter().find(|it| it.number == number)
    }

    /// The version of a module.
    pub fn version_of(&self, digest: &str) -> Option<&Version> {
        self.versions.iter().find(|it| it.digest == digest)
    }

    /// What is in force, with its version.
    pub fn in_force(&self) -> Option<(&Activation, &Version)> {
        let active = self.active.as_ref()?;
        Some((active, self.version(active.version)?))
    }

    /// What is on trial and has not stopped, with its version.
    pub fn on_trial(&self) -> Option<(&Trial, &Version)> {
        let trial = self.trial.as_ref().filter(|it| it.halted.is_none())?;
        Some((trial, self.version(trial.version)?))
    }

    /// How events name a version of it.
    pub fn reference(name: &Text, version: &Version) -> RuleRef {
        RuleRef {
            name: name.clone(),
            version: version.number.to_string().into(),
            digest: version.digest.clone(),
            also: Vec::new(),
        }
    }
}
