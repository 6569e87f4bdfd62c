//! The API keys of a deployment: followed from the log, changed through it.

use super::fold::{Access, ApiKey, KeyHash, KeyRefusal};
use super::scope::Role;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use thiserror::Error;
use tillstream_log::Log;
use tillstream_registry_log::{Registry, RegistryError};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::access::{
    AccessEvent, AccessKeyCreated, AccessKeyRevoked, AccessKeyRotated, AccessPayload, CreateCondition,
    TenantLimitSet,
};
use tillstream_stage::ids::client_id;
use tillstream_state::{Keys, StoredKey};
use tokio::sync::watch;

/// Who acts when a process starts.
const START: Text = Text::const_new("start");

/// Why keys could not be changed.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The change is not possible.
    #[error("TS0642: {0}")]
    Refused(#[from] KeyRefusal),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A key to make.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// The tenant it will speak for.
    pub tenant: Text,
    /// What people call it.
    pub name: Text,
    /// Its roles, by name.
    pub roles: Vec<Text>,
    /// Its scopes beside those, by name.
    pub scopes: Vec<Text>,
    /// When it ends by itself, ms since the epoch.
    pub expires_at_ms: Option<i64>,
    /// Calls per minute it may make.
    pub requests_per_minute: Option<i64>,
}

impl NewKey {
    /// A key that may do everything, for ever.
    pub fn admin(tenant: &str, name: &str) -> Self {
        let roles = vec![Role::Admin.as_str().into()];
        Self { tenant: tenant.into(), name: name.into(), roles, ..Self::default() }
    }
}

/// Every API key of this deployment, in memory, as the log has them.
#[derive(Clone)]
pub struct ApiKeys {
    registry: Arc<Registry<Access>>,
    clock: Arc<dyn Clock>,
}

impl ApiKeys {
    /// Keys that are not followed yet: run [`ApiKeys::run_follower`], then wait for [`ApiKeys::caught_up`].
    ///
    /// # Errors
    /// The log's.
    pub async fn open(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let registry = Registry::open(log, clock.clone(), Access::default()).await?;
        Ok(Self { registry, clock })
    }

    /// Follows what any process changes, until `shutdown`.
    ///
    /// # Errors
    /// The log's.
    pub async fn run_follower(&self, shutdown: watch::Receiver<bool>) -> Result<(), RegistryError> {
        self.registry.run_follower(shutdown).await
    }

    /// Resolves once every change that was in the log at the start holds here.
    ///
    /// # Errors
    /// When the follower has ended.
    pub async fn caught_up(&self) -> Result<(), RegistryError> {
        self.registry.caught_up().await
    }

    /// Records of keys that this process could not read: what they said does not hold here.
    pub fn unreadable(&self) -> u64 {
        self.registry.unreadable()
    }

    /// Takes the keys over that an earlier version kept in the store. They could do everything, so they may. What is in the
    /// log already is left as it is, so any process may do this at any time.
    ///
    /// # Errors
    /// The store's or the log's.
    pub async fn take_over(&self, store: &dyn Keys) -> Result<usize, KeyError> {
        let mut taken = 0;
        for stored in store.list_keys().await.map_err(RegistryError::from)? {
            if self.registry.read(|it| it.key(&stored.tenant, &stored.id).is_none()) {
                taken += usize::from(self.registry.append(&taken_over(stored)).await?.is_ok());
            }
        }
        Ok(taken)
    }

    /// Makes a key; the second value is the key itself, which is kept nowhere.
    ///
    /// # Errors
    /// The log's.
    pub async fn create(&self, new: NewKey, actor: &str) -> Result<(ApiKey, String), KeyError> {
        self.make(new, CreateCondition::New, actor).await
    }

