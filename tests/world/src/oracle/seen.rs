//! What the log has committed so far, and what must hold at every moment of it.

use super::stored::Stored;
use super::{Checked, Violation, expect};
use crate::house::{House, PARTITIONS};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_log::TopicPartition;
use tillstream_log::headers::{self, ORIGIN};
use tillstream_schemas::analytics::{AnalyticsDelta, WatermarkState};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::effects::{EffectPayload, EffectRequest};
use tillstream_schemas::item::{
    ItemCommand, ItemCommandPayload, ItemEvent, ItemEventPayload, ProductState, StockState,
};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_schemas::{Text, Topic, codec};
use tillstream_simulation::broker::StoredRecord;
use tillstream_simulation::{SimBroker, SimRows};
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::TaskKind;

/// A record of an input topic.
pub struct Input<T> {
    /// Its offset.
    pub offset: u64,
    /// What it says; `None`: it must become a dead letter.
    pub command: Option<T>,
    /// Products' versions that were committed before it was appended can be told by this: the simulated time, ns, at
    /// which it was surely not there yet.
    pub after_ns: u64,
}

/// What the log has committed.
#[derive(Default)]
pub struct Seen {
    places: BTreeMap<TopicPartition, u64>,
    /// The commands to order tasks, by partition.
    pub orders: Vec<Vec<Input<OrderCommand>>>,
    /// The commands to item tasks, by partition.
    pub items: Vec<Vec<Input<ItemCommand>>>,
    /// Every event of orders, by partition, with its offset.
    pub events: Vec<Vec<(u64, OrderEvent)>>,
    /// Every delta.
    pub deltas: Vec<AnalyticsDelta>,
    /// Origins of dead letters, by source topic.
    pub letters: FxHashMap<(Topic, u32, u64), u32>,
    /// The last value of every changelog key, by topic.
    pub rows: BTreeMap<(Topic, Bytes), Option<Bytes>>,
    /// When each version of a product was first seen, ns; and its price and class.
    pub products: FxHashMap<Text, Vec<(u64, ProductState)>>,
    ids: FxHashSet<(Topic, Text)>,
    requests: FxHashSet<(Text, i32)>,
    /// The newest watermark of each tenant.
    watermarks: FxHashMap<Bytes, i64>,
    /// Tasks were sent back to their input's beginning: what they did may be said again.
    pub repeats: bool,
    /// Where tasks stood when they were sent back to their input's beginning.
    pub resets: BTreeMap<(TaskKind, u32), Vec<u64>>,
    /// What the database is given.
    pub stored: Stored,
    /// How long processes stood still or heard nothing at most, ns.
    pub stood_still_ns: u64,
    /// Records looked at.
    pub count: u64,
    looked_ns: u64,
    hash: u64,
    /// What was read, a line each, where somebody listens.
    lines: Option<Vec<String>>,
}

fn decode<T: codec::Wire>(record: &StoredRecord) -> Result<T, Violation> {
    let value = record.value.as_deref().unwrap_or_default();
    codec::decode(value).map_err(|error| Violation(format!("an output cannot be decoded: {error}")))
}

impl Seen {
    /// Nothing seen.
    pub fn new() -> Self {
        let mut seen = Self::default();
        for _ in 0..PARTITIONS {
            seen.orders.push(Vec::new());
            seen.items.push(Vec::new());
            seen.events.push(Vec::new());
        }
        seen
    }

    /// Nothing seen of a cluster, where so many bytes of a task's rows may wait for the database.
    pub fn of_cluster(unflushed_bytes_max: usize) -> Self {
        Self { stored: Stored::new(unflushed_bytes_max), ..Self::new() }
    }

    /// Keeps a line of every record from now on.
    pub fn listen(&mut self) {
        self.lines = Some(Vec::new());
    }

