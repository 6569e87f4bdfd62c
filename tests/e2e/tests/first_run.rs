//! What a newcomer does: start, place an order, watch it go through, stop, start again.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tillstream_e2e::{Server, free_port, serve_command};

async fn shop(server: &Server) {
    let product = json!({"name": "Lantern", "active": true, "stocked": true, "tax_class": "standard", "prices": {"GBP": 339}});
    server.put("/v1/products/71053", &product).await;
    let body = json!({"delta": 10, "reason": "received", "location": "main"});
    server.post("/v1/inventory/71053/adjustments", "first", &body).await;
}

fn lanterns(quantity: i64) -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "71053", "quantity": quantity}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

async fn place_and_wait(server: &Server, key: &str, order: &Value) -> Value {
    let answer = server
        .try_call_with(Method::POST, "/v1/orders", Some(key), Some(order), Some("wait=30"))
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json
}

#[tokio::test]
async fn an_order_is_priced_reserved_paid_fulfilled_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    shop(&server).await;
    let order = place_and_wait(&server, "one", &lanterns(3)).await;
    assert_eq!((&order["status"], &order["total"]), (&json!("confirmed"), &json!(1_220)), "{order}");
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());

    let shipment = server
        .post(&format!("{path}/shipments"), "s1", &json!({"lines": [{"sku": "71053", "quantity": 2}]}))
        .await;
    server.until(&path, |it| it["status"] == "processing").await;
    let rest =
        server.post(&format!("{path}/shipments"), "s2", &json!({"carrier": "post", "tracking": "T1"})).await;
    server.until(&path, |it| it["status"] == "shipped").await;
    for (number, sent) in [shipment, rest].iter().enumerate() {
        let id = sent["id"].as_str().unwrap();
        server.post(&format!("{path}/shipments/{id}/deliver"), &format!("d{number}"), &json!({})).await;
    }
    server.until(&path, |it| it["status"] == "delivered").await;
    server.post(&format!("{path}/refunds"), "r1", &json!({"amount": 220})).await;
    server.until(&path, |it| it["payment"]["refunded"] == 220).await;

    let events = server.get(&format!("{path}/events")).await;
    let kinds: Vec<_> =
        events["data"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
    for kind in [
        "order.priced",
        "order.reserved",
        "payment.captured",
        "shipment.shipped",
        "order.completed",
        "payment.refunded",
    ] {
        assert!(kinds.iter().any(|it| it == kind), "{kind} is not in {kinds:?}");
    }
    server.drained().await;
    let revenue = server
        .get("/v1/analytics/revenue?from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z&by=hour&group=country")
        .await;
    let rows = revenue["data"].as_array().unwrap();
    let sum = |name: &str| rows.iter().map(|it| it[name].as_i64().unwrap()).sum::<i64>();
    assert_eq!(
        (sum("orders"), sum("units"), sum("gross"), sum("tax"), sum("refunded")),
        (1, 3, 1_017, 203, 220)
    );
    assert!(rows.iter().all(|it| it["country"] == "GB"));
    let level = server.get("/v1/inventory/71053").await;
    assert_eq!((&level["on_hand"], &level["reserved"]), (&json!(7), &json!(0)));
}

