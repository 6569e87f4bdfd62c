//! What every commit promises.

use crate::{ORDER_0, all_of, commit_of, events, key_of, keys_of, record, row, row_key, values};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use tillstream_log::{Log, LogError};
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, Table, TimerName};
use tillstream_state::{Commit, State, TaskCommit, TaskId, Timer};

/// Runs every case on a store of its own.
pub async fn commit_suite<S: Log + State + Commit + 'static>(make: impl AsyncFn() -> Arc<S>) {
    a_commit_takes_effect_as_a_whole(&*make().await).await;
    a_fenced_commit_has_no_effect_at_all(&*make().await).await;
    a_commit_with_a_wrong_output_has_no_effect_at_all(&*make().await).await;
    of_two_owners_exactly_one_goes_on(make().await).await;
    timers_alone_do_not_move_the_offset(&*make().await).await;
    tasks_are_independent(make().await).await;
}

/// Outputs to two partitions, a row of this key and a timer.
fn full(key: &str, from: u64, next: u64) -> TaskCommit {
    let mut commit = commit_of(ORDER_0, from, next);
    commit.outputs = vec![record(events(0), "k", &format!("out {next}")), record(events(1), "k", "other")];
    commit.rows = vec![row(Table::Order, key, &format!("row {next}"))];
    commit.timers_set = vec![Timer { due_ms: next as i64, key: Key::new(key), name: TimerName::HoldExpiry }];
    commit
}

async fn a_commit_takes_effect_as_a_whole<S: Log + State + Commit>(store: &S) {
    let key = &key_of(store, "demo/a");
    store.commit(full(key, 0, 5)).await.unwrap();
    store.commit(full(key, 5, 9)).await.unwrap();
    assert_eq!(store.committed(ORDER_0).await, Ok(9));
    assert_eq!(values(&all_of(store, events(0)).await), ["out 5", "out 9"]);
    assert_eq!(values(&all_of(store, events(1)).await), ["other", "other"]);
    let row = store.get_many(&[row_key(Table::Order, key)]).await.unwrap();
    assert_eq!(row, [Some(Bytes::from_static(b"row 9"))]);
    assert_eq!(store.timers_due(ORDER_0, 0, 100, 10).await.unwrap().len(), 2);
}

async fn a_fenced_commit_has_no_effect_at_all<S: Log + State + Commit>(store: &S) {
    let key = &key_of(store, "demo/a");
    store.commit(full(key, 0, 5)).await.unwrap();
    for from in [0, 4, 6] {
        let error = store.commit(full(key, from, 7)).await.unwrap_err();
        assert!(ends_the_life(&error), "{error}");
    }
    assert_eq!(store.committed(ORDER_0).await, Ok(5));
    assert_eq!(values(&all_of(store, events(0)).await), ["out 5"]);
    let row = store.get_many(&[row_key(Table::Order, key)]).await.unwrap();
    assert_eq!(row, [Some(Bytes::from_static(b"row 5"))]);
    assert_eq!(store.timers_due(ORDER_0, 0, 100, 10).await.unwrap().len(), 1);
    store.commit(full(key, 5, 7)).await.unwrap();
}

/// What a commit says whose owner is not, or no longer, the task's: it must begin again from what is committed.
fn ends_the_life(error: &LogError) -> bool {
    match error {
        LogError::Fenced { task, .. } | LogError::LifeOver { task, .. } => task == "order.0",
        _ => false,
    }
}

async fn a_commit_with_a_wrong_output_has_no_effect_at_all<S: Log + State + Commit>(store: &S) {
    let beyond = events(store.partitions(events(0).topic));
    let key = &key_of(store, "demo/a");
    let mut commit = full(key, 0, 5);
    commit.outputs.push(record(beyond, "k", "v"));
    assert_eq!(store.commit(commit).await, Err(LogError::NoSuchPartition(beyond)));
    assert_eq!(store.committed(ORDER_0).await, Ok(0));
    assert_eq!(all_of(store, events(0)).await, Vec::new());
    assert_eq!(store.get_many(&[row_key(Table::Order, key)]).await, Ok(vec![None]));
    let nobody = TaskId { kind: TaskKind::Order, partition: beyond.partition };
    assert!(store.commit(commit_of(nobody, 0, 1)).await.is_err());
    store.commit(full(key, 0, 5)).await.unwrap();
}

