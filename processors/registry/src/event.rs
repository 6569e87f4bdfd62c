//! What a domain brings along.

pub use tillstream_schemas::registry::RegistryEvent;

/// Where an event stands: the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The partition of its tenant.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// When it was appended, by the log's clock, ms since the epoch.
    pub at_ms: i64,
}

/// What all events of a domain amount to.
///
/// It must be a pure function of them: no clock, no randomness. Events of one tenant come in the order of the log, in every
/// process alike; events of different tenants come in any order, so what is kept of a tenant depends on that tenant's
/// events alone.
pub trait Fold: Send + Sync {
    /// The events.
    type Event: RegistryEvent;
    /// Why an event changes nothing: an expectation that does not hold, an unknown id.
    type Refusal: Clone + Send + Sync;

    /// Takes one event in. It is called once per event id.
    ///
    /// # Errors
    /// The refusal; then nothing has changed.
    fn apply(&mut self, event: &Self::Event, appended: Appended) -> Result<(), Self::Refusal>;
}
