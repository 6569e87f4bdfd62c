//! Keys and rows of deliveries.

use crate::feed::{Feed, Health};
use crate::lane::{Item, StoredLane};
use crate::message::Source;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::{
    WebhookAttempt, WebhookDeliveryState, WebhookDeliveryStatus, WebhookItem, WebhookLaneState,
};
use tillstream_stage::partition::partition_of;
use tillstream_stage::{Key, RowKey, Table, ids};

/// Attempts a delivery's row remembers.
pub const ATTEMPTS_KEPT: usize = 12;
/// Bytes of a response that an attempt remembers.
pub const SNIPPET_BYTES: usize = 512;
/// How exactly the last success is remembered, ms: its row is not written with every delivery.
const SUCCESS_STEP_MS: i64 = 600_000;

/// The tables of one source.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Feeds.
    pub feed: Table,
    /// Lanes.
    pub lane: Table,
    /// Deliveries.
    pub delivery: Table,
}

impl Source {
    /// Where its rows are.
    pub fn tables(self) -> Tables {
        match self {
            Self::Orders => Tables {
                feed: Table::WebhookFeed,
                lane: Table::WebhookLane,
                delivery: Table::WebhookDelivery,
            },
            Self::Items => Tables {
                feed: Table::ItemWebhookFeed,
                lane: Table::ItemWebhookLane,
                delivery: Table::ItemWebhookDelivery,
            },
        }
    }
}

/// The key of an endpoint's feed in a partition: the first salt that puts it there.
pub fn feed_key(source: Source, tenant: &str, endpoint: &str, partition: u32, partitions: u32) -> RowKey {
    let stem = ids::key(tenant, endpoint);
    let mut salt = 0_u32;
    loop {
        let key = ids::key(&stem, &salt.to_string());
        if partition_of(key.as_bytes(), partitions) == partition % partitions.max(1) {
            return RowKey::new(source.tables().feed, key);
        }
        salt = salt.wrapping_add(1);
    }
}

/// What the keys of an endpoint's feeds and deliveries begin with.
pub fn endpoint_prefix(tenant: &str, endpoint: &str) -> Key {
    ids::key(&ids::key(tenant, endpoint), "")
}

/// The key of a lane, which is also that of its timer.
pub fn lane_key(tenant: &str, subject: &str, endpoint: &str) -> Key {
    ids::key(&ids::key(tenant, subject), endpoint)
}

/// Subject and endpoint of a lane's key.
pub fn parse_lane_key(key: &str) -> Option<(&str, &str, &str)> {
    let (tenant, rest) = key.split_once('/')?;
    let (subject, endpoint) = rest.rsplit_once('/')?;
    Some((tenant, subject, endpoint))
}

/// The key of a delivery.
pub fn delivery_key(
    source: Source,
    tenant: &str,
    endpoint: &str,
    at_ms: i64,
    message_id: &str,
    subject: &str,
) -> RowKey {
    let moment = moment_of(at_ms);
    let key = Key::from(format!("{tenant}/{endpoint}/{moment}/{message_id}/{subject}"));
    RowKey::new(source.tables().delivery, key)
}

/// A time in a delivery's key: later ones sort first.
pub fn moment_of(at_ms: i64) -> String {
    format!("{:016x}", i64::MAX - at_ms.max(0))
}

/// A lane as its row.
pub fn lane_row(lane: &StoredLane) -> WebhookLaneState {
    let item = |it: &Item| WebhookItem { offset: signed(it.offset), again: it.again };
    WebhookLaneState {
        items: lane.items.iter().map(item).collect(),
        failed: i32::try_from(lane.failed).unwrap_or(i32::MAX),
        next_attempt_ms: lane.next_attempt_ms,
    }
}

/// A lane from its row; `None` when the row holds no event.
pub fn lane_of(row: &WebhookLaneState) -> Option<StoredLane> {
    let item = |it: &WebhookItem| Item { offset: it.offset.max(0).unsigned_abs(), again: it.again };
    (!row.items.is_empty()).then(|| StoredLane {
        items: row.items.iter().map(item).collect(),
        failed: u32::try_from(row.failed).unwrap_or(0),
        next_attempt_ms: row.next_attempt_ms,
    })
}

