use super::*;
use fjall::{CompressionType, Database, KeyspaceCreateOptions, PersistMode};
use proptest::prelude::*;
use std::sync::LazyLock;

/// A journal as fjall writes it: twelve batches of up to 60 kB.
static JOURNAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let builder = Database::builder(dir.path()).manual_journal_persist(true);
    let db = builder.journal_compression(CompressionType::None).open().unwrap();
    let keyspace = db.keyspace("log", KeyspaceCreateOptions::default).unwrap();
    for n in 0..12_u8 {
        let mut batch = db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&keyspace, [n], vec![n + 1; usize::from(n) * 5_000]);
        batch.insert(&keyspace, b"same", [n]);
        batch.remove(&keyspace, [n.wrapping_sub(1)]);
        batch.commit().unwrap();
    }
    let bytes = std::fs::read(dir.path().join("0.jnl")).unwrap();
    bytes[..bytes.iter().rposition(|it| *it != 0).unwrap() + 1].to_vec()
});

/// Where batches end.
fn ends() -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(length) = batch::length(&JOURNAL[ends[ends.len() - 1]..]) {
        ends.push(ends[ends.len() - 1] + length);
    }
    ends
}

#[test]
fn a_journal_as_fjall_writes_it_is_whole() {
    assert_eq!(ends().len(), 13, "twelve batches");
    assert_eq!(inspect(&JOURNAL), Finding::Whole);
    assert_eq!(inspect(&[JOURNAL.as_slice(), &[0; 9_000]].concat()), Finding::Whole);
    assert_eq!(inspect(&[]), Finding::Whole);
}

proptest! {
    #[test]
    fn a_journal_that_ends_anywhere_is_whole_or_torn_where_its_last_whole_batch_ends(cut in 0..JOURNAL.len()) {
        let end = ends().into_iter().rfind(|it| *it <= cut).unwrap();
        let found = inspect(&JOURNAL[..cut]);
        let nothing_left = JOURNAL[end..cut].iter().all(|it| *it == 0);
        prop_assert_eq!(found, if nothing_left { Finding::Whole } else { Finding::Torn { at: end } });
    }

    #[test]
    fn a_flipped_bit_is_damage_unless_it_is_in_the_last_batch(at in 0..JOURNAL.len(), bit in 0..8) {
        let mut bytes = JOURNAL.clone();
        bytes[at] ^= 1_u8 << bit;
        let ends = ends();
        let index = ends.iter().rposition(|it| *it <= at).unwrap();
        // The number of a batch is under no checksum.
        prop_assume!(!(5..13).contains(&(at - ends[index])));
        let expected = match ends.get(index + 1) {
            Some(next) if *next < bytes.len() => Finding::Damaged { at: ends[index], next: *next },
            _ => Finding::Torn { at: ends[index] },
        };
        prop_assert_eq!(inspect(&bytes), expected);
    }

    #[test]
    fn a_sector_that_never_arrived_in_the_last_batch_is_a_torn_end(sector in 0..120_usize) {
        let mut bytes = JOURNAL.clone();
        let start = ends()[11];
        let from = start + sector * 512;
        prop_assume!(from < bytes.len() && bytes[from..].iter().take(512).any(|it| *it != 0));
        let to = (from + 512).min(bytes.len());
        bytes[from..to].fill(0);
        prop_assert_eq!(inspect(&bytes), Finding::Torn { at: start });
    }

    #[test]
    fn any_bytes_are_judged(bytes: Vec<u8>) {
        let found = inspect(&bytes);
        prop_assert!(found == Finding::Whole || bytes.iter().any(|it| *it != 0));
    }
}

fn database(journals: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in journals {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn only_a_torn_end_of_the_newest_journal_is_cut() {
    let ends = ends();
    let torn = &JOURNAL[..ends[12] - 3];
    let dir = database(&[("9.jnl", &JOURNAL), ("10.jnl", torn), ("lock", b"")]);
    mend(dir.path()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("10.jnl")).unwrap(), &JOURNAL[..ends[11]]);
    let dir = database(&[("9.jnl", torn), ("10.jnl", &JOURNAL)]);
    let error = mend(dir.path()).unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { at, .. } if *at == ends[11]), "{error}");
    let mut damaged = JOURNAL.clone();
    damaged[ends[3] + 40] ^= 1;
    let dir = database(&[("0.jnl", &damaged)]);
    let error = mend(dir.path()).unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { at, .. } if *at == ends[3]), "{error}");
    assert_eq!(std::fs::read(dir.path().join("0.jnl")).unwrap(), damaged, "it is left as it was");
    mend(&dir.path().join("absent")).unwrap();
}

