//! The place where a tenant's rule answers: what a stage asks, and the verdict it gets.

use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;

/// What a stage asks the tenant's rule. One variant per hook.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleCall {
    /// Adjust prices, discounts and tax.
    Price(PriceInput),
    /// Choose locations, or refuse.
    Allocate(AllocateInput),
    /// Approve, review or decline; choose the provider.
    Risk(RiskInput),
    /// Choose the carrier.
    Ship(ShipInput),
    /// Extra analytics dimensions.
    Measure(MeasureInput),
}

impl RuleCall {
    /// The hook's name.
    pub fn hook(&self) -> &'static str {
        match self {
            Self::Price(_) => "price",
            Self::Allocate(_) => "allocate",
            Self::Risk(_) => "risk",
            Self::Ship(_) => "ship",
            Self::Measure(_) => "measure",
        }
    }
}

/// A line as a rule sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleLine {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub quantity: i64,
    /// Minor units.
    pub unit_price_minor: i64,
    /// The line's own discount, minor units.
    pub discount_minor: i64,
    /// Basis points.
    pub tax_rate_bp: i32,
    /// The product's category.
    pub category: Option<Text>,
}

/// Input of the price hook.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceInput {
    /// The customer.
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// The lines at catalog (or own) price.
    pub lines: Vec<RuleLine>,
}

/// Input of the allocate hook.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocateInput {
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// SKU and units, one per distinct stocked SKU.
    pub lines: Vec<(Text, i64)>,
}

/// Input of the risk hook.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskInput {
    /// The customer.
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// Minor units.
    pub total_minor: i64,
    /// The payment method.
    pub method: Text,
}

/// Input of the ship hook.
#[derive(Clone, Debug, PartialEq)]
pub struct ShipInput {
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// SKU and units.
    pub lines: Vec<(Text, i64)>,
    /// The carrier the merchant named.
    pub carrier: Option<Text>,
}

/// Input of the measure hook.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureInput {
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// Minor units.
    pub total_minor: i64,
}

/// A verdict, with the rule that gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Who said it: stands in every event it shaped.
    pub rule: RuleRef,
    /// What it said.
    pub answer: RuleAnswer,
}

/// What a rule said.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleAnswer {
    /// Price hook: one per line of the input, in its order; extra discount in minor units, ≥ 0.
    LineDiscounts(Vec<i64>),
    /// Allocate hook: locations in the order of preference.
    Locations(Vec<Text>),
    /// Risk hook: go on.
    Approve,
    /// Any hook: the order is refused with this code and sentence.
    Refuse {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
    /// Ship hook: the carrier to use.
    Carrier(Text),
    /// Measure hook: name and value, at most 8.
    Dimensions(Vec<(Text, Text)>),
    /// The rule has nothing to say.
    Pass,
}

/// Answers rule calls. Synchronous: a rule is a bounded computation, not I/O.
pub trait RuleHost: Send + Sync {
    /// The verdict of the tenant's active rule for this hook; `None` when the tenant has none.
    fn call(&self, tenant: &str, order_id: &str, call: &RuleCall) -> Option<Verdict>;

    /// Whether the tenant has any active rule: spares building inputs nobody reads.
    fn has_rules(&self, tenant: &str) -> bool;
}

/// A host without rules.
pub struct NoRules;

impl RuleHost for NoRules {
    fn call(&self, _tenant: &str, _order_id: &str, _call: &RuleCall) -> Option<Verdict> {
        None
    }

    fn has_rules(&self, _tenant: &str) -> bool {
        false
    }
}
