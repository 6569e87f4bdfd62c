//! Event-time progress of a tenant.

use tillstream_schemas::analytics::{AnalyticsDelta, SourceProgress, WatermarkState};

/// A source partition not heard of for longer than this does not hold the watermark back.
pub const IDLE_AFTER_MS: i64 = 60_000;

/// The watermark never passes the wall clock by more than this, whatever times orders claim.
pub const AHEAD_MAX_MS: i64 = 5 * 60_000;

/// Notes a delta: the watermark becomes the least event time over the source partitions that are not idle,
/// at most `now` + 5 min, and never moves back.
///
/// "Idle" is measured against the newest `decided_at` heard of, not against `now_ms`: when the analytics task
/// is minutes behind its input, its sources are still not idle.
pub fn advance(state: &mut WatermarkState, delta: &AnalyticsDelta, now_ms: i64) {
    match state.sources.iter_mut().find(|it| it.partition == delta.source_partition) {
        Some(source) => {
            source.max_event_time_ms = source.max_event_time_ms.max(delta.max_event_time_ms);
            source.seen_at_ms = source.seen_at_ms.max(delta.decided_at_ms);
        }
        None => {
            state.sources.push(SourceProgress {
                partition: delta.source_partition,
                max_event_time_ms: delta.max_event_time_ms,
                seen_at_ms: delta.decided_at_ms,
            });
            state.sources.sort_by_key(|it| it.partition);
        }
    }
    let newest_ms = state.sources.iter().map(|it| it.seen_at_ms).max().unwrap_or_default();
    let active = state.sources.iter().filter(|it| newest_ms.saturating_sub(it.seen_at_ms) <= IDLE_AFTER_MS);
    if let Some(least_ms) = active.map(|it| it.max_event_time_ms).min() {
        let capped_ms = least_ms.min(now_ms.saturating_add(AHEAD_MAX_MS));
        state.watermark_ms = state.watermark_ms.max(capped_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(source_partition: i32, max_event_time_ms: i64, decided_at_ms: i64) -> AnalyticsDelta {
        AnalyticsDelta {
            id: "dlt_1".into(),
            tenant: "demo".into(),
            source_partition,
            decided_at_ms,
            max_event_time_ms,
            windows: Vec::new(),
            traces: Vec::new(),
        }
    }

    #[test]
    fn the_slowest_active_partition_holds_the_watermark() {
        let mut state = WatermarkState::default();
        advance(&mut state, &delta(0, 500, 1_000), 1_000);
        assert_eq!(state.watermark_ms, 500);
        advance(&mut state, &delta(1, 200, 1_100), 1_100);
        assert_eq!(state.watermark_ms, 500, "never back");
        advance(&mut state, &delta(0, 900, 1_200), 1_200);
        assert_eq!(state.watermark_ms, 500, "partition 1 is still at 200");
        advance(&mut state, &delta(1, 700, 1_300), 1_300);
        assert_eq!(state.watermark_ms, 700);
    }

    #[test]
    fn an_idle_partition_does_not_hold_it() {
        let mut state = WatermarkState::default();
        advance(&mut state, &delta(0, 100, 0), 0);
        advance(&mut state, &delta(1, 5_000, IDLE_AFTER_MS), IDLE_AFTER_MS);
        assert_eq!(state.watermark_ms, 100);
        advance(&mut state, &delta(1, 6_000, IDLE_AFTER_MS + 1), IDLE_AFTER_MS + 1);
        assert_eq!(state.watermark_ms, 6_000);
    }

    #[test]
    fn an_order_from_the_future_does_not_pass_the_clock() {
        let mut state = WatermarkState::default();
        advance(&mut state, &delta(0, i64::MAX, 10_000), 10_000);
        assert_eq!(state.watermark_ms, 10_000 + AHEAD_MAX_MS);
    }
}
