//! `schemas/golden`: every version of every schema there ever was, and records of it as bytes and as JSON.
//!
//! `golden/<name>/v<n>.avsc` is a version, `golden/<name>/v<n>/<branch>.hex` holds records of it, one per line,
//! and `<branch>.jsonl` beside it what they say. `TILLSTREAM_WRITE_GOLDEN=1 cargo test -p tillstream-schemas
//! golden` writes what is missing for the current version, and never touches a file that is there.

use crate::avsc::Type;
use crate::compatibility::violations;
use crate::reference;
use crate::values::samples;
use apache_avro::Schema as Reference;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tillstream_schemas::codec::{self, Schema};

struct Golden {
    ty: Type,
    /// Where its records are.
    records: PathBuf,
}

/// The versions of a schema, oldest first.
fn versions(schema: Schema) -> Vec<Golden> {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        if std::env::var("TILLSTREAM_WRITE_GOLDEN").is_ok_and(|it| it == "1") {
            Schema::ALL.iter().for_each(|&schema| write_missing(schema));
        }
    });
    recorded(schema)
}

fn recorded(schema: Schema) -> Vec<Golden> {
    let dir = dir_of(schema);
    let version = |n: usize| {
        let ty = Type::parse(&fs::read_to_string(dir.join(format!("v{n}.avsc"))).ok()?);
        Some(Golden { ty, records: dir.join(format!("v{n}")) })
    };
    (1..).map_while(version).collect()
}

fn dir_of(schema: Schema) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(schema.name())
}

