//! What this crate needs of the processors in the same process, as small traits: the binary plugs them together.

use futures::future::BoxFuture;
use std::sync::Arc;
use thiserror::Error;
use tillstream_rule_backtest::{BacktestError, Spec, View};
use tillstream_rule_lifecycle::{Rule, RuleRefusal, Signing, Tally};
use tillstream_schemas::Text;
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::rule_sample::RuleSample as CallSample;
use tillstream_schemas::rules::{RuleEvent, RuleSignature};
use tillstream_state::TaskId;

/// A live feed of one order's events.
pub trait OrderEvents: Send {
    /// The next event; `None` when the feed has ended (or fell behind): read the row instead.
    fn next(&mut self) -> BoxFuture<'_, Option<Arc<OrderEvent>>>;
}

/// An event, and where it stands in `orders.events`.
#[derive(Clone, Debug)]
pub struct PlacedEvent {
    /// The partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// The event.
    pub event: Arc<OrderEvent>,
}

/// A live feed of one tenant's events.
pub trait TenantEvents: Send {
    /// Per partition of `orders.events`, the first offset that comes through the feed; what is before stands in the log.
    fn starts(&self) -> Vec<u64>;

    /// Per partition, an offset before which every event of the tenant has been put into the feed.
    fn positions(&self) -> Vec<u64>;

    /// The next event, if one is there already.
    fn try_next(&mut self) -> Option<PlacedEvent>;

    /// The next event; `None` when the feed has ended (or fell behind): go on from the log. Dropping the future loses
    /// nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<PlacedEvent>>;
}

/// Where live events of orders come from.
pub trait OrderEventsHub: Send + Sync {
    /// From this call on, every event of that key (`tenant/order_id`) reaches the feed.
    fn subscribe(&self, key: &str) -> Box<dyn OrderEvents>;

    /// From this call on, every event of that tenant reaches the feed; `None` once nothing is followed any more.
    fn subscribe_tenant(&self, tenant: &str) -> Option<Box<dyn TenantEvents>>;
}

/// The catalog as pricing sees it.
pub trait ProductsInForce: Send + Sync {
    /// Resolves once pricing uses this version (or a later one) of the product.
    fn wait_version<'a>(&'a self, tenant: &'a str, sku: &'a str, version: i64) -> BoxFuture<'a, ()>;
}

/// How far the tasks of this process are.
pub trait Progress: Send + Sync {
    /// Whether the task has committed all its input before `end`, so that the rows it made can be read.
    fn has_committed(&self, task: TaskId, end: u64) -> bool;

    /// Resolves once [`Progress::has_committed`] holds.
    fn wait_committed(&self, task: TaskId, end: u64) -> BoxFuture<'_, ()>;

    /// Why tasks do not run, if they do not: a sentence per reason.
    fn trouble(&self) -> Vec<String>;

    /// Records that each task has not committed yet, as far as is known.
    fn lags(&self) -> Vec<(TaskId, u64)> {
        Vec::new()
    }

    /// Writes gauges that are only worked out when somebody looks; called before every scrape.
    fn export(&self) {}
}

/// Why the sandbox provider did not do it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SandboxError {
    /// The tenant has no such payment.
    #[error("the sandbox has no such payment")]
    NoSuchPayment,
    /// The payment does not wait for the customer.
    #[error("the payment does not wait for the customer: {0}")]
    NotWaiting(String),
    /// The result could not be written.
    #[error(transparent)]
    Log(#[from] tillstream_log::LogError),
}

/// A payment as the sandbox provider has it. Amounts are minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxPayment {
    /// The order it was asked for.
    pub order_id: Text,
    /// Where it stands: `requires_action`, `authorized`, `captured`, `cancelled` or `declined`.
    pub status: &'static str,
    /// The payment method.
    pub method: Text,
    /// ISO 4217.
    pub currency: Text,
    /// What was asked for.
    pub amount_minor: i64,
    /// Authorized, and not captured or given up since.
    pub authorized_minor: i64,
    /// Captured.
    pub captured_minor: i64,
    /// Refunded.
    pub refunded_minor: i64,
}

