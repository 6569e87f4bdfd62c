//! API keys: who calls, and for which tenant.

use crate::Ingest;
use crate::problem::{Code, Problem};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Extensions, HeaderMap, header};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tillstream_log::LogError;
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_stage::ids::client_id;
use tillstream_state::{Keys, StoredKey};

/// The longest key that is looked at.
const KEY_CHARACTERS_MAX: usize = 255;

/// Every API key of this deployment, by hash, in memory; changes go to the store first.
pub struct ApiKeys {
    store: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    by_hash: RwLock<FxHashMap<[u8; 32], StoredKey>>,
}

impl ApiKeys {
    /// Loads the keys.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(store: Arc<dyn Keys>, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let keys = store.list_keys().await?;
        let by_hash = RwLock::new(keys.into_iter().map(|key| (key.hash, key)).collect());
        Ok(Self { store, clock, by_hash })
    }

    /// Reads the keys again: what another process changed holds here from now on.
    ///
    /// # Errors
    /// The store's; then what was known before still holds.
    pub async fn reload(&self) -> Result<(), LogError> {
        let keys = self.store.list_keys().await?;
        let mut by_hash = self.by_hash.write();
        for key in keys {
            by_hash.insert(key.hash, key);
        }
        Ok(())
    }

    /// Makes a key for a tenant; the second value is the key itself, which is kept nowhere.
    ///
    /// # Errors
    /// The store's, or [`LogError::Io`] when the system has no randomness.
    pub async fn create(&self, tenant: &str, name: &str) -> Result<(StoredKey, String), LogError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| LogError::Io(error.to_string()))?;
        let mut words = String::with_capacity(32);
        for byte in random {
            words.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            words.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        let key = format!("till_{words}");
        let stored = self.put(self.fresh(tenant, name, &key)).await?;
        Ok((stored, key))
    }

    /// Sees to it that a given key is valid for a tenant, also when it was revoked or another tenant's.
    ///
    /// # Errors
    /// The store's.
    pub async fn ensure(&self, tenant: &str, name: &str, given_key: &str) -> Result<StoredKey, LogError> {
        let fresh = self.fresh(tenant, name, given_key);
        let known = self.by_hash.read().get(&fresh.hash).cloned();
        match known {
            Some(known) if known.tenant == tenant && known.revoked_at_ms.is_none() => Ok(known),
            Some(known) => self.put(StoredKey { tenant: fresh.tenant, revoked_at_ms: None, ..known }).await,
            None => self.put(fresh).await,
        }
    }

    /// Revokes a key of a tenant; `None` when the tenant has no such key. Revoking twice changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke(&self, tenant: &str, id: &str) -> Result<Option<StoredKey>, LogError> {
        let found = self.by_hash.read().values().find(|it| it.tenant == tenant && it.id == id).cloned();
        match found {
            None => Ok(None),
            Some(revoked) if revoked.revoked_at_ms.is_some() => Ok(Some(revoked)),
            Some(live) => {
                let revoked = StoredKey { revoked_at_ms: Some(self.clock.now_ms()), ..live };
                self.put(revoked).await.map(Some)
            }
        }
    }

    /// A tenant's keys, oldest first, revoked ones included.
    pub fn list(&self, tenant: &str) -> Vec<StoredKey> {
        let mut keys: Vec<StoredKey> =
            self.by_hash.read().values().filter(|it| it.tenant == tenant).cloned().collect();
        keys.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        keys
    }

    /// Every tenant that has a key, revoked ones included.
    pub(crate) fn tenants(&self) -> BTreeSet<Text> {
        self.by_hash.read().values().map(|it| it.tenant.clone()).collect()
    }

    /// Whether there is no key at all, as in an empty data dir.
    pub fn is_empty(&self) -> bool {
        self.by_hash.read().is_empty()
    }

    /// Who a key speaks for.
    pub(crate) fn caller(&self, key: &str) -> Option<Caller> {
        let hash = hash_of(key);
        let keys = self.by_hash.read();
        let stored = keys.get(&hash)?;
        let equal: bool = stored.hash.ct_eq(&hash).into();
        (equal && stored.revoked_at_ms.is_none())
            .then(|| Caller { tenant: stored.tenant.clone(), key_id: stored.id.clone() })
    }

    fn fresh(&self, tenant: &str, name: &str, key: &str) -> StoredKey {
        StoredKey {
            id: client_id("key_", &[key]),
            tenant: tenant.into(),
            hash: hash_of(key),
            name: name.into(),
            created_at_ms: self.clock.now_ms(),
            revoked_at_ms: None,
        }
    }

    async fn put(&self, key: StoredKey) -> Result<StoredKey, LogError> {
        self.store.put_key(key.clone()).await?;
        self.by_hash.write().insert(key.hash, key.clone());
        Ok(key)
    }
}

fn hash_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Who calls, once the key is known to be valid.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub tenant: Text,
    pub key_id: Text,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthorized)
    }
}

fn unauthorized() -> Problem {
    Problem::new(Code::Unauthorized, "send Authorization: Bearer <api key> with a key that is not revoked")
}

/// Lets calls with a valid key through, with their [`Caller`]; counts the others per address.
pub(crate) async fn require_key(
    State(ingest): State<Arc<Ingest>>,
    mut request: Request,
    next: Next,
) -> Response {
    let offered = || crate::streams::offered_key(request.headers());
    match bearer(request.headers()).or_else(offered).and_then(|key| ingest.keys.caller(key)) {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => match ingest.limiter.count(address(request.extensions()), ingest.clock.now_ms()) {
            Ok(()) => unauthorized().into_response(),
            Err(seconds) => {
                let detail = "too many calls without a valid API key from this address";
                Problem::new(Code::TooManyRequests, detail).retry_after(seconds).into_response()
            }
        },
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && key.len() <= KEY_CHARACTERS_MAX)
        .then_some(key)
}

/// The caller's address; all callers share one when the server does not say.
fn address(extensions: &Extensions) -> IpAddr {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
}
