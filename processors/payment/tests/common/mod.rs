//! A payment on its own: state, clock, and the hand-back of its events that the chain does.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub mod steps;

use tillstream_payment::{Payment, ledger};
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{
    CaptureMode, CapturePayment, OrderCommandPayload, PaymentInstruction, PaymentOperation, PaymentOutcome,
    PaymentResult, RefundOrder,
};
use tillstream_schemas::order_event::{OrderCancelled, OrderEventPayload, OrderReserved, OrderReturned};
use tillstream_schemas::order_state::{PaymentState, PricedOrder};
use tillstream_stage::facts::NoCatalog;
use tillstream_stage::rule::Verdict;
use tillstream_stage::{Facts, OrderInput, OrderStage, TimerName};

pub const TOTAL: i64 = 1_000;

pub struct World {
    pub state: PaymentState,
    pub order: PricedOrder,
    pub verdict: Option<Verdict>,
    pub now_ms: i64,
    pub timer_ms: Option<i64>,
    pub events: Vec<OrderEventPayload>,
    pub requests: Vec<PaymentRequest>,
    pub inputs: u32,
}

impl World {
    pub fn new(capture: CaptureMode, total_minor: i64) -> Self {
        let order = PricedOrder {
            currency: "GBP".into(),
            total_minor,
            payment: PaymentInstruction { method: "pm_card_visa".into(), capture },
            ..PricedOrder::default()
        };
        Self {
            state: PaymentState::default(),
            order,
            verdict: None,
            now_ms: 1_700_000_000_000,
            timer_ms: None,
            events: Vec::new(),
            requests: Vec::new(),
            inputs: 0,
        }
    }

    /// One input, and the stage's own events handed back until nothing is left.
    pub fn give(&mut self, input: OrderInput<'_>) {
        self.inputs += 1;
        let id = format!("cmd_{}", self.inputs);
        let mut fresh = self.decide(input, &id);
        while !fresh.is_empty() {
            let event = fresh.remove(0);
            fresh.extend(self.decide(OrderInput::Event(&event), &id));
            self.events.push(event);
        }
        self.check();
    }

    fn decide(&mut self, input: OrderInput<'_>, input_id: &str) -> Vec<OrderEventPayload> {
        let facts = Facts {
            now_ms: self.now_ms,
            tenant: "demo",
            order_id: "ord_1",
            input_id,
            verdict: self.verdict.as_ref(),
            order: Some(&self.order),
            catalog: &NoCatalog,
            holds: &[],
        };
        let decision = Payment::decide(&self.state, input, &facts).unwrap();
        assert!(decision.item_commands.is_empty());
        assert!(decision.payment_requests.len() <= 1, "one request in flight per payment");
        for change in &decision.timers {
            assert_eq!(change.name, TimerName::PaymentRetry);
            self.timer_ms = change.due_ms;
        }
        if let Some(state) = decision.state {
            assert_ne!(state, self.state, "an unchanged state is not written");
            self.state = state;
        }
        for request in &decision.payment_requests {
            let pending = self.state.pending.as_ref().unwrap();
            assert_eq!(pending.request_key, request.request_key);
            assert_eq!(pending.amount_minor, request.amount_minor);
        }
        self.requests.extend(decision.payment_requests);
        decision.events
    }

    /// What must hold after every input.
    pub fn check(&self) {
        let state = &self.state;
        assert_eq!(ledger::unbalanced(&state.ledger), None, "{state:?}");
        assert!(0 <= state.refunded_minor && state.refunded_minor <= state.captured_minor, "{state:?}");
        assert!(state.captured_minor <= state.amount_minor, "{state:?}");
        assert!(state.authorized_minor + state.captured_minor <= state.amount_minor, "{state:?}");
        let authorized_ever: i64 = state
            .ledger
            .iter()
            .filter(|it| it.account == ledger::PROVIDER_AUTHORIZED && it.amount_minor > 0)
            .map(|it| it.amount_minor)
            .sum();
        assert!(authorized_ever <= state.amount_minor, "{state:?}");
        if authorized_ever > 0 {
            assert!(state.captured_minor <= authorized_ever, "{state:?}");
        }
        let book = |account| ledger::balance(&state.ledger, account);
        assert_eq!(book(ledger::PROVIDER_AUTHORIZED), state.authorized_minor, "{state:?}");
        assert_eq!(book(ledger::CUSTOMER_AUTHORIZATION), -state.authorized_minor, "{state:?}");
        assert_eq!(book(ledger::PROVIDER_CLEARING), state.captured_minor - state.refunded_minor, "{state:?}");
        assert_eq!(book(ledger::MERCHANT_PAYABLE), state.refunded_minor - state.captured_minor, "{state:?}");
        let waiting = state.pending.as_ref().and_then(|it| it.retry_due_ms);
        assert_eq!(waiting, self.timer_ms, "the timer is set exactly while a retry waits");
    }

