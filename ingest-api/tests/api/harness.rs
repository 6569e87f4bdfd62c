//! The router over a store in memory, with fakes for what runs beside it.

use crate::contract::Contract;
use crate::store::MemoryStore;
use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tillstream_ingest_api::ports::{
    OrderEvents, OrderEventsHub, ProductsInForce, Progress, SandboxControl, SandboxError, SandboxPayment,
    TenantEvents,
};
use tillstream_ingest_api::{ApiKeys, Bounds, Ingest, LoadBounds, Parts, router};
use tillstream_runtime::Clock;
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::order_state::{OrderState, OrderStatus, OrderView, PricedOrder};
use tillstream_stage::time::descending;
use tillstream_stage::{Table, ids};
use tillstream_state::TaskId;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::ServiceExt;

pub const NOW_MS: i64 = 1_700_000_000_000;

type Subscribers = Vec<(String, mpsc::UnboundedSender<Arc<OrderEvent>>)>;

#[derive(Default)]
pub struct Hub {
    subscribers: Mutex<Subscribers>,
}

struct Feed(mpsc::UnboundedReceiver<Arc<OrderEvent>>);

impl OrderEvents for Feed {
    fn next(&mut self) -> BoxFuture<'_, Option<Arc<OrderEvent>>> {
        Box::pin(self.0.recv())
    }
}

impl OrderEventsHub for Hub {
    fn subscribe(&self, key: &str) -> Box<dyn OrderEvents> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().push((key.to_owned(), sender));
        Box::new(Feed(receiver))
    }

    fn subscribe_tenant(&self, _tenant: &str) -> Option<Box<dyn TenantEvents>> {
        None
    }
}

impl Hub {
    pub fn publish(&self, event: OrderEvent) {
        let key = format!("{}/{}", event.tenant, event.order_id);
        let event = Arc::new(event);
        for (_, sender) in self.subscribers.lock().iter().filter(|(it, _)| *it == key) {
            let _ = sender.send(event.clone());
        }
    }
}

/// Tasks that have read everything, or nothing.
#[derive(Default)]
pub struct Tasks {
    pub stalled: AtomicBool,
    pub lags: Mutex<Vec<(TaskId, u64)>>,
}

impl Progress for Tasks {
    fn has_committed(&self, _task: TaskId, end: u64) -> bool {
        end == 0 || !self.stalled.load(Ordering::SeqCst)
    }

    fn wait_committed(&self, task: TaskId, end: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A look now and then, by tokio's clock: where a test has paused it, it goes on meanwhile.
            while !self.has_committed(task, end) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    fn trouble(&self) -> Vec<String> {
        Vec::new()
    }

    fn lags(&self) -> Vec<(TaskId, u64)> {
        self.lags.lock().clone()
    }
}

struct InForceAtOnce;

impl ProductsInForce for InForceAtOnce {
    fn wait_version<'a>(&'a self, _tenant: &'a str, _sku: &'a str, _version: i64) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// A sandbox that knows two payments of the tenant `demo`.
struct Sandbox;

impl SandboxControl for Sandbox {
    fn payment<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<SandboxPayment>, SandboxError>> {
        let done = (tenant, payment_id) == ("demo", "pay_done");
        let payment = done.then(|| SandboxPayment {
            order_id: "ord_1".into(),
            status: "captured",
            method: "pm_card_visa".into(),
            currency: "GBP".into(),
            amount_minor: 500,
            authorized_minor: 0,
            captured_minor: 400,
            refunded_minor: 100,
        });
        Box::pin(std::future::ready(Ok(payment)))
    }

    fn authenticate<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            match (tenant, payment_id, succeed) {
                ("demo", "pay_waits", _) => Ok(()),
                ("demo", "pay_done", _) => Err(SandboxError::NotWaiting("it is captured".into())),
                _ => Err(SandboxError::NoSuchPayment),
            }
        })
    }
}

/// A wall clock set by hand; the monotonic one is tokio's, which a test may pause.
pub struct TestClock {
    now_ms: AtomicI64,
    started: Instant,
}

impl TestClock {
    pub fn advance(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap()
    }

    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.started + Duration::from_nanos(deadline_ns)))
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// Status and stable code of a problem.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        (self.status.as_u16(), json["code"].as_str().unwrap().to_owned())
    }
}

/// The keys of a process, which it follows as long as the test runs.
pub async fn followed_keys(store: Arc<MemoryStore>, clock: Arc<TestClock>) -> ApiKeys {
    let keys = ApiKeys::open(store, clock).await.unwrap();
    let followed = keys.clone();
    tokio::spawn(async move {
        let (_running, shutdown) = tokio::sync::watch::channel(false);
        followed.run_follower(shutdown).await
    });
    keys.caught_up().await.unwrap();
    keys
}

