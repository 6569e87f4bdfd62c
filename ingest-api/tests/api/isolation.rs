//! Every call there is, with the ids of another tenant: it answers as if they had never existed, byte for byte and read
//! for read, and touches nothing of theirs.

use crate::analytics::{put_window, sums};
use crate::contract::Contract;
use crate::dead_letters::bury;
use crate::harness::{Answer, Api, order};
use http::Method;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tillstream_schemas::Topic;
use tillstream_schemas::item::{ProductState, StockState};
use tillstream_schemas::order_command::ReturnLine;
use tillstream_schemas::order_state::{CreditState, OrderStatus};
use tillstream_stage::{Table, ids};

/// Stands in everything that is the other tenant's; it must be in no answer.
const SECRET: &str = "only-theirs";

/// What a caller gets for what is another tenant's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// 404, as for an id that never existed.
    Missing,
    /// An empty list.
    Empty,
    /// It reads and writes what is the caller's own.
    Own,
    /// It says the same to everybody.
    Same,
}
use Verdict::{Empty, Missing, Own, Same};

/// A new call must be named here, with what it may tell.
const VERDICTS: &[(&str, Verdict)] = &[
    ("POST /v1/orders", Own),
    ("GET /v1/orders", Empty),
    ("POST /v1/orders/bulk", Own),
    ("GET /v1/orders/{id}", Missing),
    ("GET /v1/orders/{id}/events", Missing),
    ("POST /v1/orders/{id}/cancel", Missing),
    ("POST /v1/orders/{id}/capture", Missing),
    ("POST /v1/orders/{id}/refunds", Missing),
    ("POST /v1/orders/{id}/returns", Missing),
    ("POST /v1/orders/{id}/shipments", Missing),
    ("POST /v1/orders/{id}/shipments/{shipment}/deliver", Missing),
    ("POST /v1/returns", Own),
    ("GET /v1/returns/{id}", Missing),
    ("GET /v1/sandbox/payments/{id}", Missing),
    ("POST /v1/sandbox/payments/{id}/authenticate", Missing),
    ("GET /v1/products", Empty),
    ("PUT /v1/products/{sku}", Own),
    ("GET /v1/products/{sku}", Missing),
    ("DELETE /v1/products/{sku}", Missing),
    ("GET /v1/inventory/{sku}", Missing),
    ("POST /v1/inventory/{sku}/adjustments", Own),
    ("GET /v1/analytics/revenue", Empty),
    ("GET /v1/analytics/products", Empty),
    ("GET /v1/analytics/funnel", Empty),
    ("GET /v1/rules", Empty),
    ("GET /v1/rules/{name}", Missing),
    ("DELETE /v1/rules/{name}", Missing),
    ("PUT /v1/rules/{name}/versions", Own),
    ("GET /v1/rules/{name}/versions", Missing),
    ("POST /v1/rules/{name}/activate", Missing),
    ("POST /v1/rules/{name}/rollback", Missing),
    ("POST /v1/rules/{name}/backtests", Missing),
    ("GET /v1/rules/{name}/backtests", Missing),
    ("GET /v1/rules/{name}/backtests/{id}", Missing),
    ("POST /v1/rules/{name}/backtests/{id}/cancel", Missing),
    ("POST /v1/rules/{name}/backtests/{id}/resume", Missing),
    ("POST /v1/rules/{name}/shadow", Missing),
    ("POST /v1/rules/{name}/canary", Missing),
    ("PUT /v1/rules/{name}/settings", Missing),
    ("GET /v1/rules/{name}/samples", Missing),
    ("GET /v1/rule-signing", Own),
    ("PUT /v1/rule-signing", Own),
    ("POST /v1/rule-signing/keys", Own),
    ("DELETE /v1/rule-signing/keys/{id}", Missing),
    ("GET /v1/keys", Own),
    ("POST /v1/keys", Own),
    ("DELETE /v1/keys/{id}", Missing),
    ("GET /v1/orders/events", Empty),
    ("GET /v1/categories", Empty),
    ("POST /v1/keys/{id}/rotate", Missing),
    ("GET /v1/tenants", Own),
    ("PUT /v1/tenants/{tenant}/limit", Own),
    ("POST /v1/webhooks/endpoints", Own),
    ("GET /v1/webhooks/endpoints", Empty),
    ("GET /v1/webhooks/endpoints/{id}", Missing),
    ("PATCH /v1/webhooks/endpoints/{id}", Missing),
    ("DELETE /v1/webhooks/endpoints/{id}", Missing),
    ("POST /v1/webhooks/endpoints/{id}/test", Missing),
    ("POST /v1/webhooks/endpoints/{id}/secret", Missing),
    ("POST /v1/webhooks/endpoints/{id}/replay", Missing),
    ("GET /v1/webhooks/endpoints/{id}/deliveries", Missing),
    ("GET /v1/webhooks/endpoints/{id}/deliveries/{message}", Missing),
    ("POST /v1/webhooks/endpoints/{id}/deliveries/{message}/redeliver", Missing),
    ("GET /v1/dead-letters", Empty),
    ("POST /v1/dead-letters/redrive", Own),
    ("GET /v1/dead-letters/{topic}/{partition}/{offset}", Missing),
    ("POST /v1/dead-letters/{topic}/{partition}/{offset}/redrive", Missing),
    ("GET /v1/topics", Same),
    ("GET /v1/topics/{topic}/records", Own),
    ("GET /healthz", Same),
    ("GET /readyz", Same),
    // It tells of all calls so far, and of no tenant: its series have no such label.
    ("GET /metrics", Own),
    ("GET /openapi.json", Same),
    ("GET /docs", Same),
];