    pub fn reserved(&mut self) {
        self.give(OrderInput::Event(&OrderEventPayload::OrderReserved(OrderReserved {
            holds: Vec::new(),
            expires_at_ms: self.now_ms + 900_000,
            rule: None,
            review: None,
        })));
    }

    pub fn cancelled(&mut self) {
        let event = OrderCancelled { code: "requested".into(), message: "".into() };
        self.give(OrderInput::Event(&event.into()));
    }

    pub fn capture(&mut self, amount_minor: Option<i64>) {
        self.give(OrderInput::Command(&OrderCommandPayload::CapturePayment(CapturePayment { amount_minor })));
    }

    pub fn refund(&mut self, refund_id: &str, amount_minor: Option<i64>) {
        self.give(OrderInput::Command(&OrderCommandPayload::RefundOrder(RefundOrder {
            refund_id: refund_id.into(),
            amount_minor,
            reason: None,
            refunded_at_ms: Some(77),
        })));
    }

    pub fn returned(&mut self, return_id: &str, amount_minor: i64) {
        self.give(OrderInput::Event(&OrderEventPayload::OrderReturned(OrderReturned {
            return_id: return_id.into(),
            lines: Vec::new(),
            amount_minor,
            returned_at_ms: 99,
        })));
    }

    pub fn fire(&mut self) {
        if let Some(due_ms) = self.timer_ms.take() {
            self.now_ms = self.now_ms.max(due_ms);
            self.give(OrderInput::Timer(TimerName::PaymentRetry));
        }
    }

    pub fn result(&mut self, result: PaymentResult) {
        self.give(OrderInput::Command(&OrderCommandPayload::PaymentResult(result)));
    }

    /// The answer to the newest request.
    pub fn answer(&mut self, outcome: PaymentOutcome, code: Option<&str>) {
        let request = self.requests.last().unwrap().clone();
        self.result(answer_to(&request, outcome, code));
    }

    /// A webhook under `key`.
    pub fn webhook(&mut self, key: &str, outcome: PaymentOutcome) {
        self.result(PaymentResult {
            payment_id: self.state.payment_id.clone(),
            request_key: key.into(),
            operation: PaymentOperation::Authorize,
            outcome,
            amount_minor: self.order.total_minor,
            provider_ref: Some("sbx_1".into()),
            code: None,
            message: None,
        });
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(OrderEventPayload::kind).collect()
    }

    /// The codes of the refusals so far.
    pub fn refusals(&self) -> Vec<Text> {
        let code = |it: &OrderEventPayload| match it {
            OrderEventPayload::CommandRefused(it) => Some(it.code.clone()),
            _ => None,
        };
        self.events.iter().filter_map(code).collect()
    }

    /// Operations asked for, each key once.
    pub fn operations(&self) -> Vec<PaymentOperation> {
        let mut keys: Vec<&str> = Vec::new();
        let mut operations = Vec::new();
        for request in &self.requests {
            if !keys.contains(&request.request_key.as_str()) {
                keys.push(&request.request_key);
                operations.push(request.operation);
            }
        }
        operations
    }
}

pub fn answer_to(request: &PaymentRequest, outcome: PaymentOutcome, code: Option<&str>) -> PaymentResult {
    PaymentResult {
        payment_id: request.payment_id.clone(),
        request_key: request.request_key.clone(),
        operation: request.operation,
        outcome,
        amount_minor: request.amount_minor,
        provider_ref: (!matches!(outcome, PaymentOutcome::Unavailable | PaymentOutcome::Unknown))
            .then(|| "sbx_1".into()),
        code: code.map(Into::into),
        message: None,
    }
}
