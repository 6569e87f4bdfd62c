//! Times as the API spells them: RFC 3339, UTC, whole milliseconds.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// The last time that is taken: the end of the year 9999, ms since the epoch.
pub(crate) const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// What the years of times that are taken look like, as a regular expression; the rest is RFC 3339's.
pub(crate) const PATTERN: &str = "^(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}[Tt]";
/// The same of a date.
pub(crate) const DATE_PATTERN: &str = "^(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}$";

/// A time of an answer, ms since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub i64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_rfc3339(self.0))
    }
}

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Writes a time, such as `2010-12-01T08:26:00Z`. Out of range: the nearest that can be written.
pub fn to_rfc3339(time_ms: i64) -> String {
    let clamped = time_ms.clamp(-62_167_219_200_000, TIME_MS_MAX);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(clamped) * 1_000_000)
        .ok()
        .and_then(|it| it.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Reads a time from 1970 to 9999; fractions below a millisecond are cut off.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let time_ms = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (0..=TIME_MS_MAX).contains(&time_ms).then_some(time_ms)
}

/// Reads a time, or a date (its midnight in UTC).
pub(crate) fn from_date_or_time(text: &str) -> Option<i64> {
    if text.len() == 10 {
        let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
        let time_ms = date.midnight().assume_utc().unix_timestamp().checked_mul(1_000)?;
        return (0..=TIME_MS_MAX).contains(&time_ms).then_some(time_ms);
    }
    from_rfc3339(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_were_written() {
        for time_ms in [0, 1_291_191_960_000, 1_291_191_960_123, TIME_MS_MAX] {
            assert_eq!(from_rfc3339(&to_rfc3339(time_ms)), Some(time_ms));
        }
        assert_eq!(to_rfc3339(1_291_191_960_000), "2010-12-01T08:26:00Z");
    }

    #[test]
    fn offsets_are_taken_and_nonsense_is_not() {
        assert_eq!(from_rfc3339("2010-12-01T09:26:00+01:00"), Some(1_291_191_960_000));
        for bad in ["", "2010-12-01", "2010-12-01T08:26:00", "1969-12-31T23:59:59Z", "now", "1291191960"] {
            assert_eq!(from_rfc3339(bad), None, "{bad}");
        }
        assert_eq!(from_date_or_time("2010-12-01"), Some(1_291_161_600_000));
        assert_eq!(from_date_or_time("2010-13-01"), None);
    }
}
