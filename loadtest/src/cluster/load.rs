//! Puts products, stock and orders on the log, as ingest would.

use super::house::{House, blocking};
use super::wire::Sender;
use crate::BenchError;
use crate::generator::Generator;
use crate::report::progress;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_schemas::order_command::OrderCommand;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::key;

/// As the comparison program's, in ms: records are collected while there is no hurry.
const LOAD_LINGER_MS: u32 = 20;

/// Products and their stock, through the item task; settled in the database when it returns.
pub async fn items(house: &House, generator: &Arc<Generator>) -> Result<(), BenchError> {
    progress(&format!("loading {} products", generator.tenants().len() * generator.skus().len()));
    let sender = Sender::open(house.brokers(), house.ids.clone(), house.partitions, LOAD_LINGER_MS)?;
    let (generator, now_ms) = (Arc::clone(generator), house.clock.now_ms());
    blocking(move || {
        for tenant in generator.tenants() {
            for sku in generator.skus() {
                for command in generator.item_commands(tenant, sku, now_ms) {
                    sender.send(Topic::ItemCommands, &key(tenant, sku), &command)?;
                }
            }
        }
        sender.finish()
    })
    .await?;
    let mut worker = house.worker(&["item", "webhooks"])?;
    worker.assigned("item").await?;
    worker.idle().await?;
    worker.stop().await
}

/// Orders `first..first + count` as commands, placed 1 ms apart and ending now.
pub async fn orders(
    house: &House,
    generator: &Arc<Generator>,
    first: u64,
    count: u64,
) -> Result<(), BenchError> {
    progress(&format!("writing {count} orders"));
    let sender = Sender::open(house.brokers(), house.ids.clone(), house.partitions, LOAD_LINGER_MS)?;
    let (generator, now_ms) = (Arc::clone(generator), house.clock.now_ms());
    blocking(move || {
        for index in first..first + count {
            let before_ms = i64::try_from(first + count - index).unwrap_or(0);
            send(&sender, &generator.order(index).into_command(now_ms - before_ms))?;
        }
        sender.finish()
    })
    .await
}

fn send(sender: &Sender, command: &OrderCommand) -> Result<(), BenchError> {
    sender.send(Topic::OrderCommands, &key(&command.tenant, &command.order_id), command)
}

/// Which order has which id.
pub fn ids(generator: &Generator, first: u64, count: u64) -> HashMap<Text, u64> {
    (first..first + count).map(|it| (generator.order(it).into_command(0).order_id, it)).collect()
}

/// Orders at a fixed rate, whatever the chain does.
pub struct OpenLoop {
    /// The first order.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Orders per second.
    pub rate: u32,
    /// When the first is due, monotonic.
    pub begin_ns: u64,
}

impl OpenLoop {
    /// When an order is due.
    pub fn due_ns(&self, index: u64) -> u64 {
        let nth = u128::from(index.saturating_sub(self.first));
        let after = nth * 1_000_000_000 / u128::from(self.rate.max(1));
        self.begin_ns + u64::try_from(after).unwrap_or(u64::MAX / 2)
    }

    /// Sends all of them, each when it is due, on a thread of its own.
    pub fn start(
        self: &Arc<Self>,
        house: &House,
        generator: &Arc<Generator>,
    ) -> Result<std::thread::JoinHandle<Result<(), BenchError>>, BenchError> {
        let sender = Sender::open(house.brokers(), house.ids.clone(), house.partitions, 0)?;
        let (plan, generator, clock) = (Arc::clone(self), Arc::clone(generator), Arc::clone(&house.clock));
        let begin_ms = clock.now_ms();
        let work = move || {
            for index in plan.first..plan.first + plan.count {
                let due_ns = plan.due_ns(index);
                let left_ns = due_ns.saturating_sub(clock.monotonic_ns());
                if left_ns > 0 {
                    std::thread::sleep(Duration::from_nanos(left_ns));
                }
                let after_ms = i64::try_from((due_ns - plan.begin_ns) / 1_000_000).unwrap_or(0);
                send(&sender, &generator.order(index).into_command(begin_ms + after_ms))?;
            }
            sender.finish()
        };
        std::thread::Builder::new().name("orders".into()).spawn(work).map_err(BenchError::io("a thread"))
    }
}
