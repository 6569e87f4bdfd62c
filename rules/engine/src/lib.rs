//! One rule module and one call of it: limits, checks at upload, ahead-of-time code, a fresh sandbox per call. A rule is
//! a WebAssembly component, or JavaScript that an engine of ours runs: to its callers both are one kind.
//!
//! Whose module it is, which version is active and what happens when a call fails is the business of
//! `tillstream-rule-host`. Nothing here reads a clock, a file or the network: the same module and the same input give
//! the same answer, fuel and log on every machine.

mod answer;
mod artifact;
mod bindings;
mod config;
mod inspect;
mod limits;
mod module;
mod profile;
mod request;
mod run;
mod section;
mod source;

pub use artifact::{ArtifactError, ArtifactKey};
pub use config::{EngineError, Pool, RuleEngine};
pub use inspect::{Refusal, digest, look};
pub use limits::Limits;
pub use module::Module;
pub use profile::StackFuel;
pub use run::{Fault, Run};
pub use section::{settings_schema, with_settings_schema};
pub use source::{Source, engines, with_engine};
