//! The place where a tenant's rules answer: what a stage asks, and the verdict it gets.
//!
//! The types here say what `rules/wit` says, in this crate's words, so that no stage knows what a rule is made of.

mod fit;
mod rate;

pub use fit::{DIMENSIONS_MAX, LOCATIONS_MAX, Misfit, PARCELS_MAX, TEXT_CHARS_MAX, fit};
pub use rate::{RATE_BP_MAX, parse_rate, rate_text};

use crate::StageName;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tillstream_schemas::order_command::PlaceOrder;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::order_state::PricedOrder;
use tillstream_schemas::{Text, TextMap};

/// A point of the chain where rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before an order's total is made.
    Price,
    /// Before its stock is held.
    Allocate,
    /// Before money is asked for.
    Risk,
    /// Before goods leave.
    Ship,
    /// When it is priced, for analytics.
    Measure,
}

impl Hook {
    /// Every hook, in the order an order meets them.
    pub const ALL: [Self; 5] = [Self::Price, Self::Allocate, Self::Risk, Self::Ship, Self::Measure];

    /// Its name, as the API and the modules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Allocate => "allocate",
            Self::Risk => "risk",
            Self::Ship => "ship",
            Self::Measure => "measure",
        }
    }

    /// Finds a hook by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The stage that asks: the `stage` label.
    pub fn stage(self) -> StageName {
        match self {
            Self::Price => StageName::Pricing,
            Self::Allocate => StageName::Reservation,
            Self::Risk => StageName::Payment,
            Self::Ship => StageName::Fulfillment,
            Self::Measure => StageName::Analytics,
        }
    }
}

/// A set of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub fn with(self, hook: Hook) -> Self {
        Self(self.0 | 1 << hook as u8)
    }

    /// Whether it is in the set.
    pub fn contains(self, hook: Hook) -> bool {
        self.0 & 1 << hook as u8 != 0
    }

    /// Whether a stage has anybody to ask.
    pub fn concern(self, stage: StageName) -> bool {
        Hook::ALL.into_iter().any(|it| it.stage() == stage && self.contains(it))
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Hook> {
        Hook::ALL.into_iter().filter(move |it| self.contains(*it))
    }
}