#[derive(Clone)]
pub struct Api {
    pub store: Arc<MemoryStore>,
    pub hub: Arc<Hub>,
    pub tasks: Arc<Tasks>,
    pub clock: Arc<TestClock>,
    pub keys: ApiKeys,
    pub ingest: Arc<Ingest>,
    pub registry: prometheus::Registry,
    pub router: Router,
    contract: Arc<Contract>,
    key: String,
}

impl Api {
    pub async fn start() -> Self {
        Self::over(Arc::default(), Arc::default()).await
    }

    /// A process that starts on a store that may have been used before.
    pub async fn over(store: Arc<MemoryStore>, tasks: Arc<Tasks>) -> Self {
        let hub = Arc::new(Hub::default());
        let bounds = Bounds::default();
        Self { hub: hub.clone(), ..Self::with_hub(store, tasks, hub, bounds, false).await }
    }

    /// The same, with its events from elsewhere.
    pub async fn with_hub(
        store: Arc<MemoryStore>,
        tasks: Arc<Tasks>,
        order_events: Arc<dyn OrderEventsHub>,
        bounds: Bounds,
        rows_follow_the_log: bool,
    ) -> Self {
        let clock = Arc::new(TestClock { now_ms: AtomicI64::new(NOW_MS), started: Instant::now() });
        let keys = followed_keys(store.clone(), clock.clone()).await;
        keys.ensure("demo", "tests", "till_demo").await.unwrap();
        keys.ensure("other", "tests", "till_other").await.unwrap();
        let registry = prometheus::Registry::new();
        let parts = Parts {
            log: store.clone(),
            state: store.clone(),
            keys: keys.clone(),
            health: store.clone(),
            order_events,
            products: Arc::new(InForceAtOnce),
            progress: tasks.clone(),
            sandbox: Some(Arc::new(Sandbox)),
            rules: Some(Arc::new(crate::rules::Shelf::default())),
            backtests: Some(Arc::new(crate::backtests::Desk::default())),
            webhooks: Arc::new(crate::webhooks::Endpoints::default()),
            registry: registry.clone(),
            clock: clock.clone(),
            bounds: Bounds { load: LoadBounds { order_lag_records: 40, ..bounds.load }, ..bounds },
            operator_tenant: Some("demo".into()),
            rows_follow_the_log,
        };
        let ingest = Arc::new(Ingest::new(parts).unwrap());
        let router = router(ingest.clone());
        let contract = Arc::new(Contract::of(&router).await);
        Self {
            store,
            hub: Arc::default(),
            tasks,
            clock,
            keys,
            ingest,
            registry,
            router,
            contract,
            key: "till_demo".into(),
        }
    }

    /// What the API says of itself.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let (parts, bytes) = self.raw(method.clone(), path, headers, body).await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        self.contract.check(&method, path, &answer);
        answer
    }

    /// As [`Api::call`], for an answer that need not be text.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (http::response::Parts, bytes::Bytes) {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    /// As [`Api::call`], with the body still to be read.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !self.key.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        let headers = [("idempotency-key", key), ("content-type", "application/json")];
        self.call(Method::POST, path, &headers, body.to_string()).await
    }

    /// Writes an order's row as the order task would.
    pub fn commit_order(&self, id: &str, status: OrderStatus, change: impl FnOnce(&mut OrderState)) {
        let command = self.store.order_commands().into_iter().find(|it| it.order_id == id);
        let mut row = OrderState {
            tenant: "demo".into(),
            order_id: id.into(),
            accepted_at_ms: command.as_ref().map_or(NOW_MS, |it| it.accepted_at_ms),
            fingerprint: command.map(|it| it.fingerprint).unwrap_or_default(),
            order: Some(PricedOrder { currency: "GBP".into(), ..PricedOrder::default() }),
            view: OrderView { status, version: 1, stage: "done".into(), ..OrderView::default() },
            ..OrderState::default()
        };
        change(&mut row);
        self.store.put(Table::Order, &ids::key(&row.tenant, id), &row);
        let index = format!("{}/{}/{id}", row.tenant, descending(row.accepted_at_ms));
        self.store.put_empty(Table::OrderIndex, &index);
    }
}

/// Waits until something holds; fails after 10 s.
pub async fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(it) = probe() {
                return it;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never came")
}

/// The same in a test that has paused the clock: its time passes meanwhile, and nobody else's.
pub async fn eventually_by_the_clock<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        loop {
            ticks.tick().await;
            if let Some(it) = probe() {
                return it;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never came")
}

pub fn order() -> Value {
    serde_json::json!({
        "customer": "c-1", "currency": "GBP", "country": "GB",
        "lines": [{"sku": "85123A", "quantity": 6, "unit_price": 255}],
        "payment": {"method": "pm_card_visa"}
    })
}
