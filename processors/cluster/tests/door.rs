//! What the HTTP door and a stop see of a database that does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, ClusterProgress, ClusterSettings, ClusterState, NodeWatch, PatientState,
    TokioSpawner, stopped_within,
};
use tillstream_log::{LogError, TopicPartition};
use tillstream_runtime::{Clock, Metrics};
use tillstream_schemas::Topic;
use tillstream_simulation::{RowSettings, SimBroker, SimClock, SimRows, SimSettings};
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{State, TaskId};
use tokio::sync::watch;

const PARTITIONS: u32 = 2;
/// Longer than anybody waits.
const SILENT: Duration = Duration::from_secs(3_600);
/// What a read may take.
const SOON_NS: u64 = 2_500_000_000;

struct World {
    clock: Arc<SimClock>,
    broker: SimBroker,
    rows: SimRows,
    ports: ClusterPorts,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(SimClock::default());
        let broker = SimBroker::new(SimSettings::new(PARTITIONS, 1, clock.clone()));
        let rows = SimRows::new(RowSettings::new(PARTITIONS, 1, clock.clone()));
        let ports = ClusterPorts {
            broker: Arc::new(broker.clone()),
            rows: Arc::new(rows.clone()),
            clock: clock.clone(),
            spawner: Arc::new(TokioSpawner(tokio::runtime::Handle::current())),
            metrics: Arc::new(ClusterMetrics::register(&Metrics::new().unwrap()).unwrap()),
            nodes: NodeWatch::begin(&rows, &*clock).await.unwrap(),
            settings: Arc::new(ClusterSettings::new("test", PARTITIONS)),
        };
        Self { clock, broker, rows, ports }
    }

    /// How long a read took, ns, and whether it was answered.
    async fn read(&self, state: &dyn State) -> (u64, bool) {
        let began_ns = self.clock.monotonic_ns();
        let found = state.get_many(&[RowKey::new(Table::Order, Key::new("demo/a"))]).await;
        assert!(matches!(found, Ok(_) | Err(LogError::Unavailable(_))), "{found:?}");
        (self.clock.monotonic_ns() - began_ns, found.is_ok())
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_database_is_told_soon_and_then_at_once_and_its_return_is_seen() {
    let world = World::new().await;
    let state = ClusterState::new(world.ports.clone(), None);
    assert_eq!(world.read(&state).await, (0, true));
    world.rows.faults().set_slow(SILENT);
    let (took_ns, answered) = world.read(&state).await;
    assert!(!answered && took_ns > 0 && took_ns < SOON_NS, "{took_ns} ns");
    assert_eq!(world.read(&state).await, (0, false), "it was just asked in vain");
    // Once in a while one asks, and nobody waits with it.
    world.clock.sleep(Duration::from_secs(2)).await;
    let reads = join_all((0..10).map(|_| world.read(&state))).await;
    assert!(reads.iter().all(|(_, answered)| !answered));
    assert_eq!(reads.iter().filter(|(took_ns, _)| *took_ns > 0).count(), 1, "{reads:?}");
    world.rows.faults().set_slow(Duration::ZERO);
    world.clock.sleep(Duration::from_secs(2)).await;
    let reads = join_all((0..3).map(|_| world.read(&state))).await;
    assert!(reads[0].1, "{reads:?}");
    assert_eq!(world.read(&state).await, (0, true));
}

#[tokio::test(start_paused = true)]
async fn whoever_must_have_an_answer_waits_until_the_database_is_back() {
    let world = World::new().await;
    let state = PatientState(Arc::new(ClusterState::new(world.ports.clone(), None)));
    world.rows.faults().set_slow(SILENT);
    let back = async {
        world.clock.sleep(Duration::from_secs(60)).await;
        world.rows.faults().set_slow(Duration::ZERO);
    };
    let ((took_ns, answered), ()) = tokio::join!(world.read(&state), back);
    assert!(answered && (60_000_000_000..65_000_000_000).contains(&took_ns), "{took_ns} ns");
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_known_although_the_database_is_silent() {
    let world = World::new().await;
    let progress = ClusterProgress::new(world.ports.clone(), Arc::new(world.broker.log()));
    world.rows.faults().set_slow(SILENT);
    let (stop, stopping) = watch::channel(false);
    let running = progress.clone();
    let asking = tokio::spawn(async move {
        running.run(Duration::from_millis(500), Duration::from_millis(25), stopping).await;
    });
    for n in 0..7 {
        world.broker.append(TopicPartition::new(Topic::OrderCommands, 1), &format!("k{n}"), Some(b"v"));
    }
    world.clock.sleep(Duration::from_secs(20)).await;
    let task = TaskId { kind: TaskKind::Order, partition: 1 };
    assert!(progress.lags().contains(&(task, 7)), "{:?}", progress.lags());
    stop.send_replace(true);
    asking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_for_the_database_does_not_hold_a_stop_up() {
    let world = World::new().await;
    world.rows.faults().set_slow(SILENT);
    let state = Arc::new(PatientState(Arc::new(ClusterState::new(world.ports.clone(), None))));
    let (stop, stopping) = watch::channel(false);
    let task = TaskId { kind: TaskKind::Order, partition: 0 };
    let work = Box::pin(async move {
        state.get_many(&[RowKey::new(Table::Product, Key::new("demo/a"))]).await.unwrap();
    });
    let longest = Duration::from_secs(5);
    let working = tokio::spawn(stopped_within(longest, task, work, stopping, world.clock.clone()));
    world.clock.sleep(Duration::from_secs(30)).await;
    assert!(!working.is_finished(), "nobody asked it to stop");
    let asked_ns = world.clock.monotonic_ns();
    stop.send_replace(true);
    working.await.unwrap();
    assert_eq!(world.clock.monotonic_ns() - asked_ns, longest.as_nanos() as u64);
}
