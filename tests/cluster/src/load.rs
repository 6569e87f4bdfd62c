//! What clients do during a history, and the book of what was acknowledged.

use crate::cluster::Cluster;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_random::Random;

const WRITERS: usize = 4;
const HOT: usize = 2;
const COLD: usize = 24;
/// Units of a SKU at the start; of the scarce one only these few.
const STOCK: i64 = 100_000;
const SCARCE: i64 = 25;
/// The one product whose price stands in the catalog.
const CATALOG_PRICE: i64 = 250;
/// A writer's pause between two orders.
const PACE: Duration = Duration::from_millis(35);

/// An acknowledged order.
#[derive(Clone, Debug)]
pub struct Placed {
    /// SKU → units.
    pub units: BTreeMap<String, i64>,
    /// Σ quantity × price.
    pub gross: i64,
    /// ISO 4217.
    pub currency: &'static str,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Book {
    /// By id.
    pub orders: BTreeMap<String, Placed>,
    /// SKU → Σ of adjustments.
    pub received: BTreeMap<String, i64>,
    /// Cancels, refunds, shipments and returns that were taken, by name.
    pub asked: BTreeMap<&'static str, u64>,
}

/// The clients of one history: tenant, SKUs and keys are told apart by its tag.
pub struct Load {
    /// What marks everything of this history.
    pub tag: String,
    /// The minute its orders are placed in.
    pub minute_ms: i64,
    /// What was acknowledged.
    pub book: Mutex<Book>,
    seed: u64,
    next: AtomicUsize,
    done: AtomicUsize,
    enough: AtomicBool,
}

impl Load {
    /// For a history of this seed, the nth of its cluster.
    pub fn new(seed: u64, n: u64) -> Self {
        // 2026-03-01T00:00:00Z, and a minute for each history, so that its windows are its own.
        let minute_ms = 1_772_323_200_000 + i64::try_from(n).expect("few histories") * 60_000;
        Self {
            tag: format!("h{n}-{seed:x}"),
            minute_ms,
            book: Mutex::default(),
            seed,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
        }
    }

    fn skus(&self) -> Vec<String> {
        let hot = (0..HOT).map(|it| format!("{}-hot-{it}", self.tag));
        let cold = (0..COLD).map(|it| format!("{}-cold-{it}", self.tag));
        hot.chain(cold).chain([format!("{}-scarce", self.tag), format!("{}-catalog", self.tag)]).collect()
    }

    fn moment(&self) -> String {
        let minutes = self.minute_ms / 60_000 % 1_440;
        let day = 1 + (self.minute_ms - 1_772_323_200_000) / 86_400_000;
        format!("2026-03-{day:02}T{:02}:{:02}:07Z", minutes / 60, minutes % 60)
    }

    /// Puts the product in force and the stock on the shelves.
    pub async fn stock_up(&self, cluster: &Cluster) {
        let product = json!({"name": "Lantern", "active": true, "stocked": true, "prices": {"GBP": CATALOG_PRICE, "EUR": CATALOG_PRICE}});
        let path = format!("/v1/products/{}-catalog", self.tag);
        let (status, answer) = cluster.send(Method::PUT, &path, None, Some(&product)).await;
        assert!(status.is_success(), "{status} {answer}");
        for sku in self.skus() {
            let delta = if sku.ends_with("scarce") { SCARCE } else { STOCK };
            self.adjust(cluster, &sku, delta, "first").await;
        }
    }

    async fn adjust(&self, cluster: &Cluster, sku: &str, delta: i64, key: &str) {
        let body = json!({"delta": delta, "reason": "received", "location": "main"});
        let (status, answer) = cluster.post(&format!("/v1/inventory/{sku}/adjustments"), key, &body).await;
        assert!(status.is_success(), "{status} {answer}");
        *self.book.lock().received.entry(sku.to_owned()).or_default() += delta;
    }