/// The branch files of a version: name, records, what they say.
fn records(golden: &Golden) -> Vec<(String, Vec<Vec<u8>>, Vec<Json>)> {
    let mut names: Vec<_> = fs::read_dir(&golden.records)
        .unwrap_or_else(|error| panic!("{}: {error}", golden.records.display()))
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".hex")?.to_owned()))
        .collect();
    names.sort();
    let read = |name: &String, suffix: &str| {
        let path = golden.records.join(format!("{name}.{suffix}"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    names
        .into_iter()
        .map(|name| {
            let bytes = read(&name, "hex").lines().map(from_hex).collect();
            let says = read(&name, "jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (name, bytes, says)
        })
        .collect()
}

fn from_hex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

fn write_missing(schema: Schema) {
    let now = Type::parse(schema.avsc());
    let dir = dir_of(schema);
    fs::create_dir_all(&dir).unwrap();
    let before = recorded(schema);
    if before.last().is_none_or(|newest| newest.ty != now) {
        let old_records = before.iter().flat_map(records).flat_map(|(_, bytes, _)| bytes);
        let old_ids: BTreeSet<u32> =
            old_records.map(|it| u32::from_be_bytes(it[1..5].try_into().unwrap())).collect();
        assert!(
            !old_ids.contains(&schema.current().id),
            "{schema:?} changed: give it a new id first, and the old version its place in the history \
             (see schemas/avro/README.md)"
        );
        for old in &before {
            let found = violations(schema.compatibility(), &now, &old.ty);
            assert!(found.is_empty(), "{schema:?} may not change so: {found:#?}");
        }
        fs::write(dir.join(format!("v{}.avsc", before.len() + 1)), schema.avsc()).unwrap();
    }
    let records = recorded(schema).pop().expect("it was just written").records;
    fs::create_dir_all(&records).unwrap();
    let reference = Reference::parse_str(schema.avsc()).unwrap();
    for (branch, name) in now.branch_names().iter().enumerate() {
        let name = kebab(name.trim_start_matches("tillstream."));
        if records.join(format!("{name}.hex")).exists() {
            continue;
        }
        // The reference writes the bytes, so that they do not depend on the codec they judge.
        let values = samples(&now, branch).into_iter().map(|it| reference::write(schema, &reference, it));
        let (mut hex, mut says) = (String::new(), String::new());
        for value in values {
            hex.extend(value.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]));
            says += &format!("{}\n", codec::to_json(&value).unwrap());
        }
        fs::write(records.join(format!("{name}.hex")), hex).unwrap();
        fs::write(records.join(format!("{name}.jsonl")), says).unwrap();
    }
}

fn kebab(name: &str) -> String {
    let dashed = name.chars().flat_map(|it| it.is_ascii_uppercase().then_some('-').into_iter().chain([it]));
    dashed.collect::<String>().trim_start_matches('-').to_ascii_lowercase()
}

#[test]
fn golden_newest_version_is_the_current_schema() {
    for &schema in Schema::ALL {
        let versions = versions(schema);
        assert!(
            versions.last().is_some_and(|newest| newest.ty == Type::parse(schema.avsc())),
            "{schema:?} has changed: record the new version as schemas/avro/README.md says"
        );
    }
}

#[test]
fn golden_versions_may_follow_each_other_as_the_subjects_policy_says() {
    for &schema in Schema::ALL {
        let versions = versions(schema);
        for (at, new) in versions.iter().enumerate() {
            for old in &versions[..at] {
                let found = violations(schema.compatibility(), &new.ty, &old.ty);
                assert!(found.is_empty(), "{schema:?} v{}: {found:#?}", at + 1);
            }
        }
    }
}

#[test]
fn golden_records_of_every_branch_still_say_what_they_said() {
    for &schema in Schema::ALL {
        let now = Type::parse(schema.avsc());
        for golden in versions(schema) {
            let files = records(&golden);
            assert_eq!(files.len(), golden.ty.branches(), "{schema:?}: a file per branch");
            for (name, bytes, says) in files {
                assert!(bytes.len() == says.len() && bytes.len() >= 2, "{schema:?} {name}");
                for (value, said) in bytes.iter().zip(&says) {
                    let (version, _) = codec::open(value).unwrap();
                    assert_eq!(version.schema, schema);
                    assert!(
                        Type::parse(version.text) == golden.ty,
                        "{schema:?} {name}: id {} no longer stands for the version it was written with",
                        version.id
                    );
                    let shown = codec::to_json(value).unwrap();
                    let found = differences(said, &golden.ty, &shown, &now);
                    assert!(found.is_empty(), "{schema:?} {name}: {found:#?}");
                }
            }
        }
    }
}

#[test]
fn every_old_version_in_the_history_is_a_golden_one_with_an_id_of_its_own() {
    let mut ids = BTreeSet::new();
    for version in Schema::ALL.iter().map(|schema| schema.current()).chain(&codec::HISTORY) {
        assert!(ids.insert(version.id), "id {} is given twice", version.id);
        assert!(versions(version.schema).iter().any(|golden| golden.ty == Type::parse(version.text)));
    }
}

/// Where `shown` (read today) is not what was `said`. Fields only one of the two versions has may differ.
fn differences(said: &Json, then: &Type, shown: &Json, now: &Type) -> Vec<String> {
    fn walk(
        said: &Json,
        shown: &Json,
        path: &str,
        new: &BTreeSet<String>,
        gone: &BTreeSet<String>,
    ) -> Vec<String> {
        match (said, shown) {
            (Json::Object(said), Json::Object(shown)) => {
                let keys: BTreeSet<_> = said.keys().chain(shown.keys()).collect();
                let differ = |key: &&String| match (said.get(*key), shown.get(*key)) {
                    (Some(said), Some(shown)) => walk(said, shown, &format!("{path}.{key}"), new, gone),
                    (None, _) if new.contains(*key) => vec![],
                    (_, None) if gone.contains(*key) => vec![],
                    (said, shown) => vec![format!("{path}.{key}: said {said:?}, shows {shown:?}")],
                };
                keys.iter().flat_map(differ).collect()
            }
            (Json::Array(said), Json::Array(shown)) if said.len() == shown.len() => {
                let pairs = said.iter().zip(shown).enumerate();
                pairs.flat_map(|(at, (a, b))| walk(a, b, &format!("{path}[{at}]"), new, gone)).collect()
            }
            (said, shown) if said == shown => vec![],
            (said, shown) => vec![format!("{path}: said {said}, shows {shown}")],
        }
    }
    let (then, now) = (then.field_names(), now.field_names());
    // By record: another record may have had a field of that name all along.
    type Names = BTreeSet<(String, String)>;
    let only = |a: &Names, b: &Names| a.difference(b).map(|(_, field)| field.clone()).collect();
    walk(said, shown, "", &only(&now, &then), &only(&then, &now))
}

#[test]
fn a_difference_is_noticed_unless_the_versions_explain_it() {
    let record = |names: &[&str]| {
        let fields = names.iter().map(|name| serde_json::json!({"name": name, "type": "long"}));
        Type::parse(
            &serde_json::json!({"type": "record", "name": "R", "namespace": "tillstream",
                "fields": fields.collect::<Vec<_>>()})
            .to_string(),
        )
    };
    let (then, now) = (record(&["a", "gone"]), record(&["a", "new"]));
    let of = |said: &str, shown: &str| {
        differences(&serde_json::from_str(said).unwrap(), &then, &serde_json::from_str(shown).unwrap(), &now)
            .len()
    };
    assert_eq!(of(r#"{"a": 1, "gone": 2}"#, r#"{"a": 1, "new": 0}"#), 0);
    assert_eq!(of(r#"{"a": 1}"#, r#"{"a": 2}"#), 1);
    assert_eq!(of(r#"{"a": [1]}"#, r#"{"a": [1, 2]}"#), 1);
    assert_eq!(of(r#"{"a": 1}"#, r#"{}"#), 1);
    assert_eq!(of(r#"{}"#, r#"{"a": 1}"#), 1);
}
