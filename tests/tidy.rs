//! Style and documents as tests: what a reader relies on is checked, not promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "tillstream-data") {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(root(), ".rs", &mut found);
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found.sort();
    found
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().to_path_buf(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// `TS` and four digits.
fn codes(text: &str) -> BTreeSet<String> {
    text.match_indices("TS")
        .filter_map(|(at, _)| text.get(at..at + 6))
        .filter(|it| it[2..].bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let mut used = BTreeSet::new();
    for (path, text) in sources() {
        if path.components().all(|it| it.as_os_str() != "tests") {
            used.extend(codes(&text));
        }
    }
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(root().join("ops/errors")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.starts_with("TS") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(&format!("# {name} ")), "{} begins with its code", path.display());
            for part in ["**What happened.**", "**What to do.**"] {
                assert!(text.contains(part), "{} says {part}", path.display());
            }
            pages.insert(name);
        }
    }
    assert_eq!(used, pages, "left: codes in the sources; right: pages in ops/errors");
}

#[test]
fn no_file_outgrows_its_seams() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 550)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_named_for_doing_things() {
    for (path, text) in sources() {
        for line in text.lines() {
            let Some(rest) =
                ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|it| line.trim().strip_prefix(it))
            else {
                continue;
            };
            let name: String = rest.chars().take_while(|it| it.is_alphanumeric()).collect();
            for doer in ["Manager", "Helper", "Util", "Utils"] {
                assert!(!name.ends_with(doer), "{}: {name}", path.display());
            }
        }
    }
}

#[test]
fn pure_crates_list_nothing_that_touches_the_world_and_stages_do_not_know_each_other() {
    const PURE: [&str; 9] = [
        "stage",
        "pricing",
        "reservation",
        "payment",
        "fulfillment",
        "analytics",
        "stock",
        "order-view",
        "tasks",
    ];
    const WORLD: [&str; 11] = [
        "tokio",
        "axum",
        "hyper",
        "reqwest",
        "fjall",
        "rdkafka",
        "scylla",
        "wasmtime",
        "rand",
        "getrandom",
        "time",
    ];
    const STAGES: [&str; 7] =
        ["pricing", "reservation", "payment", "fulfillment", "analytics", "stock", "order-view"];
    for name in PURE {
        let manifest = fs::read_to_string(root().join("processors").join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap();
            assert!(!WORLD.contains(&dependency), "{name} lists {dependency}");
            let stage = dependency.strip_prefix("tillstream-").filter(|it| STAGES.contains(it));
            assert!(stage.is_none() || name == "tasks", "{name} knows the stage {dependency}");
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents = Vec::new();
    files(root(), ".md", &mut documents);
    for path in documents {
        let text = fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|it| it.split(')').next()) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let target = target.split('#').next().unwrap();
            assert!(path.parent().unwrap().join(target).exists(), "{}: {target}", path.display());
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut manifests = Vec::new();
    files(root(), "Cargo.toml", &mut manifests);
    for path in manifests {
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("[package]") && !path.ends_with("rules/engine/Cargo.toml") {
            assert!(text.contains("[lints]\nworkspace = true"), "{}", path.display());
        }
    }
}

#[test]
fn unsafe_code_stands_in_two_modules_of_the_rule_engine_and_says_why() {
    let rules = fs::read_to_string(root().join("rules/engine/Cargo.toml")).unwrap();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = |text: &str, heading: &str| {
        let section = text.split(heading).nth(1).unwrap().split("\n\n[").next().unwrap().to_owned();
        section.trim().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let denied = lints(&workspace, "[workspace.lints.rust]").join("\n").replace("\"forbid\"", "\"deny\"");
    assert_eq!(lints(&rules, "[lints.rust]").join("\n"), denied, "all lints but the one");
    assert_eq!(lints(&rules, "[lints.clippy]"), lints(&workspace, "[workspace.lints.clippy]"));
    let allowed: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| path.starts_with("rules/engine/src") && text.contains("unsafe_code"))
        .map(|(path, text)| {
            assert!(text.contains("reason = "), "{} says why", path.display());
            path.file_name().unwrap().to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(allowed, ["artifact.rs", "bindings.rs"]);
}

#[test]
fn the_make_targets_that_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut named = 0;
    for target in
        readme.split("make ").skip(1).filter_map(|it| it.split(|c: char| !c.is_ascii_alphabetic()).next())
    {
        if ["run", "test", "bench", "chaos", "lint", "deny"].contains(&target) {
            named += 1;
            assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
        }
    }
    assert!(named >= 4, "README names its commands");
    assert!(fs::read_to_string(root().join(".ci/run")).unwrap().contains("make test"));
}
