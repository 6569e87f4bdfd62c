//! How a figure is spread over calls, kept so that parts can be added and written down.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Figures are kept to three digits.
const DIGITS: u8 = 3;

/// A histogram; on disk it is the pairs of value and count.
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

impl Default for Distribution {
    fn default() -> Self {
        // Three digits are among those the library takes.
        let histogram = Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("a precision of 3 digits"));
        Self(histogram)
    }
}

/// A distribution as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// Half were at most this.
    pub p50: u64,
    /// 99 of 100 were at most this.
    pub p99: u64,
    /// The most.
    pub max: u64,
    /// The mean.
    pub mean: f64,
}

impl Distribution {
    /// Adds one figure.
    pub fn note(&mut self, value: u64) {
        self.note_some(value, 1);
    }

    fn note_some(&mut self, value: u64, count: u64) {
        // It grows by itself: there is nothing to refuse.
        if self.0.record_n(value, count).is_err() {
            tracing::error!(value, "a figure could not be noted");
        }
    }

    /// Adds another's figures.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same precision and grow by themselves: there is nothing to refuse.
        if self.0.add(&other.0).is_err() {
            tracing::error!("two distributions could not be added");
        }
    }

    /// Its quantiles; zeros while nothing was noted.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            p50: self.0.value_at_quantile(0.5),
            p99: self.0.value_at_quantile(0.99),
            max: self.0.max(),
            mean: if self.0.is_empty() { 0.0 } else { self.0.mean() },
        }
    }
}

impl PartialEq for Distribution {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|it| (it.value_iterated_to(), it.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut read = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            read.note_some(value, count);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn its_quantiles_are_those_of_the_figures_to_three_digits() {
        let mut it = Distribution::default();
        (1..=1_000).for_each(|n| it.note(n * 1_000_000));
        let close = |found: u64, wanted: u64| found.abs_diff(wanted) <= wanted / 1_000;
        let found = it.quantiles();
        assert!(close(found.p50, 500_000_000), "{found:?}");
        assert!(close(found.p99, 990_000_000), "{found:?}");
        assert!(close(found.max, 1_000_000_000), "{found:?}");
        assert!((found.mean - 500_500_000.0).abs() < 1_000_000.0, "{found:?}");
    }

    proptest! {
        #[test]
        fn written_and_read_again_and_added_in_parts_it_is_the_same(values: Vec<u32>, at in 0_usize..50) {
            let of = |values: &[u32]| {
                let mut it = Distribution::default();
                values.iter().for_each(|value| it.note(u64::from(*value)));
                it
            };
            let whole = of(&values);
            let (first, second) = values.split_at(at.min(values.len()));
            let mut parts = of(first);
            parts.merge(&of(second));
            prop_assert_eq!(parts.quantiles(), whole.quantiles());
            let written = serde_json::to_string(&whole).unwrap();
            let read: Distribution = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read.quantiles().p99, whole.quantiles().p99);
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), written);
        }
    }
}
