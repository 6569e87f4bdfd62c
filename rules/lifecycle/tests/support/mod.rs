//! Rules, and a clock that goes on by a millisecond for each event they are told.

use tillstream_registry_log::{Appended, Fold};
use tillstream_rule_lifecycle::{RuleRefusal, Rules};
use tillstream_schemas::rules::{RuleEvent, RulePayload};

#[derive(Default)]
pub struct World {
    pub rules: Rules,
    at_ms: i64,
}

impl World {
    pub fn take(&mut self, tenant: &str, rule: &str, payload: RulePayload) -> Result<(), RuleRefusal> {
        self.at_ms += 1;
        let event = RuleEvent {
            id: format!("evt_{}", self.at_ms).into(),
            tenant: tenant.into(),
            occurred_at_ms: self.at_ms,
            actor: "key_1".into(),
            rule: rule.into(),
            payload,
        };
        self.rules.apply(&event, Appended { partition: 0, offset: self.at_ms as u64, at_ms: self.at_ms })
    }
}
