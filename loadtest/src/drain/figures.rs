//! What the tasks' own metrics say: decisions per stage, batches and commits per task.

use crate::report::{Report, rounded};
use std::collections::BTreeMap;
use tillstream_runtime::Metrics;
use tillstream_stage::StageName;
use tillstream_stage::task::TaskKind;

/// Every figure now; all of them only grow.
pub fn read(metrics: &Metrics) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for stage in StageName::ALL {
        let name = stage.as_str();
        let decided = metrics.stage_decide_seconds.with_label_values(&[name]).get();
        figures.insert(format!("decide {name}"), decided);
    }
    for kind in TaskKind::ALL {
        let name = kind.as_str();
        let histograms = [
            ("batch", &metrics.batch_seconds),
            ("commit", &metrics.commit_seconds),
            ("records", &metrics.batch_records),
        ];
        for source in ["cache", "store"] {
            let reads = metrics.state_reads.with_label_values(&[name, source]).get();
            figures.insert(format!("reads {source} {name}"), reads as f64);
        }
        for (what, histogram) in histograms {
            let histogram = histogram.with_label_values(&[name]);
            figures.insert(format!("{what} sum {name}"), histogram.get_sample_sum());
            figures.insert(format!("{what} count {name}"), histogram.get_sample_count() as f64);
        }
    }
    figures
}

/// Adds what was spent between two reads.
pub fn add(
    report: &mut Report,
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
    thousands: f64,
) {
    let spent = |name: &str| {
        let at = |figures: &BTreeMap<String, f64>| figures.get(name).copied().unwrap_or(0.0);
        at(after) - at(before)
    };
    for stage in StageName::ALL {
        let name = stage.as_str();
        let seconds = spent(&format!("decide {name}")) / thousands;
        if seconds > 0.0 {
            report.number(
                &format!("decide_s_per_1k_{name}"),
                seconds,
                5,
                "seconds of deciding per 1,000 orders",
            );
        }
    }
    for kind in TaskKind::ALL {
        let name = kind.as_str();
        let count = |what: &str| spent(&format!("{what} count {name}")).max(1.0);
        let mean_ms = |what: &str| spent(&format!("{what} sum {name}")) * 1e3 / count(what);
        let batches = spent(&format!("records count {name}"));
        let records = spent(&format!("records sum {name}"));
        let (cached, stored) = (spent(&format!("reads cache {name}")), spent(&format!("reads store {name}")));
        let (batch_ms, commit_ms) = (mean_ms("batch"), mean_ms("commit"));
        let text = format!(
            "{batches:.0} batches of {:.0} records, {batch_ms:.2} ms each, {commit_ms:.2} ms of it to commit; rows \
             read: {cached:.0} cached, {stored:.0} stored",
            records / batches.max(1.0)
        );
        let json = serde_json::json!({
            "batches": batches, "records": records, "batch_ms_mean": rounded(batch_ms),
            "commit_ms_mean": rounded(commit_ms), "reads_cached": cached, "reads_stored": stored,
        });
        report.figure(&format!("task_{name}"), json, text);
    }
}
