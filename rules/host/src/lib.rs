//! Answers the stages with the tenants' active rules.
//!
//! [`RuleStation`] follows what tenants uploaded and activated, compiles it in a child process, and puts it in force;
//! [`Host`] answers [`tillstream_stage::rule::RuleHost`] from what is in force, shares out fuel, falls back by the
//! tenant's policy where a rule gives no answer, and says which rules fail too often. A version on trial is asked beside
//! the one in force, or in its place for a share of the orders, and what it does otherwise is counted.

mod ask;
mod breaker;
mod cache;
mod capture;
mod compare;
mod compile;
mod compose;
mod error;
mod host;
mod mask;
mod rehearse;
mod sample;
mod samples;
mod share;
mod station;
mod table;
mod trials;
mod try_on;

pub use ask::Rehearse;
pub use cache::ArtifactCache;
pub use compile::{Compiler, compile_child};
pub use error::RuleHostError;
pub use host::{Host, HostSettings, Says, Told, Tripping};
pub use rehearse::Rehearsal;
pub use sample::{SampleRun, dry_run, sample_calls};
pub use samples::RuleSamples;
pub use station::{RuleStation, RuleUpload, Uploaded};
pub use tillstream_rule_engine::{
    ArtifactError, ArtifactKey, Fault, Limits, Module, Pool, Refusal, RuleEngine, Run, Source, StackFuel,
    digest, settings_schema, with_engine, with_settings_schema,
};
pub use trials::{Measured, TrialMetrics};
pub use try_on::{RECENT_INPUTS_MAX, RecentInput, RecentInputs};
