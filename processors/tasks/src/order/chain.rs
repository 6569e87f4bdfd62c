//! The worklist: an input, and every event it causes, is offered to all stages in order until none is left.

use super::emit::{self, Cause};
use super::wiring::{Section, concerns};
use super::{Context, OrderRow, order_row};
use std::collections::VecDeque;
use std::sync::Arc;
use tillstream_analytics::fold::{self, EventContext};
use tillstream_fulfillment::Fulfillment;
use tillstream_payment::Payment;
use tillstream_pricing::Pricing;
use tillstream_reservation::Reservation;
use tillstream_schemas::Text;
use tillstream_schemas::order_command::OrderCommandPayload;
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload as Event};
use tillstream_schemas::order_state::{CreditState, OrderState, OrderStatus, SetTimer};
use tillstream_stage::ids::{Key, key, output_id, trace_id};
use tillstream_stage::rule::{Hook, Hooks, RuleCall, Verdict};
use tillstream_stage::stage::{Decision, OrderInput, StageName, TimerChange, TimerName};
use tillstream_stage::task::{KeyTimer, Outcome, TaskError};
use tillstream_stage::{Facts, RowKey, Table, time};

/// Events one input may cause. The longest real chain is a handful; more is a stage feeding itself.
const EVENTS_MAX: u32 = 1_000;

/// One input on its way through the stages.
pub(super) struct Chain<'c, 'r> {
    context: &'c mut Context<'r>,
    state: OrderState,
    input_id: &'c str,
    traceparent: Option<&'c Text>,
    trace: Option<u128>,
    firing: Option<TimerName>,
    timers_before: Vec<SetTimer>,
    hooks: Hooks,
    is_new: bool,
    changed: bool,
    refused: bool,
    waiting: VecDeque<Event>,
    events: u32,
    item_commands: u32,
    payment_requests: u32,
}

impl<'c, 'r> Chain<'c, 'r> {
    /// A chain over `state`. A `firing` timer is no longer in it.
    pub(super) fn new(
        state: OrderState,
        input_id: &'c str,
        traceparent: Option<&'c Text>,
        firing: Option<TimerName>,
        context: &'c mut Context<'r>,
    ) -> Self {
        Self {
            timers_before: state.timers.clone(),
            hooks: context.rules.hooks(&state.tenant),
            is_new: state.view.version == 0 && state.order.is_none(),
            context,
            state,
            input_id,
            traceparent,
            trace: traceparent.and_then(|it| u128::from_str_radix(trace_id(it)?, 16).ok()),
            firing,
            changed: false,
            refused: false,
            waiting: VecDeque::new(),
            events: 0,
            item_commands: 0,
            payment_requests: 0,
        }
    }

    /// Runs until nothing is left, and leaves row, timers and outputs in the context. `changed`: the caller
    /// has changed the state already.
    pub(super) fn run(mut self, input: OrderInput<'_>, changed: bool) -> Result<Outcome, TaskError> {
        self.changed = changed || self.is_new;
        self.offer(input)?;
        while let Some(event) = self.waiting.pop_front() {
            if self.events >= EVENTS_MAX {
                return Err(TaskError::Endless(EVENTS_MAX as usize));
            }
            let event = self.measured(event);
            self.offer(OrderInput::Event(&event))?;
            self.publish(event, input)?;
        }
        Ok(self.close())
    }

    fn offer(&mut self, input: OrderInput<'_>) -> Result<(), TaskError> {
        self.decide::<Pricing>(input)?;
        self.decide::<Reservation>(input)?;
        self.decide::<Payment>(input)?;
        self.decide::<Fulfillment>(input)
    }

    fn decide<S: Section>(&mut self, input: OrderInput<'_>) -> Result<(), TaskError> {
        if !concerns(S::NAME, input) {
            return Ok(());
        }
        let begun = self.context.meter.begin();
        let before_it_ever_decided;
        let section = match S::section(&self.state) {
            Some(section) => section,
            None => {
                before_it_ever_decided = S::State::default();
                &before_it_ever_decided
            }
        };
        let mut facts = Facts {
            now_ms: self.context.now_ms,
            tenant: &self.state.tenant,
            order_id: &self.state.order_id,
            input_id: self.input_id,
            verdict: None,
            order: self.state.order.as_ref(),
            holds: self.state.reservation.as_ref().map_or(&[], |it| &it.holds),
            catalog: self.context.catalog,
        };
        let mut verdict = None;
        if self.hooks.concern(S::NAME)
            && let Some(call) = S::rule_call(section, input, &facts)
        {
            verdict = ask(self.context, &self.state, &call);
        }
        facts.verdict = verdict.as_ref();
        let decision =
            S::decide(section, input, &facts).map_err(|error| TaskError::Stage { stage: S::NAME, error })?;
        let outcome = outcome_of(&decision);
        self.take::<S>(decision)?;
        self.context.meter.end(S::NAME, begun, outcome);
        Ok(())
    }

