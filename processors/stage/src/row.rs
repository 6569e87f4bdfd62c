//! Rows: what a task keeps, keyed by table and text key.

use crate::Key;
use crate::task::TaskKind;

/// The tables. The discriminant is part of the embedded store's format: never reuse or reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Order task: one row per order or credit. Key: `tenant/order_id`.
    Order = 1,
    /// Order task: orders of a tenant, newest first; never rewritten.
    /// Key: `tenant/<i64::MAX − accepted_at_ms, 16 hex digits>/order_id`; the value is empty.
    OrderIndex = 2,
    /// Item task: products. Key: `tenant/sku`.
    Product = 3,
    /// Item task: stock sums. Key: `tenant/sku`.
    Stock = 4,
    /// Item task: holds. Key: `tenant/sku/order_id`.
    Hold = 5,
    /// Item task: applied adjustments and receipts. Key: `tenant/sku/command_id`.
    Adjustment = 6,
    /// Analytics task: windows.
    Window = 7,
    /// Analytics task: top products.
    TopProducts = 8,
    /// Analytics task: late corrections.
    Correction = 9,
    /// Analytics task: watermarks. Key: `tenant`.
    Watermark = 10,
    /// Webhooks task: how far an endpoint is in a partition. Key: `tenant/endpoint/salt`, the salt chosen so that the key
    /// lies in that partition.
    WebhookFeed = 11,
    /// Webhooks task: events of an order or item that wait for another attempt. Key: `tenant/subject/endpoint`.
    WebhookLane = 12,
    /// Webhooks task: what became of deliveries, newest first.
    /// Key: `tenant/endpoint/<i64::MAX − at_ms, 16 hex digits>/message id/subject`.
    WebhookDelivery = 13,
    /// Item webhooks task: as [`Table::WebhookFeed`].
    ItemWebhookFeed = 14,
    /// Item webhooks task: as [`Table::WebhookLane`].
    ItemWebhookLane = 15,
    /// Item webhooks task: as [`Table::WebhookDelivery`].
    ItemWebhookDelivery = 16,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 16] = [
        Self::Order,
        Self::OrderIndex,
        Self::Product,
        Self::Stock,
        Self::Hold,
        Self::Adjustment,
        Self::Window,
        Self::TopProducts,
        Self::Correction,
        Self::Watermark,
        Self::WebhookFeed,
        Self::WebhookLane,
        Self::WebhookDelivery,
        Self::ItemWebhookFeed,
        Self::ItemWebhookLane,
        Self::ItemWebhookDelivery,
    ];

    /// The task kind whose rows it holds: the only writer.
    pub fn kind(self) -> TaskKind {
        match self {
            Self::Order | Self::OrderIndex => TaskKind::Order,
            Self::Product | Self::Stock | Self::Hold | Self::Adjustment => TaskKind::Item,
            Self::Window | Self::TopProducts | Self::Correction | Self::Watermark => TaskKind::Analytics,
            Self::WebhookFeed | Self::WebhookLane | Self::WebhookDelivery => TaskKind::OrderWebhooks,
            Self::ItemWebhookFeed | Self::ItemWebhookLane | Self::ItemWebhookDelivery => {
                TaskKind::ItemWebhooks
            }
        }
    }

    /// Whether only its own task reads it, and no query.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Hold | Self::WebhookLane | Self::ItemWebhookLane)
    }

    /// Finds a table by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Its name, for metrics and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::OrderIndex => "order_index",
            Self::Product => "product",
            Self::Stock => "stock",
            Self::Hold => "hold",
            Self::Adjustment => "adjustment",
            Self::Window => "window",
            Self::TopProducts => "top_products",
            Self::Correction => "correction",
            Self::Watermark => "watermark",
            Self::WebhookFeed => "webhook_feed",
            Self::WebhookLane => "webhook_lane",
            Self::WebhookDelivery => "webhook_delivery",
            Self::ItemWebhookFeed => "item_webhook_feed",
            Self::ItemWebhookLane => "item_webhook_lane",
            Self::ItemWebhookDelivery => "item_webhook_delivery",
        }
    }
}

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The table.
    pub table: Table,
    /// The key in it.
    pub key: Key,
}

impl RowKey {
    /// A key in a table.
    pub fn new(table: Table, key: Key) -> Self {
        Self { table, key }
    }
}
