//! The independent look: topics by a `read_committed` consumer, tables by CQL, the provider's ledger by its list. No
//! code of the pipeline but its names of topics.

mod books;
mod orders;
mod replay;
mod stock;
#[cfg(test)]
mod tests;

use crate::avro::{Decoder, RowDecoder};
use crate::blocking;
use crate::cluster::{Cluster, PARTITIONS};
use crate::load::{Book, Load, Placed};
use crate::tables::Tables;
use crate::topics::{Places, Raw, beginnings, read};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_schemas::Topic;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What does not hold, one sentence each.
    pub problems: Vec<String>,
    /// Orders by status.
    pub statuses: BTreeMap<String, u64>,
}

impl Findings {
    fn expect(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(sentence());
        }
    }
}

/// What a look sees.
struct Seen<'a> {
    book: &'a BTreeMap<String, Placed>,
    received: &'a BTreeMap<String, i64>,
    tag: &'a str,
    minute_ms: i64,
    /// Decoded records of this history's time, by topic, in the order of the log within each partition.
    records: BTreeMap<Topic, Vec<Value>>,
    /// This history's order rows, by order id.
    orders: BTreeMap<String, Value>,
    /// Its stock rows, by SKU, and its holds.
    stock: BTreeMap<String, Value>,
    holds: BTreeMap<String, Value>,
    /// Its windows, by key.
    windows: BTreeMap<String, Value>,
    payments: Vec<Value>,
}

impl Seen<'_> {
    fn of(&self, topic: Topic) -> &[Value] {
        self.records.get(&topic).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Looks at what a history left.
pub struct Audit {
    cluster: Arc<Cluster>,
    load: Arc<Load>,
    from: Places,
    tables: Tables,
    decoder: Decoder,
    rows: BTreeMap<&'static str, RowDecoder>,
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Records of these topics are looked at from where the history began.
const TOPICS: [Topic; 9] = [
    Topic::OrderEvents,
    Topic::ItemCommands,
    Topic::ItemEvents,
    Topic::EffectRequests,
    Topic::AnalyticsDeltas,
    Topic::OrderCommandsDlq,
    Topic::ItemCommandsDlq,
    Topic::EffectRequestsDlq,
    Topic::AnalyticsDeltasDlq,
];

impl Audit {
    /// Of a history that began where the topics ended at `from`.
    pub async fn new(cluster: &Arc<Cluster>, load: &Arc<Load>, mut from: Places) -> Self {
        from.retain(|(topic, _), _| TOPICS.contains(topic));
        let tables = Tables::connect(cluster.stack.cassandra.address(), &cluster.keyspace).await;
        let decoder = Decoder::new(cluster.stack.registry.address());
        let files = [
            ("order", "order-state"),
            ("stock", "stock-state"),
            ("hold", "hold-state"),
            ("window", "analytics-window"),
        ];
        let rows = files.into_iter().map(|(table, file)| (table, RowDecoder::of_file(file))).collect();
        Self { cluster: cluster.clone(), load: load.clone(), from, tables, decoder, rows }
    }

    /// One look; what is still on its way shows as a problem.
    pub async fn look(&mut self) -> Findings {
        let mut findings = Findings::default();
        let brokers = self.cluster.stack.kafka.address().to_owned();
        let changelogs = beginnings(&Topic::CHANGELOGS, PARTITIONS);
        let from = self.from.clone();
        let (raw, changes) = blocking(move || (read(&brokers, &from), read(&brokers, &changelogs))).await;
        replay::check(&self.tables, changes, &mut findings).await;
        let records = self.decode(raw, &mut findings).await;
        let tag = self.load.tag.clone();
        let ours = |key: &str| key.strip_prefix("demo/").is_some_and(|it| it.starts_with(&format!("{tag}-")));
        let book = self.load.book.lock().clone_out();
        let orders = self.rows_of("order", |key| {
            let id = key.strip_prefix("demo/")?;
            book.orders.contains_key(id).then(|| id.to_owned())
        });
        let minute = format!("demo/m/{:016x}/", self.load.minute_ms);
        let seen = Seen {
            book: &book.orders,
            received: &book.received,
            tag: &tag,
            minute_ms: self.load.minute_ms,
            records,
            orders: orders.await,
            stock: self.rows_of("stock", |key| ours(key).then(|| key[5..].to_owned())).await,
            holds: self.rows_of("hold", |key| ours(key).then(|| key[5..].to_owned())).await,
            windows: self.rows_of("window", |key| key.starts_with(&minute).then(|| key.to_owned())).await,
            payments: self.cluster.payments().await,
        };
        orders::check(&seen, &mut findings);
        books::check(&seen, &mut findings);
        stock::check(&seen, &mut findings);
        findings
    }

    async fn decode(&mut self, raw: Vec<Raw>, findings: &mut Findings) -> BTreeMap<Topic, Vec<Value>> {
        self.decoder.learn(raw.iter().filter_map(|it| it.value.as_deref())).await;
        let mut records: BTreeMap<Topic, Vec<Value>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for it in raw {
            let Some(value) = &it.value else { continue };
            let value = self.decoder.decode(value);
            let place = || format!("{}/{}@{}", it.topic, it.partition, it.offset);
            findings.expect(!it.topic.is_dlq(), || format!("a dead letter at {}: {value}", place()));
            // Adjustments come from clients, who may send one twice.
            let from_a_client = text(&value["payload"]["kind"]) == "AdjustStock"
                || value["payload"]["kind"] == "UpsertProduct";
            if !from_a_client && !it.topic.is_dlq() {
                let id = text(&value["id"]).to_owned();
                findings.expect(!id.is_empty() && ids.insert((it.topic, id.clone())), || {
                    format!("id {id} stands twice, the second time at {}: {value}", place())
                });
            }
            records.entry(it.topic).or_default().push(value);
        }
        records
    }

    async fn rows_of(
        &self,
        table: &'static str,
        name: impl Fn(&str) -> Option<String>,
    ) -> BTreeMap<String, Value> {
        let rows = self.tables.rows(table).await;
        let decoder = &self.rows[table];
        rows.iter().filter_map(|(key, value)| Some((name(key)?, decoder.decode(value)))).collect()
    }
}

impl Book {
    fn clone_out(&self) -> Self {
        Self { orders: self.orders.clone(), received: self.received.clone(), asked: self.asked.clone() }
    }
}
