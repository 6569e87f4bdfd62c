//! An author's afternoon, on the real command line: a new project is built, tested, tried and looked into.
//!
//! Needs the target wasm32-unknown-unknown, as `make setup` brings it, and the packages that the examples are built from.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::thread::JoinHandle;

/// What the binary said.
struct Said {
    good: bool,
    text: String,
}

fn tillstream(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_tillstream"))
        .args(arguments)
        .current_dir(folder)
        // One build of the SDK for every project of these tests.
        .env("CARGO_TARGET_DIR", target())
        // One compiled engine, from one run of them to the next.
        .env("TILLSTREAM_CACHE_DIR", cache())
        // As on an author's machine: flags for its own programs.
        .env("RUSTFLAGS", "-C debuginfo=1")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Said { good: output.status.success(), text }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring")
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines")
}

/// Has the engine compiled, so that tests that run at a time do not each do so.
fn with_engine() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pass.js"), "export const price = () => 'pass';").unwrap();
        let said = tillstream(folder.path(), &["rules", "validate", "pass.js"]);
        assert!(said.good && said.text.contains("good: price"), "{}", said.text);
    });
}

fn project(folder: &Path, name: &str, example: &str) -> PathBuf {
    let said = tillstream(folder, &["rules", "new", name, "--lang", "rust", "--from", example]);
    assert!(said.good, "{}", said.text);
    folder.join(name)
}

#[test]
fn a_new_project_builds_tests_and_names_no_folder_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "tens-off", "volume-discount");
    let said = tillstream(&project, &["rules", "test"]);
    assert!(said.good && said.text.contains("3 fixtures\n"), "{}", said.text);
    let module = target().join("tens-off.wasm");
    let said = tillstream(&project, &["rules", "validate", module.to_str().unwrap()]);
    assert!(said.good && said.text.contains("good: price"), "{}", said.text);

    let text = String::from_utf8_lossy(&std::fs::read(&module).unwrap()).into_owned();
    assert!(text.contains("serde-json-core-0.6.0/src"), "the module keeps where it may panic, by package");
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME")).unwrap();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(sysroot.stdout).unwrap();
    let canonical = project.canonicalize().unwrap();
    let folders = [
        project.to_str().unwrap(),
        canonical.to_str().unwrap(),
        target().to_str().unwrap(),
        &home,
        sysroot.trim(),
    ]
    .map(str::to_owned);
    for it in folders {
        assert!(!text.contains(&it), "the module has {it} in it");
    }
}

#[test]
fn a_new_project_passes_its_own_tests_on_the_authors_machine() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "nearest", "nearest-first");
    let cargo =
        Command::new("cargo").args(["test"]).current_dir(&project).env("CARGO_TARGET_DIR", target()).output();
    let output = cargo.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let erred = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("4 passed"), "{said}{erred}");
    assert!(!erred.contains("warning"), "{erred}");
}

#[test]
fn a_rule_that_changes_its_answer_fails_its_fixtures_until_they_are_kept_anew() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "fifth-off", "volume-discount");
    let source = project.join("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("rate_bp: 1_000", "rate_bp: 2_000")).unwrap();
    let said = tillstream(&project, &["rules", "test"]);
    assert!(!said.good, "{}", said.text);
    assert!(
        said.text.contains("DIFFERS  many-of-one") && said.text.contains("ok       one-of-each"),
        "{}",
        said.text
    );
    let changed: Vec<_> =
        said.text.lines().filter(|it| it.starts_with("  - ") || it.starts_with("  + ")).collect();
    assert_eq!(changed.len(), 2, "{}", said.text);
    assert!(changed[1].contains("\"discount_minor\": 814"), "a fifth of 12 × 339: {}", said.text);

    let input = project.join("fixtures/one-of-each.json");
    std::fs::copy(&input, project.join("fixtures/another.json")).unwrap();
    let said = tillstream(&project, &["rules", "test"]);
    assert!(!said.good && said.text.contains("NEW      another"), "{}", said.text);
    let said = tillstream(&project, &["rules", "test", "--update"]);
    assert!(said.good, "{}", said.text);
    assert!(tillstream(&project, &["rules", "test"]).good);
}

