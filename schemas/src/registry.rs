//! Events of what tenants configured: what all of them have.

use crate::Topic;
use crate::codec::Wire;

/// One change of a tenant's configuration.
pub trait RegistryEvent: Wire + Send + Sync {
    /// Where it is kept: one of [`Topic::REGISTRIES`].
    const TOPIC: Topic;

    /// Unique among all events of the tenant: what comes again under the same id is the same event, and changes nothing.
    fn id(&self) -> &str;

    /// The tenant it belongs to.
    fn tenant(&self) -> &str;
}
