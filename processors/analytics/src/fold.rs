//! From order events to one delta per tenant and batch.

use crate::sums;
use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::analytics::{AnalyticsDelta, Granularity, ProductSum, Sums, WindowDelta};
use tillstream_schemas::order_command::PaymentOperation;
use tillstream_schemas::order_event::{OrderEventPayload as Event, OrderPriced};
use tillstream_schemas::order_state::{LineKind, OrderStatus, PricedLine, PricedOrder};
use tillstream_stage::ids::derived_id;
use tillstream_stage::rule::{
    DIMENSIONS_MAX, MeasureInput, MeasureLine, RuleAnswer, RuleCall, RuleOrder, Verdict,
};

/// Products in one delta before the next begins, so that a delta stays far below the log's message limit.
const DELTA_PRODUCTS_MAX: usize = 4_000;

/// What the chain knows about the order when an event has been applied.
#[derive(Clone, Copy, Debug)]
pub struct EventContext<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The priced order; `None` for a credit. Its lines are empty when pricing rejected it.
    pub order: Option<&'a PricedOrder>,
    /// The status after the event.
    pub status: OrderStatus,
    /// Whether this order's revenue was counted by an earlier event.
    pub revenue_counted: bool,
    /// The W3C trace id of the call that caused the event.
    pub trace: Option<u128>,
}

/// The window and dimensions a change stands in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowId {
    /// The tenant.
    pub tenant: Text,
    /// Start of the minute, ms since the epoch.
    pub minute_start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
}

/// What one event adds to one minute window.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// Where it stands.
    pub window: WindowId,
    /// The event time, ms since the epoch.
    pub event_time_ms: i64,
    /// The sums.
    pub sums: Sums,
    /// The code, when the event refused the order.
    pub refusal: Option<Text>,
    /// Products sold, when the event counts the order's revenue; unsorted, one per line.
    pub products: Vec<ProductSum>,
    /// The W3C trace id of the call that caused the event.
    pub trace: Option<u128>,
}

/// What the measure hook is asked about a priced order.
pub fn measure_call(order: &PricedOrder) -> RuleCall {
    let line = |it: &PricedLine| MeasureLine {
        sku: it.sku.clone(),
        quantity: it.quantity,
        gross_minor: it.gross_minor,
        discount_minor: it.discount_minor,
        category: it.category.clone(),
    };
    RuleCall::Measure(MeasureInput {
        order: RuleOrder::from(order),
        total_minor: order.total_minor,
        lines: order.lines.iter().filter(|it| it.kind != LineKind::Shipping).map(line).collect(),
    })
}

/// Puts a verdict's dimensions into the event of the priced order, and the rule beside those that priced it.
pub fn apply_dimensions(priced: &mut OrderPriced, verdict: &Verdict) {
    let RuleAnswer::Dimensions(pairs) = &verdict.answer else { return };
    if pairs.is_empty() {
        return;
    }
    priced.dimensions = pairs.iter().take(DIMENSIONS_MAX).cloned().collect();
    match &mut priced.rule {
        Some(rule) => rule.also.extend(verdict.rule.steps()),
        none => *none = Some(verdict.rule.clone()),
    }
}

/// Whether this event is the one that counts the order's revenue: the first capture of an order that is not
/// being unwound. A manual order counts when it is captured, not when it is authorized: an authorization that
/// is given up was never revenue.
pub fn counts_revenue(event: &Event, context: &EventContext<'_>) -> bool {
    matches!(event, Event::PaymentCaptured(_)) && !context.revenue_counted && is_alive(context.status)
}

fn is_alive(status: OrderStatus) -> bool {
    !matches!(status, OrderStatus::Cancelled | OrderStatus::Failed)
}

/// What an event means for analytics; `None`: nothing.
///
/// Funnel counters and revenue stand in the minute of the order's `placed_at`, refunds in the minute of the
/// refund, credits in the minute of the return. A refund counts when the money really went back
/// (`PaymentRefunded`), and only when the order's revenue was counted: money that was captured while the
/// order was being unwound comes and goes outside of revenue. A return is no refund of its own: the
/// `PaymentRefunded` that follows it is.
pub fn contribution(event: &Event, context: &EventContext<'_>) -> Option<Contribution> {
    if let Event::CreditIssued(credit) = event {
        let sums = Sums { refunded: credit.amount_minor, refunds: 1, ..Sums::default() };
        let window = window_id(context.tenant, credit.returned_at_ms, &credit.currency, &credit.country);
        return Some(plain(window, credit.returned_at_ms, sums, context.trace));
    }
    let order = context.order?;
    let at = |time_ms| window_id(context.tenant, time_ms, &order.currency, &order.country);
    if let Event::PaymentRefunded(refund) = event {
        let sums = Sums { refunded: refund.amount_minor, refunds: 1, ..Sums::default() };
        return context
            .revenue_counted
            .then(|| plain(at(refund.refunded_at_ms), refund.refunded_at_ms, sums, context.trace));
    }
    let (sums, refusal) = funnel(event, context, order)?;
    let products = if counts_revenue(event, context) { products_of(order) } else { Vec::new() };
    let refusal = refusal.cloned();
    Some(Contribution {
        window: at(order.placed_at_ms),
        event_time_ms: order.placed_at_ms,
        sums,
        refusal,
        products,
        trace: context.trace,
    })
}

