//! Both programs side by side.

use super::commit::{Passed, ms};
use super::drain::Drained;
use super::latency::Seen;
use super::scrape::Scrape;
use super::spent::Spent;
use super::yardstick::Figures;
use super::{ClusterSettings, Results};
use crate::BenchError;
use crate::report::{Report, rounded};
use serde_json::{Value, json};
use tillstream_stage::task::TaskKind;

/// One figure of both; the ratio is ours to theirs.
fn pair(report: &mut Report, name: &str, ours: f64, theirs: Option<f64>, digits: usize, unit: &str) {
    let mut json = json!({ "tillstream": rounded(ours) });
    let mut text = format!("{ours:.digits$}");
    if let Some(theirs) = theirs {
        json["kafka_streams"] = rounded(theirs).into();
        json["ratio"] = rounded(ours / theirs).into();
        text.push_str(&format!(" | {theirs:.digits$} | ratio {:.2}", ours / theirs));
    }
    report.figure(name, json, format!("{text}   {unit}"));
}

/// Prints everything.
pub fn print(settings: &ClusterSettings, results: &Results) -> Result<(), BenchError> {
    let mut report = Report::new("cluster: tillstream | kafka streams | ratio");
    report.figure(
        "compared",
        "from assignment (drain) or due time (latency) to an order's last event seen by a read_committed consumer: \
         payment.captured here (a shipment is a merchant's command), fulfilled there (a stub right after payment)",
        "payment.captured here, fulfilled there (its shipment is a stub right after payment)".to_owned(),
    );
    report.figure("partitions", settings.partitions, settings.partitions.to_string());
    if let Some(drained) = &results.drained {
        drain(&mut report, drained, results.their_drain.as_ref());
    }
    for seen in &results.seen {
        latency(&mut report, seen, results);
    }
    report.print()
}

fn drain(report: &mut Report, ours: &Drained, theirs: Option<&Figures>) {
    let thousands = ours.orders as f64 / 1e3;
    let get = |name: &str| theirs.map(|it| it.get(name));
    let (spent, rest) = (ours.spent.per(thousands), ours.to_rest.per(thousands));
    report.figure("orders", ours.orders, ours.orders.to_string());
    let per_second = ours.orders as f64 / ours.seconds;
    pair(
        report,
        "drain_orders_per_s",
        per_second,
        get("orders_per_s_from_assignment"),
        0,
        "orders/s from assignment",
    );
    let cpu = "CPU-s per 1,000 orders";
    pair(report, "drain_app_cpu_s_per_1k", spent.worker, get("app_cpu_s_per_1k"), 4, cpu);
    pair(
        report,
        "drain_app_cpu_s_per_1k_with_startup",
        ours.with_startup.per(thousands).worker,
        get("app_cpu_s_per_1k_with_startup"),
        4,
        cpu,
    );
    pair(report, "drain_broker_cpu_s_per_1k", spent.broker, get("broker_cpu_s_per_1k"), 4, cpu);
    pair(report, "drain_database_cpu_s_per_1k", spent.database, None, 4, cpu);
    pair(report, "drain_client_cpu_s_per_1k", spent.bench, get("client_cpu_s_per_1k"), 4, cpu);
    pair(
        report,
        "drain_foreign_cpu_s_per_1k",
        spent.foreign,
        get("foreign_cpu_s_per_1k"),
        4,
        "CPU-s of others: noise",
    );
    let all = |it: &Spent| it.worker + it.broker + it.database;
    let theirs_all =
        get("app_cpu_s_per_1k").zip(get("broker_cpu_s_per_1k")).map(|(app, broker)| app + broker);
    pair(
        report,
        "drain_all_cpu_s_per_1k",
        all(&spent),
        theirs_all,
        4,
        "CPU-s of worker, broker and database",
    );
    pair(
        report,
        "drain_rss_max_mb",
        ours.rss_bytes as f64 / 1e6,
        get("app_rss_max_mb").map(|it| it * 1.048_576),
        0,
        "MB",
    );
    report.number("drain_start_s", ours.start_seconds, 2, "s from the process's start to its partitions");
    report.number("drain_first_final_s", ours.first_seconds, 2, "s from assignment to the first final event");
    report.number(
        "drain_to_rest_s",
        ours.to_rest.seconds,
        2,
        "s until nothing was left to do (looked at every 0.7 s)",
    );
    report.number("drain_to_rest_app_cpu_s_per_1k", rest.worker, 4, cpu);
    report.number("drain_to_rest_database_cpu_s_per_1k", rest.database, 4, cpu);
    threads(report, "drain", "cpu_s_per_1k", &spent);
    stages(report, "drain", &ours.counted);
    let verdict = &ours.verdict;
    report.figure("drain_verified", verdict.holds(), format!("{} ({verdict:?})", yes(verdict.holds())));
    if let Some(theirs) = theirs {
        report.figure("drain_yardstick", theirs.json().clone(), yes(theirs.verified()).to_owned());
    }
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "NO" }
}