    /// The lines since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A hash of every record seen, in the order of looking: equal for equal histories.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The inputs of a task in the order in which it took them, those again that it was sent back over.
    pub fn sequence<'a, T>(
        &self,
        kind: TaskKind,
        partition: u32,
        inputs: &'a [Input<T>],
    ) -> Vec<&'a Input<T>> {
        let mut sequence = Vec::with_capacity(inputs.len());
        for reset in self.resets.get(&(kind, partition)).into_iter().flatten() {
            sequence.extend(inputs.iter().filter(|it| it.offset < *reset));
        }
        sequence.extend(inputs);
        sequence
    }

    /// Nothing of the topic was read.
    pub(super) fn begin_again(&mut self, topic: Topic) {
        self.places.retain(|at, _| at.topic != topic);
        self.rows.retain(|(of, _), _| *of != topic);
    }

    /// Reads on, and checks what must hold at every moment.
    ///
    /// # Errors
    /// What does not hold.
    pub fn look(&mut self, broker: &SimBroker, rows: &SimRows, now_ns: u64) -> Checked {
        let asked = rows.asked();
        self.stored.acknowledged(&asked);
        let read = broker.read_on(&mut self.places);
        self.take_all(read, now_ns)?;
        self.stored.check(asked)?;
        match broker.broken() {
            Some(what) => Err(Violation(what)),
            None => Ok(()),
        }
    }

    /// Takes what was read since the last time, and checks what must hold at every moment.
    ///
    /// # Errors
    /// What does not hold.
    pub fn take_all(
        &mut self,
        mut read: Vec<(TopicPartition, Vec<Arc<StoredRecord>>)>,
        now_ns: u64,
    ) -> Checked {
        // Products first: what an order saw is there before its event.
        read.sort_by_key(|(at, _)| at.topic != Topic::Products);
        for (at, records) in read {
            for record in records {
                self.take(at, &record, now_ns)?;
            }
        }
        self.looked_ns = now_ns;
        Ok(())
    }

    fn take(&mut self, at: TopicPartition, record: &StoredRecord, now_ns: u64) -> Checked {
        self.count += 1;
        let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(self.hash);
        hash.update(&record.key);
        hash.update(record.value.as_deref().unwrap_or_default());
        hash.update(&record.timestamp_ms.to_le_bytes());
        self.hash = hash.digest();
        if let Some(lines) = &mut self.lines {
            lines.push(line(at, record));
        }
        let partition = at.partition as usize;
        let (offset, after_ns) = (record.offset, self.looked_ns);
        let at_home = partition_of(&record.key, PARTITIONS) == at.partition;
        match at.topic {
            Topic::OrderCommands => {
                let command = decode(record).ok().filter(|it| at_home && can_be_placed(it));
                self.orders[partition].push(Input { offset, command, after_ns });
                return Ok(());
            }
            Topic::ItemCommands => {
                let command: Option<ItemCommand> =
                    decode(record).ok().filter(|it| at_home && can_be_reserved(it));
                if let Some(command) = command.as_ref().filter(|it| !from_a_client(it)) {
                    self.once(at.topic, &command.id)?;
                }
                self.items[partition].push(Input { offset, command, after_ns });
                return Ok(());
            }
            _ => {}
        }
        expect(at_home || at.topic.is_dlq() || at.topic.is_changelog(), || {
            format!("a record of key {:?} stands in {at}, which is not its key's", record.key)
        })?;
        self.take_output(at, record, now_ns)
    }

    fn take_output(&mut self, at: TopicPartition, record: &StoredRecord, now_ns: u64) -> Checked {
        match at.topic {
            Topic::OrderEvents => {
                let event: OrderEvent = decode(record)?;
                // Said of a command that changed nothing, and said again when it comes again.
                let said =
                    matches!(event.payload, OrderEventPayload::CommandConflicted(_)) || event.version == 0;
                if !said {
                    self.once(at.topic, &event.id)?;
                }
                self.events[at.partition as usize].push((record.offset, event));
            }
            Topic::ItemEvents => {
                let event: ItemEvent = decode(record)?;
                match &event.payload {
                    ItemEventPayload::AdjustmentRefused(_) => {}
                    ItemEventPayload::StockLevelChanged(level) => {
                        let sound = level.reserved >= 0 && level.available >= 0;
                        expect(sound, || format!("stock below zero was published: {event:?}"))?;
                        self.once(at.topic, &event.id)?;
                    }
                    _ => self.once(at.topic, &event.id)?,
                }
            }
            Topic::Products => {
                let product: ProductState = decode(record)?;
                let key = Text::from_utf8_lossy(&record.key);
                let versions = self.products.entry(key).or_default();
                let before = versions.last().map_or(0, |(_, it)| it.version);
                expect(product.version == before + 1, || {
                    format!("version {} of {} follows {before}", product.version, product.sku)
                })?;
                versions.push((now_ns, product));
            }
            Topic::EffectRequests => {
                let request: EffectRequest = decode(record)?;
                let EffectPayload::Payment(payment) = &request.payload;
                let fresh = self.requests.insert((payment.request_key.clone(), payment.attempt));
                expect(fresh || self.repeats || payment.attempt > 1, || {
                    format!("a payment was asked for twice: {request:?}")
                })?;
                self.once(at.topic, &request.id)?;
            }
            Topic::AnalyticsDeltas => {
                let delta: AnalyticsDelta = decode(record)?;
                self.once(at.topic, &delta.id)?;
                self.deltas.push(delta);
            }
            Topic::OrderCommandsDlq
            | Topic::ItemCommandsDlq
            | Topic::EffectRequestsDlq
            | Topic::AnalyticsDeltasDlq => {
                self.take_letter(at, record)?;
            }
            topic if topic.is_changelog() => {
                self.stored.committed(at, record)?;
                self.take_row(topic, record.key.clone(), record.value.clone())?
            }
            _ => {}
        }
        Ok(())
    }

    fn once(&mut self, topic: Topic, id: &Text) -> Checked {
        let fresh = self.ids.insert((topic, id.clone()));
        expect(fresh || self.repeats, || format!("{id} stands twice in {topic}"))
    }

    fn take_letter(&mut self, at: TopicPartition, record: &StoredRecord) -> Checked {
        let letter: DeadLetter = decode(record)?;
        let source = Topic::parse(&letter.topic).filter(|it| it.dlq() == Some(at.topic));
        let origin = format!("{}/{}/{}", letter.topic, letter.partition, letter.offset);
        let told = headers::find(&record.headers, ORIGIN) == Some(origin.as_str());
        let Some(source) = source.filter(|_| told) else {
            return Err(Violation(format!("a dead letter names no origin: {letter:?}")));
        };
        let place = (source, letter.partition as u32, letter.offset as u64);
        *self.letters.entry(place).or_default() += 1;
        Ok(())
    }

    /// A committed row, under its key of the changelog: every one there ever was comes by here.
    ///
    /// # Errors
    /// What does not hold.
    pub fn take_row(&mut self, topic: Topic, key: Bytes, value: Option<Bytes>) -> Checked {
        if let Some(value) = value.as_deref() {
            if key.starts_with(b"order/") {
                check_order(&decode_row(value)?)?;
            } else if key.starts_with(b"stock/") {
                check_stock(&decode_row(value)?)?;
            } else if key.starts_with(b"watermark/") {
                let row: WatermarkState = decode_row(value)?;
                let newest = self.watermarks.entry(key.clone()).or_insert(row.watermark_ms);
                expect(row.watermark_ms >= *newest, || {
                    format!("a watermark moved back from {newest} to {}", row.watermark_ms)
                })?;
                *newest = row.watermark_ms;
            }
        }
        self.rows.insert((topic, key), value);
        Ok(())
    }

    /// The last committed value of a row.
    pub fn row<T: codec::Wire>(&self, kind: TaskKind, key: &str) -> Result<Option<T>, Violation> {
        let Some(topic) = kind.changelog() else { return Ok(None) };
        let found = self.rows.get(&(topic, Bytes::copy_from_slice(key.as_bytes())));
        found.and_then(Option::as_deref).map(decode_row).transpose()
    }

    /// Whether the tables hold everything that was committed.
    pub fn tables_hold(&self, house: &House) -> bool {
        super::tables::same(house, self).is_ok()
    }

    /// Timers of order tasks that are set.
    pub fn order_timers(&self) -> usize {
        let all = self.rows.iter().filter(|((topic, key), value)| {
            *topic == Topic::OrderChangelog && key.starts_with(b"timer/") && value.is_some()
        });
        all.count()
    }
}

