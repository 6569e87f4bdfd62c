//! One call in a sandbox of its own.

use crate::answer::{self, Said};
use crate::bindings::exports::tillstream::rules as hooks;
use crate::inspect::{bounded, short};
use crate::limits::{LOG_BYTES_TAKEN_MAX, LOG_LINE_FUEL, Limits};
use crate::{Module, request};
use thiserror::Error;
use tillstream_stage::rule::{RuleAnswer, RuleCall, TEXT_CHARS_MAX, fit};
use wasmtime::component::WasmStr;
use wasmtime::{Engine, ResourceLimiter, Store, StoreContextMut, Trap};

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It ended itself, or did what a sandbox forbids.
    #[error("it trapped: {0}")]
    Trap(String),
    /// Fuel.
    #[error("it used up its {0} units of fuel")]
    Fuel(u64),
    /// Memory.
    #[error("it asked for more than {0} bytes of memory")]
    Memory(usize),
    /// Stack.
    #[error("it called itself too deeply")]
    Stack,
    /// The input.
    #[error("the input has {found} bytes, a call takes {most}")]
    Input {
        /// Its size.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The output, or what went to the log.
    #[error("it handed out more bytes than a call may: {0}")]
    Output(String),
    /// The answer does not fit its question.
    #[error("its answer does not fit: {0}")]
    Invalid(String),
    /// The sandbox.
    #[error("there is no room for it now: {0}")]
    Unavailable(String),
}

impl Fault {
    /// One of [`tillstream_stage::rule::RULE_OUTCOMES`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Fuel(_) => "fuel",
            Self::Memory(_) => "memory",
            Self::Stack => "stack",
            Self::Input { .. } => "input",
            Self::Output(_) => "output",
            Self::Invalid(_) => "invalid",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// What became of a call, and what it used.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The answer, checked against the question; and why somebody is to look at the order.
    pub result: Result<(RuleAnswer, Option<String>), Fault>,
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of linear memory at its end.
    pub memory_bytes: usize,
    /// Bytes of the input.
    pub input_bytes: usize,
    /// Bytes of the output.
    pub output_bytes: usize,
    /// What it logged, cut at the limit.
    pub log: String,
}

/// How an engine of ours ended a call.
#[derive(Debug, Error)]
pub(crate) enum Ended {
    /// The rule threw, or could not be taken in.
    #[error("{0}")]
    Threw(String),
    /// What the rule answered is no answer of its hook.
    #[error("{0}")]
    Misfit(String),
}

/// What a sandbox knows while it lives.
#[derive(Debug)]
pub(crate) struct Session {
    log: String,
    log_bytes: usize,
    memory_bytes_max: usize,
    memory_bytes: usize,
    denied: bool,
}

