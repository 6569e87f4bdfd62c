//! What every commit promises.

use crate::{EVERYTHING, ORDER_0, commit_of, events, record, row, row_key, values};
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

fn full(from: u64, next: u64) -> TaskCommit {
    let mut commit = commit_of(ORDER_0, from, next);
    commit.outputs = vec![record(events(0), "k", &format!("out {next}")), record(events(1), "k", "other")];
    commit.rows = vec![row(Table::Order, "demo/a", &format!("row {next}"))];
    commit.timers_set =
        vec![Timer { due_ms: next as i64, key: Key::new("demo/a"), name: TimerName::HoldExpiry }];
    commit
}

async fn a_commit_takes_effect_as_a_whole<S: Log + State + Commit>(store: &S) {
    store.commit(full(0, 5)).await.unwrap();
    store.commit(full(5, 9)).await.unwrap();
    assert_eq!(store.committed(ORDER_0).await, Ok(9));
    assert_eq!(values(&store.read(events(0), 0, EVERYTHING).await.unwrap()), ["out 5", "out 9"]);
    assert_eq!(store.end_offset(events(1)), Ok(2));
    let row = store.get_many(&[row_key(Table::Order, "demo/a")]).await.unwrap();
    assert_eq!(row, [Some(Bytes::from_static(b"row 9"))]);
    assert_eq!(store.timers_due(ORDER_0, 0, 100, 10).await.unwrap().len(), 2);
}

async fn a_fenced_commit_has_no_effect_at_all<S: Log + State + Commit>(store: &S) {
    store.commit(full(0, 5)).await.unwrap();
    for from in [0, 4, 6] {
        let error = store.commit(full(from, 7)).await.unwrap_err();
        let expected = LogError::Fenced { task: "order.0".to_owned(), expected: from, found: 5 };
        assert_eq!(error, expected);
    }
    assert_eq!(store.committed(ORDER_0).await, Ok(5));
    assert_eq!(values(&store.read(events(0), 0, EVERYTHING).await.unwrap()), ["out 5"]);
    let row = store.get_many(&[row_key(Table::Order, "demo/a")]).await.unwrap();
    assert_eq!(row, [Some(Bytes::from_static(b"row 5"))]);
    assert_eq!(store.timers_due(ORDER_0, 0, 100, 10).await.unwrap().len(), 1);
    store.commit(full(5, 7)).await.unwrap();
}

async fn a_commit_with_a_wrong_output_has_no_effect_at_all<S: Log + State + Commit>(store: &S) {
    let beyond = events(store.partitions(events(0).topic));
    let mut commit = full(0, 5);
    commit.outputs.push(record(beyond, "k", "v"));
    assert_eq!(store.commit(commit).await, Err(LogError::NoSuchPartition(beyond)));
    assert_eq!(store.committed(ORDER_0).await, Ok(0));
    assert_eq!(store.end_offset(events(0)), Ok(0));
    assert_eq!(store.get_many(&[row_key(Table::Order, "demo/a")]).await, Ok(vec![None]));
    let nobody = TaskId { kind: TaskKind::Order, partition: beyond.partition };
    assert!(matches!(store.commit(commit_of(nobody, 0, 1)).await, Err(LogError::NoSuchPartition(_))));
}

async fn of_two_owners_exactly_one_goes_on<S: Log + State + Commit + 'static>(store: Arc<S>) {
    for round in 0..20 {
        let owners = (0..4).map(|owner| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut commit = commit_of(ORDER_0, round, round + 1);
                commit.outputs = vec![record(events(0), "k", &format!("round {round}"))];
                commit.rows = vec![row(Table::Order, &format!("demo/{round}/{owner}"), "mine")];
                store.commit(commit).await
            })
        });
        let results: Vec<_> = join_all(owners).await.into_iter().map(Result::unwrap).collect();
        let won = results.iter().filter(|it| it.is_ok()).count();
        let fenced = results.iter().filter(|it| matches!(it, Err(LogError::Fenced { .. }))).count();
        assert_eq!((won, fenced), (1, 3), "{results:?}");
        let page = store.scan(Table::Order, &format!("demo/{round}/"), None, 10).await.unwrap();
        assert_eq!(page.rows.len(), 1, "only the winner's row is there");
    }
    assert_eq!(store.end_offset(events(0)), Ok(20));
}

async fn timers_alone_do_not_move_the_offset<S: State + Commit>(store: &S) {
    store.commit(commit_of(ORDER_0, 0, 3)).await.unwrap();
    let mut fired = commit_of(ORDER_0, 3, 3);
    fired.rows = vec![row(Table::Order, "demo/a", "expired")];
    store.commit(fired).await.unwrap();
    assert_eq!(store.committed(ORDER_0).await, Ok(3));
    assert!(store.get_many(&[row_key(Table::Order, "demo/a")]).await.unwrap()[0].is_some());
}

async fn tasks_are_independent<S: Log + State + Commit + 'static>(store: Arc<S>) {
    let tasks: Vec<_> = TaskKind::ALL
        .into_iter()
        .flat_map(|kind| (0..2).map(move |partition| TaskId { kind, partition }))
        .collect();
    let runs = tasks.iter().map(|task| {
        let (store, task) = (store.clone(), *task);
        tokio::spawn(async move {
            for offset in 0..10 {
                let mut commit = commit_of(task, offset, offset + 1);
                commit.outputs = vec![record(events(0), &task.to_string(), &offset.to_string())];
                commit.rows = vec![row(Table::Order, &format!("{task}/{offset}"), "v")];
                store.commit(commit).await.unwrap();
            }
        })
    });
    join_all(runs).await.into_iter().for_each(|run| run.unwrap());
    let read = store.read(events(0), 0, EVERYTHING).await.unwrap();
    assert_eq!(read.len(), 10 * tasks.len());
    for task in tasks {
        assert_eq!(store.committed(task).await, Ok(10));
        let own: Vec<_> = read.iter().filter(|it| it.key == task.to_string().as_bytes()).cloned().collect();
        assert_eq!(values(&own), (0..10).map(|it| it.to_string()).collect::<Vec<_>>(), "{task}");
    }
}