impl FromIterator<Hook> for Hooks {
    fn from_iter<I: IntoIterator<Item = Hook>>(hooks: I) -> Self {
        hooks.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What a stage asks a tenant's rules. One variant per hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "hook", rename_all = "snake_case")]
pub enum RuleCall {
    /// Adjust prices, discounts and tax.
    Price(PriceInput),
    /// Choose locations, or refuse.
    Allocate(AllocateInput),
    /// Approve, review or decline.
    Risk(RiskInput),
    /// Split, choose carriers, promise.
    Ship(ShipInput),
    /// Extra analytics dimensions.
    Measure(MeasureInput),
}

impl RuleCall {
    /// Which hook is asked.
    pub fn hook(&self) -> Hook {
        match self {
            Self::Price(_) => Hook::Price,
            Self::Allocate(_) => Hook::Allocate,
            Self::Risk(_) => Hook::Risk,
            Self::Ship(_) => Hook::Ship,
            Self::Measure(_) => Hook::Measure,
        }
    }

    /// What it says about the order.
    pub fn order(&self) -> &RuleOrder {
        match self {
            Self::Price(it) => &it.order,
            Self::Allocate(it) => &it.order,
            Self::Risk(it) => &it.order,
            Self::Ship(it) => &it.order,
            Self::Measure(it) => &it.order,
        }
    }

    /// How many lines it has: limits grow with them.
    pub fn lines(&self) -> usize {
        match self {
            Self::Price(it) => it.lines.len(),
            Self::Allocate(it) => it.lines.len(),
            Self::Risk(_) => 0,
            Self::Ship(it) => it.lines.len(),
            Self::Measure(it) => it.lines.len(),
        }
    }
}

/// What every hook is told about the order. No name, street or note: a rule has no use for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleOrder {
    /// Event time, ms since the epoch.
    pub placed_at_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// The merchant's customer id.
    pub customer: Option<Text>,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// State or region.
    pub region: Option<Text>,
    /// City.
    pub city: Option<Text>,
    /// Postal code.
    pub postal_code: Option<Text>,
    /// The merchant's metadata.
    pub metadata: TextMap,
}

impl From<&PlaceOrder> for RuleOrder {
    fn from(order: &PlaceOrder) -> Self {
        let place = order.ship_to.as_ref();
        Self {
            placed_at_ms: order.placed_at_ms,
            currency: order.currency.clone(),
            customer: order.customer.clone(),
            country: order.country.clone(),
            region: place.and_then(|it| it.region.clone()),
            city: place.and_then(|it| it.city.clone()),
            postal_code: place.and_then(|it| it.postal_code.clone()),
            metadata: order.metadata.clone(),
        }
    }
}

impl From<&PricedOrder> for RuleOrder {
    fn from(order: &PricedOrder) -> Self {
        let place = order.ship_to.as_ref();
        Self {
            placed_at_ms: order.placed_at_ms,
            currency: order.currency.clone(),
            customer: order.customer.clone(),
            country: order.country.clone(),
            region: place.and_then(|it| it.region.clone()),
            city: place.and_then(|it| it.city.clone()),
            postal_code: place.and_then(|it| it.postal_code.clone()),
            metadata: order.metadata.clone(),
        }
    }
}

/// A line as the price hook sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleLine {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub quantity: i64,
    /// Minor units.
    pub unit_price_minor: i64,
    /// What is off already, minor units.
    #[serde(default)]
    pub discount_minor: i64,
    /// Basis points.
    #[serde(default)]
    pub tax_rate_bp: i32,
    /// The product's category.
    #[serde(default)]
    pub category: Option<Text>,
}

/// Input of the price hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceInput {
    /// The order.
    pub order: RuleOrder,
    /// The lines at catalog (or own) price.
    pub lines: Vec<RuleLine>,
}

/// Goods, one per distinct SKU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoodsLine {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub quantity: i64,
    /// The product's category.
    #[serde(default)]
    pub category: Option<Text>,
}

/// Input of the allocate hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllocateInput {
    /// The order.
    pub order: RuleOrder,
    /// What is to be held.
    pub lines: Vec<GoodsLine>,
}

/// Input of the risk hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskInput {
    /// The order.
    pub order: RuleOrder,
    /// Minor units.
    pub total_minor: i64,
    /// Units of goods and fees.
    pub units: i64,
    /// Lines.
    pub lines: u32,
    /// The payment method.
    pub method: Text,
}

/// Goods that are to leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShipLine {
    /// What.
    #[serde(flatten)]
    pub goods: GoodsLine,
    /// Where the order's units of the SKU come from: location and units.
    #[serde(default)]
    pub held: Vec<(Text, i64)>,
}

/// Input of the ship hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShipInput {
    /// The order.
    pub order: RuleOrder,
    /// What leaves.
    pub lines: Vec<ShipLine>,
    /// The carrier the merchant named.
    #[serde(default)]
    pub carrier: Option<Text>,
}

/// A priced line as the measure hook sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureLine {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub quantity: i64,
    /// quantity × price, minor units.
    pub gross_minor: i64,
    /// What is off, minor units.
    pub discount_minor: i64,
    /// The product's category.
    #[serde(default)]
    pub category: Option<Text>,
}

/// Input of the measure hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureInput {
    /// The order.
    pub order: RuleOrder,
    /// Minor units.
    pub total_minor: i64,
    /// The priced lines.
    pub lines: Vec<MeasureLine>,
}

/// What the rules of a hook said together.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Who said it: stands in every event it shaped.
    pub rule: RuleRef,
    /// What they said.
    pub answer: RuleAnswer,
    /// Somebody must look at the order before its money is taken: why. Beside any answer but a refusal.
    pub review: Option<Text>,
}