/// What this crate is for: fjall by itself does neither.
#[test]
fn fjall_opens_what_was_mended() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Database::builder(dir.path()).journal_compression(CompressionType::None);
    let open = || builder().manual_journal_persist(true).open();
    {
        let db = open().unwrap();
        let keyspace = db.keyspace("log", KeyspaceCreateOptions::default).unwrap();
        for n in 0..2_u8 {
            let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&keyspace, [n], vec![7; 4_000]);
            batch.commit().unwrap();
        }
    }
    let path = dir.path().join("0.jnl");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = batch::length(&bytes).unwrap();
    bytes[second + 1_000..second + 1_512].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert!(open().is_err(), "fjall learned it: this crate may go");
    mend(dir.path()).unwrap();
    let db = open().unwrap();
    let keyspace = db.keyspace("log", KeyspaceCreateOptions::default).unwrap();
    assert!(keyspace.get([0]).unwrap().is_some() && keyspace.get([1]).unwrap().is_none());
}

/// What fjall makes before the file `version`, in its order.
fn begun(made: usize) -> tempfile::TempDir {
    let dir = database(&[]);
    let path = |name: &str| dir.path().join(name);
    let steps: [&dyn Fn(); 4] = [
        &|| std::fs::write(path("lock"), b"").unwrap(),
        &|| std::fs::create_dir(path("keyspaces")).unwrap(),
        &|| std::fs::write(path("0.jnl"), [0; 4_096]).unwrap(),
        &|| std::fs::write(path("version"), b"").unwrap(),
    ];
    steps.iter().take(made).for_each(|step| step());
    dir
}

/// What this is for: fjall by itself cannot open what its own creation leaves when it is cut off.
#[test]
fn a_creation_that_was_cut_off_anywhere_begins_anew() {
    let mut refused_by_fjall = 0;
    for made in 0..=4 {
        refused_by_fjall += usize::from(Database::builder(begun(made).path()).open().is_err());
        let dir = begun(made);
        prepare(dir.path()).unwrap();
        let db = Database::builder(dir.path()).open().unwrap_or_else(|error| panic!("after {made}: {error}"));
        let keyspace = db.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        keyspace.insert("a", "b").unwrap();
        db.persist(PersistMode::SyncAll).unwrap();
        drop((keyspace, db));
        prepare(dir.path()).unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        assert!(keyspace.get("a").unwrap().is_some(), "a finished one keeps what it holds");
    }
    assert!(refused_by_fjall > 0, "fjall learned it: this may go");
}

#[test]
fn a_database_that_holds_data_is_never_begun_anew() {
    type Put = fn(&Path);
    let cases: [(&str, Put); 2] = [
        ("a batch", |dir| std::fs::write(dir.join("0.jnl"), &*JOURNAL).unwrap()),
        ("a keyspace", |dir| std::fs::create_dir_all(dir.join("keyspaces/1")).unwrap()),
    ];
    for (name, put) in cases {
        for made in 0..=4 {
            let dir = begun(made);
            put(dir.path());
            let error = prepare(dir.path()).unwrap_err();
            assert!(matches!(error, JournalError::NoVersion { .. }), "{name} after {made}: {error}");
        }
    }
    let dir = begun(3);
    std::fs::write(dir.path().join("0.jnl"), &*JOURNAL).unwrap();
    prepare(dir.path()).unwrap_err();
    assert_eq!(std::fs::read(dir.path().join("0.jnl")).unwrap(), *JOURNAL, "it is left as it was");
}

#[test]
fn what_another_has_open_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    let error = prepare(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    drop(db);
    prepare(dir.path()).unwrap();
}
