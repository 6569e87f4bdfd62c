//! The disk of a history: real files, a layer before them that writes down every change and fails where it is told to
//! (`disk/layer.c`), and the model of what a loss of power leaves of them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_simulation::disk::trace::{self, Change};
use tillstream_simulation::disk::{Disk, Left};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The process is killed before it.
    Before,
    /// In the middle of it.
    Within,
    /// When it has happened, and nobody knows yet.
    After,
    /// It is a sync, and it fails.
    Sync,
    /// There is no space from then on.
    Full,
}

/// A disk that somebody watches.
pub struct SimDisk {
    root: PathBuf,
    trace: File,
    model: Disk,
    hash: u64,
    changes: u64,
}

/// In memory, where there is such a place: what is durable is the model's to say.
fn fresh_root() -> std::io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        let place = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        sweep(&place);
        place
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let root = place.join(format!("simulated-disk.{}-{number}", std::process::id()));
    std::fs::create_dir(&root)?;
    Ok(root)
}

/// Removes what a run that was killed has left.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|it| it.strip_prefix("simulated-disk.")?.split_once('-'));
        if process.is_some_and(|(id, _)| !Path::new("/proc").join(id).exists()) {
            let path = entry.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).ok()
            } else {
                std::fs::remove_file(path).ok()
            };
        }
    }
}

fn trace_of(root: &Path) -> PathBuf {
    let mut name = root.as_os_str().to_owned();
    name.push(".trace");
    name.into()
}

fn control(root: &Path, command: &str) -> std::io::Result<()> {
    std::fs::write(root.join(".control"), command)
}

fn watch(root: &Path) -> std::io::Result<File> {
    control(root, "begin")?;
    File::open(trace_of(root))
}

fn leave(root: &Path) {
    control(root, "end").ok();
    std::fs::remove_dir_all(root).ok();
    std::fs::remove_file(trace_of(root)).ok();
}

impl SimDisk {
    /// A disk with what another one holds.
    ///
    /// # Errors
    /// The real files cannot be made.
    pub fn with(model: &Disk) -> std::io::Result<Self> {
        let root = fresh_root()?;
        let model = model.save(Left::Everything, &root)?;
        Ok(Self { trace: watch(&root)?, root, model, hash: 0, changes: 0 })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it holds, all of it taken for safe.
    ///
    /// # Errors
    /// The real files cannot be read.
    pub fn loaded(&self) -> std::io::Result<Disk> {
        Disk::load(&self.root)
    }

    /// Follows what was done; true if what was to go wrong has gone wrong.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn follow(&mut self) -> std::io::Result<bool> {
        let mut bytes = Vec::new();
        self.trace.read_to_end(&mut bytes)?;
        let mut struck = false;
        for event in trace::parse(&bytes, &self.root) {
            self.model.apply(&event.change);
            struck |= event.change == Change::Struck;
            self.changes += 1;
            self.hash = xxh3_64_with_seed(told(&event.change).as_bytes(), self.hash);
        }
        Ok(struck)
    }

    /// Something goes wrong with the call after the next `skip`; of a sync these are syncs.
    ///
    /// # Errors
    /// The layer does not answer.
    pub fn arm(&self, strike: Strike, skip: u32) -> std::io::Result<()> {
        let kind = match strike {
            Strike::Before => 'b',
            Strike::Within => 'h',
            Strike::After => 'a',
            Strike::Sync => 's',
            Strike::Full => 'f',
        };
        control(&self.root, &format!("arm {kind} {skip}"))
    }

    /// Nothing goes wrong any more.
    ///
    /// # Errors
    /// The layer does not answer.
    pub fn calm(&self) -> std::io::Result<()> {
        control(&self.root, "calm")
    }

    /// The process is dead: what is left of it changes nothing.
    ///
    /// # Errors
    /// The layer does not answer.
    pub fn kill(&self) -> std::io::Result<()> {
        control(&self.root, "kill")
    }

    /// A new process may come. With `left` there was no power meanwhile.
    ///
    /// # Errors
    /// The real files cannot be made.
    pub fn revive(&mut self, left: Option<Left>) -> std::io::Result<()> {
        let Some(left) = left else { return control(&self.root, "live") };
        self.follow()?;
        let root = fresh_root()?;
        self.model = self.model.save(left, &root)?;
        self.trace = watch(&root)?;
        leave(&self.root);
        self.root = root;
        Ok(())
    }

    /// A hash of every change; equal for equal histories.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        leave(&self.root);
    }
}

/// A name that is drawn anew each time is only that.
fn plain(path: &str) -> String {
    path.split('/').map(|it| if it.starts_with(".tmp") { ".tmp" } else { it }).collect::<Vec<_>>().join("/")
}

/// A change, without what no seed decides: inodes, and what names and the process's own number are made of.
fn told(change: &Change) -> String {
    match change {
        Change::Create { path, truncates, .. } => format!("create {} {truncates}", plain(path)),
        Change::Write { offset, bytes, .. } => format!("write {offset} {}", bytes.len()),
        Change::Truncate { len, .. } => format!("truncate {len}"),
        Change::Sync { path, .. } => format!("sync {}", plain(path)),
        Change::Rename { from, to } => format!("rename {} {}", plain(from), plain(to)),
        Change::Link { from, to } => format!("link {} {}", plain(from), plain(to)),
        Change::Unlink { path } => format!("unlink {}", plain(path)),
        Change::MakeDir { path } => format!("make {path}"),
        Change::RemoveDir { path } => format!("remove {path}"),
        Change::Opened { path, .. } => format!("opened {}", plain(path)),
        Change::Struck => "struck".to_owned(),
    }
}
