//! What is done to a cluster.

use crate::cluster::{Cluster, SESSION_TIMEOUT, TRANSACTION_TIMEOUT};
use crate::worker::Worker;
use crate::{blocking, pass};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::Arc;
use std::time::Duration;
use tillstream_random::Random;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a worker; it comes back some time later.
    KillWorker,
    /// kill -9 of two at once.
    KillTwo,
    /// kill -9 of all of them at once.
    KillAll,
    /// SIGSTOP for longer than the session and transaction timeouts, then SIGCONT.
    Freeze,
    /// kill -9 of the broker, and its restart.
    KillBroker,
    /// kill -9 of the database, and its restart.
    KillDatabase,
    /// One worker more for a while.
    Rebalance,
    /// The database stops for a moment, again and again.
    SlowDatabase,
    /// Somebody takes a task's transactional id.
    StrayAbort,
}

fn one(workers: &[Arc<Worker>], random: &mut Random) -> Arc<Worker> {
    workers[random.below(workers.len())].clone()
}

fn millis(random: &mut Random, below: usize) -> Duration {
    Duration::from_millis(random.below(below) as u64)
}

impl Fault {
    /// Does it, and undoes what can be undone. Whether the cluster got over it is for others to see.
    pub async fn strike(self, cluster: &Arc<Cluster>, random: &mut Random) {
        let workers = cluster.workers();
        match self {
            Self::KillWorker => kill(&[one(&workers, random)], random).await,
            Self::KillTwo => {
                let spared = one(&workers, random);
                let struck: Vec<_> =
                    workers.into_iter().filter(|it| !Arc::ptr_eq(it, &spared)).take(2).collect();
                kill(&struck, random).await;
            }
            Self::KillAll => kill(&workers, random).await,
            Self::Freeze => {
                let worker = one(&workers, random);
                worker.freeze();
                pass(SESSION_TIMEOUT + TRANSACTION_TIMEOUT + millis(random, 1_500)).await;
                worker.thaw();
            }
            Self::KillBroker => {
                let stack = cluster.stack.clone();
                let span = millis(random, 1_500);
                blocking(move || stack.kafka.kill()).await.expect("the broker was up");
                pass(span).await;
                let stack = cluster.stack.clone();
                blocking(move || stack.kafka.start_again()).await.expect("the broker starts again");
            }
            Self::KillDatabase => {
                let stack = cluster.stack.clone();
                blocking(move || stack.cassandra.kill()).await.expect("the database was up");
                let stack = cluster.stack.clone();
                blocking(move || stack.cassandra.start_again()).await.expect("the database starts again");
            }
            Self::Rebalance => rebalance(cluster, random).await,
            Self::SlowDatabase => {
                for _ in 0..6 {
                    cluster.stack.cassandra.pause().expect("the database is up");
                    pass(Duration::from_millis(200) + millis(random, 500)).await;
                    cluster.stack.cassandra.resume().expect("the database is up");
                    pass(Duration::from_millis(50) + millis(random, 200)).await;
                }
            }
            Self::StrayAbort => {
                for _ in 0..3 {
                    stray(cluster, random).await;
                    pass(millis(random, 400)).await;
                }
            }
        }
    }
}

async fn kill(workers: &[Arc<Worker>], random: &mut Random) {
    workers.iter().for_each(|it| it.kill());
    pass(millis(random, 2_500)).await;
    workers.iter().for_each(|it| it.start());
}

async fn rebalance(cluster: &Arc<Cluster>, random: &mut Random) {
    let roles = ["", "order,item", "ingest,effects,analytics"][random.below(3)];
    let extra = cluster.add(roles);
    cluster.ready().await;
    pass(millis(random, 1_000)).await;
    cluster.remove(&extra);
    let status = extra.terminate().await;
    assert!(status.success(), "{} ended with {status}:\n{}", extra.name, extra.tail(40));
}

/// Fences a task's owner in the middle of its work, as a second producer of the same id would.
async fn stray(cluster: &Arc<Cluster>, random: &mut Random) {
    let kind = ["order", "item", "analytics", "effects"][random.below(4)];
    let partition = random.below(crate::cluster::PARTITIONS as usize);
    let id = format!("{}.{kind}.{partition}", cluster.deployment);
    let brokers = cluster.stack.kafka.address().to_owned();
    blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("transactional.id", &id)
            .create()
            .expect("a producer");
        producer.init_transactions(Duration::from_secs(20)).expect("it fences the owner");
    })
    .await;
}
