//! One order's reservation with its item partition: hands events back to the stage as the chain does, and keeps a
//! small model of what stock would do with the commands.

use std::collections::{BTreeMap, VecDeque};
use tillstream_reservation::Reservation;
use tillstream_schemas::item::ItemCommandPayload;
use tillstream_schemas::order_command::{
    Allocation, CaptureMode, OrderCommandPayload, PaymentOperation, StockAnswer,
};
use tillstream_schemas::order_event::{
    OrderCancelled, OrderEventPayload, OrderPriced, OrderRejected, PaymentAuthorized, PaymentCaptured,
    PaymentFailed,
};
use tillstream_schemas::order_state::{LineKind, PricedLine, PricedOrder, ReservationState};
use tillstream_stage::facts::{Facts, NoCatalog};
use tillstream_stage::rule::Verdict;
use tillstream_stage::{OrderInput, OrderStage, TimerName};

pub const NOW: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Open,
    Sold,
    Released,
    Refused,
}

/// One SKU: what is free, what this order has of it, and the commands on their way to it.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    pub free: i64,
    pub hold: Option<(Hold, i64)>,
    pub queue: VecDeque<ItemCommandPayload>,
}

impl Shelf {
    fn take(&mut self, sku: &str, command: &ItemCommandPayload) -> Option<StockAnswer> {
        match command {
            ItemCommandPayload::ReserveStock(asked) => {
                if self.hold.is_none() {
                    let fits = self.free >= asked.quantity;
                    self.free -= if fits { asked.quantity } else { 0 };
                    self.hold = Some((if fits { Hold::Open } else { Hold::Refused }, asked.quantity));
                }
                let refused = match self.hold.map(|it| it.0) {
                    Some(Hold::Refused) => Some("out_of_stock".into()),
                    Some(Hold::Released) => Some("hold_released".into()),
                    _ => None,
                };
                let allocations = if refused.is_none() {
                    vec![Allocation { location: "main".into(), quantity: asked.quantity }]
                } else {
                    Vec::new()
                };
                let quantity = asked.quantity;
                Some(StockAnswer { sku: sku.into(), quantity, refused, available: self.free, allocations })
            }
            ItemCommandPayload::ReleaseStock(_) => {
                match self.hold {
                    Some((Hold::Open | Hold::Sold, quantity)) => {
                        self.free += quantity;
                        self.hold = Some((Hold::Released, quantity));
                    }
                    None => self.hold = Some((Hold::Released, 0)),
                    Some(_) => {}
                }
                None
            }
            ItemCommandPayload::CommitStock(_) => {
                if let Some((hold @ Hold::Open, _)) = &mut self.hold {
                    *hold = Hold::Sold;
                }
                None
            }
            other => panic!("not for reservation to say: {other:?}"),
        }
    }
}

pub struct Run {
    pub state: ReservationState,
    pub order: PricedOrder,
    pub priced: OrderPriced,
    pub timer: Option<i64>,
    pub shelves: BTreeMap<String, Shelf>,
    /// Answers that stock gave, delivered or not.
    pub answers: Vec<StockAnswer>,
    pub undelivered: Vec<StockAnswer>,
    /// Every event, reservation's own and those of other stages.
    pub events: Vec<OrderEventPayload>,
    pub commands: Vec<(String, ItemCommandPayload)>,
    pub verdict: Option<Verdict>,
}

pub fn line(sku: &str, quantity: i64, kind: LineKind) -> PricedLine {
    PricedLine {
        sku: sku.into(),
        kind,
        quantity,
        unit_price_minor: 100,
        gross_minor: 100 * quantity,
        discount_minor: 0,
        tax_rate_bp: 0,
        tax_minor: 0,
        product_version: None,
        category: None,
    }
}

impl Run {
    /// An order with these lines; shelves hold these units.
    pub fn new(lines: Vec<PricedLine>, shelves: &[(&str, i64)]) -> Self {
        let priced = OrderPriced {
            customer: None,
            currency: "GBP".into(),
            country: "GB".into(),
            placed_at_ms: 77,
            lines: lines.clone(),
            gross_minor: 0,
            discount_minor: 0,
            tax_minor: 0,
            total_minor: 0,
            rule: None,
            review: None,
            dimensions: Default::default(),
        };
        let shelf = |units: i64| Shelf { free: units, ..Shelf::default() };
        Self {
            state: ReservationState::default(),
            order: PricedOrder { currency: "GBP".into(), placed_at_ms: 77, lines, ..PricedOrder::default() },
            priced,
            timer: None,
            shelves: shelves.iter().map(|(sku, units)| ((*sku).to_owned(), shelf(*units))).collect(),
            answers: Vec::new(),
            undelivered: Vec::new(),
            events: Vec::new(),
            commands: Vec::new(),
            verdict: None,
        }
    }

