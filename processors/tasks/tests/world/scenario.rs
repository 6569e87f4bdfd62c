//! Scenarios as data: what a file in `tests/scenarios` may say, and how it runs.

use super::commands::command;
use super::provider::Fault;
use super::{Delivery, TENANT, World};
use serde::Deserialize;
use std::collections::BTreeMap;
use tillstream_schemas::analytics::Sums;
use tillstream_schemas::item::{ItemCommandPayload, UpsertProduct};
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, CapturePayment, CreateShipment, DeliverShipment, Discount, IssueCredit,
    OrderCommandPayload as Payload, OrderLine, PaymentInstruction, PlaceOrder, RefundOrder, ReturnLine,
    ReturnOrder, ShipmentLine, ShippingCharge,
};
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::order_state::{OrderStatus, PaymentStatus};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::rule::{
    Hook, Hooks, LineAdjustment, NoRules, RuleAnswer, RuleCall, RuleHost, RuleLine, RuleOutcome, RuleRun,
    Verdict,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, for people.
    pub about: String,
    #[serde(default)]
    pub products: BTreeMap<Text, Product>,
    #[serde(default)]
    pub stock: BTreeMap<Text, i64>,
    #[serde(default)]
    pub rule: Option<Rule>,
    pub steps: Vec<Step>,
    pub expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    #[serde(default)]
    pub prices: BTreeMap<Text, i64>,
    #[serde(default = "yes")]
    pub stocked: bool,
    #[serde(default = "yes")]
    pub active: bool,
    #[serde(default)]
    pub tax_class: Option<Text>,
    #[serde(default)]
    pub low_stock_threshold: Option<i64>,
}

fn yes() -> bool {
    true
}

