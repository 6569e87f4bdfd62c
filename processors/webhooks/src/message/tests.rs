use super::*;
use serde_json::Value;
use tillstream_schemas::item::LowStock;
use tillstream_schemas::order_event::{OrderCompleted, OrderEventPayload};

#[test]
fn an_id_says_where_its_event_is_and_is_the_same_every_time() {
    let id = MessageId::new(Source::Orders, 3, 0x1f4a, "whe_1", "evt_1");
    let text = id.to_text();
    assert!(text.starts_with("msg_o3_1f4a_"), "{text}");
    assert_eq!(MessageId::parse(&text), Some(id.clone()));
    assert_eq!(MessageId::new(Source::Orders, 3, 0x1f4a, "whe_1", "evt_1"), id);
    assert_ne!(MessageId::new(Source::Orders, 3, 0x1f4a, "whe_2", "evt_1"), id);
    assert_ne!(MessageId::new(Source::Items, 3, 0x1f4a, "whe_1", "evt_1"), id);
    for bad in
        ["", "msg_", "msg_x1_2_a", "msg_o1_2", "msg_o01_2_a", "msg_o1_+2_a", "msg_oé_1_a", "evt_o1_2_a"]
    {
        assert_eq!(MessageId::parse(bad), None, "{bad}");
    }
}

#[test]
fn an_order_event_is_sent_as_the_api_shows_it() {
    let event = OrderEvent {
        id: "evt_1".into(),
        tenant: "demo".into(),
        order_id: "ord_1".into(),
        version: 7,
        at_ms: 1_291_191_960_000,
        command_id: "cmd_1".into(),
        traceparent: None,
        status: "delivered".into(),
        payload: OrderEventPayload::OrderCompleted(OrderCompleted { shipments: 1 }),
    };
    let public = PublicEvent::read(Source::Orders, &codec::encode(&event).unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&public.payload()).unwrap();
    let expected = serde_json::json!({
        "type": "order.completed",
        "timestamp": "2010-12-01T08:26:00Z",
        "data": {
            "id": "evt_1", "type": "order.completed", "at": "2010-12-01T08:26:00Z", "version": 7,
            "status": "delivered", "amount": null, "detail": null, "order_id": "ord_1",
        },
    });
    assert_eq!(body, expected);
}

#[test]
fn an_item_event_names_its_sku() {
    let event = ItemEvent {
        id: "evt_2".into(),
        tenant: "demo".into(),
        sku: "a/b".into(),
        at_ms: 0,
        command_id: "cmd_1".into(),
        payload: ItemEventPayload::LowStock(LowStock { available: 2, threshold: 5 }),
    };
    let public = PublicEvent::read(Source::Items, &codec::encode(&event).unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&public.payload()).unwrap();
    assert_eq!(body["type"], "inventory.low_stock");
    assert_eq!(body["data"]["sku"], "a/b");
    assert_eq!(body["data"]["low_stock_threshold"], 5);
    assert!(PublicEvent::read(Source::Orders, b"nonsense").is_err());
}
