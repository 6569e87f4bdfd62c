//! Who may call, folded from the events of `access.keys.v1`: pure.

use super::scope::{Scopes, scopes_of};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use tillstream_registry_log::{Appended, Fold};
use tillstream_schemas::Text;
use tillstream_schemas::access::{
    AccessEvent, AccessKeyCreated, AccessKeyRevoked, AccessKeyRotated, AccessPayload, CreateCondition,
};

/// SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// A key, but for the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public id, such as `key_…`.
    pub id: Text,
    /// The tenant it speaks for.
    pub tenant: Text,
    /// What people call it.
    pub name: Text,
    /// Its roles, by name.
    pub roles: Vec<Text>,
    /// Its scopes beside those of its roles, by name.
    pub scopes: Vec<Text>,
    /// When it was made, ms since the epoch.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: Text,
    /// When it ends by itself, ms since the epoch.
    pub expires_at_ms: Option<i64>,
    /// When its secret was last changed, ms since the epoch.
    pub rotated_at_ms: Option<i64>,
    /// Until when the secret before the present one holds, ms since the epoch.
    pub previous_until_ms: Option<i64>,
    /// When it was revoked, ms since the epoch.
    pub revoked_at_ms: Option<i64>,
    /// Who revoked it.
    pub revoked_by: Option<Text>,
    /// Calls per minute it may make.
    pub requests_per_minute: Option<i64>,
    /// Grows with every change.
    pub version: i64,
    hash: KeyHash,
    previous_hash: Option<KeyHash>,
    allowed: Scopes,
}

impl ApiKey {
    /// What it may do, roles and scopes together.
    pub fn allowed(&self) -> Scopes {
        self.allowed
    }

    /// Whether it has not ended, with any secret.
    pub fn is_live(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|it| now_ms < it)
    }

    /// Whether this is the hash of a secret that holds now. The comparison takes the same time whatever differs.
    fn opens(&self, hash: &KeyHash, now_ms: i64) -> bool {
        let previous_holds = self.previous_until_ms.is_some_and(|it| now_ms < it);
        let previous = self.previous_hash.unwrap_or_default().ct_eq(hash)
            & Choice::from(u8::from(previous_holds && self.previous_hash.is_some()));
        let opens: bool = (self.hash.ct_eq(hash) | previous).into();
        opens && self.is_live(now_ms)
    }

    fn hashes(&self) -> impl Iterator<Item = KeyHash> {
        [Some(self.hash), self.previous_hash].into_iter().flatten()
    }
}

/// A tenant's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantAccess {
    keys: BTreeMap<Text, ApiKey>,
    /// Calls per minute of all its keys together.
    pub requests_per_minute: Option<i64>,
}

/// Why a change of keys changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyRefusal {
    /// The tenant has that key already.
    #[error("the tenant has a key of this id")]
    Exists,
    /// The tenant has a key, so this one is not the first.
    #[error("the tenant has keys already")]
    NotFirst,
    /// The tenant has no such key.
    #[error("the tenant has no such key")]
    NoSuchKey,
    /// The key is revoked.
    #[error("the key is revoked")]
    Revoked,
    /// Somebody else changed it meanwhile.
    #[error("the key was changed meanwhile: it has version {0} now")]
    Version(i64),
    /// The event has no hash of 32 bytes.
    #[error("the hash is not one of SHA-256")]
    Hash,
}

/// Every tenant's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    tenants: BTreeMap<Text, TenantAccess>,
    /// Hash to (tenant, key id). Several only where one key was given to several tenants by configuration.
    by_hash: FxHashMap<KeyHash, BTreeSet<(Text, Text)>>,
}

impl Fold for Access {
    type Event = AccessEvent;
    type Refusal = KeyRefusal;

    fn apply(&mut self, event: &AccessEvent, _appended: Appended) -> Result<(), KeyRefusal> {
        match &event.payload {
            AccessPayload::Created(created) => self.create(event, created),
            AccessPayload::Rotated(rotated) => self.rotate(event, rotated),
            AccessPayload::Revoked(AccessKeyRevoked { key_id }) => {
                let key = self.key_mut(&event.tenant, key_id)?;
                if key.revoked_at_ms.is_none() {
                    (key.revoked_at_ms, key.revoked_by) =
                        (Some(event.occurred_at_ms), Some(event.actor.clone()));
                    key.version += 1;
                }
                Ok(())
            }
            AccessPayload::LimitSet(limit) => {
                let tenant = self.tenants.entry(event.tenant.clone()).or_default();
                tenant.requests_per_minute = limit.requests_per_minute;
                Ok(())
            }
        }
    }
}

