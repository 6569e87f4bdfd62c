//! Stock, one command after the other: on hand, held and sold per SKU and location, and what every order holds.

use super::seen::Seen;
use super::{Checked, Violation, expect};
use crate::house::PARTITIONS;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use tillstream_schemas::Text;
use tillstream_schemas::item::{
    HoldPhase, HoldState, ItemCommand, ItemCommandPayload as Payload, ProductState, StockState,
};
use tillstream_schemas::order_command::{Allocation, OrderCommandPayload, StockAnswer};
use tillstream_stage::ids::key;
use tillstream_stage::task::TaskKind;

/// What an order holds of a SKU.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Where it stands.
    pub phase: HoldPhase,
    /// From where, how many.
    pub parts: Vec<Allocation>,
    /// Why it was refused.
    pub refused: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Sku {
    /// On hand and reserved, by location.
    places: BTreeMap<Text, (i64, i64)>,
    received: i64,
    sold: i64,
    changed: bool,
}

/// All of stock.
#[derive(Default)]
pub struct Stock {
    skus: BTreeMap<Text, Sku>,
    /// By SKU's key and order.
    pub holds: FxHashMap<(Text, Text), Hold>,
    adjusted: FxHashMap<(Text, Text), Text>,
    products: BTreeMap<Text, (i64, ProductState)>,
    answers: FxHashMap<(Text, Text), VecDeque<(i64, StockAnswer)>>,
}

/// Goes through every command to items.
pub(super) fn judge(seen: &Seen) -> Result<Stock, Violation> {
    let mut stock = Stock::default();
    for input in seen.orders.iter().flatten() {
        let Some(command) = &input.command else { continue };
        if let OrderCommandPayload::StockAnswer(answer) = &command.payload {
            let at = (key(&command.tenant, &answer.sku), command.order_id.clone());
            stock.answers.entry(at).or_default().push_back((command.accepted_at_ms, answer.clone()));
        }
    }
    for (partition, inputs) in (0..PARTITIONS).zip(&seen.items) {
        for input in seen.sequence(TaskKind::Item, partition, inputs) {
            if let Some(command) = &input.command {
                stock.take(command)?;
            }
        }
    }
    if let Some((at, left)) = stock.answers.iter().find(|(_, it)| !it.is_empty()) {
        return Err(Violation(format!("stock answered {at:?} without being asked: {left:?}")));
    }
    stock.compare(seen)?;
    Ok(stock)
}

impl Sku {
    /// Takes units from the locations, the fullest first where nobody prefers one.
    fn find(&self, quantity: i64) -> Option<i64> {
        let free: i64 = self.places.values().map(|(there, held)| there - held).sum();
        (free >= quantity).then_some(free)
    }

    fn shift(&mut self, parts: &[Allocation], there: i64, held: i64) {
        for part in parts {
            let place = self.places.entry(part.location.clone()).or_default();
            place.0 += there * part.quantity;
            place.1 += held * part.quantity;
        }
    }
}

impl Stock {
    fn take(&mut self, command: &ItemCommand) -> Checked {
        let of = key(&command.tenant, &command.sku);
        match &command.payload {
            Payload::UpsertProduct(upsert) => {
                let before = self.products.get(&of).map(|(version, it)| (*version, it.command_id.clone()));
                if before.as_ref().is_some_and(|(_, id)| *id == command.id) {
                    return Ok(());
                }
                let product = ProductState {
                    command_id: command.id.clone(),
                    prices: upsert.prices.clone(),
                    active: upsert.active,
                    tax_class: upsert.tax_class.clone(),
                    stocked: upsert.stocked,
                    ..ProductState::default()
                };
                self.products.insert(of.clone(), (before.map_or(0, |it| it.0) + 1, product));
                self.skus.entry(of).or_default();
            }
            Payload::RemoveProduct(_) => {}
            Payload::AdjustStock(asked) => {
                if self.adjusted.contains_key(&(of.clone(), command.id.clone())) {
                    return Ok(());
                }
                let sku = self.skus.entry(of.clone()).or_default();
                let (there, held) = sku.places.get(&asked.location).copied().unwrap_or_default();
                if there + asked.delta >= held {
                    sku.places.insert(asked.location.clone(), (there + asked.delta, held));
                    sku.received += asked.delta;
                    sku.changed = true;
                    self.adjusted.insert((of, command.id.clone()), asked.fingerprint.clone());
                }
            }
            Payload::ReceiveStock(asked) => self.receive(command, of, &asked.order_id, asked.quantity),
            Payload::ReserveStock(asked) => {
                return self.reserve(of, &asked.order_id, asked.quantity, asked.expires_at_ms);
            }
            Payload::ReleaseStock(asked) => {
                let hold = self.holds.entry((of.clone(), asked.order_id.clone())).or_insert(Hold {
                    phase: HoldPhase::Refused,
                    parts: Vec::new(),
                    refused: "hold_released",
                });
                let sku = self.skus.entry(of).or_default();
                match hold.phase {
                    HoldPhase::Open => sku.shift(&hold.parts, 0, -1),
                    HoldPhase::Committed => {
                        sku.shift(&hold.parts, 1, 0);
                        sku.sold -= hold.parts.iter().map(|it| it.quantity).sum::<i64>();
                    }
                    HoldPhase::Refused if hold.refused == "hold_released" => {}
                    HoldPhase::Released | HoldPhase::Refused => return Ok(()),
                }
                *hold = Hold { phase: HoldPhase::Released, parts: Vec::new(), refused: "hold_released" };
            }
            Payload::CommitStock(asked) => {
                let Some(hold) = self.holds.get_mut(&(of.clone(), asked.order_id.clone())) else {
                    return Ok(());
                };
                if hold.phase == HoldPhase::Open {
                    hold.phase = HoldPhase::Committed;
                    let sku = self.skus.entry(of).or_default();
                    sku.shift(&hold.parts, -1, -1);
                    sku.sold += hold.parts.iter().map(|it| it.quantity).sum::<i64>();
                }
            }
        }
        Ok(())
    }