fn no_key() -> Text {
    "body".into()
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Price hook: one minor unit off every unit.
    OneOffEveryUnit,
    /// Price hook: refuses every order.
    RefusePrice,
    /// Risk hook: declines every payment.
    DeclineRisk,
    /// Risk hook: wants somebody to look at every order.
    ReviewRisk,
    /// Price hook: the same, before there is a price.
    ReviewPrice,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    sku: Text,
    quantity: i64,
    #[serde(default)]
    price: Option<i64>,
    #[serde(default)]
    discount: i64,
    #[serde(default)]
    amount: Option<i64>,
    #[serde(default = "yes")]
    restock: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    Place(Place),
    Cancel(Plain),
    Capture(Money),
    Refund(Money),
    Return(Lines),
    Credit(Lines),
    Ship(Lines),
    Deliver(Plain),
    Product {
        sku: Text,
        product: Product,
    },
    RemoveProduct {
        sku: Text,
    },
    Adjust {
        sku: Text,
        delta: i64,
        id: Text,
        #[serde(default)]
        location: Option<Text>,
    },
    Authenticate {
        order: Text,
        succeeds: bool,
    },
    /// The provider's next calls go wrong.
    Provider {
        fault: Fault,
        times: usize,
    },
    /// Delivers: everything until nothing waits; or what waits in one topic, or some records of it.
    Run {
        #[serde(default)]
        topic: Option<Text>,
        #[serde(default)]
        records: Option<usize>,
    },
    /// The clock moves, and what is due fires.
    Wait {
        seconds: i64,
    },
    /// From timer to timer, until no order has one left.
    Finish {},
    /// The last records of a topic come once more.
    Repeat {
        topic: Text,
        records: usize,
    },
    /// What waits in a topic arrives the other way round.
    Reverse {
        topic: Text,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    order: Text,
    #[serde(default = "no_key")]
    body: Text,
    lines: Vec<Line>,
    #[serde(default)]
    currency: Option<Text>,
    #[serde(default)]
    country: Option<Text>,
    #[serde(default)]
    method: Option<Text>,
    #[serde(default)]
    capture: Option<CaptureMode>,
    #[serde(default)]
    discounts: Vec<Discount>,
    #[serde(default)]
    shipping: Option<ShippingCharge>,
}

/// A command that says no more than what it is about; for a delivery, `id` is the shipment's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
    order: Text,
    id: Text,
    #[serde(default = "no_key")]
    body: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    order: Text,
    id: Text,
    #[serde(default = "no_key")]
    body: Text,
    #[serde(default)]
    amount: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    order: Text,
    id: Text,
    #[serde(default = "no_key")]
    body: Text,
    #[serde(default)]
    lines: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default)]
    pub orders: BTreeMap<Text, ExpectOrder>,
    /// Orders that must have no row.
    #[serde(default)]
    pub absent: Vec<Text>,
    #[serde(default)]
    pub stock: BTreeMap<Text, ExpectStock>,
    /// Codes of refused commands, in order.
    #[serde(default)]
    pub refused: Vec<Text>,
    #[serde(default)]
    pub revenue: Option<ExpectRevenue>,
    /// Events of items, in order.
    #[serde(default)]
    pub item_events: Option<Vec<Text>>,
    /// Late corrections there must be at least.
    #[serde(default)]
    pub corrections: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectOrder {
    pub status: OrderStatus,
    #[serde(default)]
    pub payment: Option<PaymentStatus>,
    #[serde(default)]
    pub reason: Option<Text>,
    #[serde(default)]
    pub stage: Option<Text>,
    #[serde(default)]
    pub total: Option<i64>,
    #[serde(default)]
    pub captured: Option<i64>,
    #[serde(default)]
    pub refunded: Option<i64>,
    /// Kinds, in order, each event once.
    #[serde(default)]
    pub events: Option<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectStock {
    pub on_hand: i64,
    pub reserved: i64,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectRevenue {
    pub orders: i64,
    pub units: i64,
    pub gross: i64,
    pub discount: i64,
    pub tax: i64,
    pub refunded: i64,
}

/// A rule in Rust.
struct NativeRule(Rule);

impl RuleHost for NativeRule {
    fn call(&self, _tenant: &str, _order_id: &str, call: &RuleCall) -> RuleOutcome {
        let refuse =
            |code: &str| RuleAnswer::Refuse { code: code.into(), message: "The rule says no.".into() };
        let answer = match (self.0, call) {
            (Rule::OneOffEveryUnit, RuleCall::Price(input)) => {
                let off = |it: &RuleLine| LineAdjustment { discount_minor: it.quantity, tax_rate_bp: None };
                RuleAnswer::Adjust(input.lines.iter().map(off).collect())
            }
            (Rule::RefusePrice, RuleCall::Price(_)) => refuse("not_today"),
            (Rule::DeclineRisk, RuleCall::Risk(_)) => refuse("too_risky"),
            _ => RuleAnswer::Pass,
        };
        let rule =
            RuleRef { name: "native".into(), version: "1".into(), digest: "0".into(), also: Vec::new() };
        let review = match (self.0, call) {
            (Rule::ReviewRisk, RuleCall::Risk(_)) | (Rule::ReviewPrice, RuleCall::Price(_)) => {
                Some("It looks odd.".into())
            }
            _ => None,
        };
        let run = RuleRun { outcome: "answered", fuel: 0, ns: 0 };
        let verdict = Verdict { review, ..Verdict::new(rule, answer) };
        RuleOutcome { verdict: Some(verdict), runs: [run].into_iter().collect() }
    }

    fn hooks(&self, tenant: &str) -> Hooks {
        if tenant == TENANT { Hook::ALL.into_iter().collect() } else { Hooks::NONE }
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap_or_else(|| panic!("no topic is called {name}"))
}

fn upsert(sku: &Text, product: &Product) -> ItemCommandPayload {
    ItemCommandPayload::UpsertProduct(Box::new(UpsertProduct {
        name: sku.clone(),
        description: None,
        category: None,
        tax_class: product.tax_class.clone(),
        active: product.active,
        stocked: product.stocked,
        prices: product.prices.clone(),
        image_urls: Vec::new(),
        low_stock_threshold: product.low_stock_threshold,
        metadata: BTreeMap::new(),
    }))
}

impl Scenario {
    /// Runs it, and leaves the world for the expectations.
    pub fn run(&self, delivery: Delivery) -> World {
        let rules: Box<dyn RuleHost> = match self.rule {
            Some(rule) => Box::new(NativeRule(rule)),
            None => Box::new(NoRules),
        };
        let mut world = World::new(2, delivery).with_rules(rules);
        for (sku, product) in &self.products {
            world.send_item(&format!("product-{sku}"), sku, upsert(sku, product));
        }
        for (sku, units) in &self.stock {
            world.adjust(&format!("stock-{sku}"), sku, "main", *units);
        }
        world.settle();
        for (index, step) in self.steps.iter().enumerate() {
            step.run(index, &mut world);
        }
        world.settle();
        world
    }
}

impl Step {
    fn run(&self, index: usize, world: &mut World) {
        let now_ms = world.now_ms;
        let mut send = |id: &str, order: &Text, body: &Text, payload: Payload| {
            world.send(&command(now_ms, id, order, body, payload));
        };
        match self {
            Self::Place(it) => {
                let payload = Payload::PlaceOrder(Box::new(it.order(now_ms)));
                send(&format!("place-{}", it.order), &it.order, &it.body, payload);
            }
            Self::Cancel(it) => {
                send(&it.id, &it.order, &it.body, Payload::CancelOrder(CancelOrder { reason: None }));
            }
            Self::Capture(it) => {
                let payload = CapturePayment { amount_minor: it.amount };
                send(&it.id, &it.order, &it.body, Payload::CapturePayment(payload));
            }
            Self::Refund(it) => send(&it.id, &it.order, &it.body, it.refund()),
            Self::Return(it) => send(&it.id, &it.order, &it.body, it.returned(now_ms)),
            Self::Credit(it) => send(&it.id, &it.order, &it.body, it.credit(now_ms)),
            Self::Ship(it) => send(&it.id, &it.order, &it.body, it.shipment()),
            Self::Deliver(it) => {
                let payload = DeliverShipment { shipment_id: it.id.clone(), delivered_at_ms: None };
                send(&format!("deliver-{}", it.id), &it.order, &it.body, Payload::DeliverShipment(payload));
            }
            _ => self.act(index, world),
        }
    }

    fn act(&self, index: usize, world: &mut World) {
        match self {
            Self::Product { sku, product } => {
                world.send_item(&format!("product-{index}"), sku, upsert(sku, product));
            }
            Self::RemoveProduct { sku } => {
                let payload = ItemCommandPayload::RemoveProduct(tillstream_schemas::item::RemoveProduct {});
                world.send_item(&format!("product-{index}"), sku, payload);
            }
            Self::Adjust { sku, delta, id, location } => {
                world.adjust(id, sku, location.as_deref().unwrap_or("main"), *delta);
            }
            Self::Authenticate { order, succeeds } => world.authenticate(order, *succeeds),
            Self::Provider { fault, times } => {
                // A record that comes twice is two calls.
                let calls = if world.delivery.twice { times * 2 } else { *times };
                world.provider.faults.extend(std::iter::repeat_n(*fault, calls));
            }
            Self::Run { topic: None, .. } => world.settle(),
            Self::Run { topic: Some(name), records } => {
                for (of, partition) in world.waiting() {
                    if of == topic(name) {
                        world.deliver(of, partition, records.unwrap_or(usize::MAX));
                    }
                }
            }
            Self::Wait { seconds } => world.wait(seconds * 1_000),
            Self::Finish {} => world.finish(),
            Self::Repeat { topic: name, records } => world.repeat(topic(name), *records),
            Self::Reverse { topic: name } => world.reverse(topic(name)),
            _ => unreachable!("a client's command"),
        }
    }
}

impl Place {
    fn order(&self, placed_at_ms: i64) -> PlaceOrder {
        let lines = self.lines.iter().map(|it| OrderLine {
            sku: it.sku.clone(),
            quantity: it.quantity,
            unit_price_minor: it.price,
            discount_minor: it.discount,
        });
        PlaceOrder {
            customer: None,
            currency: self.currency.clone().unwrap_or("GBP".into()),
            country: self.country.clone().unwrap_or("GB".into()),
            placed_at_ms,
            lines: lines.collect(),
            discounts: self.discounts.clone(),
            shipping: self.shipping.clone(),
            payment: PaymentInstruction {
                method: self.method.clone().unwrap_or("pm_card_visa".into()),
                capture: self.capture.unwrap_or(CaptureMode::Automatic),
            },
            metadata: BTreeMap::new(),
            ship_to: None,
            note: None,
        }
    }
}

impl Money {
    fn refund(&self) -> Payload {
        Payload::RefundOrder(RefundOrder {
            refund_id: self.id.clone(),
            amount_minor: self.amount,
            reason: None,
            refunded_at_ms: None,
        })
    }
}

impl Lines {
    fn return_lines(&self) -> Vec<ReturnLine> {
        let lines = self.lines.iter().map(|it| ReturnLine {
            sku: it.sku.clone(),
            quantity: it.quantity,
            amount_minor: it.amount,
            restock: it.restock,
        });
        lines.collect()
    }

    fn returned(&self, returned_at_ms: i64) -> Payload {
        let lines = self.return_lines();
        Payload::ReturnOrder(ReturnOrder { return_id: self.id.clone(), lines, returned_at_ms, reason: None })
    }

    fn credit(&self, returned_at_ms: i64) -> Payload {
        Payload::IssueCredit(IssueCredit {
            customer: None,
            currency: "GBP".into(),
            country: "GB".into(),
            lines: self.return_lines(),
            returned_at_ms,
            reason: None,
            metadata: BTreeMap::new(),
        })
    }

    fn shipment(&self) -> Payload {
        let lines = self.lines.iter();
        Payload::CreateShipment(CreateShipment {
            shipment_id: self.id.clone(),
            lines: lines.map(|it| ShipmentLine { sku: it.sku.clone(), quantity: it.quantity }).collect(),
            carrier: None,
            tracking: None,
        })
    }
}

impl From<&Sums> for ExpectRevenue {
    fn from(sums: &Sums) -> Self {
        Self {
            orders: sums.orders,
            units: sums.units,
            gross: sums.gross,
            discount: sums.discount,
            tax: sums.tax,
            refunded: sums.refunded,
        }
    }
}
