//! What cargo is told beside the project's own settings: a small stack, and no folder of this machine in the module.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Bytes of stack. A rule needs little, and the stack lies in its memory, which every call gets anew.
const STACK_BYTES: u32 = 32_768;

/// Folders, and the names that stand for them in what a module keeps of its sources (the places of panics).
///
/// A package of the workspace needs none: cargo names its files from the workspace on. So the flags, and with them what is
/// built of foreign packages, are the same wherever the project lies. A folder within another stands behind it: the
/// compiler takes the last that fits.
pub(super) fn folder_names(metadata: &Value, sysroot: &Path) -> Vec<(PathBuf, String)> {
    let folder = |key: &str| metadata[key].as_str().map(PathBuf::from);
    let workspace = folder("workspace_root");
    let mut names = vec![(sysroot.to_path_buf(), "rust".to_owned())];
    names.extend(folder("target_directory").map(|it| (it, "target".to_owned())));
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().map(Path::new);
        let Some(folder) = manifest.and_then(Path::parent) else { continue };
        if workspace.as_ref().is_none_or(|it| !folder.starts_with(it)) {
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
        let package = |name: &str, folder: &str| json!({"name": name, "version": "1.0.0", "manifest_path": format!("{folder}/Cargo.toml")});
        json!({
            "workspace_root": "/home/ann/shop",
            "target_directory": "/home/ann/shop/target",
            "packages": [
                package("tens", "/home/ann/shop/rules/tens"),
                package("serde", "/home/ann/.cargo/registry/src/x/serde-1.0.0"),
                package("sdk", "/home/ann/sdk"),
                package("macros", "/home/ann/sdk/macros"),
            ],
        })
    }

    #[test]
    fn a_folder_within_another_stands_behind_it() {
        let names = folder_names(&metadata(), Path::new("/opt/rust"));
        let at = |folder: &str| names.iter().position(|it| it.0 == Path::new(folder)).unwrap();
        assert!(at("/home/ann/sdk") < at("/home/ann/sdk/macros"));
        assert_eq!(names[at("/home/ann/sdk/macros")].1, "macros-1.0.0");
    }

    #[test]
    fn the_flags_are_the_same_wherever_the_project_lies() {
        let names = |root: &str| {
            let mut metadata = metadata();
            metadata["workspace_root"] = root.into();
            metadata["packages"][0]["manifest_path"] = format!("{root}/rules/tens/Cargo.toml").into();
            folder_names(&metadata, Path::new("/opt/rust"))
        };
        assert_eq!(names("/home/ann/shop"), names("/srv/other"));
        assert_eq!(
            names("/home/ann/shop").len(),
            5,
            "the compiler, the target, and three packages from elsewhere"
        );
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
