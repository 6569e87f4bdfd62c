//! Orders, one command after the other: what each command must have led to, and what each event may be.

use super::price::{self, Line};
use super::seen::{Input, Seen};
use super::stock::Stock;
use super::{Checked, Violation, expect};
use crate::house::{House, PARTITIONS};
use crate::provider::{Account, Standing};
use crate::rules::refuses;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tillstream_schemas::Text;
use tillstream_schemas::item::{HoldPhase, ProductState};
use tillstream_schemas::order_command::{
    CaptureMode, OrderCommand, OrderCommandPayload as Command, PaymentOperation, PlaceOrder,
};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload as Event, OrderPriced};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_stage::ids::key;
use tillstream_stage::task::TaskKind;

/// A product may have changed so long before an order's event without the event showing it, ns: its follower may be behind
/// as long as its process stood still.
const STALE_MAX_NS: u64 = 3_000_000_000;

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
    waiting: BTreeSet<Text>,
    held: BTreeSet<Text>,
    shipments: BTreeMap<Text, (BTreeMap<Text, i64>, bool)>,
    returned: BTreeMap<Text, i64>,
    fingerprint: Text,
    marks: BTreeMap<Text, Text>,
    version: i64,
}

type Groups<'a> = FxHashMap<&'a str, VecDeque<Vec<&'a (u64, OrderEvent)>>>;

/// Goes through every order's commands.
pub(super) fn judge(house: &House, seen: &Seen, stock: &Stock) -> Result<BTreeMap<Text, Order>, Violation> {
    let mut orders = BTreeMap::new();
    let accounts = house.provider.accounts();
    let mut by_order: FxHashMap<&str, Vec<&Account>> = FxHashMap::default();
    for account in accounts.values() {
        by_order.entry(&account.order_id).or_default().push(account);
    }
    for partition in 0..PARTITIONS {
        let inputs = seen.sequence(TaskKind::Order, partition, &seen.orders[partition as usize]);
        let mut commands: BTreeMap<Text, Vec<(&OrderCommand, &Input<OrderCommand>)>> = BTreeMap::new();
        for input in inputs {
            if let Some(command) = &input.command {
                let of = key(&command.tenant, &command.order_id);
                commands.entry(of).or_default().push((command, input));
            }
        }
        let mut events: BTreeMap<Text, Vec<&(u64, OrderEvent)>> = BTreeMap::new();
        for event in &seen.events[partition as usize] {
            events.entry(key(&event.1.tenant, &event.1.order_id)).or_default().push(event);
        }
        for (of, commands) in commands {
            let events = events.remove(&of).unwrap_or_default();
            let fail = |violation: Violation| {
                let told: Vec<String> = events.iter().map(|it| brief(&it.1)).collect();
                Violation(format!("order {of}: {violation}; its events: {}", told.join(", ")))
            };
            let mut walk = Walk::new(seen, &events);
            walk.run(&commands).map_err(fail)?;
            let order = walk.order;
            let accounts =
                by_order.get(commands[0].0.order_id.as_str()).map(Vec::as_slice).unwrap_or_default();
            at_rest(seen, stock, &of, &order, accounts).map_err(fail)?;
            orders.insert(of, order);
        }
        if let Some((of, _)) = events.into_iter().next() {
            return Err(Violation(format!("order {of} has events, and nobody has asked anything of it")));
        }
    }
    Ok(orders)
}

fn brief(event: &OrderEvent) -> String {
    let code = match &event.payload {
        Event::CommandRefused(it) => format!(" {} {}", it.command, it.code),
        Event::OrderRejected(it) => format!(" {}", it.code),
        Event::OrderCancelled(it) => format!(" {}", it.code),
        Event::PaymentFailed(it) => format!(" {}", it.code),
        _ => String::new(),
    };
    format!("{}{code} (v{} {})", event.payload.kind(), event.version, event.status)
}

struct Walk<'a> {
    seen: &'a Seen,
    order: Order,
    /// Events by what caused them; the events of one cause that were committed together are one group.
    groups: Groups<'a>,
    /// Groups that timers caused, in order.
    timers: VecDeque<Vec<&'a (u64, OrderEvent)>>,
    conflicts: FxHashMap<Text, usize>,
    last_offset: u64,
}

