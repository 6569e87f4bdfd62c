//! The ids of an earlier start, in a file.

use crate::resolve::Pairs;
use crate::same::Shape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use tillstream_schemas::codec::Version;

#[derive(Serialize, Deserialize)]
struct Saved {
    /// The registry's base URL: another registry has other ids.
    registry: String,
    /// By fingerprint of the layout: the registry's ids, the one to write first.
    ids: BTreeMap<String, Vec<u32>>,
}

/// Writes the file, whole or not at all.
pub(crate) fn write(path: &Path, registry: &str, pairs: &[(u32, u32)]) -> io::Result<()> {
    let mut ids: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for version in Version::all() {
        let shape = Shape::of_ours(version).map_err(io::Error::other)?;
        let mut own: Vec<u32> = Vec::new();
        for (_, registry) in pairs.iter().filter(|(local, _)| *local == version.id) {
            if !own.contains(registry) {
                own.push(*registry);
            }
        }
        ids.insert(shape.fingerprint(), own);
    }
    let text = serde_json::to_string_pretty(&Saved { registry: registry.to_owned(), ids })?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Several processes may share the folder: each writes a file of its own.
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Reads the ids of every version of this build; `Err` says why there are none to be had.
pub(crate) fn read(path: &Path, registry: &str) -> Result<Pairs, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if saved.registry != registry {
        return Err(format!("they are of the registry {}", saved.registry));
    }
    let mut pairs = Vec::new();
    for version in Version::all() {
        let shape = Shape::of_ours(version).map_err(|error| error.to_string())?;
        let own = saved.ids.get(&shape.fingerprint()).filter(|it| !it.is_empty()).ok_or_else(|| {
            format!("there is none for this build's {} (id {})", version.schema.name(), version.id)
        })?;
        pairs.extend(own.iter().map(|id| (version.id, *id)));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Pairs {
        Version::all().flat_map(|it| [(it.id, it.id + 100), (it.id, it.id + 200)]).collect()
    }

    #[test]
    fn what_was_written_is_read_for_the_same_registry_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/schema-ids.json");
        write(&path, "http://a", &pairs()).unwrap();
        assert_eq!(read(&path, "http://a").unwrap(), pairs());
        assert!(read(&path, "http://b").unwrap_err().contains("http://a"));
        assert_eq!(fs::read_dir(folder.path().join("data")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_an_older_build_or_a_broken_one_is_no_help() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema-ids.json");
        assert!(read(&path, "http://a").is_err());
        let older: Pairs = pairs().into_iter().filter(|(local, _)| *local != 16).collect();
        write(&path, "http://a", &older).unwrap();
        assert!(read(&path, "http://a").unwrap_err().contains("watermark-state"));
        fs::write(&path, "{").unwrap();
        assert!(read(&path, "http://a").is_err());
    }
}
