//! Other people's clients on our topics: Python's confluent-kafka with fastavro and the registry, the Java console
//! producer, kcat.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tillstream_e2e_cluster::cluster::{Cluster, PARTITIONS, Wires};
use tillstream_e2e_cluster::faults::Fault::{KillWorker, StrayAbort};
use tillstream_e2e_cluster::history::{self, Outcome};
use tillstream_e2e_cluster::python::{installed, python, script};
use tillstream_e2e_cluster::topics::{Raw, beginnings, read};
use tillstream_e2e_cluster::{blocking, command};
use tillstream_schemas::Topic;
use tillstream_servers::{CassandraOptions, KafkaOptions};
use tillstream_stage::partition::partition_of;

/// What a batch packed with LZ4 is marked with.
const LZ4: u8 = 3;

/// Workers that compress what they write: readers need not be told.
async fn packed() -> Arc<Cluster> {
    let environment = vec![("TILLSTREAM_BROKER_COMPRESSION".to_owned(), "lz4".to_owned())];
    let wires = Wires { environment, ..Wires::default() };
    Cluster::start_with(KafkaOptions::default(), CassandraOptions::default(), |_| wires).await
}

/// How the batches of a partition's first segment are packed: bits 0 to 2 of a batch's attributes, which stand 21 bytes
/// into it (<https://kafka.apache.org/documentation/#recordbatch>).
fn codecs(partition: &Path) -> BTreeSet<u8> {
    let segment = std::fs::read(partition.join("00000000000000000000.log")).unwrap();
    let (mut at, mut seen) = (0, BTreeSet::new());
    while let Some(head) = segment.get(at..at + 23) {
        seen.insert(head[22] & 0b111);
        let length: [u8; 4] = head[8..12].try_into().unwrap();
        at += 12 + usize::try_from(i32::from_be_bytes(length)).unwrap();
    }
    seen
}

/// A Python consumer that reads while a history of faults runs.
async fn read_along(cluster: &Arc<Cluster>) -> (Outcome, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let until = folder.path().join("the-end");
    let names: Vec<&str> = Topic::ALL.into_iter().map(Topic::name).collect();
    let (brokers, registry) = (cluster.brokers().to_owned(), cluster.stack.registry.address().to_owned());
    let (names, end) = (names.join(","), until.display().to_string());
    let reader = tokio::spawn(blocking(move || script("consume.py", &[&brokers, &registry, &names, &end])));
    let outcome = history::run(cluster, &[KillWorker, StrayAbort], 77, 0).await;
    std::fs::write(&until, "").unwrap();
    let text = reader.await.unwrap().answered();
    (outcome, text.lines().map(|it| serde_json::from_str(it).unwrap()).collect())
}

fn each_order_once(outcome: &Outcome, records: &[Value]) {
    let mut priced: BTreeMap<&str, u32> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for record in records.iter().filter(|it| it["topic"] == Topic::OrderEvents.name()) {
        let value = &record["value"];
        let id = value["id"].as_str().unwrap();
        assert!(ids.insert(id), "event {id} was seen twice");
        assert_eq!(record["headers"]["ce_id"], value["id"], "{record}");
        for header in ["ce_specversion", "ce_type", "ce_source"] {
            assert!(record["headers"][header].is_string(), "no {header}: {record}");
        }
        if record["headers"]["ce_type"] == "order.priced" {
            *priced.entry(value["order_id"].as_str().unwrap()).or_default() += 1;
        }
    }
    assert_eq!(priced.len(), outcome.orders, "every order, and no other, was seen by Python");
    assert!(priced.values().all(|it| *it == 1), "{priced:?}");
}