/// Who spent it within the worker and the servers: a Java server's compiler threads are among them.
fn threads(report: &mut Report, part: &str, unit: &str, spent: &Spent) {
    let all = [
        ("app", &spent.worker_threads),
        ("broker", &spent.broker_threads),
        ("database", &spent.database_threads),
    ];
    for (who, threads) in all {
        let mut all: Vec<(&String, &f64)> = threads.iter().filter(|it| *it.1 >= 0.0015).collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        let json: serde_json::Map<String, Value> =
            all.iter().map(|it| (it.0.clone(), rounded(*it.1).into())).collect();
        let text: Vec<String> = all.iter().map(|it| format!("{} {:.4}", it.0, it.1)).collect();
        report.figure(&format!("{part}_{who}_{unit}_by_thread"), json, text.join(", "));
    }
}

/// What the worker's own counters say, by task.
fn stages(report: &mut Report, part: &str, counted: &Scrape) {
    for kind in TaskKind::ALL {
        let label = format!("stage=\"{}\"", kind.as_str());
        let get = |name: &str| counted.sum(&format!("tillstream_{name}"), &label).unwrap_or(0.0);
        let batches = get("stage_batch_records_count");
        if batches == 0.0 {
            continue;
        }
        let commit = |quantile| counted.quantile("tillstream_stage_commit_seconds", &label, quantile);
        let (p50, p99) = (commit(0.5).unwrap_or(f64::NAN) * 1e3, commit(0.99).unwrap_or(f64::NAN) * 1e3);
        let mean = |name: &str| get(&format!("{name}_sum")) / get(&format!("{name}_count")).max(1.0) * 1e3;
        let records = get("stage_batch_records_sum") / batches;
        let (batch_ms, commit_ms) = (mean("stage_batch_seconds"), mean("stage_commit_seconds"));
        let reads = |source: &str| {
            let label = format!("source=\"{source}\"");
            let all = counted
                .sum_of("tillstream_state_misses_total", &[&label, &format!("stage=\"{}\"", kind.as_str())]);
            all.unwrap_or(0.0)
        };
        let (unflushed, filter, database) = (reads("unflushed"), reads("filter"), reads("database"));
        let flushed = get("state_flushed_rows_total");
        report.figure(
            &format!("{part}_task_{}", kind.as_str()),
            json!({
                "batches": batches, "records_per_batch": rounded(records), "batch_ms_mean": rounded(batch_ms),
                "commit_ms_mean": rounded(commit_ms), "commit_ms_p50": rounded(p50), "commit_ms_p99": rounded(p99),
                "misses_unflushed": unflushed, "misses_filter": filter, "misses_database": database,
                "flushed_rows": flushed,
            }),
            format!(
                "{batches:.0} batches of {records:.1} records, {batch_ms:.1} ms each; commit mean {commit_ms:.1}, p50 \
                 {p50:.1}, p99 {p99:.1} ms (within buckets); cache misses: {unflushed:.0} unflushed, {filter:.0} known \
                 new, {database:.0} from the database; {flushed:.0} rows flushed"
            ),
        );
    }
}

