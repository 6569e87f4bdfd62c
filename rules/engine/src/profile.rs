//! Where the fuel of a call goes, by stack.
//!
//! A call is the same every time, so it can be stopped at any unit of its fuel and asked where it stands. That is done at
//! evenly spread units, each in a fresh sandbox: samples by fuel, in which no clock and no chance has a part. The engine
//! looks at the fuel where a function or a round of a loop begins, so a sample falls on the first such place at or behind
//! its unit.

use crate::limits::Limits;
use crate::run::store;
use crate::{Module, Run};
use std::collections::BTreeMap;
use tillstream_stage::rule::RuleCall;
use wasmtime::WasmBacktrace;

/// Samples of one call, at most.
const SAMPLES_MAX: u64 = 1_000;
/// Samples of one call, at least; each unit of fuel is its own before.
const SAMPLES_MIN: u64 = 100;
/// Units of fuel spent on all samples, about: a long call is looked at less often.
const FUEL_ALL_MAX: u64 = 1_000_000_000;
/// What stands for the fuel behind the last place where the engine looks.
const END: &str = "(behind the last look)";

/// A stack of functions, outermost first, and the fuel that is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFuel {
    /// Names as the module keeps them, or the function's index where it keeps none.
    pub frames: Vec<String>,
    /// Units of fuel.
    pub fuel: u64,
}

impl Module {
    /// Runs a call, and says where its fuel went. The engine must be one of [`crate::Pool::Traced`].
    ///
    /// The fuel of all stacks together is the call's.
    pub fn profile(&self, order_id: &str, call: &RuleCall, settings: &str) -> (Run, Vec<StackFuel>) {
        let run = self.run(order_id, call, settings, u64::MAX);
        let limits = Limits::of(call.lines());
        let mut stacks: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        let count = samples(run.fuel);
        for index in 0..count {
            let (from, to) = part(run.fuel, index, count);
            let frames = self.frames_at(order_id, call, settings, &limits, from + (to - from) / 2);
            *stacks.entry(frames).or_default() += to - from;
        }
        (run, stacks.into_iter().map(|(frames, fuel)| StackFuel { frames, fuel }).collect())
    }

    /// The stack on which a call stands when so much fuel is used.
    fn frames_at(
        &self,
        order_id: &str,
        call: &RuleCall,
        settings: &str,
        limits: &Limits,
        fuel: u64,
    ) -> Vec<String> {
        let store = store(&self.engine.engine, limits, fuel);
        let ended = store.and_then(|mut store| self.ask(&mut store, order_id, call, settings).map(|_| ()));
        let error = match ended {
            Ok(()) => return vec![END.to_owned()],
            Err(error) => error,
        };
        let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
        if frames.is_empty() {
            return vec![END.to_owned()];
        }
        let name = |frame: &wasmtime::FrameInfo| {
            let index = || format!("function {}", frame.func_index());
            frame.func_name().map_or_else(index, str::to_owned)
        };
        frames.iter().rev().map(name).collect()
    }
}

/// How many samples a call of so much fuel gets.
fn samples(fuel: u64) -> u64 {
    // On average a sample runs half of the call.
    let most = FUEL_ALL_MAX / (fuel / 2).max(1);
    most.clamp(SAMPLES_MIN, SAMPLES_MAX).min(fuel)
}

/// The part of the fuel that a sample stands for: from, to.
fn part(fuel: u64, index: u64, count: u64) -> (u64, u64) {
    let at = |index: u64| (u128::from(fuel) * u128::from(index) / u128::from(count)) as u64;
    (at(index), at(index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_call_is_looked_at_less_often_and_a_tiny_one_once_per_unit() {
        assert_eq!(samples(0), 0);
        assert_eq!(samples(7), 7);
        assert_eq!(samples(20_000), 1_000);
        assert_eq!(samples(11_000_000), 181);
        assert_eq!(samples(u64::MAX), 100);
    }

    #[test]
    fn the_parts_of_the_samples_are_the_whole_fuel() {
        for fuel in [1, 99, 1_000, 12_345, 55_000_000] {
            let count = samples(fuel);
            let parts: Vec<_> = (0..count).map(|index| part(fuel, index, count)).collect();
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (0, fuel));
            assert!(parts.windows(2).all(|it| it[0].1 == it[1].0), "{fuel}");
        }
    }
}