/// An id of the other tenant's, and one that never was, of the same length.
type Pair = (String, String);

fn pair(theirs: &str) -> Pair {
    let kept = theirs.len() - 6;
    (theirs.to_owned(), format!("{}{}", &theirs[..kept], "zzzzzz"))
}

/// What there is of the other tenant's.
struct Theirs {
    /// One that is read from its row, and one that is only in flight.
    orders: [Pair; 2],
    credit: Pair,
    key: Pair,
    endpoint: Pair,
    backtest: Pair,
    signing_key: Pair,
}

async fn world() -> (Api, Theirs) {
    let api = Api::start().await;
    let place = async |key: &str| {
        let mut order = order();
        order["customer"] = SECRET.into();
        api.post("/v1/orders", key, &order).await.json()["id"].as_str().unwrap().to_owned()
    };
    let (committed, in_flight) = (place("k-committed").await, place("k-in-flight").await);
    api.commit_order(&committed, OrderStatus::Confirmed, |row| {
        row.order.as_mut().unwrap().customer = Some(SECRET.into());
    });
    let credit = "crd_00000000000000theirs";
    api.commit_order(credit, OrderStatus::Confirmed, |row| {
        row.credit = Some(CreditState {
            customer: Some(SECRET.into()),
            currency: "GBP".into(),
            country: "GB".into(),
            lines: Vec::<ReturnLine>::new(),
            amount_minor: 5,
            returned_at_ms: 1,
            reason: None,
        });
    });
    let product = ProductState { name: SECRET.into(), ..product() };
    api.store.put(Table::Product, &ids::key("demo", "theirs"), &product);
    api.store.put(
        Table::Stock,
        &ids::key("demo", "theirs"),
        &StockState { sku: "theirs".into(), ..StockState::default() },
    );
    put_window(&api, "demo", 0, "GBP", "GB", sums(100));
    bury(&api, "demo", "panic", SECRET.as_bytes()).await;
    let key =
        api.post("/v1/keys", "k", &json!({ "name": SECRET })).await.json()["id"].as_str().unwrap().to_owned();
    let hooks =
        json!({"url": "https://shop.example.com/hooks", "events": ["order.*"], "description": SECRET});
    let made = api.post("/v1/webhooks/endpoints", "k", &hooks).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let endpoint = made.json()["id"].as_str().unwrap().to_owned();
    let rule = crate::rules::upload(&api, "rule-theirs", SECRET).await;
    assert_eq!(rule.status, 201, "{}", rule.text);
    let begun = crate::rules::post(&api, "/v1/rules/rule-theirs/backtests", &json!({})).await;
    let backtest = begun.json()["id"].as_str().unwrap().to_owned();
    // Not the key of the contract's example: that one the other tenant adds for itself.
    let public_key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let signing = json!({ "name": SECRET, "public_key": public_key });
    let added = crate::rules::post(&api, "/v1/rule-signing/keys", &signing).await;
    let signing_key = added.json()["keys"][0]["id"].as_str().unwrap().to_owned();
    // The tasks go no further: what is only in flight stays so.
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let theirs = Theirs {
        orders: [pair(&committed), pair(&in_flight)],
        credit: pair(credit),
        key: pair(&key),
        endpoint: pair(&endpoint),
        backtest: pair(&backtest),
        signing_key: pair(&signing_key),
    };
    (api, theirs)
}

