//! Where rows lie in a partitioned database: the shard is the partition of the task that owns the row, the bucket
//! spreads a shard over database partitions that stay small.

use tillstream_stage::partition::{murmur2, partition_of};
use tillstream_stage::{Key, RowKey, Table};

/// The log key of the task that owns the row: what its partition is computed from.
pub fn owner_key(row: &RowKey) -> Key {
    let key = row.key.as_str();
    match row.table {
        Table::Order | Table::Product | Table::Stock | Table::Watermark => row.key.clone(),
        // The salt puts it where it belongs.
        Table::WebhookFeed | Table::ItemWebhookFeed => row.key.clone(),
        // tenant/endpoint/<moment>/message/subject → tenant/subject
        Table::WebhookDelivery | Table::ItemWebhookDelivery => {
            match key.splitn(5, '/').collect::<Vec<_>>()[..] {
                [tenant, _, _, _, subject] => tillstream_stage::ids::key(tenant, subject),
                _ => row.key.clone(),
            }
        }
        // tenant/<moment>/order → tenant/order
        Table::OrderIndex => match (key.split_once('/'), key.rsplit_once('/')) {
            (Some((tenant, _)), Some((_, order))) => tillstream_stage::ids::key(tenant, order),
            _ => row.key.clone(),
        },
        // tenant/sku/id → tenant/sku
        Table::Hold | Table::Adjustment | Table::WebhookLane | Table::ItemWebhookLane => {
            Key::from(key.rsplit_once('/').map_or(key, |(item, _)| item))
        }
        Table::Window | Table::TopProducts | Table::Correction => Key::from(tenant(key)),
    }
}

/// The shard of a row: its owner's partition.
pub fn shard_of(row: &RowKey, partitions: u32) -> u32 {
    partition_of(owner_key(row).as_bytes(), partitions)
}

/// Whether rows of the table lie in one bucket per tenant, so that a tenant's rows are read in key order.
pub fn by_tenant(table: Table) -> bool {
    matches!(
        table,
        Table::OrderIndex | Table::Window | Table::TopProducts | Table::Correction | Table::Watermark
    ) || in_every_shard(table)
}

/// Whether a tenant's rows of the table lie in every shard.
fn in_every_shard(table: Table) -> bool {
    matches!(
        table,
        Table::OrderIndex
            | Table::WebhookFeed
            | Table::WebhookDelivery
            | Table::ItemWebhookFeed
            | Table::ItemWebhookDelivery
    )
}

/// The bucket of a row within its shard.
pub fn bucket_of(row: &RowKey, buckets: u32) -> u32 {
    let key = if by_tenant(row.table) { tenant(&row.key) } else { row.key.as_str() };
    // Not the bits that chose the shard: those are all alike within one.
    (murmur2(key.as_bytes()) >> 8).wrapping_mul(0x9e37_79b1) % buckets.max(1)
}

/// The (shard, bucket) pairs that may hold rows whose key starts with `prefix`.
pub fn places_of(table: Table, prefix: &str, partitions: u32, buckets: u32) -> Vec<(u32, u32)> {
    let whole_tenant = prefix.split_once('/').map(|(tenant, _)| tenant);
    let Some(tenant) = whole_tenant.filter(|_| by_tenant(table)) else {
        return (0..partitions).flat_map(|shard| (0..buckets).map(move |bucket| (shard, bucket))).collect();
    };
    let bucket = bucket_of(&RowKey::new(table, Key::from(tenant)), buckets);
    if in_every_shard(table) {
        return (0..partitions).map(|shard| (shard, bucket)).collect();
    }
    vec![(partition_of(tenant.as_bytes(), partitions), bucket)]
}

fn tenant(key: &str) -> &str {
    key.split_once('/').map_or(key, |(tenant, _)| tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_shard_of_the_task_that_owns_it() {
        let cases = [
            (Table::Order, "demo/ord_1", "demo/ord_1"),
            (Table::OrderIndex, "demo/7fffff0123456789/ord_1", "demo/ord_1"),
            (Table::Product, "demo/a/b", "demo/a/b"),
            (Table::Stock, "demo/a", "demo/a"),
            (Table::Hold, "demo/a/b/ord_1", "demo/a/b"),
            (Table::Adjustment, "demo/a/adj_1", "demo/a"),
            (Table::Window, "demo/m/0000/GBP/GB", "demo"),
            (Table::TopProducts, "demo/m/0000/GBP", "demo"),
            (Table::Correction, "demo/0000/GBP/GB", "demo"),
            (Table::Watermark, "demo", "demo"),
            (Table::WebhookFeed, "demo/whe_1/7", "demo/whe_1/7"),
            (Table::WebhookLane, "demo/ord_1/whe_1", "demo/ord_1"),
            (Table::ItemWebhookLane, "demo/a/b/whe_1", "demo/a/b"),
            (Table::WebhookDelivery, "demo/whe_1/7fffff0123456789/msg_1/ord_1", "demo/ord_1"),
            (Table::ItemWebhookDelivery, "demo/whe_1/7fffff0123456789/msg_1/a/b", "demo/a/b"),
        ];
        for (table, key, owner) in cases {
            assert_eq!(owner_key(&RowKey::new(table, Key::from(key))), owner, "{table:?}");
        }
    }

    #[test]
    fn a_rows_place_is_among_those_of_its_prefix() {
        for table in Table::ALL {
            for n in 0..200 {
                // A watermark's key is the tenant alone.
                let key = if table == Table::Watermark { "demo".into() } else { format!("demo/x{n}/y{n}") };
                let row = RowKey::new(table, Key::from(key));
                let place = (shard_of(&row, 6), bucket_of(&row, 16));
                assert!(places_of(table, "demo/", 6, 16).contains(&place), "{row:?}");
            }
        }
        assert_eq!(places_of(Table::Window, "demo/m/", 6, 16).len(), 1);
    }

    #[test]
    fn the_rows_of_a_shard_spread_over_its_buckets() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..4_000 {
            let row = RowKey::new(Table::Order, Key::from(format!("demo/ord_{n}")));
            if shard_of(&row, 4) == 1 {
                seen.insert(bucket_of(&row, 16));
            }
        }
        assert_eq!(seen.len(), 16);
    }
}