    fn reserve(&mut self, of: Text, order_id: &Text, quantity: i64, expires_at_ms: i64) -> Checked {
        let at = (of.clone(), order_id.clone());
        let answer = self.answers.get_mut(&at).and_then(VecDeque::pop_front);
        let Some((now_ms, answer)) = answer else {
            return Err(Violation(format!("stock never answered {order_id} about {of}")));
        };
        let told = answer.refused.as_deref().unwrap_or("");
        if let Some(hold) = self.holds.get(&at) {
            let holds = matches!(hold.phase, HoldPhase::Open | HoldPhase::Committed);
            let expected = if holds { "" } else { hold.refused };
            return expect(told == expected, || {
                format!("{order_id} asked again for {of} and was told {told:?}, not {expected:?}")
            });
        }
        let sku = self.skus.entry(of.clone()).or_default();
        let expected = match sku.find(quantity) {
            _ if now_ms > expires_at_ms => "hold_expired",
            Some(_) => "",
            None => "out_of_stock",
        };
        expect(told == expected, || {
            format!(
                "{order_id} asked for {quantity} of {of}: told {told:?}, not {expected:?}; stock is {sku:?}"
            )
        })?;
        let mut hold = Hold { phase: HoldPhase::Refused, parts: Vec::new(), refused: expected };
        if expected.is_empty() {
            // Which locations is stock's choice; that they have it is not.
            let sum: i64 = answer.allocations.iter().map(|it| it.quantity).sum();
            expect(sum == quantity, || format!("{order_id} got {sum} of {of}, not {quantity}"))?;
            sku.shift(&answer.allocations, 0, 1);
            let over = sku.places.values().any(|(there, held)| held > there);
            expect(!over, || format!("{order_id} got units of {of} that are not there: {sku:?}"))?;
            hold = Hold { phase: HoldPhase::Open, parts: answer.allocations, refused: "hold_released" };
        }
        self.holds.insert(at, hold);
        Ok(())
    }

    /// Goods come back: of the order's sale as long as there is some, else from outside.
    fn receive(&mut self, command: &ItemCommand, of: Text, order_id: &Text, quantity: i64) {
        let stocked = self.products.get(&of).is_none_or(|(_, it)| it.stocked);
        if !stocked || self.adjusted.insert((of.clone(), command.id.clone()), Text::default()).is_some() {
            return;
        }
        let sku = self.skus.entry(of.clone()).or_default();
        let (mut left, mut first) = (quantity, None);
        if let Some(hold) = self.holds.get_mut(&(of, order_id.clone()))
            && hold.phase == HoldPhase::Committed
        {
            for part in &mut hold.parts {
                let back = part.quantity.min(left);
                if back > 0 {
                    first = first.or(Some(part.location.clone()));
                    sku.shift(&[Allocation { location: part.location.clone(), quantity: back }], 1, 0);
                }
                part.quantity -= back;
                left -= back;
                sku.sold -= back;
            }
            hold.parts.retain(|it| it.quantity > 0);
        }
        if left > 0 {
            let location = first.unwrap_or(Text::const_new("main"));
            sku.shift(&[Allocation { location, quantity: left }], 1, 0);
            sku.received += left;
        }
    }

    fn compare(&self, seen: &Seen) -> Checked {
        for (of, sku) in &self.skus {
            let row: Option<StockState> = seen.row(TaskKind::Item, &format!("stock/{of}"))?;
            let row = row.unwrap_or_default();
            let places: BTreeMap<Text, (i64, i64)> = row
                .locations
                .iter()
                .filter(|it| (it.on_hand, it.reserved) != (0, 0))
                .map(|it| (it.location.clone(), (it.on_hand, it.reserved)))
                .collect();
            let mut own = sku.places.clone();
            own.retain(|_, it| *it != (0, 0));
            let same = places == own && (row.received, row.sold) == (sku.received, sku.sold);
            expect(same, || format!("the row of {of} is {row:?}, the model says {sku:?}"))?;
        }
        for (of, (version, product)) in &self.products {
            let row: Option<ProductState> = seen.row(TaskKind::Item, &format!("product/{of}"))?;
            let same = row.as_ref().is_some_and(|it| {
                it.version == *version && it.command_id == product.command_id && it.prices == product.prices
            });
            expect(same, || {
                format!("the row of {of} is {row:?}, the model says version {version} by {product:?}")
            })?;
        }
        for ((of, order_id), hold) in &self.holds {
            let row: Option<HoldState> = seen.row(TaskKind::Item, &format!("hold/{of}/{order_id}"))?;
            let same = row.as_ref().is_some_and(|it| it.phase == hold.phase && it.allocations == hold.parts);
            expect(same, || format!("the hold of {order_id} on {of} is {row:?}, the model says {hold:?}"))?;
        }
        Ok(())
    }
}
