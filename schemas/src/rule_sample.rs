//! `rules.samples.v1`: calls of tenants' rules, kept so that their authors can run them again.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A call of a tenant's rule. Its key is one of a few places per rule and kind: a later sample takes the place of an
/// earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleSample {
    /// `smp_` and a hash of tenant, rule, version, order, hook and kind.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The rule's name.
    pub rule: Text,
    /// The version that was called.
    pub version: Text,
    /// SHA-256 of its module, in hex.
    pub digest: Text,
    /// The order it was asked about.
    pub order_id: Text,
    /// The hook.
    pub hook: Text,
    /// Why it is kept.
    pub kind: RuleSampleKind,
    /// When it was called, ms since the epoch.
    pub at_ms: i64,
    /// What it was asked, as JSON, with what may be a person masked.
    pub input: String,
    /// What is masked in the input, such as `order.customer`.
    pub masked: Vec<Text>,
    /// What it was told beside the order: a JSON object.
    pub settings: Text,
    /// What became of the call, such as `answered`, `passed` or `fuel`.
    pub outcome: Text,
    /// What it said, as JSON; `None` where it gave no answer.
    #[serde(default)]
    pub answer: Option<String>,
    /// Why somebody is to look at the order.
    #[serde(default)]
    pub review: Option<String>,
    /// Units of fuel it used.
    pub fuel: i64,
    /// Bytes of memory it had at its end.
    pub memory_bytes: i64,
    /// What it logged.
    pub log: String,
    /// Of a difference: the version it is compared with; `None` where that is no rule at all.
    #[serde(default)]
    pub other_version: Option<Text>,
    /// Of a difference: what that version said, as JSON.
    #[serde(default)]
    pub other_answer: Option<String>,
}

/// Why a call is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSampleKind {
    /// One of the calls that answered an order.
    Call,
    /// It gave no answer.
    Failure,
    /// A version on trial said something else than the version that answers.
    Difference,
}

impl RuleSampleKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Call, Self::Failure, Self::Difference];

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Failure => "failure",
            Self::Difference => "difference",
        }
    }
}