#[test]
fn a_call_shows_its_answer_log_and_limits_and_a_profile_says_where_its_fuel_went() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "score", "fraud-score");
    let module = project.join("score.wasm");
    let module = module.to_str().unwrap();
    let said = tillstream(&project, &["rules", "build", "--names", "--out", module]);
    assert!(said.good, "{}", said.text);
    let input = "fixtures/hurried-from-abroad.json";
    let said = tillstream(&project, &["rules", "run", module, "--input", input, "--profile", "fuel.folded"]);
    assert!(said.good, "{}", said.text);
    assert!(said.text.contains("\"review\": \"50 points: "), "{}", said.text);
    assert!(said.text.contains("\"50 points: three orders within an hour"), "the log: {}", said.text);
    let used = |name: &str| -> u64 {
        let line = said.text.lines().find(|it| it.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(used("memory") > 0 && used("log") > 0 && used("output") > 0);

    let profile = std::fs::read_to_string(project.join("fuel.folded")).unwrap();
    let stacks = profile.lines().map(|it| it.rsplit_once(' ').unwrap());
    let stacks: Vec<(&str, u64)> = stacks.map(|it| (it.0, it.1.parse().unwrap())).collect();
    assert_eq!(stacks.iter().map(|it| it.1).sum::<u64>(), used("fuel"), "all of it and no more:\n{profile}");
    assert!(stacks.iter().any(|it| it.0.contains("decide;")), "{profile}");
    let again =
        tillstream(&project, &["rules", "run", module, "--input", input, "--profile", "again.folded"]);
    assert!(again.good);
    assert_eq!(
        std::fs::read_to_string(project.join("again.folded")).unwrap(),
        profile,
        "no chance has a part"
    );

    let said = tillstream(
        &project,
        &["rules", "run", module, "--input", input, "--settings", r#"{"review_from":99}"#],
    );
    assert!(said.text.contains("\"approve\""), "settings of the command line count: {}", said.text);
}

/// Answers one request with this JSON; what was asked comes back.
fn answers_once(body: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let mut stream = reader.into_inner();
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .unwrap();
        let _ = stream.read(&mut [0; 1]);
        head
    });
    (url, served)
}

#[test]
fn a_call_that_the_pipeline_kept_is_run_here_and_held_against_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "replayed", "volume-discount");
    let module = project.join("replayed.wasm");
    let module = module.to_str().unwrap();
    let said = tillstream(&project, &["rules", "build", "--out", module]);
    assert!(said.good, "{}", said.text);
    let page = |off: i64| {
        format!(
            r#"{{"data":[{{"order_id":"ord_7","version":"4","digest":"d","hook":"price","masked":["order.customer"],"review":null,"settings":{{"from_quantity":5}},
            "input":{{"hook":"price","order":{{"currency":"GBP","country":"GB"}},
              "lines":[{{"sku":"71053","quantity":5,"unit_price_minor":339}}]}},
            "outcome":"answered","answer":{{"adjust":[{{"discount_minor":{off},"tax_rate_bp":null}}]}}}}],"next_cursor":null}}"#
        )
    };
    let replay = |body: String, more: &[&str]| {
        let (url, served) = answers_once(body);
        let arguments =
            ["rules", "replay", "discount", module, "--order", "ord_7", "--url", &url, "--api-key", "till_x"];
        let said = tillstream(&project, &[&arguments, more].concat());
        (said, served.join().unwrap())
    };
    let (said, asked) = replay(page(170), &["--save", "fixtures/ord-7.json"]);
    assert!(said.good && said.text.contains("as version 4 said then"), "{}", said.text);
    assert!(said.text.contains("masked in the input: order.customer;"), "{}", said.text);
    assert!(asked.starts_with("GET /v1/rules/discount/samples?order=ord_7 "), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: bearer till_x"), "{asked}");
    let said = tillstream(&project, &["rules", "run", module, "--input", "fixtures/ord-7.json"]);
    assert!(said.good && said.text.contains("170"), "the saved input has its settings: {}", said.text);

    let (said, _) = replay(page(169), &[]);
    assert!(!said.good && said.text.contains("version 4 said then"), "{}", said.text);
    let (said, _) = replay(page(170), &["--hook", "ship"]);
    assert!(!said.good && said.text.contains("TS0944"), "a call of another hook is none: {}", said.text);
    let (said, _) = replay(r#"{"data":[],"next_cursor":null}"#.to_owned(), &[]);
    assert!(!said.good && said.text.contains("TS0944"), "{}", said.text);
}

#[test]
fn a_new_project_in_javascript_is_tested_looked_into_and_packed_with_its_schema() {
    with_engine();
    let folder = tempfile::tempdir().unwrap();
    let said = tillstream(folder.path(), &["rules", "new", "tens-off", "--lang", "javascript"]);
    assert!(said.good, "{}", said.text);
    let project = folder.path().join("tens-off");
    let said = tillstream(&project, &["rules", "test"]);
    assert!(said.good && said.text.contains("3 fixtures\n"), "{}", said.text);
    let input = "fixtures/many-of-one.json";
    let said = tillstream(&project, &["rules", "run", "target/tens-off.js", "--input", input]);
    assert!(said.good && said.text.contains("\"discount_minor\": 407"), "{}", said.text);
    let said =
        tillstream(&project, &["rules", "run", "target/tens-off.js", "--input", input, "--profile", "fuel"]);
    assert!(!said.good && said.text.contains("TS0948"), "{}", said.text);

    let source = project.join("index.js");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("rate_bp = 1_000", "rate_bp = 2_000")).unwrap();
    let said = tillstream(&project, &["rules", "test"]);
    assert!(!said.good && said.text.contains("DIFFERS  many-of-one"), "{}", said.text);
    std::fs::write(project.join("settings.schema.json"), "{\n  \"type\": \"object\"\n}\n").unwrap();
    std::fs::write(&source, text.replace("export function price(", "export function price((")).unwrap();
    let said = tillstream(&project, &["rules", "build"]);
    assert!(!said.good && said.text.contains("TS0933") && said.text.contains("index.js:10"), "{}", said.text);
    let packed = std::fs::read_to_string(project.join("target/tens-off.js")).unwrap();
    let first: Vec<_> = packed.lines().take(2).collect();
    let schema = "// tillstream:settings-schema {   \"type\": \"object\" }";
    assert_eq!(first, ["// tillstream:rule javascript-1", schema]);
}