#[tokio::test]
async fn the_demo_key_is_printed_once_and_works_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let port = free_port();
        Server::spawn_command(serve_command(dir.path(), port), port)
    };
    let printed = |server: &Server| -> Option<String> {
        server
            .output()
            .iter()
            .flat_map(|it| it.split_whitespace())
            .find(|it| it.starts_with("till_"))
            .map(str::to_owned)
    };
    let mut first = start();
    first.ready().await;
    let key = printed(&first).expect("the first start prints a key");
    assert!(first.terminate().await.success());

    let mut second = start();
    second.ready().await;
    assert_eq!(printed(&second), None, "a later start prints none");
    let answer = reqwest::Client::new()
        .get(format!("{}/v1/orders", second.url()))
        .bearer_auth(&key)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let wrong = reqwest::Client::new()
        .get(format!("{}/v1/orders", second.url()))
        .bearer_auth("till_x")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_same_idempotency_key_answers_the_same_order_and_another_body_is_422_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    shop(&server).await;
    let id = server.post("/v1/orders", "k", &lanterns(1)).await["id"].clone();
    // While the first is still in flight, and after a restart.
    let conflict = server.call(Method::POST, "/v1/orders", Some("k"), Some(&lanterns(2))).await;
    assert_eq!(conflict.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", conflict.text);
    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    assert_eq!(server.post("/v1/orders", "k", &lanterns(1)).await["id"], id);
    let conflict = server.call(Method::POST, "/v1/orders", Some("k"), Some(&lanterns(2))).await;
    assert_eq!(conflict.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", conflict.text);
    let path = format!("/v1/orders/{}", id.as_str().unwrap());
    server.until(&path, |it| it["status"] == "confirmed").await;
    for (key, amount, status) in [("r", 100, 202), ("r", 100, 202), ("r", 101, 422)] {
        let answer = server
            .call(Method::POST, &format!("{path}/refunds"), Some(key), Some(&json!({"amount": amount})))
            .await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
    server.until(&path, |it| it["payment"]["refunded"] == 100).await;
}

#[tokio::test]
async fn what_the_sandbox_declines_asks_for_or_loses_ends_as_the_contract_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    shop(&server).await;
    let pay = |method: &str| {
        let mut order = lanterns(1);
        order["payment"]["method"] = json!(method);
        order
    };
    let declined = place_and_wait(&server, "declined", &pay("pm_card_chargeDeclined")).await;
    assert_eq!(declined["status"], "failed", "{declined}");
    assert_eq!(declined["reason"]["code"], "card_declined", "{declined}");

    let lost = server.post("/v1/orders", "lost", &pay("pm_sandbox_timeout")).await;
    let lost = server
        .until(&format!("/v1/orders/{}", lost["id"].as_str().unwrap()), |it| it["status"] == "confirmed")
        .await;
    let payment =
        server.get(&format!("/v1/sandbox/payments/{}", lost["payment"]["id"].as_str().unwrap())).await;
    assert_eq!(payment["captured"], lost["total"], "charged once: {payment}");

    let asked = place_and_wait(&server, "asked", &pay("pm_card_authenticationRequired")).await;
    assert_eq!(
        (&asked["status"], &asked["payment"]["status"]),
        (&json!("pending"), &json!("requires_action")),
        "{asked}"
    );
    let path = format!("/v1/sandbox/payments/{}/authenticate", asked["payment"]["id"].as_str().unwrap());
    server.post(&path, "auth", &json!({"outcome": "succeed"})).await;
    server
        .until(&format!("/v1/orders/{}", asked["id"].as_str().unwrap()), |it| it["status"] == "confirmed")
        .await;
    // The stock follows the order by a hop: two units were sold, and the declined order gave its hold back.
    server.until("/v1/inventory/71053", |it| it["on_hand"] == 8 && it["reserved"] == 0).await;
}

#[tokio::test]
async fn out_of_stock_fails_whole_and_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    shop(&server).await;
    server
        .put(
            "/v1/products/cup",
            &json!({"name": "Cup", "active": true, "stocked": true, "prices": {"GBP": 100}}),
        )
        .await;
    let mut order = lanterns(2);
    order["lines"] = json!([{"sku": "71053", "quantity": 2}, {"sku": "cup", "quantity": 1}]);
    let failed = place_and_wait(&server, "none", &order).await;
    assert_eq!(
        (&failed["status"], &failed["reason"]["code"]),
        (&json!("failed"), &json!("out_of_stock")),
        "{failed}"
    );
    server.until("/v1/inventory/71053", |it| it["reserved"] == 0 && it["available"] == 10).await;
}
