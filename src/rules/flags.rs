//! What cargo is told beside the project's own settings: a small stack, and no folder of this machine in the module.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Bytes of stack. A rule needs little, and the stack lies in its memory, which every call gets anew.
const STACK_BYTES: u32 = 32_768;

/// Folders, and the names that stand for them in what a module keeps of its sources (the places of panics).
///
/// A folder within another stands behind it: the compiler takes the last that fits.
pub(super) fn folder_names(metadata: &Value, sysroot: &Path) -> Vec<(PathBuf, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut names = vec![(sysroot.to_path_buf(), "rust".to_owned())];
    for (key, name) in [("workspace_root", "workspace"), ("target_directory", "target")] {
        names.extend(text(&metadata[key]).map(|folder| (folder.into(), name.to_owned())));
    }
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().map(Path::new);
        if let Some(folder) = manifest.and_then(Path::parent) {
            let word = |key: &str| package[key].as_str().unwrap_or_default();
            names.push((folder.to_path_buf(), format!("{}-{}", word("name"), word("version"))));
        }
    }
    names.sort_by_key(|(folder, _)| folder.components().count());
    names
}

/// The setting for the sandbox's target, as an argument of cargo's `--config`: it is added to the project's own.
pub(super) fn setting(target: &str, folder_names: &[(PathBuf, String)]) -> String {
    let stack = ["-C".to_owned(), format!("link-arg=-zstack-size={STACK_BYTES}")];
    let names =
        folder_names.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    let flags: Vec<toml::Value> = stack.into_iter().chain(names).map(toml::Value::String).collect();
    format!("target.{target}.rustflags={}", toml::Value::Array(flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        json!({
            "workspace_root": "/home/ann/shop",
            "target_directory": "/home/ann/shop/target",
            "packages": [
                {"name": "tens", "version": "0.1.0", "manifest_path": "/home/ann/shop/rules/tens/Cargo.toml"},
                {"name": "serde", "version": "1.0.1", "manifest_path": "/home/ann/.cargo/registry/src/x/serde-1.0.1/Cargo.toml"},
            ],
        })
    }

    #[test]
    fn a_folder_within_another_stands_behind_it() {
        let names = folder_names(&metadata(), Path::new("/opt/rust"));
        let at = |folder: &str| names.iter().position(|it| it.0 == Path::new(folder)).unwrap();
        assert_eq!(names.len(), 5);
        assert!(at("/home/ann/shop") < at("/home/ann/shop/target"));
        assert!(at("/home/ann/shop") < at("/home/ann/shop/rules/tens"));
        assert_eq!(names[at("/home/ann/shop/rules/tens")].1, "tens-0.1.0");
    }

    #[test]
    fn a_folder_with_quotes_and_backslashes_comes_through_the_setting() {
        let folder = r#"C:\Ann "the" shop"#;
        let setting = setting("wasm32-unknown-unknown", &[(folder.into(), "shop".to_owned())]);
        let read: toml::Value = toml::from_str(&setting).unwrap();
        let flags = read["target"]["wasm32-unknown-unknown"]["rustflags"].as_array().unwrap();
        assert_eq!(flags[1].as_str(), Some("link-arg=-zstack-size=32768"));
        assert_eq!(flags[2].as_str(), Some(format!("--remap-path-prefix={folder}=shop").as_str()));
    }
}
