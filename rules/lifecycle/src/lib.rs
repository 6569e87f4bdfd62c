//! A tenant's rules as the fold of their history: which versions there are, which one is active, which one is on trial,
//! what was before.
//!
//! Pure: every process that has followed the same events has the same rules. What runs them is `tillstream-rule-host`.

mod fold;
mod modules;
mod rule;
mod settings;
mod trial;

pub use fold::{ORDER_DEFAULT, RULES_MAX, RuleRefusal, Rules, VERSIONS_MAX};
pub use modules::{MODULES_BYTES_MAX, Modules, ModulesRefusal};
pub use rule::{Activation, Rule, Trip, Version};
pub use settings::{SCHEMA_BYTES_MAX, SchemaRefusal, SettingsMisfit, SettingsSchema};
pub use trial::{Canary, Halt, HaltReason, Tally, Trial, TrialKind};
