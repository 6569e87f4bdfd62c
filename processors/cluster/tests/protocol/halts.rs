//! Where log and database do not fit together: each halts with its own code, and its repair works.

use crate::support::*;
use bytes::Bytes;
use tillstream_cluster::{From, accept_offsets, adopt_changelog, deployment_conflict, rebuild};
use tillstream_log::LogError;
use tillstream_log::broker::{Broker, GroupOffset};
use tillstream_schemas::Topic;
use tillstream_simulation::rows::Loss;
use tillstream_stage::Table;
use tillstream_state::row_store::{Deployment, RowStore, RowWrite, StateKey};

/// A deployment that has worked: five inputs, two rows, a checkpoint.
async fn worked(world: &World) -> Process {
    let process = world.bare("a").await;
    for n in 0..5 {
        world.send(&format!("t/k add 1 {n}"));
    }
    let mut life = process.open(0).await.unwrap();
    life.take(0, 10).await;
    life.commit_to(5).await.unwrap();
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("1"))]).await.unwrap();
    world.pass(seconds(60)).await;
    life.put("t/b", "2").await.unwrap();
    drop(life);
    process.sessions.flushed().await;
    process
}

/// After the repair of a deployment whose processes are gone.
async fn goes_on(world: &World, expected_next: u64) {
    let process = world.bare("after").await;
    let mut life = process.open(0).await.unwrap();
    assert_eq!(life.next, expected_next);
    assert_eq!((life.get("t/a").await.as_deref(), life.get("t/b").await.as_deref()), (Some("1"), Some("2")));
    life.put("t/b", "3").await.unwrap();
    world.pass(seconds(5)).await;
    assert_eq!(world.stored("t/b").as_deref(), Some("3"), "new values win");
    let verified = world.verified(&process, 0).await;
    assert_eq!((verified.different, verified.unflushed), (0, 0), "{:?}", verified.differences);
    world.pass(seconds(60)).await;
    drop(life);
    assert_eq!(process.open(0).await.unwrap().get("t/b").await.as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_is_gone_halts_and_is_accepted_anew() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.faults().drop_offset(GROUP, input(0));
    assert_eq!(process.halt_code(0).await, "TS0320");
    process.close().await;
    let outside = accept_offsets(&process.ports, task(0), From::Offset(9)).await;
    assert!(matches!(outside, Err(LogError::OutOfRange { asked: 9, .. })));
    let accepted = accept_offsets(&process.ports, task(0), From::Latest).await.unwrap();
    assert_eq!((accepted.before, accepted.offset), (None, 5));
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_a_coordinator_does_not_know_for_a_moment_halts_nobody() {
    let world = World::new(1);
    let process = worked(&world).await;
    let known = process.ports.broker.group_offsets(GROUP, &[input(0)]).await.unwrap().remove(0).unwrap();
    world.broker.faults().drop_offset(GROUP, input(0));
    let comes_back = async {
        world.pass(seconds(2)).await;
        world.broker.faults().put_offset(GROUP, input(0), known);
    };
    let (too_early, ()) = tokio::join!(process.open(0), comes_back);
    assert!(matches!(too_early, Err(LogError::LifeOver { .. })));
    process.open(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_recreated_input_halts() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.faults().recreate(Topic::OrderCommands);
    assert_eq!(process.halt_code(0).await, "TS0320");
    process.close().await;
    accept_offsets(&process.ports, task(0), From::Earliest).await.unwrap();
    goes_on(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn records_gone_before_they_were_read_halt() {
    let world = World::new(1);
    let process = worked(&world).await;
    for n in 0..5 {
        world.send(&format!("t/k add 1 {n}"));
    }
    world.broker.faults().trim(input(0), 8);
    assert_eq!(process.halt_code(0).await, "TS0321");
    process.close().await;
    let accepted = accept_offsets(&process.ports, task(0), From::Earliest).await.unwrap();
    assert_eq!((accepted.before, accepted.offset), (Some(5), 8));
    goes_on(&world, 8).await;
}

#[tokio::test(start_paused = true)]
async fn an_input_that_ends_before_the_offset_halts() {
    let world = World::new(1);
    let process = worked(&world).await;
    process.close().await;
    let beyond = GroupOffset { offset: 77, metadata: String::new() };
    world.broker.set_group_offset(GROUP, input(0), beyond).await.unwrap();
    assert_eq!(process.halt_code(0).await, "TS0322");
    accept_offsets(&process.ports, task(0), From::Offset(5)).await.unwrap();
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_recreated_changelog_halts_and_is_adopted_from_the_tables() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    assert_eq!(process.halt_code(0).await, "TS0323");
    process.close().await;
    assert_eq!(adopt_changelog(&process.ports, task(0)).await.unwrap(), 2);
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_changelog_recreated_before_the_first_checkpoint_halts_too() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("2"))]).await.unwrap();
    drop(life);
    process.sessions.flushed().await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    assert_eq!(process.halt_code(0).await, "TS0323");
    process.close().await;
    adopt_changelog(&process.ports, task(0)).await.unwrap();
    goes_on(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_life_after_an_adoption_tells_nothing_of_the_changelog_before() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    process.close().await;
    adopt_changelog(&process.ports, task(0)).await.unwrap();
    // It commits, and ends before its first checkpoint: the one of the adoption is less than what was told before.
    let process = world.bare("soon").await;
    process.open(0).await.unwrap().put("t/c", "1").await.unwrap();
    process.close().await;
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_right_after_a_repair_halts_nobody() {
    let world = World::new(1);
    let process = worked(&world).await;
    process.close().await;
    rebuild(&process.ports, |_| {}).await.unwrap();
    world.rows.faults().crash(Loss::All);
    goes_on(&world, 5).await;
    let process = world.bare("repairs").await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    adopt_changelog(&process.ports, task(0)).await.unwrap();
    world.rows.faults().crash(Loss::All);
    process.open(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_adoption_for_a_task_that_never_worked_leaves_its_first_start_alone() {
    let world = World::new(1);
    let process = world.bare("a").await;
    assert_eq!(adopt_changelog(&process.ports, task(0)).await.unwrap(), 0);
    let mut life = process.open(0).await.unwrap();
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("2"))]).await.unwrap();
    drop(life);
    process.close().await;
    goes_on(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_changelog_recreated_under_a_running_life_takes_no_commit() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("2"))]).await.unwrap();
    world.pass(seconds(60)).await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    assert!(is_over(&life.put("t/b", "lost").await));
    assert_eq!(process.halt_code(0).await, "TS0323");
}

#[tokio::test(start_paused = true)]
async fn an_adoption_that_was_cut_short_is_begun_again_and_its_generation_wins() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.faults().recreate(Topic::OrderChangelog);
    process.close().await;
    // Everything is in the log; the database is away when the checkpoint should follow.
    let rows = world.rows.faults();
    rows.fail(
        tillstream_simulation::rows::RowCall::PutCheckpoint,
        tillstream_simulation::rows::WriteFault::Nothing,
    );
    assert!(adopt_changelog(&process.ports, task(0)).await.is_err());
    adopt_changelog(&process.ports, task(0)).await.unwrap();
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn an_emptied_table_halts_and_is_rebuilt() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.rows.faults().truncate_table(Table::Order);
    assert_eq!(process.halt_code(0).await, "TS0325");
    process.close().await;
    let mut told = Vec::new();
    assert_eq!(rebuild(&process.ports, |it| told.push(it)).await.unwrap(), 2);
    assert!(told.iter().any(|it| it.written == 2));
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_from_a_compacted_changelog_whose_last_records_are_gone_is_not_taken_for_an_older_database()
{
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("2")), ("t/gone", Some("1"))]).await.unwrap();
    life.put_many(&[("t/gone", None)]).await.unwrap();
    world.pass(seconds(120)).await;
    life.commit_to(0).await.unwrap();
    drop(life);
    process.close().await;
    world.broker.faults().compact(Topic::OrderChangelog, true);
    rebuild(&process.ports, |_| {}).await.unwrap();
    goes_on(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_over_which_a_node_restarts_promises_nothing() {
    let world = World::new(1);
    let process = worked(&world).await;
    process.close().await;
    let (ports, crash) = (process.ports.clone(), world.rows.faults());
    let rebuilding = tokio::spawn(async move { rebuild(&ports, |_| {}).await });
    world.pass(seconds(5)).await;
    crash.crash(tillstream_simulation::rows::Loss::All);
    assert!(matches!(rebuilding.await.unwrap(), Err(LogError::Unavailable(_))));
    assert!(world.rows.checkpoints().is_empty());
    rebuild(&process.ports, |_| {}).await.unwrap();
    goes_on(&world, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_record_in_the_changelog_halts() {
    let world = World::new(1);
    let process = worked(&world).await;
    world.broker.append(changelog(0), "somebody else's", Some(b"x"));
    assert_eq!(process.halt_code(0).await, "TS0329");
}

#[tokio::test(start_paused = true)]
async fn a_partition_more_than_there_may_be_stops_its_start() {
    let world = World::new(1);
    let process = world.bare("a").await;
    world.broker.faults().set_partitions(Topic::OrderCommands, 2);
    assert_eq!(process.halt_code(1).await, "TS0327");
}

#[test]
fn two_deployments_or_other_partitions_on_one_keyspace_are_a_conflict() {
    let ours = Deployment {
        name: "test".into(),
        cluster_id: "c1".into(),
        partitions: 4,
        buckets: 16,
        rebuilding: false,
    };
    let code =
        |theirs: Deployment| deployment_conflict(&theirs, &ours).map_or_else(|it| it.code(), |()| "none");
    assert_eq!(code(ours.clone()), "none");
    assert_eq!(code(Deployment { name: "other".into(), ..ours.clone() }), "TS0326");
    assert_eq!(code(Deployment { cluster_id: "c2".into(), ..ours.clone() }), "TS0326");
    assert_eq!(code(Deployment { partitions: 5, ..ours.clone() }), "TS0327");
    assert_eq!(code(Deployment { rebuilding: true, ..ours.clone() }), "TS0328");
}

#[tokio::test(start_paused = true)]
async fn verify_names_what_differs() {
    let world = World::new(1);
    let process = worked(&world).await;
    let write = |key: &str, value: Option<&'static str>| RowWrite {
        key: StateKey::Row(row(key)),
        value: value.map(|it| Bytes::from_static(it.as_bytes())),
        timestamp: 5 << 40,
    };
    let writes = [write("t/a", None), write("t/b", Some("other")), write("t/c", Some("extra"))];
    // What is behind the checkpoint may not have been flushed: the checkpoint has to be past it.
    let mut life = process.open(0).await.unwrap();
    life.put("t/d", "1").await.unwrap();
    world.pass(seconds(60)).await;
    world.rows.write(task(0), &writes).await.unwrap();
    let verified = world.verified(&process, 0).await;
    let named: Vec<String> = verified.differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        named,
        [
            "order/t/a: missing in the database",
            "order/t/b: another value in the database",
            "order/t/c: not in the changelog",
        ]
    );
}
