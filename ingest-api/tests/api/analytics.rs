use crate::harness::Api;
use serde_json::{Value, json};
use tillstream_schemas::analytics::{
    CorrectionState, Granularity, ProductSum, Sums, TopProductsState, WatermarkState, WindowState,
};
use tillstream_stage::Table;
use tillstream_stage::time::ascending;

const DAY_MS: i64 = 86_400_000;
const FIRST_MS: i64 = 1_291_161_600_000;

pub fn put_window(api: &Api, tenant: &str, day: i64, currency: &str, country: &str, sums: Sums) {
    let start_ms = FIRST_MS + day * DAY_MS;
    let row = WindowState {
        tenant: tenant.into(),
        granularity: Granularity::Day,
        window_start_ms: start_ms,
        currency: currency.into(),
        country: country.into(),
        sums,
        refusals: if sums.failed > 0 {
            [("out_of_stock".into(), sums.failed)].into()
        } else {
            Default::default()
        },
        version: 1,
    };
    api.store.put(Table::Window, &format!("{tenant}/d/{}/{currency}/{country}", ascending(start_ms)), &row);
}

pub fn sums(gross: i64) -> Sums {
    Sums {
        orders: 1,
        units: 2,
        gross,
        discount: 10,
        tax: 5,
        refunded: 20,
        refunds: 1,
        placed: 1,
        ..Sums::default()
    }
}

async fn api() -> Api {
    let api = Api::start().await;
    for (day, country, gross) in [(0, "DE", 100), (0, "GB", 1_000), (1, "GB", 2_000), (3, "", 4_000)] {
        put_window(&api, "demo", day, "GBP", country, sums(gross));
    }
    put_window(&api, "demo", 0, "EUR", "DE", sums(7));
    put_window(&api, "demo", 2, "GBP", "GB", Sums { placed: 3, failed: 3, ..Sums::default() });
    put_window(&api, "other", 0, "GBP", "GB", sums(999_999));
    api.store.put(
        Table::Watermark,
        "demo",
        &WatermarkState { watermark_ms: FIRST_MS + DAY_MS, sources: Vec::new() },
    );
    let correction = CorrectionState {
        minute_start_ms: FIRST_MS + 60_000,
        currency: "GBP".into(),
        country: "GB".into(),
        count: 2,
        sums: sums(50),
        first_at_ms: FIRST_MS,
        last_at_ms: FIRST_MS,
        watermark_ms: FIRST_MS,
    };
    let key = format!("demo/{}/GBP/GB", ascending(FIRST_MS + 60_000));
    api.store.put(Table::Correction, &key, &correction);
    api
}

