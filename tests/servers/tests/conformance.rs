//! Kafka and Cassandra together keep the promises of a store, and the broker's client those of a broker. One stack for
//! all cases: each begins on topics made anew, empty tables, and a deployment of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::ClusterSettings;
use tillstream_conformance::{
    BrokerCase, ClusterParts, ClusterStore, broker_suite, commit_suite, log_suite, state_suite,
};
use tillstream_kafka::{KafkaAdmin, KafkaBroker, KafkaLog, KafkaSettings, TopicsSpec};
use tillstream_runtime::SystemClock;
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tillstream_scylla::{Replication, ReplicationClass, ScyllaSettings, ScyllaStore};
use tillstream_servers::{Cassandra, CassandraOptions, Kafka, KafkaOptions, start_some};
use tillstream_state::row_store::RowStore;

const PARTITIONS: u32 = 2;
const BUCKETS: u32 = 4;
/// Making topics anew takes no longer.
const TOPICS: Duration = Duration::from_secs(60);

struct Stack {
    kafka: Kafka,
    rows: Arc<ScyllaStore>,
    made: Cell<u32>,
    open: RefCell<Option<Arc<ClusterStore>>>,
    _cassandra: Cassandra,
}

impl Stack {
    async fn start() -> Self {
        let started = tokio::task::spawn_blocking(|| {
            start_some(Some(KafkaOptions::default()), Some(CassandraOptions::default()), false)
        });
        let (kafka, cassandra, _) = started.await.unwrap();
        let (kafka, cassandra) = (kafka.unwrap().unwrap(), cassandra.unwrap().unwrap());
        let settings = ScyllaSettings {
            nodes: vec![cassandra.address().to_owned()],
            replication: Replication { class: ReplicationClass::Simple, factor: 1 },
            request_timeout_ms: 15_000,
            ..ScyllaSettings::default()
        };
        let rows = Arc::new(ScyllaStore::connect(&settings, PARTITIONS, BUCKETS).await.unwrap());
        Self { kafka, rows, made: Cell::new(0), open: RefCell::default(), _cassandra: cassandra }
    }

    /// A name never used before.
    fn name(&self) -> String {
        self.made.set(self.made.get() + 1);
        format!("case{}", self.made.get())
    }

    /// Makes every topic anew.
    async fn empty_topics(&self) {
        let client: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.kafka.address()).create().unwrap();
        let names: Vec<&str> = Topic::every().map(Topic::name).collect();
        let gone = client.delete_topics(&names, &AdminOptions::new()).await.unwrap();
        for gone in gone {
            let missing = gone.as_ref().is_err_and(|it| it.1 == RDKafkaErrorCode::UnknownTopicOrPartition);
            assert!(gone.is_ok() || missing, "{gone:?}");
        }
        let admin = KafkaAdmin::new(&KafkaSettings::new(self.kafka.address(), "admin")).unwrap();
        let spec = TopicsSpec::new(PARTITIONS, 1);
        let made = tokio::time::timeout(TOPICS, async {
            let mut made = 0;
            while made < spec.topics.len() {
                made += admin.create_topics(&spec).await.unwrap().len();
            }
        });
        made.await.expect("topics are made anew");
    }

    async fn connect(&self, name: &str) -> (Arc<KafkaBroker>, Arc<KafkaLog>) {
        let mut settings = KafkaSettings::new(self.kafka.address(), name);
        settings.session_timeout_ms = 20_000;
        let broker = Arc::new(KafkaBroker::new(settings, Arc::new(WireIds::identity())).unwrap());
        // New topics are there a moment after they were made.
        let opened = tokio::time::timeout(TOPICS, async {
            loop {
                match KafkaLog::open(&broker).await {
                    Ok(log) => return log,
                    Err(error) => println!("{name}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let log = opened.await.expect("the topics are there");
        (broker, log)
    }

    async fn close(&self) {
        let open = self.open.borrow_mut().take();
        if let Some(open) = open {
            open.close().await;
        }
    }

    async fn store(&self) -> Arc<ClusterStore> {
        self.close().await;
        self.empty_topics().await;
        self.rows.truncate().await.unwrap();
        let name = self.name();
        let (broker, log) = self.connect(&name).await;
        let mut settings = ClusterSettings::new(&name, PARTITIONS);
        settings.flush_interval = Duration::from_millis(50);
        settings.durable_after = Duration::from_millis(500);
        let clock = Arc::new(SystemClock::new());
        let parts = ClusterParts { broker, log, rows: self.rows.clone(), clock, settings };
        let store = ClusterStore::new(parts).await;
        *self.open.borrow_mut() = Some(store.clone());
        store
    }

    async fn log(&self) -> Arc<KafkaLog> {
        self.empty_topics().await;
        self.connect(&self.name()).await.1
    }

    /// Topics stay, names do not.
    async fn broker(&self) -> BrokerCase {
        let name = self.name();
        let (broker, log) = self.connect(&name).await;
        BrokerCase { broker, log, prefix: format!("{name}.") }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_cassandra_keep_the_promises_of_a_store() {
    let began = tokio::time::Instant::now();
    let stack = Stack::start().await;
    let told = |what: &str| println!("{what} after {:.1} s", began.elapsed().as_secs_f64());
    told("started");
    log_suite(async || stack.log().await).await;
    told("log");
    state_suite(async || stack.store().await).await;
    told("state");
    commit_suite(async || stack.store().await).await;
    stack.close().await;
    told("commits");
    broker_suite(async |_| stack.broker().await).await;
    told("broker");
}
