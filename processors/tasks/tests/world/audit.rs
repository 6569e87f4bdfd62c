//! What must be true of every pipeline that has come to rest.

use super::provider::Charge;
use super::{TENANT, World};
use std::collections::BTreeMap;
use tillstream_schemas::analytics::{Granularity, Sums, WindowState};
use tillstream_schemas::item::{HoldPhase, HoldState, StockState};
use tillstream_schemas::order_command::PaymentOperation;
use tillstream_schemas::order_event::OrderEventPayload as Event;
use tillstream_schemas::order_state::{
    HoldStatus, LineKind, OrderState, OrderStatus, RefundStatus, ReservationPhase,
};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::{Table, ids::key};
use tillstream_tasks::analytics::AnalyticsRow;
use tillstream_tasks::item::{ItemRow, hold_row, stock_row};
use tillstream_tasks::order::OrderRow;

impl World {
    /// A SKU's stock.
    pub fn stock(&self, sku: &str) -> Option<StockState> {
        let row = stock_row(TENANT, sku);
        self.items.iter().find_map(|shard| match shard.rows.get(&row) {
            Some(ItemRow::Stock(it)) => Some(StockState::clone(it)),
            _ => None,
        })
    }

    fn hold(&self, sku: &str, order_id: &str) -> Option<HoldState> {
        let row = hold_row(TENANT, sku, order_id);
        self.items.iter().find_map(|shard| match shard.rows.get(&row) {
            Some(ItemRow::Hold(it)) => Some(HoldState::clone(it)),
            _ => None,
        })
    }

    /// Every window of a granularity.
    pub fn windows(&self, granularity: Granularity) -> Vec<WindowState> {
        let rows = self.analytics.iter().flat_map(|it| it.rows.values());
        let windows = rows.filter_map(|it| match it {
            AnalyticsRow::Window(it) if it.granularity == granularity => Some(WindowState::clone(it)),
            _ => None,
        });
        windows.collect()
    }

    /// Checks everything that holds for any history once nothing is waiting.
    pub fn audit(&self) {
        self.audit_stock();
        self.audit_windows();
        for order in self.all_orders() {
            self.audit_events(&order);
            if order.credit.is_none() {
                audit_ledger(&order);
                self.audit_holds(&order);
                self.audit_provider(&order);
                self.audit_end(&order);
                self.audit_index(&order);
            }
        }
    }

    fn audit_stock(&self) {
        let mut held: BTreeMap<(Text, Text), i64> = BTreeMap::new();
        let mut sold: BTreeMap<Text, i64> = BTreeMap::new();
        for (key, row) in self.items.iter().flat_map(|it| it.rows.iter()) {
            let ItemRow::Hold(hold) = row else { continue };
            let sku = Text::from(key.key.split('/').nth(1).unwrap());
            for part in &hold.allocations {
                match hold.phase {
                    HoldPhase::Open => {
                        *held.entry((sku.clone(), part.location.clone())).or_default() += part.quantity;
                    }
                    HoldPhase::Committed => *sold.entry(sku.clone()).or_default() += part.quantity,
                    HoldPhase::Released | HoldPhase::Refused => panic!("{key:?} holds, but is over"),
                }
            }
        }
        for row in self.items.iter().flat_map(|it| it.rows.values()) {
            let ItemRow::Stock(stock) = row else { continue };
            let on_hand: i64 = stock.locations.iter().map(|it| it.on_hand).sum();
            assert_eq!(stock.received - stock.sold, on_hand, "received − sold = on hand: {stock:?}");
            assert_eq!(stock.sold, sold.get(&stock.sku).copied().unwrap_or(0), "sold = Σ sales: {stock:?}");
            for it in &stock.locations {
                assert!(it.on_hand >= it.reserved && it.reserved >= 0, "{stock:?}");
                let held = held.remove(&(stock.sku.clone(), it.location.clone())).unwrap_or(0);
                assert_eq!(it.reserved, held, "reserved = Σ open holds: {stock:?}");
            }
        }
        assert!(held.is_empty(), "holds without stock: {held:?}");
    }

