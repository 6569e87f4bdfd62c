//! Keys of the database, and the value of an API key. All of it is part of the format.

use bytes::Bytes;
use tillstream_log::{LogError, TopicPartition};
use tillstream_schemas::Text;
use tillstream_stage::{Key, TimerName};
use tillstream_state::{StoredKey, TaskId, Timer};

/// Topic id, partition, base offset: where the keys of batches from `base` on begin.
pub fn batch_position(from: TopicPartition, base: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = from.topic as u8;
    key[1..5].copy_from_slice(&from.partition.to_be_bytes());
    key[5..].copy_from_slice(&base.to_be_bytes());
    key
}

/// The key of a batch: its position, and how many offsets it covers.
pub fn batch_key(from: TopicPartition, base: u64, span: u32) -> [u8; 17] {
    let mut key = [0; 17];
    key[..13].copy_from_slice(&batch_position(from, base));
    key[13..].copy_from_slice(&span.to_be_bytes());
    key
}

/// The offsets that a batch covers, from its key.
pub fn batch_offsets(key: &[u8]) -> Option<std::ops::Range<u64>> {
    let base = u64::from_be_bytes(key.get(5..13)?.try_into().ok()?);
    let span = u32::from_be_bytes(key.get(13..17)?.try_into().ok()?);
    Some(base..base.checked_add(u64::from(span))?)
}

/// Task kind and partition: the key of an offset.
pub fn task_key(task: TaskId) -> [u8; 5] {
    let mut key = [0; 5];
    key[0] = task.kind as u8;
    key[1..].copy_from_slice(&task.partition.to_be_bytes());
    key
}

/// Where the task's timers of that due time begin. Times before the epoch sort as the epoch.
pub fn timer_prefix(task: TaskId, due_ms: i64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&task_key(task));
    key[5..].copy_from_slice(&u64::try_from(due_ms).unwrap_or(0).to_be_bytes());
    key
}

/// The key of a timer; its value is empty.
pub fn timer_key(task: TaskId, timer: &Timer) -> Vec<u8> {
    let mut key = Vec::with_capacity(14 + timer.key.len());
    key.extend_from_slice(&timer_prefix(task, timer.due_ms));
    key.push(timer.name as u8);
    key.extend_from_slice(timer.key.as_bytes());
    key
}

/// The timer in its key.
pub fn timer_of(key: &[u8]) -> Option<Timer> {
    let due = u64::from_be_bytes(key.get(5..13)?.try_into().ok()?);
    Some(Timer {
        due_ms: i64::try_from(due).ok()?,
        name: TimerName::from_number(*key.get(13)?)?,
        key: Key::from_utf8(key.get(14..)?).ok()?,
    })
}

const STORED_KEY_FORMAT: u8 = 1;

/// The value of an API key, as earlier versions wrote it; its id is the key of the row.
#[cfg(test)]
pub fn encode_stored_key(key: &StoredKey) -> Vec<u8> {
    let mut out = vec![STORED_KEY_FORMAT];
    out.extend_from_slice(&key.hash);
    out.extend_from_slice(&key.created_at_ms.to_be_bytes());
    out.push(u8::from(key.revoked_at_ms.is_some()));
    out.extend_from_slice(&key.revoked_at_ms.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&(key.tenant.len() as u32).to_be_bytes());
    out.extend_from_slice(key.tenant.as_bytes());
    out.extend_from_slice(key.name.as_bytes());
    out
}

/// Reads an API key back.
pub fn decode_stored_key(id: &[u8], value: &[u8]) -> Result<StoredKey, LogError> {
    parse_stored_key(id, value).ok_or_else(|| {
        LogError::Io(format!("the row of API key {} cannot be read", String::from_utf8_lossy(id)))
    })
}

fn parse_stored_key(id: &[u8], value: &[u8]) -> Option<StoredKey> {
    let (format, rest) = value.split_first()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (created, rest) = rest.split_first_chunk::<8>()?;
    let (revoked, rest) = rest.split_first()?;
    let (revoked_at, rest) = rest.split_first_chunk::<8>()?;
    let (tenant_length, rest) = rest.split_first_chunk::<4>()?;
    let (tenant, name) = rest.split_at_checked(u32::from_be_bytes(*tenant_length) as usize)?;
    (*format == STORED_KEY_FORMAT).then_some(())?;
    Some(StoredKey {
        id: Text::from_utf8(id).ok()?,
        tenant: Text::from_utf8(tenant).ok()?,
        hash: *hash,
        name: Text::from_utf8(name).ok()?,
        created_at_ms: i64::from_be_bytes(*created),
        revoked_at_ms: (*revoked == 1).then_some(i64::from_be_bytes(*revoked_at)),
    })
}

/// The first key that is greater than every key with that prefix; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Takes a fjall slice over without copying it.
pub fn bytes_of(slice: fjall::Slice) -> Bytes {
    slice.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Tables;
    use crate::{EmbeddedSettings, EmbeddedStore};
    use proptest::prelude::*;
    use tillstream_state::Keys;

    #[tokio::test]
    async fn keys_that_an_earlier_version_stored_are_listed_in_id_order() {
        let dir = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings::new(dir.path());
        let store = EmbeddedStore::open(settings.clone()).unwrap();
        assert_eq!(store.list_keys().await, Ok(Vec::new()));
        store.close().await.unwrap();
        drop(store);
        let key = |id: &str, revoked_at_ms| StoredKey {
            id: id.into(),
            tenant: "demo".into(),
            hash: [7; 32],
            name: "the till in Köln".into(),
            created_at_ms: 1,
            revoked_at_ms,
        };
        let keys = [key("key_a", None), key("key_b", Some(2))];
        let tables = Tables::open(&dir.path().join(crate::dir::DATABASE), &settings).unwrap();
        for key in keys.iter().rev() {
            tables.keys.insert(key.id.as_bytes(), encode_stored_key(key)).unwrap();
        }
        tables.db.persist(fjall::PersistMode::SyncAll).unwrap();
        drop(tables);
        let store = EmbeddedStore::open(settings).unwrap();
        assert_eq!(store.list_keys().await, Ok(keys.to_vec()));
    }

    proptest! {
        #[test]
        fn a_stored_key_comes_back_as_it_was(
            id in "[a-z0-9_]{1,30}", tenant in ".{0,30}", name in ".{0,30}", hash in any::<[u8; 32]>(),
            created_at_ms in any::<i64>(), revoked_at_ms in any::<Option<i64>>(),
        ) {
            let key = StoredKey {
                id: id.as_str().into(), tenant: tenant.into(), hash, name: name.into(), created_at_ms, revoked_at_ms,
            };
            prop_assert_eq!(decode_stored_key(id.as_bytes(), &encode_stored_key(&key)), Ok(key));
        }

        #[test]
        fn the_prefix_end_separates_what_starts_with_it_from_what_does_not(
            prefix in proptest::collection::vec(any::<u8>(), 0..4), key in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            let inside = key >= prefix && prefix_end(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }
}