/// A record, for people.
fn line(at: TopicPartition, record: &StoredRecord) -> String {
    let value = record.value.as_deref().unwrap_or_default();
    let what = match at.topic {
        Topic::OrderEvents => codec::decode(value).map(|it: OrderEvent| it.payload.kind().to_owned()),
        Topic::OrderCommands => codec::decode(value).map(|it: OrderCommand| match &it.payload {
            OrderCommandPayload::PaymentResult(it) => {
                format!("PaymentResult {:?} {:?}", it.operation, it.outcome)
            }
            payload => kind_of(payload),
        }),
        Topic::ItemCommands => codec::decode(value).map(|it: ItemCommand| kind_of(&it.payload)),
        _ => Ok(String::new()),
    };
    let (topic, partition, offset) = (at.topic.short_name(), at.partition, record.offset);
    let (key, what) =
        (String::from_utf8_lossy(&record.key), what.unwrap_or_else(|_| "cannot be read".to_owned()));
    let hash = xxhash_rust::xxh3::xxh3_64(value);
    format!("{topic}/{partition}/{offset} {key} {what} [{} bytes, {hash:016x}]", value.len())
}

/// The name of an enum's variant.
fn kind_of(payload: &impl std::fmt::Debug) -> String {
    format!("{payload:?}").chars().take_while(|it| it.is_alphanumeric()).collect()
}

