//! A disk that has not written everything yet: what a loss of power can leave of it.
//!
//! A file's bytes are safe once the file is synced, a name once its directory is. All else may be there or not: names in
//! the order they were made, directory by directory; bytes sector by sector, in any order. That is what POSIX promises,
//! and less than any file system in use keeps.

use super::trace::Change;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tillstream_random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// How much of what was not synced is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Everything: what a killed process leaves.
    Everything,
    /// By chance: names up to some point, and of each write some sectors.
    Torn(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir(usize),
}

type Names = BTreeMap<String, Node>;

/// A change of one directory.
#[derive(Clone, Debug)]
struct NameChange {
    removed: Option<String>,
    set: Option<(String, Node)>,
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, node)) = &self.set {
            names.insert(name.clone(), node.clone());
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Dir {
    now: Names,
    safe: Names,
    unsafe_changes: Vec<NameChange>,
}

impl Dir {
    /// A name that is safe.
    fn add(&mut self, name: String, node: Node) {
        self.now.insert(name.clone(), node.clone());
        self.safe.insert(name, node);
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: u64, bytes: Arc<[u8]> },
    Truncate { len: u64 },
}

/// Bytes by sector; a sector that is absent is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    len: u64,
    sectors: BTreeMap<u64, Arc<[u8; SECTOR_BYTES]>>,
}

impl Content {
    fn truncate(&mut self, len: u64) {
        if len < self.len {
            let end = len / SECTOR_BYTES as u64;
            self.sectors.split_off(&(end + 1));
            if let Some(last) = self.sectors.get_mut(&end) {
                Arc::make_mut(last)[(len % SECTOR_BYTES as u64) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Writes the parts of `bytes` whose sectors `kept` likes.
    fn write(&mut self, offset: u64, bytes: &[u8], mut kept: impl FnMut() -> bool) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % SECTOR_BYTES as u64) as usize;
            let (part, more) = rest.split_at(rest.len().min(SECTOR_BYTES - within));
            if kept() {
                let sector = self
                    .sectors
                    .entry(at / SECTOR_BYTES as u64)
                    .or_insert_with(|| Arc::new([0; SECTOR_BYTES]));
                Arc::make_mut(sector)[within..within + part.len()].copy_from_slice(part);
                self.len = self.len.max(at + part.len() as u64);
            }
            (at, rest) = (at + part.len() as u64, more);
        }
    }

    fn edit(&mut self, edit: &Edit, mut kept: impl FnMut() -> bool) {
        match edit {
            Edit::Write { offset, bytes } => self.write(*offset, bytes, kept),
            Edit::Truncate { len } if kept() => self.truncate(*len),
            Edit::Truncate { .. } => {}
        }
    }

    /// Writes it to a new file; answers the inode.
    fn save(&self, path: &Path) -> std::io::Result<u64> {
        let mut file = File::create(path)?;
        let (mut run, mut run_from) = (Vec::new(), 0);
        for (index, sector) in &self.sectors {
            let from = index * SECTOR_BYTES as u64;
            if run_from + run.len() as u64 != from {
                put(&mut file, run_from, &run)?;
                run.clear();
                run_from = from;
            }
            let len = SECTOR_BYTES.min(self.len.saturating_sub(from) as usize);
            run.extend_from_slice(&sector[..len]);
        }
        put(&mut file, run_from, &run)?;
        file.set_len(self.len)?;
        Ok(file.metadata()?.ino())
    }

    /// What stands in a file.
    fn load(path: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut content = Self { len: bytes.len() as u64, sectors: BTreeMap::new() };
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if sector.iter().any(|it| *it != 0) {
                content.write((index * SECTOR_BYTES) as u64, sector, || true);
            }
        }
        Ok(content)
    }
}

fn put(file: &mut File, from: u64, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    file.seek(SeekFrom::Start(from))?;
    file.write_all(bytes)
}

#[derive(Clone, Debug, Default)]
struct Data {
    safe: Content,
    unsafe_edits: Vec<Edit>,
}

/// The disk. Directory 0 is the root.
#[derive(Clone, Debug)]
pub struct Disk {
    dirs: Vec<Dir>,
    files: Vec<Data>,
    by_inode: BTreeMap<u64, usize>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { dirs: vec![Dir::default()], files: Vec::new(), by_inode: BTreeMap::new() }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Disk {
    /// A disk that has what stands in a directory, all of it safe.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(from: &Path) -> std::io::Result<Self> {
        let mut disk = Self::default();
        disk.load_dir(0, from)?;
        Ok(disk)
    }

