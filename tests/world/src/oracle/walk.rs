//! Every order's commands and events, walked through side by side with the model.

use super::orders::{Order, at_rest};
use super::price;
use super::seen::{Input, Seen};
use super::stock::Stock;
use super::{Checked, Violation, expect};
use crate::house::{Outside, PARTITIONS};
use crate::provider::Account;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use tillstream_schemas::Text;
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload as Command};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload as Event, OrderPriced};
use tillstream_stage::ids::key;
use tillstream_stage::task::TaskKind;

/// A product may have changed so long before an order's event without the event showing it, ns: its follower may be behind
/// as long as its process stood still.
const STALE_MAX_NS: u64 = 3_000_000_000;

type Groups<'a> = FxHashMap<&'a str, VecDeque<Vec<&'a (u64, OrderEvent)>>>;

/// Goes through every order's commands.
pub(super) fn judge(house: &Outside, seen: &Seen, stock: &Stock) -> Result<BTreeMap<Text, Order>, Violation> {
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
            match self.expectation(command, &group, input) {
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
    fn expectation(
        &self,
        command: &OrderCommand,
        group: &[&(u64, OrderEvent)],
        input: &Input<OrderCommand>,
    ) -> Checked {
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
        expect(priced, || format!("{:?} led to {told}, the model says {expected}", brief_command(command)))?;
        self.expect_reason(command, &told, input)
    }

    /// An order is not refused for a product that was there before it came, or for one that was active all the time.
    fn expect_reason(&self, command: &OrderCommand, told: &str, input: &Input<OrderCommand>) -> Checked {
        let Command::PlaceOrder(placed) = &command.payload else { return Ok(()) };
        let all =
            |sku: &Text| self.seen.products.get(&key(&command.tenant, sku)).map_or(&[][..], Vec::as_slice);
        let after_ns = input.after_ns;
        let may_be = |sku: &Text| match told {
            "unknown_product" => all(sku).first().is_none_or(|(first_ns, _)| *first_ns > after_ns),
            "product_inactive" => {
                let known_ns = after_ns.saturating_sub(STALE_MAX_NS + self.seen.stood_still_ns);
                let from = all(sku).iter().rposition(|(at_ns, _)| *at_ns <= known_ns).unwrap_or(0);
                all(sku)[from..].iter().any(|(_, it)| !it.active)
            }
            _ => true,
        };
        expect(placed.lines.iter().any(|it| may_be(&it.sku)), || {
            format!("{told}, though every product was there before the order: {:?}", brief_command(command))
        })
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
