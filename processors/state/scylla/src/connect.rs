//! The driver's session.

use crate::error;
use crate::retry::OnceElsewhere;
use crate::settings::{Consistency, ScyllaSettings, TlsSettings, unusable};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod};
use parking_lot::RwLock;
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::ExecutionError;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::LogError;
use tokio::sync::Mutex;

/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection is asked whether it is alive so often, and given up when it is silent for as long.
const KEEPALIVE: Duration = Duration::from_secs(5);

impl From<Consistency> for statement::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::LocalQuorum => Self::LocalQuorum,
            Consistency::Quorum => Self::Quorum,
            Consistency::All => Self::All,
        }
    }
}

/// The session in use. The driver itself tries a node that was away again after up to ten seconds; by then the
/// protocol's lag would have grown: a request that finds no connection at all opens a new session instead.
pub(crate) struct Link {
    settings: ScyllaSettings,
    session: RwLock<Arc<Session>>,
    opening: Mutex<()>,
}

impl Link {
    /// Connects; `settings` were checked.
    pub(crate) async fn open(settings: &ScyllaSettings) -> Result<Self, LogError> {
        let session = RwLock::new(Arc::new(session(settings).await?));
        Ok(Self { settings: settings.clone(), session, opening: Mutex::new(()) })
    }

    /// The session to use.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.read())
    }

    /// Another session, if a request failed in `used` because it has no connection, and there is one to be had now.
    pub(crate) async fn instead(&self, used: &Arc<Session>, error: &ExecutionError) -> Option<Arc<Session>> {
        if !matches!(error, ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan) {
            return None;
        }
        // The others fail at once: one connection attempt is enough.
        let _opening = self.opening.try_lock().ok()?;
        let newer = self.session();
        if !Arc::ptr_eq(&newer, used) {
            return Some(newer);
        }
        let opened = tokio::time::timeout(CONNECT, session(&self.settings)).await.ok()?.ok()?;
        tracing::info!("the database answers again");
        let opened = Arc::new(opened);
        *self.session.write() = Arc::clone(&opened);
        Some(opened)
    }
}

async fn session(settings: &ScyllaSettings) -> Result<Session, LogError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &settings.datacenter {
        policy = policy.prefer_datacenter(datacenter.clone());
    }
    let profile = ExecutionProfile::builder()
        .consistency(settings.consistency.into())
        .serial_consistency(Some(statement::SerialConsistency::Serial))
        .request_timeout(Some(Duration::from_millis(settings.request_timeout_ms)))
        .load_balancing_policy(policy.build())
        .retry_policy(Arc::new(OnceElsewhere))
        .speculative_execution_policy(None)
        .build();
    let connections = NonZeroUsize::new(settings.connections).unwrap_or(NonZeroUsize::MIN);
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerShard(connections))
        .connection_timeout(CONNECT)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .keyspaces_to_fetch([&settings.keyspace])
        .fetch_full_schema_metadata(false);
    if let Some(user) = &settings.user {
        builder = builder.user(user, &settings.password.0);
    }
    if settings.tls.enabled {
        builder = builder.tls_context(Some(tls(&settings.tls)?));
    }
    let doing = format!("connecting to {}", settings.nodes.join(", "));
    builder.build().await.map_err(|error| error::of_start(&doing, &error))
}

fn tls(settings: &TlsSettings) -> Result<SslConnectorBuilder, LogError> {
    let failed = |what: String, error: openssl::error::ErrorStack| unusable(format!("{what}: {error}"));
    let mut builder =
        SslConnector::builder(SslMethod::tls_client()).map_err(|it| failed("TLS".into(), it))?;
    match &settings.ca {
        Some(file) => builder.set_ca_file(file).map_err(|it| failed(file.display().to_string(), it))?,
        // The vendored library does not know where this system keeps its authorities.
        None => {
            let found = SYSTEM_AUTHORITIES.iter().find(|it| std::path::Path::new(it).exists());
            let file = found.ok_or_else(|| unusable("the system has no authorities: name a `ca`".into()))?;
            builder.set_ca_file(file).map_err(|it| failed((*file).into(), it))?;
        }
    }
    if let Some(file) = &settings.cert {
        builder.set_certificate_chain_file(file).map_err(|it| failed(file.display().to_string(), it))?;
    }
    if let Some(file) = &settings.key {
        builder
            .set_private_key_file(file, SslFiletype::PEM)
            .and_then(|()| builder.check_private_key())
            .map_err(|it| failed(file.display().to_string(), it))?;
    }
    Ok(builder)
}

/// Where Debian, Red Hat, Alpine and SUSE keep them.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
