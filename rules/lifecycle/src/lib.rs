//! A tenant's rules as the fold of their history: which versions there are, which one is active, what was before.
//!
//! Pure: every process that has followed the same events has the same rules. What runs them is `tillstream-rule-host`.

mod fold;
mod modules;
mod rule;

pub use fold::{RULES_MAX, RuleRefusal, Rules, VERSIONS_MAX};
pub use modules::{MODULES_BYTES_MAX, Modules, ModulesRefusal};
pub use rule::{Activation, Rule, Trip, Version};
