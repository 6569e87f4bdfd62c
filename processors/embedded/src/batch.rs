//! The stored form of one group's records of one topic-partition.
//!
//! ```text
//! version u8 · crc32 u32 LE of all that follows · count u32 LE · timestamp i64 LE
//! count × ( offset delta varint · timestamp delta zigzag varint · key · value · header count varint
//!           · header count × ( name · value ) )
//! ```
//!
//! A batch covers the offsets `base..base + span`, which its key says, so that they are known even of a batch
//! that is corrupt; compaction may leave fewer records than that. Keys, values and spelled-out names have their length before them as a varint; a name of the dictionary is its index + 1
//! as one byte, and 0 says that a spelled-out name follows.

use bytes::Bytes;
use tillstream_log::headers::DICTIONARY;
use tillstream_log::{Header, Headers, NewRecord, ReadLimit, Record};

/// The version that is written.
pub const VERSION: u8 = 1;
const HEADER_LENGTH: usize = 17;
const CRC_END: usize = 5;
/// Every so many records a cached batch knows the position of one.
const SIGNPOST_EVERY: usize = 32;

/// A batch in memory: checked once, then read as slices.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Offset of its first slot.
    pub base: u64,
    /// One past its last slot.
    pub next: u64,
    /// Its stored form.
    pub value: Bytes,
    /// Where every 32nd record begins; empty for a batch that was read from disk.
    signposts: Vec<u32>,
}

/// How much a read may still take.
pub struct Budget {
    records: usize,
    bytes: usize,
    taken_any: bool,
}

impl Budget {
    /// The whole of a limit.
    pub fn new(limit: ReadLimit) -> Self {
        Self { records: limit.records_max.max(1), bytes: limit.bytes_max, taken_any: false }
    }

    /// Whether a record of that size still fits; if so it is counted. The first one always does.
    fn take(&mut self, bytes: usize) -> bool {
        if self.taken_any && (self.records == 0 || bytes > self.bytes) {
            return false;
        }
        self.taken_any = true;
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    /// Whether nothing more fits.
    pub fn spent(&self) -> bool {
        self.taken_any && (self.records == 0 || self.bytes == 0)
    }

    /// Bytes that still fit.
    pub fn bytes_left(&self) -> usize {
        self.bytes
    }
}

fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn dictionary_index(name: &[u8]) -> Option<usize> {
    DICTIONARY.iter().position(|known| known.as_bytes() == name)
}

/// An upper bound of a record's stored size, from what it holds.
pub fn stored_size_at_most(key: &[u8], value: &[u8], headers: &Headers) -> usize {
    let headers_size: usize = headers.iter().map(|it| it.name.len() + it.value.len() + 11).sum();
    let lengths = varint_length(key.len()) + varint_length(value.len());
    // offset delta ≤ 5, timestamp delta ≤ 10, header count ≤ 2
    17 + lengths + key.len() + value.len() + headers_size
}

/// Writes batches.
pub struct BatchWriter {
    out: Vec<u8>,
    timestamp_ms: i64,
    count: u32,
    signposts: Vec<u32>,
}

impl BatchWriter {
    /// A batch of records appended at `timestamp_ms`; `capacity` is the size of its records.
    pub fn new(timestamp_ms: i64, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(HEADER_LENGTH + capacity);
        out.resize(HEADER_LENGTH, 0);
        Self { out, timestamp_ms, count: 0, signposts: Vec::new() }
    }

    fn put(&mut self, delta: u64, timestamp_ms: i64, key: &[u8], value: &[u8], headers: &Headers) {
        if (self.count as usize).is_multiple_of(SIGNPOST_EVERY) {
            self.signposts.push(self.out.len() as u32);
        }
        let out = &mut self.out;
        put_varint(out, delta);
        put_varint(out, zigzag(timestamp_ms.wrapping_sub(self.timestamp_ms)));
        put_bytes(out, key);
        put_bytes(out, value);
        put_varint(out, headers.len() as u64);
        for header in headers {
            match dictionary_index(&header.name) {
                Some(index) => out.push(index as u8 + 1),
                None => {
                    out.push(0);
                    put_bytes(out, &header.name);
                }
            }
            put_bytes(out, &header.value);
        }
        self.count += 1;
    }

    /// Adds a new record, in the next slot.
    pub fn append(&mut self, record: &NewRecord) {
        self.put(u64::from(self.count), self.timestamp_ms, &record.key, &record.value, &record.headers);
    }

