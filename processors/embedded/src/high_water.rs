//! How far every partition and every task was durable when last noted: a start that finds less has lost acknowledged
//! records, or rows.
//!
//! The database takes the first damaged entry of its journal for the torn end of a crash and goes on with what stands
//! before it. A torn end holds nothing that was acknowledged; damage further up does. The two are told apart by this
//! file, which is only ever written after what it says is durable.

use crate::error::StoreError;
use crate::partition::Partitions;
use crate::shared::Shared;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use tillstream_state::TaskId;

/// The file, in the data dir.
pub const ENDS: &str = "ENDS";
const DRAFT: &str = "ENDS.new";

/// Notes the ends. `sync`: the note itself survives a loss of power.
pub fn note(shared: &Shared, sync: bool) -> std::io::Result<()> {
    let (data_dir, partitions) = (&shared.settings.data_dir, &shared.partitions);
    let mut text = String::new();
    for (index, at) in Partitions::every(partitions.per_topic()).enumerate() {
        let _ = writeln!(text, "{} {} {}", at.topic.name(), at.partition, partitions.at(index).end());
    }
    for task in shared.tasks() {
        let _ = writeln!(text, "{}{}", prefix_of(task), shared.committed(task));
    }
    let _ = writeln!(text, "crc32 {:08x}", crc32fast::hash(text.as_bytes()));
    let draft = data_dir.join(DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&draft, data_dir.join(ENDS))
}

/// Compares what was recovered with what was noted. A missing or damaged note says nothing.
pub fn check(data_dir: &Path, shared: &Shared) -> Result<(), StoreError> {
    let Some(noted) = std::fs::read_to_string(data_dir.join(ENDS)).ok().and_then(whole) else {
        return Ok(());
    };
    let noted_of =
        |prefix: &str| noted.lines().find_map(|line| line.strip_prefix(prefix)?.parse::<u64>().ok());
    for task in shared.tasks() {
        let found = shared.committed(task);
        if let Some(durable) = noted_of(&prefix_of(task)).filter(|durable| found < *durable) {
            return Err(StoreError::LostCommits {
                data_dir: data_dir.to_owned(),
                task: task.to_string(),
                durable,
                found,
            });
        }
    }
    let partitions = &shared.partitions;
    for (index, at) in Partitions::every(partitions.per_topic()).enumerate() {
        let durable = noted_of(&format!("{} {} ", at.topic.name(), at.partition));
        let found = partitions.at(index).end();
        if let Some(durable) = durable
            && found < durable
        {
            return Err(StoreError::Lost { data_dir: data_dir.to_owned(), partition: at, durable, found });
        }
    }
    Ok(())
}

fn prefix_of(task: TaskId) -> String {
    format!("task {task} ")
}

/// The text without its last line, if that is its checksum.
fn whole(text: String) -> Option<String> {
    let (body, crc) = text.rsplit_once("crc32 ")?;
    let crc = u32::from_str_radix(crc.trim_end(), 16).ok()?;
    (crc == crc32fast::hash(body.as_bytes())).then(|| body.to_owned())
}
