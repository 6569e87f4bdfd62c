//! The engine, as every process configures it: code compiled in one runs in another.

use crate::inspect::bounded;
use crate::limits::{MEMORY_BYTES_MAX, STACK_BYTES_MAX, TABLE_ELEMENTS_MAX};
use crate::run::{Ended, Session};
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use thiserror::Error;
use wasmtime::component::{Linker, WasmStr};
use wasmtime::{
    Config, Enabled, Engine, OperatorCost, OptLevel, PoolingAllocationConfig, StoreContextMut,
    VariableOperatorCost,
};

/// The one import a module of a tenant may have.
pub(crate) const LOG_INTERFACE: &str = "tillstream:rules/log@1.0.0";
/// What an engine of ours may call beside it.
const ENGINE_INTERFACE: &str = "tillstream:javascript/host@1.0.0";

/// Bytes of a slot's memory that stay mapped between calls: reset by copying, which spares a call its page faults.
const MEMORY_RESIDENT_BYTES: usize = 256 << 10;
/// The same of its tables.
const TABLE_RESIDENT_BYTES: usize = 16 << 10;
/// Addresses behind a slot's memory that trap.
const MEMORY_GUARD_BYTES: u64 = 1 << 20;
/// Core instances of one module: itself, and what joins it to its import.
const CORE_INSTANCES_MAX: u32 = 8;
/// Frames of a stack that a profile shows.
const TRACED_FRAMES_MAX: usize = 256;

/// Why there is no engine.
#[derive(Debug, Error)]
#[error("TS0921: the rule engine cannot be made: {0}")]
pub struct EngineError(pub(crate) String);

/// Where instances live.
#[derive(Clone, Copy, Debug)]
pub enum Pool {
    /// In slots made beforehand, for so many calls at a time.
    Slots(u32),
    /// Made when needed: for a process that compiles, or runs few calls.
    OnDemand,
    /// Made when needed, and what ends a call says where: for [`Module::profile`](crate::Module::profile).
    Traced,
}

/// Compiles and runs modules.
#[derive(Clone)]
pub struct RuleEngine {
    pub(crate) engine: Engine,
    pub(crate) linker: std::sync::Arc<Linker<Session>>,
}

impl RuleEngine {
    /// An engine.
    ///
    /// # Errors
    /// When the machine lacks what it needs, such as address space for its slots.
    pub fn new(pool: Pool) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError(format!("{error:#}"));
        let engine = Engine::new(&config(pool)).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        let mut log = linker.instance(LOG_INTERFACE).map_err(failed)?;
        log.func_wrap("line", |mut store: StoreContextMut<'_, Session>, (text,): (WasmStr,)| {
            crate::run::log_line(&mut store, &text)
        })
        .map_err(failed)?;
        let mut host = linker.instance(ENGINE_INTERFACE).map_err(failed)?;
        host.func_wrap(
            "threw",
            |store: StoreContextMut<'_, Session>, (text,): (WasmStr,)| -> wasmtime::Result<()> {
                Err(Ended::Threw(bounded(&text.to_str(&store)?)).into())
            },
        )
        .map_err(failed)?;
        host.func_wrap(
            "misfit",
            |store: StoreContextMut<'_, Session>, (text,): (WasmStr,)| -> wasmtime::Result<()> {
                Err(Ended::Misfit(bounded(&text.to_str(&store)?)).into())
            },
        )
        .map_err(failed)?;
        Ok(Self { engine, linker: std::sync::Arc::new(linker) })
    }

    /// Names everything that compiled code depends on beside its module: the library's version, the settings above and
    /// the processor. Code is used only under the name it was compiled under.
    pub fn version(&self) -> String {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

fn config(pool: Pool) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(costs())
        .max_wasm_stack(STACK_BYTES_MAX)
        // No more than a module may have: bounds are checked by code, which costs a small rule nothing that can be
        // measured, and 64 slots do not ask the system for 256 GiB of addresses.
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_may_move(false)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .wasm_simd(false)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_backtrace_max_frames(None);
    match pool {
        Pool::Slots(calls) => {
            config.allocation_strategy(slots(calls));
        }
        Pool::OnDemand => {}
        Pool::Traced => {
            config.wasm_backtrace_max_frames(NonZeroUsize::new(TRACED_FRAMES_MAX));
        }
    }
    config
}

/// One unit per instruction, but for those that leave the module's code for the host's, and those that a processor is slow
/// at: a loop over one of these would otherwise take many times as long as its fuel says. `make hostile-rules` shows what
/// each takes.
fn costs() -> OperatorCost {
    const GROW: u8 = u8::MAX;
    const BULK: u8 = 32;
    const SLOW: u8 = 8;
    OperatorCost {
        F32Div: SLOW,
        F32Sqrt: SLOW,
        F64Div: SLOW,
        F64Sqrt: SLOW,
        MemoryGrow: GROW,
        TableGrow: GROW,
        MemoryInit: BULK,
        MemoryCopy: BULK,
        MemoryFill: BULK,
        DataDrop: BULK,
        TableInit: BULK,
        TableCopy: BULK,
        TableFill: BULK,
        ElemDrop: BULK,
        variable: VariableOperatorCost { memory_grow_per_page: GROW, ..VariableOperatorCost::new() },
        ..OperatorCost::new()
    }
}

fn slots(calls: u32) -> PoolingAllocationConfig {
    let mut slots = PoolingAllocationConfig::new();
    slots
        .total_component_instances(calls)
        .total_core_instances(calls * CORE_INSTANCES_MAX)
        .total_memories(calls)
        .total_tables(calls * 4)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .max_tables_per_component(4)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_unused_warm_slots(calls)
        .linear_memory_keep_resident(MEMORY_RESIDENT_BYTES)
        .table_keep_resident(TABLE_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    slots
}

/// FNV-1a: the standard library's hasher may change from one release to the next.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
