//! Whatever calls bring along, the number of series stays what routes, statuses, stages and partitions make of it.

use crate::{order, scrape};
use reqwest::{Client, Method};
use serde_json::json;
use std::collections::BTreeSet;
use tillstream_e2e::{KEY, Server};

/// Series that one process has at most after what these tests do: the routes times the statuses they answer, with the 16
/// series of a histogram each, are most of it. A label that follows the data would pass it at once.
const SERIES_MAX: usize = 2_000;

/// How many of everything each wave brings.
const DISTINCT: usize = 150;

/// Labels that a series may have. What is not here has not been thought about.
const LABELS: &[&str] = &[
    "stage",
    "outcome",
    "partition",
    "source",
    "reason",
    "to",
    "route",
    "status",
    "le",
    "kind",
    "provider",
    "operation",
    "transport",
    "code",
];

async fn send(
    client: &Client,
    server: &Server,
    key: &str,
    method: Method,
    path: &str,
    name: &str,
    body: String,
) {
    let call = client
        .request(method, format!("{}{path}", server.url()))
        .bearer_auth(key)
        .header("content-type", "application/json")
        .header("idempotency-key", format!("key-{name}"))
        .header("user-agent", format!("agent-{name}"))
        .header("x-request-id", format!("request-{name}"))
        .header("origin", format!("https://{name}.example"));
    call.body(body).send().await.unwrap().bytes().await.unwrap();
}

/// A tenant, a key, a SKU, an order, paths, a method, an agent that nobody has brought before.
async fn wave(client: &Client, server: &Server, wave: usize) {
    for n in 0..DISTINCT {
        let name = format!("w{wave}n{n}");
        let key = json!({"name": name, "tenant": format!("tenant-{name}"), "roles": ["admin"]});
        let made = server.post("/v1/keys", "unused", &key).await;
        let tenants_key = made["key"].as_str().unwrap().to_owned();
        let send = |key: &str, method: Method, path: String, body: String| {
            let (key, name) = (key.to_owned(), name.clone());
            async move { send(client, server, &key, method, &path, &name, body).await }
        };
        let product = json!({"name": name, "active": true, "stocked": true, "tax_class": "standard",
                             "category": name, "prices": {"GBP": 100}});
        send(&tenants_key, Method::PUT, format!("/v1/products/{name}"), product.to_string()).await;
        let adjustment = json!({"delta": 5, "reason": "received", "location": name}).to_string();
        send(&tenants_key, Method::POST, format!("/v1/inventory/{name}/adjustments"), adjustment).await;
        let order = order(&name).to_string();
        send(&tenants_key, Method::POST, "/v1/orders".into(), order).await;
        send(&tenants_key, Method::GET, format!("/v1/orders/{name}"), String::new()).await;
        send(&tenants_key, Method::GET, format!("/{name}/{name}?{name}={name}"), String::new()).await;
        send(
            &tenants_key,
            Method::from_bytes(name.to_uppercase().as_bytes()).unwrap(),
            "/v1/orders".into(),
            String::new(),
        )
        .await;
        send(&tenants_key, Method::GET, format!("/v1/topics/{name}/records"), String::new()).await;
        send(&tenants_key, Method::GET, format!("/v1/dead-letters?reason={name}"), String::new()).await;
        send(&format!("till_wrong_{name}"), Method::GET, "/v1/orders".into(), String::new()).await;
    }
    server.drained().await;
}

#[tokio::test]
async fn the_number_of_series_does_not_follow_what_calls_bring() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--partitions", "1"]).await;
    let client = Client::new();
    wave(&client, &server, 0).await;
    let first = scrape(&server).await;
    wave(&client, &server, 1).await;
    let second = scrape(&server).await;
    let new: Vec<_> = second.identities().difference(&first.identities()).cloned().collect();
    // The address has used up its calls without a valid key by now: only that status may be new, and only once.
    assert!(new.iter().all(|it| it.contains("\"429\"")), "{new:#?}");
    assert!(second.series.len() <= SERIES_MAX, "{} series", second.series.len());
    println!("{} series", second.series.len());
    let labels: BTreeSet<&str> =
        second.series.iter().flat_map(|it| it.labels.keys()).map(String::as_str).collect();
    let unknown: Vec<_> = labels.iter().filter(|it| !LABELS.contains(it)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let routes: BTreeSet<String> = {
        let document = server.get("/openapi.json").await;
        document["paths"].as_object().unwrap().keys().cloned().chain(["none".to_owned()]).collect()
    };
    for series in &second.series {
        if let Some(route) = series.labels.get("route") {
            assert!(routes.contains(route), "{series:?}");
        }
    }
    assert!(!second.text.contains(KEY) && !second.text.contains("tenant-"));
}
