//! `rules.registry.v1` and `rules.modules.v1`: a tenant's rules, as the history of every change.

use crate::registry::RegistryEvent;
use crate::{Text, Topic};
use serde::{Deserialize, Serialize};

/// One change to a tenant's rules. Every record has a key of its own, in the partition of the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleEvent {
    /// Unique id: an event that comes again is the same event.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// When it was asked for, ms since the epoch.
    pub occurred_at_ms: i64,
    /// Who asked: the id of an API key, or `breaker` or `trial` for what a worker does by itself.
    pub actor: Text,
    /// The rule's name; empty where the tenant's signing keys change.
    pub rule: Text,
    /// What changes.
    pub payload: RulePayload,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RulePayload {
    /// A module is the rule's next version.
    #[serde(rename = "tillstream.RuleVersionUploaded")]
    Uploaded(RuleVersionUploaded),
    /// A version answers from now on.
    #[serde(rename = "tillstream.RuleActivated")]
    Activated(RuleActivated),
    /// What was active before is active again.
    #[serde(rename = "tillstream.RuleRolledBack")]
    RolledBack(RuleRolledBack),
    /// The rule failed too often.
    #[serde(rename = "tillstream.RuleTripped")]
    Tripped(RuleTripped),
    /// The rule answers no more.
    #[serde(rename = "tillstream.RuleRetired")]
    Retired(RuleRetired),
    /// A version is asked beside the one that answers.
    #[serde(rename = "tillstream.RuleShadowed")]
    Shadowed(RuleShadowed),
    /// A version answers for a share of the orders.
    #[serde(rename = "tillstream.RuleCanaried")]
    Canaried(RuleCanaried),
    /// The version that answers has other settings.
    #[serde(rename = "tillstream.RuleConfigured")]
    Configured(RuleConfigured),
    /// What a worker counted of a version on trial.
    #[serde(rename = "tillstream.RuleMeasured")]
    Measured(RuleMeasured),
    /// A version was asked what its tenant's rules were asked of late.
    #[serde(rename = "tillstream.RuleTried")]
    Tried(RuleTried),
    /// Modules signed by a key are taken.
    #[serde(rename = "tillstream.RuleSigningKeyAdded")]
    SigningKeyAdded(RuleSigningKeyAdded),
    /// A key signs no more.
    #[serde(rename = "tillstream.RuleSigningKeyRevoked")]
    SigningKeyRevoked(RuleSigningKeyRevoked),
    /// Whether the tenant's modules must be signed.
    #[serde(rename = "tillstream.RuleSigningConfigured")]
    SigningConfigured(RuleSigningConfigured),
}

/// A module is the rule's next version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleVersionUploaded {
    /// SHA-256 of the module, in hex: its key in `rules.modules`.
    pub digest: Text,
    /// The module's size.
    pub size_bytes: i64,
    /// The hooks it implements.
    pub hooks: Vec<Text>,
    /// The JSON schema that the module brings for its settings; `None`: any object will do.
    #[serde(default)]
    pub settings_schema: Option<Text>,
    /// Who signed the module; `None`: nobody.
    #[serde(default)]
    pub signature: Option<RuleSignature>,
}

/// A signature of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSignature {
    /// The signing key.
    pub key_id: Text,
    /// Ed25519 over the module's digest, in hex.
    pub signature: Text,
}

/// A version answers from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleActivated {
    /// Which version.
    pub version: i64,
    /// Its place among the tenant's rules of a hook: lower is asked first.
    pub order: i32,
    /// What it is told beside the order: a JSON object.
    pub settings: Text,
    /// What holds for an order when the rule gives no answer.
    pub fallback: RuleFallback,
    /// The rule's revision that this is meant to follow; `None`: any.
    #[serde(default)]
    pub expected_revision: Option<i64>,
    /// Whether it holds although the version gave no answer to most of its tenant's recent inputs.
    #[serde(default)]
    pub forced: bool,
}

/// What holds when a rule gives no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleFallback {
    /// As if there were no rule.
    #[default]
    Skip,
    /// The order is refused.
    Refuse,
    /// Somebody looks at the order before its money is taken.
    Review,
}

impl RuleFallback {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Refuse, Self::Review];

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Refuse => "refuse",
            Self::Review => "review",
        }
    }

    /// Finds a policy by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

/// What was active before is active again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleRolledBack {
    /// The rule's revision that this is meant to follow; `None`: any.
    #[serde(default)]
    pub expected_revision: Option<i64>,
}

/// The rule failed too often: it is not asked until it is activated again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleTripped {
    /// The revision that failed: another one is not touched.
    pub revision: i64,
    /// Calls that were watched.
    pub calls: i64,
    /// How many of them failed.
    pub failures: i64,
    /// How most of them failed.
    pub outcome: Text,
}

/// The rule answers no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleRetired {}