    fn audit_events(&self, order: &OrderState) {
        let events = self.events(&order.order_id);
        let mut version = 0;
        for event in &events {
            if !matches!(event.payload, Event::CommandConflicted(_)) && event.version != version {
                assert_eq!(event.version, version + 1, "versions have no gap: {:?}", event.payload);
                version = event.version;
            }
        }
        assert_eq!(version, order.view.version, "the row stands at its last event");
        let ends = events.iter().filter(|it| match &it.payload {
            Event::OrderCancelled(_) | Event::OrderRejected(_) => true,
            Event::PaymentFailed(it) => it.operation == PaymentOperation::Authorize,
            _ => false,
        });
        let dead = matches!(order.view.status, OrderStatus::Cancelled | OrderStatus::Failed);
        assert_eq!(ends.count(), usize::from(dead), "one end, and only of a dead order: {events:?}");
        let mut was_dead = false;
        for event in &events {
            let is_dead = event.status == "cancelled" || event.status == "failed";
            assert!(is_dead || !was_dead, "a dead order came back to life: {event:?}");
            was_dead |= is_dead;
        }
    }

    fn audit_holds(&self, order: &OrderState) {
        let Some(reservation) = &order.reservation else { return };
        let dead = matches!(order.view.status, OrderStatus::Cancelled | OrderStatus::Failed);
        let pending = order.view.status == OrderStatus::Pending;
        for line in &reservation.holds {
            let hold = self.hold(&line.sku, &order.order_id);
            let phase = hold.as_ref().map(|it| it.phase);
            if dead {
                let over = matches!(phase, None | Some(HoldPhase::Released | HoldPhase::Refused));
                assert!(over, "a dead order holds {}: {phase:?}", line.sku);
                assert!(!matches!(line.status, HoldStatus::Asked | HoldStatus::Held), "{line:?}");
            } else if !pending {
                assert_eq!(phase, Some(HoldPhase::Committed), "a paid order owns its goods: {line:?}");
            }
        }
        if dead {
            assert_eq!(reservation.phase, ReservationPhase::Released, "{}", order.order_id);
        }
    }

    fn audit_provider(&self, order: &OrderState) {
        let Some(payment) = &order.payment else { return };
        let (mut captured, mut refunded, mut authorized) = (0, 0, 0);
        if let Some(account) = self.provider.accounts.get(&payment.payment_id) {
            (captured, refunded) = (account.captured_minor, account.refunded_minor);
            authorized = if account.charge == Charge::Authorized { account.amount_minor } else { 0 };
        }
        assert_eq!(payment.captured_minor, captured, "captured, here and there: {payment:?}");
        assert_eq!(payment.refunded_minor, refunded, "refunded, here and there: {payment:?}");
        assert_eq!(payment.authorized_minor, authorized, "authorized, here and there: {payment:?}");
        let of_order = self.provider.accounts.values().filter(|it| it.order_id == order.order_id);
        assert!(of_order.count() <= 1, "one charge per order");
    }

    fn audit_end(&self, order: &OrderState) {
        let payment = order.payment.clone().unwrap_or_default();
        assert!(payment.refunded_minor <= payment.captured_minor, "{payment:?}");
        match order.view.status {
            OrderStatus::Cancelled | OrderStatus::Failed => {
                assert_eq!(payment.captured_minor, payment.refunded_minor, "a dead order keeps no money");
                assert_eq!(payment.authorized_minor, 0, "a dead order keeps no promise of money");
                assert!(order.fulfillment.as_ref().is_none_or(|it| it.shipments.is_empty()));
            }
            OrderStatus::Pending => {}
            _ => assert!(payment.failure_code.is_none() || payment.captured_minor == 0, "{payment:?}"),
        }
    }

    fn audit_index(&self, order: &OrderState) {
        let ends_with = format!("/{}", order.order_id);
        let rows = self.orders.iter().flat_map(|it| it.rows.iter());
        let count = rows
            .filter(|(key, row)| {
                key.table == Table::OrderIndex && **row == OrderRow::Index && key.key.ends_with(&ends_with)
            })
            .count();
        assert_eq!(count, 1, "an order is listed once");
    }

