//! Real servers for tests and benchmarks: Kafka, Cassandra and a schema registry as child processes on loopback, each
//! with a folder of its own, on ports that stay the same over restarts. `ops/dev/jars.sh` fetches them once.
//!
//! All calls block. A server ends when it is dropped, and when the process that started it dies.

mod cassandra;
mod certificates;
mod clock;
mod cql;
mod error;
mod home;
mod kafka;
mod process;
mod registry;

pub use cassandra::{Cassandra, CassandraOptions, ClientTls};
pub use certificates::Certificates;
pub use error::ServerError;
pub use kafka::{Credentials, Kafka, KafkaOptions};
pub use registry::Registry;

/// One of each, with default options.
#[derive(Debug)]
pub struct Stack {
    /// The broker.
    pub kafka: Kafka,
    /// The node.
    pub cassandra: Cassandra,
    /// The schema registry.
    pub registry: Registry,
}

impl Stack {
    /// Starts all three at once.
    ///
    /// # Errors
    /// The first error; what did start is ended again.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(KafkaOptions::default(), CassandraOptions::default())
    }

    /// Starts all three at once, with options.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start_with(kafka: KafkaOptions, cassandra: CassandraOptions) -> Result<Self, ServerError> {
        let (kafka, cassandra, registry) = start_some(Some(kafka), Some(cassandra), true);
        Ok(Self { kafka: some(kafka)?, cassandra: some(cassandra)?, registry: some(registry)? })
    }
}

fn some<T>(started: Option<Result<T, ServerError>>) -> Result<T, ServerError> {
    started.unwrap_or_else(|| {
        Err(ServerError::Io { what: "starting".into(), source: std::io::Error::other("its thread panicked") })
    })
}

type Started<T> = Option<Result<T, ServerError>>;

/// Starts what is asked for, all at once. `None` is what was not asked for.
pub fn start_some(
    kafka: Option<KafkaOptions>,
    cassandra: Option<CassandraOptions>,
    registry: bool,
) -> (Started<Kafka>, Started<Cassandra>, Started<Registry>) {
    std::thread::scope(|scope| {
        let kafka = kafka.map(|options| scope.spawn(|| Kafka::start(options)));
        let cassandra = cassandra.map(|options| scope.spawn(|| Cassandra::start(options)));
        let registry = registry.then(|| scope.spawn(Registry::start));
        (
            kafka.and_then(|it| it.join().ok()),
            cassandra.and_then(|it| it.join().ok()),
            registry.and_then(|it| it.join().ok()),
        )
    })
}
