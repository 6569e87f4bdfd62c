//! The client of a schema registry that speaks the Confluent API.
//!
//! [`Registry::register`] puts every version this build writes or reads under each of its subjects, [`Registry::check`]
//! says what that would do, and [`Registry::resolve`] asks for the registry's ids, which a cluster's log carries. A
//! registry is needed at a start only; [`Registry::resolve_or_cached`] does without when the last start's ids are kept.

mod cache;
mod calls;
mod check;
mod error;
mod register;
mod resolve;
mod same;
mod settings;

pub use check::{Standing, SubjectStatus};
pub use error::RegistryError;
pub use register::Step;
pub use settings::RegistrySettings;

use schema_registry_converter::async_impl::schema_registry::SrSettings;
use tillstream_schemas::codec::Schema;

/// Calls under way at once.
const CALLS_MAX: usize = 8;

/// A registry, and how to speak to it. Cheap to make; it holds a pool of connections.
pub struct Registry {
    http: reqwest::Client,
    library: SrSettings,
    /// The base URL, without a name or password.
    url: String,
    user: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Every subject with its schema.
fn subjects() -> impl Iterator<Item = (Schema, &'static str)> {
    Schema::ALL.iter().flat_map(|schema| schema.subjects().iter().map(|subject| (*schema, *subject)))
}