/// A version is asked beside the one that answers. What it says is compared, and never applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleShadowed {
    /// Which version.
    pub version: i64,
    /// What it is told beside the order: a JSON object.
    pub settings: Text,
    /// The rule's revision that this is meant to follow; `None`: any.
    #[serde(default)]
    pub expected_revision: Option<i64>,
}

/// A version answers for a share of the orders, until it is activated, rolled back, or stops by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleCanaried {
    /// Which version.
    pub version: i64,
    /// The share of orders, 1 to 100: those whose hash falls below it.
    pub percent: i32,
    /// Its place among the tenant's rules of a hook, while no version of the rule answers for the other orders.
    pub order: i32,
    /// What it is told beside the order: a JSON object.
    pub settings: Text,
    /// What holds for an order of its share when it gives no answer and no version answers for the others.
    pub fallback: RuleFallback,
    /// It stops by itself at so many failures, 1 or more.
    pub failures_max: i64,
    /// It stops by itself once the totals of its orders differ by so much, added up per currency, from what the version
    /// that answers would have made them. Minor units; `None`: no bound.
    #[serde(default)]
    pub difference_max_minor: Option<i64>,
    /// The rule's revision that this is meant to follow; `None`: any.
    #[serde(default)]
    pub expected_revision: Option<i64>,
    /// Whether it holds although the version gave no answer to most of its tenant's recent inputs.
    #[serde(default)]
    pub forced: bool,
}

/// The version that answers has other settings from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleConfigured {
    /// What it is told beside the order: a JSON object.
    pub settings: Text,
    /// The rule's revision that this is meant to follow; `None`: any.
    #[serde(default)]
    pub expected_revision: Option<i64>,
    /// Whether it holds although the version gave no answer to most of its tenant's recent inputs.
    #[serde(default)]
    pub forced: bool,
}

/// What a worker counted of a version on trial since it last said so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleMeasured {
    /// The trial's revision: another one is not touched.
    pub revision: i64,
    /// The currency of the orders.
    pub currency: Text,
    /// Calls of the version on trial.
    pub calls: i64,
    /// How many of them gave no answer.
    pub failures: i64,
    /// How many said something else than the version that answers.
    pub different: i64,
    /// By how much the totals differ, without their sign, added up. Minor units.
    pub difference_minor: i64,
    /// By how much the totals differ, added up: below zero, customers would have paid less. Minor units.
    pub net_minor: i64,
}

/// A version was asked what its tenant's rules were asked of late, and nothing came of what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTried {
    /// Which version.
    pub version: i64,
    /// What it was told beside the order: a JSON object.
    pub settings: Text,
    /// The version that it is compared with, the active one; `None`: no rule at all.
    #[serde(default)]
    pub against: Option<i64>,
    /// What came of it, by hook.
    pub hooks: Vec<RuleTriedHook>,
}

/// What a version made of the recent inputs of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTriedHook {
    /// The hook.
    pub hook: Text,
    /// Where the inputs are from.
    pub inputs: RuleInputs,
    /// Calls.
    pub calls: i64,
    /// Those that gave no answer, by what became of them.
    pub failures: Vec<RuleFailures>,
    /// Half of the calls used at most so many units of fuel.
    pub fuel_p50: i64,
    /// The most units of fuel that a call used.
    pub fuel_max: i64,
    /// Calls that said something else than the version that it is compared with.
    pub changed: i64,
}

impl RuleTriedHook {
    /// Calls that gave no answer.
    pub fn failed(&self) -> i64 {
        self.failures.iter().map(|it| it.calls).sum()
    }
}

/// Where inputs of a dry run are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleInputs {
    /// There are none yet.
    #[default]
    None,
    /// Calls that were kept.
    Samples,
    /// Orders of the log.
    Log,
}

impl RuleInputs {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Samples => "samples",
            Self::Log => "log",
        }
    }
}

/// Calls that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFailures {
    /// What became of them.
    pub outcome: Text,
    /// How many.
    pub calls: i64,
}

/// Modules signed by a key are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSigningKeyAdded {
    /// The key's id, made from the key.
    pub key_id: Text,
    /// What people call it.
    pub name: Text,
    /// The Ed25519 public key, in hex.
    pub public_key: Text,
}

/// A key signs no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSigningKeyRevoked {
    /// Which key.
    pub key_id: Text,
}

/// Whether the tenant's modules must be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSigningConfigured {
    /// Whether one that is not signed by a key in force is refused.
    pub required: bool,
}

/// A module of a tenant's rule, by content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleModule {
    /// `mod_` and the digest.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// SHA-256 of the bytes, in hex.
    pub digest: Text,
    /// The WebAssembly component.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl RegistryEvent for RuleEvent {
    const TOPIC: Topic = Topic::RuleRegistry;

    fn id(&self) -> &str {
        &self.id
    }

    fn tenant(&self) -> &str {
        &self.tenant
    }
}

impl RegistryEvent for RuleModule {
    const TOPIC: Topic = Topic::RuleModules;

    fn id(&self) -> &str {
        &self.id
    }

    fn tenant(&self) -> &str {
        &self.tenant
    }
}
