//! Modules that mean harm, made by hand and by chance: none of them harms the host, and no call goes past its budget.
//!
//! `TILLSTREAM_HOSTILE=10000` makes as many as you like (`make hostile-rules`), from `TILLSTREAM_SEED`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]
#![allow(clippy::disallowed_methods, reason = "a call's time is what is measured")]

mod support;

use std::time::{Duration, Instant};
use support::price_call;
use tillstream_random::Random;
use tillstream_rule_host::{ArtifactKey, Fault, Limits, Module, Pool, RuleEngine, Run};
use tillstream_rule_modules::{
    HARMS, Harm, WAITS, WASTES, WHOLE_BUDGET, Waste, harms_guests, off, price_rule,
};
use tokio::sync::Mutex;

const MODULES: usize = 60;
/// Bytes the process may have grown by at the end.
const GROWTH_BYTES_MAX: usize = 64 << 20;
/// Each way to spend a budget is timed so often, and the fastest counts: what else the machine does only adds.
const TIMES: usize = 5;

/// Memory is measured of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A number that is an edge more often than not.
fn number(chance: &mut Random) -> String {
    let edges = ["0", "1", "-1", "16", "64", "65536", "2147483647", "-2147483648", "524287", "1048576", "-8"];
    match chance.below(3) {
        0 => (chance.next_u64() as i32).to_string(),
        _ => chance.one_of(&edges).copied().unwrap_or_default().to_owned(),
    }
}

fn statement(chance: &mut Random, depth: u32) -> String {
    let (a, b, c) = (number(chance), number(chance), number(chance));
    let inner =
        |chance: &mut Random| if depth > 3 { "(nop)".to_owned() } else { statement(chance, depth + 1) };
    match chance.below(16) {
        0 => format!("(loop $l{depth} {} (br $l{depth}))", inner(chance)),
        1 => format!("(drop (memory.grow (i32.const {a})))"),
        2 => format!("(memory.fill (i32.const {a}) (i32.const {b}) (i32.const {c}))"),
        3 => format!("(memory.copy (i32.const {a}) (i32.const {b}) (i32.const {c}))"),
        4 => format!("(i32.store (i32.const {a}) (i32.const {b}))"),
        5 => format!("(i64.store (i32.const {a}) (i64.load (i32.const {b})))"),
        6 => "(drop (call $decide (local.get 0)))".to_owned(),
        7 => format!("(drop (i32.div_s (i32.const {a}) (i32.const {b})))"),
        8 => format!("(drop (i32.trunc_f64_s (f64.div (f64.const {a}) (f64.const {b}))))"),
        9 => format!("(if (i32.load (i32.const {a})) (then {}) (else {}))", inner(chance), inner(chance)),
        10 => "unreachable".to_owned(),
        11 => format!("(i32.store8 (i32.const 16) (i32.const {}))", chance.below(5)),
        12 => {
            format!("(i32.store (i32.const 20) (i32.const {a})) (i32.store (i32.const 24) (i32.const {b}))")
        }
        13 => {
            format!("(loop $g{depth} (br_if $g{depth} (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))")
        }
        14 => format!("(global.set $next (i32.const {a}))"),
        _ => format!("(f32.store (i32.const 8) (f32.sqrt (f32.const {a}))) {}", inner(chance)),
    }
}

fn random_module(chance: &mut Random) -> Vec<u8> {
    let body: Vec<String> = (0..=chance.below(6)).map(|_| statement(chance, 0)).collect();
    let answer = if chance.below(3) == 0 { number(chance) } else { "16".to_owned() };
    let mut module = price_rule("", &format!("{} (i32.const {answer})", body.join(" ")));
    // Some are torn and bent on top.
    if chance.below(4) == 0 {
        for _ in 0..=chance.below(8) {
            let at = chance.below(module.len());
            module[at] = chance.next_u64() as u8;
        }
    }
    module
}

fn load(engine: &RuleEngine, bytes: &[u8]) -> Option<Module> {
    let key = ArtifactKey::new([3; 32]);
    let code = engine.compile(bytes).ok()?;
    key.open(engine, "hostile", &key.seal(engine, "hostile", &code)).ok()
}

/// How long this thread has waited for a processor so far (the second figure of `schedstat`; none where the kernel does not
/// count it).
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_default())
}

/// A call with its time, less what it waited for a processor.
fn timed(module: &Module) -> (Run, Duration) {
    let call = price_call();
    let (waited_before, begun) = (waited(), Instant::now());
    let run = module.run("ord_1", &call, "{}", u64::MAX);
    let took = begun.elapsed();
    (run, took.saturating_sub(waited() - waited_before))
}

/// The fastest of some calls.
fn fastest(module: &Module) -> (Run, Duration) {
    (0..TIMES).map(|_| timed(module)).min_by_key(|it| it.1).unwrap()
}

