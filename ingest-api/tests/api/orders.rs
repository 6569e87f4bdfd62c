use crate::harness::{Api, NOW_MS, eventually, order};
use http::Method;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tillstream_schemas::Topic;
use tillstream_schemas::order_command::OrderCommandPayload;
use tillstream_schemas::order_event::{
    CommandRefused, OrderEvent, OrderEventPayload, PaymentActionRequired, RuleStep,
};
use tillstream_schemas::order_state::{CommandMark, CreditState, OrderStatus, TimelineEntry};

fn event(order_id: &str, command_id: &str, payload: OrderEventPayload) -> OrderEvent {
    OrderEvent {
        id: "evt_1".into(),
        tenant: "demo".into(),
        order_id: order_id.into(),
        version: 1,
        at_ms: NOW_MS,
        command_id: command_id.into(),
        traceparent: None,
        status: "pending".into(),
        payload,
    }
}

fn id_of(answer: &crate::harness::Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_accepted_order_is_one_durable_command() {
    let api = Api::start().await;
    let answer = api.post("/v1/orders", "k1", &order()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = id_of(&answer);
    assert_eq!(answer.json()["status"], "pending");
    assert_eq!(answer.json()["links"]["self"], format!("/v1/orders/{id}"));
    assert_eq!(answer.header("location"), format!("/v1/orders/{id}"));
    let commands = api.store.order_commands();
    assert_eq!(commands.len(), 1);
    assert_eq!((commands[0].order_id.as_str(), commands[0].tenant.as_str()), (id.as_str(), "demo"));
    assert_eq!(commands[0].accepted_at_ms, NOW_MS);
    assert_eq!(commands[0].fingerprint.len(), 24);
    assert!(commands[0].traceparent.is_some());
    assert_eq!(api.store.records(Topic::OrderCommands)[0].key, format!("demo/{id}"));
    let OrderCommandPayload::PlaceOrder(placed) = &commands[0].payload else { panic!("{commands:?}") };
    assert_eq!((placed.placed_at_ms, placed.lines[0].unit_price_minor), (NOW_MS, Some(255)));
}

#[tokio::test]
async fn a_repeat_answers_the_same_id_and_another_body_422_while_in_flight_and_once_readable() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let first = api.post("/v1/orders", "k1", &order()).await;
    api.clock.advance(5_000);
    let mut other = order();
    other["lines"][0]["quantity"] = json!(7);
    for readable in [false, true] {
        if readable {
            api.commit_order(&id_of(&first), OrderStatus::Confirmed, |_| {});
            api.tasks.stalled.store(false, Ordering::SeqCst);
        }
        let repeat = api.post("/v1/orders", "k1", &order()).await;
        assert_eq!((repeat.status.as_u16(), id_of(&repeat)), (202, id_of(&first)), "{repeat:?}");
        assert_eq!(api.post("/v1/orders", "k1", &other).await.problem(), (422, "TS0609".into()));
        assert_eq!(repeat.json()["status"], if readable { "confirmed" } else { "pending" });
    }
    assert_eq!(api.store.order_commands().len(), 1);
}

#[tokio::test]
async fn of_two_bodies_that_race_under_one_key_one_wins() {
    let api = Api::start().await;
    let gate = api.store.gate.write().await;
    let mut other = order();
    other["currency"] = json!("EUR");
    let calls = [order(), other].map(|body| {
        let api = api.clone();
        tokio::spawn(async move { api.post("/v1/orders", "k1", &body).await.status.as_u16() })
    });
    // One of them is refused while the other one's append is still under way.
    eventually(|| calls.iter().any(tokio::task::JoinHandle::is_finished).then_some(())).await;
    drop(gate);
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 422]);
    assert_eq!(api.store.order_commands().len(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_append_and_its_key_intact() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let gate = api.store.gate.write().await;
    let mut other = order();
    other["currency"] = json!("EUR");
    let gone = tokio::spawn({
        let api = api.clone();
        async move { api.post("/v1/orders", "k1", &order()).await }
    });
    // On one thread: the call gets as far as it can, which is into its append.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.post("/v1/orders", "k1", &other).await.status, 422);
    gone.abort();
    drop(gate);
    eventually(|| (api.store.order_commands().len() == 1).then_some(())).await;
    assert_eq!(api.post("/v1/orders", "k1", &other).await.status, 422);
    assert_eq!(api.post("/v1/orders", "k1", &order()).await.status, 202);
}

#[tokio::test]
async fn a_failed_append_frees_its_key() {
    let api = Api::start().await;
    let full = tillstream_log::LogError::DiskFull { available_bytes: 1, needed_bytes: 2 };
    api.store.set_trouble(Some(full));
    let refused = api.post("/v1/orders", "k1", &order()).await;
    assert_eq!(refused.problem(), (503, "TS0615".into()));
    assert_eq!(refused.header("retry-after"), "30");
    api.store.set_trouble(None);
    let mut other = order();
    other["currency"] = json!("EUR");
    assert_eq!(api.post("/v1/orders", "k1", &other).await.status, 202);
}

#[tokio::test]
async fn tenants_share_neither_keys_nor_orders() {
    let api = Api::start().await;
    let other = api.with_key("till_other");
    let mine = id_of(&api.post("/v1/orders", "k1", &order()).await);
    assert_ne!(mine, id_of(&other.post("/v1/orders", "k1", &order()).await));
    api.commit_order(&mine, OrderStatus::Confirmed, |_| {});
    assert_eq!(api.get(&format!("/v1/orders/{mine}")).await.status, 200);
    for path in [format!("/v1/orders/{mine}"), format!("/v1/orders/{mine}/events")] {
        assert_eq!(other.get(&path).await.problem(), (404, "TS0605".into()));
    }
    let cancel = other.post(&format!("/v1/orders/{mine}/cancel"), "c1", &json!({})).await;
    assert_eq!(cancel.status, 404);
    assert_eq!(other.get("/v1/orders").await.json()["data"], json!([]));
}

#[tokio::test]
async fn a_wait_ends_when_the_order_leaves_pending_or_the_customer_must_act() {
    for acts in [false, true] {
        let api = Api::start().await;
        let waiting = tokio::spawn({
            let api = api.clone();
            let headers =
                [("idempotency-key", "k1"), ("prefer", "wait=20"), ("content-type", "application/json")];
            async move { api.call(Method::POST, "/v1/orders", &headers, order().to_string()).await }
        });
        let id = eventually(|| api.store.order_commands().first().map(|it| it.order_id.to_string())).await;
        let status = if acts { OrderStatus::Pending } else { OrderStatus::Failed };
        api.commit_order(&id, status, |row| {
            if acts {
                let payment = tillstream_schemas::order_state::PaymentState {
                    status: tillstream_schemas::order_state::PaymentStatus::RequiresAction,
                    action: Some("https://bank.example".into()),
                    ..Default::default()
                };
                row.payment = Some(payment);
            } else {
                row.view.reason_code = Some("out_of_stock".into());
                row.view.reason = Some("There is not enough of 85123A.".into());
            }
        });
        let payload = PaymentActionRequired { payment_id: "pay_1".into(), action: String::new().into() };
        api.hub.publish(event(&id, &id, payload.into()));
        let answer = waiting.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("preference-applied"), "wait=20");
        let json = answer.json();
        if acts {
            assert_eq!(json["payment"]["action"], "https://bank.example");
        } else {
            assert_eq!(
                (&json["status"], &json["reason"]["code"]),
                (&json!("failed"), &json!("out_of_stock"))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_answers_202() {
    let api = Api::start().await;
    let headers = [("idempotency-key", "k1"), ("prefer", "wait=5"), ("content-type", "application/json")];
    let answer = api.call(Method::POST, "/v1/orders", &headers, order().to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (202, Some("pending")));
}

#[tokio::test]
async fn commands_wait_for_tasks_that_have_not_caught_up_since_the_start() {
    let before = Api::start().await;
    assert_eq!(before.post("/v1/orders", "k1", &order()).await.status, 202);
    before.tasks.stalled.store(true, Ordering::SeqCst);
    let api = Api::over(before.store.clone(), before.tasks.clone()).await;
    let refused = api.post("/v1/orders", "k2", &order()).await;
    assert_eq!(refused.problem(), (503, "TS0613".into()));
    assert_eq!(refused.header("retry-after"), "1");
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()["reasons"][0]["code"].as_str()), (503, Some("TS0613")));
    api.tasks.stalled.store(false, Ordering::SeqCst);
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(api.post("/v1/orders", "k2", &order()).await.status, 202);
}

#[tokio::test]
async fn a_lagging_task_sheds_load() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let mut refused = None;
    for n in 0..200 {
        let answer = api.post("/v1/orders", &format!("k{n}"), &order()).await;
        if answer.status != 202 {
            refused = Some(answer.problem());
            break;
        }
    }
    assert_eq!(refused, Some((503, "TS0614".into())));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_durable_is_found_before_its_row_is() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let id = id_of(&api.post("/v1/orders", "k1", &order()).await);
    let found = api.get(&format!("/v1/orders/{id}")).await;
    assert_eq!((found.status.as_u16(), found.json()["status"].as_str()), (200, Some("pending")));
    assert_eq!(api.with_key("till_other").get(&format!("/v1/orders/{id}")).await.status, 404);
    let unknown = api.get("/v1/orders/ord_00000000000000000000").await;
    assert_eq!(unknown.problem(), (404, "TS0605".into()));
}

#[tokio::test]
async fn the_list_is_newest_first_filtered_and_paged() {
    let api = Api::start().await;
    for n in 0..7_i64 {
        let status = if n % 2 == 0 { OrderStatus::Confirmed } else { OrderStatus::Failed };
        api.commit_order(&format!("ord_{n:020}"), status, |row| {
            row.accepted_at_ms = NOW_MS + n;
            row.order.as_mut().unwrap().customer = Some(format!("c{}", n / 2).into());
        });
    }
    api.commit_order("crd_00000000000000000000", OrderStatus::Pending, |row| row.credit = Some(credit()));
    let ids = |page: &Value| -> Vec<i64> {
        let id = |it: &Value| it["id"].as_str().unwrap()[4..].parse().unwrap();
        page["data"].as_array().unwrap().iter().map(id).collect()
    };
    let mut seen = Vec::new();
    let mut path = "/v1/orders?limit=3".to_owned();
    loop {
        let page = api.get(&path).await.json();
        seen.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/orders?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(ids(&api.get("/v1/orders?status=failed").await.json()), [5, 3, 1]);
    assert_eq!(ids(&api.get("/v1/orders?customer=c1").await.json()), [3, 2]);
    assert_eq!(ids(&api.get("/v1/orders?customer=c1&status=failed").await.json()), [3]);
}

#[tokio::test]
async fn the_history_is_the_timeline() {
    let api = Api::start().await;
    let id = "ord_00000000000000000001";
    api.commit_order(id, OrderStatus::Confirmed, |row| {
        row.view.timeline.push(TimelineEntry {
            event_id: "evt_1".into(),
            kind: "order.priced".into(),
            at_ms: NOW_MS,
            version: 1,
            status: OrderStatus::Pending,
            amount_minor: Some(1_530),
            detail: None,
            rules: vec![1, 0],
        });
        row.view.rules = [("tiers", "3"), ("vat", "1")]
            .map(|(name, version)| RuleStep {
                name: name.into(),
                version: version.into(),
                digest: "d".into(),
            })
            .to_vec();
    });
    let json = api.get(&format!("/v1/orders/{id}/events")).await.json();
    assert_eq!(json["data"][0]["type"], "order.priced");
    assert_eq!(json["data"][0]["amount"], 1_530);
    let rules = json!([{"name": "vat", "version": "1", "digest": "d"}, {"name": "tiers", "version": "3", "digest": "d"}]);
    assert_eq!(json["data"][0]["rules"], rules);
    assert_eq!(json["next_cursor"], Value::Null);
}

#[tokio::test]
async fn commands_to_an_order_are_written_once_per_key() {
    let api = Api::start().await;
    let id = "ord_00000000000000000001";
    api.commit_order(id, OrderStatus::Confirmed, |_| {});
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let cases = [
        ("cancel", json!({"reason": "changed my mind"}), "cmd_", json!({})),
        ("capture", json!({"amount": 100}), "cmd_", json!({"amount": 101})),
        (
            "refunds",
            json!({"amount": 100, "refunded_at": "2010-12-01T08:26:00Z"}),
            "rfd_",
            json!({"amount": 101}),
        ),
        (
            "returns",
            json!({"lines": [{"sku": "a", "quantity": 1}]}),
            "ret_",
            json!({"lines": [{"sku": "a", "quantity": 2}]}),
        ),
        ("shipments", json!({}), "shp_", json!({"carrier": "DHL"})),
        (
            "shipments/shp_00000000000000000001/deliver",
            json!({}),
            "cmd_",
            json!({"delivered_at": "2010-12-01T08:26:00Z"}),
        ),
    ];
    for (count, (route, body, prefix, other)) in cases.into_iter().enumerate() {
        let path = format!("/v1/orders/{id}/{route}");
        let first = api.post(&path, "k", &body).await;
        assert_eq!(first.status, 202, "{route}: {first:?}");
        assert!(id_of(&first).starts_with(prefix), "{route}");
        api.clock.advance(1_000);
        assert_eq!(id_of(&api.post(&path, "k", &body).await), id_of(&first), "{route}");
        assert_eq!(api.post(&path, "k", &other).await.problem(), (422, "TS0609".into()), "{route}");
        assert_eq!(api.store.order_commands().len(), count + 1, "{route}");
        let missing =
            api.call(Method::POST, &path, &[("content-type", "application/json")], body.to_string()).await;
        assert_eq!(missing.problem(), (400, "TS0608".into()), "{route}");
    }
}

#[tokio::test]
async fn a_command_the_order_task_has_judged_is_known_by_its_mark() {
    let api = Api::start().await;
    let id = "ord_00000000000000000001";
    api.commit_order(id, OrderStatus::Confirmed, |_| {});
    let path = format!("/v1/orders/{id}/refunds");
    assert_eq!(api.post(&path, "k", &json!({"amount": 1})).await.status, 202);
    let command = api.store.order_commands().remove(0);
    api.commit_order(id, OrderStatus::Confirmed, |row| {
        row.marks.push(CommandMark { id: command.id.clone(), fingerprint: command.fingerprint.clone() });
    });
    // A new process knows nothing of what was in flight.
    let api = Api::over(api.store.clone(), api.tasks.clone()).await;
    assert_eq!(api.post(&path, "k", &json!({"amount": 1})).await.status, 202);
    assert_eq!(api.post(&path, "k", &json!({"amount": 2})).await.status, 422);
    assert_eq!(api.store.order_commands().len(), 1);
}

#[tokio::test]
async fn a_waiting_command_hears_why_it_was_refused() {
    let api = Api::start().await;
    let id = "ord_00000000000000000001";
    api.commit_order(id, OrderStatus::Shipped, |_| {});
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let api = api.clone();
        async move {
            let headers = [("idempotency-key", "k"), ("prefer", "wait=20")];
            api.call(Method::POST, &format!("/v1/orders/{id}/cancel"), &headers, "").await
        }
    });
    let command = eventually(|| api.store.order_commands().pop()).await;
    let payload = CommandRefused {
        command_id: command.id.clone(),
        command: "cancel".into(),
        code: "already_shipped".into(),
        message: "Goods have left.".into(),
        rule: None,
    };
    api.hub.publish(event(id, &command.id, payload.into()));
    api.tasks.stalled.store(false, Ordering::SeqCst);
    let answer = waiting.await.unwrap();
    assert_eq!(answer.problem(), (409, "TS0621".into()));
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("already_shipped"));
}

