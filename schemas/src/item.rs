//! `items.item.commands.v1`, `items.stock.events.v1`, `catalog.product.state.v1`, and the item task's rows.

use crate::order_command::Allocation;
use crate::{Text, TextMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One command to the item task. Key: `tenant/sku`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemCommand {
    /// Deterministic command id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The SKU.
    pub sku: Text,
    /// When it was accepted, ms since the epoch.
    pub accepted_at_ms: i64,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<Text>,
    /// What is asked.
    pub payload: ItemCommandPayload,
}

/// The kinds of command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ItemCommandPayload {
    /// Create or replace a product.
    #[serde(rename = "tillstream.UpsertProduct")]
    UpsertProduct(Box<UpsertProduct>),
    /// Remove a product.
    #[serde(rename = "tillstream.RemoveProduct")]
    RemoveProduct(RemoveProduct),
    /// Hold units for an order.
    #[serde(rename = "tillstream.ReserveStock")]
    ReserveStock(ReserveStock),
    /// Give an order's hold (or sale) back.
    #[serde(rename = "tillstream.ReleaseStock")]
    ReleaseStock(ReleaseStock),
    /// Make an order's hold a sale.
    #[serde(rename = "tillstream.CommitStock")]
    CommitStock(CommitStock),
    /// Goods came back from a customer.
    #[serde(rename = "tillstream.ReceiveStock")]
    ReceiveStock(ReceiveStock),
    /// A merchant corrects or receives stock.
    #[serde(rename = "tillstream.AdjustStock")]
    AdjustStock(AdjustStock),
}

/// A product as the merchant sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpsertProduct {
    /// Name.
    pub name: Text,
    /// Description.
    #[serde(default)]
    pub description: Option<Text>,
    /// Category.
    #[serde(default)]
    pub category: Option<Text>,
    /// Tax class; absent: untaxed.
    #[serde(default)]
    pub tax_class: Option<Text>,
    /// Whether it may be ordered.
    pub active: bool,
    /// Whether it holds stock.
    pub stocked: bool,
    /// Minor units per ISO 4217 code.
    pub prices: BTreeMap<Text, i64>,
    /// Images.
    #[serde(default)]
    pub image_urls: Vec<Text>,
    /// An alert is raised when available falls below this.
    #[serde(default)]
    pub low_stock_threshold: Option<i64>,
    /// The merchant's metadata.
    #[serde(default)]
    pub metadata: TextMap,
}

/// Remove a product; its stock stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveProduct {}

/// Hold units of this SKU for one order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReserveStock {
    /// The order; order and SKU together are the hold's id.
    pub order_id: Text,
    /// Units.
    pub quantity: i64,
    /// Past this the request is refused, ms since the epoch.
    pub expires_at_ms: i64,
    /// Locations in the order of preference; empty: the item task chooses.
    #[serde(default)]
    pub locations: Vec<Allocation>,
}

/// Give a hold or a sale back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStock {
    /// The order.
    pub order_id: Text,
    /// Keep refusing this hold's id until then.
    pub expires_at_ms: i64,
}

/// A hold becomes a sale: on hand and reserved both fall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitStock {
    /// The order.
    pub order_id: Text,
}

/// Goods came back. Its command id is judged like an adjustment's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiveStock {
    /// The order or credit they came back from.
    pub order_id: Text,
    /// The return.
    pub return_id: Text,
    /// Units.
    pub quantity: i64,
    /// Where to; absent: where it was sold from, or `main`.
    #[serde(default)]
    pub location: Option<Text>,
}

/// A merchant's adjustment. The command's id is the adjustment's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdjustStock {
    /// Units, positive or negative, never zero.
    pub delta: i64,
    /// Why, such as `received`, `damaged`.
    pub reason: Text,
    /// Where.
    pub location: Text,
    /// Fingerprint of the body.
    pub fingerprint: Text,
}

/// The product row, and the value of `catalog.product.state.v1`. Key: `tenant/sku`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProductState {
    /// The tenant.
    pub tenant: Text,
    /// The SKU.
    pub sku: Text,
    /// Grows by one with every change.
    pub version: i64,
    /// The command that made this version.
    pub command_id: Text,
    /// When.
    pub updated_at_ms: i64,
    /// Removed products keep their row, so that the version goes on.
    pub removed: bool,
    /// Name.
    pub name: Text,
    /// Description.
    #[serde(default)]
    pub description: Option<Text>,
    /// Category.
    #[serde(default)]
    pub category: Option<Text>,
    /// Tax class; absent: untaxed.
    #[serde(default)]
    pub tax_class: Option<Text>,
    /// Whether it may be ordered.
    pub active: bool,
    /// Whether it holds stock.
    pub stocked: bool,
    /// Minor units per ISO 4217 code.
    pub prices: BTreeMap<Text, i64>,
    /// Images.
    #[serde(default)]
    pub image_urls: Vec<Text>,
    /// Alert threshold.
    #[serde(default)]
    pub low_stock_threshold: Option<i64>,
    /// The merchant's metadata.
    #[serde(default)]
    pub metadata: TextMap,
}

