//! `rules new`: a project begun from one of the examples, which builds and tests at once.
//!
//! The SDK and the world are on no registry, so they go into the project. What is written here is what stands in
//! `rules/`: the same files that this repository builds and tests.

mod examples;
mod javascript;

use super::RulesError;
use crate::cli::Language;
use crate::output::line;
use examples::{EXAMPLES, Example};
use std::path::{Path, PathBuf};

const MANIFEST: &str = include_str!("manifest.toml");
const GUIDE: &str = include_str!("guide.txt");
const SDK_MANIFEST: &str = include_str!("../../../rules/sdk/Cargo.toml");
const SDK: &str = include_str!("../../../rules/sdk/src/lib.rs");
const SDK_ALLOCATOR: &str = include_str!("../../../rules/sdk/src/allocator.rs");
const WORLD: &str = include_str!("../../../rules/wit/rules.wit");
/// The versions that the examples are built with: cargo takes from it what the project needs.
const LOCK: &str = include_str!("../../../rules/examples/Cargo.lock");
/// Characters of a package's name.
const NAME_CHARS_MAX: usize = 64;

/// The names of the examples.
pub fn example_names() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().map(|it| it.name)
}

/// `rules new`
pub(super) fn new(name: &str, language: Language, example: &str) -> Result<(), RulesError> {
    if !is_package_name(name) {
        return Err(RulesError::Name(name.to_owned()));
    }
    let missing = |there: Vec<&str>| {
        let there = there.join(", ");
        RulesError::NoExample { example: example.to_owned(), language, there }
    };
    let found = EXAMPLES.iter().find(|it| it.name == example);
    let found = found.ok_or_else(|| missing(example_names().collect()))?;
    let files = match language {
        Language::Rust => files(name, found),
        Language::Javascript => {
            javascript::files(name, found).ok_or_else(|| missing(javascript::names().collect()))?
        }
        Language::Python => return Err(RulesError::Language(language)),
    };
    let folder = Path::new(name);
    // Whoever names a folder that is there means something else: nothing of it is touched.
    std::fs::create_dir(folder).map_err(|error| RulesError::File { path: folder.to_path_buf(), error })?;
    for (path, text) in files {
        write(&folder.join(path), &text)?;
    }
    line(format_args!("{name}: a rule like {example}; next: cd {name} && tillstream rules test"));
    Ok(())
}

/// What a project consists of.
fn files(name: &str, example: &Example) -> Vec<(PathBuf, String)> {
    let sdk_manifest = SDK_MANIFEST.replace("workspace = \"../examples\"", "workspace = \"../..\"");
    let guide = GUIDE.replace("NAME", name).replace("EXAMPLE", example.name);
    let guide = guide.replace("FIXTURE", example.fixtures.first().map_or("", |it| it.name));
    let mut files = vec![
        ("Cargo.toml".into(), MANIFEST.replace("NAME", name)),
        ("Cargo.lock".into(), LOCK.to_owned()),
        (".gitignore".into(), "/target\n".to_owned()),
        ("README.md".into(), guide),
        ("src/lib.rs".into(), example.source.to_owned()),
        ("tillstream/sdk/Cargo.toml".into(), sdk_manifest),
        ("tillstream/sdk/src/lib.rs".into(), SDK.to_owned()),
        ("tillstream/sdk/src/allocator.rs".into(), SDK_ALLOCATOR.to_owned()),
        ("tillstream/wit/rules.wit".into(), WORLD.to_owned()),
    ];
    files.extend(fixtures(example));
    files
}

/// The questions of an example, and what it says to them.
fn fixtures(example: &Example) -> impl Iterator<Item = (PathBuf, String)> {
    example.fixtures.iter().flat_map(|it| {
        let path = |ending: &str| format!("fixtures/{}{ending}", it.name).into();
        [(path(".json"), it.input.to_owned()), (path(".snap.json"), it.snapshot.to_owned())]
    })
}

fn write(path: &Path, text: &str) -> Result<(), RulesError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| RulesError::File { path: path.to_path_buf(), error })
}

/// What a package may be called, and a rule in the pipeline: a to z, 0 to 9 and -, beginning with a letter.
pub(super) fn is_package_name(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|it: char| it.is_ascii_lowercase())
        && name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_is_one_that_cargo_and_the_pipeline_take() {
        for name in ["tens", "two-for-one", "vat2026"] {
            assert!(is_package_name(name), "{name}");
        }
        for name in ["", "-tens", "2for1", "Tens", "../tens", "tens_off", &"a".repeat(65)] {
            assert!(!is_package_name(name), "{name}");
        }
    }

    #[test]
    fn a_project_has_the_sdk_in_it_and_no_way_out() {
        for example in EXAMPLES {
            let files = files("tens", example);
            let text = |path: &str| files.iter().find(|it| it.0 == Path::new(path)).unwrap().1.as_str();
            let manifest: toml::Value = toml::from_str(text("Cargo.toml")).unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("tens"));
            let sdk: toml::Value = toml::from_str(text("tillstream/sdk/Cargo.toml")).unwrap();
            assert_eq!(sdk["package"]["workspace"].as_str(), Some("../.."));
            assert!(text("tillstream/sdk/src/lib.rs").contains("path: \"../wit\""));
            assert!(files.iter().all(|it| !it.1.contains("../examples")), "{}", example.name);
        }
    }

    #[test]
    fn every_example_and_every_fixture_of_one_can_be_begun_from() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/examples");
        let stems = |folder: &Path, ending: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
            let names = entries.map(|it| it.to_string_lossy().into_owned());
            names.filter_map(|it| it.strip_suffix(ending).map(str::to_owned)).collect()
        };
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").exists() {
                found.insert(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
        assert_eq!(
            found,
            example_names().map(str::to_owned).collect(),
            "left: in rules/examples; right: in the table"
        );
        for example in EXAMPLES {
            let fixtures = folder.join(example.name).join("fixtures");
            let kept = stems(&fixtures, ".snap.json");
            let inputs: BTreeSet<_> =
                stems(&fixtures, ".json").into_iter().filter(|it| !it.ends_with(".snap")).collect();
            let table: BTreeSet<_> = example.fixtures.iter().map(|it| it.name.to_owned()).collect();
            assert!(!table.is_empty(), "{}", example.name);
            assert_eq!((&inputs, &kept), (&table, &table), "{}: inputs, snapshots; the table", example.name);
        }
    }
}
