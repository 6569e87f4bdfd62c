//! Projects in JavaScript. An example answers the fixtures of its twin in Rust, to the letter.

use super::examples::Example;
use std::path::PathBuf;

const TYPES: &str = include_str!("../../../rules/javascript/tillstream.d.ts");
const GUIDE: &str = include_str!("guide-javascript.txt");

/// A rule to begin from.
struct Script {
    name: &'static str,
    source: &'static str,
    test: &'static str,
    package: &'static str,
}

macro_rules! script {
    ($name:literal) => {
        Script {
            name: $name,
            source: include_str!(concat!("../../../rules/javascript/examples/", $name, "/index.js")),
            test: include_str!(concat!("../../../rules/javascript/examples/", $name, "/index.test.js")),
            package: include_str!(concat!("../../../rules/javascript/examples/", $name, "/package.json")),
        }
    };
}

const SCRIPTS: &[Script] = &[script!("volume-discount"), script!("carrier-choice")];

/// The names of the examples.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|it| it.name)
}

/// What a project consists of; `None` when there is no such example in JavaScript.
pub(super) fn files(name: &str, twin: &Example) -> Option<Vec<(PathBuf, String)>> {
    let script = SCRIPTS.iter().find(|it| it.name == twin.name)?;
    let guide = GUIDE.replace("NAME", name).replace("EXAMPLE", twin.name);
    let guide = guide.replace("FIXTURE", twin.fixtures.first().map_or("", |it| it.name));
    let mut files = vec![
        ("package.json".into(), script.package.replace(script.name, name)),
        (".gitignore".into(), "/target\n".to_owned()),
        ("README.md".into(), guide),
        ("index.js".into(), script.source.to_owned()),
        ("index.test.js".into(), script.test.to_owned()),
        ("tillstream.d.ts".into(), TYPES.to_owned()),
    ];
    files.extend(super::fixtures(twin));
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::super::examples::EXAMPLES;
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_example_in_javascript_can_be_begun_from_and_has_a_twin_in_rust() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/javascript/examples");
        let found: BTreeSet<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, names().map(str::to_owned).collect());
        for name in names() {
            let twin = EXAMPLES.iter().find(|it| it.name == name).unwrap();
            let files = files("tens", twin).unwrap();
            let text = |path: &str| files.iter().find(|it| it.0 == Path::new(path)).unwrap().1.as_str();
            let package: serde_json::Value = serde_json::from_str(text("package.json")).unwrap();
            assert_eq!(package["name"], "tens");
            let input = format!("fixtures/{}.json", twin.fixtures[0].name);
            assert_eq!(text(&input), twin.fixtures[0].input);
            assert!(text("README.md").contains(&input));
        }
    }
}
