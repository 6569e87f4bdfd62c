//! What a store is told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tillstream_log::LogError;

/// Something that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a new keyspace is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// By which strategy.
    pub class: ReplicationClass,
    /// Copies; with [`ReplicationClass::NetworkTopology`] in every datacenter.
    pub factor: u16,
}

/// A replication strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationClass {
    /// `NetworkTopologyStrategy`.
    NetworkTopology,
    /// `SimpleStrategy`.
    Simple,
}

impl ReplicationClass {
    /// Its name in CQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkTopology => "NetworkTopologyStrategy",
            Self::Simple => "SimpleStrategy",
        }
    }
}

impl FromStr for ReplicationClass {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        [Self::NetworkTopology, Self::Simple]
            .into_iter()
            .find(|it| it.name() == text)
            .ok_or_else(|| unusable(format!("`{text}` is no replication class")))
    }
}

/// How many replicas must have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// A majority in this datacenter.
    LocalQuorum,
    /// A majority of all.
    Quorum,
    /// Each.
    All,
}

impl Consistency {
    /// Its name in CQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalQuorum => "LOCAL_QUORUM",
            Self::Quorum => "QUORUM",
            Self::All => "ALL",
        }
    }
}

impl FromStr for Consistency {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        [Self::LocalQuorum, Self::Quorum, Self::All]
            .into_iter()
            .find(|it| it.name() == text)
            .ok_or_else(|| unusable(format!("`{text}` is no consistency that keeps what is acknowledged")))
    }
}

/// TLS to the nodes. A node's certificate must name its IP address: that is what the client checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// PEM file of the authority; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key: Option<PathBuf>,
}

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct ScyllaSettings {
    /// Nodes to begin with, `host[:port]`; the others are found.
    pub nodes: Vec<String>,
    /// The keyspace: lower-case letters, digits and `_`.
    pub keyspace: String,
    /// How the keyspace is replicated if it is created here.
    pub replication: Replication,
    /// Whether a missing keyspace and missing tables are created.
    pub create_schema: bool,
    /// The datacenter of this process, when there are several.
    pub datacenter: Option<String>,
    /// Who logs in, if one must.
    pub user: Option<String>,
    /// With what.
    pub password: Secret,
    /// TLS.
    pub tls: TlsSettings,
    /// For reads and writes of state.
    pub consistency: Consistency,
    /// After that a request has failed, ms.
    pub request_timeout_ms: u64,
    /// Requests under way at once: half of them reads, half of them writes, so that neither waits behind the other.
    pub in_flight_max: usize,
    /// Connections per node (ScyllaDB: per shard of a node).
    pub connections: usize,
}

impl Default for ScyllaSettings {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:9042".into()],
            keyspace: "tillstream".into(),
            replication: Replication { class: ReplicationClass::NetworkTopology, factor: 3 },
            create_schema: true,
            datacenter: None,
            user: None,
            password: Secret::default(),
            tls: TlsSettings::default(),
            consistency: Consistency::LocalQuorum,
            request_timeout_ms: 5_000,
            in_flight_max: 32,
            connections: 1,
        }
    }
}

impl ScyllaSettings {
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.nodes.is_empty() {
            return Err(unusable("no node of the database is named".into()));
        }
        let keyspace = self.keyspace.as_bytes();
        let named = keyspace.first().is_some_and(u8::is_ascii_lowercase)
            && keyspace.len() <= 48
            && keyspace.iter().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || *it == b'_');
        if !named {
            return Err(unusable(format!("`{}` is no name of a keyspace", self.keyspace)));
        }
        if self.replication.factor == 0 {
            return Err(unusable("a replication factor of 0 keeps nothing".into()));
        }
        if self.request_timeout_ms == 0 {
            return Err(unusable("a request timeout of 0 ms lets nothing through".into()));
        }
        Ok(())
    }
}

pub(crate) fn unusable(what: String) -> LogError {
    LogError::Stopped(format!("TS0355: the database's settings cannot be used: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let settings = ScyllaSettings { password: Secret("hunter2".into()), ..ScyllaSettings::default() };
        let shown = format!("{settings:?} {settings:#?}");
        assert!(shown.contains("password: ***") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_keyspace_that_would_have_to_be_quoted_is_refused() {
        for (name, good) in
            [("tillstream", true), ("t_2", true), ("", false), ("2t", false), ("T", false), ("a\"b", false)]
        {
            let settings = ScyllaSettings { keyspace: name.into(), ..ScyllaSettings::default() };
            assert_eq!(settings.check().is_ok(), good, "{name}");
        }
    }

    #[test]
    fn names_of_cql_are_understood() {
        assert_eq!("SimpleStrategy".parse(), Ok(ReplicationClass::Simple));
        assert_eq!("LOCAL_QUORUM".parse(), Ok(Consistency::LocalQuorum));
        assert!("ANY".parse::<Consistency>().is_err());
    }
}
