//! Holds what the chain did against the workload.

use super::house::{House, blocking};
use super::wire::{self, Final};
use crate::BenchError;
use crate::generator::{GeneratedOrder, Generator};
use std::sync::Arc;
use tillstream_schemas::Topic;
use tillstream_schemas::analytics::{Granularity, WindowState};
use tillstream_schemas::codec;
use tillstream_schemas::item::StockState;
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload};
use tillstream_stage::Table;

/// What the final events say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Orders paid for.
    pub confirmed: u64,
    /// Orders that ended otherwise.
    pub other: u64,
    /// Orders with more than one final event.
    pub duplicates: u64,
    /// Orders with none.
    pub missing: u64,
    /// Orders with another total than the workload implies.
    pub wrong: u64,
    /// Units that the stock rows say are sold.
    pub units_sold: i64,
    /// Units of the confirmed orders.
    pub units_ordered: i64,
    /// Orders that the one-minute windows count.
    pub orders_counted: i64,
}

impl Verdict {
    /// Whether all is as it must be.
    pub fn holds(&self) -> bool {
        self.duplicates + self.missing + self.wrong + self.other == 0
            && self.units_sold == self.units_ordered
            && u64::try_from(self.orders_counted) == Ok(self.confirmed)
    }
}

/// The total of an order, as its prices and the German rates of its products' tax classes imply.
pub fn total_minor(generator: &Generator, order: &GeneratedOrder) -> i64 {
    let total = |(sku, quantity): &(tillstream_schemas::Text, i64)| {
        let product = generator.product(&order.tenant, sku);
        let net = product.price_minor * quantity;
        let basis_points = match product.tax_class {
            Some("standard") => 1_900,
            Some("reduced") => 700,
            _ => 0,
        };
        let (whole, rest) = (net * basis_points / 10_000, net * basis_points % 10_000);
        // Half to even.
        let up = rest > 5_000 || (rest == 5_000 && whole % 2 == 1);
        net + whole + i64::from(up)
    };
    order.lines.iter().map(total).sum()
}

/// One final event per order, with the right total.
pub fn finals(
    generator: &Generator,
    first: u64,
    count: u64,
    finals: &[Final],
) -> Result<Verdict, BenchError> {
    let mut seen = vec![0_u32; usize::try_from(count).map_err(BenchError::pipeline)?];
    let mut verdict = Verdict::default();
    for it in finals {
        let Some(times) = usize::try_from(it.index - first).ok().and_then(|at| seen.get_mut(at)) else {
            continue;
        };
        *times += 1;
        if *times > 1 {
            verdict.duplicates += 1;
            continue;
        }
        let event: OrderEvent = codec::decode(&it.value).map_err(BenchError::pipeline)?;
        let order = generator.order(it.index);
        match event.payload {
            OrderEventPayload::PaymentCaptured(captured) if captured.confirms => {
                verdict.confirmed += 1;
                verdict.units_ordered += order.lines.iter().map(|it| it.1).sum::<i64>();
                verdict.wrong += u64::from(captured.amount_minor != total_minor(generator, &order));
            }
            _ => verdict.other += 1,
        }
    }
    verdict.missing = seen.iter().filter(|it| **it == 0).count() as u64;
    Ok(verdict)
}

/// Where the topics ended before the orders came.
#[derive(Clone, Debug)]
pub struct Before {
    items: Vec<i64>,
    windows: Vec<i64>,
}

impl Before {
    /// Now; the chain must rest.
    pub async fn now(house: &House) -> Result<Self, BenchError> {
        Ok(Self {
            items: house.ends(Topic::ItemChangelog).await?,
            windows: house.ends(Topic::AnalyticsWindows).await?,
        })
    }

    /// Adds what the stock rows and the windows say, without what an earlier part has sold and counted since.
    pub async fn complete(
        &self,
        house: &House,
        verdict: Verdict,
        earlier: &Verdict,
    ) -> Result<Verdict, BenchError> {
        let (sold_before, counted_before) = (earlier.units_ordered, earlier.confirmed);
        let (brokers, ids, before) = (house.brokers().to_owned(), Arc::clone(&house.ids), self.clone());
        blocking(move || {
            let mut verdict = verdict;
            verdict.units_sold -= sold_before;
            verdict.orders_counted -= i64::try_from(counted_before).map_err(BenchError::pipeline)?;
            let table = format!("{}/", Table::Stock.name());
            let is_stock = |key: &[u8]| key.starts_with(table.as_bytes());
            let rows = wire::latest(&brokers, &ids, Topic::ItemChangelog, &before.items, is_stock)?;
            for value in rows.values() {
                let stock: StockState = codec::decode(value).map_err(BenchError::pipeline)?;
                verdict.units_sold += stock.sold;
            }
            let windows = wire::latest(&brokers, &ids, Topic::AnalyticsWindows, &before.windows, |_| true)?;
            for value in windows.values() {
                let window: WindowState = codec::decode(value).map_err(BenchError::pipeline)?;
                if window.granularity == Granularity::Minute {
                    verdict.orders_counted += window.sums.orders;
                }
            }
            Ok(verdict)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::SKUS;
    use tillstream_schemas::order_event::PaymentCaptured;

    fn captured(index: u64, amount_minor: i64) -> Final {
        let payload = PaymentCaptured {
            payment_id: "pay_1".into(),
            amount_minor,
            provider_ref: None,
            confirms: true,
            rule: None,
        };
        let event = OrderEvent {
            id: "evt_1".into(),
            tenant: "t".into(),
            order_id: "ord_1".into(),
            version: 1,
            at_ms: 0,
            command_id: "cmd_1".into(),
            traceparent: None,
            status: "confirmed".into(),
            payload: payload.into(),
        };
        Final { index, at_ns: 0, value: codec::encode(&event).unwrap() }
    }

    #[test]
    fn every_way_to_be_wrong_is_counted() {
        let generator = Generator::new(1, SKUS);
        let right = |index: u64| captured(index, total_minor(&generator, &generator.order(index)));
        let all = finals(&generator, 5, 2, &[right(5), right(6)]).unwrap();
        assert_eq!((all.confirmed, all.duplicates, all.missing, all.wrong), (2, 0, 0, 0));
        let all = finals(&generator, 5, 2, &[captured(5, 1), right(5)]).unwrap();
        assert_eq!((all.confirmed, all.duplicates, all.missing, all.wrong), (1, 1, 1, 1));
        assert!(!all.holds());
    }

    /// Order 5 of seed 1: its first line is one unit at 88.55 without tax.
    #[test]
    fn a_total_is_the_sum_of_lines_with_their_tax() {
        let generator = Generator::new(1, SKUS);
        let mut order = generator.order(5);
        order.lines.truncate(1);
        assert_eq!(total_minor(&generator, &order), 8_855);
    }
}
