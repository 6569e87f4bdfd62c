//! A disk that has not written everything yet: what a loss of power can leave of it.
//!
//! A file's bytes are safe once the file is synced, a name once its directory is. All else may be there or not: names in
//! the order they were made, directory by directory; bytes sector by sector, in any order. That is what POSIX promises,
//! and less than any file system in use keeps.

use super::trace::Change;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
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

    fn save(&self, path: &Path) -> std::io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len)?;
        for (index, sector) in &self.sectors {
            let from = index * SECTOR_BYTES as u64;
            let len = SECTOR_BYTES.min(self.len.saturating_sub(from) as usize);
            file.write_all_at(&sector[..len], from)?;
        }
        Ok(())
    }
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
        let ((from_dir, from_name), (dir, to_name)) = (split(from), split(to));
        assert_eq!(from_dir, dir, "a rename from one directory to another is not modelled");
        let set = Some((to_name.to_owned(), node));
        self.change_names(dir, NameChange { removed: Some(from_name.to_owned()), set });
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
        if let Some(Node::File(file)) = node
            && !self.dirs.iter().any(|dir| dir.now.values().any(|it| *it == Node::File(file)))
        {
            self.by_inode.retain(|_, it| *it != file);
        }
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
            Change::Unlink { path } | Change::RemoveDir { path } => self.unlink(path),
        }
    }

    /// Bytes and names that a loss of power could take back.
    pub fn unsafe_changes(&self) -> usize {
        self.dirs.iter().map(|it| it.unsafe_changes.len()).sum::<usize>()
            + self.files.iter().map(|it| it.unsafe_edits.len()).sum::<usize>()
    }

    /// Writes what is left after a loss of power into an empty directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, left: Left, into: &Path) -> std::io::Result<()> {
        let mut random = Random::new(match left {
            Left::Torn(seed) => seed,
            Left::Nothing | Left::Everything => 0,
        });
        self.save_dir(0, left, &mut random, into)
    }

    fn save_dir(&self, dir: usize, left: Left, random: &mut Random, into: &Path) -> std::io::Result<()> {
        let dir = &self.dirs[dir];
        let mut names = dir.safe.clone();
        let kept = match left {
            Left::Nothing => 0,
            Left::Everything => dir.unsafe_changes.len(),
            Left::Torn(_) => random.below(dir.unsafe_changes.len() + 1),
        };
        dir.unsafe_changes[..kept].iter().for_each(|change| change.apply(&mut names));
        for (name, node) in names {
            let path = into.join(name);
            match node {
                Node::Dir(dir) => {
                    std::fs::create_dir(&path)?;
                    self.save_dir(dir, left, random, &path)?;
                }
                Node::File(file) => self.left_of(&self.files[file], left, random).save(&path)?,
            }
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
mod tests {
    use super::*;

    fn disk(changes: &[Change]) -> Disk {
        let mut disk = Disk::default();
        changes.iter().for_each(|it| disk.apply(it));
        disk
    }

    fn left(disk: &Disk, left: Left) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        disk.save(left, dir.path()).unwrap();
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap());
        let files = entries.filter(|it| it.file_type().unwrap().is_file());
        files.map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap())).collect()
    }

    fn create(path: &str, inode: u64) -> Change {
        Change::Create { path: path.into(), inode, truncates: true }
    }

    fn write(inode: u64, offset: u64, bytes: &[u8]) -> Change {
        Change::Write { inode, offset, bytes: bytes.to_vec() }
    }

    fn sync(path: &str, inode: u64) -> Change {
        Change::Sync { path: path.into(), inode }
    }

    fn files(expected: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        expected.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
    }

    #[test]
    fn a_file_with_two_names_stays_until_it_has_lost_both() {
        let link = Change::Link { from: "a".into(), to: "b".into() };
        let unlink = |path: &str| Change::Unlink { path: path.into() };
        let start = [create("a", 1), write(1, 0, b"key"), sync("a", 1), link, unlink("a"), write(1, 3, b"s")];
        let mut disk = disk(&start);
        assert_eq!(left(&disk, Left::Everything), files(&[("b", b"keys")]));
        disk.apply(&unlink("b"));
        assert_eq!(left(&disk, Left::Everything), files(&[]));
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() {
        let start = [create("a", 1), write(1, 0, b"old"), sync("a", 1), sync("", 9), write(1, 0, b"new")];
        let disk = disk(&start);
        assert_eq!(left(&disk, Left::Nothing), files(&[("a", b"old")]));
        assert_eq!(left(&disk, Left::Everything), files(&[("a", b"new")]));
    }

    #[test]
    fn a_name_needs_the_sync_of_its_directory() {
        let mut disk = disk(&[create("a", 1), write(1, 0, b"x"), sync("a", 1)]);
        assert_eq!(left(&disk, Left::Nothing), files(&[]));
        disk.apply(&sync("", 9));
        assert_eq!(left(&disk, Left::Nothing), files(&[("a", b"x")]));
        disk.apply(&Change::Rename { from: "a".into(), to: "b".into() });
        assert_eq!(left(&disk, Left::Nothing), files(&[("a", b"x")]));
        assert_eq!(left(&disk, Left::Everything), files(&[("b", b"x")]));
        assert_eq!(disk.unsafe_changes(), 1);
    }

    #[test]
    fn a_torn_write_keeps_sectors_whole() {
        let old = [b'o'; 4 * SECTOR_BYTES];
        let new = [b'n'; 4 * SECTOR_BYTES];
        let disk = disk(&[create("a", 1), write(1, 0, &old), sync("a", 1), sync("", 9), write(1, 0, &new)]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let bytes = left(&disk, Left::Torn(seed)).remove("a").unwrap();
            let sectors: Vec<u8> = bytes
                .chunks(SECTOR_BYTES)
                .map(|it| {
                    assert!(it.iter().all(|byte| *byte == it[0]), "a sector is torn");
                    it[0]
                })
                .collect();
            seen.insert(sectors);
        }
        assert!(seen.len() > 10, "only {} kinds of torn", seen.len());
    }

    #[test]
    fn a_number_that_is_used_again_is_another_file() {
        let disk = disk(&[
            create("a", 1),
            write(1, 0, b"first"),
            Change::Unlink { path: "a".into() },
            create("b", 1),
            write(1, 0, b"second"),
            Change::Truncate { inode: 1, len: 3 },
        ]);
        assert_eq!(left(&disk, Left::Everything), files(&[("b", b"sec")]));
    }
}