    fn load_dir(&mut self, dir: usize, from: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let node = if entry.file_type()?.is_dir() {
                let index = self.dirs.len();
                self.dirs.push(Dir::default());
                self.load_dir(index, &entry.path())?;
                Node::Dir(index)
            } else {
                self.add_file(Content::load(&entry.path())?, entry.metadata()?.ino())
            };
            self.dirs[dir].add(name, node);
        }
        Ok(())
    }

    fn add_file(&mut self, safe: Content, inode: u64) -> Node {
        let file = self.files.len();
        self.files.push(Data { safe, unsafe_edits: Vec::new() });
        self.by_inode.insert(inode, file);
        Node::File(file)
    }

    fn node(&self, path: &str) -> Option<Node> {
        let mut node = Node::Dir(0);
        for step in path.split('/').filter(|it| !it.is_empty()) {
            let Node::Dir(dir) = node else { return None };
            node = self.dirs[dir].now.get(step)?.clone();
        }
        Some(node)
    }

    fn dir(&self, path: &str) -> usize {
        match self.node(path) {
            Some(Node::Dir(dir)) => dir,
            other => panic!("{path} is no directory but {other:?}"),
        }
    }

    fn change_names(&mut self, dir: &str, change: NameChange) {
        let dir = self.dir(dir);
        change.apply(&mut self.dirs[dir].now);
        self.dirs[dir].unsafe_changes.push(change);
    }

    fn edit(&mut self, inode: u64, edit: Edit) {
        // A file that was removed while it was open has no number here any more, and nobody sees it again.
        if let Some(file) = self.by_inode.get(&inode) {
            self.files[*file].unsafe_edits.push(edit);
        }
    }

    fn create(&mut self, path: &str, inode: u64, truncates: bool) {
        if let Some(Node::File(file)) = self.node(path) {
            assert_eq!(
                self.by_inode.get(&inode),
                Some(&file),
                "{path} is another file than the model thinks"
            );
            if truncates {
                self.edit(inode, Edit::Truncate { len: 0 });
            }
            return;
        }
        let file = self.files.len();
        self.files.push(Data::default());
        self.by_inode.insert(inode, file);
        let (dir, name) = split(path);
        self.change_names(dir, NameChange { removed: None, set: Some((name.to_owned(), Node::File(file))) });
    }

    fn sync(&mut self, path: &str, inode: u64) {
        if let Some(Node::Dir(dir)) = self.node(path) {
            let dir = &mut self.dirs[dir];
            dir.unsafe_changes.drain(..).for_each(|change| change.apply(&mut dir.safe));
        } else if let Some(file) = self.by_inode.get(&inode) {
            let file = &mut self.files[*file];
            file.unsafe_edits.drain(..).for_each(|edit| file.safe.edit(&edit, || true));
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let node = self.node(from).unwrap_or_else(|| panic!("{from} is not there"));
        let replaced = self.node(to);
        let ((from_dir, from_name), (dir, to_name)) = (split(from), split(to));
        assert_eq!(from_dir, dir, "a rename from one directory to another is not modelled");
        let set = Some((to_name.to_owned(), node));
        self.change_names(dir, NameChange { removed: Some(from_name.to_owned()), set });
        self.forget_nameless(replaced);
    }

    /// The number of a file without a name may be used again.
    fn forget_nameless(&mut self, node: Option<Node>) {
        if let Some(Node::File(file)) = node
            && !self.dirs.iter().any(|dir| dir.now.values().any(|it| *it == Node::File(file)))
        {
            self.by_inode.retain(|_, it| *it != file);
        }
    }

    /// A file that is known under another name in the same directory has been renamed.
    fn opened(&mut self, path: &str, inode: u64) {
        let Some(known) = self.by_inode.get(&inode).map(|it| Node::File(*it)) else { return };
        if self.node(path).as_ref() == Some(&known) {
            return;
        }
        let dir = split(path).0;
        let names = &self.dirs[self.dir(dir)].now;
        let from = names.iter().find(|(_, node)| **node == known).map(|it| it.0.clone());
        let from = from.unwrap_or_else(|| panic!("{path} is a file that has its name in another directory"));
        self.rename(&format!("{dir}/{from}"), path);
    }

    fn link(&mut self, from: &str, to: &str) {
        let node = self.node(from).unwrap_or_else(|| panic!("{from} is not there"));
        let (dir, name) = split(to);
        self.change_names(dir, NameChange { removed: None, set: Some((name.to_owned(), node)) });
    }

    fn unlink(&mut self, path: &str) {
        let node = self.node(path);
        let (dir, name) = split(path);
        self.change_names(dir, NameChange { removed: Some(name.to_owned()), set: None });
        self.forget_nameless(node);
    }

    /// Does what the traced process did.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { path, inode, truncates } => self.create(path, *inode, *truncates),
            Change::Write { inode, offset, bytes } => {
                self.edit(*inode, Edit::Write { offset: *offset, bytes: bytes.as_slice().into() });
            }
            Change::Truncate { inode, len } => self.edit(*inode, Edit::Truncate { len: *len }),
            Change::Sync { path, inode } => self.sync(path, *inode),
            Change::Rename { from, to } => self.rename(from, to),
            Change::MakeDir { path } => {
                let (dir, name) = split(path);
                let node = Node::Dir(self.dirs.len());
                self.dirs.push(Dir::default());
                self.change_names(dir, NameChange { removed: None, set: Some((name.to_owned(), node)) });
            }
            Change::Link { from, to } => self.link(from, to),
            Change::Opened { path, inode } => self.opened(path, *inode),
            Change::Struck => {}
            Change::Unlink { path } | Change::RemoveDir { path } => self.unlink(path),
        }
    }

    /// Bytes and names that a loss of power could take back.
    pub fn unsafe_changes(&self) -> usize {
        self.dirs.iter().map(|it| it.unsafe_changes.len()).sum::<usize>()
            + self.files.iter().map(|it| it.unsafe_edits.len()).sum::<usize>()
    }

    /// Writes what is left after a loss of power into an empty directory; answers the disk that has it, where all of it
    /// is safe.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, left: Left, into: &Path) -> std::io::Result<Self> {
        let mut random = Random::new(match left {
            Left::Torn(seed) => seed,
            Left::Nothing | Left::Everything => 0,
        });
        let mut saved = Self::default();
        self.save_dir((0, &mut saved, 0), left, &mut random, into)?;
        Ok(saved)
    }

    /// Saves a directory as another one of `saved`.
    fn save_dir(
        &self,
        (dir, saved, to): (usize, &mut Self, usize),
        left: Left,
        random: &mut Random,
        into: &Path,
    ) -> std::io::Result<()> {
        let dir = &self.dirs[dir];
        let mut names = dir.safe.clone();
        let kept = match left {
            Left::Nothing => 0,
            Left::Everything => dir.unsafe_changes.len(),
            Left::Torn(_) => random.below(dir.unsafe_changes.len() + 1),
        };
        dir.unsafe_changes[..kept].iter().for_each(|change| change.apply(&mut names));
        for (name, node) in names {
            let path = into.join(&name);
            let node = match node {
                Node::Dir(dir) => {
                    let index = saved.dirs.len();
                    saved.dirs.push(Dir::default());
                    std::fs::create_dir(&path)?;
                    self.save_dir((dir, saved, index), left, random, &path)?;
                    Node::Dir(index)
                }
                Node::File(file) => {
                    let content = self.left_of(&self.files[file], left, random);
                    let inode = content.save(&path)?;
                    saved.add_file(content, inode)
                }
            };
            saved.dirs[to].add(name, node);
        }
        Ok(())
    }

    fn left_of(&self, file: &Data, left: Left, random: &mut Random) -> Content {
        let mut content = file.safe.clone();
        let edits = file.unsafe_edits.len();
        match left {
            Left::Nothing => {}
            Left::Everything => file.unsafe_edits.iter().for_each(|edit| content.edit(edit, || true)),
            Left::Torn(_) => {
                // The first ones whole, as a disk does that is nearly done, then each sector by chance.
                let whole = random.below(edits + 1);
                let percent = random.below(101);
                for (index, edit) in file.unsafe_edits.iter().enumerate() {
                    content.edit(edit, || index < whole || random.below(100) < percent);
                }
            }
        }
        content
    }
}

#[cfg(test)]
mod tests;
