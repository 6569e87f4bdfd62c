//! A log with a history in it, and rules that are functions.
#![allow(dead_code, reason = "every test takes its part")]

use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_pricing::preview;
use tillstream_rule_backtest::{
    BacktestError, Backtests, Ports, Pricer, Products, Rehearsals, Said, Side, Spec, Status, View,
};
use tillstream_runtime::SystemClock;
use tillstream_schemas::codec::{Wire, encode};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload, OrderLine, PlaceOrder};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload, RuleRef};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::facts::{Catalog, NoCatalog};
use tillstream_stage::ids;
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::{Hook, LineAdjustment, RuleAnswer, RuleCall, RuleRun, Verdict};
use tokio::runtime::Handle;

const PARTITIONS: u32 = 3;

/// An order of the past.
#[derive(Clone)]
pub struct Past {
    pub tenant: &'static str,
    pub n: i64,
    pub has_event: bool,
}

/// One a second; one line of n % 3 + 1 pieces at n % 50 + 1 each.
pub fn order(n: i64) -> Past {
    Past { tenant: "demo", n, has_event: true }
}

impl Past {
    fn id(&self) -> String {
        format!("ord_{}_{}", self.tenant, self.n)
    }

    fn placed(&self) -> PlaceOrder {
        let line = OrderLine {
            sku: format!("sku-{}", self.n % 7).into(),
            quantity: 1 + self.n % 3,
            unit_price_minor: Some(1 + self.n % 50),
            discount_minor: 0,
        };
        serde_json::from_value(serde_json::json!({
            "currency": "GBP", "country": "GB", "placed_at_ms": self.n * 1_000, "lines": [line],
            "payment": {"method": "pm_card_visa", "capture": "automatic"},
        }))
        .unwrap()
    }
}

/// Lets so many calls through, then holds the rest until it is opened.
pub struct Gate {
    pub passed: Arc<AtomicU64>,
    most: u64,
    opened: AtomicBool,
}

impl Gate {
    pub fn closed_after(most: u64) -> Arc<Self> {
        Arc::new(Self { passed: Arc::default(), most, opened: AtomicBool::new(false) })
    }

    pub fn open(&self) {
        self.opened.store(true, Ordering::SeqCst);
    }

    fn pass(&self) {
        let at = self.passed.fetch_add(1, Ordering::SeqCst);
        while at >= self.most && !self.opened.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    pub async fn reached(&self) {
        until(|| self.passed.load(Ordering::SeqCst) > self.most).await;
    }
}

/// What the rule says.
#[derive(Clone)]
pub enum Ask {
    Pass,
    TenOffTheFirstLine,
    RefuseOver(i64),
    Gated(Arc<Gate>),
    NotThere,
    /// Names the currency, at the measure hook.
    Measure(&'static str),
    /// Declines orders over a total, at the risk hook; as a baseline it says nothing.
    DeclineOver(i64),
    /// Places all goods.
    Place(&'static str),
}

impl Pricer for Ask {
    fn ask(&self, _order_id: &str, call: &RuleCall) -> Said {
        let (worth, lines) = match call {
            RuleCall::Price(it) => {
                (it.lines.iter().map(|it| it.quantity * it.unit_price_minor).sum(), it.lines.len())
            }
            RuleCall::Risk(it) => (it.total_minor, 0),
            RuleCall::Allocate(it) => (0, it.lines.len()),
            _ => (0, 0),
        };
        let answer = match self {
            Self::Measure(value) => Some(RuleAnswer::Dimensions(vec![("tier".into(), (*value).into())])),
            Self::Place(location) => Some(RuleAnswer::Place(vec![vec![(*location).into()]; lines])),
            Self::TenOffTheFirstLine => {
                let off =
                    |at| LineAdjustment { discount_minor: if at == 0 { 10 } else { 0 }, tax_rate_bp: None };
                Some(RuleAnswer::Adjust((0..lines).map(off).collect()))
            }
            Self::RefuseOver(most) | Self::DeclineOver(most) if worth > *most => {
                Some(RuleAnswer::Refuse { code: "too_large".into(), message: "No.".into() })
            }
            Self::Gated(gate) => {
                gate.pass();
                None
            }
            _ => None,
        };
        let rule = RuleRef { name: "r".into(), version: "1".into(), digest: "d".into(), also: Vec::new() };
        let outcome = if answer.is_some() { "answered" } else { "passed" };
        Said {
            verdict: answer.map(|it| Verdict::new(rule, it)),
            run: Some(RuleRun { outcome, fuel: 300, ns: 700 }),
        }
    }
}

impl Rehearsals for Ask {
    fn rehearse<'a>(
        &'a self,
        _spec: &'a Spec,
        side: Side,
    ) -> BoxFuture<'a, Result<Box<dyn Pricer>, BacktestError>> {
        Box::pin(async move {
            match self {
                Self::NotThere => Err(BacktestError::NotPossible("no such version".to_owned())),
                Self::DeclineOver(_) | Self::Place(_) if side == Side::Baseline => {
                    Ok(Box::new(Self::Pass) as Box<dyn Pricer>)
                }
                rule => Ok(Box::new(rule.clone()) as Box<dyn Pricer>),
            }
        })
    }
}

pub struct Empty;

impl Products for Empty {
    fn resolve<'a>(
        &'a self,
        _wanted: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Box<dyn Catalog + Send + Sync>, String>> {
        Box::pin(async { Ok(Box::new(NoCatalog) as Box<dyn Catalog + Send + Sync>) })
    }
}

pub fn spec(id: &str) -> Spec {
    Spec {
        id: id.to_owned(),
        tenant: "demo".to_owned(),
        rule: "r".to_owned(),
        version: 1,
        hook: Hook::Price,
        settings: "{}".to_owned(),
        against: None,
        alone: false,
        from_ms: None,
        to_ms: None,
        orders_per_second_max: None,
        created_at_ms: 0,
    }
}

pub struct World {
    pub backtests: Arc<Backtests>,
    store: Arc<EmbeddedStore>,
    dir: TempDir,
}

impl World {
    pub async fn start(rule: Ask) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { partitions: PARTITIONS, ..EmbeddedSettings::new(dir.path()) };
        let store = EmbeddedStore::open(settings).unwrap();
        let backtests = Backtests::open(ports(&store, rule), &dir.path().join("backtests")).unwrap();
        Self { backtests, store, dir }
    }