fn latency(report: &mut Report, ours: &Seen, results: &Results) {
    let rate = ours.round.rate;
    let theirs = |tuned| results.their_latency.iter().find(|it| it.rate == rate && it.tuned == tuned);
    let name = |what: &str| format!("at_{rate}_per_s_{what}");
    for (what, quantile) in
        [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)]
    {
        let at = ours.ms(quantile);
        // The comparison program tells no p99.9.
        let known = |tuned| theirs(tuned).map(|it| it.figures.get(what)).filter(|it| it.is_finite());
        pair(report, &name(what), at, known(true), 1, "ms, against the tuned one");
        if let Some(default) = known(false) {
            pair(report, &name(&format!("{what}_default")), at, Some(default), 1, "ms, against its default");
        }
    }
    let cores = &ours.cores;
    for tuned in [true, false] {
        let get = |name: &str| theirs(tuned).map(|it| it.figures.get(name));
        let which = if tuned { "" } else { "_default" };
        if !tuned && theirs(false).is_none() {
            continue;
        }
        pair(report, &name(&format!("app_cores{which}")), cores.worker, get("app_cores"), 3, "cores");
        pair(report, &name(&format!("broker_cores{which}")), cores.broker, get("broker_cores"), 3, "cores");
        pair(
            report,
            &name(&format!("foreign_cores{which}")),
            cores.foreign,
            get("foreign_cores"),
            3,
            "cores of others: noise",
        );
        let rss = get("app_rss_max_mb").map(|it| it * 1.048_576);
        pair(report, &name(&format!("rss_max_mb{which}")), ours.rss_bytes as f64 / 1e6, rss, 0, "MB");
    }
    pair(report, &name("database_cores"), cores.database, None, 3, "cores");
    pair(report, &name("client_cores"), cores.bench, None, 3, "cores");
    threads(report, &name("after_warmup"), "cores", cores);
    stages(report, &name("after_warmup"), &ours.counted);
    let verdict = &ours.verdict;
    let holds = verdict.other + verdict.missing + verdict.wrong + verdict.duplicates == 0;
    report.figure(&name("verified"), holds, format!("{} ({} confirmed)", yes(holds), verdict.confirmed));
    for tuned in [false, true] {
        if let Some(it) = theirs(tuned) {
            let which = if tuned { "yardstick_tuned" } else { "yardstick_default" };
            report.figure(&name(which), it.figures.json().clone(), yes(it.figures.verified()).to_owned());
        }
    }
}

/// The commit alone beside the pipeline's own.
pub fn print_commits(passed: &[Passed], drained: &Drained, seen: &[Seen]) -> Result<(), BenchError> {
    let mut report = Report::new("commit");
    for it in passed {
        let (p50, p99) = (ms(&it.whole, 0.5), ms(&it.whole, 0.99));
        let parts = [("drained", &it.drained), ("offset", &it.offsets), ("commit", &it.commits)];
        let text: Vec<String> =
            parts.iter().map(|(name, all)| format!("{name} {:.1}", ms(all, 0.5))).collect();
        let json = json!({
            "records_per_s": rounded(it.records_per_s), "transactions": it.transactions, "p50_ms": rounded(p50),
            "p99_ms": rounded(p99), "drained_p50_ms": rounded(ms(&it.drained, 0.5)),
            "offset_p50_ms": rounded(ms(&it.offsets, 0.5)), "commit_p50_ms": rounded(ms(&it.commits, 0.5)),
        });
        let text = format!(
            "{:.0} records/s; whole transaction p50 {p50:.1} ms, p99 {p99:.1} ms ({} of them; p50 of its parts: {})",
            it.records_per_s,
            it.transactions,
            text.join(", ")
        );
        report.figure(&format!("passthrough_{}", it.batch), json, text);
    }
    stages(&mut report, "drain", &drained.counted);
    for it in seen {
        stages(&mut report, &format!("at_{}_per_s", it.round.rate), &it.counted);
    }
    report.print()
}
