//! One SKU with its rows in memory, as the item task keeps them, and short names for commands.

use std::collections::BTreeMap;
use tillstream_schemas::item::{
    AdjustStock, AdjustmentState, CommitStock, HoldPhase, HoldState, ItemCommand, ItemCommandPayload,
    ProductState, ReceiveStock, ReleaseStock, ReserveStock, StockState, UpsertProduct,
};
use tillstream_schemas::order_command::Allocation;
use tillstream_stage::StageError;
use tillstream_stock::{StockDecision, StockFacts, level, stock};

pub const NOW: i64 = 1_000_000;

pub struct Item {
    pub now_ms: i64,
    pub product: Option<ProductState>,
    pub stock: Option<StockState>,
    pub holds: BTreeMap<String, HoldState>,
    pub adjustments: BTreeMap<String, AdjustmentState>,
}

impl Default for Item {
    fn default() -> Self {
        Self { now_ms: NOW, product: None, stock: None, holds: BTreeMap::new(), adjustments: BTreeMap::new() }
    }
}

impl Item {
    pub fn try_apply(&mut self, id: &str, payload: ItemCommandPayload) -> Result<StockDecision, StageError> {
        let order_id = match &payload {
            ItemCommandPayload::ReserveStock(it) => it.order_id.to_string(),
            ItemCommandPayload::ReleaseStock(it) => it.order_id.to_string(),
            ItemCommandPayload::CommitStock(it) => it.order_id.to_string(),
            ItemCommandPayload::ReceiveStock(it) => it.order_id.to_string(),
            _ => String::new(),
        };
        let command = ItemCommand {
            id: id.into(),
            tenant: "demo".into(),
            sku: "MUG".into(),
            accepted_at_ms: self.now_ms,
            traceparent: None,
            payload,
        };
        let facts = StockFacts {
            stock: self.stock.as_ref(),
            hold: self.holds.get(&order_id),
            adjustment: self.adjustments.get(id),
            product: self.product.as_ref(),
        };
        let decision = stock::decide(facts, &command, self.now_ms)?;
        if let Some(stock) = &decision.stock {
            assert_eq!(stock.version, self.stock.as_ref().map_or(0, |it| it.version) + 1);
            assert!(stock.locations.windows(2).all(|it| it[0].location < it[1].location));
            self.stock = Some(stock.clone());
        }
        if let Some(hold) = &decision.hold {
            self.holds.insert(order_id, hold.clone());
        }
        if let Some(adjustment) = &decision.adjustment {
            self.adjustments.insert(id.to_owned(), adjustment.clone());
        }
        Ok(decision)
    }

    pub fn apply(&mut self, id: &str, payload: ItemCommandPayload) -> StockDecision {
        self.try_apply(id, payload).expect("decided")
    }

    pub fn stock(&self) -> StockState {
        self.stock.clone().unwrap_or_default()
    }

    /// On hand, reserved, available.
    pub fn levels(&self) -> (i64, i64, i64) {
        let level = level(&self.stock());
        (level.on_hand, level.reserved, level.available)
    }

    /// Units of the holds in this phase.
    pub fn held(&self, phase: HoldPhase) -> i64 {
        self.holds.values().filter(|it| it.phase == phase).map(|it| it.quantity).sum()
    }

    /// Units of the holds in this phase at one location.
    pub fn allocated(&self, phase: HoldPhase, location: &str) -> i64 {
        let holds = self.holds.values().filter(|it| it.phase == phase);
        holds.flat_map(|it| &it.allocations).filter(|it| it.location == location).map(|it| it.quantity).sum()
    }
}

pub fn at(location: &str, quantity: i64) -> Allocation {
    Allocation { location: location.into(), quantity }
}

pub fn reserve_at(order_id: &str, quantity: i64, preferred: &[&str]) -> ItemCommandPayload {
    ItemCommandPayload::ReserveStock(ReserveStock {
        order_id: order_id.into(),
        quantity,
        expires_at_ms: NOW + 900_000,
        locations: preferred.iter().map(|it| at(it, 0)).collect(),
    })
}

pub fn reserve(order_id: &str, quantity: i64) -> ItemCommandPayload {
    reserve_at(order_id, quantity, &[])
}

pub fn release(order_id: &str) -> ItemCommandPayload {
    ItemCommandPayload::ReleaseStock(ReleaseStock { order_id: order_id.into(), expires_at_ms: NOW + 900_000 })
}

pub fn commit(order_id: &str) -> ItemCommandPayload {
    ItemCommandPayload::CommitStock(CommitStock { order_id: order_id.into() })
}

pub fn receive(order_id: &str, quantity: i64) -> ItemCommandPayload {
    ItemCommandPayload::ReceiveStock(ReceiveStock {
        order_id: order_id.into(),
        return_id: "ret_1".into(),
        quantity,
        location: None,
    })
}

pub fn adjust(location: &str, delta: i64, fingerprint: &str) -> ItemCommandPayload {
    ItemCommandPayload::AdjustStock(AdjustStock {
        delta,
        reason: "counted".into(),
        location: location.into(),
        fingerprint: fingerprint.into(),
    })
}

pub fn upsert(low_stock_threshold: Option<i64>) -> ItemCommandPayload {
    ItemCommandPayload::UpsertProduct(Box::new(UpsertProduct {
        name: "Mug".into(),
        description: None,
        category: None,
        tax_class: None,
        active: true,
        stocked: true,
        prices: BTreeMap::from([("GBP".into(), 255)]),
        image_urls: Vec::new(),
        low_stock_threshold,
        metadata: BTreeMap::new(),
    }))
}

pub fn product(stocked: bool) -> ProductState {
    ProductState { active: true, stocked, ..ProductState::default() }
}