    /// A priced order with the dimensions that the tenant's rules give it, in its event and in its row.
    fn measured(&mut self, event: Event) -> Event {
        let Event::OrderPriced(mut priced) = event else { return event };
        if self.hooks.contains(Hook::Measure)
            && let Some(order) = self.state.order.as_ref()
            && let Some(verdict) = ask(self.context, &self.state, &fold::measure_call(order))
        {
            fold::apply_dimensions(&mut priced, &verdict);
            if let Some(order) = self.state.order.as_mut() {
                order.dimensions.clone_from(&priced.dimensions);
                order.rule.clone_from(&priced.rule);
            }
        }
        Event::OrderPriced(priced)
    }

    fn take<S: Section>(&mut self, decision: Decision<S::State>) -> Result<(), TaskError> {
        if let Some(section) = decision.state {
            S::set_section(&mut self.state, section);
            self.changed = true;
        }
        let cause = Cause {
            tenant: &self.state.tenant,
            input_id: self.input_id,
            traceparent: self.traceparent,
            now_ms: self.context.now_ms,
        };
        for (sku, payload) in decision.item_commands {
            self.context.outputs.push(emit::item_command(&cause, self.item_commands, sku, payload)?);
            self.item_commands += 1;
        }
        for request in decision.payment_requests {
            let n = self.payment_requests;
            self.context.outputs.push(emit::payment_request(&cause, n, &self.state.order_id, request)?);
            self.payment_requests += 1;
        }
        for change in decision.timers {
            self.set_timer(change);
        }
        for event in decision.events {
            debug_assert!(
                crate::table::may_emit(S::NAME, event.kind()),
                "processors/README.md does not say that {} emits {}",
                S::NAME.as_str(),
                event.kind()
            );
            self.refused |= matches!(event, Event::CommandRefused(_) | Event::OrderRejected(_));
            self.waiting.push_back(event);
        }
        Ok(())
    }

    fn set_timer(&mut self, change: TimerChange) {
        self.state.timers.retain(|it| it.name != change.name as i32);
        if let Some(due_ms) = change.due_ms {
            self.state.timers.push(SetTimer { name: change.name as i32, due_ms });
        }
        self.changed = true;
    }

    /// The order view comes last, then the event is final: it gets its version and goes out.
    fn publish(&mut self, event: Event, input: OrderInput<'_>) -> Result<(), TaskError> {
        let now_ms = self.context.now_ms;
        let id = output_id("evt_", self.input_id, self.events);
        self.events += 1;
        self.changed = true;
        if let (Event::CreditIssued(_), OrderInput::Command(OrderCommandPayload::IssueCredit(credit))) =
            (&event, input)
        {
            self.state.credit = Some(CreditState {
                customer: credit.customer.clone(),
                currency: credit.currency.clone(),
                country: credit.country.clone(),
                lines: credit.lines.clone(),
                amount_minor: credit.lines.iter().filter_map(|it| it.amount_minor).sum(),
                returned_at_ms: credit.returned_at_ms,
                reason: credit.reason.clone(),
            });
        }
        let revenue_counted = revenue_counted(&self.state, &event);
        let begun = self.context.meter.begin();
        tillstream_order_view::apply(&mut self.state.view, &event, &id, now_ms);
        self.context.meter.end(StageName::OrderView, begun, Outcome::Applied);
        self.note_progress(&event);
        let contribution = fold::contribution(
            &event,
            &EventContext {
                tenant: &self.state.tenant,
                order: self.state.order.as_ref(),
                status: self.state.view.status,
                revenue_counted,
                trace: self.trace,
            },
        );
        self.context.folds.extend(contribution);
        let record = OrderEvent {
            id,
            tenant: self.state.tenant.clone(),
            order_id: self.state.order_id.clone(),
            version: self.state.view.version,
            at_ms: now_ms,
            command_id: self.input_id.into(),
            traceparent: self.traceparent.cloned(),
            status: self.state.view.status.as_str().into(),
            payload: event,
        };
        self.context.outputs.push(emit::event(record)?);
        Ok(())
    }