impl Verdict {
    /// An answer of one rule.
    pub fn new(rule: RuleRef, answer: RuleAnswer) -> Self {
        Self { rule, answer, review: None }
    }
}

/// What changes on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineAdjustment {
    /// Taken off in addition, minor units, ≥ 0.
    pub discount_minor: i64,
    /// Replaces the tax rate, basis points.
    pub tax_rate_bp: Option<i32>,
}

/// One shipment of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// Where it leaves from.
    pub location: Option<Text>,
    /// Who carries it; `None`: whom the command names.
    pub carrier: Option<Text>,
    /// When it is promised to arrive, ms since the epoch.
    pub promised_at_ms: Option<i64>,
    /// Index into the input's lines, and units.
    pub contents: Vec<(u32, i64)>,
}

/// What a rule said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAnswer {
    /// The rule has nothing to say.
    Pass,
    /// Price hook: one per line of the input, in its order.
    Adjust(Vec<LineAdjustment>),
    /// Allocate hook: one per line of the input, locations in the order of preference; empty: no preference.
    Place(Vec<Vec<Text>>),
    /// Risk hook: go on.
    Approve,
    /// Ship hook: together they hold exactly what the input asked to ship.
    Split(Vec<Parcel>),
    /// Measure hook: name and value, each name once.
    Dimensions(Vec<(Text, Text)>),
    /// Any hook but measure: the order (or shipment) is refused with this code and sentence.
    Refuse {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
}

impl RuleAnswer {
    /// The answer without what changes nothing: two answers of the same effect are the same to an order. The words of a
    /// refusal are no part of what becomes of the order, its code is.
    #[must_use]
    pub fn effect(&self) -> Self {
        let nothing = LineAdjustment::default();
        match self {
            Self::Adjust(lines) if lines.iter().all(|it| *it == nothing) => Self::Pass,
            Self::Place(lines) if lines.iter().all(Vec::is_empty) => Self::Pass,
            Self::Approve => Self::Pass,
            Self::Dimensions(pairs) if pairs.is_empty() => Self::Pass,
            Self::Refuse { code, .. } => Self::Refuse { code: code.clone(), message: Text::default() },
            other => other.clone(),
        }
    }
}

/// One call of one rule, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRun {
    /// What became of it: one of [`RULE_OUTCOMES`].
    pub outcome: &'static str,
    /// Fuel it used.
    pub fuel: u64,
    /// How long it took on the host's clock, ns.
    pub ns: u64,
}

/// Every outcome of a rule call: the `outcome` label of `tillstream_rule_calls_total`.
///
/// `answered` and `passed` are good; the rest fell back to the tenant's policy. `throttled`: the tenant's share of fuel
/// was used up; `unavailable`: the module is not loaded here; `tripped`: the breaker holds the rule out.
pub const RULE_OUTCOMES: [&str; 12] = [
    "answered",
    "passed",
    "trap",
    "fuel",
    "memory",
    "stack",
    "input",
    "output",
    "invalid",
    "throttled",
    "unavailable",
    "tripped",
];

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleOutcome {
    /// The verdict; `None` when no rule had anything to say.
    pub verdict: Option<Verdict>,
    /// One per rule that was asked.
    pub runs: SmallVec<[RuleRun; 1]>,
}

/// Answers rule calls. Synchronous: a rule is a bounded computation, not I/O.
pub trait RuleHost: Send + Sync {
    /// What the tenant's active rules of this hook say together, in their order.
    fn call(&self, tenant: &str, order_id: &str, call: &RuleCall) -> RuleOutcome;

    /// The hooks for which the tenant has an active rule: spares building inputs nobody reads.
    fn hooks(&self, tenant: &str) -> Hooks;
}

/// A host without rules.
pub struct NoRules;

impl RuleHost for NoRules {
    fn call(&self, _tenant: &str, _order_id: &str, _call: &RuleCall) -> RuleOutcome {
        RuleOutcome::default()
    }

    fn hooks(&self, _tenant: &str) -> Hooks {
        Hooks::NONE
    }
}
