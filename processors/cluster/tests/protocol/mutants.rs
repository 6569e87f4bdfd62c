//! The mutants of `make mutants` and `make simulate-mutants` still fit the code.

use std::path::Path;
use std::process::Command;

#[test]
fn every_mutant_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut patches = 0;
    let entries = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap();
    for entry in entries("tests/mutants").chain(entries("tests/mutants/world")) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("Rule: "), "{} names no rule", path.display());
        let checked = Command::new("patch")
            .args(["-p1", "--dry-run", "--silent", "--fuzz=0", "--input"])
            .arg(&path)
            .current_dir(&root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{}: {said}", path.display());
        patches += 1;
    }
    assert!(patches > 55, "{patches}");
}