/// How long it takes to spend all fuel in this way.
fn spent(engine: &RuleEngine, (name, declarations, body): Waste) -> Duration {
    let (run, took) = fastest(&load(engine, &price_rule(declarations, body)).unwrap());
    assert_eq!(run.result, Err(Fault::Fuel(Limits::of(1).fuel)), "{name}");
    println!("{took:>12.1?}  {name}");
    took
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn no_hostile_module_harms_the_host_or_goes_past_twice_its_budget() {
    let _alone = ALONE.blocking_lock();
    let count = std::env::var("TILLSTREAM_HOSTILE").map_or(MODULES, |it| it.parse().unwrap());
    let seed = std::env::var("TILLSTREAM_SEED").map_or(20_261_130, |it| it.parse().unwrap());
    let engine = RuleEngine::new(Pool::Slots(2)).unwrap();
    let honest = load(&engine, &off(5)).unwrap();
    let expected = timed(&honest).0;
    let budget = spent(&engine, WHOLE_BUDGET);
    let mut chance = Random::new(seed);
    let (mut ran, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    let mut before = resident_bytes();
    for index in 0..count {
        let Some(module) = load(&engine, &random_module(&mut chance)) else {
            refused += 1;
            continue;
        };
        ran += 1;
        let (run, mut took) = timed(&module);
        if took > budget {
            took = fastest(&module).1;
        }
        assert!(run.fuel <= Limits::of(1).fuel, "module {index} of {seed}: {run:?}");
        assert!(run.log.len() <= Limits::of(1).log_bytes && run.memory_bytes <= Limits::of(1).memory_bytes);
        assert!(took <= 2 * budget, "module {index} of {seed}: {took:?}, a budget is {budget:?}");
        slowest = slowest.max(took);
        if index % 50 == 0 {
            assert_eq!(timed(&honest).0, expected, "an honest rule answers as before");
        }
        if index == 20 {
            // By now every slot and the compiler's own memory are warm.
            before = resident_bytes();
        }
    }
    drop(honest);
    let growth = resident_bytes().saturating_sub(before);
    println!(
        "{ran} ran, {refused} refused; budget {budget:?}, slowest {slowest:?}; grown by {} KiB",
        growth >> 10
    );
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes");
    assert!(ran > count / 4, "{ran} of {count} ran: the rest proves nothing");
}

#[test]
fn no_way_to_spend_fuel_takes_twice_as_long_as_all_memory_and_all_fuel() {
    let _alone = ALONE.blocking_lock();
    let engine = RuleEngine::new(Pool::Slots(2)).unwrap();
    let budget = spent(&engine, WHOLE_BUDGET);
    for waste in WASTES {
        let took = spent(&engine, waste);
        assert!(took <= 2 * budget, "{}: {took:?}, a budget is {budget:?}", waste.0);
    }
    // Fuel cannot tell a load that waits from one that does not: told, and bounded by the fuel alone. A tenant's share
    // counts the time.
    for waits in WAITS {
        spent(&engine, waits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_made_to_keep_the_compiler_busy_is_compiled_elsewhere_and_ended() {
    let _alone = ALONE.lock().await;
    let dir = support::dir();
    let world = support::World::start(dir.path()).await;
    // 3,000 nested blocks, and a function that is one long chain.
    let deep = format!("{}{}", "(block ".repeat(3_000), ")".repeat(3_000));
    let wide = (0..20_000).map(|it| format!("(local.set $x (i32.add (local.get $x) (i32.const {it})))"));
    let wide = format!("(local $x i32) {} (i32.const 16)", wide.collect::<String>());
    let before = resident_bytes();
    for body in [format!("{deep} (i32.const 16)"), wide] {
        let begun = Instant::now();
        // Taken or refused: both are an answer, and the station goes on.
        let _ = world.upload("demo", "bomb", &price_rule("", &body)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
    assert!(resident_bytes().saturating_sub(before) <= GROWTH_BYTES_MAX);
    assert_eq!(world.taken("demo", "good", &off(1)).await, 1);
    world.stop().await;
}

#[test]
fn every_harm_ends_as_its_own_outcome_and_leaves_nothing_to_the_next_call() {
    let _alone = ALONE.blocking_lock();
    let engine = RuleEngine::new(Pool::Slots(1)).unwrap();
    for Harm { name, declarations, body, outcome } in HARMS {
        let module = load(&engine, &harms_guests(declarations, body)).unwrap();
        for _ in 0..3 {
            let (run, _) = timed(&module);
            assert_eq!(run.result.unwrap_err().outcome(), outcome, "{name}");
            assert!(run.fuel <= Limits::of(1).fuel && run.memory_bytes <= Limits::of(1).memory_bytes);
        }
        let honest = timed(&load(&engine, &off(5)).unwrap()).0;
        assert!(honest.result.is_ok(), "after {name}: {honest:?}");
    }
}

#[test]
fn a_fault_says_which_limit_it_was() {
    let _alone = ALONE.blocking_lock();
    let engine = RuleEngine::new(Pool::Slots(2)).unwrap();
    let module = load(&engine, &price_rule("", "(loop $l (br $l)) unreachable")).unwrap();
    assert_eq!(timed(&module).0.result, Err(Fault::Fuel(11_000_000)));
}
