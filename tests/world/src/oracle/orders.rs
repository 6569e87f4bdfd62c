//! Orders, one command after the other: what each command must have led to, and what each event may be.

use super::price::{self, Line};
use super::seen::Seen;
use super::stock::Stock;
use super::{Checked, Violation, expect};
use crate::provider::{Account, Standing};
use crate::rules::refuses;
use rustc_hash::FxHashSet;
use std::collections::{BTreeMap, BTreeSet};
use tillstream_schemas::Text;
use tillstream_schemas::item::HoldPhase;
use tillstream_schemas::order_command::{
    CaptureMode, OrderCommand, OrderCommandPayload as Command, PaymentOperation, PlaceOrder,
};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload as Event};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_stage::ids::key;
use tillstream_stage::task::TaskKind;

/// An order, as the model knows it.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// What was placed.
    pub placed: Option<Box<PlaceOrder>>,
    /// What it costs, line by line; empty while not priced.
    pub lines: Vec<Line>,
    /// Σ of what is paid for the lines.
    pub total: i64,
    /// Whether it is cancelled or has failed; and which.
    pub dead: Option<OrderStatus>,
    /// Why it was refused, if it was.
    pub refusal: Option<Text>,
    /// Whether every line is held.
    pub reserved: bool,
    /// Whether goods may leave.
    pub confirmed: bool,
    /// Whether everything has arrived.
    pub completed: bool,
    /// Captured for a living order.
    pub revenue: bool,
    /// Money.
    pub captured: i64,
    /// Money that went back, and when its window is.
    pub refunds: Vec<(i64, i64)>,
    authorized: bool,
    capturing: bool,
    promised: BTreeMap<Text, i64>,
    back: BTreeSet<Text>,
    pub(super) waiting: BTreeSet<Text>,
    held: BTreeSet<Text>,
    shipments: BTreeMap<Text, (BTreeMap<Text, i64>, bool)>,
    returned: BTreeMap<Text, i64>,
    pub(super) fingerprint: Text,
    pub(super) marks: BTreeMap<Text, Text>,
    pub(super) version: i64,
}

impl Order {
    /// Its status.
    pub fn status(&self) -> OrderStatus {
        if let Some(dead) = self.dead {
            return dead;
        }
        let all = self.all_shipped();
        match () {
            () if self.completed => OrderStatus::Delivered,
            () if !self.shipments.is_empty() && all => OrderStatus::Shipped,
            () if !self.shipments.is_empty() => OrderStatus::Processing,
            () if self.confirmed => OrderStatus::Confirmed,
            () => OrderStatus::Pending,
        }
    }

    fn units(&self) -> BTreeMap<Text, i64> {
        let mut units: BTreeMap<Text, i64> = BTreeMap::new();
        for line in self.lines.iter().filter(|it| it.goods) {
            *units.entry(line.sku.as_str().into()).or_default() += line.quantity;
        }
        units
    }

    fn left_to_ship(&self) -> BTreeMap<Text, i64> {
        let mut left = self.units();
        for (sku, units) in self.shipments.values().flat_map(|(lines, _)| lines) {
            *left.entry(sku.clone()).or_default() -= units;
        }
        left.retain(|_, it| *it > 0);
        left
    }

    fn all_shipped(&self) -> bool {
        self.left_to_ship().is_empty()
    }

    fn refunded(&self) -> i64 {
        self.refunds.iter().map(|(_, it)| *it).sum()
    }

    /// What may still be asked back.
    fn left(&self) -> i64 {
        self.captured - self.promised.values().sum::<i64>()
    }

