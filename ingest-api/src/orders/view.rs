//! An order as the API shows it.

use crate::moment::to_rfc3339;
use serde_json::{Value, json};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{Allocation, CaptureMode};
use tillstream_schemas::order_state::{
    CreditState, HoldLine, OrderState, PaymentState, PricedLine, Refund, Shipment,
};

/// Where an order's resources are.
pub(super) fn links(order_id: &str) -> Value {
    json!({ "self": format!("/v1/orders/{order_id}"), "events": format!("/v1/orders/{order_id}/events") })
}

/// An order whose row cannot be read yet, though it is durable.
pub(super) fn accepted(order_id: &str) -> Value {
    json!({ "id": order_id, "status": "pending", "stage": "pricing", "version": 0, "links": links(order_id) })
}

/// An order.
pub(super) fn order(row: &OrderState) -> Value {
    let mut json = json!({
        "id": row.order_id,
        "status": row.view.status,
        "stage": row.view.stage,
        "version": row.view.version,
        "accepted_at": to_rfc3339(row.accepted_at_ms),
        "updated_at": to_rfc3339(row.view.updated_at_ms),
        "reason": row.view.reason_code.as_ref().map(|code| json!({ "code": code, "message": row.view.reason })),
        "payment": row.payment.as_ref().map(|it| payment(it, row)),
        "shipments": row.fulfillment.iter().flat_map(|it| &it.shipments).map(shipment).collect::<Vec<_>>(),
        "refunds": row.payment.iter().flat_map(|it| &it.refunds).map(refund).collect::<Vec<_>>(),
        "returns": row.fulfillment.iter().flat_map(|it| &it.returned)
            .map(|it| json!({ "sku": it.sku, "quantity": it.quantity, "amount": it.amount_minor }))
            .collect::<Vec<_>>(),
        "links": links(&row.order_id),
    });
    if let (Value::Object(object), Some(priced)) = (&mut json, &row.order) {
        let holds: &[HoldLine] = row.reservation.as_ref().map_or(&[], |it| &it.holds);
        let rest = json!({
            "customer": priced.customer,
            "currency": priced.currency,
            "country": some(&priced.country),
            "placed_at": to_rfc3339(priced.placed_at_ms),
            "lines": priced.lines.iter().map(|it| line(it, holds)).collect::<Vec<_>>(),
            "gross": priced.gross_minor,
            "discount": priced.discount_minor,
            "subtotal": priced.gross_minor - priced.discount_minor,
            "tax": priced.tax_minor,
            "total": priced.total_minor,
            "metadata": priced.metadata,
            "ship_to": priced.ship_to,
            "note": priced.note,
        });
        if let Value::Object(rest) = rest {
            object.extend(rest);
        }
    }
    json
}

fn some(text: &Text) -> Option<&Text> {
    (!text.is_empty()).then_some(text)
}

fn line(line: &PricedLine, holds: &[HoldLine]) -> Value {
    let hold = holds.iter().find(|it| it.sku == line.sku);
    json!({
        "sku": line.sku,
        "kind": line.kind,
        "quantity": line.quantity,
        "unit_price": line.unit_price_minor,
        "gross": line.gross_minor,
        "discount": line.discount_minor,
        "tax": line.tax_minor,
        "tax_rate_bp": line.tax_rate_bp,
        "total": line.gross_minor - line.discount_minor + line.tax_minor,
        "category": line.category,
        "product_version": line.product_version,
        "hold": hold.map(|it| json!({
            "status": it.status,
            "quantity": it.quantity,
            "locations": it.allocations.iter().map(allocation).collect::<Vec<_>>(),
        })),
    })
}

fn allocation(it: &Allocation) -> Value {
    json!({ "location": it.location, "quantity": it.quantity })
}

fn payment(payment: &PaymentState, row: &OrderState) -> Value {
    let instruction = row.order.as_ref().map(|it| &it.payment);
    json!({
        "id": some(&payment.payment_id),
        "status": payment.status,
        "method": instruction.map(|it| &it.method),
        "capture": instruction.map_or(CaptureMode::Automatic, |it| it.capture),
        "amount": payment.amount_minor,
        "authorized": payment.authorized_minor,
        "captured": payment.captured_minor,
        "refunded": payment.refunded_minor,
        "action": payment.action,
        "failure_code": payment.failure_code,
        "provider_ref": payment.provider_ref,
        "ledger": payment.ledger.iter().map(|it| json!({
            "posting": it.posting, "account": it.account, "amount": it.amount_minor, "at": to_rfc3339(it.at_ms),
        })).collect::<Vec<_>>(),
    })
}

fn refund(refund: &Refund) -> Value {
    json!({
        "id": refund.refund_id,
        "status": refund.status,
        "amount": refund.amount_minor,
        "refunded_at": to_rfc3339(refund.refunded_at_ms),
        "reason": refund.reason,
        "return": refund.return_id,
    })
}

fn shipment(shipment: &Shipment) -> Value {
    json!({
        "id": shipment.shipment_id,
        "status": shipment.status,
        "lines": shipment.lines,
        "carrier": shipment.carrier,
        "tracking": shipment.tracking,
        "shipped_at": to_rfc3339(shipment.shipped_at_ms),
        "delivered_at": shipment.delivered_at_ms.map(to_rfc3339),
    })
}

/// A credit without an order.
pub(super) fn credit(row: &OrderState, credit: &CreditState) -> Value {
    json!({
        "id": row.order_id,
        "status": "credited",
        "customer": credit.customer,
        "currency": credit.currency,
        "country": some(&credit.country),
        "returned_at": to_rfc3339(credit.returned_at_ms),
        "accepted_at": to_rfc3339(row.accepted_at_ms),
        "amount": credit.amount_minor,
        "lines": credit.lines.iter().map(|it| json!({
            "sku": it.sku, "quantity": it.quantity, "amount": it.amount_minor, "restock": it.restock,
        })).collect::<Vec<_>>(),
        "reason": credit.reason,
        "links": { "self": format!("/v1/returns/{}", row.order_id) },
    })
}
