//! Reads of the log: from the tail in memory, or from disk.

use crate::batch::{Batch, Budget};
use crate::layout;
use crate::shared::Shared;
use crate::tables::io_error;
use std::cell::Cell;
use std::ops::Range;
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};

/// A batch of the log, or why it cannot be read.
pub enum Loaded {
    /// It is whole.
    Whole(Batch),
    /// It is not: what offsets it covers, and what is wrong.
    Corrupt(Range<u64>, String),
}

/// Loads and checks the batch at the iterator's place.
pub fn load(guard: fjall::Guard) -> Result<Loaded, LogError> {
    let offsets = Cell::new(None);
    let loaded = guard.into_inner_if(|key| {
        offsets.set(layout::batch_offsets(key).map(|it| (it.start, it.end)));
        true
    });
    let Some((base, next)) = offsets.into_inner() else {
        return Err(io_error(
            loaded.err().map_or("a batch has no offsets".to_owned(), |error| error.to_string()),
        ));
    };
    match loaded {
        Ok((_, Some(value))) => Ok(match Batch::from_stored(base, next, layout::bytes_of(value)) {
            Ok(batch) => Loaded::Whole(batch),
            Err(detail) => Loaded::Corrupt(base..next, detail),
        }),
        Ok((_, None)) => Ok(Loaded::Corrupt(base..next, "its value is gone".to_owned())),
        // A disk that cannot be read now may be readable later: only what was read and is wrong is corrupt.
        Err(error @ (fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)))) => {
            Err(io_error(error))
        }
        Err(error) => Ok(Loaded::Corrupt(base..next, error.to_string())),
    }
}

/// Reads from `offset` on, which is before `end`.
pub fn read_disk(
    shared: &Shared,
    from: TopicPartition,
    offset: u64,
    end: u64,
    limit: ReadLimit,
) -> Result<Vec<Record>, LogError> {
    let log = &shared.tables.log;
    let up_to = layout::batch_position(from, 0).to_vec()..=layout::batch_key(from, offset, u32::MAX).to_vec();
    let first = match log.range(up_to).next_back() {
        Some(guard) => layout::batch_offsets(&guard.key().map_err(io_error)?).map_or(offset, |it| it.start),
        None => offset,
    };
    let mut budget = Budget::new(limit);
    let mut out = Vec::new();
    for guard in log.range(layout::batch_position(from, first)..layout::batch_position(from, end)) {
        let read = match load(guard)? {
            Loaded::Whole(batch) if batch.next <= offset => continue,
            Loaded::Whole(batch) => {
                let (base, next) = (batch.base, batch.next);
                batch.read_into(offset, &mut budget, &mut out).map_err(|detail| (base..next, detail))
            }
            Loaded::Corrupt(offsets, _) if offsets.end <= offset => continue,
            Loaded::Corrupt(offsets, detail) => Err((offsets, detail)),
        };
        match read {
            Ok(()) if budget.spent() => break,
            Ok(()) => {}
            // What stands before it is handed out first; the next read begins with it.
            Err(_) if !out.is_empty() => break,
            Err((offsets, detail)) => {
                let (offset, next_offset) = (offsets.start, offsets.end);
                return Err(LogError::Corrupt { partition: from, offset, next_offset, detail });
            }
        }
    }
    Ok(out)
}

/// An offset outside of what is kept.
pub fn check_range(shared: &Shared, from: TopicPartition, offset: u64) -> Result<u64, LogError> {
    let partition = shared.partitions.get(from)?;
    let end = partition.end();
    let start = partition.start();
    if offset < start || offset > end {
        return Err(LogError::OutOfRange { partition: from, start, end, asked: offset });
    }
    Ok(end)
}