fn product() -> ProductState {
    ProductState {
        tenant: "demo".into(),
        sku: "theirs".into(),
        version: 1,
        command_id: "cmd_1".into(),
        updated_at_ms: 1,
        removed: false,
        name: Default::default(),
        description: None,
        category: None,
        tax_class: None,
        active: true,
        stocked: true,
        prices: Default::default(),
        image_urls: Vec::new(),
        low_stock_threshold: None,
        metadata: Default::default(),
    }
}

/// The paths of a call with the other tenant's ids, each beside one with ids that never were.
fn paths(template: &str, theirs: &Theirs) -> Vec<Pair> {
    let fill = |replacements: &[(&str, &Pair)]| {
        let one = |pick: fn(&Pair) -> &String| {
            replacements.iter().fold(template.to_owned(), |path, (name, pair)| {
                path.replace(&format!("{{{name}}}"), pick(pair))
            })
        };
        (one(|it| &it.0), one(|it| &it.1))
    };
    let same = |text: &str| (text.to_owned(), text.to_owned());
    let shipment = pair("shp_00000000000000theirs");
    match template.split('/').nth(2) {
        Some("orders") if template.contains('{') => {
            theirs.orders.iter().map(|order| fill(&[("id", order), ("shipment", &shipment)])).collect()
        }
        Some("returns") => vec![fill(&[("id", &theirs.credit)])],
        Some("sandbox") => vec![fill(&[("id", &("pay_done".to_owned(), "pay_nope".to_owned()))])],
        Some("products" | "inventory") => vec![fill(&[("sku", &pair("theirs"))])],
        Some("webhooks") => {
            vec![fill(&[("id", &theirs.endpoint), ("message", &pair("msg_00000000000000theirs"))])]
        }
        Some("keys") => vec![fill(&[("id", &theirs.key)])],
        Some("rules") => vec![fill(&[("name", &pair("rule-theirs")), ("id", &theirs.backtest)])],
        Some("rule-signing") => vec![fill(&[("id", &theirs.signing_key)])],
        Some("dead-letters") => {
            let offset = ("0".to_owned(), "7".to_owned());
            vec![fill(&[("topic", &same("orders.commands")), ("partition", &same("0")), ("offset", &offset)])]
        }
        Some("topics") => vec![fill(&[("topic", &same("orders.commands"))])],
        _ => vec![same(template)],
    }
}

async fn send(api: &Api, method: &Method, path: &str, call: &Value) -> Answer {
    let mut headers = vec![("idempotency-key", "k-committed"), ("x-request-id", "same")];
    let mut body = String::new();
    if let Some((media_type, example)) = Contract::example(call) {
        headers.push(("content-type", media_type));
        body = example.to_string();
    }
    api.call(method.clone(), path, &headers, body).await
}

