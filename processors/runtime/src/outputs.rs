//! From what a task emits to records of the log: partition and CloudEvents headers.

use bytes::{Bytes, BytesMut};
use tillstream_log::headers::{self, header};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::Key;
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::{Output, TaskKind};

/// What records are made of lies in pieces of memory of this size: the thread that commits gives back one of them
/// instead of several small ones for each record.
const PIECE_BYTES: usize = 64 << 10;
/// A value as large as this is kept where it was written.
const VALUE_COPIED_MAX: usize = 8 << 10;
/// CloudEvents has five, and the trace context is one.
const HEADERS_MAX: usize = 6;

/// Turns outputs into records.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    source: Bytes,
    partitions: [u32; Topic::ALL.len()],
    piece: BytesMut,
    /// The outputs of one input mostly share their key.
    last_key: (Key, Bytes),
    /// And their trace context.
    last_trace: Bytes,
}

impl OutputWriter {
    /// A writer for one task kind.
    pub fn new(kind: TaskKind, log: &dyn Log) -> Self {
        let partitions = Topic::ALL.map(|topic| log.partitions(topic));
        let source = Bytes::from(format!("tillstream/{}", kind.as_str()));
        Self {
            piece: BytesMut::new(),
            source,
            partitions,
            last_key: (Key::default(), Bytes::new()),
            last_trace: Bytes::new(),
        }
    }

    /// How many partitions a topic has; a changelog has none for outputs.
    pub fn partitions(&self, topic: Topic) -> u32 {
        topic.index().map_or(0, |it| self.partitions[it])
    }

    /// The record to write.
    pub fn record(&mut self, output: Output) -> NewRecord {
        let partition = partition_of(output.key.as_bytes(), self.partitions(output.topic));
        if self.last_key.0 != output.key {
            self.last_key = (output.key.clone(), self.keep(output.key.as_bytes()));
        }
        NewRecord {
            to: TopicPartition::new(output.topic, partition),
            key: self.last_key.1.clone(),
            headers: self.headers(&output),
            value: match output.value.len() {
                ..VALUE_COPIED_MAX => self.keep(&output.value),
                _ => output.value.into(),
            },
        }
    }

    /// The bytes as a part of the present piece, or of the next one where it has no room left.
    fn keep(&mut self, bytes: &[u8]) -> Bytes {
        if self.piece.capacity() < bytes.len() {
            self.piece = BytesMut::with_capacity(PIECE_BYTES.max(bytes.len()));
        }
        self.piece.extend_from_slice(bytes);
        self.piece.split().freeze()
    }

    fn headers(&mut self, output: &Output) -> Headers {
        let mut all = Headers::new();
        if !output.kind.is_empty() {
            all.reserve_exact(HEADERS_MAX);
            all.push(header(headers::CE_ID, self.keep(output.id.as_bytes())));
            all.push(header(headers::CE_TYPE, Bytes::from_static(output.kind.as_bytes())));
            all.push(header(headers::CE_SOURCE, self.source.clone()));
            all.push(header(headers::CE_SPECVERSION, Bytes::from_static(b"1.0")));
            all.push(header(headers::CONTENT_TYPE, Bytes::from_static(b"application/avro")));
        }
        if let Some(traceparent) = &output.traceparent {
            if self.last_trace.as_ref() != traceparent.as_bytes() {
                self.last_trace = self.keep(traceparent.as_bytes());
            }
            all.push(header(headers::TRACEPARENT, self.last_trace.clone()));
        }
        all
    }
}