    pub fn goods(lines: &[(&str, i64)], shelves: &[(&str, i64)]) -> Self {
        Self::new(
            lines.iter().map(|(sku, quantity)| line(sku, *quantity, LineKind::Goods)).collect(),
            shelves,
        )
    }

    fn offer(&mut self, input: OrderInput<'_>) -> Vec<OrderEventPayload> {
        let facts = Facts {
            now_ms: NOW,
            tenant: "demo",
            order_id: "ord_1",
            input_id: "cmd_1",
            verdict: self.verdict.as_ref(),
            order: Some(&self.order),
            catalog: &NoCatalog,
            holds: &[],
        };
        let decision = Reservation::decide(&self.state, input, &facts).expect("decided");
        if let Some(state) = decision.state {
            assert_ne!(state, self.state, "an unchanged state is not written");
            self.state = state;
        }
        for timer in decision.timers {
            assert_eq!(timer.name, TimerName::HoldExpiry);
            self.timer = timer.due_ms;
        }
        for (sku, command) in decision.item_commands {
            self.shelves.entry(sku.to_string()).or_default().queue.push_back(command.clone());
            self.commands.push((sku.to_string(), command));
        }
        assert_eq!(decision.payment_requests, []);
        decision.events
    }

    /// Offers an input and then every event it causes, as the chain's worklist does.
    fn chain(&mut self, mut worklist: VecDeque<OrderEventPayload>) {
        while let Some(event) = worklist.pop_front() {
            let caused = self.offer(OrderInput::Event(&event));
            self.events.push(event);
            assert!(self.events.len() < 50, "endless: {:?}", self.events);
            worklist.extend(caused);
        }
    }

    /// An event of another stage.
    pub fn event(&mut self, event: impl Into<OrderEventPayload>) {
        self.chain(VecDeque::from([event.into()]));
    }

    pub fn price(&mut self) {
        let priced = self.priced.clone();
        self.event(priced);
    }

    pub fn answer(&mut self, answer: StockAnswer) {
        let command = OrderCommandPayload::StockAnswer(answer);
        let caused = self.offer(OrderInput::Command(&command));
        self.chain(caused.into());
    }

    /// The timer fires, when it is set.
    pub fn fire(&mut self) {
        if self.timer.take().is_some() {
            let caused = self.offer(OrderInput::Timer(TimerName::HoldExpiry));
            self.chain(caused.into());
        }
    }

    /// Stock takes the next command of one SKU.
    pub fn stock(&mut self, sku: &str) {
        let shelf = self.shelves.get_mut(sku).expect("a shelf");
        if let Some(command) = shelf.queue.pop_front()
            && let Some(answer) = shelf.take(sku, &command)
        {
            self.answers.push(answer.clone());
            self.undelivered.push(answer);
        }
    }

    /// Everything on its way arrives.
    pub fn drain(&mut self) {
        loop {
            let skus: Vec<String> = self.shelves.keys().cloned().collect();
            for sku in &skus {
                self.stock(sku);
            }
            if !self.undelivered.is_empty() {
                let answer = self.undelivered.remove(0);
                self.answer(answer);
            } else if self.shelves.values().all(|it| it.queue.is_empty()) {
                return;
            }
        }
    }

    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|it| it.kind() == kind).count()
    }

    pub fn said(&self) -> Vec<&'static str> {
        self.events.iter().map(OrderEventPayload::kind).collect()
    }

    pub fn rejection(&self) -> &OrderRejected {
        let found = self.events.iter().find_map(|it| match it {
            OrderEventPayload::OrderRejected(it) => Some(it),
            _ => None,
        });
        found.expect("a rejection")
    }

    /// Nothing is held or sold, nothing is awaited.
    pub fn assert_given_back(&self, shelves: &[(&str, i64)]) {
        for (sku, units) in shelves {
            let shelf = &self.shelves[*sku];
            assert_eq!(shelf.free, *units, "{sku}: {shelf:?} after {:?}", self.events);
            assert!(!matches!(shelf.hold, Some((Hold::Open | Hold::Sold, _))), "{sku}: {shelf:?}");
        }
        assert_eq!(self.timer, None);
    }
}

pub fn captured(confirms: bool) -> PaymentCaptured {
    PaymentCaptured {
        payment_id: "pay_1".into(),
        amount_minor: 100,
        provider_ref: None,
        confirms,
        rule: None,
    }
}

pub fn authorized(capture: CaptureMode) -> PaymentAuthorized {
    PaymentAuthorized {
        payment_id: "pay_1".into(),
        amount_minor: 100,
        capture,
        provider_ref: None,
        rule: None,
        review: None,
    }
}

pub fn failed(operation: PaymentOperation) -> PaymentFailed {
    PaymentFailed {
        payment_id: "pay_1".into(),
        operation,
        code: "card_declined".into(),
        message: "declined".into(),
        rule: None,
    }
}

pub fn cancelled() -> OrderCancelled {
    OrderCancelled { code: "requested".into(), message: "asked for".into() }
}
