//! Batches of records, the values of the embedded log: compiled in here since their crate keeps the format to itself.

#[allow(dead_code, unreachable_pub, reason = "the store uses the rest")]
#[path = "../../../processors/embedded/src/batch.rs"]
mod batch_format;

use batch_format::{Batch, BatchWriter, Budget, VERSION};
use bytes::Bytes;
use tillstream_log::ReadLimit;

/// How many offsets the batch covers, then what follows its checksum, which is put right here.
pub fn batch(input: &[u8]) {
    let Some((span, rest)) = input.split_first() else { return };
    let (base, next) = (1_000, 1_000 + u64::from(*span));
    let value = [&[VERSION], &crc32fast::hash(rest).to_le_bytes()[..], rest].concat();
    let Ok(batch) = Batch::from_stored(base, next, Bytes::from(value)) else { return };
    let Ok(records) = batch.records() else { return };
    assert_eq!(records.len(), batch.count() as usize);
    let mut ours = BatchWriter::new(records.first().map_or(0, |it| it.timestamp_ms), 0);
    records.iter().for_each(|it| ours.keep(base, it));
    let written = ours.finish_spanning(base, u32::from(*span));
    assert_eq!(written.records().as_ref(), Ok(&records), "written and read again");
    let stored = Batch::from_stored(base, next, written.value).expect("what we write is whole");
    for from in [base, base + u64::from(*span) / 2, next] {
        let mut read = Vec::new();
        let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
        stored.read_into(from, &mut Budget::new(limit), &mut read).expect("it was read whole");
        let expected: Vec<_> = records.iter().filter(|it| it.offset >= from).cloned().collect();
        assert_eq!(read, expected, "from {from}");
    }
}
