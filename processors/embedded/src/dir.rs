//! The data dir: its lock, and the file that says what it is.

use crate::error::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The format of the data dir that this version writes and reads.
pub const FORMAT: u32 = 1;

const MARKER: &str = "STORE";
const LOCK: &str = "LOCK";
/// The database, inside the data dir.
pub const DATABASE: &str = "db";
/// Where a database is made before it takes its place.
pub const DATABASE_IN_THE_MAKING: &str = "db.new";

/// What the marker file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Made once, at creation.
    pub deployment: String,
}

/// Holds the data dir for this process as long as it lives.
pub struct DirLock {
    _file: File,
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { doing, path, error }
}

/// Takes the data dir for this process, making it if it is not there.
pub fn lock(data_dir: &Path) -> Result<DirLock, StoreError> {
    if !data_dir.is_dir() {
        std::fs::create_dir_all(data_dir).map_err(io("cannot make", data_dir))?;
        // A relative path of one step has the empty path as its parent: the directory we are in.
        let parent = data_dir.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent)?;
    }
    let path = data_dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io("cannot open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let owner =
                match file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok()) {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
            return Err(StoreError::InUse { data_dir: data_dir.to_owned(), owner });
        }
        Err(TryLockError::Error(error)) => return Err(io("cannot lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("cannot write", &path))?;
    Ok(DirLock { _file: file })
}

/// Reads the marker; `None` for a data dir that holds no store yet.
pub fn read_marker(data_dir: &Path) -> Result<Option<Marker>, StoreError> {
    let path = data_dir.join(MARKER);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if data_dir.join(DATABASE).exists() {
                let detail = format!("it has a {DATABASE} directory, but no {MARKER} file");
                return Err(StoreError::NotAStore { data_dir: data_dir.to_owned(), detail });
            }
            return Ok(None);
        }
        Err(error) => return Err(io("cannot read", &path)(error)),
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value.trim())
    };
    let broken = |what: &str| StoreError::NotAStore {
        data_dir: data_dir.to_owned(),
        detail: format!("{MARKER} does not say its {what}"),
    };
    let format = field("format").ok_or_else(|| broken("format"))?;
    if format != FORMAT.to_string() {
        let (found, expected) = (format.to_owned(), FORMAT);
        return Err(StoreError::Version { data_dir: data_dir.to_owned(), found, expected });
    }
    let partitions =
        field("partitions").and_then(|it| it.parse().ok()).ok_or_else(|| broken("partitions"))?;
    let deployment = field("deployment").ok_or_else(|| broken("deployment"))?.to_owned();
    Ok(Some(Marker { partitions, deployment }))
}

/// Puts a finished database in its place and says what the data dir is. The marker comes first: a database
/// without a marker is not ours, while a marker without a database is a creation that did not get further.
pub fn finish_creation(data_dir: &Path, marker: &Marker) -> Result<(), StoreError> {
    let text =
        format!("format={FORMAT}\npartitions={}\ndeployment={}\n", marker.partitions, marker.deployment);
    let path = data_dir.join(MARKER);
    let draft = data_dir.join("STORE.new");
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(io("cannot write", &draft))?;
    std::fs::rename(&draft, &path).map_err(io("cannot write", &path))?;
    place_database(data_dir)
}

fn place_database(data_dir: &Path) -> Result<(), StoreError> {
    let (from, to) = (data_dir.join(DATABASE_IN_THE_MAKING), data_dir.join(DATABASE));
    std::fs::rename(&from, &to).map_err(io("cannot move", &from))?;
    sync_dir(data_dir)
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(io("cannot sync", path))
}

/// Ends a creation that was cut off between marker and database; true when the database is in its place.
pub fn database_in_place(data_dir: &Path) -> Result<bool, StoreError> {
    if data_dir.join(DATABASE).exists() {
        return Ok(true);
    }
    if data_dir.join(DATABASE_IN_THE_MAKING).exists() {
        place_database(data_dir)?;
        return Ok(true);
    }
    Ok(false)
}

/// Clears what a creation that was cut off has left, and answers where to make the database.
pub fn begin_creation(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let path = data_dir.join(DATABASE_IN_THE_MAKING);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("cannot remove", &path)(error)),
    }
    Ok(path)
}