/// How long answers took, told beside the proof and judged by nobody: a shared machine's times prove nothing.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn median_us(&mut self) -> u128 {
        self.0.sort_unstable();
        self.0[self.0.len() / 2].as_micros()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_another_tenants_answers_as_if_it_never_was() {
    let (demo, theirs) = world().await;
    let mut faults = Vec::new();
    for (method, template, call) in demo.contract().calls() {
        let name = format!("{method} {template}");
        let Some((_, verdict)) = VERDICTS.iter().find(|(it, _)| *it == name) else {
            panic!("{name} is new: say in VERDICTS what it may tell of another tenant");
        };
        for paths in paths(template, &theirs) {
            let probe = Probe { demo: &demo, method: &method, template, call, paths };
            faults.extend(probe.fault(*verdict).await.map(|it| format!("{name}: {it}")));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // All of it is still there for its own tenant.
    for path in [
        format!("/v1/orders/{}", theirs.orders[0].0),
        format!("/v1/orders/{}", theirs.orders[1].0),
        format!("/v1/returns/{}", theirs.credit.0),
        "/v1/products/theirs".to_owned(),
        "/v1/inventory/theirs".to_owned(),
        "/v1/rules/rule-theirs".to_owned(),
        "/v1/dead-letters/orders.commands/0/0".to_owned(),
    ] {
        assert_eq!(demo.get(&path).await.status, 200, "{path}");
    }
    let keys = demo.get("/v1/keys").await.json();
    let key = keys["data"].as_array().unwrap().iter().find(|it| it["id"] == theirs.key.0).unwrap();
    assert_eq!(key["revoked_at"], Value::Null);
}

/// One call, with the ids of another tenant and with ids that never were.
struct Probe<'a> {
    demo: &'a Api,
    method: &'a Method,
    template: &'a str,
    call: &'a Value,
    paths: Pair,
}

impl Probe<'_> {
    /// What tells the caller of another tenant, if anything does.
    async fn fault(&self, verdict: Verdict) -> Option<String> {
        let other = self.demo.with_key("till_other");
        let (path, never) = &self.paths;
        let before = self.demo.store.written();
        self.demo.store.take_work();
        let answer = send(&other, self.method, path, self.call).await;
        let work = self.demo.store.take_work();
        let written = self.demo.store.written().split_off(before.len());
        if answer.text.contains(SECRET) {
            return Some(format!("tells {}", answer.text));
        }
        if written.iter().any(|key| !key.starts_with("other")) {
            return Some(format!("wrote {written:?}"));
        }
        match verdict {
            Missing if answer.status != 404 || !written.is_empty() => {
                Some(format!("{path} is {} {}, wrote {written:?}", answer.status, answer.text))
            }
            Missing => {
                let of_never = send(&other, self.method, never, self.call).await;
                let work_of_never = self.demo.store.take_work();
                tell_times(&other, self).await;
                let (one, two) = (self.without_ids(&answer, path), self.without_ids(&of_never, never));
                if work != work_of_never {
                    return Some(format!(
                        "works differently: {work:?} for {path}, {work_of_never:?} for {never}"
                    ));
                }
                (one != two).then(|| format!("answers differently: {one} and {two}"))
            }
            Empty => (answer.json()["data"] != json!([])).then(|| format!("is not empty: {}", answer.text)),
            Own => None,
            Same => {
                let of_demo = send(self.demo, self.method, path, self.call).await;
                (answer.text != of_demo.text)
                    .then(|| format!("differs: {} and {}", answer.text, of_demo.text))
            }
        }
    }

    /// Status, headers and body, with what the caller itself sent taken out.
    fn without_ids(&self, answer: &Answer, path: &str) -> String {
        let mut text = format!("{} {:?} {}", answer.status, answer.headers, answer.text);
        // A dead letter is named by its place: topic, partition and offset.
        let place: Vec<&str> = path.split('/').skip(3).take(3).collect();
        text = text.replace(&place.join("/"), "{place}");
        for (segment, name) in path.split('/').zip(self.template.split('/')) {
            if name.starts_with('{') && segment.len() > 5 {
                text = text.replace(segment, name);
            }
        }
        text
    }
}

#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it tells how long calls took, by the machine's clock"
)]
async fn tell_times(api: &Api, probe: &Probe<'_>) {
    let (mut of_theirs, mut of_never) = (Times::default(), Times::default());
    for _ in 0..11 {
        for (path, times) in [(&probe.paths.0, &mut of_theirs), (&probe.paths.1, &mut of_never)] {
            let began = std::time::Instant::now();
            send(api, probe.method, path, probe.call).await;
            times.0.push(began.elapsed());
        }
    }
    let (theirs, never) = (of_theirs.median_us(), of_never.median_us());
    let (method, template) = (probe.method, probe.template);
    println!(
        "{method} {template}: median {theirs} µs for another tenant's, {never} µs for one that never was"
    );
}

#[tokio::test]
async fn the_same_key_and_body_are_another_order_for_another_tenant_and_cursors_lead_nowhere_else() {
    let (demo, theirs) = world().await;
    let other = demo.with_key("till_other");
    let mut body = order();
    body["customer"] = "mine".into();
    let mine = other.post("/v1/orders", "k-committed", &body).await;
    assert_eq!(mine.status, 202, "{}", mine.text);
    assert_ne!(mine.json()["id"], json!(theirs.orders[0].0));
    let page = demo.get("/v1/topics/orders.commands/records?limit=1").await.json();
    let records = other
        .get(&format!("/v1/topics/orders.commands/records?cursor={}", page["next_cursor"].as_str().unwrap()))
        .await;
    assert!(!records.text.contains(SECRET));
    demo.commit_order("ord_00000000000000000002", OrderStatus::Pending, |_| {});
    let page = demo.get("/v1/orders?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(other.get(&format!("/v1/orders?cursor={cursor}")).await.json()["data"], json!([]));
    assert_eq!(demo.store.records(Topic::OrderCommands).len(), 3);
}