impl ResourceLimiter for Session {
    fn memory_growing(&mut self, _now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = wanted <= self.memory_bytes_max;
        self.denied |= !allowed;
        if allowed {
            self.memory_bytes = self.memory_bytes.max(wanted);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = wanted <= crate::limits::TABLE_ELEMENTS_MAX;
        self.denied |= !allowed;
        Ok(allowed)
    }
}

/// A store for one call.
pub(crate) fn store(engine: &Engine, limits: &Limits, fuel: u64) -> wasmtime::Result<Store<Session>> {
    let session = Session {
        log: String::new(),
        log_bytes: limits.log_bytes,
        memory_bytes_max: limits.memory_bytes,
        memory_bytes: 0,
        denied: false,
    };
    let mut store = Store::new(engine, session);
    store.limiter(|session| session);
    store.set_fuel(fuel)?;
    // One measure for all that comes out of the sandbox: its answer may take more room in the module's memory than
    // the bytes we count, its log may not take more than this.
    store.set_hostcall_fuel(LOG_BYTES_TAKEN_MAX.max(8 * limits.output_bytes));
    Ok(store)
}

/// The bounded log. Reading a line costs fuel, so that a module pays for what it makes the host do.
pub(crate) fn log_line(store: &mut StoreContextMut<'_, Session>, text: &WasmStr) -> wasmtime::Result<()> {
    let line = text.to_str(&*store)?.into_owned();
    let cost = LOG_LINE_FUEL + line.len() as u64;
    let fuel = store.get_fuel()?;
    store.set_fuel(fuel.saturating_sub(cost))?;
    if fuel < cost {
        return Err(Trap::OutOfFuel.into());
    }
    let session = store.data_mut();
    let left = session.log_bytes.saturating_sub(session.log.len());
    let end = (0..=left.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    session.log.push_str(&line[..end]);
    if session.log.len() < session.log_bytes {
        session.log.push('\n');
    }
    Ok(())
}

impl Module {
    /// Calls the module in a fresh sandbox. `fuel_max` bounds the fuel below the limit of the call's size.
    pub fn run(&self, order_id: &str, call: &RuleCall, settings: &str, fuel_max: u64) -> Run {
        let limits = Limits::of(call.lines());
        let input_bytes = request::size(call, order_id, settings);
        let mut run = Run {
            result: Err(Fault::Input { found: input_bytes, most: limits.input_bytes }),
            fuel: 0,
            memory_bytes: 0,
            input_bytes,
            output_bytes: 0,
            log: String::new(),
        };
        if input_bytes > limits.input_bytes {
            return run;
        }
        let fuel = limits.fuel.min(fuel_max);
        let mut store = match store(&self.engine.engine, &limits, fuel) {
            Ok(store) => store,
            Err(error) => {
                run.result = Err(Fault::Unavailable(short(&error)));
                return run;
            }
        };
        let said = self.ask(&mut store, order_id, call, settings);
        run.fuel = fuel - store.get_fuel().unwrap_or(0);
        let session = store.into_data();
        run.memory_bytes = session.memory_bytes;
        run.result = match said {
            Ok(said) => {
                run.output_bytes = said.bytes;
                judge(said, call, &limits)
            }
            Err(error) => Err(fault(&error, session.denied, fuel, &limits)),
        };
        run.log = session.log;
        run
    }

    pub(crate) fn ask(
        &self,
        store: &mut Store<Session>,
        order_id: &str,
        call: &RuleCall,
        settings: &str,
    ) -> wasmtime::Result<Said> {
        let parted = request::Parted::new(&call.order().metadata);
        let order = parted.order(order_id, call.order(), settings);
        let instance = self.pre.instantiate(&mut *store)?;
        if let Some(source) = &self.source {
            source.load(store, &instance)?.map_err(|it| Ended::Threw(bounded(&it)))?;
        }
        macro_rules! hook {
            ($field:ident, $request:expr) => {{
                let indices = self.exports.$field.as_ref();
                let indices = indices.ok_or_else(|| wasmtime::Error::msg("the module has no such hook"))?;
                indices.load(&mut *store, &instance)?.call_decide(&mut *store, $request)?
            }};
        }
        Ok(match call {
            RuleCall::Price(input) => {
                let rates = request::rates(input);
                let lines = &request::price_lines(input, &rates);
                answer::price(hook!(price, hooks::price::Request { order, lines }), lines.len())
            }
            RuleCall::Allocate(input) => {
                let lines = &request::allocate_lines(input);
                answer::allocate(hook!(allocate, hooks::allocate::Request { order, lines }), lines.len())
            }
            RuleCall::Risk(input) => answer::risk(hook!(
                risk,
                hooks::risk::Request {
                    order,
                    total: input.total_minor,
                    units: input.units,
                    lines: input.lines,
                    payment_method: &input.method,
                }
            )),
            RuleCall::Ship(input) => {
                let held = request::held(input);
                let lines = &request::ship_lines(input, &held);
                let carrier = input.carrier.as_deref();
                answer::ship(hook!(ship, hooks::ship::Request { order, lines, carrier }))
            }
            RuleCall::Measure(input) => {
                let lines = &request::measure_lines(input);
                answer::measure(hook!(
                    measure,
                    hooks::measure::Request { order, total: input.total_minor, lines }
                ))
            }
        })
    }
}

/// Whether what was said may stand.
fn judge(said: Said, call: &RuleCall, limits: &Limits) -> Result<(RuleAnswer, Option<String>), Fault> {
    if said.bytes > limits.output_bytes {
        let text = format!("its answer has {} bytes, at most {} are taken", said.bytes, limits.output_bytes);
        return Err(Fault::Output(text));
    }
    let answer = said.answer.map_err(|misfit| Fault::Invalid(misfit.to_string()))?;
    fit(call, &answer).map_err(|misfit| Fault::Invalid(misfit.to_string()))?;
    if said.review.as_ref().is_some_and(|it| it.chars().count() > TEXT_CHARS_MAX) {
        return Err(Fault::Invalid(format!("review: at most {TEXT_CHARS_MAX} characters")));
    }
    Ok((answer, said.review))
}

fn fault(error: &wasmtime::Error, denied: bool, fuel: u64, limits: &Limits) -> Fault {
    match error.downcast_ref::<Ended>() {
        Some(Ended::Threw(_)) if denied => return Fault::Memory(limits.memory_bytes),
        Some(Ended::Threw(text)) => return Fault::Trap(text.clone()),
        Some(Ended::Misfit(text)) => return Fault::Invalid(text.clone()),
        None => {}
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Fuel(fuel),
        Some(Trap::StackOverflow) => Fault::Stack,
        // A module that was denied memory has no choice but to end itself.
        Some(_) if denied => Fault::Memory(limits.memory_bytes),
        Some(trap) => Fault::Trap(trap.to_string()),
        None => {
            let text = short(error);
            if text.contains("fuel allocated for hostcalls") {
                Fault::Output(text)
            } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
                Fault::Unavailable(text)
            } else {
                Fault::Trap(text)
            }
        }
    }
}
