//! Appends outside of transactions, by one producer for the whole process.

use crate::bounds::Known;
use crate::context::{self, Connection};
use crate::convert::{number, offset, to_headers, to_wire};
use crate::core::Core;
use crate::error::broker_error;
use parking_lot::Mutex;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_log::{LogError, NewRecord, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tokio::sync::oneshot;

/// How long one poll of the deliveries takes. It serves them as they come; only its last millisecond spins.
const POLL: Duration = Duration::from_secs(1);

/// An append under way: told when its last record is.
#[derive(Debug)]
struct Append {
    left: AtomicUsize,
    bytes: usize,
    under_way: Arc<AtomicUsize>,
    failed: Mutex<Option<String>>,
    done: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
}

impl Append {
    fn fail(&self, detail: String) {
        self.failed.lock().get_or_insert(detail);
    }

    /// So many records have come to their end.
    fn finish(&self, records: usize) {
        if self.left.fetch_sub(records, Ordering::AcqRel) != records {
            return;
        }
        self.under_way.fetch_sub(self.bytes, Ordering::AcqRel);
        let result = self.failed.lock().take().map_or(Ok(()), Err);
        if let Some(done) = self.done.lock().take() {
            // Whoever no longer waits needs no answer.
            let _ = done.send(result);
        }
    }
}

struct Reports {
    connection: Arc<Connection>,
    known: Arc<Known>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.note(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, result: &DeliveryResult<'_>, append: Arc<Append>) {
        match result {
            Ok(message) => {
                if let (Some(topic), Ok(partition)) =
                    (Topic::parse(message.topic()), u32::try_from(message.partition()))
                {
                    self.known.saw_end(TopicPartition::new(topic, partition), offset(message) + 1);
                }
            }
            Err((error, _)) => append.fail(error.to_string()),
        }
        append.finish(1);
    }
}

struct Running {
    client: BaseProducer<Reports>,
    ended: AtomicBool,
}

/// The producer. One that has failed for good is replaced.
pub(crate) struct Appender {
    core: Arc<Core>,
    running: Mutex<Arc<Running>>,
    under_way: Arc<AtomicUsize>,
}

impl Appender {
    pub(crate) fn start(core: Arc<Core>) -> Result<Self, LogError> {
        let running = Mutex::new(run(&core)?);
        Ok(Self { core, running, under_way: Arc::default() })
    }

    /// Appends; resolves once all records are acknowledged by all replicas in sync. Some may be there when it fails.
    pub(crate) async fn append(&self, records: Vec<NewRecord>) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        let lost = |_| LogError::Unavailable("the append was lost with its producer".into());
        let done = self.hand_over(&records)?;
        drop(records);
        done.await
            .map_err(lost)?
            .map_err(|detail| LogError::Unavailable(self.core.connection.refused().unwrap_or(detail)))
    }

    fn hand_over(&self, records: &[NewRecord]) -> Result<oneshot::Receiver<Result<(), String>>, LogError> {
        let bytes = records.iter().map(|it| it.key.len() + it.value.len() + 128).sum();
        let before = self.under_way.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.core.settings.append_bytes_max {
            self.under_way.fetch_sub(bytes, Ordering::AcqRel);
            return Err(LogError::Unavailable(format!("{before} bytes of appends wait for the broker")));
        }
        let (done, answer) = oneshot::channel();
        let append = Arc::new(Append {
            left: AtomicUsize::new(records.len()),
            bytes,
            under_way: Arc::clone(&self.under_way),
            failed: Mutex::default(),
            done: Mutex::new(Some(done)),
        });
        let running = match self.running() {
            Ok(running) => running,
            Err(error) => {
                append.finish(records.len());
                return Err(error);
            }
        };
        let mut scratch = Vec::new();
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = send(&running.client, record, &append, &self.core.ids, &mut scratch) {
                append.fail(error.to_string());
                append.finish(records.len() - index);
                break;
            }
        }
        Ok(answer)
    }

    fn running(&self) -> Result<Arc<Running>, LogError> {
        let mut running = self.running.lock();
        if let Some((code, detail)) = running.client.client().fatal_error() {
            tracing::warn!(?code, detail, "the producer of appends has failed for good: a new one goes on");
            running.ended.store(true, Ordering::Release);
            *running = run(&self.core)?;
        }
        Ok(Arc::clone(&running))
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.running.lock().ended.store(true, Ordering::Release);
    }
}

fn send(
    client: &BaseProducer<Reports>,
    record: &NewRecord,
    append: &Arc<Append>,
    ids: &WireIds,
    scratch: &mut Vec<u8>,
) -> Result<(), KafkaError> {
    let to = record.to;
    let value = to_wire(&record.value, ids, scratch);
    let mut message: BaseRecord<'_, [u8], [u8], Arc<Append>> =
        BaseRecord::with_opaque_to(to.topic.name(), Arc::clone(append))
            .partition(number(to.partition))
            .key(&record.key[..])
            .payload(value);
    message.headers = to_headers(&record.headers);
    client.send(message).map_err(|(error, _)| error)
}

/// A producer, and the thread that serves its deliveries until it has ended.
fn run(core: &Core) -> Result<Arc<Running>, LogError> {
    let reports = Reports { connection: Arc::clone(&core.connection), known: Arc::clone(&core.known) };
    let client = core
        .settings
        .appending_producer()
        .create_with_context(reports)
        .map_err(|error| broker_error(&error, &core.connection).into_log_error())?;
    let running = Arc::new(Running { client, ended: AtomicBool::new(false) });
    let served = Arc::clone(&running);
    let serve = move || {
        while !served.ended.load(Ordering::Acquire) {
            served.client.poll(POLL);
        }
        // What is under way still gets its answer.
        let quiet = |code| code == Some(RDKafkaErrorCode::OperationTimedOut);
        if let Err(error) = served.client.flush(POLL)
            && !quiet(error.rdkafka_error_code())
        {
            tracing::debug!(%error, "the producer of appends has ended");
        }
    };
    std::thread::Builder::new()
        .name("kafka-append".into())
        .spawn(serve)
        .map_err(|error| LogError::Unavailable(format!("no thread: {error}")))?;
    Ok(running)
}