/// The sandbox provider's back door.
pub trait SandboxControl: Send + Sync {
    /// A payment as the provider has it; `None` when the tenant has no such payment.
    fn payment<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<SandboxPayment>, SandboxError>>;

    /// Completes (or fails) a payment that asked for action; durable once it returns.
    fn authenticate<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<(), SandboxError>>;
}

/// A rule and its name.
#[derive(Clone, Debug)]
pub struct RuleView {
    /// The name.
    pub name: Text,
    /// The rule.
    pub rule: Rule,
    /// What this process counted of its trial and has not said in the registry yet, by currency.
    pub untold: Vec<(Text, Tally)>,
}

/// What a module used on a sample order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSample {
    /// The hook.
    pub hook: &'static str,
    /// Lines of the order.
    pub lines: usize,
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// What it logged.
    pub log: String,
}

/// What became of an uploaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleUploaded {
    /// It is a version.
    Taken {
        /// The version's number.
        version: i64,
        /// SHA-256 of the module, in hex.
        digest: String,
        /// What it made of sample orders.
        samples: Vec<RuleSample>,
    },
    /// It is not taken: a bounded reason, and a sentence for its author.
    Refused {
        /// The reason.
        reason: String,
        /// The sentence.
        message: String,
    },
    /// The tenant has no room for it.
    NoRoom(String),
    /// It is not signed as its tenant wants it: a sentence.
    Unsigned(String),
}

/// A module that is uploaded.
#[derive(Clone, Copy, Debug)]
pub struct NewModule<'a> {
    /// Whose rule.
    pub tenant: &'a str,
    /// Which rule.
    pub rule: &'a str,
    /// Who asked: the id of an API key.
    pub actor: &'a str,
    /// Who signed it.
    pub signature: Option<&'a RuleSignature>,
}

/// Why rules cannot be changed now.
#[derive(Clone, Debug, Error)]
pub enum RulesError {
    /// The log.
    #[error(transparent)]
    Log(#[from] tillstream_log::LogError),
    /// Anything else: the compiler, the registry.
    #[error("{0}")]
    Other(String),
}

/// The rules of this deployment.
pub trait Rules: Send + Sync {
    /// A tenant's rules, by name.
    fn list(&self, tenant: &str) -> Vec<RuleView>;

    /// One rule.
    fn get(&self, tenant: &str, name: &str) -> Option<RuleView>;

    /// Calls of a rule that were kept, newest first.
    fn samples(&self, tenant: &str, name: &str) -> Vec<Arc<CallSample>>;

    /// An id that no other event has.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    fn new_id(&self) -> Result<Text, RulesError>;

    /// Who may sign the tenant's modules.
    fn signing(&self, tenant: &str) -> Signing;

    /// Appends a change; when it is taken it is in force in this process once this returns. A version is asked what the
    /// tenant's rules were asked of late before it is put in force or on trial.
    fn change<'a>(
        &'a self,
        event: &'a RuleEvent,
    ) -> BoxFuture<'a, Result<Result<(), RuleRefusal>, RulesError>>;

    /// Checks, compiles and tries a module, makes it the rule's next version, and asks it what the tenant's rules were asked
    /// of late.
    fn upload<'a>(
        &'a self,
        new: NewModule<'a>,
        module: Vec<u8>,
    ) -> BoxFuture<'a, Result<RuleUploaded, RulesError>>;
}

/// The backtests of this process.
pub trait Backtests: Send + Sync {
    /// Begins one.
    fn begin(&self, spec: Spec) -> BoxFuture<'_, Result<View, BacktestError>>;

    /// Goes on with one that was stopped or failed.
    fn resume<'a>(
        &'a self,
        tenant: &'a str,
        rule: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<View, BacktestError>>;

    /// Stops one.
    ///
    /// # Errors
    /// When there is none.
    fn cancel(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError>;

    /// One.
    ///
    /// # Errors
    /// When there is none.
    fn get(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError>;

    /// Those of a rule, newest first.
    fn list(&self, tenant: &str, rule: &str) -> Vec<View>;
}

/// How much memory this process has.
pub trait Memory: Send + Sync {
    /// Resident memory, bytes; `None` where the system does not tell.
    fn resident_bytes(&self) -> Option<u64>;
}
