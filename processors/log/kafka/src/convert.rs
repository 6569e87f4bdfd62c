//! Between the client library's messages and ours.

use bytes::{Bytes, BytesMut};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _, OwnedHeaders};
use tillstream_log::headers::DICTIONARY;
use tillstream_log::{Header, Headers, Record};
use tillstream_schemas::wire_ids::WireIds;

/// Keys and values of small records are copied into common chunks: one allocation for many.
const CHUNK_BYTES: usize = 64 << 10;

/// Copies bytes out of the library's memory.
#[derive(Default)]
pub(crate) struct Copier {
    chunk: BytesMut,
}

impl Copier {
    fn copy(&mut self, bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        // A large one stands alone, so that whoever keeps a small one does not keep it too.
        if bytes.len() > CHUNK_BYTES / 4 {
            let mut alone = bytes.to_vec();
            change(&mut alone);
            return alone.into();
        }
        if self.chunk.capacity() < bytes.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(bytes);
        change(&mut self.chunk);
        self.chunk.split().freeze()
    }

    /// The key; none is an empty one.
    pub(crate) fn key(&mut self, message: &BorrowedMessage<'_>) -> Bytes {
        self.copy(message.key().unwrap_or_default(), |_| {})
    }

    /// The value with our schema id.
    pub(crate) fn value(&mut self, message: &BorrowedMessage<'_>, ids: &WireIds) -> Option<Bytes> {
        message.payload().map(|it| self.copy(it, |value| ids.header_to_local(value)))
    }

    /// The whole record; a tombstone has an empty value.
    pub(crate) fn record(&mut self, message: &BorrowedMessage<'_>, ids: &WireIds) -> Record {
        Record {
            offset: offset(message),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: self.key(message),
            value: self.value(message, ids).unwrap_or_default(),
            headers: self.headers(message),
        }
    }

    fn headers(&mut self, message: &BorrowedMessage<'_>) -> Headers {
        let Some(headers) = message.headers() else { return Headers::new() };
        headers
            .iter()
            .map(|it| Header {
                name: match DICTIONARY.iter().find(|name| **name == it.key) {
                    Some(name) => Bytes::from_static(name.as_bytes()),
                    None => self.copy(it.key.as_bytes(), |_| {}),
                },
                value: self.copy(it.value.unwrap_or_default(), |_| {}),
            })
            .collect()
    }
}

/// A message's offset.
pub(crate) fn offset(message: &BorrowedMessage<'_>) -> u64 {
    u64::try_from(message.offset()).unwrap_or(0)
}

/// A partition as the library numbers it.
pub(crate) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// An offset as the library counts it.
pub(crate) fn position(offset: u64) -> rdkafka::Offset {
    rdkafka::Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// Headers to produce; a name that is not UTF-8 is not one of ours.
pub(crate) fn to_headers(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let mut out = OwnedHeaders::new_with_capacity(headers.len());
    for header in headers {
        let key = String::from_utf8_lossy(&header.name);
        out = out.insert(rdkafka::message::Header { key: &key, value: Some(&header.value[..]) });
    }
    Some(out)
}

/// A value with the registry's schema id, in `scratch`.
pub(crate) fn to_wire<'a>(value: &[u8], ids: &WireIds, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    scratch.extend_from_slice(value);
    ids.header_to_registry(scratch);
    scratch
}
