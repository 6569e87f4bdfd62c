//! Fuzz targets: whatever reads bytes that somebody else wrote, as functions of bytes.
//!
//! A target fails by panicking. It states more than "does not panic": what is read, printed and read again is the same;
//! two readers agree; an error names what is wrong; memory and time stay within a bound ([`run`] checks those).
//!
//! - `tests/corpus.rs` runs every target over `corpus/<target>` and some mutations of it, in `make test`.
//! - `src/guided.rs` runs one target under libFuzzer: `make fuzz TARGET=… SECONDS=…`.
//!
//! A new target is a function in a module of its own, a line in [`TARGETS`], and a directory of first inputs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target fails by panicking with what it saw"
)]

pub mod mutate;

mod avro;
mod batch;
mod canonical;
mod cursors;
mod http;
mod import;
mod ledger;
mod ndjson;
mod rules;
mod store;
mod webhook;

use cap::Cap;
use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts what a run takes.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One target.
pub struct Target {
    /// Its name, and that of its directory in `corpus`.
    pub name: &'static str,
    /// What is read.
    pub reads: &'static str,
    /// Runs it once; panics when its oracle is violated.
    pub run: fn(&[u8]),
    /// How many mutations `make test` tries.
    pub short_runs: u32,
    /// How much memory one run may take beyond its input, bytes.
    pub memory_bytes_max: usize,
    /// How long one run may take.
    pub time_max: Duration,
}

const MIB: usize = 1 << 20;
const QUICK: Target = Target {
    name: "",
    reads: "",
    run: |_| {},
    short_runs: 4_000,
    memory_bytes_max: 64 * MIB,
    time_max: Duration::from_secs(30),
};

/// Every target.
pub const TARGETS: [Target; 16] = [
    Target { name: "avro", reads: "a record of any schema, behind its number", run: avro::datum, ..QUICK },
    Target {
        name: "wire",
        reads: "a value as it stands in the log, header and all",
        run: avro::wire,
        ..QUICK
    },
    Target {
        name: "wire_ids",
        reads: "schema ids of a registry, and values under them",
        run: avro::wire_ids,
        ..QUICK
    },
    Target { name: "order", reads: "the body of an order", run: http::order, ..QUICK },
    Target { name: "bulk_line", reads: "a line of a bulk body", run: http::bulk_line, ..QUICK },
    Target { name: "body", reads: "the body of any other call, behind its number", run: http::body, ..QUICK },
    Target { name: "ndjson", reads: "a bulk body in parts", run: ndjson::cut, short_runs: 100, ..QUICK },
    Target { name: "cursor", reads: "cursors of lists", run: cursors::cursor, ..QUICK },
    Target { name: "stream_cursor", reads: "cursors of streams", run: cursors::stream_cursor, ..QUICK },
    Target {
        name: "webhook",
        reads: "URLs, patterns, ids, secrets and bodies of webhooks",
        run: webhook::webhook,
        ..QUICK
    },
    Target { name: "moment", reads: "times in RFC 3339", run: cursors::moment, ..QUICK },
    Target { name: "import", reads: "a CSV file of order history", run: import::csv, ..QUICK },
    Target { name: "batch", reads: "a batch of records of the embedded log", run: batch::batch, ..QUICK },
    Target { name: "ledger", reads: "a row of the sandbox's ledger", run: ledger::row, ..QUICK },
    Target {
        name: "rules",
        reads: "values that cross the wall of a rule's sandbox, behind the number of a hook",
        run: rules::values,
        short_runs: 2_000,
        ..QUICK
    },
    Target {
        name: "store",
        reads: "damage to the files of the embedded store",
        run: store::damaged,
        short_runs: 60,
        memory_bytes_max: 512 * MIB,
        time_max: Duration::from_secs(120),
    },
];

impl Target {
    /// The target of that name.
    ///
    /// # Panics
    /// There is none.
    pub fn named(name: &str) -> &'static Self {
        let names: Vec<&str> = TARGETS.iter().map(|it| it.name).collect();
        TARGETS
            .iter()
            .find(|it| it.name == name)
            .unwrap_or_else(|| panic!("no target {name:?}, but {names:?}"))
    }

    /// Where its corpus is.
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }
}

/// Runs a target once and holds it to its bounds.
///
/// # Panics
/// Its oracle is violated, or it took more memory or time than it may.
#[allow(clippy::disallowed_methods, reason = "the bound on time is measured")]
pub fn run(target: &Target, input: &[u8]) {
    // One at a time: memory is counted for the whole process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, begun) =
        (ALLOCATOR.max_allocated().max(ALLOCATOR.allocated() + target.memory_bytes_max), Instant::now());
    (target.run)(input);
    let took = begun.elapsed();
    // The highest mark only ever rises: it rose past the bound in this run, or it did not.
    let highest = ALLOCATOR.max_allocated();
    assert!(highest <= before + input.len(), "{}: a run took {highest} bytes of memory", target.name);
    assert!(took <= target.time_max, "{}: a run took {took:?}", target.name);
}