    /// The nth order: the same for the same seed, whatever happens around it.
    fn order(&self, n: usize) -> (Value, Placed) {
        let mut random = Random::new(self.seed ^ (n as u64).wrapping_mul(0x9e37_79b9));
        let mut placed = Placed {
            units: BTreeMap::new(),
            gross: 0,
            currency: if random.below(4) == 0 { "EUR" } else { "GBP" },
        };
        let mut lines = Vec::new();
        for _ in 0..1 + random.below(5) {
            let quantity = 1 + random.below(3) as i64;
            let (name, price) = match random.below(20) {
                0..8 => (format!("hot-{}", random.below(HOT)), Some(199)),
                8 => ("scarce".to_owned(), Some(1_050)),
                9 | 10 => ("catalog".to_owned(), None),
                _ => (format!("cold-{}", random.below(COLD)), Some(100 + random.below(900) as i64)),
            };
            let sku = format!("{}-{name}", self.tag);
            placed.gross += quantity * price.unwrap_or(CATALOG_PRICE);
            *placed.units.entry(sku.clone()).or_default() += quantity;
            let mut line = json!({"sku": sku, "quantity": quantity});
            if let Some(price) = price {
                line["unit_price"] = json!(price);
            }
            lines.push(line);
        }
        let method = match random.below(24) {
            0 => "pm_card_chargeDeclined",
            1 => "pm_sandbox_timeout",
            _ => "pm_card_visa",
        };
        let capture = if random.below(12) == 0 { "manual" } else { "automatic" };
        let order = json!({
            "customer": format!("c-{}", random.below(50)), "currency": placed.currency, "country": "GB",
            "placed_at": self.moment(), "lines": lines, "payment": {"method": method, "capture": capture},
        });
        (order, placed)
    }

    /// Places the nth order, twice now and then, and lets something race it.
    async fn step(&self, cluster: &Cluster, n: usize) {
        let mut random = Random::new(self.seed.rotate_left(23) ^ n as u64);
        let (body, placed) = self.order(n);
        let key = format!("{}-{n}", self.tag);
        let (status, answer) = cluster.post("/v1/orders", &key, &body).await;
        assert!(status.is_success(), "order {key}: {status} {answer}");
        let id = answer["id"].as_str().expect("an accepted order has an id").to_owned();
        let sku = placed.units.keys().next().expect("a line").clone();
        self.book.lock().orders.insert(id.clone(), placed);
        if random.below(5) == 0 {
            let (status, again) = cluster.post("/v1/orders", &key, &body).await;
            assert!(status.is_success(), "order {key} again: {status} {again}");
            assert_eq!(again["id"], answer["id"], "a repeat answered another id");
        }
        for step in 0..random.below(3) {
            let (what, body) = match random.below(12) {
                0 => ("cancel", json!({"reason": "changed my mind"})),
                1 => ("refunds", json!({})),
                2 => ("refunds", json!({"amount": 1 + random.below(200)})),
                3 => ("shipments", json!({})),
                4 => {
                    let lines = json!([{"sku": sku, "quantity": 1}]);
                    ("returns", json!({"returned_at": self.moment(), "lines": lines}))
                }
                5 => ("capture", json!({})),
                6 => {
                    self.adjust(cluster, &sku, 5, &format!("{key}-{step}")).await;
                    continue;
                }
                _ => continue,
            };
            let (status, answer) =
                cluster.post(&format!("/v1/orders/{id}/{what}"), &format!("{key}-{step}"), &body).await;
            // Whether the order can take it is for the order to say; that it is answered is checked here.
            assert!(status.is_success() || matches!(status.as_u16(), 404 | 409), "{what}: {status} {answer}");
            if status.is_success() {
                *self.book.lock().asked.entry(what).or_default() += 1;
            }
        }
    }

    /// Starts the clients; they go on until [`Load::end`].
    pub fn begin(self: &Arc<Self>, cluster: &Arc<Cluster>) -> Vec<tokio::task::JoinHandle<()>> {
        let client = || {
            let (load, cluster) = (self.clone(), cluster.clone());
            tokio::spawn(async move {
                let mut pace = tokio::time::interval(PACE);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !load.enough.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let n = load.next.fetch_add(1, Ordering::Relaxed);
                    load.step(&cluster, n).await;
                    load.done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        (0..WRITERS).map(|_| client()).collect()
    }

    /// Waits until so many more orders were acknowledged.
    pub async fn more(&self, orders: usize) {
        let until = self.done.load(Ordering::Relaxed) + orders;
        let there = crate::wait_for(crate::cluster::RECOVERY, async || {
            (self.done.load(Ordering::Relaxed) >= until).then_some(())
        });
        assert!(
            there.await.is_some(),
            "{} of {until} orders were acknowledged",
            self.done.load(Ordering::Relaxed)
        );
    }

    /// Lets the clients finish what they are at.
    pub async fn end(&self, clients: Vec<tokio::task::JoinHandle<()>>) {
        self.enough.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("a client does not panic");
        }
    }
}
