//! The log and the protocol's broker over a Kafka-API broker. Decides nothing of the protocol: that is
//! `tillstream-cluster`'s, which runs over a simulated broker in tests.
//!
//! The client library's calls block or want a thread that polls; each client has a thread of its own, and everything
//! here is a future or returns at once. A call that hangs is given up by whoever waits for it: its thread ends when the
//! call returns. Values carry this build's schema ids inside the process and the registry's on the wire.

mod append;
mod bounds;
mod broker;
mod clock;
mod context;
mod convert;
mod core;
mod deliveries;
mod error;
mod fetch;
mod follower;
mod log;
mod member;
mod producer;
mod reader;
mod replay;
mod settings;
mod topics;

pub use broker::KafkaBroker;
pub use error::KafkaClientError;
pub use log::KafkaLog;
pub use settings::{Compression, KafkaSecurity, KafkaSettings, Password, Sasl, SaslMechanism};
pub use topics::{Difference, KafkaAdmin, TopicFound, TopicsSpec};