impl<'a> Walk<'a> {
    fn new(seen: &'a Seen, events: &[&'a (u64, OrderEvent)]) -> Self {
        let mut groups: Groups<'a> = FxHashMap::default();
        let mut timers: VecDeque<Vec<&(u64, OrderEvent)>> = VecDeque::new();
        let mut conflicts: FxHashMap<Text, usize> = FxHashMap::default();
        for event in events {
            let cause = event.1.command_id.as_str();
            if matches!(event.1.payload, Event::CommandConflicted(_)) {
                *conflicts.entry(event.1.command_id.clone()).or_default() += 1;
            } else if cause.starts_with("tmr_") {
                match timers.back_mut().filter(|it| it.iter().all(|it| it.1.command_id == cause)) {
                    Some(group) => group.push(event),
                    None => timers.push_back(vec![event]),
                }
            } else if event.1.version == 0 {
                groups.entry(cause).or_default().push_back(vec![event]);
            } else {
                let of = groups.entry(cause).or_default();
                match of
                    .back_mut()
                    .filter(|it| it.last().is_some_and(|last| last.1.version + 1 == event.1.version))
                {
                    Some(group) => group.push(event),
                    None => of.push_back(vec![event]),
                }
            }
        }
        Self { seen, order: Order::default(), groups, timers, conflicts, last_offset: 0 }
    }

    fn run(&mut self, commands: &[(&'a OrderCommand, &'a Input<OrderCommand>)]) -> Checked {
        for (command, input) in commands {
            self.take(command, input)?;
        }
        while self.fire()? {}
        if let Some((cause, _)) = self.groups.iter().find(|(_, it)| !it.is_empty()) {
            return Err(Violation(format!("events by {cause}, which was not asked or was asked before")));
        }
        match self.conflicts.iter().find(|(_, count)| **count > 0) {
            Some((id, count)) => Err(Violation(format!("{count} conflicts too many of {id}"))),
            None => Ok(()),
        }
    }

    /// The next group of a timer; `false` when there is none.
    fn fire(&mut self) -> Result<bool, Violation> {
        let Some(group) = self.timers.pop_front() else { return Ok(false) };
        self.follow_all(&group, None)?;
        Ok(true)
    }

    fn take(&mut self, command: &'a OrderCommand, input: &'a Input<OrderCommand>) -> Checked {
        if let Some(expected) = self.judged_before(command) {
            if expected {
                let left = self.conflicts.entry(command.id.clone()).or_default();
                expect(*left > 0, || format!("{} came with another body, and nobody said so", command.id))?;
                *left -= 1;
            }
            return Ok(());
        }
        let group =
            self.groups.get_mut(command.id.as_str()).and_then(VecDeque::pop_front).unwrap_or_default();
        if let Some(first) = group.first() {
            // What a timer did before this was done before this.
            while self.timers.front().and_then(|it| it.first()).is_some_and(|it| it.0 < first.0) {
                self.fire()?;
            }
            expect(self.seen.repeats || first.0 >= self.last_offset, || {
                format!("{} was handled before what came before it", command.id)
            })?;
            self.last_offset = first.0;
        }
        // What leaves no events may have come after a timer that has left some.
        loop {
            match self.expectation(command, &group) {
                Err(violation) if group.is_empty() => {
                    if !self.fire()? {
                        return Err(violation);
                    }
                }
                Err(violation) => return Err(violation),
                Ok(()) => break,
            }
        }
        self.order.note(command);
        self.follow_all(&group, Some(input))
    }

    /// `Some(false)`: a repeat; `Some(true)`: a conflict; `None`: it is to be judged.
    fn judged_before(&self, command: &OrderCommand) -> Option<bool> {
        match &command.payload {
            Command::StockAnswer(_) | Command::PaymentResult(_) => None,
            Command::PlaceOrder(_) | Command::IssueCredit(_) => {
                self.order.placed.as_ref().map(|_| self.order.fingerprint != command.fingerprint)
            }
            _ => self.order.marks.get(&command.id).map(|it| *it != command.fingerprint),
        }
    }

    /// Whether the first event of the group is what the command must lead to.
    fn expectation(&self, command: &OrderCommand, group: &[&(u64, OrderEvent)]) -> Checked {
        let found = group.first().map(|it| &it.1.payload);
        let told = match found {
            None => "nothing".to_owned(),
            Some(Event::CommandRefused(it)) => it.code.to_string(),
            Some(Event::OrderRejected(it)) => it.code.to_string(),
            Some(it) => it.kind().to_owned(),
        };
        let expected = self.order.expects(command);
        if expected == "any" || expected == told {
            return Ok(());
        }
        // Whatever the version of the rule or the products were is judged where the price is.
        let priced = expected == "order.priced"
            && matches!(told.as_str(), "product_inactive" | "unknown_product" | "no_price");
        expect(priced, || format!("{:?} led to {told}, the model says {expected}", brief_command(command)))
    }

    fn follow_all(&mut self, group: &[&(u64, OrderEvent)], input: Option<&Input<OrderCommand>>) -> Checked {
        for (_, event) in group {
            if event.version == 0 {
                continue;
            }
            expect(event.version == self.order.version + 1, || {
                format!("version {} follows {}", event.version, self.order.version)
            })?;
            self.order.version = event.version;
            if let Event::OrderPriced(priced) = &event.payload {
                self.price(priced, event, input)?;
            }
            self.order.follow(event)?;
            let status = self.order.status().as_str();
            expect(event.status == status, || {
                format!("{} says {}, the model {status}", event.payload.kind(), event.status)
            })?;
        }
        Ok(())
    }

    /// The price, with the products and the rule it says it used; and whether those may have been used.
    fn price(
        &mut self,
        priced: &OrderPriced,
        event: &OrderEvent,
        input: Option<&Input<OrderCommand>>,
    ) -> Checked {
        let Some(placed) = self.order.placed.clone() else {
            return Err(Violation("priced, but never placed".to_owned()));
        };
        let rule = priced.rule.as_ref().and_then(|it| it.version.parse().ok()).unwrap_or(0);
        let after_ns = input.map_or(0, |it| it.after_ns);
        let mut used: Vec<Option<&ProductState>> = Vec::new();
        for (index, line) in placed.lines.iter().enumerate() {
            let all = self.seen.products.get(&key(&event.tenant, &line.sku)).map(Vec::as_slice);
            let all = all.unwrap_or_default();
            let told = priced.lines.get(index).and_then(|it| it.product_version);
            let at = match told {
                Some(version) => all.iter().position(|(_, it)| it.version == version),
                // With a price of its own the line names no version: any may have been used that explains its tax.
                None => {
                    let rate = priced.lines.get(index).map_or(0, |it| it.tax_rate_bp);
                    let explains =
                        |it: &&ProductState| price::tax_rate(&placed.country, it) == i64::from(rate);
                    all.iter().rposition(|(_, it)| explains(&it))
                }
            };
            expect(told.is_none() || at.is_some(), || format!("{} has no version {told:?}", line.sku))?;
            if let (Some(at), Some(_)) = (at, told)
                && let Some((next_ns, _)) = all.get(at + 1)
            {
                let stale_ns = after_ns.saturating_sub(*next_ns);
                expect(stale_ns < STALE_MAX_NS + self.seen.stood_still_ns, || {
                    format!(
                        "{} was sold at version {told:?}, {} ms after the next",
                        line.sku,
                        stale_ns / 1_000_000
                    )
                })?;
            }
            used.push(at.map(|it| &all[it].1));
        }
        let lines = price::lines(&placed, |index| used[index], rule);
        let (gross, off, tax) =
            lines.iter().fold((0, 0, 0), |sum, it| (sum.0 + it.gross, sum.1 + it.off, sum.2 + it.tax));
        let told = (priced.gross_minor, priced.discount_minor, priced.tax_minor, priced.total_minor);
        expect(told == (gross, off, tax, gross - off + tax), || {
            format!(
                "priced {told:?}, the model says {:?} (gross, discount, tax, total)",
                (gross, off, tax, gross - off + tax)
            )
        })?;
        self.order.total = gross - off + tax;
        self.order.waiting = lines.iter().filter(|it| it.goods).map(|it| it.sku.as_str().into()).collect();
        self.order.lines = lines;
        Ok(())
    }
}

fn brief_command(command: &OrderCommand) -> String {
    let text = format!("{:?}", command.payload);
    text.chars().take(160).collect()
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
    fn expects(&self, command: &OrderCommand) -> &'static str {
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
    fn note(&mut self, command: &OrderCommand) {
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
    fn follow(&mut self, event: &OrderEvent) -> Checked {
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
fn at_rest(seen: &Seen, stock: &Stock, of: &Text, order: &Order, accounts: &[&Account]) -> Checked {
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