impl Access {
    fn create(&mut self, event: &AccessEvent, created: &AccessKeyCreated) -> Result<(), KeyRefusal> {
        let hash: KeyHash = created.hash.as_slice().try_into().map_err(|_| KeyRefusal::Hash)?;
        let known = self.tenants.get(&event.tenant);
        match created.condition {
            CreateCondition::New if known.is_some_and(|it| it.keys.contains_key(&created.key_id)) => {
                return Err(KeyRefusal::Exists);
            }
            CreateCondition::First if known.is_some_and(|it| !it.keys.is_empty()) => {
                return Err(KeyRefusal::NotFirst);
            }
            CreateCondition::New | CreateCondition::First | CreateCondition::Always => {}
        }
        let key = ApiKey {
            id: created.key_id.clone(),
            tenant: event.tenant.clone(),
            name: created.name.clone(),
            allowed: scopes_of(
                created.roles.iter().map(Text::as_str),
                created.scopes.iter().map(Text::as_str),
            ),
            roles: created.roles.clone(),
            scopes: created.scopes.clone(),
            created_at_ms: created.created_at_ms,
            created_by: event.actor.clone(),
            expires_at_ms: created.expires_at_ms,
            rotated_at_ms: None,
            previous_until_ms: None,
            revoked_at_ms: created.revoked_at_ms,
            revoked_by: None,
            requests_per_minute: created.requests_per_minute,
            version: 1,
            hash,
            previous_hash: None,
        };
        let place = (key.tenant.clone(), key.id.clone());
        let tenant = self.tenants.entry(event.tenant.clone()).or_default();
        if let Some(replaced) = tenant.keys.insert(key.id.clone(), key) {
            replaced.hashes().for_each(|it| self.forget(&it, &place));
        }
        self.by_hash.entry(hash).or_default().insert(place);
        Ok(())
    }

    fn rotate(&mut self, event: &AccessEvent, rotated: &AccessKeyRotated) -> Result<(), KeyRefusal> {
        let hash: KeyHash = rotated.hash.as_slice().try_into().map_err(|_| KeyRefusal::Hash)?;
        let key = self.key_mut(&event.tenant, &rotated.key_id)?;
        if key.revoked_at_ms.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        if key.version != rotated.expected_version {
            return Err(KeyRefusal::Version(key.version));
        }
        let forgotten = key.previous_hash.replace(std::mem::replace(&mut key.hash, hash));
        key.previous_until_ms = Some(rotated.previous_until_ms);
        key.rotated_at_ms = Some(event.occurred_at_ms);
        key.version += 1;
        let place = (event.tenant.clone(), rotated.key_id.clone());
        if let Some(forgotten) = forgotten {
            self.forget(&forgotten, &place);
        }
        self.by_hash.entry(hash).or_default().insert(place);
        Ok(())
    }

    fn forget(&mut self, hash: &KeyHash, place: &(Text, Text)) {
        if let Some(places) = self.by_hash.get_mut(hash) {
            places.remove(place);
            if places.is_empty() {
                self.by_hash.remove(hash);
            }
        }
    }

    fn key_mut(&mut self, tenant: &str, id: &str) -> Result<&mut ApiKey, KeyRefusal> {
        let tenant = self.tenants.get_mut(tenant).ok_or(KeyRefusal::NoSuchKey)?;
        tenant.keys.get_mut(id).ok_or(KeyRefusal::NoSuchKey)
    }

    /// The key that this hash opens now.
    pub fn opened_by(&self, hash: &KeyHash, now_ms: i64) -> Option<&ApiKey> {
        let places = self.by_hash.get(hash)?;
        places.iter().filter_map(|(tenant, id)| self.key(tenant, id)).find(|it| it.opens(hash, now_ms))
    }

    /// Every key that has this hash for a secret, whether it holds or not.
    pub fn with_hash(&self, hash: &KeyHash) -> impl Iterator<Item = &ApiKey> {
        self.by_hash.get(hash).into_iter().flatten().filter_map(|(tenant, id)| self.key(tenant, id))
    }

    /// A tenant's key, revoked ones included.
    pub fn key(&self, tenant: &str, id: &str) -> Option<&ApiKey> {
        self.tenants.get(tenant)?.keys.get(id)
    }

    /// A tenant's keys by id, revoked ones included.
    pub fn keys(&self, tenant: &str) -> impl Iterator<Item = &ApiKey> {
        self.tenants.get(tenant).into_iter().flat_map(|it| it.keys.values())
    }

    /// Every tenant that ever had a key or a limit.
    pub fn tenants(&self) -> impl Iterator<Item = (&Text, &TenantAccess)> {
        self.tenants.iter()
    }

    /// Calls per minute that all keys of the tenant may make together.
    pub fn limit(&self, tenant: &str) -> Option<i64> {
        self.tenants.get(tenant)?.requests_per_minute
    }

    /// Whether nobody has a key.
    pub fn is_empty(&self) -> bool {
        self.tenants.values().all(|it| it.keys.is_empty())
    }
}

impl TenantAccess {
    /// How many keys have not ended.
    pub fn live_keys(&self, now_ms: i64) -> usize {
        self.keys.values().filter(|it| it.is_live(now_ms)).count()
    }
}
