//! Modules by content. Nobody but their tenant can name them.

use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use tillstream_registry_log::{Appended, Fold};
use tillstream_schemas::Text;
use tillstream_schemas::rules::RuleModule;

/// Bytes of all modules of one tenant, at most: every process holds them.
pub const MODULES_BYTES_MAX: usize = 32 << 20;

/// Why a module is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the tenant's modules would have {found} bytes together, at most {most} are kept")]
pub struct ModulesRefusal {
    /// Bytes with this module.
    pub found: usize,
    /// The limit.
    pub most: usize,
}

/// The modules of every tenant.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    tenants: BTreeMap<Text, BTreeMap<Text, Arc<[u8]>>>,
}

impl Modules {
    /// A tenant's module.
    pub fn get(&self, tenant: &str, digest: &str) -> Option<Arc<[u8]>> {
        self.tenants.get(tenant)?.get(digest).cloned()
    }
}

impl Fold for Modules {
    type Event = RuleModule;
    type Refusal = ModulesRefusal;

    fn apply(&mut self, event: &RuleModule, _appended: Appended) -> Result<(), ModulesRefusal> {
        let modules = self.tenants.entry(event.tenant.clone()).or_default();
        if modules.contains_key(&event.digest) {
            return Ok(());
        }
        let found = modules.values().map(|it| it.len()).sum::<usize>() + event.bytes.len();
        if found > MODULES_BYTES_MAX {
            return Err(ModulesRefusal { found, most: MODULES_BYTES_MAX });
        }
        modules.insert(event.digest.clone(), event.bytes.as_slice().into());
        Ok(())
    }
}
