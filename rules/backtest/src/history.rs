//! Orders of the past: what was asked (`orders.commands`) beside how pricing ended (`orders.events`).
//!
//! A task decides the commands of a partition one after the other, and pricing's word is the first event of an order. So
//! within a partition the first events stand in the order of their commands, and both are read side by side. A command
//! that is passed over by the events of later ones has no outcome of its own: a repeat, or a dead letter.

use crate::judge::{Ended, PastOrder};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tillstream_log::{Log, LogError, ReadLimit, Record, TopicPartition};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload, PlaceOrder};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload};
use tillstream_schemas::{Text, Topic, codec};

/// Commands that wait for their events, at most. With a longer backlog events are read on alone.
const WAITING_MAX: usize = 20_000;
/// Events per command, with room to spare: how much further back the events of the last commands begin.
const EVENTS_PER_COMMAND: u64 = 4;
/// One read.
const READ: ReadLimit = ReadLimit { records_max: 2_000, bytes_max: 4 << 20 };

/// How far a partition's history has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Of `orders.commands`: the first that may still wait for its event.
    pub commands: u64,
    /// Of `orders.events`: the first that was not used.
    pub events: u64,
}

struct Waiting {
    offset: u64,
    order_id: Text,
    placed: Box<PlaceOrder>,
}

/// Reads one partition's history of one tenant, from a place to where the log ended when it was opened.
pub struct History {
    commands: TopicPartition,
    events: TopicPartition,
    /// `tenant/`.
    prefix: String,
    start: Place,
    next: Place,
    end: Place,
    waiting: VecDeque<Waiting>,
    waits: FxHashSet<Text>,
    /// Events that were read and not used.
    unused: VecDeque<(u64, Box<OrderEvent>)>,
    /// Where the events go on after [`History::unused`].
    events_read: u64,
    skipped: u64,
}

/// Some of the history.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Orders, in their order.
    pub orders: Vec<PastOrder>,
    /// Commands without an outcome of their own.
    pub without_outcome: u64,
}

impl History {
    /// A reader of a partition. `from` is a place that [`History::place`] told before; `None` for all that is kept.
    ///
    /// # Errors
    /// The log's.
    pub async fn open(
        log: &dyn Log,
        tenant: &str,
        partition: u32,
        from: Option<Place>,
    ) -> Result<Self, LogError> {
        let commands = TopicPartition::new(Topic::OrderCommands, partition);
        let events = TopicPartition::new(Topic::OrderEvents, partition);
        log.refresh(&[commands, events]).await?;
        let first = Place { commands: log.start_offset(commands)?, events: log.start_offset(events)? };
        let from = from.unwrap_or_default();
        // What retention took meanwhile is gone.
        let start =
            Place { commands: from.commands.max(first.commands), events: from.events.max(first.events) };
        let end = Place { commands: log.end_offset(commands)?, events: log.end_offset(events)? };
        Ok(Self {
            commands,
            events,
            prefix: format!("{tenant}/"),
            start: first,
            next: start,
            end,
            waiting: VecDeque::new(),
            waits: FxHashSet::default(),
            unused: VecDeque::new(),
            events_read: start.events,
            skipped: 0,
        })
    }

    /// A reader of the last of a partition: so many commands, and the events that may be theirs.
    ///
    /// # Errors
    /// The log's.
    pub async fn open_recent(
        log: &dyn Log,
        tenant: &str,
        partition: u32,
        commands: u64,
    ) -> Result<Self, LogError> {
        let ends = [Topic::OrderCommands, Topic::OrderEvents].map(|it| TopicPartition::new(it, partition));
        log.refresh(&ends).await?;
        let from = Place {
            commands: log.end_offset(ends[0])?.saturating_sub(commands),
            events: log.end_offset(ends[1])?.saturating_sub(commands.saturating_mul(EVENTS_PER_COMMAND)),
        };
        Self::open(log, tenant, partition, Some(from)).await
    }

    /// From where to go on another time.
    pub fn place(&self) -> Place {
        Place {
            commands: self.waiting.front().map_or(self.next.commands, |it| it.offset),
            events: self.unused.front().map_or(self.events_read, |it| it.0),
        }
    }

    /// How much of the kept history has been read, and how much there is, in records of `orders.events`.
    pub fn progress(&self) -> (u64, u64) {
        let all = self.end.events.saturating_sub(self.start.events);
        (self.events_read.saturating_sub(self.start.events).min(all), all)
    }

