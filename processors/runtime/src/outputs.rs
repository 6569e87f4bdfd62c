//! From what a task emits to records of the log: partition and CloudEvents headers.

use bytes::Bytes;
use tillstream_log::headers::{self, header};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::Key;
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::{Output, TaskKind};

/// Turns outputs into records.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    source: Bytes,
    partitions: [u32; Topic::ALL.len()],
    /// The outputs of one input mostly share their key.
    last_key: (Key, Bytes),
}

impl OutputWriter {
    /// A writer for one task kind.
    pub fn new(kind: TaskKind, log: &dyn Log) -> Self {
        let partitions = Topic::ALL.map(|topic| log.partitions(topic));
        let source = Bytes::from(format!("tillstream/{}", kind.as_str()));
        Self { source, partitions, last_key: (Key::default(), Bytes::new()) }
    }

    /// How many partitions a topic has; a changelog has none for outputs.
    pub fn partitions(&self, topic: Topic) -> u32 {
        topic.index().map_or(0, |it| self.partitions[it])
    }

    /// The record to write.
    pub fn record(&mut self, output: Output) -> NewRecord {
        let partition = partition_of(output.key.as_bytes(), self.partitions(output.topic));
        if self.last_key.0 != output.key {
            self.last_key = (output.key.clone(), Bytes::copy_from_slice(output.key.as_bytes()));
        }
        NewRecord {
            to: TopicPartition::new(output.topic, partition),
            key: self.last_key.1.clone(),
            headers: self.headers(&output),
            value: output.value.into(),
        }
    }

    fn headers(&self, output: &Output) -> Headers {
        let mut all = Headers::new();
        if !output.kind.is_empty() {
            all.push(header(headers::CE_ID, Bytes::copy_from_slice(output.id.as_bytes())));
            all.push(header(headers::CE_TYPE, Bytes::from_static(output.kind.as_bytes())));
            all.push(header(headers::CE_SOURCE, self.source.clone()));
            all.push(header(headers::CE_SPECVERSION, Bytes::from_static(b"1.0")));
            all.push(header(headers::CONTENT_TYPE, Bytes::from_static(b"application/avro")));
        }
        if let Some(traceparent) = &output.traceparent {
            all.push(header(headers::TRACEPARENT, Bytes::copy_from_slice(traceparent.as_bytes())));
        }
        all
    }
}
