//! Answers the stages with the tenants' active rules.
//!
//! [`RuleStation`] follows what tenants uploaded and activated, compiles it in a child process, and puts it in force;
//! [`Host`] answers [`tillstream_stage::rule::RuleHost`] from what is in force, shares out fuel, falls back by the
//! tenant's policy where a rule gives no answer, and says which rules fail too often.

mod breaker;
mod cache;
mod compile;
mod compose;
mod error;
mod host;
mod sample;
mod share;
mod station;
mod table;

pub use cache::ArtifactCache;
pub use compile::{Compiler, compile_child};
pub use error::RuleHostError;
pub use host::{Host, HostSettings, Tripping};
pub use sample::{SampleRun, dry_run, sample_calls};
pub use station::{RuleStation, RuleUpload, Uploaded};
pub use tillstream_rule_engine::{
    ArtifactKey, Fault, Limits, Module, Pool, Refusal, RuleEngine, Run, StackFuel, digest,
};