    /// The code of a refusal, or the kind of the first event; `nothing`, or `any`.
    pub(super) fn expects(&self, command: &OrderCommand) -> &'static str {
        let known = self.placed.is_some();
        match &command.payload {
            Command::PlaceOrder(_) => "order.priced",
            Command::StockAnswer(answer) => {
                self.expects_of_stock(answer.refused.is_some(), &answer.sku, answer.refused.as_deref())
            }
            Command::PaymentResult(_) => "any",
            _ if !known => "unknown_order",
            Command::CancelOrder(_) if self.dead.is_some() => "already_ended",
            Command::CancelOrder(_) if !self.shipments.is_empty() => "already_shipped",
            Command::CancelOrder(_) => "order.cancelled",
            Command::CapturePayment(it) => self.expects_of_capture(it.amount_minor),
            Command::RefundOrder(it) => match it.amount_minor.unwrap_or(self.left()) {
                _ if self.captured == 0 => "nothing_captured",
                amount if amount > self.left() || self.left() <= 0 => "amount_exceeds_captured",
                _ => "payment.refund_requested",
            },
            Command::CreateShipment(it) => {
                let left = self.left_to_ship();
                let fits =
                    it.lines.iter().all(|it| left.get(&it.sku).is_some_and(|units| it.quantity <= *units));
                match () {
                    () if self.dead.is_some() => "already_ended",
                    () if !self.confirmed => "not_confirmed",
                    () if left.is_empty() => "nothing_to_ship",
                    () if !fits => "quantity_exceeds_ordered",
                    () => "shipment.shipped",
                }
            }
            Command::DeliverShipment(it) => match self.shipments.get(&it.shipment_id) {
                None => "unknown_shipment",
                Some((_, true)) => "already_delivered",
                Some(_) => "shipment.delivered",
            },
            Command::ReturnOrder(it) => {
                let fits = it.lines.iter().all(|line| {
                    let sold: i64 =
                        self.lines.iter().filter(|it| it.sku == line.sku).map(|it| it.quantity).sum();
                    line.quantity <= sold - self.returned.get(&line.sku).copied().unwrap_or(0)
                });
                match () {
                    () if self.dead.is_some() || !self.confirmed => "not_returnable",
                    () if !fits => "quantity_exceeds_ordered",
                    () => "order.returned",
                }
            }
            Command::IssueCredit(_) => "credit.issued",
        }
    }

    fn expects_of_stock(&self, refused: bool, sku: &Text, code: Option<&str>) -> &'static str {
        let asked = self.dead.is_none() && self.waiting.contains(sku) && !self.held.contains(sku);
        match (asked, refused) {
            (false, _) => "nothing",
            (true, true) => match code {
                Some("out_of_stock") => "out_of_stock",
                Some("hold_expired") => "hold_expired",
                _ => "hold_released",
            },
            (true, false) if self.held.len() + 1 == self.waiting.len() => "order.reserved",
            (true, false) => "nothing",
        }
    }

    fn expects_of_capture(&self, amount_minor: Option<i64>) -> &'static str {
        let open = self.authorized && self.captured == 0 && !self.capturing && self.dead.is_none();
        match amount_minor {
            _ if !open => "not_authorized",
            Some(amount) if amount > self.total => "amount_exceeds_authorized",
            _ => "nothing",
        }
    }

    /// Takes a command in that was expected to do what it did.
    pub(super) fn note(&mut self, command: &OrderCommand) {
        let capturing = matches!(&command.payload, Command::CapturePayment(it) if self.expects_of_capture(it.amount_minor) == "nothing");
        match &command.payload {
            Command::PlaceOrder(it) => {
                self.placed = Some(it.clone());
                self.fingerprint = command.fingerprint.clone();
            }
            Command::StockAnswer(it)
                if it.refused.is_none() && self.dead.is_none() && self.waiting.contains(&it.sku) =>
            {
                self.held.insert(it.sku.clone());
            }
            Command::StockAnswer(_) | Command::PaymentResult(_) | Command::IssueCredit(_) => {}
            _ if self.placed.is_some() => {
                self.marks.insert(command.id.clone(), command.fingerprint.clone());
            }
            _ => {}
        }
        self.capturing |= capturing;
    }

    fn manual(&self) -> bool {
        self.placed.as_ref().is_some_and(|it| it.payment.capture == CaptureMode::Manual)
    }

    fn dies(&mut self, status: OrderStatus, code: &Text) -> Checked {
        expect(self.dead.is_none(), || "it ended twice".to_owned())?;
        expect(self.shipments.is_empty(), || "it ended after it had shipped".to_owned())?;
        self.dead = Some(status);
        self.refusal = Some(code.clone());
        Ok(())
    }

    /// Whether the event may be, and what it changes.
    pub(super) fn follow(&mut self, event: &OrderEvent) -> Checked {
        let alive = self.dead.is_none();
        let may = |holds: bool, why: &str| expect(holds, || format!("{}: {why}", event.payload.kind()));
        match &event.payload {
            Event::OrderPriced(_) => may(self.version == 1, "not the first event"),
            Event::OrderRejected(it) => {
                may(!self.confirmed, "it was confirmed")?;
                self.dies(OrderStatus::Failed, &it.code)
            }
            Event::OrderReserved(it) => {
                may(alive && !self.reserved, "dead, or reserved before")?;
                may(self.held == self.waiting, "not every line is held")?;
                let told: BTreeMap<Text, i64> =
                    it.holds.iter().map(|it| (it.sku.clone(), it.quantity)).collect();
                may(told == self.units(), "not what was ordered")?;
                self.reserved = true;
                Ok(())
            }
            Event::OrderCancelled(it) => {
                may(it.code != "hold_expired" || !self.confirmed, "it was paid")?;
                self.dies(OrderStatus::Cancelled, &it.code)
            }
            Event::ShipmentShipped(it) => {
                may(alive && self.confirmed, "nothing may leave")?;
                let mut left = self.left_to_ship();
                let mut lines: BTreeMap<Text, i64> = BTreeMap::new();
                for line in &it.lines {
                    *lines.entry(line.sku.clone()).or_default() += line.quantity;
                    *left.entry(line.sku.clone()).or_default() -= line.quantity;
                }
                may(left.values().all(|it| *it >= 0), "more than was ordered")?;
                may(self.shipments.insert(it.shipment_id.clone(), (lines, false)).is_none(), "twice")?;
                may(it.all_shipped == self.all_shipped(), "wrong about what is left")
            }
            Event::ShipmentDelivered(it) => {
                let found = self.shipments.get_mut(&it.shipment_id).filter(|it| !it.1);
                found
                    .map(|it| it.1 = true)
                    .ok_or_else(|| Violation("delivered what is not under way".to_owned()))
            }
            Event::OrderCompleted(_) => {
                let done = self.all_shipped() && self.shipments.values().all(|it| it.1) && !self.completed;
                self.completed = true;
                may(done, "not everything has arrived, or twice")
            }
            Event::OrderReturned(it) => {
                may(alive && self.confirmed, "nothing can come back")?;
                let mut amount = 0;
                for line in &it.lines {
                    amount += self.share(&line.sku, line.quantity);
                    *self.returned.entry(line.sku.clone()).or_default() += line.quantity;
                }
                may(amount == it.amount_minor, "another amount than was paid")
            }
            Event::CreditIssued(_) | Event::CommandConflicted(_) | Event::CommandRefused(_) => Ok(()),
            payment => self.follow_money(payment, may),
        }
    }

    /// What was paid for the next units of a SKU that come back.
    fn share(&self, sku: &Text, quantity: i64) -> i64 {
        let of = self.lines.iter().filter(|it| it.sku == *sku);
        let (units, paid) = of.fold((0, 0), |sum, it| (sum.0 + it.quantity, sum.1 + it.paid()));
        let before = self.returned.get(sku).copied().unwrap_or(0);
        price::portion(paid, before + quantity, units) - price::portion(paid, before, units)
    }

    fn follow_money(&mut self, event: &Event, may: impl Fn(bool, &str) -> Checked) -> Checked {
        let alive = self.dead.is_none();
        match event {
            Event::PaymentActionRequired(_) => {
                may(alive && self.reserved && !self.confirmed, "nobody waits for money")
            }
            Event::PaymentAuthorized(it) => {
                may(alive && self.reserved && !self.authorized, "nobody waits for money, or twice")?;
                may(it.amount_minor == self.total, "another amount than the total")?;
                self.authorized = true;
                self.confirmed |= self.manual();
                Ok(())
            }
            Event::PaymentCaptured(it) => {
                may(self.reserved && self.captured == 0, "nobody waits for money, or twice")?;
                may(self.revenue || it.amount_minor <= self.total, "more than the total")?;
                may(self.manual() || it.amount_minor == self.total, "another amount than the total")?;
                // Nothing is asked of a provider where there is nothing to pay: the order is confirmed at once.
                let confirms = alive && (!self.manual() || self.total == 0);
                may(it.confirms == confirms, "wrong about what it confirms")?;
                self.captured = it.amount_minor;
                self.confirmed |= it.confirms;
                self.revenue = alive;
                self.capturing = false;
                Ok(())
            }
            Event::PaymentFailed(it) if it.operation == PaymentOperation::Authorize => {
                may(alive && self.reserved && !self.confirmed, "nobody waits for money")?;
                let risk = it.rule.as_ref().and_then(|it| it.version.parse().ok());
                let known = match it.code.as_str() {
                    "risk_refused" => risk.is_some_and(|version| refuses(version, self.total)),
                    code => {
                        ["card_declined", "authentication_failed", "provider_unavailable"].contains(&code)
                    }
                };
                may(known, "for no reason")?;
                self.dies(OrderStatus::Failed, &it.code)
            }
            Event::PaymentFailed(_) => {
                may(self.capturing, "nothing was to be captured")?;
                self.capturing = false;
                Ok(())
            }
            Event::PaymentCancelled(_) => may(!alive && self.captured == 0, "of a living order"),
            Event::RefundRequested(it) => {
                may(it.amount_minor > 0 && it.amount_minor <= self.left(), "more than there is")?;
                may(self.promised.insert(it.refund_id.clone(), it.amount_minor).is_none(), "twice")
            }
            Event::PaymentRefunded(it) => {
                may(self.promised.get(&it.refund_id) == Some(&it.amount_minor), "not what was asked for")?;
                may(self.back.insert(it.refund_id.clone()), "twice")?;
                self.refunds.push((it.refunded_at_ms, it.amount_minor));
                Ok(())
            }
            _ => may(false, "which cannot be"),
        }
    }
}

