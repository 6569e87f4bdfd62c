//! Holds the pipeline's rows and the provider's ledger against the workload.

use crate::BenchError;
use tillstream_effects::SandboxProvider;
use tillstream_embedded::EmbeddedStore;
use tillstream_schemas::analytics::{Granularity, WindowState};
use tillstream_schemas::codec::{self, Wire};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_stage::Table;
use tillstream_state::State;

/// Rows per page of a scan.
const PAGE_ROWS: usize = 1_000;

async fn for_each<T: Wire>(
    store: &EmbeddedStore,
    table: Table,
    mut look: impl FnMut(T),
) -> Result<(), BenchError> {
    let mut after = None;
    loop {
        let page = store.scan(table, "", after.as_deref(), PAGE_ROWS).await.map_err(BenchError::pipeline)?;
        for (_, value) in &page.rows {
            look(codec::decode(value).map_err(BenchError::pipeline)?);
        }
        match page.rows.last() {
            Some((key, _)) if page.more => after = Some(key.clone()),
            _ => return Ok(()),
        }
    }
}

fn expect(what: &str, found: i128, expected: i128) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    Err(BenchError::Unverified(format!("{what}: {found}, not {expected}")))
}

/// Every order is confirmed; the provider has captured each once, and what the orders say; analytics counted each once.
pub async fn verify(store: &EmbeddedStore, sandbox: &SandboxProvider, orders: u64) -> Result<(), BenchError> {
    let (mut confirmed, mut captured_minor) = (0, 0);
    for_each(store, Table::Order, |order: OrderState| {
        confirmed += i128::from(order.view.status == OrderStatus::Confirmed);
        captured_minor += order.payment.map_or(0, |it| i128::from(it.captured_minor));
    })
    .await?;
    let orders = i128::from(orders);
    expect("orders confirmed", confirmed, orders)?;
    let totals = sandbox.totals().map_err(BenchError::pipeline)?;
    let charged: i128 = totals.values().map(|it| i128::from(it.captured_payments)).sum();
    expect("payments captured", charged, orders)?;
    let charged_minor: i128 = totals.values().map(|it| i128::from(it.captured_minor)).sum();
    expect("minor units captured by the provider", charged_minor, captured_minor)?;
    let mut counted = 0;
    for_each(store, Table::Window, |window: WindowState| {
        if window.granularity == Granularity::Day {
            counted += i128::from(window.sums.orders);
        }
    })
    .await?;
    expect("orders in the day windows", counted, orders)
}