fn funnel<'e>(
    event: &'e Event,
    context: &EventContext<'_>,
    order: &PricedOrder,
) -> Option<(Sums, Option<&'e Text>)> {
    let none = Sums::default();
    Some(match event {
        Event::OrderPriced(_) => (Sums { placed: 1, priced: 1, ..none }, None),
        Event::OrderRejected(it) => {
            // Pricing itself said no: the order was placed by this very event.
            let placed = i64::from(order.lines.is_empty());
            (Sums { placed, failed: 1, ..none }, Some(&it.code))
        }
        Event::OrderReserved(_) => (Sums { reserved: 1, ..none }, None),
        Event::PaymentAuthorized(it) if it.confirms() && is_alive(context.status) => {
            (Sums { paid: 1, ..none }, None)
        }
        Event::PaymentCaptured(it) if counts_revenue(event, context) => {
            (Sums { paid: i64::from(it.confirms), ..revenue_of(order) }, None)
        }
        Event::PaymentFailed(it) if it.operation == PaymentOperation::Authorize => {
            // A dead order's payment may still fail; it left the funnel before.
            let failed = i64::from(context.status == OrderStatus::Failed);
            (Sums { failed, ..none }, Some(&it.code))
        }
        Event::OrderCancelled(_) => (Sums { cancelled: 1, ..none }, None),
        Event::OrderCompleted(_) => (Sums { completed: 1, ..none }, None),
        _ => return None,
    })
}

fn revenue_of(order: &PricedOrder) -> Sums {
    let units = order.lines.iter().filter(|it| it.kind != LineKind::Shipping).map(|it| it.quantity).sum();
    Sums {
        orders: 1,
        units,
        gross: order.gross_minor,
        discount: order.discount_minor,
        tax: order.tax_minor,
        ..Sums::default()
    }
}

fn products_of(order: &PricedOrder) -> Vec<ProductSum> {
    let sold = order.lines.iter().filter(|it| it.kind != LineKind::Shipping);
    sold.map(|it| ProductSum { sku: it.sku.clone(), units: it.quantity, gross: it.gross_minor }).collect()
}

fn window_id(tenant: &str, time_ms: i64, currency: &Text, country: &Text) -> WindowId {
    WindowId {
        tenant: tenant.into(),
        minute_start_ms: Granularity::Minute.start_of(time_ms),
        currency: currency.clone(),
        country: country.clone(),
    }
}

fn plain(window: WindowId, event_time_ms: i64, sums: Sums, trace: Option<u128>) -> Contribution {
    Contribution { window, event_time_ms, sums, refusal: None, products: Vec::new(), trace }
}

/// Contributions of one batch, summed.
#[derive(Debug, Default)]
pub struct BatchFold {
    windows: BTreeMap<WindowId, Folded>,
}

#[derive(Debug, Default)]
struct Folded {
    newest_ms: i64,
    sums: Sums,
    refusals: BTreeMap<Text, i64>,
    products: BTreeMap<Text, (i64, i64)>,
    /// As they came; the events of one order follow each other.
    traces: Vec<u128>,
}

impl BatchFold {
    /// Adds one contribution.
    pub fn add(&mut self, contribution: Contribution) {
        let Contribution { window, event_time_ms, sums, refusal, products, trace } = contribution;
        let folded = self.windows.entry(window).or_default();
        folded.newest_ms = folded.newest_ms.max(event_time_ms);
        sums::add(&mut folded.sums, &sums);
        if let Some(code) = refusal {
            *folded.refusals.entry(code).or_default() += 1;
        }
        for ProductSum { sku, units, gross } in products {
            let product = folded.products.entry(sku).or_default();
            product.0 = product.0.saturating_add(units);
            product.1 = product.1.saturating_add(gross);
        }
        folded.traces.extend(trace.filter(|it| folded.traces.last() != Some(it)));
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The batch's deltas: one per tenant, or several when a tenant's products are very many. Ids derive from
    /// `batch_id` and tenant.
    pub fn into_deltas(
        self,
        batch_id: &str,
        source_partition: i32,
        decided_at_ms: i64,
    ) -> Vec<AnalyticsDelta> {
        let mut deltas: Vec<AnalyticsDelta> = Vec::new();
        let mut part = 0_u32;
        let mut products = 0;
        for (id, folded) in self.windows {
            let same = deltas.last().is_some_and(|it| it.tenant == id.tenant);
            if !same || products > DELTA_PRODUCTS_MAX {
                part = if same { part + 1 } else { 0 };
                products = 0;
                deltas.push(AnalyticsDelta {
                    id: derived_id("dlt_", &[batch_id, &id.tenant, &part.to_string()]),
                    tenant: id.tenant.clone(),
                    source_partition,
                    decided_at_ms,
                    max_event_time_ms: folded.newest_ms,
                    windows: Vec::new(),
                    traces: Vec::new(),
                });
            }
            products += folded.products.len();
            if let Some(delta) = deltas.last_mut() {
                delta.max_event_time_ms = delta.max_event_time_ms.max(folded.newest_ms);
                delta.traces.extend(folded.traces.iter().map(|it| Text::from(format!("{it:032x}"))));
                delta.windows.push(folded.into_delta(id));
            }
        }
        for delta in &mut deltas {
            delta.traces.sort_unstable();
            delta.traces.dedup();
        }
        deltas
    }
}

impl Folded {
    fn into_delta(self, id: WindowId) -> WindowDelta {
        let products = self.products.into_iter();
        WindowDelta {
            minute_start_ms: id.minute_start_ms,
            currency: id.currency,
            country: id.country,
            sums: self.sums,
            refusals: self.refusals,
            products: products.map(|(sku, (units, gross))| ProductSum { sku, units, gross }).collect(),
        }
    }
}