async fn of_two_owners_exactly_one_goes_on<S: Log + State + Commit + 'static>(store: Arc<S>) {
    for round in 0..20 {
        let keys: Vec<String> =
            keys_of(&*store, ORDER_0, Table::Order, &format!("demo/{round}/")).take(4).collect();
        let owners = keys.iter().map(|key| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let mut commit = commit_of(ORDER_0, round, round + 1);
                commit.outputs = vec![record(events(0), "k", &format!("round {round}"))];
                commit.rows = vec![row(Table::Order, &key, "mine")];
                store.commit(commit).await
            })
        });
        let results: Vec<_> = join_all(owners).await.into_iter().map(Result::unwrap).collect();
        let won = results.iter().filter(|it| it.is_ok()).count();
        let lost = results.iter().filter(|it| it.as_ref().is_err_and(ends_the_life)).count();
        assert_eq!((won, lost), (1, 3), "{results:?}");
        let keys: Vec<_> = keys.iter().map(|key| row_key(Table::Order, key)).collect();
        let rows = store.get_many(&keys).await.unwrap();
        let there: Vec<bool> = rows.iter().map(Option::is_some).collect();
        let expected: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(there, expected, "only the winner's row is there");
    }
    let rounds: Vec<_> = (0..20).map(|round| format!("round {round}")).collect();
    assert_eq!(values(&all_of(&*store, events(0)).await), rounds);
}

async fn timers_alone_do_not_move_the_offset<S: Log + State + Commit>(store: &S) {
    let key = &key_of(store, "demo/a");
    store.commit(commit_of(ORDER_0, 0, 3)).await.unwrap();
    let mut fired = commit_of(ORDER_0, 3, 3);
    fired.rows = vec![row(Table::Order, key, "expired")];
    store.commit(fired).await.unwrap();
    assert_eq!(store.committed(ORDER_0).await, Ok(3));
    assert!(store.get_many(&[row_key(Table::Order, key)]).await.unwrap()[0].is_some());
}

async fn tasks_are_independent<S: Log + State + Commit + 'static>(store: Arc<S>) {
    let tasks: Vec<_> = TaskKind::ALL
        .into_iter()
        .flat_map(|kind| (0..2).map(move |partition| TaskId { kind, partition }))
        .collect();
    let runs = tasks.iter().map(|task| {
        let (store, task) = (store.clone(), *task);
        // Not every kind of task keeps rows.
        let table = Table::ALL.into_iter().find(|it| it.kind() == task.kind);
        let keys: Vec<_> = table
            .iter()
            .flat_map(|table| keys_of(&*store, task, *table, "demo").take(10).map(|it| row_key(*table, &it)))
            .collect();
        tokio::spawn(async move {
            for offset in 0..10 {
                let mut commit = commit_of(task, offset, offset + 1);
                commit.outputs = vec![record(events(0), &task.to_string(), &offset.to_string())];
                let key = keys.get(offset as usize).cloned();
                commit.rows = key.map(|it| (it, Some(Bytes::from_static(b"v")))).into_iter().collect();
                store.commit(commit).await.unwrap();
            }
            let rows = store.get_many(&keys).await.unwrap();
            assert!(rows.iter().all(|it| it.as_deref() == Some(b"v")), "{task}: {rows:?}");
        })
    });
    join_all(runs).await.into_iter().for_each(|run| run.unwrap());
    // Events are some task's input: a cluster has it filled before.
    let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    let mut read = all_of(&*store, events(0)).await;
    read.retain(|it| names.iter().any(|name| it.key == name.as_bytes()));
    assert_eq!(read.len(), 10 * tasks.len());
    for task in tasks {
        assert_eq!(store.committed(task).await, Ok(10));
        let own: Vec<_> = read.iter().filter(|it| it.key == task.to_string().as_bytes()).cloned().collect();
        assert_eq!(values(&own), (0..10).map(|it| it.to_string()).collect::<Vec<_>>(), "{task}");
    }
}
