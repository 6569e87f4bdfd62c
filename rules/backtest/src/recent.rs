//! What rules would be asked about the last orders of the log: inputs for a dry run where no call was kept.

use crate::error::BacktestError;
use crate::history::History;
use crate::judge::PastOrder;
use crate::run::Products;
use tillstream_log::Log;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::rule::{Hook, RuleCall};

/// Commands of a partition that are looked at: most of them are answers of stock and of the provider, not orders.
const COMMANDS: u64 = 5_000;

/// The last questions of a hook, newest first; none for a hook that the log does not tell enough about.
///
/// # Errors
/// The log's and the catalog's.
pub async fn recent_questions(
    log: &dyn Log,
    products: &dyn Products,
    tenant: &str,
    hook: Hook,
    most: usize,
) -> Result<Vec<(Text, RuleCall)>, BacktestError> {
    let mut orders = Vec::new();
    for partition in 0..log.partitions(Topic::OrderCommands) {
        let mut history = History::open_recent(log, tenant, partition, COMMANDS).await?;
        let mut last: Vec<PastOrder> = Vec::new();
        while let Some(chunk) = history.next(log).await? {
            last.extend(chunk.orders);
            last.drain(..last.len().saturating_sub(most));
        }
        orders.append(&mut last);
    }
    orders.sort_by(|a, b| {
        let key = |it: &PastOrder| (it.placed.placed_at_ms, it.order_id.clone());
        key(b).cmp(&key(a))
    });
    let of_tenant = Text::from(tenant);
    let wanted: Vec<(Text, Text)> = orders
        .iter()
        .filter(|it| it.needs_products(hook))
        .flat_map(|it| it.placed.lines.iter().map(|line| (of_tenant.clone(), line.sku.clone())))
        .collect();
    let catalog = products.resolve(&wanted).await.map_err(BacktestError::Failed)?;
    let asked = |it: PastOrder| Some((it.order_id.clone(), it.question(hook, tenant, &*catalog)?));
    Ok(orders.into_iter().filter_map(asked).take(most).collect())
}
