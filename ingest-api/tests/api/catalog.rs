use crate::harness::{Answer, Api, NOW_MS, eventually};
use axum::body::Body;
use http::Method;
use serde_json::json;
use std::sync::atomic::Ordering;
use tillstream_schemas::Topic;
use tillstream_schemas::codec;
use tillstream_schemas::item::{
    AdjustmentState, ItemCommand, ItemCommandPayload, LocationStock, ProductState, StockState,
};
use tillstream_stage::Table;

fn commands(api: &Api) -> Vec<ItemCommand> {
    api.store.records(Topic::ItemCommands).iter().map(|it| codec::decode(&it.value).unwrap()).collect()
}

fn product(sku: &str, name: &str, category: &str) -> ProductState {
    ProductState {
        tenant: "demo".into(),
        sku: sku.into(),
        version: 1,
        name: name.into(),
        category: Some(category.into()),
        active: true,
        stocked: true,
        prices: [("GBP".into(), 255)].into(),
        ..ProductState::default()
    }
}

#[tokio::test]
async fn a_product_is_answered_once_it_is_in_force() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let call = tokio::spawn({
        let api = api.clone();
        async move {
            let body = json!({"name": "Lamp", "prices": {"GBP": 255}, "tax_class": "standard"});
            let headers = [("content-type", "application/json")];
            api.call(Method::PUT, "/v1/products/a%2Fb", &headers, body.to_string()).await
        }
    });
    let command = eventually(|| commands(&api).pop()).await;
    assert_eq!(command.sku, "a/b");
    let ItemCommandPayload::UpsertProduct(upsert) = &command.payload else { panic!("{command:?}") };
    assert!(upsert.active && upsert.stocked);
    assert!(!call.is_finished());
    api.store.put(Table::Product, "demo/a/b", &product("a/b", "Lamp", "light"));
    api.tasks.stalled.store(false, Ordering::SeqCst);
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["prices"]["GBP"]), (200, &json!(255)));
    assert_eq!(api.get("/v1/products/a%2Fb").await.json()["name"], "Lamp");
    assert_eq!(api.with_key("till_other").get("/v1/products/a%2Fb").await.status, 404);
}

#[tokio::test]
async fn removing_a_product_that_is_not_there_is_404() {
    let api = Api::start().await;
    let remove = async |sku: &str| -> Answer {
        api.call(Method::DELETE, &format!("/v1/products/{sku}"), &[], Body::empty()).await
    };
    assert_eq!(remove("a").await.problem(), (404, "TS0605".into()));
    api.store.put(Table::Product, "demo/a", &product("a", "Lamp", "light"));
    assert_eq!(remove("a").await.status, 204);
    assert!(matches!(commands(&api)[0].payload, ItemCommandPayload::RemoveProduct(_)));
    api.store.put(Table::Product, "demo/a", &ProductState { removed: true, ..product("a", "Lamp", "light") });
    assert_eq!(remove("a").await.status, 404);
    assert_eq!(api.get("/v1/products/a").await.status, 404);
}