    /// The next orders; `None` at the end.
    ///
    /// # Errors
    /// The log's; a record that cannot be decoded is [`LogError::Io`] and names its place.
    pub async fn next(&mut self, log: &dyn Log) -> Result<Option<Chunk>, LogError> {
        let mut chunk = Chunk::default();
        loop {
            let can_ask = self.next.commands < self.end.commands;
            if can_ask && self.waiting.len() < WAITING_MAX {
                self.read_commands(log).await?;
            } else if self.waiting.is_empty() && !can_ask {
                return Ok(None);
            }
            let mut moved = self.match_events(&mut chunk);
            while self.unused.is_empty() && !self.waiting.is_empty() && self.events_read < self.end.events {
                self.read_events(log).await?;
                moved |= self.match_events(&mut chunk);
                if moved {
                    break;
                }
            }
            let over = self.next.commands >= self.end.commands
                && self.unused.is_empty()
                && self.events_read >= self.end.events;
            if over {
                // Their outcome is not in the log yet.
                self.skipped += self.waiting.len() as u64;
                self.waiting.clear();
                self.waits.clear();
            }
            if moved || over {
                chunk.without_outcome = std::mem::take(&mut self.skipped);
                return Ok(Some(chunk));
            }
        }
    }

    async fn read_commands(&mut self, log: &dyn Log) -> Result<(), LogError> {
        let (records, next) = read(log, self.commands, &mut self.next.commands).await?;
        for record in records.iter().filter(|it| it.key.starts_with(self.prefix.as_bytes())) {
            // What no task could read is a dead letter, and was never an order.
            let Ok(command) = codec::decode::<OrderCommand>(&record.value) else {
                self.skipped += 1;
                continue;
            };
            let OrderCommandPayload::PlaceOrder(placed) = command.payload else { continue };
            if self.waits.insert(command.order_id.clone()) {
                self.waiting.push_back(Waiting { offset: record.offset, order_id: command.order_id, placed });
            } else {
                // A repeat while the first one waits has the first one's outcome.
                self.skipped += 1;
            }
        }
        // Past the last record there is nothing but what was written after the reader was opened.
        self.next.commands = if next > self.next.commands { next } else { self.end.commands };
        Ok(())
    }

    async fn read_events(&mut self, log: &dyn Log) -> Result<(), LogError> {
        let (records, next) = read(log, self.events, &mut self.events_read).await?;
        for record in records.iter().filter(|it| it.key.starts_with(self.prefix.as_bytes())) {
            let event: OrderEvent = decode(self.events, record)?;
            let is_pricing = matches!(
                event.payload,
                OrderEventPayload::OrderPriced(_) | OrderEventPayload::OrderRejected(_)
            );
            if is_pricing && event.version == 1 {
                self.unused.push_back((record.offset, Box::new(event)));
            }
        }
        self.events_read = if next > self.events_read { next } else { self.end.events };
        Ok(())
    }

    /// Takes events as long as they are of commands that were read; whether any was.
    fn match_events(&mut self, chunk: &mut Chunk) -> bool {
        let mut moved = false;
        while let Some((offset, event)) = self.unused.pop_front() {
            if !self.waits.contains(&event.order_id) {
                let more_to_ask = self.next.commands < self.end.commands;
                if more_to_ask && self.waiting.len() < WAITING_MAX {
                    // Its command was not read yet, or is gone: the next commands will tell.
                    self.unused.push_front((offset, event));
                    return moved;
                }
                continue;
            }
            while let Some(first) = self.waiting.pop_front() {
                self.waits.remove(&first.order_id);
                if first.order_id == event.order_id {
                    chunk.orders.extend(past(first, event));
                    moved = true;
                    break;
                }
                self.skipped += 1;
            }
        }
        moved
    }
}

/// Reads on; what retention took since the reader was opened is passed over.
async fn read(
    log: &dyn Log,
    partition: TopicPartition,
    offset: &mut u64,
) -> Result<(Vec<Record>, u64), LogError> {
    loop {
        match log.read_on(partition, *offset, READ).await {
            Err(LogError::OutOfRange { start, .. }) if start > *offset => *offset = start,
            read => return read,
        }
    }
}

fn past(asked: Waiting, event: Box<OrderEvent>) -> Option<PastOrder> {
    let ended = match event.payload {
        OrderEventPayload::OrderPriced(it) => Ended::Priced(Box::new(it)),
        OrderEventPayload::OrderRejected(it) => Ended::Refused(Box::new(it)),
        _ => return None,
    };
    Some(PastOrder { order_id: asked.order_id, placed: asked.placed, ended })
}

fn decode<T: codec::Wire>(partition: TopicPartition, record: &Record) -> Result<T, LogError> {
    codec::decode(&record.value)
        .map_err(|error| LogError::Io(format!("{partition} at offset {}: {error}", record.offset)))
}
