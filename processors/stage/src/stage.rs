//! The stage trait and the shape of a decision.

use crate::Facts;
use crate::rule::RuleCall;
use thiserror::Error;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::item::ItemCommandPayload;
use tillstream_schemas::order_command::OrderCommandPayload;
use tillstream_schemas::order_event::OrderEventPayload;

/// The stages, as metrics and dead letters name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StageName {
    /// Pricing.
    Pricing,
    /// Reservation.
    Reservation,
    /// Payment.
    Payment,
    /// Fulfillment.
    Fulfillment,
    /// The order view.
    OrderView,
    /// Catalog.
    Catalog,
    /// Stock.
    Stock,
    /// Analytics.
    Analytics,
    /// The effects executor.
    Effects,
}

impl StageName {
    /// Every stage.
    pub const ALL: [Self; 9] = [
        Self::Pricing,
        Self::Reservation,
        Self::Payment,
        Self::Fulfillment,
        Self::OrderView,
        Self::Catalog,
        Self::Stock,
        Self::Analytics,
        Self::Effects,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pricing => "pricing",
            Self::Reservation => "reservation",
            Self::Payment => "payment",
            Self::Fulfillment => "fulfillment",
            Self::OrderView => "order_view",
            Self::Catalog => "catalog",
            Self::Stock => "stock",
            Self::Analytics => "analytics",
            Self::Effects => "effects",
        }
    }
}

/// What an order stage is given: a client's or answerer's command, an event of an earlier stage (or of its
/// own, from the same input), or a fired timer.
#[derive(Clone, Copy, Debug)]
pub enum OrderInput<'a> {
    /// A command from the log.
    Command(&'a OrderCommandPayload),
    /// An event that this input already caused.
    Event(&'a OrderEventPayload),
    /// A timer this order set.
    Timer(TimerName),
}

/// Timers an order or item may set; at most one of each name is set per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TimerName {
    /// Reservation: the holds end unless paid.
    HoldExpiry = 1,
    /// Payment: ask the provider again.
    PaymentRetry = 2,
    /// Item: forget an applied adjustment (30 days).
    ForgetAdjustment = 3,
    /// Webhooks: the next attempt of a delivery.
    WebhookAttempt = 4,
}

impl TimerName {
    /// Every timer.
    pub const ALL: [Self; 4] =
        [Self::HoldExpiry, Self::PaymentRetry, Self::ForgetAdjustment, Self::WebhookAttempt];

    /// Its name, part of a changelog's keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HoldExpiry => "hold_expiry",
            Self::PaymentRetry => "payment_retry",
            Self::ForgetAdjustment => "forget_adjustment",
            Self::WebhookAttempt => "webhook_attempt",
        }
    }

    /// Finds a timer by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// From its number in a timer row.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::HoldExpiry),
            2 => Some(Self::PaymentRetry),
            3 => Some(Self::ForgetAdjustment),
            4 => Some(Self::WebhookAttempt),
            _ => None,
        }
    }
}

/// Set (or move), or clear, this key's timer of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerChange {
    /// Which timer.
    pub name: TimerName,
    /// When it is due (wall clock, ms since the epoch); `None` clears it.
    pub due_ms: Option<i64>,
}

/// What an order stage decided. Effects are data: performed after the commit, answered by a new command.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<S> {
    /// The new state; `None`: unchanged.
    pub state: Option<S>,
    /// Events: handed to every stage of the chain in order, and written to the log in the same commit.
    pub events: Vec<OrderEventPayload>,
    /// Commands to items, with their SKU.
    pub item_commands: Vec<(Text, ItemCommandPayload)>,
    /// Requests to the payment provider.
    pub payment_requests: Vec<PaymentRequest>,
    /// Timers.
    pub timers: Vec<TimerChange>,
}

impl<S> Default for Decision<S> {
    fn default() -> Self {
        Self {
            state: None,
            events: Vec::new(),
            item_commands: Vec::new(),
            payment_requests: Vec::new(),
            timers: Vec::new(),
        }
    }
}

impl<S> Decision<S> {
    /// Nothing changes.
    pub fn none() -> Self {
        Self::default()
    }

    /// A new state, nothing else.
    pub fn state(state: S) -> Self {
        Self { state: Some(state), ..Self::default() }
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, event: impl Into<OrderEventPayload>) -> Self {
        self.events.push(event.into());
        self
    }
}

/// What a stage cannot take. A business refusal is a decision, never this: this dead-letters the record.
#[derive(Debug, Error, PartialEq)]
pub enum StageError {
    /// Arithmetic left the range that validation promises.
    #[error("TS0201: {stage}: {what} overflows")]
    Overflow {
        /// The stage.
        stage: &'static str,
        /// What.
        what: &'static str,
    },
    /// State and input contradict each other in a way no history can produce.
    #[error("TS0202: {stage}: {what}")]
    Invariant {
        /// The stage.
        stage: &'static str,
        /// What.
        what: String,
    },
}

/// One stage of the order chain.
///
/// Determinism: `decide` depends on its arguments alone. It is called for every input of the order, commands
/// and events alike, and answers [`Decision::none`] for what does not concern it; for a duplicate too.
pub trait OrderStage {
    /// The stage's section of the order row; `Default` is the state before it ever decided.
    type State: Default + Clone + PartialEq + std::fmt::Debug;

    /// Its name.
    const NAME: StageName;

    /// What to ask the tenant's rule before `decide`, if anything.
    fn rule_call(state: &Self::State, input: OrderInput<'_>, facts: &Facts<'_>) -> Option<RuleCall>;

    /// Facts in, decision out.
    fn decide(
        state: &Self::State,
        input: OrderInput<'_>,
        facts: &Facts<'_>,
    ) -> Result<Decision<Self::State>, StageError>;
}
