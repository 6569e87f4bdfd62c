//! Starts an engine for rules once and keeps it as it stands then: a component whose every sandbox begins started.
//!
//! `cargo run -p tillstream-rule-engine --example javascript_engine -- CORE.wasm OUT.wasm`; `make js-engine` does it.
#![allow(clippy::print_stdout, reason = "a tool prints")]

use std::error::Error;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tillstream_rule_modules::encode;
use wasmtime::{Config, Engine, Instance, Linker, Module, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

/// The core module's function that starts the engine; it is gone in what is kept.
const START: &str = "start";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (core, out) =
        (arguments.next().ok_or("name the core module")?, arguments.next().ok_or("name the output")?);
    let core = std::fs::read(core)?;
    let mut wizer = Wizer::new();
    wizer.init_func(START);
    let (context, instrumented) = wizer.instrument(&core)?;
    let mut config = Config::new();
    config.cranelift_nan_canonicalization(true);
    let engine = Engine::new(&config)?;
    let module = Module::new(&engine, instrumented)?;
    let mut store = Store::new(&engine, ());
    let mut linker = Linker::new(&engine);
    // Whoever is called while the engine starts ends the start: what is kept depends on nothing but the module.
    linker.define_unknown_imports_as_traps(&module)?;
    let instance = linker.instantiate(&mut store, &module)?;
    instance.get_typed_func::<(), ()>(&mut store, START)?.call(&mut store, ())?;
    let mut started = Started { store, instance };
    let snapshot = pin!(wizer.snapshot(&context, &mut started)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(kept) = snapshot else { return Err("the snapshot waits for something".into()) };
    let component = encode(&kept?);
    std::fs::write(&out, &component)?;
    println!("{out}: {} bytes, {}", component.len(), tillstream_rule_engine::digest(&component));
    Ok(())
}

/// An engine that was started.
struct Started {
    store: Store<()>,
    instance: Instance,
}

impl InstanceState for Started {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        match self.instance.get_global(&mut self.store, name).map(|it| it.get(&mut self.store)) {
            Some(Val::I32(it)) => SnapshotVal::I32(it),
            Some(Val::I64(it)) => SnapshotVal::I64(it),
            Some(Val::F32(it)) => SnapshotVal::F32(it),
            Some(Val::F64(it)) => SnapshotVal::F64(it),
            // The trait leaves no other way to say so.
            #[allow(clippy::panic, reason = "a tool that cannot keep an engine ends")]
            other => panic!("the global {name} cannot be kept: {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        #[allow(clippy::panic, reason = "a tool that cannot keep an engine ends")]
        let Some(memory) = self.instance.get_memory(&mut self.store, name) else {
            panic!("no memory {name}")
        };
        contents(memory.data(&self.store));
    }
}
