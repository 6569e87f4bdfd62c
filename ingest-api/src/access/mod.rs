//! API keys: what they may do, how they change, how often they may call.

mod fold;
mod keys;
mod rates;
mod scope;

pub use fold::{Access, ApiKey, KeyRefusal, TenantAccess};
pub use keys::{ApiKeys, KeyError, NewKey};
pub(crate) use rates::Rates;
pub(crate) use scope::scopes_of;
pub use scope::{ROLE_NAMES, Role, SCOPE_NAMES, Scope, Scopes};
