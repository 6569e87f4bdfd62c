//! A worker's metrics, out of the text format of Prometheus.

use std::collections::BTreeMap;

/// Every sample by its name with labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads the text; lines that are no sample are left out.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|it| !it.starts_with('#'));
        let samples = samples.filter_map(|it| {
            let (name, value) = it.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// What was counted since an earlier one.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |name: &str| earlier.0.get(name).copied().unwrap_or(0.0);
        Self(self.0.iter().map(|(name, value)| (name.clone(), value - before(name))).collect())
    }

    /// The samples of a metric that have this label; all of them for an empty label.
    fn of<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let samples = self.0.iter().map(|(full, value)| (full.as_str(), *value));
        samples.filter(move |(full, _)| {
            full.strip_prefix(name).is_some_and(|it| it.is_empty() || it.starts_with('{'))
                && full.contains(label)
        })
    }

    /// Their sum; `None` when there is none.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        self.of(name, label).map(|it| it.1).reduce(|sum, it| sum + it)
    }

    /// The sum over the samples that have all of these labels.
    pub fn sum_of(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let has = |full: &str| labels.iter().all(|it| full.contains(it));
        self.of(name, "").filter(|it| has(it.0)).map(|it| it.1).reduce(|sum, it| sum + it)
    }

    /// Whether the tasks have read all their input, and no row waits for the database.
    pub fn is_idle(&self) -> bool {
        let is_zero = |name| self.sum(name, "").is_some_and(|it| it == 0.0);
        is_zero("tillstream_stage_lag_records") && is_zero("tillstream_state_unflushed_rows")
    }

    /// A quantile of a histogram, by a straight line within its bucket, as Prometheus reckons. `None` without samples.
    pub fn quantile(&self, name: &str, label: &str, quantile: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let mut counts: Vec<(f64, f64)> = self
            .of(&bucket, label)
            .filter_map(|(full, count)| {
                let (_, bound) = full.split_once("le=\"")?;
                let bound = bound.split('"').next()?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
                Some((bound, count))
            })
            .collect();
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rank = counts.last().map(|it| it.1).filter(|it| *it > 0.0)? * quantile;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= rank {
                let share = if count > below { (rank - below) / (count - below) } else { 0.0 };
                return Some(if bound.is_finite() { low + (bound - low) * share } else { low });
            }
            (low, below) = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE tillstream_stage_commit_seconds histogram\n\
        tillstream_stage_commit_seconds_bucket{stage=\"order\",le=\"0.01\"} 10\n\
        tillstream_stage_commit_seconds_bucket{stage=\"order\",le=\"0.02\"} 90\n\
        tillstream_stage_commit_seconds_bucket{stage=\"order\",le=\"+Inf\"} 100\n\
        tillstream_stage_commit_seconds_bucket{stage=\"item\",le=\"0.01\"} 7\n\
        tillstream_stage_lag_records{partition=\"0\",stage=\"order\"} 3\n\
        tillstream_stage_lag_records{partition=\"1\",stage=\"item\"} 4\n\
        tillstream_state_unflushed_rows{stage=\"order\"} 0\n";

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let scrape = Scrape::parse(TEXT);
        let at = |it| scrape.quantile("tillstream_stage_commit_seconds", "stage=\"order\"", it).unwrap();
        assert!((at(0.5) - 0.015).abs() < 1e-9 && (at(0.05) - 0.005).abs() < 1e-9);
        assert_eq!(at(0.99), 0.02, "past the last bound nothing is known but that");
        assert_eq!(scrape.quantile("tillstream_stage_commit_seconds", "stage=\"none\"", 0.5), None);
    }

    #[test]
    fn sums_and_differences_are_by_name_and_label() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("tillstream_stage_lag_records", ""), Some(7.0));
        assert_eq!(scrape.sum("tillstream_stage_lag_records", "stage=\"item\""), Some(4.0));
        assert_eq!(scrape.sum("tillstream_stage_lag", ""), None);
        assert!(!scrape.is_idle() && scrape.since(&scrape).is_idle());
        assert!(!Scrape::default().is_idle(), "who says nothing is not known to be idle");
    }
}
