//! What is left of a disk.

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
fn what_was_saved_is_safe_and_goes_on() {
    let start = [create("a", 1), write(1, 0, b"old"), sync("a", 1), sync("", 9), write(1, 0, b"new")];
    let dir = tempfile::tempdir().unwrap();
    let mut saved = disk(&start).save(Left::Everything, dir.path()).unwrap();
    assert_eq!(saved.unsafe_changes(), 0);
    assert_eq!(left(&saved, Left::Nothing), files(&[("a", b"new")]));
    assert_eq!(left(&Disk::load(dir.path()).unwrap(), Left::Nothing), files(&[("a", b"new")]));
    let inode = std::fs::metadata(dir.path().join("a")).unwrap().ino();
    saved.apply(&write(inode, 3, b"er"));
    assert_eq!(left(&saved, Left::Nothing), files(&[("a", b"new")]));
    assert_eq!(left(&saved, Left::Everything), files(&[("a", b"newer")]));
}

#[test]
fn a_rename_that_nobody_saw_shows_when_the_file_is_opened() {
    let opened = |path: &str| Change::Opened { path: path.into(), inode: 1 };
    let mut disk = disk(&[create("a", 1), sync("", 9), opened("a"), opened("b")]);
    assert_eq!(left(&disk, Left::Nothing), files(&[("a", b"")]));
    assert_eq!(left(&disk, Left::Everything), files(&[("b", b"")]));
    disk.apply(&sync("", 9));
    assert_eq!(left(&disk, Left::Nothing), files(&[("b", b"")]));
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
