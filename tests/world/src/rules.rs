//! Rules whose active version changes while orders are decided.

use std::sync::atomic::{AtomicU32, Ordering};
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_stage::rule::{
    Hook, Hooks, LineAdjustment, RuleAnswer, RuleCall, RuleHost, RuleOutcome, Verdict,
};

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
        also: Vec::new(),
    }
}

/// What the version says; `None` where it has nothing to say.
fn answer(version: u32, call: &RuleCall) -> Option<RuleAnswer> {
    match call {
        _ if version == 0 => None,
        RuleCall::Price(input) => {
            let adjust = |quantity| LineAdjustment {
                discount_minor: line_discount_minor(version, quantity),
                tax_rate_bp: None,
            };
            Some(RuleAnswer::Adjust(input.lines.iter().map(|it| adjust(it.quantity)).collect()))
        }
        RuleCall::Risk(input) if refuses(version, input.total_minor) => Some(RuleAnswer::Refuse {
            code: Text::const_new("risk_refused"),
            message: Text::const_new("The rule refuses this total."),
        }),
        _ => None,
    }
}

impl RuleHost for SimRules {
    fn call(&self, _tenant: &str, _order_id: &str, call: &RuleCall) -> RuleOutcome {
        let version = self.active();
        let verdict = answer(version, call).map(|answer| Verdict::new(reference(version), answer));
        RuleOutcome { verdict, ..RuleOutcome::default() }
    }

    fn hooks(&self, _tenant: &str) -> Hooks {
        if self.active() == 0 { Hooks::NONE } else { Hooks::NONE.with(Hook::Price).with(Hook::Risk) }
    }
}
