//! Who calls, and what they do most.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tillstream_e2e::{Answer, KEY, Server};

/// A caller: the demo tenant, or another.
pub struct Caller<'a> {
    pub server: &'a Server,
    pub key: &'a str,
}

impl Caller<'_> {
    pub async fn send(&self, call: reqwest::RequestBuilder) -> Answer {
        let answer = call.bearer_auth(self.key).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        Answer { status, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.server.url()))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn upload(&self, rule: &str, module: Vec<u8>) -> Answer {
        let call = self.request(Method::PUT, &format!("/v1/rules/{rule}/versions"));
        self.send(call.header("Content-Type", "application/wasm").body(module)).await
    }

    pub async fn change(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Uploads a module that must be taken, and activates it.
    pub async fn put_in_force(&self, rule: &str, module: Vec<u8>, activation: &Value) -> Value {
        let uploaded = self.upload(rule, module).await;
        assert_eq!(uploaded.status, StatusCode::CREATED, "{rule}: {}", uploaded.text);
        let activated = self.change(&format!("/v1/rules/{rule}/activate"), activation).await;
        assert_eq!(activated.status, StatusCode::OK, "{rule}: {}", activated.text);
        assert_eq!(activated.json["active"]["digest"], uploaded.json["digest"]);
        uploaded.json
    }

    pub async fn stock(&self, location: &str, units: i64) {
        let body = json!({"delta": units, "reason": "received", "location": location});
        let call = self.request(Method::POST, "/v1/inventory/71053/adjustments");
        let answer = self.send(call.header("Idempotency-Key", location).json(&body)).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }

    /// A guest's order of so many lanterns, once it is settled.
    pub async fn order(&self, key: &str, quantity: i64) -> Value {
        let order = json!({"currency": "GBP", "country": "US",
            "lines": [{"sku": "71053", "quantity": quantity, "unit_price": 339}],
            "payment": {"method": "pm_card_visa", "capture": "automatic"}});
        let call = self.request(Method::POST, "/v1/orders").header("Idempotency-Key", key.replace(' ', "-"));
        let answer = self.send(call.header("Prefer", "wait=30").json(&order)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json
    }

    /// The events of one kind that an order has in the log, in order.
    pub async fn events(&self, order: &Value, kind: &str) -> Vec<Value> {
        let records = self.get("/v1/topics/orders.events/records?from=beginning&limit=500").await.json;
        let id = order["id"].as_str().unwrap();
        let of_order = |it: &&Value| {
            it["headers"]["ce_type"] == kind && it["key"].as_str().is_some_and(|it| it.ends_with(id))
        };
        records["data"].as_array().unwrap().iter().filter(of_order).map(|it| it["value"].clone()).collect()
    }
}

pub fn demo(server: &Server) -> Caller<'_> {
    Caller { server, key: KEY }
}