/// An order without a currency is one that no stage can take.
fn can_be_placed(command: &OrderCommand) -> bool {
    !matches!(&command.payload, OrderCommandPayload::PlaceOrder(it) if it.currency.is_empty())
}

/// No units cannot be held.
fn can_be_reserved(command: &ItemCommand) -> bool {
    !matches!(&command.payload, ItemCommandPayload::ReserveStock(it) if it.quantity < 1)
}

/// Whether a client may send it twice.
fn from_a_client(command: &ItemCommand) -> bool {
    use ItemCommandPayload as Payload;
    matches!(command.payload, Payload::UpsertProduct(_) | Payload::RemoveProduct(_) | Payload::AdjustStock(_))
}

fn decode_row<T: codec::Wire>(value: &[u8]) -> Result<T, Violation> {
    codec::decode(value).map_err(|error| Violation(format!("a row cannot be decoded: {error}")))
}

fn check_stock(row: &StockState) -> Checked {
    let mut on_hand = 0;
    for at in &row.locations {
        let sound = at.reserved >= 0 && at.on_hand >= at.reserved;
        expect(sound, || format!("stock below zero: {row:?}"))?;
        on_hand += at.on_hand;
    }
    expect(row.received - row.sold == on_hand, || format!("received − sold is not what is on hand: {row:?}"))
}

fn check_order(row: &OrderState) -> Checked {
    let Some(payment) = &row.payment else { return Ok(()) };
    let total = row.order.as_ref().map_or(0, |it| it.total_minor);
    let sound = payment.refunded_minor <= payment.captured_minor
        && payment.captured_minor + payment.authorized_minor <= total
        && payment.refunded_minor >= 0
        && payment.authorized_minor >= 0;
    expect(sound, || format!("more money than there may be (total {total}): {payment:?}"))?;
    let balance: i64 = payment.ledger.iter().map(|it| it.amount_minor).sum();
    expect(balance == 0, || format!("a ledger that does not sum to zero: {payment:?}"))?;
    let dead = matches!(row.view.status, OrderStatus::Cancelled | OrderStatus::Failed);
    let shipped = row.fulfillment.as_ref().is_some_and(|it| !it.shipments.is_empty());
    expect(!(dead && shipped), || format!("a dead order has shipped: {}", row.order_id))
}