#[tokio::test]
async fn products_are_found_by_words_and_category() {
    let api = Api::start().await;
    for (sku, name, category) in
        [("a", "Red Lamp", "light"), ("b", "Blue lamp", "light"), ("c", "Chair", "seats")]
    {
        api.store.put(Table::Product, &format!("demo/{sku}"), &product(sku, name, category));
    }
    api.store.put(
        Table::Product,
        "other/z",
        &ProductState { tenant: "other".into(), ..product("z", "Lamp", "light") },
    );
    let removed = ProductState { removed: true, ..product("d", "Old lamp", "light") };
    api.store.put(Table::Product, "demo/d", &removed);
    let skus = async |query: &str| -> Vec<String> {
        let json = api.get(&format!("/v1/products{query}")).await.json();
        json["data"].as_array().unwrap().iter().map(|it| it["sku"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(skus("").await, ["a", "b", "c"]);
    assert_eq!(skus("?q=LAMP").await, ["a", "b"]);
    assert_eq!(skus("?category=seats").await, ["c"]);
    let first = api.get("/v1/products?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(skus(&format!("?limit=2&cursor={cursor}")).await, ["c"]);
}

#[tokio::test]
async fn product_fields_are_judged() {
    let api = Api::start().await;
    let body = json!({"name": "", "prices": {"GBP": 2.5, "gbp": 1}, "stocked": "yes", "price": 1});
    let answer = api
        .call(Method::PUT, "/v1/products/a", &[("content-type", "application/json")], body.to_string())
        .await;
    assert_eq!(answer.problem(), (400, "TS0607".into()));
    let json = answer.json();
    let mut fields: Vec<&str> =
        json["errors"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["name", "price", "prices", "prices.GBP", "stocked"]);
    assert!(commands(&api).is_empty());
}

fn stock() -> StockState {
    StockState {
        tenant: "demo".into(),
        sku: "a".into(),
        locations: vec![
            LocationStock { location: "main".into(), on_hand: 10, reserved: 3 },
            LocationStock { location: "north".into(), on_hand: 5, reserved: 0 },
        ],
        low_stock_threshold: Some(4),
        ..StockState::default()
    }
}

#[tokio::test]
async fn a_level_is_the_sum_of_its_locations() {
    let api = Api::start().await;
    assert_eq!(api.get("/v1/inventory/a").await.problem(), (404, "TS0605".into()));
    api.store.put(Table::Stock, "demo/a", &stock());
    let json = api.get("/v1/inventory/a").await.json();
    assert_eq!(
        (&json["on_hand"], &json["reserved"], &json["available"]),
        (&json!(15), &json!(3), &json!(12))
    );
    assert_eq!(
        (&json["locations"][1]["location"], &json["low_stock_threshold"]),
        (&json!("north"), &json!(4))
    );
    assert_eq!(api.with_key("till_other").get("/v1/inventory/a").await.status, 404);
}

#[tokio::test]
async fn an_adjustment_is_written_once_per_key() {
    let api = Api::start().await;
    let path = "/v1/inventory/a/adjustments";
    let body = json!({"delta": 100, "reason": "received"});
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let first = api.post(path, "k", &body).await;
    assert_eq!(first.status, 202);
    assert_eq!(api.post(path, "k", &body).await.json()["id"], first.json()["id"]);
    assert_eq!(
        api.post(path, "k", &json!({"delta": 1, "reason": "received"})).await.problem(),
        (422, "TS0609".into())
    );
    let command = commands(&api).pop().unwrap();
    let ItemCommandPayload::AdjustStock(adjustment) = &command.payload else { panic!("{command:?}") };
    assert_eq!((adjustment.delta, adjustment.location.as_str(), commands(&api).len()), (100, "main", 1));
    // Once its row is there, a new process judges by that.
    let row = AdjustmentState {
        fingerprint: adjustment.fingerprint.clone(),
        delta: 100,
        reason: "received".into(),
        location: "main".into(),
        applied_at_ms: NOW_MS,
    };
    api.store.put(Table::Adjustment, &format!("demo/a/{}", command.id), &row);
    api.tasks.stalled.store(false, Ordering::SeqCst);
    let api = Api::over(api.store.clone(), api.tasks.clone()).await;
    assert_eq!(api.post(path, "k", &body).await.status, 202);
    assert_eq!(api.post(path, "k", &json!({"delta": 1, "reason": "received"})).await.status, 422);
    assert_eq!(commands(&api).len(), 1);
}

#[tokio::test]
async fn a_waiting_adjustment_hears_what_became_of_it() {
    for applied in [true, false] {
        let api = Api::start().await;
        api.tasks.stalled.store(true, Ordering::SeqCst);
        let call = tokio::spawn({
            let api = api.clone();
            async move {
                let headers =
                    [("idempotency-key", "k"), ("prefer", "wait=20"), ("content-type", "application/json")];
                let body = json!({"delta": -5, "reason": "damaged"}).to_string();
                api.call(Method::POST, "/v1/inventory/a/adjustments", &headers, body).await
            }
        });
        let command = eventually(|| commands(&api).pop()).await;
        let ItemCommandPayload::AdjustStock(adjustment) = command.payload else { panic!() };
        if applied {
            let row = AdjustmentState {
                fingerprint: adjustment.fingerprint,
                delta: -5,
                reason: "damaged".into(),
                location: "main".into(),
                applied_at_ms: NOW_MS,
            };
            api.store.put(Table::Adjustment, &format!("demo/a/{}", command.id), &row);
            api.store.put(Table::Stock, "demo/a", &stock());
        }
        api.tasks.stalled.store(false, Ordering::SeqCst);
        let answer = call.await.unwrap();
        if applied {
            assert_eq!((answer.status.as_u16(), &answer.json()["inventory"]["available"]), (200, &json!(12)));
        } else {
            assert_eq!(answer.problem(), (409, "TS0621".into()));
        }
    }
}

#[tokio::test]
async fn adjustments_that_change_nothing_are_refused() {
    let api = Api::start().await;
    for body in
        [json!({"delta": 0, "reason": "x"}), json!({"delta": 1.5, "reason": "x"}), json!({"delta": 1})]
    {
        let answer = api.post("/v1/inventory/a/adjustments", "k", &body).await;
        assert_eq!(answer.problem(), (400, "TS0607".into()), "{body}");
    }
}
