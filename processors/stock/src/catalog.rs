//! The catalog: which product a SKU is.

use tillstream_schemas::item::{ItemCommand, ItemCommandPayload, ProductState, UpsertProduct};

/// The product's new row; `None` when the command changes nothing: a repeat, or not about the product.
///
/// Versions grow by one with every change, also across a removal: the row of a removed product stays.
pub fn decide(product: Option<&ProductState>, command: &ItemCommand, now_ms: i64) -> Option<ProductState> {
    if product.is_some_and(|it| it.command_id == command.id) {
        return None;
    }
    match &command.payload {
        ItemCommandPayload::UpsertProduct(upsert) => Some(upserted(product, upsert, command, now_ms)),
        ItemCommandPayload::RemoveProduct(_) => {
            let product = product.filter(|it| !it.removed)?;
            Some(ProductState {
                version: product.version + 1,
                command_id: command.id.clone(),
                updated_at_ms: now_ms,
                removed: true,
                ..product.clone()
            })
        }
        _ => None,
    }
}

fn upserted(
    product: Option<&ProductState>,
    upsert: &UpsertProduct,
    command: &ItemCommand,
    now_ms: i64,
) -> ProductState {
    ProductState {
        tenant: command.tenant.clone(),
        sku: command.sku.clone(),
        version: product.map_or(0, |it| it.version) + 1,
        command_id: command.id.clone(),
        updated_at_ms: now_ms,
        removed: false,
        name: upsert.name.clone(),
        description: upsert.description.clone(),
        category: upsert.category.clone(),
        tax_class: upsert.tax_class.clone(),
        active: upsert.active,
        stocked: upsert.stocked,
        prices: upsert.prices.clone(),
        image_urls: upsert.image_urls.clone(),
        low_stock_threshold: upsert.low_stock_threshold,
        metadata: upsert.metadata.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tillstream_schemas::item::{CommitStock, RemoveProduct};

    fn command(id: &str, payload: ItemCommandPayload) -> ItemCommand {
        ItemCommand {
            id: id.into(),
            tenant: "demo".into(),
            sku: "MUG".into(),
            accepted_at_ms: 1,
            traceparent: None,
            payload,
        }
    }

    fn upsert(id: &str, price: i64) -> ItemCommand {
        command(
            id,
            ItemCommandPayload::UpsertProduct(Box::new(UpsertProduct {
                name: "Mug".into(),
                description: Some("Red".into()),
                category: Some("mugs".into()),
                tax_class: Some("standard".into()),
                active: true,
                stocked: true,
                prices: BTreeMap::from([("GBP".into(), price)]),
                image_urls: vec!["https://example.com/mug.png".into()],
                low_stock_threshold: Some(3),
                metadata: BTreeMap::new(),
            })),
        )
    }

    fn remove(id: &str) -> ItemCommand {
        command(id, ItemCommandPayload::RemoveProduct(RemoveProduct {}))
    }

    #[test]
    fn versions_grow_by_one_also_across_a_removal() {
        let first = decide(None, &upsert("c1", 255), 10).unwrap();
        assert_eq!((first.version, first.prices["GBP"], first.sku.as_str()), (1, 255, "MUG"));
        let second = decide(Some(&first), &upsert("c2", 300), 20).unwrap();
        assert_eq!((second.version, second.prices["GBP"], second.updated_at_ms), (2, 300, 20));
        let removed = decide(Some(&second), &remove("c3"), 30).unwrap();
        assert_eq!((removed.version, removed.removed, removed.name.as_str()), (3, true, "Mug"));
        let back = decide(Some(&removed), &upsert("c4", 1), 40).unwrap();
        assert_eq!((back.version, back.removed), (4, false));
    }

    #[test]
    fn what_changes_nothing_makes_no_version() {
        let first = decide(None, &upsert("c1", 255), 10).unwrap();
        assert_eq!(decide(Some(&first), &upsert("c1", 255), 20), None, "a repeat");
        assert_eq!(decide(None, &remove("c2"), 20), None, "nothing to remove");
        let removed = decide(Some(&first), &remove("c2"), 20).unwrap();
        assert_eq!(decide(Some(&removed), &remove("c2"), 30), None, "a repeat");
        assert_eq!(decide(Some(&removed), &remove("c3"), 30), None, "removed already");
        let commit = ItemCommandPayload::CommitStock(CommitStock { order_id: "o1".into() });
        assert_eq!(decide(Some(&first), &command("c9", commit), 20), None, "not about the product");
    }
}