    fn note_progress(&mut self, event: &Event) {
        let to = match event {
            Event::OrderPriced(_) => "priced",
            Event::OrderReserved(_) => "reserved",
            Event::PaymentCaptured(it) if it.confirms => "paid",
            Event::PaymentAuthorized(it)
                if it.confirms() && self.state.view.status == OrderStatus::Confirmed =>
            {
                "paid"
            }
            Event::OrderCompleted(_) => "completed",
            _ => return,
        };
        self.context.meter.order_reached(to, self.state.accepted_at_ms);
    }

    fn close(self) -> Outcome {
        let key = key(&self.state.tenant, &self.state.order_id);
        for (name, was_due_ms, due_ms) in changed_timers(&self.timers_before, &self.state.timers) {
            let was_due_ms = was_due_ms.filter(|_| self.firing != Some(name));
            self.context.timers.push(KeyTimer { key: key.clone(), name, was_due_ms, due_ms });
        }
        if !self.changed {
            return Outcome::Ignored;
        }
        if self.is_new && self.state.credit.is_none() {
            let index = index_key(&self.state.tenant, self.state.accepted_at_ms, &self.state.order_id);
            self.context.changes.push((RowKey::new(Table::OrderIndex, index), Some(OrderRow::Index)));
        }
        self.context.changes.push((order_row(key), Some(OrderRow::Order(Arc::new(self.state)))));
        if self.refused { Outcome::Refused } else { Outcome::Applied }
    }
}

/// Asks the tenant's rules, and counts what that cost.
fn ask(context: &mut Context<'_>, state: &OrderState, call: &RuleCall) -> Option<Verdict> {
    let outcome = context.rules.call(&state.tenant, &state.order_id, call);
    for run in &outcome.runs {
        context.meter.rule(call.hook().stage(), run);
    }
    outcome.verdict
}

/// The key of an order in the index: newest first within its tenant.
fn index_key(tenant: &str, accepted_at_ms: i64, order_id: &str) -> Key {
    let mut rest = time::descending(accepted_at_ms);
    rest.push('/');
    rest.push_str(order_id);
    key(tenant, &rest)
}

fn outcome_of<S>(decision: &Decision<S>) -> Outcome {
    let refuses = |it: &Event| matches!(it, Event::CommandRefused(_) | Event::OrderRejected(_));
    if decision.events.iter().any(refuses) {
        Outcome::Refused
    } else if decision.state.is_none()
        && decision.events.is_empty()
        && decision.item_commands.is_empty()
        && decision.payment_requests.is_empty()
        && decision.timers.is_empty()
    {
        Outcome::Ignored
    } else {
        Outcome::Applied
    }
}

/// Whether an earlier event counted the order's revenue: a capture that found it alive.
///
/// The view forgets the middle of a very long timeline; then a confirmed order with captured money counts.
fn revenue_counted(state: &OrderState, event: &Event) -> bool {
    if !matches!(event, Event::PaymentCaptured(_) | Event::PaymentRefunded(_)) {
        return false;
    }
    let timeline = &state.view.timeline;
    let is_alive = |status| !matches!(status, OrderStatus::Cancelled | OrderStatus::Failed);
    if timeline.iter().any(|it| it.kind == "payment.captured" && is_alive(it.status)) {
        return true;
    }
    let forgot = state.view.version > timeline.len() as i64;
    let was_confirmed = || timeline.iter().any(|it| is_alive(it.status) && it.status != OrderStatus::Pending);
    forgot && matches!(event, Event::PaymentRefunded(_)) && was_confirmed()
}

fn changed_timers(before: &[SetTimer], after: &[SetTimer]) -> Vec<(TimerName, Option<i64>, Option<i64>)> {
    let due = |timers: &[SetTimer], name: TimerName| {
        timers.iter().find(|it| it.name == name as i32).map(|it| it.due_ms)
    };
    let names = [TimerName::HoldExpiry, TimerName::PaymentRetry];
    let changes = names.into_iter().map(|name| (name, due(before, name), due(after, name)));
    changes.filter(|(_, was, is)| was != is).collect()
}
