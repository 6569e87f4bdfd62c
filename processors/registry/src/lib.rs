//! What tenants configured (API keys, webhook endpoints, rules), as events on compacted topics.
//!
//! A change is one event, appended to the partition of its tenant under a record key of its own, so that compaction keeps
//! the whole history. Every process follows all partitions, outside any group, and folds the events in the order of the
//! log. An event whose expectation does not hold is refused by the fold, in every process alike; so a writer appends,
//! follows to its own event and answers what the fold said about it. A change is in force everywhere as soon as it is
//! followed, it is audited, replicated, works on both engines, and survives the loss of the database.
//!
//! To add a domain:
//!
//! 1. `schemas`: a topic among `Topic::REGISTRIES`, an event type with `id` and `tenant`, its `.avsc`, golden bytes
//!    (`schemas/avro/README.md`).
//! 2. Beside it, `impl RegistryEvent for YourEvent`: its topic, id and tenant.
//! 3. `impl Fold for YourState`: pure and deterministic. What it keeps of a tenant may depend on that tenant's events
//!    alone: partitions are followed side by side. Put expectations (`expected_version`) into the event, check them in
//!    `apply`, answer `Err(refusal)` and change nothing where they do not hold.
//! 4. At start: `Registry::open(log, clock, YourState::default())`, spawn `run_follower(shutdown)`, wait for
//!    `caught_up()` before the door opens. On a cluster, `log` is `KafkaLog::follower(&[topic])`.
//! 5. To change: `append(event).await?` gives the fold's verdict; to read: `read(|state| …)`; to react: `changes()`.

mod error;
mod event;
mod registry;
mod shared;

pub use error::RegistryError;
pub use event::{Appended, Fold, RegistryEvent};
pub use registry::{Registry, Verdict};
