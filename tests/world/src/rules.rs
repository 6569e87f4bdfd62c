//! Rules whose active version changes while orders are decided.

use std::sync::atomic::{AtomicU32, Ordering};
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_stage::rule::{RuleAnswer, RuleCall, RuleHost, Verdict};

/// The rules of all tenants: one version is in force in every process at once; 0 is none.
#[derive(Default)]
pub struct SimRules {
    active: AtomicU32,
}

/// What version `version` takes off a line of so many units.
pub fn line_discount_minor(version: u32, quantity: i64) -> i64 {
    i64::from(version) * 10 * quantity
}

/// Whether the version's risk hook refuses a total.
pub fn refuses(version: u32, total_minor: i64) -> bool {
    version == 4 && total_minor % 7 == 3
}

impl SimRules {
    /// This version is in force from now on.
    pub fn activate(&self, version: u32) {
        self.active.store(version, Ordering::Relaxed);
    }

    /// The version in force.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

fn reference(version: u32) -> RuleRef {
    RuleRef {
        name: Text::const_new("house"),
        version: version.to_string().into(),
        digest: format!("sha256:{version}").into(),
    }
}

impl RuleHost for SimRules {
    fn call(&self, _tenant: &str, _order_id: &str, call: &RuleCall) -> Option<Verdict> {
        let version = self.active();
        let answer = match call {
            _ if version == 0 => return None,
            RuleCall::Price(input) => RuleAnswer::LineDiscounts(
                input.lines.iter().map(|it| line_discount_minor(version, it.quantity)).collect(),
            ),
            RuleCall::Risk(input) if refuses(version, input.total_minor) => RuleAnswer::Refuse {
                code: Text::const_new("risk_refused"),
                message: Text::const_new("The rule refuses this total."),
            },
            _ => return None,
        };
        Some(Verdict { rule: reference(version), answer })
    }

    fn has_rules(&self, _tenant: &str) -> bool {
        self.active() != 0
    }
}