/// An offset as Avro has it.
pub fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// When the feed last succeeded, as its row has it: to [`SUCCESS_STEP_MS`].
pub fn last_success(feed: &Feed) -> Option<i64> {
    let Health { last_success_ms, .. } = feed.health();
    last_success_ms.map(|it| it - it.rem_euclid(SUCCESS_STEP_MS))
}

/// What an event's row says before its first attempt.
pub fn new_delivery(
    message_id: &Text,
    event_id: &Text,
    kind: &Text,
    subject: &Text,
    at_ms: i64,
) -> WebhookDeliveryState {
    WebhookDeliveryState {
        message_id: message_id.clone(),
        event_id: event_id.clone(),
        kind: kind.clone(),
        subject: subject.clone(),
        at_ms,
        status: WebhookDeliveryStatus::Pending,
        reason: None,
        attempt_count: 0,
        attempts: Vec::new(),
        next_attempt_ms: None,
        updated_at_ms: at_ms,
    }
}

/// Notes an attempt.
pub fn note_attempt(row: &mut WebhookDeliveryState, attempt: WebhookAttempt) {
    row.attempt_count = row.attempt_count.saturating_add(1);
    row.updated_at_ms = attempt.at_ms.saturating_add(attempt.latency_ms);
    if row.attempts.len() >= ATTEMPTS_KEPT {
        row.attempts.remove(0);
    }
    row.attempts.push(attempt);
}

/// The first bytes of a response, as text without control characters.
pub fn snippet(bytes: &[u8]) -> Text {
    let cut = bytes.get(..SNIPPET_BYTES).unwrap_or(bytes);
    String::from_utf8_lossy(cut).chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_schemas::Topic;

    #[test]
    fn a_feed_has_a_key_in_every_partition() {
        for partitions in [1, 4, 64] {
            for partition in 0..partitions {
                let key = feed_key(Source::Orders, "demo", "whe_1", partition, partitions);
                assert_eq!(partition_of(key.key.as_bytes(), partitions), partition);
                assert!(key.key.starts_with(endpoint_prefix("demo", "whe_1").as_str()));
            }
        }
    }

    #[test]
    fn keys_find_back_to_what_they_name() {
        assert_eq!(parse_lane_key("demo/ord_1/whe_1"), Some(("demo", "ord_1", "whe_1")));
        assert_eq!(parse_lane_key("demo/a/b/whe_1"), Some(("demo", "a/b", "whe_1")));
        assert_eq!(parse_lane_key("demo"), None);
        let newer = delivery_key(Source::Items, "demo", "whe_1", 2, "msg_1", "a/b");
        let older = delivery_key(Source::Items, "demo", "whe_1", 1, "msg_1", "a/b");
        assert!(newer.key < older.key);
        assert_eq!(newer.table, Table::ItemWebhookDelivery);
    }

    #[test]
    fn a_row_is_of_the_task_that_reads_the_source() {
        for source in Source::ALL {
            let Tables { feed, lane, delivery } = source.tables();
            for table in [feed, lane, delivery] {
                assert_eq!(table.kind(), source.task());
            }
            assert_eq!(source.task().input(), source.topic());
            assert!(matches!(source.topic(), Topic::OrderEvents | Topic::ItemEvents));
        }
    }

    #[test]
    fn a_row_remembers_the_last_attempts() {
        let text = |it: &str| Text::from(it);
        let mut row = new_delivery(&text("msg_1"), &text("evt_1"), &text("order.priced"), &text("ord_1"), 5);
        for n in 0..20 {
            let attempt = WebhookAttempt {
                at_ms: n,
                response_status: Some(500),
                error: None,
                latency_ms: 1,
                response: Text::default(),
            };
            note_attempt(&mut row, attempt);
        }
        assert_eq!(row.attempt_count, 20);
        assert_eq!(row.attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(row.attempts[0].at_ms, 8);
    }

    #[test]
    fn a_response_is_cut_and_made_harmless() {
        assert_eq!(snippet(b"a\x1b[31m\nb\xff"), "a [31m b\u{fffd}");
        assert_eq!(snippet(&[b'x'; 10_000]).len(), SNIPPET_BYTES);
    }
}