    /// Adds a record that compaction keeps, in the slot it has.
    pub fn keep(&mut self, base: u64, record: &Record) {
        self.put(record.offset - base, record.timestamp_ms, &record.key, &record.value, &record.headers);
    }

    /// Ends a batch without gaps that begins at `base`.
    pub fn finish(self, base: u64) -> Batch {
        let span = self.count;
        self.finish_spanning(base, span)
    }

    /// Ends a batch that covers `span` slots.
    pub fn finish_spanning(mut self, base: u64, span: u32) -> Batch {
        self.out[CRC_END..9].copy_from_slice(&self.count.to_le_bytes());
        self.out[9..HEADER_LENGTH].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        let crc = crc32fast::hash(&self.out[CRC_END..]);
        self.out[0] = VERSION;
        self.out[1..CRC_END].copy_from_slice(&crc.to_le_bytes());
        // Signposts count records, so they lead to offsets only where there are no gaps.
        let signposts = if span == self.count { self.signposts } else { Vec::new() };
        Batch { base, next: base + u64::from(span), value: Bytes::from(self.out), signposts }
    }
}

/// A cursor over a batch's bytes.
struct Cursor<'a> {
    value: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.value.get(self.at).copied().ok_or_else(|| format!("it ends at byte {}", self.at))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("the number that ends at byte {} is too long", self.at))
    }

    /// Steps over a run of bytes and answers where it lies.
    fn span(&mut self) -> Result<std::ops::Range<usize>, String> {
        let length = usize::try_from(self.varint()?).map_err(|_| "a length does not fit".to_owned())?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.value.len());
        let end = end.ok_or_else(|| format!("{length} bytes at byte {} run past its end", self.at))?;
        let span = self.at..end;
        self.at = end;
        Ok(span)
    }

    fn headers(&mut self, keep: bool) -> Result<Headers, String> {
        let count = self.varint()?;
        let mut headers = Headers::new();
        for _ in 0..count {
            let tag = self.byte()?;
            let name = match usize::from(tag).checked_sub(1) {
                None => self.span().map(|span| self.value.slice(span))?,
                Some(index) => DICTIONARY
                    .get(index)
                    .map(|name| Bytes::from_static(name.as_bytes()))
                    .ok_or_else(|| format!("there is no header name {tag}"))?,
            };
            let value = self.span()?;
            if keep {
                headers.push(Header { name, value: self.value.slice(value) });
            }
        }
        Ok(headers)
    }
}

fn number<const N: usize>(value: &[u8], at: usize) -> Result<[u8; N], String> {
    value
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("it has only {} bytes", value.len()))
}

/// The append time in a stored batch, without checking the rest.
pub fn timestamp_of(value: &[u8]) -> Result<i64, String> {
    Ok(i64::from_le_bytes(number(value, 9)?))
}

impl Batch {
    /// A batch read from disk; checks its checksum. The error says what is wrong.
    pub fn from_stored(base: u64, next: u64, value: Bytes) -> Result<Self, String> {
        let version = value.first().copied().ok_or("it is empty")?;
        if version != VERSION {
            return Err(format!("its version is {version}, not {VERSION}"));
        }
        let stored = u32::from_le_bytes(number(&value, 1)?);
        let found = crc32fast::hash(&value[CRC_END..]);
        if stored != found {
            return Err(format!("its checksum is {found:08x}, not {stored:08x}"));
        }
        timestamp_of(&value)?;
        Ok(Self { base, next, value, signposts: Vec::new() })
    }

    /// How many slots it covers.
    pub fn span(&self) -> u32 {
        (self.next - self.base) as u32
    }

    /// How many records it holds.
    pub fn count(&self) -> u32 {
        number(&self.value, CRC_END).map_or(0, u32::from_le_bytes)
    }

