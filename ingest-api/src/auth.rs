//! Who calls, for which tenant, and whether the call is theirs to make.

use crate::Ingest;
use crate::access::{ApiKey, Scope, Scopes};
use crate::observe::CallOf;
use crate::problem::{Code, FieldError, Problem};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Extensions, HeaderMap, header};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tillstream_schemas::Text;

/// The longest key that is looked at.
const KEY_CHARACTERS_MAX: usize = 255;

/// Who calls, once the key is known to be valid.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub tenant: Text,
    pub key_id: Text,
    pub scopes: Scopes,
    /// Whether the tenant is the one of whoever runs this deployment.
    pub is_operator: bool,
}

impl Caller {
    /// The tenant itself, for what is read on its behalf: no key, and nothing it may do.
    pub fn tenant_alone(tenant: Text) -> Self {
        Self { tenant, key_id: Text::default(), scopes: Scopes::default(), is_operator: false }
    }

    /// Whether the key may do that.
    ///
    /// # Errors
    /// 403 with the scope that is missing.
    pub fn check(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.has(scope) { Ok(()) } else { Err(forbidden(scope)) }
    }

    /// The tenant that a call is about: the caller's own, or the one it names, if it may act for others.
    ///
    /// # Errors
    /// 403 when it may not.
    pub fn acting_for(&self, named: Option<&str>) -> Result<Text, Problem> {
        match named {
            Some(tenant) if tenant != self.tenant => {
                self.check(Scope::TenantsWrite)?;
                Ok(tenant.into())
            }
            _ => Ok(self.tenant.clone()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthorized)
    }
}

fn unauthorized() -> Problem {
    let fix = "send Authorization: Bearer <api key> with a key that holds";
    Problem::about(Code::Unauthorized, "Authorization", "holds no valid API key", fix)
}

/// 403: the key lacks that scope.
pub(crate) fn forbidden(scope: Scope) -> Problem {
    let fix = if scope == Scope::TenantsWrite {
        "use a key of the operator's tenant with the role admin".to_owned()
    } else {
        format!("use a key with the scope {scope}, or with a role that has it")
    };
    let errors = vec![FieldError::new("Authorization", format!("the key lacks the scope {scope}"), fix)];
    Problem { errors, ..Problem::new(Code::Forbidden, format!("the key lacks the scope {scope}")) }
}

/// Lets calls with a valid key through, with their [`Caller`]; counts the others per address.
pub(crate) async fn require_key(
    State(ingest): State<Arc<Ingest>>,
    mut request: Request,
    next: Next,
) -> Response {
    match identify(&ingest, request.headers()) {
        Some(Ok(caller)) => {
            let tenant = CallOf(caller.tenant.clone());
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            response.extensions_mut().insert(tenant);
            response
        }
        Some(Err(limited)) => limited.into_response(),
        None => match ingest.limiter.count(address(request.extensions()), ingest.clock.now_ms()) {
            Ok(()) => unauthorized().into_response(),
            Err(seconds) => {
                let detail = "too many calls without a valid API key from this address";
                Problem::new(Code::TooManyRequests, detail).retry_after(seconds).into_response()
            }
        },
    }
}

/// Lets calls through whose key has the scope.
pub(crate) async fn require_scope(State(scope): State<Scope>, request: Request, next: Next) -> Response {
    let allowed = match request.extensions().get::<Caller>() {
        Some(caller) => caller.check(scope),
        None => Err(unauthorized()),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The caller, or that it calls too often; `None` without a valid key.
fn identify(ingest: &Ingest, headers: &HeaderMap) -> Option<Result<Caller, Problem>> {
    let known = |key: &ApiKey, tenant_limit| (caller_of(key, ingest), key.requests_per_minute, tenant_limit);
    let (caller, key_limit, tenant_limit) =
        ingest.keys.opened_by(bearer(headers).or_else(|| crate::streams::offered_key(headers))?, known)?;
    let (key_id, tenant) = (&caller.key_id, &caller.tenant);
    for (name, limit, whose) in [(key_id, key_limit, "key"), (tenant, tenant_limit, "tenant")] {
        let Some(limit) = limit else { continue };
        let rule = || format!("the {whose} may make {limit} calls a minute");
        if let Err(limited) = ingest.rates.let_in(name, limit, ingest.clock.monotonic_ns(), rule) {
            return Some(Err(limited));
        }
    }
    Some(Ok(caller))
}

fn caller_of(key: &ApiKey, ingest: &Ingest) -> Caller {
    let is_operator = ingest.operator_tenant.as_ref() == Some(&key.tenant);
    // Whoever is admin of a shop is not admin of the others.
    let beyond = if is_operator { Scopes::default() } else { Scopes::of(&[Scope::TenantsWrite]) };
    Caller {
        tenant: key.tenant.clone(),
        key_id: key.id.clone(),
        scopes: key.allowed().without(beyond),
        is_operator,
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