fn brief(json: &Value) -> Vec<(String, String, Value, i64)> {
    let row = |it: &Value| {
        let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        (
            text("window_start")[..10].to_owned(),
            text("currency"),
            it["country"].clone(),
            it["gross"].as_i64().unwrap(),
        )
    };
    json["data"].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn a_range_that_ends_before_it_begins_is_refused_and_an_empty_one_is_empty() {
    let api = api().await;
    for call in ["revenue", "products", "funnel"] {
        let path = format!("/v1/analytics/{call}?from=2010-12-03&to=2010-12-01");
        let refused = api.get(&path).await;
        assert_eq!(refused.status, 400, "{call}");
        assert_eq!(refused.json()["errors"][0]["field"], "to", "{call}");
    }
    let empty = api.get("/v1/analytics/revenue?from=2010-12-01&to=2010-12-01").await.json();
    assert_eq!(empty["data"], serde_json::json!([]));
}

#[tokio::test]
async fn revenue_is_per_day_and_currency_and_by_country_when_asked() {
    let api = api().await;
    let row = |day: &str, currency: &str, country: Value, gross| {
        (day.to_owned(), currency.to_owned(), country, gross)
    };
    let json = api.get("/v1/analytics/revenue?by=day").await.json();
    assert_eq!(
        brief(&json),
        [
            row("2010-12-01", "EUR", Value::Null, 7),
            row("2010-12-01", "GBP", Value::Null, 1_100),
            row("2010-12-02", "GBP", Value::Null, 2_000),
            row("2010-12-04", "GBP", Value::Null, 4_000),
        ]
    );
    let gbp = &json["data"][1];
    assert_eq!(
        (&gbp["orders"], &gbp["refunded"], &gbp["net"]),
        (&json!(2), &json!(40), &json!(1_100 - 20 - 40))
    );
    assert_eq!(json["watermark"], "2010-12-02T00:00:00Z");
    assert_eq!(json["corrections"][0]["count"], 2);
    let json = api.get("/v1/analytics/revenue?group=country&currency=GBP").await.json();
    assert_eq!(
        brief(&json),
        [
            row("2010-12-01", "GBP", json!("DE"), 100),
            row("2010-12-01", "GBP", json!("GB"), 1_000),
            row("2010-12-02", "GBP", json!("GB"), 2_000),
            row("2010-12-04", "GBP", Value::Null, 4_000),
        ]
    );
}

#[tokio::test]
async fn a_range_is_from_its_start_until_before_its_end() {
    let api = api().await;
    let grosses = async |query: &str| -> Vec<i64> {
        brief(&api.get(&format!("/v1/analytics/revenue?{query}")).await.json())
            .into_iter()
            .map(|it| it.3)
            .collect()
    };
    assert_eq!(grosses("from=2010-12-02&to=2010-12-04").await, [2_000]);
    assert_eq!(grosses("from=2010-12-02T00:00:00Z").await, [2_000, 4_000]);
    assert_eq!(grosses("to=2010-12-01").await, Vec::<i64>::new());
    assert_eq!(grosses("from=2010-12-04&to=2010-12-05&by=hour").await, Vec::<i64>::new());
}

#[tokio::test]
async fn pages_of_revenue_add_up_to_the_whole() {
    let api = api().await;
    for group in ["", "&group=country"] {
        let whole = brief(&api.get(&format!("/v1/analytics/revenue?by=day{group}")).await.json());
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let json = api.get(&format!("/v1/analytics/revenue?by=day&limit=1{group}{cursor}")).await.json();
            paged.extend(brief(&json));
            match json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole);
    }
}

#[tokio::test]
async fn the_funnel_has_refusals_and_products_have_their_rank() {
    let api = api().await;
    let json = api.get("/v1/analytics/funnel?from=2010-12-03&to=2010-12-04").await.json();
    assert_eq!(json["data"][0]["placed"], 3);
    assert_eq!(json["data"][0]["refusals"]["out_of_stock"], 3);
    for (day, sku, units, gross) in [(0, "a", 1, 500), (0, "b", 9, 90), (1, "a", 1, 500)] {
        let key = format!("demo/d/{}/GBP", ascending(FIRST_MS + day * DAY_MS));
        let product = ProductSum { sku: sku.into(), units, gross };
        let row = TopProductsState { products: vec![product], undercount_units_max: 1 };
        // One row per day: the second SKU of the first day goes into a currency of its own.
        let key = if sku == "b" { key.replace("GBP", "EUR") } else { key };
        api.store.put(Table::TopProducts, &key, &row);
    }
    let skus = async |query: &str| -> Vec<(String, i64)> {
        let json = api.get(&format!("/v1/analytics/products{query}")).await.json();
        let row = |it: &Value| (it["sku"].as_str().unwrap().to_owned(), it["gross"].as_i64().unwrap());
        json["data"].as_array().unwrap().iter().map(row).collect()
    };
    assert_eq!(skus("").await, [("a".to_owned(), 1_000), ("b".to_owned(), 90)]);
    assert_eq!(skus("?sort=units&limit=1").await, [("b".to_owned(), 90)]);
    assert_eq!(skus("?currency=GBP&to=2010-12-02").await, [("a".to_owned(), 500)]);
}
