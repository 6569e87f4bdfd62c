//! An order as the contract shows it, sent and answered; tests hold both against parser and schema.

use super::{ID_EXAMPLES, view};
use serde_json::{Value, json};

/// An order as it is sent.
pub(super) fn sent() -> Value {
    json!({
        "customer": "c-17850", "currency": "GBP", "country": "GB", "placed_at": "2010-12-01T08:26:00Z",
        "lines": [
            { "sku": "85123A", "quantity": 6, "unit_price": 255 },
            { "sku": "71053", "quantity": 2 },
        ],
        "discounts": [{ "code": "WINTER", "rate_bp": 1_000 }],
        "shipping": { "amount": 500, "tax_class": "standard" },
        "payment": { "method": "pm_card_visa", "capture": "automatic" },
        "ship_to": { "name": "A. Smith", "line1": "1 High Street", "city": "Leeds", "postal_code": "LS1 1AA", "country": "GB" },
        "metadata": { "source": "web" },
        "note": "Ring twice.",
    })
}

/// An order as it is read once it is paid.
pub(super) fn read() -> Value {
    json!({
        "id": ID_EXAMPLES.order, "status": "confirmed", "stage": "fulfillment", "version": 4,
        "links": view::links(ID_EXAMPLES.order),
        "accepted_at": "2010-12-01T08:26:01Z", "updated_at": "2010-12-01T08:26:01.24Z", "reason": null,
        "customer": "c-17850", "currency": "GBP", "country": "GB", "placed_at": "2010-12-01T08:26:00Z",
        "lines": [{
            "sku": "85123A", "kind": "goods", "quantity": 6, "unit_price": 255, "gross": 1_530, "discount": 153,
            "tax": 275, "tax_rate_bp": 2_000, "total": 1_652, "category": "lanterns", "product_version": null,
            "hold": { "status": "committed", "quantity": 6, "locations": [{ "location": "main", "quantity": 6 }] },
        }],
        "gross": 1_530, "discount": 153, "subtotal": 1_377, "tax": 275, "total": 1_652,
        "payment": {
            "id": ID_EXAMPLES.payment, "status": "captured", "method": "pm_card_visa", "capture": "automatic",
            "amount": 1_652, "authorized": 0, "captured": 1_652, "refunded": 0, "action": null, "review": null,
            "failure_code": null, "provider_ref": "sbx_1", "ledger": [
                { "posting": 0, "account": "provider_clearing", "amount": 1_652, "at": "2010-12-01T08:26:01.24Z" },
                { "posting": 0, "account": "sales", "amount": -1_652, "at": "2010-12-01T08:26:01.24Z" },
            ],
        },
        "shipments": [], "refunds": [], "returns": [], "rules": [],
        "metadata": { "source": "web" }, "ship_to": null, "note": null,
    })
}

/// An order's history, its latest event.
pub(super) fn event() -> Value {
    json!({
        "id": "evt_9dnw4fkz2prx7bqs5hnv", "type": "payment.captured", "order_id": ID_EXAMPLES.order, "at": "2010-12-01T08:26:01.24Z", "version": 4,
        "status": "confirmed", "amount": 1_652, "detail": null, "rules": [],
    })
}
