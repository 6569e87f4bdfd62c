//! What a backtest found. Parts made from different orders can be added in any order.

use crate::distribution::{Distribution, Quantiles};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Differences that are named, at most: the largest.
pub const DIFFERENCES_MAX: usize = 50;

/// Sums of orders in one currency, minor units. A refused order counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sums {
    /// Orders that were not refused.
    pub orders: u64,
    /// Σ quantity × price.
    pub gross_minor: i64,
    /// Σ discounts.
    pub discount_minor: i64,
    /// Revenue without tax: gross − discount.
    pub net_minor: i64,
    /// Σ tax.
    pub tax_minor: i64,
    /// What customers pay: net + tax.
    pub total_minor: i64,
}

impl Sums {
    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        self.orders += other.orders;
        self.gross_minor = self.gross_minor.saturating_add(other.gross_minor);
        self.discount_minor = self.discount_minor.saturating_add(other.discount_minor);
        self.net_minor = self.net_minor.saturating_add(other.net_minor);
        self.tax_minor = self.tax_minor.saturating_add(other.tax_minor);
        self.total_minor = self.total_minor.saturating_add(other.total_minor);
    }
}

/// What the sums of one currency were, and would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// By what it is compared with.
    pub before: Sums,
    /// By the candidate.
    pub after: Sums,
    /// Net after − net before over the orders that neither refuses. The same goods at the same cost leave the house, so
    /// this is the difference in margin, minor units.
    pub margin_difference_minor: i64,
}

/// One order that would have been another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The order.
    pub order_id: String,
    /// ISO 4217.
    pub currency: String,
    /// What the customer paid before, minor units; null when the order was refused.
    pub total_before_minor: Option<i64>,
    /// What the customer would pay, minor units; null when the order would be refused.
    pub total_after_minor: Option<i64>,
    /// Discounts before, minor units.
    pub discount_before_minor: i64,
    /// Discounts after, minor units.
    pub discount_after_minor: i64,
    /// Tax before, minor units.
    pub tax_before_minor: i64,
    /// Tax after, minor units.
    pub tax_after_minor: i64,
    /// Why it would be refused.
    pub refusal: Option<String>,
    /// What was said before, as JSON, where the hook says something else than prices; null: nothing.
    pub answer_before: Option<String>,
    /// What would be said, as JSON, where the hook says something else than prices; null: nothing.
    pub answer_after: Option<String>,
}

impl Difference {
    /// How far apart the totals are, minor units.
    pub fn size_minor(&self) -> i64 {
        (self.total_after_minor.unwrap_or(0))
            .saturating_sub(self.total_before_minor.unwrap_or(0))
            .saturating_abs()
    }
}

/// What a backtest found, or has found so far. While it counts, a figure of every call is a [`Distribution`]; what is
/// shown is its quantiles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BacktestReport")]
pub struct Found<D> {
    /// Orders placed in the time asked for.
    pub orders: u64,
    /// Those that were compared.
    pub compared: u64,
    /// Those that would have been different.
    pub changed: u64,
    /// Refused before.
    pub refused_before: u64,
    /// Refused by the candidate.
    pub refused_after: u64,
    /// Orders that somebody would have looked at.
    pub reviews: u64,
    /// Orders that were refused for a reason that no rule decides, or that the hook is not asked about.
    pub not_compared: u64,
    /// Commands of any time that are repeats, or whose order has no outcome in the log.
    pub without_outcome: u64,
    /// Calls of the candidate that gave no answer, by what became of them. Its fallback held for these orders.
    pub errors: BTreeMap<String, u64>,
    /// Per currency: what the sums were, and would have been.
    pub money: BTreeMap<String, Money>,
    /// Units of fuel per call of the candidate.
    pub fuel: D,
    /// Nanoseconds per call of the candidate, its sandbox included.
    pub duration_ns: D,
    /// The orders with the largest difference in what the customer pays, largest first.
    pub largest_differences: Vec<Difference>,
}

/// What was counted so far.
pub type Tally = Found<Distribution>;

/// As it is shown.
pub type Report = Found<Quantiles>;

impl Tally {
    /// Names a difference, if it is among the largest.
    pub fn name(&mut self, difference: Difference) {
        let size = |it: &Difference| (Reverse(it.size_minor()), it.order_id.clone());
        let at = self.largest_differences.partition_point(|it| size(it) < size(&difference));
        if at < DIFFERENCES_MAX {
            self.largest_differences.insert(at, difference);
            self.largest_differences.truncate(DIFFERENCES_MAX);
        }
    }

    /// Adds what another part counted.
    pub fn merge(&mut self, other: &Self) {
        self.orders += other.orders;
        self.compared += other.compared;
        self.changed += other.changed;
        self.refused_before += other.refused_before;
        self.refused_after += other.refused_after;
        self.reviews += other.reviews;
        self.not_compared += other.not_compared;
        self.without_outcome += other.without_outcome;
        for (outcome, count) in &other.errors {
            *self.errors.entry(outcome.clone()).or_default() += count;
        }
        for (currency, money) in &other.money {
            let mine = self.money.entry(currency.clone()).or_default();
            mine.before.add(&money.before);
            mine.after.add(&money.after);
            mine.margin_difference_minor =
                mine.margin_difference_minor.saturating_add(money.margin_difference_minor);
        }
        self.fuel.merge(&other.fuel);
        self.duration_ns.merge(&other.duration_ns);
        other.largest_differences.iter().for_each(|it| self.name(it.clone()));
    }

    /// As it is shown.
    pub fn report(&self) -> Report {
        Report {
            orders: self.orders,
            compared: self.compared,
            changed: self.changed,
            refused_before: self.refused_before,
            refused_after: self.refused_after,
            reviews: self.reviews,
            not_compared: self.not_compared,
            without_outcome: self.without_outcome,
            errors: self.errors.clone(),
            money: self.money.clone(),
            fuel: self.fuel.quantiles(),
            duration_ns: self.duration_ns.quantiles(),
            largest_differences: self.largest_differences.clone(),
        }
    }
}
