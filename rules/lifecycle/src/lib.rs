//! A tenant's rules as the fold of their history: which versions there are, which one is active, which one is on trial,
//! what was before.
//!
//! Pure: every process that has followed the same events has the same rules. What runs them is `tillstream-rule-host`.

mod dry_run;
mod fold;
mod modules;
mod rule;
mod settings;
mod signing;
mod trial;

pub use dry_run::DryRun;
pub use fold::{ORDER_DEFAULT, RULES_MAX, RuleRefusal, Rules, VERSIONS_MAX};
pub use modules::{MODULES_BYTES_MAX, Modules, ModulesRefusal};
pub use rule::{Activation, Rule, Trip, Version};
pub use settings::{SCHEMA_BYTES_MAX, SchemaRefusal, SettingsMisfit, SettingsSchema};
pub use signing::{
    NoPublicKey, SIGNING_KEYS_MAX, SignatureRefusal, Signing, SigningKey, signed_text, signing_key_id, to_hex,
};
pub use trial::{Canary, Halt, HaltReason, Tally, Trial, TrialKind};
