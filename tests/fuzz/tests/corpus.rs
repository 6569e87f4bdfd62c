//! Every target over its corpus, and over mutations of it that a seed decides.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tillstream_fuzz::mutate::mutate;
use tillstream_fuzz::{TARGETS, Target, run};
use tillstream_random::Random;

const INPUT_BYTES_MAX: usize = 4_096;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|it| it.parse().ok())
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries =
        std::fs::read_dir(target.corpus()).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let mut paths: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Keeps an input that fails where `make fuzz` keeps its own, and says how to run it again.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("target/fuzz/crashes");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{}-{:08x}", target.name, crc32fast::hash(input)));
    std::fs::write(&path, input).unwrap();
    path
}

fn must_hold(target: &Target, input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(target, input))) {
        let kept = keep(target, input);
        println!(
            "{}: {origin} fails. Again: make fuzz-replay TARGET={} INPUT={}",
            target.name,
            target.name,
            kept.display()
        );
        std::panic::resume_unwind(panic);
    }
}

/// The corpus whole, then `TILLSTREAM_FUZZ_RUNS` mutations of it, or as many as `TILLSTREAM_FUZZ_SECONDS` allow.
#[allow(clippy::disallowed_methods, reason = "a run that gates changes has a bound on time")]
fn check(name: &str) {
    let target = Target::named(name);
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{name} has no first input");
    for (path, input) in &corpus {
        must_hold(target, input, &path.display().to_string());
    }
    let seed = from_environment("SEED").unwrap_or(0x0f0_22ed);
    let runs = from_environment("TILLSTREAM_FUZZ_RUNS").unwrap_or(u64::from(target.short_runs));
    let limit = from_environment("TILLSTREAM_FUZZ_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let begun = Instant::now();
    let mut random = Random::new(seed);
    for n in 0..runs {
        if begun.elapsed() >= limit {
            println!("{name}: {n} of {runs} mutations in {limit:?}");
            break;
        }
        let (_, first) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mut input = first.clone();
        mutate(&mut random, &mut input, other, INPUT_BYTES_MAX);
        must_hold(target, &input, &format!("mutation {n} of seed {seed}"));
    }
}

macro_rules! targets {
    ($($name:ident),+) => {
        $(#[test] fn $name() { check(stringify!($name)); })+

        #[test]
        fn every_target_has_a_test_and_every_corpus_a_target() {
            let tests = BTreeSet::from([$(stringify!($name)),+]);
            let targets: BTreeSet<&str> = TARGETS.iter().map(|it| it.name).collect();
            assert_eq!(tests, targets);
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            let names = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.collect::<BTreeSet<_>>(), targets.iter().map(|it| (*it).to_owned()).collect());
        }
    };
}

targets!(
    avro,
    wire,
    wire_ids,
    order,
    bulk_line,
    body,
    ndjson,
    cursor,
    stream_cursor,
    webhook,
    moment,
    import,
    batch,
    ledger,
    rules,
    store
);

/// One input, again: `INPUT` names its file, `TARGET` the target.
#[test]
fn a_kept_input_holds() {
    let (Ok(name), Ok(path)) = (std::env::var("TARGET"), std::env::var("INPUT")) else { return };
    run(Target::named(&name), &std::fs::read(path).unwrap());
}