fn lines_into(mut command: Command, keys: &[String]) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    keys.iter().for_each(|it| writeln!(stdin, "{it}").unwrap());
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Where a client put each key.
async fn placed_by(
    cluster: &Arc<Cluster>,
    topic: &str,
    produce: impl FnOnce(&str) + Send + 'static,
) -> BTreeMap<String, u32> {
    let partitions = PARTITIONS.to_string();
    cluster.topics_tool(&["--create", "--topic", topic, "--partitions", &partitions]).await.ok();
    let name = topic.to_owned();
    blocking(move || produce(&name)).await;
    let (brokers, topic) = (cluster.brokers().to_owned(), topic.to_owned());
    let text = blocking(move || script("places.py", &[&brokers, &topic])).await.answered();
    let place = |line: &str| {
        let (partition, key) = line.split_once('\t').unwrap_or_else(|| panic!("{line}"));
        (key.to_owned(), partition.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    text.lines().map(place).collect()
}

async fn same_partitions(cluster: &Arc<Cluster>, ours: &BTreeMap<String, u32>) {
    let keys: Vec<String> = ours.keys().cloned().collect();
    let mut java = cluster.stack.kafka.tool("org.apache.kafka.tools.ConsoleProducer");
    java.args(["--bootstrap-server", cluster.brokers(), "--topic", "interop.java"]);
    java.args(["--property", "parse.key=true", "--property", "key.separator=|"]);
    let with_values: Vec<String> = keys.iter().map(|it| format!("{it}|java")).collect();
    let theirs = placed_by(cluster, "interop.java", move |_| lines_into(java, &with_values)).await;
    assert_eq!(&theirs, ours, "the Java producer's partitions");

    let (brokers, some) = (cluster.brokers().to_owned(), keys.clone());
    let theirs = placed_by(cluster, "interop.python", move |topic| {
        let mut command = Command::new(python());
        command.arg(tillstream_e2e::root().join("tests/cluster/python/produce.py")).args([&brokers, topic]);
        lines_into(command, &some);
    });
    assert_eq!(&theirs.await, ours, "librdkafka's murmur2_random partitions");

    if !installed("kcat") {
        println!("SKIPPED: kcat is not installed (TILLSTREAM_INSTALL_KCAT=1 ops/dev/python.sh installs it)");
        return;
    }
    let brokers = cluster.brokers().to_owned();
    let with_values: Vec<String> = keys.iter().map(|it| format!("{it}|kcat")).collect();
    let theirs = placed_by(cluster, "interop.kcat", move |topic| {
        let mut command = Command::new("kcat");
        command.args(["-P", "-b", &brokers, "-t", topic, "-K", "|", "-X", "partitioner=murmur2_random"]);
        lines_into(command, &with_values);
    });
    assert_eq!(&theirs.await, ours, "kcat's partitions");
    let topic = Topic::OrderEvents.name();
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-C",
        "-b",
        cluster.brokers(),
        "-t",
        topic,
        "-e",
        "-q",
        "-o",
        "beginning",
        "-f",
        "%p|%k|%h\n",
    ]);
    kcat.args(["-X", "isolation.level=read_committed"]);
    let text = blocking(move || command::run(&mut kcat)).await.answered();
    let lines: Vec<&str> = text.lines().filter(|it| it.contains('|')).collect();
    assert!(!lines.is_empty(), "kcat saw nothing: {text}");
    for line in lines {
        let mut parts = line.splitn(3, '|');
        let (partition, key, headers) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(partition.parse::<u32>().unwrap(), partition_of(key.as_bytes(), PARTITIONS), "{line}");
        assert!(key.starts_with("demo/ord_") && headers.contains("ce_type="), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_java_and_kcat_read_and_partition_as_we_do() {
    let cluster = packed().await;
    cluster.add_ready(&["", "", ""]).await;
    let (outcome, records) = read_along(&cluster).await;
    each_order_once(&outcome, &records);
    let brokers = cluster.brokers().to_owned();
    let raw: Vec<Raw> = blocking(move || read(&brokers, &beginnings(&Topic::ALL, PARTITIONS))).await;
    assert_eq!(raw.len(), records.len(), "Python read and decoded every record");
    let keyed = raw.iter().filter(|it| it.topic == Topic::OrderCommands || it.topic == Topic::ItemCommands);
    let ours: BTreeMap<String, u32> = keyed.map(|it| (it.key.clone(), it.partition as u32)).collect();
    for (key, partition) in &ours {
        assert_eq!(*partition, partition_of(key.as_bytes(), PARTITIONS), "{key}");
    }
    println!("{} records decoded by Python, {} keys to place", records.len(), ours.len());
    same_partitions(&cluster, &ours).await;
    cluster.stop_workers().await;
    let events = cluster.stack.kafka.folder().join("data").join(format!("{}-0", Topic::OrderEvents.name()));
    assert!(codecs(&events).contains(&LZ4), "no batch of {} is compressed", events.display());
}
