//! How the broker is reached, and what the clients of one process are set to.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A secret: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a user logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// `SCRAM-SHA-256`
    ScramSha256,
    /// `SCRAM-SHA-512`
    ScramSha512,
    /// `PLAIN`: only over TLS is the password kept from whoever listens.
    Plain,
}

impl SaslMechanism {
    /// As Kafka spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Plain => "PLAIN",
        }
    }

    /// From Kafka's spelling.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::ScramSha256, Self::ScramSha512, Self::Plain].into_iter().find(|it| it.as_str() == name)
    }
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// Who.
    pub user: String,
    /// The secret.
    pub password: Password,
}

/// How the wire to the broker is secured. The default is plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// TLS; also on when any of the files is named. The broker's name is checked against its certificate.
    pub tls: bool,
    /// PEM file of the authorities the broker's certificate may come from; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate, for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// A login.
    pub sasl: Option<Sasl>,
}

/// How values are packed on the wire and on the broker's disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4.
    Lz4,
}

/// Settings of all clients of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The deployment: the prefix of the groups of this crate's own readers.
    pub deployment: String,
    /// How this process names itself to the broker.
    pub client_id: String,
    /// TLS and login.
    pub security: KafkaSecurity,
    /// The broker aborts a transaction that takes longer, ms.
    pub transaction_timeout_ms: u32,
    /// A member that is silent this long loses its partitions, ms.
    pub session_timeout_ms: u32,
    /// How long a revocation waits for its release, ms.
    pub release_timeout_ms: u32,
    /// How long a question to the broker may take, ms.
    pub request_timeout_ms: u32,
    /// How long a transactional producer collects records before it sends them, ms.
    pub linger_ms: u32,
    /// How long the shared producer of [`crate::KafkaLog`] does, ms.
    pub append_linger_ms: u32,
    /// Compression of what is produced.
    pub compression: Compression,
    /// The largest record the clients take; the topics' own limits are smaller.
    pub record_bytes_max: u32,
    /// Fetched records that wait to be taken, bytes per partition; the client library holds about as much again.
    pub buffered_bytes_max: usize,
    /// Records of appends under way, bytes; an append past it is refused.
    pub append_bytes_max: usize,
}

impl KafkaSettings {
    /// The defaults, in plain text.
    pub fn new(brokers: impl Into<String>, deployment: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            deployment: deployment.into(),
            client_id: "tillstream".into(),
            security: KafkaSecurity::default(),
            transaction_timeout_ms: 12_000,
            session_timeout_ms: 10_000,
            release_timeout_ms: 4_000,
            request_timeout_ms: 10_000,
            linger_ms: 0,
            append_linger_ms: 2,
            compression: Compression::None,
            record_bytes_max: 16 << 20,
            buffered_bytes_max: 2 << 20,
            append_bytes_max: 32 << 20,
        }
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }

    /// What every client is set to.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        // Small requests are many; and a broker that comes back must not wait for a client's long pause.
        config.set("socket.nagle.disable", "true").set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "1000");
        // Left to connect where it must, a new client often misses its first moment to do so and waits for the next, a
        // second later: seen in half of the starts. It connects to every broker instead.
        config.set("enable.sparse.connections", "false");
        config.set("enable.metrics.push", "false");
        self.security.apply(&mut config);
        config
    }

    /// A consumer of committed records that stores and resets nothing by itself.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config.set("group.id", group);
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("allow.auto.create.topics", "false");
        config.set("fetch.min.bytes", "1");
        // The pause after a full queue or a fetch error is 1 s and 500 ms by default.
        config.set("fetch.queue.backoff.ms", "5").set("fetch.error.backoff.ms", "100");
        let largest = self.record_bytes_max;
        config.set("receive.message.max.bytes", (largest.saturating_mul(4)).max(1 << 26).to_string());
        config
    }

    /// Fetch sizes: per partition and request, per request, and queued in the client.
    pub(crate) fn fetching(config: &mut ClientConfig, partition_bytes: usize, bytes: usize, queued: usize) {
        config.set("max.partition.fetch.bytes", partition_bytes.to_string());
        config.set("fetch.max.bytes", bytes.to_string());
        config.set("queued.max.messages.kbytes", (queued / 1024).max(1).to_string());
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all");
        config.set("message.max.bytes", self.record_bytes_max.to_string());
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
        };
        config.set("compression.type", compression);
        config
    }

    /// A producer with a transactional id.
    pub(crate) fn transactional_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", self.transaction_timeout_ms.to_string());
        config.set("linger.ms", self.linger_ms.to_string());
        // Transactions back to back wait for this once each while the broker ends the one before.
        config.set("retry.backoff.ms", "1").set("retry.backoff.max.ms", "100");
        config.set("queue.buffering.max.kbytes", "65536");
        config
    }

    /// The producer of appends outside of transactions.
    pub(crate) fn appending_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("linger.ms", self.append_linger_ms.to_string());
        config.set("message.timeout.ms", self.request_timeout_ms.to_string());
        let kib = (self.append_bytes_max / 1024).saturating_mul(2).max(1_024);
        config.set("queue.buffering.max.kbytes", kib.to_string());
        config.set("queue.buffering.max.messages", "1000000");
        config
    }
}

impl KafkaSecurity {
    fn apply(&self, config: &mut ClientConfig) {
        let files = [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.certificate_file),
            ("ssl.key.location", &self.key_file),
        ];
        let tls = self.tls || files.iter().any(|(_, file)| file.is_some());
        let protocol = match (tls, self.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        for (name, file) in files {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.as_str());
            config.set("sasl.username", &sasl.user).set("sasl.password", &sasl.password.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_from_files_and_login() {
        let sasl = Sasl {
            mechanism: SaslMechanism::ScramSha256,
            user: "shop".into(),
            password: Password::new("hush-hush"),
        };
        let cases = [
            (false, None, None, "plaintext"),
            (true, None, None, "ssl"),
            (false, Some("ca.pem"), None, "ssl"),
            (false, None, Some(sasl.clone()), "sasl_plaintext"),
            (false, Some("ca.pem"), Some(sasl), "sasl_ssl"),
        ];
        for (tls, ca_file, sasl, protocol) in cases {
            let mut settings = KafkaSettings::new("localhost:9092", "test");
            settings.security =
                KafkaSecurity { tls, ca_file: ca_file.map(Into::into), sasl, ..Default::default() };
            assert_eq!(settings.client().get("security.protocol"), Some(protocol), "{settings:?}");
            assert!(!format!("{settings:?}").contains("hush"), "a password is shown");
        }
    }
}