#[tokio::test(start_paused = true)]
async fn a_command_to_an_order_that_never_was_is_refused() {
    let api = Api::start().await;
    for id in ["ord_00000000000000000009", "nonsense", "..%2f..%2fetc%2fpasswd"] {
        let answer = api.post(&format!("/v1/orders/{id}/cancel"), "k", &json!({})).await;
        assert_eq!(answer.problem(), (404, "TS0605".into()), "{id}");
    }
    assert!(api.store.order_commands().is_empty());
}

fn credit() -> CreditState {
    CreditState {
        customer: None,
        currency: "GBP".into(),
        country: "GB".into(),
        lines: Vec::new(),
        amount_minor: 500,
        returned_at_ms: NOW_MS,
        reason: None,
    }
}

#[tokio::test]
async fn a_credit_without_an_order_is_issued_and_read() {
    let api = Api::start().await;
    let body = json!({"currency": "GBP", "country": "GB", "returned_at": "2010-12-01T09:41:00Z",
        "lines": [{"sku": "D", "quantity": 1, "amount": 2750, "restock": false}, {"sku": "D", "quantity": 1, "amount": 1}]});
    let answer = api.post("/v1/returns", "r1", &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = id_of(&answer);
    let OrderCommandPayload::IssueCredit(issued) = &api.store.order_commands()[0].payload else { panic!() };
    assert_eq!((issued.lines[0].amount_minor, issued.lines[0].restock), (Some(2_750), false));
    assert_eq!(issued.returned_at_ms, 1_291_196_460_000);
    api.commit_order(&id, OrderStatus::Pending, |row| row.credit = Some(credit()));
    assert_eq!(api.get(&format!("/v1/returns/{id}")).await.json()["amount"], 500);
    assert_eq!(id_of(&api.post("/v1/returns", "r1", &body).await), id);
    assert_eq!(api.store.order_commands().len(), 1);
}
