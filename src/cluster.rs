//! Connecting to a cluster's broker, database and registry, and making sure that they belong together.

use crate::cli::{Broker, Compression, Database, SaslMechanism, Secret, Serve, given_or_read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{ClusterSettings, Halt, deployment_conflict};
use tillstream_kafka::{
    KafkaAdmin, KafkaBroker, KafkaClientError, KafkaLog, KafkaSecurity, KafkaSettings, Password, Sasl,
    TopicsSpec,
};
use tillstream_log::LogError;
use tillstream_registry::RegistryError;
use tillstream_schemas::wire_ids::WireIds;
use tillstream_scylla::{Replication, ReplicationClass, ScyllaSettings, ScyllaStore, TlsSettings};
use tillstream_state::row_store::{Deployment, RowStore};

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// An option that cluster mode needs.
    #[error("TS0734: cluster mode needs {0}; see `tillstream serve --help`")]
    Missing(&'static str),
    /// A password file.
    #[error("TS0735: {option} {path}: {error}")]
    PasswordFile {
        /// The option.
        option: &'static str,
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// Topics are missing or other than they must be.
    #[error("TS0736: the topics are not as they must be: {0}; `tillstream topics create` makes missing ones")]
    Topics(String),
    /// Somebody works on the deployment.
    #[error("TS0737: {members} members are in the group {group}: stop all workers of the deployment first")]
    Working {
        /// The group.
        group: String,
        /// How many.
        members: usize,
    },
    /// Neither `earliest`, `latest` nor a number.
    #[error("TS0738: --from must be earliest, latest or an offset, not '{0}'")]
    From(String),
    /// The broker.
    #[error(transparent)]
    Kafka(#[from] KafkaClientError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The log, the database, or that they do not belong together.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a process of a cluster speaks to.
pub struct Connections {
    /// The broker, for the protocol.
    pub broker: Arc<KafkaBroker>,
    /// The broker, for the door and for caches.
    pub log: Arc<KafkaLog>,
    /// The database.
    pub rows: Arc<ScyllaStore>,
    /// The protocol's settings.
    pub settings: ClusterSettings,
}

/// The password that one of two options gives.
fn password(
    option: &'static str,
    given: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Option<String>, ClusterError> {
    given_or_read(given, file).map_err(|error| {
        let path = file.map(|it| it.display().to_string()).unwrap_or_default();
        ClusterError::PasswordFile { option, path, error }
    })
}

/// Settings of the broker's clients.
pub fn kafka_settings(options: &Broker) -> Result<KafkaSettings, ClusterError> {
    let brokers = options.brokers.as_ref().ok_or(ClusterError::Missing("--brokers"))?;
    let mut settings = KafkaSettings::new(brokers, &options.deployment);
    let secret = password(
        "--broker-password-file",
        options.broker_password.as_ref(),
        options.broker_password_file.as_ref(),
    )?;
    let mechanism = match options.broker_sasl_mechanism {
        SaslMechanism::ScramSha256 => tillstream_kafka::SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512 => tillstream_kafka::SaslMechanism::ScramSha512,
        SaslMechanism::Plain => tillstream_kafka::SaslMechanism::Plain,
    };
    let sasl = options.broker_user.as_ref().map(|user| Sasl {
        mechanism,
        user: user.clone(),
        password: Password::new(secret.unwrap_or_default()),
    });
    settings.security = KafkaSecurity {
        tls: options.broker_tls,
        ca_file: options.broker_ca_file.clone(),
        certificate_file: options.broker_certificate_file.clone(),
        key_file: options.broker_key_file.clone(),
        sasl,
    };
    settings.compression = match options.broker_compression {
        Compression::None => tillstream_kafka::Compression::None,
        Compression::Lz4 => tillstream_kafka::Compression::Lz4,
    };
    settings.session_timeout_ms = options.session_timeout_ms;
    settings.transaction_timeout_ms = options.transaction_timeout_ms;
    settings.release_timeout_ms = (options.transaction_timeout_ms / 3).max(1_000);
    Ok(settings)
}

fn scylla_settings(options: &Database) -> Result<ScyllaSettings, ClusterError> {
    let nodes = options.scylla.as_ref().ok_or(ClusterError::Missing("--scylla"))?;
    let secret = password(
        "--scylla-password-file",
        options.scylla_password.as_ref(),
        options.scylla_password_file.as_ref(),
    )?;
    let files = [&options.scylla_ca_file, &options.scylla_certificate_file];
    let factor = u16::try_from(options.scylla_replication).unwrap_or(u16::MAX);
    Ok(ScyllaSettings {
        nodes: nodes.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect(),
        keyspace: options.keyspace.clone(),
        replication: Replication { class: ReplicationClass::NetworkTopology, factor },
        user: options.scylla_user.clone(),
        password: tillstream_scylla::Secret(secret.unwrap_or_default()),
        tls: TlsSettings {
            enabled: options.scylla_tls || files.iter().any(|it| it.is_some()),
            ca: options.scylla_ca_file.clone(),
            cert: options.scylla_certificate_file.clone(),
            key: options.scylla_key_file.clone(),
        },
        ..ScyllaSettings::default()
    })
}

fn cluster_settings(broker: &Broker, database: &Database, partitions: u32) -> ClusterSettings {
    ClusterSettings {
        transaction_timeout: Duration::from_millis(broker.transaction_timeout_ms.into()),
        flush_interval: Duration::from_millis(database.flush_interval_ms),
        durable_after: Duration::from_millis(database.durable_after_ms),
        unflushed_bytes_max: database.unflushed_bytes_max,
        known_keys_max: database.known_keys_max,
        ..ClusterSettings::new(&broker.deployment, partitions)
    }
}

/// Connects for `serve`.
pub async fn connect_all(options: &Serve) -> Result<Connections, ClusterError> {
    let url = options.schema_registry.as_ref().ok_or(ClusterError::Missing("--schema-registry"))?;
    let registry = crate::schemas::connect(url, &options.registry_access)?;
    let ids = registry.resolve_or_cached(&ids_file(&options.data_dir)).await?;
    check_topics(&kafka_settings(&options.broker)?, options.partitions).await?;
    connect(&options.broker, &options.database, options.partitions, Arc::new(ids)).await
}

/// Where the registry's ids are kept for a start without it.
fn ids_file(data_dir: &Path) -> PathBuf {
    data_dir.join("schema-ids.json")
}

/// Connects, and makes sure that the keyspace is this deployment's.
pub async fn connect(
    broker: &Broker,
    database: &Database,
    partitions: u32,
    ids: Arc<WireIds>,
) -> Result<Connections, ClusterError> {
    let kafka = kafka_settings(broker)?;
    let rows = ScyllaStore::connect(&scylla_settings(database)?, partitions, database.scylla_buckets).await?;
    let client = Arc::new(KafkaBroker::new(kafka, ids)?);
    let ours = Deployment {
        name: broker.deployment.as_str().into(),
        cluster_id: client.cluster_id().await?.into(),
        partitions,
        buckets: database.scylla_buckets,
        rebuilding: false,
    };
    let theirs = rows.claim(ours.clone()).await?;
    let fits = deployment_conflict(&theirs, &ours);
    // Commands that repair are for a keyspace in the middle of a rebuild, too.
    fits.or_else(|halt| if halt == Halt::Rebuilding { Ok(()) } else { Err(halt) }).map_err(LogError::from)?;
    let log = KafkaLog::open(&client).await?;
    let settings = cluster_settings(broker, database, partitions);
    Ok(Connections { broker: client, log, rows: Arc::new(rows), settings })
}

/// A start on topics that are not as they must be would lose or misplace records.
async fn check_topics(settings: &KafkaSettings, partitions: u32) -> Result<(), ClusterError> {
    let wanted = TopicsSpec::new(partitions, 1);
    let differences = KafkaAdmin::new(settings)?.check_topics(&wanted).await?;
    if let Some(it) = differences.iter().find(|it| it.setting == "partitions") {
        let (what, found) = (it.topic.to_string(), it.found.parse().unwrap_or(0));
        return Err(LogError::from(Halt::Partitions { what, found, expected: partitions }).into());
    }
    let kept = ["topic", "cleanup.policy", "message.timestamp.type"];
    let named: Vec<String> = differences
        .iter()
        .filter(|it| kept.contains(&it.setting.as_str()))
        .map(ToString::to_string)
        .collect();
    if named.is_empty() { Ok(()) } else { Err(ClusterError::Topics(named.join("; "))) }
}
