//! A loaded module: checked once, instantiated for every call.

use crate::RuleEngine;
use crate::bindings::exports::tillstream::rules;
use crate::inspect::{Refusal, short};
use crate::limits::{Limits, START_FUEL};
use crate::run::{Session, store};
use crate::source::CompiledSource;
use tillstream_stage::rule::{Hook, Hooks};
use wasmtime::component::{Component, Instance, InstancePre};

/// The exports of a module, found once.
#[derive(Clone, Default)]
pub(crate) struct Exports {
    pub price: Option<rules::price::GuestIndices>,
    pub allocate: Option<rules::allocate::GuestIndices>,
    pub risk: Option<rules::risk::GuestIndices>,
    pub ship: Option<rules::ship::GuestIndices>,
    pub measure: Option<rules::measure::GuestIndices>,
}

/// A module that may be called. Holds nothing of any call.
#[derive(Clone)]
pub struct Module {
    pub(crate) engine: RuleEngine,
    pub(crate) pre: InstancePre<Session>,
    pub(crate) exports: Exports,
    pub(crate) hooks: Hooks,
    /// What its engine takes in before it is asked. `None` when the module is the rule itself.
    pub(crate) source: Option<CompiledSource>,
}

impl Module {
    /// Finds the hooks, and starts the module once: what cannot be started, or has a hook of another shape, is refused
    /// here and not at its first order.
    pub(crate) fn new(engine: &RuleEngine, component: &Component) -> Result<Self, Refusal> {
        let start = |error: wasmtime::Error| Refusal::Start(short(&error));
        let pre = engine.linker.instantiate_pre(component).map_err(start)?;
        let exports = find(&pre)?;
        let hooks = exports.hooks();
        if hooks == Hooks::NONE {
            return Err(Refusal::NoHook);
        }
        let mut store = store(&engine.engine, &Limits::of(0), START_FUEL).map_err(start)?;
        let instance = pre.instantiate(&mut store).map_err(start)?;
        exports.check(&mut store, &instance)?;
        Ok(Self { engine: engine.clone(), pre, exports, hooks, source: None })
    }

    /// The hooks it implements.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }
}

fn find(pre: &InstancePre<Session>) -> Result<Exports, Refusal> {
    let has = |hook: Hook| pre.component().get_export_index(None, interface(hook)).is_some();
    let wrong =
        |hook: Hook| move |error: wasmtime::Error| Refusal::Hook { hook: hook.as_str(), why: short(&error) };
    macro_rules! find {
        ($hook:expr, $module:ident) => {
            match has($hook) {
                true => Some(rules::$module::GuestIndices::new(pre).map_err(wrong($hook))?),
                false => None,
            }
        };
    }
    Ok(Exports {
        price: find!(Hook::Price, price),
        allocate: find!(Hook::Allocate, allocate),
        risk: find!(Hook::Risk, risk),
        ship: find!(Hook::Ship, ship),
        measure: find!(Hook::Measure, measure),
    })
}

/// The interface that exports a hook.
pub(crate) fn interface(hook: Hook) -> String {
    format!("tillstream:rules/{}@1.0.0", hook.as_str())
}

impl Exports {
    fn hooks(&self) -> Hooks {
        let found = [
            (Hook::Price, self.price.is_some()),
            (Hook::Allocate, self.allocate.is_some()),
            (Hook::Risk, self.risk.is_some()),
            (Hook::Ship, self.ship.is_some()),
            (Hook::Measure, self.measure.is_some()),
        ];
        found.into_iter().filter(|it| it.1).map(|it| it.0).collect()
    }

    /// Whether every hook has the types of the world.
    fn check(&self, store: &mut wasmtime::Store<Session>, instance: &Instance) -> Result<(), Refusal> {
        macro_rules! check {
            ($($field:ident),*) => {$(
                if let Some(it) = &self.$field {
                    it.load(&mut *store, instance)
                        .map_err(|error| Refusal::Hook { hook: stringify!($field), why: short(&error) })?;
                }
            )*};
        }
        check!(price, allocate, risk, ship, measure);
        Ok(())
    }
}
