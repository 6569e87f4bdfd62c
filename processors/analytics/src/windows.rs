//! From deltas to rows: what a batch of deltas changes for one tenant, and a change added to a row.

use crate::top::ProductChange;
use crate::{sums, watermark};
use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::analytics::{
    AnalyticsDelta, CorrectionState, Granularity, Sums, WatermarkState, WindowDelta, WindowState,
};

/// A window row of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowRowId {
    /// How wide.
    pub granularity: Granularity,
    /// Start, ms since the epoch.
    pub start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
}

/// A top-products row of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopRowId {
    /// How wide.
    pub granularity: Granularity,
    /// Start, ms since the epoch.
    pub start_ms: i64,
    /// ISO 4217.
    pub currency: Text,
}

/// What is added to a window row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowChange {
    /// The sums.
    pub sums: Sums,
    /// Refused orders per reason code.
    pub refusals: BTreeMap<Text, i64>,
}

/// What a batch of deltas does to one tenant's rows.
#[derive(Debug)]
pub struct TenantChanges {
    /// Window rows.
    pub windows: BTreeMap<WindowRowId, WindowChange>,
    /// Top-products rows.
    pub tops: BTreeMap<TopRowId, ProductChange>,
    /// Late changes, by minute start, currency and country.
    pub corrections: BTreeMap<(i64, Text, Text), CorrectionState>,
    /// The watermark after the deltas.
    pub watermark: WatermarkState,
}

/// The rows a delta touches besides corrections and watermark.
pub fn touched(window: &WindowDelta) -> impl Iterator<Item = WindowRowId> + '_ {
    Granularity::ALL.into_iter().map(|granularity| WindowRowId {
        granularity,
        start_ms: granularity.start_of(window.minute_start_ms),
        currency: window.currency.clone(),
        country: window.country.clone(),
    })
}

impl TenantChanges {
    /// Nothing yet, from the watermark as it stands.
    pub fn new(watermark: WatermarkState) -> Self {
        Self { windows: BTreeMap::new(), tops: BTreeMap::new(), corrections: BTreeMap::new(), watermark }
    }

    /// Adds a delta of this tenant. A minute whose end the watermark had reached before this delta gets a
    /// correction beside its change.
    pub fn add(&mut self, delta: &AnalyticsDelta, now_ms: i64) {
        let watermark_ms = self.watermark.watermark_ms;
        for window in &delta.windows {
            if window.minute_start_ms.saturating_add(Granularity::Minute.width_ms()) <= watermark_ms {
                self.correct(window, watermark_ms, now_ms);
            }
            for id in touched(window) {
                if !window.products.is_empty() {
                    self.sell(&id, window);
                }
                let change = self.windows.entry(id).or_default();
                sums::add(&mut change.sums, &window.sums);
                add_refusals(&mut change.refusals, &window.refusals);
            }
        }
        watermark::advance(&mut self.watermark, delta, now_ms);
    }

    fn sell(&mut self, id: &WindowRowId, window: &WindowDelta) {
        let id =
            TopRowId { granularity: id.granularity, start_ms: id.start_ms, currency: id.currency.clone() };
        let products = self.tops.entry(id).or_default();
        for product in &window.products {
            let sum = products.entry(product.sku.clone()).or_default();
            sum.0 = sum.0.saturating_add(product.units);
            sum.1 = sum.1.saturating_add(product.gross);
        }
    }

    fn correct(&mut self, window: &WindowDelta, watermark_ms: i64, now_ms: i64) {
        let late = CorrectionState {
            minute_start_ms: window.minute_start_ms,
            currency: window.currency.clone(),
            country: window.country.clone(),
            count: 1,
            sums: window.sums,
            first_at_ms: now_ms,
            last_at_ms: now_ms,
            watermark_ms,
        };
        let id = (window.minute_start_ms, window.currency.clone(), window.country.clone());
        match self.corrections.remove(&id) {
            Some(before) => self.corrections.insert(id, corrected(Some(&before), &late)),
            None => self.corrections.insert(id, late),
        };
    }
}

fn add_refusals(refusals: &mut BTreeMap<Text, i64>, more: &BTreeMap<Text, i64>) {
    for (code, count) in more {
        let sum = refusals.entry(code.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// A window's row with a change added.
pub fn changed(
    state: Option<&WindowState>,
    tenant: &str,
    id: &WindowRowId,
    change: &WindowChange,
) -> WindowState {
    let mut row = state.cloned().unwrap_or_else(|| WindowState {
        tenant: tenant.into(),
        granularity: id.granularity,
        window_start_ms: id.start_ms,
        currency: id.currency.clone(),
        country: id.country.clone(),
        sums: Sums::default(),
        refusals: BTreeMap::new(),
        version: 0,
    });
    sums::add(&mut row.sums, &change.sums);
    add_refusals(&mut row.refusals, &change.refusals);
    row.version += 1;
    row
}

/// A correction's row with later late changes added.
pub fn corrected(state: Option<&CorrectionState>, late: &CorrectionState) -> CorrectionState {
    let Some(state) = state else { return late.clone() };
    let mut row = state.clone();
    row.count = row.count.saturating_add(late.count);
    sums::add(&mut row.sums, &late.sums);
    row.last_at_ms = late.last_at_ms;
    row.watermark_ms = late.watermark_ms;
    row
}
