//! Compiled code on disk: whose it is, and what is not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tillstream_rule_host::{ArtifactCache, Pool, RuleEngine, RuleHostError, digest};
use tillstream_rule_modules::off;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// The one file of compiled code.
fn code(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
    let code: Vec<PathBuf> = files.filter(|it| it.extension().is_some_and(|it| it == "cwasm")).collect();
    assert_eq!(code.len(), 1, "{code:?}");
    code[0].clone()
}

#[test]
fn code_is_kept_for_its_module_and_engine_and_damaged_or_strange_code_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("caches").join("rules");
    let (engine, module) = (RuleEngine::new(Pool::OnDemand).unwrap(), off(5));
    let (digest, compiled) = (digest(&module), engine.compile(&module).unwrap());
    let cache = ArtifactCache::open(&dir).unwrap();
    assert!(cache.get(&engine, &digest).is_none());
    cache.put(&engine, &digest, &compiled).unwrap();
    assert!(ArtifactCache::open(&dir).unwrap().get(&engine, &digest).is_some(), "also for the next process");

    let path = code(&dir);
    let kept = fs::read(&path).unwrap();
    let another = dir.join(format!("{}-{}.cwasm", "0".repeat(64), engine.version()));
    fs::copy(&path, &another).unwrap();
    assert!(cache.get(&engine, &"0".repeat(64)).is_none(), "the code of another module");
    fs::remove_file(&another).unwrap();
    for at in [0, kept.len() / 2, kept.len() - 1] {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(cache.get(&engine, &digest).is_none(), "damaged at {at}");
    }
    fs::write(&path, &kept).unwrap();
    fs::remove_file(dir.join("seal.key")).unwrap();
    assert!(ArtifactCache::open(&dir).unwrap().get(&engine, &digest).is_none(), "sealed by another key");
}

#[test]
fn others_are_shut_out_and_what_is_another_users_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("rules");
    ArtifactCache::open(&dir).unwrap();
    let key = dir.join("seal.key");
    assert_eq!((mode(&dir), mode(&key)), (0o700, 0o600));
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o666)).unwrap();
    ArtifactCache::open(&dir).unwrap();
    assert_eq!((mode(&dir), mode(&key)), (0o700, 0o600));

    // Only root can give a file away; anybody else finds the root folder to be another user's.
    let (foreign, nobody) = (Path::new("/"), Some(65_534));
    let refused = |dir: &Path| match ArtifactCache::open(dir) {
        Err(RuleHostError::Cache { error, .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    if chown(&key, nobody, None).is_ok() {
        assert!(refused(&dir).contains("another user"));
        chown(&dir, nobody, None).unwrap();
        assert!(refused(&dir).contains("another user"));
    } else {
        assert!(refused(foreign).contains("another user"));
    }
}
