//! The table of `processors/README.md` as constants: which stage takes, and may emit, what.
//!
//! The chain checks itself against it in debug builds, and a test holds the README against both.

use tillstream_stage::stage::StageName;
use tillstream_stage::task::TaskKind;

/// One line of the table: a stage, where it runs and what goes in and out.
#[derive(Clone, Copy, Debug)]
pub struct StageRow {
    /// The task it is chained in.
    pub task: TaskKind,
    /// The stage.
    pub stage: StageName,
    /// Commands (by type), events (by CloudEvents type) and timers it reacts to.
    pub takes: &'static [&'static str],
    /// Events (by CloudEvents type), commands and requests it may cause.
    pub emits: &'static [&'static str],
}

/// Every stage of every task.
pub const STAGES: &[StageRow] = &[
    StageRow {
        task: TaskKind::Order,
        stage: StageName::Pricing,
        takes: &["PlaceOrder"],
        emits: &["order.priced", "order.rejected"],
    },
    StageRow {
        task: TaskKind::Order,
        stage: StageName::Reservation,
        takes: &[
            "StockAnswer",
            "order.priced",
            "order.rejected",
            "order.cancelled",
            "payment.authorized",
            "payment.captured",
            "payment.failed",
            "timer HoldExpiry",
        ],
        emits: &[
            "order.reserved",
            "order.rejected",
            "order.cancelled",
            "ReserveStock",
            "ReleaseStock",
            "CommitStock",
        ],
    },
    StageRow {
        task: TaskKind::Order,
        stage: StageName::Payment,
        takes: &[
            "CapturePayment",
            "RefundOrder",
            "PaymentResult",
            "order.reserved",
            "order.rejected",
            "order.cancelled",
            "order.returned",
            "payment.failed",
            "timer PaymentRetry",
        ],
        emits: &[
            "payment.authorized",
            "payment.action_required",
            "payment.captured",
            "payment.failed",
            "payment.cancelled",
            "payment.refund_requested",
            "payment.refunded",
            "payment.refund_failed",
            "command.refused",
            "PaymentRequest",
        ],
    },
    StageRow {
        task: TaskKind::Order,
        stage: StageName::Fulfillment,
        takes: &[
            "CancelOrder",
            "ReturnOrder",
            "IssueCredit",
            "CreateShipment",
            "DeliverShipment",
            "order.rejected",
            "order.cancelled",
            "payment.authorized",
            "payment.captured",
            "payment.failed",
        ],
        emits: &[
            "order.cancelled",
            "shipment.shipped",
            "shipment.delivered",
            "order.completed",
            "order.returned",
            "credit.issued",
            "command.refused",
            "ReceiveStock",
        ],
    },
    StageRow { task: TaskKind::Order, stage: StageName::OrderView, takes: &["every event"], emits: &[] },
    StageRow {
        task: TaskKind::Item,
        stage: StageName::Catalog,
        takes: &["UpsertProduct", "RemoveProduct"],
        emits: &["catalog.product_changed"],
    },
    StageRow {
        task: TaskKind::Item,
        stage: StageName::Stock,
        takes: &[
            "UpsertProduct",
            "ReserveStock",
            "ReleaseStock",
            "CommitStock",
            "ReceiveStock",
            "AdjustStock",
            "timer ForgetAdjustment",
        ],
        emits: &[
            "StockAnswer",
            "inventory.level_changed",
            "inventory.low_stock",
            "inventory.adjusted",
            "inventory.adjustment_refused",
        ],
    },
    StageRow {
        task: TaskKind::Analytics,
        stage: StageName::Analytics,
        takes: &["AnalyticsDelta"],
        emits: &["analytics.window_changed"],
    },
];

/// Whether the table lets a stage emit an event (or command) of this kind.
pub fn may_emit(stage: StageName, kind: &str) -> bool {
    STAGES.iter().any(|it| it.stage == stage && it.emits.contains(&kind))
}

/// Whether the table lets a stage take an input of this kind.
pub fn takes(stage: StageName, kind: &str) -> bool {
    STAGES.iter().any(|it| it.stage == stage && it.takes.contains(&kind))
}