/// Everything is over: the order's row, the provider's books and stock say the same, and nothing is left half done.
pub(super) fn at_rest(
    seen: &Seen,
    stock: &Stock,
    of: &Text,
    order: &Order,
    accounts: &[&Account],
) -> Checked {
    let row: Option<OrderState> = seen.row(TaskKind::Order, &format!("order/{of}"))?;
    if order.placed.is_none() {
        return expect(row.is_none(), || "a row of an order that was never placed".to_owned());
    }
    let Some(row) = row else { return Err(Violation("it has no row".to_owned())) };
    let status = order.status();
    expect(row.view.status == status && row.view.version == order.version, || {
        format!(
            "its row is {:?} v{}, the model says {status:?} v{}",
            row.view.status, row.view.version, order.version
        )
    })?;
    expect(status != OrderStatus::Pending, || format!("it waits for {} for ever", row.view.stage))?;
    let marks: FxHashSet<&Text> = row.marks.iter().map(|it| &it.id).collect();
    expect(marks.len() == row.marks.len() && marks.len() == order.marks.len(), || {
        format!("it has {} marks, the model {}", row.marks.len(), order.marks.len())
    })?;
    let payment = row.payment.clone().unwrap_or_default();
    let refunded = order.refunded();
    expect((payment.captured_minor, payment.refunded_minor) == (order.captured, refunded), || {
        format!("its row says {payment:?}, the model {} captured, {refunded} back", order.captured)
    })?;
    expect(payment.pending.is_none() && order.promised.len() == order.back.len(), || {
        format!("money is under way for ever: {payment:?}")
    })?;
    expect(accounts.len() <= 1, || format!("it was charged more than once: {accounts:?}"))?;
    let (captured, back, charges) =
        accounts.first().map_or((0, 0, 0), |it| (it.captured_minor, it.refunded_minor(), it.charges));
    expect(
        (captured, back) == (if order.total == 0 { 0 } else { order.captured }, refunded) && charges <= 1,
        || {
            format!(
                "the provider has taken {captured} ({charges} times) and given back {back}, the model says {} and {refunded}",
                order.captured
            )
        },
    )?;
    if order.dead.is_some() {
        expect(order.captured == refunded, || {
            format!("dead, and keeps {} of {}", order.captured - refunded, order.captured)
        })?;
        let open = accounts
            .first()
            .is_some_and(|it| matches!(it.standing, Standing::Authorized | Standing::Waiting));
        expect(!open && payment.authorized_minor == 0, || "dead, and money is still promised".to_owned())?;
    }
    let (tenant, order_id) = of.split_once('/').unwrap_or_default();
    for (sku, units) in order.units() {
        let hold = stock.holds.get(&(key(tenant, &sku), order_id.into()));
        let phase = hold.map(|it| it.phase);
        if order.dead.is_some() {
            let over = !matches!(phase, Some(HoldPhase::Open | HoldPhase::Committed));
            expect(over, || format!("dead, and holds {sku}: {hold:?}"))?;
        } else {
            let restocked: i64 = row
                .fulfillment
                .iter()
                .flat_map(|it| &it.returned)
                .filter(|it| it.sku == sku && it.restock)
                .map(|it| it.quantity)
                .sum();
            let sold: i64 = hold.iter().flat_map(|it| &it.parts).map(|it| it.quantity).sum();
            expect(phase == Some(HoldPhase::Committed) && sold == units - restocked, || {
                format!("paid, and of {units} units of {sku} ({restocked} came back) stock says {hold:?}")
            })?;
        }
    }
    Ok(())
}
