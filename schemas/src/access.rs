//! `access.keys.v1`: who may call, as the history of every change.

use crate::registry::RegistryEvent;
use crate::{Text, Topic};
use serde::{Deserialize, Serialize};

/// One change to a tenant's API keys. Every record has a key of its own, in the partition of the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessEvent {
    /// Unique id: an event that comes again is the same event.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// When it was asked for, ms since the epoch.
    pub occurred_at_ms: i64,
    /// Who asked: the id of an API key, or `start` for what a process does when it starts.
    pub actor: Text,
    /// What changes.
    pub payload: AccessPayload,
}

impl RegistryEvent for AccessEvent {
    const TOPIC: Topic = Topic::AccessKeys;

    fn id(&self) -> &str {
        &self.id
    }

    fn tenant(&self) -> &str {
        &self.tenant
    }
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessPayload {
    /// A key is made.
    #[serde(rename = "tillstream.AccessKeyCreated")]
    Created(Box<AccessKeyCreated>),
    /// A key gets a new secret.
    #[serde(rename = "tillstream.AccessKeyRotated")]
    Rotated(AccessKeyRotated),
    /// A key ends.
    #[serde(rename = "tillstream.AccessKeyRevoked")]
    Revoked(AccessKeyRevoked),
    /// The tenant's own limit changes.
    #[serde(rename = "tillstream.TenantLimitSet")]
    LimitSet(TenantLimitSet),
}

/// A key is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessKeyCreated {
    /// Public id, such as `key_…`.
    pub key_id: Text,
    /// What people call it.
    pub name: Text,
    /// SHA-256 of the key: 32 bytes. The key itself is kept nowhere.
    #[serde(with = "serde_bytes")]
    pub hash: Vec<u8>,
    /// Named sets of scopes, such as `admin`.
    pub roles: Vec<Text>,
    /// Scopes beside those of the roles, such as `orders:read`.
    pub scopes: Vec<Text>,
    /// When it was made, ms since the epoch.
    pub created_at_ms: i64,
    /// When it ends by itself, ms since the epoch.
    #[serde(default)]
    pub expires_at_ms: Option<i64>,
    /// When it was revoked, ms since the epoch: only of keys that are taken over from an older store.
    #[serde(default)]
    pub revoked_at_ms: Option<i64>,
    /// Calls per minute that this key may make; absent: no limit of its own.
    #[serde(default)]
    pub requests_per_minute: Option<i64>,
    /// What must hold for it to be made.
    pub condition: CreateCondition,
}

/// What must hold for a key to be made; where it does not, the event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateCondition {
    /// The tenant has no key of that id.
    #[serde(rename = "new")]
    New,
    /// The tenant has no key at all.
    #[serde(rename = "first")]
    First,
    /// Nothing: a key of that id is replaced, also a revoked one.
    #[serde(rename = "always")]
    Always,
}

/// A key gets a new secret; the old one stays valid for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessKeyRotated {
    /// Which.
    pub key_id: Text,
    /// SHA-256 of the new key.
    #[serde(with = "serde_bytes")]
    pub hash: Vec<u8>,
    /// Until when the secret before this one holds, ms since the epoch. One before that ends now.
    pub previous_until_ms: i64,
    /// The version that is rotated: another one is a conflict.
    pub expected_version: i64,
}

/// A key ends, with all its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessKeyRevoked {
    /// Which.
    pub key_id: Text,
}

/// How many calls all keys of a tenant may make together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantLimitSet {
    /// Calls per minute; absent: no limit.
    #[serde(default)]
    pub requests_per_minute: Option<i64>,
}