/// The stock row. Key: `tenant/sku`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StockState {
    /// The tenant.
    pub tenant: Text,
    /// The SKU.
    pub sku: Text,
    /// Per location, sorted by name.
    pub locations: Vec<LocationStock>,
    /// Alert threshold, copied from the product.
    #[serde(default)]
    pub low_stock_threshold: Option<i64>,
    /// Whether available is below the threshold and the alert was raised.
    pub low: bool,
    /// Σ received and adjusted (both signs), for the audit `received = on hand + sold`.
    pub received: i64,
    /// Σ sold and not given back.
    pub sold: i64,
    /// Grows by one with every change.
    pub version: i64,
}

/// Stock at one location.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocationStock {
    /// The location.
    pub location: Text,
    /// Units there.
    pub on_hand: i64,
    /// Units held by open holds.
    pub reserved: i64,
}

/// One order's hold on one SKU. Key: `tenant/sku/order_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldState {
    /// Units.
    pub quantity: i64,
    /// Where it stands.
    pub phase: HoldPhase,
    /// Where the units are held.
    pub allocations: Vec<Allocation>,
    /// When it ends unless committed; and until when a released id stays refused.
    pub expires_at_ms: i64,
}

/// Where a hold stands, as stock sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldPhase {
    /// Holding.
    Open,
    /// Sold.
    Committed,
    /// Given back: a tombstone that refuses its id.
    Released,
    /// Refused: a duplicate gets the same answer.
    Refused,
}

/// An adjustment that was applied. Key: `tenant/sku/command_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdjustmentState {
    /// Fingerprint of the body.
    pub fingerprint: Text,
    /// Units.
    pub delta: i64,
    /// Why.
    pub reason: Text,
    /// Where.
    pub location: Text,
    /// When it was applied.
    pub applied_at_ms: i64,
}

/// `items.stock.events.v1`. Key: `tenant/sku`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemEvent {
    /// Deterministic event id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The SKU.
    pub sku: Text,
    /// When.
    pub at_ms: i64,
    /// The command that caused it (the last of the batch for a folded level).
    pub command_id: Text,
    /// What happened.
    pub payload: ItemEventPayload,
}

/// The kinds of item event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ItemEventPayload {
    /// The level after a batch of changes.
    #[serde(rename = "tillstream.StockLevelChanged")]
    StockLevelChanged(StockLevelChanged),
    /// Available fell below the threshold.
    #[serde(rename = "tillstream.LowStock")]
    LowStock(LowStock),
    /// An adjustment was applied.
    #[serde(rename = "tillstream.StockAdjusted")]
    StockAdjusted(StockAdjusted),
    /// An adjustment was refused (it would make stock negative), or its id came with another body.
    #[serde(rename = "tillstream.AdjustmentRefused")]
    AdjustmentRefused(AdjustmentRefused),
}

impl ItemEventPayload {
    /// The CloudEvents type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StockLevelChanged(_) => "inventory.level_changed",
            Self::LowStock(_) => "inventory.low_stock",
            Self::StockAdjusted(_) => "inventory.adjusted",
            Self::AdjustmentRefused(_) => "inventory.adjustment_refused",
        }
    }
}

/// The level of one SKU, summed over locations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockLevelChanged {
    /// Units there.
    pub on_hand: i64,
    /// Units held.
    pub reserved: i64,
    /// on hand − reserved.
    pub available: i64,
    /// The row's version.
    pub version: i64,
}

/// Available fell below the threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LowStock {
    /// on hand − reserved.
    pub available: i64,
    /// The threshold.
    pub threshold: i64,
}

/// An adjustment was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockAdjusted {
    /// Units.
    pub delta: i64,
    /// Why.
    pub reason: Text,
    /// Where.
    pub location: Text,
    /// The location's on hand after it.
    pub on_hand: i64,
}

/// An adjustment was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdjustmentRefused {
    /// Stable code: `would_be_negative`, `conflict`, `overflow`.
    pub code: Text,
    /// A sentence.
    pub message: Text,
}