    /// The backtests as the next process finds them after a crash: the files, and nobody who holds them.
    pub async fn reopened(&self, rule: Ask) -> Arc<Backtests> {
        let (before, after) = (self.dir.path().join("backtests"), self.dir.path().join("after"));
        std::fs::create_dir(&after).unwrap();
        for file in std::fs::read_dir(before).unwrap().map(|it| it.unwrap().path()) {
            if file.extension().is_some_and(|it| it == "json") {
                std::fs::copy(&file, after.join(file.file_name().unwrap())).unwrap();
            }
        }
        Backtests::open(ports(&self.store, rule), &after).unwrap()
    }

    /// The backtests of another process that shares the folder.
    pub async fn beside(&self, rule: Ask) -> Arc<Backtests> {
        Backtests::open(ports(&self.store, rule), &self.dir.path().join("backtests")).unwrap()
    }

    /// Appends commands and what became of them, events some way behind as they are in life.
    pub async fn history(&self, orders: &[Past]) {
        for some in orders.chunks(500) {
            let commands = some.iter().map(|it| record(Topic::OrderCommands, it, &command(it))).collect();
            self.store.append(commands).await.unwrap();
            let events = some
                .iter()
                .filter(|it| it.has_event)
                .map(|it| record(Topic::OrderEvents, it, &event(it)))
                .collect();
            self.store.append(events).await.unwrap();
        }
    }

    /// The log.
    pub fn log(&self) -> &dyn Log {
        &*self.store
    }

    /// A command that no task can read.
    pub async fn garbage(&self) {
        let bad = NewRecord {
            value: "no command".into(),
            ..record(Topic::OrderCommands, &order(1), &command(&order(1)))
        };
        self.store.append(vec![bad]).await.unwrap();
    }

    pub async fn begin(&self, spec: Spec) -> Result<View, BacktestError> {
        self.backtests.begin(spec).await
    }

    pub async fn ended(&self, id: &str) -> View {
        ended(&self.backtests, id).await
    }

    pub async fn run(&self, spec: Spec) -> View {
        let id = spec.id.clone();
        self.begin(spec).await.unwrap();
        let view = self.ended(&id).await;
        assert_eq!((view.status, view.error.as_deref()), (Status::Done, None));
        view
    }
}

fn ports(store: &Arc<EmbeddedStore>, rule: Ask) -> Ports {
    Ports {
        log: store.clone(),
        products: Arc::new(Empty),
        rehearsals: Arc::new(rule),
        clock: Arc::new(SystemClock::new()),
        on: Handle::current(),
    }
}

pub async fn ended(backtests: &Backtests, id: &str) -> View {
    until(|| backtests.get("demo", "r", id).unwrap().status != Status::Running).await;
    backtests.get("demo", "r", id).unwrap()
}

async fn until(done: impl Fn() -> bool) {
    let come = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), come).await.expect("it never came");
}

fn record<T: Wire>(topic: Topic, past: &Past, value: &T) -> NewRecord {
    let key = ids::key(past.tenant, &past.id()).to_string();
    let to = TopicPartition::new(topic, partition_of(key.as_bytes(), PARTITIONS));
    NewRecord { to, key: key.into(), value: encode(value).unwrap().into(), headers: Headers::new() }
}

fn command(past: &Past) -> OrderCommand {
    OrderCommand {
        id: format!("cmd_{}", past.id()).into(),
        tenant: past.tenant.into(),
        order_id: past.id().into(),
        accepted_at_ms: past.n,
        traceparent: None,
        fingerprint: Text::default(),
        payload: OrderCommandPayload::PlaceOrder(Box::new(past.placed())),
    }
}

fn event(past: &Past) -> OrderEvent {
    let mut priced = preview(&past.placed(), past.tenant, &NoCatalog, None).unwrap();
    // Every third was measured.
    if past.n % 3 == 0 {
        priced.dimensions.insert("tier".into(), "gold".into());
    }
    OrderEvent {
        id: format!("evt_{}", past.id()).into(),
        tenant: past.tenant.into(),
        order_id: past.id().into(),
        version: 1,
        at_ms: past.n,
        command_id: format!("cmd_{}", past.id()).into(),
        traceparent: None,
        status: "pending".into(),
        payload: OrderEventPayload::OrderPriced(priced),
    }
}