    /// Appends its records from `from` on to `out`, as far as the budget goes.
    pub fn read_into(&self, from: u64, budget: &mut Budget, out: &mut Vec<Record>) -> Result<(), String> {
        let timestamp = timestamp_of(&self.value)?;
        let mut cursor = Cursor { value: &self.value, at: HEADER_LENGTH };
        let mut index = 0;
        let post = (from.saturating_sub(self.base) as usize) / SIGNPOST_EVERY;
        if let Some(position) = self.signposts.get(post) {
            cursor.at = *position as usize;
            index = post * SIGNPOST_EVERY;
        }
        for _ in index..self.count() as usize {
            let offset = self.base.saturating_add(cursor.varint()?);
            let timestamp_ms = timestamp.wrapping_add(unzigzag(cursor.varint()?));
            let key = cursor.span()?;
            let value = cursor.span()?;
            let wanted = offset >= from;
            if wanted && !budget.take(key.len() + value.len()) {
                return Ok(());
            }
            let headers = cursor.headers(wanted)?;
            if wanted {
                let (key, value) = (self.value.slice(key), self.value.slice(value));
                out.push(Record { offset, timestamp_ms, key, value, headers });
            }
            if budget.spent() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All its records.
    pub fn records(&self) -> Result<Vec<Record>, String> {
        // A record takes five bytes at least: a count that says more than fits is no reason to reserve for it.
        let mut out = Vec::with_capacity((self.count() as usize).min(self.value.len() / 5));
        let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
        self.read_into(self.base, &mut Budget::new(limit), &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillstream_log::{TopicPartition, headers};
    use tillstream_schemas::Topic;

    fn some_record() -> impl Strategy<Value = NewRecord> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let name = prop_oneof![
            (0..DICTIONARY.len()).prop_map(|index| Bytes::from_static(DICTIONARY[index].as_bytes())),
            "[a-z_]{1,40}".prop_map(Bytes::from),
        ];
        let header = (name, bytes()).prop_map(|(name, value)| Header { name, value });
        (bytes(), bytes(), proptest::collection::vec(header, 0..6)).prop_map(|(key, value, headers)| {
            NewRecord {
                to: TopicPartition::new(Topic::OrderEvents, 0),
                key,
                value,
                headers: headers.into_iter().collect(),
            }
        })
    }

    fn write(records: &[NewRecord], base: u64) -> Batch {
        let capacity = records.iter().map(|it| stored_size_at_most(&it.key, &it.value, &it.headers)).sum();
        let mut writer = BatchWriter::new(1_700_000_000_123, capacity);
        let reserved = writer.out.capacity();
        records.iter().for_each(|record| writer.append(record));
        assert_eq!(writer.out.capacity(), reserved, "the size was not bounded from above");
        writer.finish(base)
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_from_any_offset(
            records in proptest::collection::vec(some_record(), 1..120), base in 0..u64::MAX / 2, skip in any::<prop::sample::Index>(),
        ) {
            let written = write(&records, base);
            let stored = Batch::from_stored(base, written.next, written.value.clone()).unwrap();
            prop_assert_eq!((stored.base, stored.next), (base, base + records.len() as u64));
            let skip = skip.index(records.len());
            for batch in [&written, &stored] {
                let mut out = Vec::new();
                let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
                batch.read_into(base + skip as u64, &mut Budget::new(limit), &mut out).unwrap();
                prop_assert_eq!(out.len(), records.len() - skip);
                for (index, (read, new)) in out.iter().zip(&records[skip..]).enumerate() {
                    prop_assert_eq!(read.offset, base + (skip + index) as u64);
                    prop_assert_eq!(read.timestamp_ms, 1_700_000_000_123);
                    prop_assert_eq!((&read.key, &read.value, &read.headers), (&new.key, &new.value, &new.headers));
                }
            }
        }

        #[test]
        fn a_flipped_bit_is_found(records in proptest::collection::vec(some_record(), 1..10), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut value = write(&records, 7).value.to_vec();
            let at = at.index(value.len());
            value[at] ^= 1u8 << bit;
            prop_assert!(Batch::from_stored(7, 8, value.into()).is_err());
        }

        #[test]
        fn what_is_no_batch_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let batch = Batch { base: 0, next: 0, value: bytes.into(), signposts: Vec::new() };
            let mut out = Vec::new();
            let limit = ReadLimit { records_max: 50, bytes_max: 1 << 20 };
            batch.read_into(0, &mut Budget::new(limit), &mut out).ok();
            prop_assert!(out.len() <= 50);
        }
    }

    #[test]
    fn a_header_of_the_dictionary_costs_one_byte_for_its_name() {
        let plain = |name: &'static str| NewRecord {
            to: TopicPartition::new(Topic::OrderEvents, 0),
            key: Bytes::new(),
            value: Bytes::new(),
            headers: [headers::header(name, "x")].into_iter().collect(),
        };
        let known = write(&[plain(headers::TRACEPARENT)], 0).value.len();
        let spelled = write(&[plain("tracepare.t")], 0).value.len();
        assert_eq!(spelled - known, 1 + "tracepare.t".len());
    }
}