    /// The windows must say what the orders' rows say.
    fn audit_windows(&self) {
        let truth = self.truth();
        for granularity in Granularity::ALL {
            let mut total = Sums::default();
            for window in self.windows(granularity) {
                tillstream_analytics::sums::add(&mut total, &window.sums);
                assert_eq!(granularity.start_of(window.window_start_ms), window.window_start_ms);
            }
            assert_eq!(total, truth, "{granularity:?} windows against the orders");
        }
        let rows = self.analytics.iter().flat_map(|it| it.rows.iter());
        let mut sold = [0; 3];
        for (key, row) in rows {
            let AnalyticsRow::TopProducts(row) = row else { continue };
            let letter = key.key.split('/').nth(1).unwrap();
            let index = Granularity::ALL.iter().position(|it| it.letter().to_string() == letter).unwrap();
            sold[index] += row.products.iter().map(|it| it.units).sum::<i64>();
        }
        assert_eq!(sold, [truth.units; 3], "top products against the orders");
    }

    /// What analytics should have counted, from the orders' rows alone.
    pub fn truth(&self) -> Sums {
        let mut truth = Sums::default();
        for order in self.all_orders() {
            if let Some(credit) = &order.credit {
                truth.refunded += credit.amount_minor;
                truth.refunds += 1;
                continue;
            }
            let Some(priced) = &order.order else { continue };
            let timeline = &order.view.timeline;
            let had = |kind: &str| timeline.iter().any(|it| it.kind == kind);
            truth.placed += 1;
            truth.priced += i64::from(!priced.lines.is_empty());
            truth.reserved += i64::from(had("order.reserved"));
            truth.completed += i64::from(had("order.completed"));
            truth.failed += i64::from(order.view.status == OrderStatus::Failed);
            truth.cancelled += i64::from(order.view.status == OrderStatus::Cancelled);
            truth.paid += i64::from(timeline.iter().any(|it| it.status == OrderStatus::Confirmed));
            let counted = timeline.iter().any(|it| {
                it.kind == "payment.captured"
                    && !matches!(it.status, OrderStatus::Cancelled | OrderStatus::Failed)
            });
            if !counted {
                continue;
            }
            truth.orders += 1;
            let units = priced.lines.iter().filter(|it| it.kind != LineKind::Shipping);
            truth.units += units.map(|it| it.quantity).sum::<i64>();
            truth.gross += priced.lines.iter().map(|it| it.gross_minor).sum::<i64>();
            truth.discount += priced.lines.iter().map(|it| it.discount_minor).sum::<i64>();
            truth.tax += priced.lines.iter().map(|it| it.tax_minor).sum::<i64>();
            let refunds = order.payment.iter().flat_map(|it| &it.refunds);
            for refund in refunds.filter(|it| it.status == RefundStatus::Succeeded) {
                truth.refunded += refund.amount_minor;
                truth.refunds += 1;
            }
        }
        truth
    }

    /// Codes of the commands that were refused, over all orders, in order, each event once.
    pub fn refusals(&self) -> Vec<Text> {
        let mut seen = Vec::new();
        let mut codes = Vec::new();
        for output in self.history.iter().filter(|it| it.topic == Topic::OrderEvents) {
            let event: tillstream_schemas::order_event::OrderEvent =
                tillstream_schemas::codec::decode(&output.value).unwrap();
            if let Event::CommandRefused(refused) = event.payload
                && !seen.contains(&event.id)
            {
                seen.push(event.id);
                codes.push(refused.code);
            }
        }
        codes
    }

    /// Whether the order has a row.
    pub fn knows(&self, order_id: &str) -> bool {
        let row = tillstream_tasks::order::order_row(key(TENANT, order_id));
        self.orders.iter().any(|it| it.rows.contains_key(&row))
    }
}

fn audit_ledger(order: &OrderState) {
    let mut postings: BTreeMap<i32, i64> = BTreeMap::new();
    let mut accounts: BTreeMap<&str, i64> = BTreeMap::new();
    let payment = order.payment.clone().unwrap_or_default();
    for line in &payment.ledger {
        *postings.entry(line.posting).or_default() += line.amount_minor;
        *accounts.entry(&line.account).or_default() += line.amount_minor;
    }
    assert!(postings.values().all(|it| *it == 0), "a posting that does not sum to zero: {payment:?}");
    let balance = |account: &str| accounts.get(account).copied().unwrap_or(0);
    assert_eq!(balance("provider_clearing"), payment.captured_minor - payment.refunded_minor);
    assert_eq!(balance("merchant_payable"), payment.refunded_minor - payment.captured_minor);
    assert_eq!(balance("provider_authorized"), payment.authorized_minor);
    assert_eq!(balance("customer_authorization"), -payment.authorized_minor);
}
