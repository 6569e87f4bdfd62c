//! `analytics.order.deltas.v1`, `analytics.revenue.windows.v1`, and the analytics task's rows.

use crate::Text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one batch of one order partition did to one tenant, folded per window and dimensions. Key: `tenant`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalyticsDelta {
    /// Deterministic id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The order partition it comes from: the watermark is the least over these.
    pub source_partition: i32,
    /// When the batch was decided (wall clock), ms since the epoch.
    pub decided_at_ms: i64,
    /// The largest event time in the batch for this tenant.
    pub max_event_time_ms: i64,
    /// The changes.
    pub windows: Vec<WindowDelta>,
    /// The W3C trace ids (32 hex digits) of the calls whose orders are folded here, sorted, each once.
    #[serde(default)]
    pub traces: Vec<Text>,
}

/// The change of one minute window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowDelta {
    /// Start of the minute, ms since the epoch.
    pub minute_start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// The sums.
    pub sums: Sums,
    /// Refused orders per reason code.
    #[serde(default)]
    pub refusals: BTreeMap<Text, i64>,
    /// Products sold (captured).
    #[serde(default)]
    pub products: Vec<ProductSum>,
}

/// What is summed per window. All minor units or counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Orders counted at capture.
    pub orders: i64,
    /// Units of captured orders (goods and fees; not the shipping charge).
    pub units: i64,
    /// Σ quantity × price of captured orders, fees included.
    pub gross: i64,
    /// Σ discounts of captured orders.
    pub discount: i64,
    /// Σ tax of captured orders.
    pub tax: i64,
    /// Σ refunds, credits included.
    pub refunded: i64,
    /// Refunds and credits.
    pub refunds: i64,
    /// Funnel: placed (judged by pricing).
    pub placed: i64,
    /// Funnel: priced.
    pub priced: i64,
    /// Funnel: reserved.
    pub reserved: i64,
    /// Funnel: paid (captured or authorized).
    pub paid: i64,
    /// Funnel: completed.
    pub completed: i64,
    /// Left the funnel: rejected or payment failed.
    pub failed: i64,
    /// Left the funnel: cancelled.
    pub cancelled: i64,
}

/// Sales of one product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductSum {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub units: i64,
    /// Σ quantity × price.
    pub gross: i64,
}

/// How wide a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s, UTC.
    Day,
}

impl Granularity {
    /// Every granularity.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Width in ms.
    pub fn width_ms(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// One letter, for row keys.
    pub fn letter(self) -> char {
        match self {
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
        }
    }

    /// The start of the window that `time_ms` falls in.
    pub fn start_of(self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.width_ms()) * self.width_ms()
    }
}

/// A window's row, and the value of `analytics.revenue.windows.v1`.
/// Key: `tenant/<granularity letter>/<start, 16 hex digits>/<currency>/<country>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowState {
    /// The tenant.
    pub tenant: Text,
    /// How wide.
    pub granularity: Granularity,
    /// Start, ms since the epoch.
    pub window_start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// The sums.
    pub sums: Sums,
    /// Refused orders per reason code.
    #[serde(default)]
    pub refusals: BTreeMap<Text, i64>,
    /// Grows by one with every change.
    pub version: i64,
}

/// Top products of a window. Key: `tenant/<granularity letter>/<start, 16 hex digits>/<currency>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopProductsState {
    /// The counted products.
    pub products: Vec<ProductSum>,
    /// How many units a product's count may be short by; 0: exact.
    pub undercount_units_max: i64,
}

/// Late data that changed a window the watermark had passed.
/// Key: `tenant/<minute start, 16 hex digits>/<currency>/<country>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorrectionState {
    /// Start of the minute window.
    pub minute_start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// How many late deltas.
    pub count: i64,
    /// What they changed, together.
    pub sums: Sums,
    /// When the first came (wall clock).
    pub first_at_ms: i64,
    /// When the last came (wall clock).
    pub last_at_ms: i64,
    /// The watermark when the last came.
    pub watermark_ms: i64,
}

/// A tenant's event-time progress. Key: `tenant`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatermarkState {
    /// The watermark, ms since the epoch; it never moves back.
    pub watermark_ms: i64,
    /// Per order partition.
    pub sources: Vec<SourceProgress>,
}

/// Progress of one source partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// The partition.
    pub partition: i32,
    /// The largest event time seen.
    pub max_event_time_ms: i64,
    /// When it was last heard of (wall clock); past a minute it is idle.
    pub seen_at_ms: i64,
}
