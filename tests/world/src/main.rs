//! `simulate`: searches seeds for a history that breaks what the pipeline promises.
#![allow(clippy::print_stdout, reason = "a command line program")]

use clap::Parser;
use parking_lot::Mutex;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tillstream_runtime::{Clock, SystemClock};
use tillstream_world::{Outcome, Plan, Size, run, shrink};

/// As in the binary itself: the system's takes a tenth of a history's time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One history in so many is run twice: its hash must be the same.
const HASH_EVERY: u64 = 100;
/// A history that takes so long goes on for ever: simulated time stands still in it.
const HISTORY_MAX: Duration = Duration::from_secs(120);
/// Progress is told so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Runs histories of the whole pipeline under faults, each decided by its seed.
#[derive(Parser)]
struct Options {
    /// How many seeds; until it is stopped, or a history fails, when absent.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone and tells everything that happens.
    #[arg(long)]
    replay: Option<u64>,
    /// With --replay: the history as its seed makes it, not a minimized one.
    #[arg(long)]
    whole: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Commands of a history, besides the first 30 that open the shops.
    #[arg(long, default_value_t = Size::default().commands)]
    commands: usize,
    /// Faults of a history, at least.
    #[arg(long, default_value_t = Size::default().faults_min)]
    faults: usize,
    /// Histories run to make a failing one shorter.
    #[arg(long, default_value_t = 300)]
    shrink: usize,
    /// Only tells the first seed that fails, and how.
    #[arg(long)]
    brief: bool,
}

#[derive(Default)]
struct Sums {
    histories: u64,
    commands: u64,
    planned: u64,
    records: u64,
    struck: [u64; 4],
    repairs: u64,
    hashed: u64,
    failed: Option<(u64, String)>,
}

impl Sums {
    fn add(&mut self, plan: &Plan, outcome: &Outcome) {
        self.histories += 1;
        self.commands += plan.commands() as u64;
        self.planned += plan.faults() as u64;
        self.records += outcome.records;
        self.repairs += outcome.repairs;
        self.struck.iter_mut().zip(outcome.struck).for_each(|(sum, it)| *sum += it);
    }

    fn tell(&self, seconds: f64) {
        let [broker, database, provider, processes] = self.struck;
        println!(
            "{} histories in {seconds:.1} s ({:.1}/s), {} commands ({:.0}/s), {} records, {} faults planned; struck: \
             broker {broker}, database {database}, provider {provider}, processes {processes}; {} repairs; {} run twice",
            self.histories,
            self.histories as f64 / seconds,
            self.commands,
            self.commands as f64 / seconds,
            self.records,
            self.planned,
            self.repairs,
            self.hashed
        );
    }
}

fn size(options: &Options) -> Size {
    Size { commands: options.commands, faults_min: options.faults, operators: true }
}

/// Runs one seed; what is wrong with it.
fn one(seed: u64, options: &Options, sums: &Mutex<Sums>) -> Option<String> {
    let plan = Plan::of(seed, size(options));
    let outcome = run(&plan, false);
    let again = seed.is_multiple_of(HASH_EVERY) && !options.brief;
    let mut violation = outcome.violation.clone();
    if again && violation.is_none() && run(&plan, false).hash != outcome.hash {
        violation = Some("the same seed gave another history".to_owned());
    }
    let mut sums = sums.lock();
    sums.add(&plan, &outcome);
    sums.hashed += u64::from(again);
    violation
}

fn search(options: &Options) -> ExitCode {
    let clock = SystemClock::new();
    let (next, stop) = (AtomicU64::new(options.from), AtomicBool::new(false));
    let until = options.seeds.map(|it| options.from + it);
    let sums = Mutex::new(Sums::default());
    let running: Vec<(AtomicU64, AtomicU64)> =
        (0..options.threads.max(1)).map(|_| Default::default()).collect();
    let work = |own: &(AtomicU64, AtomicU64)| {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if until.is_some_and(|it| seed >= it) {
                return;
            }
            own.0.store(seed, Ordering::Relaxed);
            own.1.store(clock.monotonic_ns(), Ordering::Relaxed);
            if let Some(violation) = one(seed, options, &sums) {
                stop.store(true, Ordering::Relaxed);
                let mut sums = sums.lock();
                if sums.failed.as_ref().is_none_or(|it| it.0 > seed) {
                    sums.failed = Some((seed, violation));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = running.iter().map(|own| scope.spawn(move || work(own))).collect();
        let mut told_ns = 0;
        while workers.iter().any(|it| !it.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let now_ns = clock.monotonic_ns();
            for ((seed, began_ns), _) in running.iter().zip(&workers).filter(|(_, it)| !it.is_finished()) {
                if now_ns.saturating_sub(began_ns.load(Ordering::Relaxed)) > HISTORY_MAX.as_nanos() as u64 {
                    let seed = seed.load(Ordering::Relaxed);
                    let number = if options.brief { seed - options.from + 1 } else { seed };
                    println!("{number}\tthe history of seed {seed} goes on for ever");
                    // Its thread cannot be stopped.
                    std::process::exit(1);
                }
            }
            if !options.brief && now_ns - told_ns > TELL_EVERY.as_nanos() as u64 {
                told_ns = now_ns;
                sums.lock().tell(now_ns as f64 / 1e9);
            }
        }
    });
    let sums = sums.into_inner();
    if !options.brief {
        sums.tell(clock.monotonic_ns() as f64 / 1e9);
    }
    match sums.failed {
        None => ExitCode::SUCCESS,
        Some((seed, violation)) if options.brief => {
            println!("{}\t{violation}", seed - options.from + 1);
            ExitCode::FAILURE
        }
        Some((seed, violation)) => {
            println!("seed {seed} fails: {violation}");
            minimize(seed, violation, options);
            ExitCode::FAILURE
        }
    }
}

fn minimize(seed: u64, violation: String, options: &Options) -> Plan {
    let plan = Plan::of(seed, size(options));
    let (short, violation) = shrink(&plan, violation, options.shrink, |it| run(it, false).violation);
    println!("the shortest history found fails so: {violation}");
    println!("{:?}", short.tuning);
    short.steps.iter().for_each(|it| println!("{it}"));
    println!("SEED={seed} make replay tells what happens in it");
    short
}

fn replay(seed: u64, options: &Options) -> ExitCode {
    let mut plan = Plan::of(seed, size(options));
    let outcome = run(&plan, false);
    if let Some(violation) = outcome.violation.filter(|_| !options.whole) {
        plan = minimize(seed, violation, options);
    }
    let outcome = run(&plan, true);
    outcome.trace.iter().for_each(|it| println!("{it}"));
    println!(
        "hash {:016x}, {} records, {} ms simulated",
        outcome.hash, outcome.records, outcome.simulated_ms
    );
    match outcome.violation {
        None => {
            println!("seed {seed} holds");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed} fails: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.replay {
        Some(seed) => replay(seed, &options),
        None => search(&options),
    }
}