#[test]
fn the_example_in_javascript_answers_as_its_twin_in_rust() {
    with_engine();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["rules", "new", "carrier", "--lang", "javascript", "--from", "carrier-choice"];
    assert!(tillstream(folder.path(), &arguments).good);
    let said = tillstream(&folder.path().join("carrier"), &["rules", "test"]);
    assert!(said.good && said.text.contains("5 fixtures\n"), "{}", said.text);
}

#[test]
fn an_engine_is_compiled_once_for_all_commands() {
    with_engine();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pass.js"), "export const price = () => 'pass';").unwrap();
    let validate = || {
        let said = tillstream(folder.path(), &["rules", "validate", "pass.js"]);
        assert!(said.good && said.text.contains("good: price"), "{}", said.text);
        let files = std::fs::read_dir(cache()).unwrap().map(|it| it.unwrap());
        let kept = files.filter(|it| it.path().extension().is_some_and(|it| it == "cwasm"));
        kept.map(|it| it.file_name()).collect::<Vec<_>>()
    };
    let kept = validate();
    assert!(!kept.is_empty());
    assert_eq!(validate(), kept, "another command has the same");
}

#[test]
fn what_cannot_be_begun_is_said_and_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (["rules", "new", "Tens", "--lang", "rust"], "TS0941"),
        (["rules", "new", "../tens", "--lang", "rust"], "TS0941"),
        (["rules", "new", "tens", "--lang", "python"], "docs/RULES.md"),
        (["rules", "new", "tens", "--from", "lottery"], "volume-discount"),
    ] {
        let said = tillstream(folder.path(), &arguments);
        assert!(!said.good && said.text.contains(says), "{arguments:?}: {}", said.text);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?}");
    }
    let said = tillstream(folder.path(), &["rules", "new", "tens", "--lang", "javascript", "--from", "vat"]);
    assert!(
        !said.good && said.text.contains("TS0947") && said.text.contains("carrier-choice"),
        "{}",
        said.text
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(folder.path().join("taken"), "mine").unwrap();
    assert!(!tillstream(folder.path(), &["rules", "new", "taken"]).good);
    assert_eq!(std::fs::read_to_string(folder.path().join("taken")).unwrap(), "mine");
}
