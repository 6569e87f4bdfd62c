//! What deliveries count beside the metrics every stage has.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Metrics of webhooks. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    /// What became of attempts and events, by `outcome`.
    pub deliveries: IntCounterVec,
    /// How long attempts took.
    pub attempt_seconds: Histogram,
    /// Attempts under way.
    pub in_flight: IntGauge,
    /// Events that wait for another attempt, by `stage` and `partition`.
    pub pending: IntGaugeVec,
    /// Age of the oldest event that waits for another attempt, by `stage` and `partition`.
    pub queue_age_seconds: IntGaugeVec,
    /// Endpoints that are off because they failed.
    pub disabled_endpoints: IntGauge,
    /// Endpoints switched off because they failed, by `code`.
    pub disablements: IntCounterVec,
}

/// The outcomes.
pub const OUTCOMES: [&str; 5] = ["delivered", "retried", "exhausted", "disabled", "lost"];

impl WebhookMetrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];
        let metrics = Self {
            deliveries: IntCounterVec::new(
                Opts::new("tillstream_webhook_deliveries_total", "What became of webhook attempts"),
                &["outcome"],
            )?,
            attempt_seconds: Histogram::with_opts(
                HistogramOpts::new("tillstream_webhook_attempt_seconds", "Time a webhook attempt took")
                    .buckets(buckets),
            )?,
            in_flight: IntGauge::new("tillstream_webhook_in_flight_attempts", "Webhook attempts under way")?,
            pending: IntGaugeVec::new(
                Opts::new("tillstream_webhook_pending_events", "Events on their way to endpoints"),
                &["stage", "partition"],
            )?,
            queue_age_seconds: IntGaugeVec::new(
                Opts::new("tillstream_webhook_queue_age_seconds", "Age of the oldest event that is retried"),
                &["stage", "partition"],
            )?,
            disabled_endpoints: IntGauge::new(
                "tillstream_webhook_disabled_endpoints",
                "Endpoints that are off because they failed",
            )?,
            disablements: IntCounterVec::new(
                Opts::new(
                    "tillstream_webhook_disablements_total",
                    "Endpoints switched off because they failed",
                ),
                &["code"],
            )?,
        };
        for outcome in OUTCOMES {
            metrics.deliveries.with_label_values(&[outcome]);
        }
        for code in ["failing", "gone"] {
            metrics.disablements.with_label_values(&[code]);
        }
        registry.register(Box::new(metrics.deliveries.clone()))?;
        registry.register(Box::new(metrics.attempt_seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.queue_age_seconds.clone()))?;
        registry.register(Box::new(metrics.disabled_endpoints.clone()))?;
        registry.register(Box::new(metrics.disablements.clone()))?;
        Ok(metrics)
    }
}