    /// Makes the first key of a tenant; `None` when it has one, whichever process made it.
    ///
    /// # Errors
    /// The log's.
    pub async fn create_first(&self, new: NewKey) -> Result<Option<String>, KeyError> {
        match self.make(new, CreateCondition::First, &START).await {
            Ok((_, secret)) => Ok(Some(secret)),
            Err(KeyError::Refused(KeyRefusal::NotFirst)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn make(
        &self,
        new: NewKey,
        condition: CreateCondition,
        actor: &str,
    ) -> Result<(ApiKey, String), KeyError> {
        let secret = fresh_secret()?;
        let key = self.put(new, &secret, condition, actor).await?;
        Ok((key, secret))
    }

    /// Sees to it that a given key is valid for a tenant and may do everything, also when it was revoked or another
    /// tenant's.
    ///
    /// # Errors
    /// The log's.
    pub async fn ensure(&self, tenant: &str, name: &str, given_key: &str) -> Result<ApiKey, KeyError> {
        let (hash, now_ms) = (hash_of(given_key), self.clock.now_ms());
        let holders: Vec<ApiKey> = self.registry.read(|it| it.with_hash(&hash).cloned().collect());
        for other in holders.iter().filter(|it| it.tenant != tenant && it.revoked_at_ms.is_none()) {
            self.revoke(&other.tenant, &other.id, &START).await?;
        }
        let valid = self.registry.read(|it| it.opened_by(&hash, now_ms).cloned());
        match valid.filter(|it| it.tenant == tenant) {
            Some(key) => Ok(key),
            None => self.put(NewKey::admin(tenant, name), given_key, CreateCondition::Always, &START).await,
        }
    }

    async fn put(
        &self,
        new: NewKey,
        secret: &str,
        condition: CreateCondition,
        actor: &str,
    ) -> Result<ApiKey, KeyError> {
        let key_id = client_id("key_", &[secret]);
        let created = AccessKeyCreated {
            key_id: key_id.clone(),
            name: new.name,
            hash: hash_of(secret).to_vec(),
            roles: new.roles,
            scopes: new.scopes,
            created_at_ms: self.clock.now_ms(),
            expires_at_ms: new.expires_at_ms,
            revoked_at_ms: None,
            requests_per_minute: new.requests_per_minute,
            condition,
        };
        self.change(&new.tenant, actor, AccessPayload::Created(Box::new(created))).await?;
        self.key(&new.tenant, &key_id).ok_or(KeyError::Refused(KeyRefusal::NoSuchKey))
    }

    /// Gives a key a new secret; the one it has holds until `previous_until_ms`, an older one ends now.
    ///
    /// # Errors
    /// A refusal when there is no such key, it is revoked, or was changed at the same moment; else the log's.
    pub async fn rotate(
        &self,
        tenant: &str,
        id: &str,
        previous_until_ms: i64,
        actor: &str,
    ) -> Result<(ApiKey, String), KeyError> {
        let known = self.key(tenant, id).ok_or(KeyRefusal::NoSuchKey)?;
        let secret = fresh_secret()?;
        let rotated = AccessKeyRotated {
            key_id: known.id,
            hash: hash_of(&secret).to_vec(),
            previous_until_ms,
            expected_version: known.version,
        };
        self.change(tenant, actor, AccessPayload::Rotated(rotated)).await?;
        Ok((self.key(tenant, id).ok_or(KeyRefusal::NoSuchKey)?, secret))
    }

    /// Ends a key with all its secrets. Revoking twice changes nothing.
    ///
    /// # Errors
    /// [`KeyRefusal::NoSuchKey`], or the log's.
    pub async fn revoke(&self, tenant: &str, id: &str, actor: &str) -> Result<ApiKey, KeyError> {
        let known = self.key(tenant, id).ok_or(KeyRefusal::NoSuchKey)?;
        if known.revoked_at_ms.is_some() {
            return Ok(known);
        }
        let revoked = AccessKeyRevoked { key_id: known.id };
        self.change(tenant, actor, AccessPayload::Revoked(revoked)).await?;
        Ok(self.key(tenant, id).ok_or(KeyRefusal::NoSuchKey)?)
    }

    /// How many calls per minute all keys of the tenant may make together; `None`: as many as they like.
    ///
    /// # Errors
    /// The log's.
    pub async fn set_limit(
        &self,
        tenant: &str,
        requests_per_minute: Option<i64>,
        actor: &str,
    ) -> Result<(), KeyError> {
        self.change(tenant, actor, AccessPayload::LimitSet(TenantLimitSet { requests_per_minute })).await
    }

    async fn change(&self, tenant: &str, actor: &str, payload: AccessPayload) -> Result<(), KeyError> {
        let event = AccessEvent {
            id: format!("evt_{}", random_hex()?).into(),
            tenant: tenant.into(),
            occurred_at_ms: self.clock.now_ms(),
            actor: actor.into(),
            payload,
        };
        Ok(self.registry.append(&event).await??)
    }

    /// A tenant's key, revoked ones included.
    pub fn key(&self, tenant: &str, id: &str) -> Option<ApiKey> {
        self.registry.read(|it| it.key(tenant, id).cloned())
    }

    /// A tenant's keys, oldest first, revoked ones included.
    pub fn list(&self, tenant: &str) -> Vec<ApiKey> {
        let mut keys: Vec<ApiKey> = self.registry.read(|it| it.keys(tenant).cloned().collect());
        keys.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        keys
    }

    /// Every tenant that ever had a key or a limit.
    pub fn tenants(&self) -> BTreeSet<Text> {
        self.registry.read(|it| it.tenants().map(|(name, _)| name.clone()).collect())
    }

    /// Looks at all of it.
    pub fn read<T>(&self, look: impl FnOnce(&Access) -> T) -> T {
        self.registry.read(look)
    }

    /// Whether there is no key at all, as in an empty data dir.
    pub fn is_empty(&self) -> bool {
        self.registry.read(Access::is_empty)
    }

    /// The key that this is, with its tenant's own limit, if it holds now.
    pub(crate) fn opened_by<T>(&self, key: &str, look: impl FnOnce(&ApiKey, Option<i64>) -> T) -> Option<T> {
        let (hash, now_ms) = (hash_of(key), self.clock.now_ms());
        self.registry.read(|it| it.opened_by(&hash, now_ms).map(|key| look(key, it.limit(&key.tenant))))
    }
}

/// The event that takes a key over. It is the same in every process: whichever is first wins, the others change nothing.
fn taken_over(stored: StoredKey) -> AccessEvent {
    AccessEvent {
        id: format!("old_{}", stored.id).into(),
        occurred_at_ms: stored.created_at_ms,
        actor: START,
        payload: AccessPayload::Created(Box::new(AccessKeyCreated {
            key_id: stored.id,
            name: stored.name,
            hash: stored.hash.to_vec(),
            roles: vec![Role::Admin.as_str().into()],
            scopes: Vec::new(),
            created_at_ms: stored.created_at_ms,
            expires_at_ms: None,
            revoked_at_ms: stored.revoked_at_ms,
            requests_per_minute: None,
            condition: CreateCondition::New,
        })),
        tenant: stored.tenant,
    }
}

fn hash_of(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

/// 128 bits that nobody can guess: so a plain hash of it is enough.
fn fresh_secret() -> Result<String, KeyError> {
    Ok(format!("till_{}", random_hex()?))
}

fn random_hex() -> Result<String, RegistryError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| RegistryError::Randomness(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}
