//! The embedded store keeps every promise of log and state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Dir;
use std::sync::Arc;
use tillstream_conformance::{commit_suite, keys_suite, log_suite, state_suite};
use tillstream_embedded::EmbeddedStore;

async fn on_new_stores(tail_bytes: usize, suite: impl AsyncFn(&dyn Fn() -> Arc<EmbeddedStore>)) {
    let dirs = std::cell::RefCell::new(Vec::new());
    let make = || {
        let dir = Dir::new();
        let mut settings = dir.settings();
        settings.tail_bytes = tail_bytes;
        let store = EmbeddedStore::open(settings).unwrap();
        dirs.borrow_mut().push(dir);
        store
    };
    suite(&make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_in_memory() {
    on_new_stores(32 << 20, async |make| log_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_on_disk() {
    on_new_stores(0, async |make| log_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state() {
    on_new_stores(32 << 20, async |make| state_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits() {
    on_new_stores(32 << 20, async |make| commit_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys() {
    on_new_stores(32 << 20, async |make| keys_suite(async || make()).await).await;
}
