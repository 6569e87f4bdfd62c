//! The sandbox's durable ledger: one fjall database, one thread that decides and commits in groups.
//!
//! All requests pass through one thread in the order they came, so that a key's memory needs no locks; what waits while
//! a group is being made durable becomes the next group.

use super::decide::{self, Verdict};
use super::row::{RequestRow, SandboxPayment};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures::channel::oneshot;
use rustc_hash::FxHashMap;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use thiserror::Error;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{PaymentOperation, PaymentOutcome, PaymentResult};
use tillstream_stage::ids::derived_id;
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

/// Requests that are made durable together, at most.
const GROUP_MAX: usize = 4_096;

/// What can go wrong with the sandbox's ledger.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LedgerError {
    /// It cannot be opened.
    #[error("TS0501: the sandbox ledger at {path} cannot be opened: {detail}")]
    Open {
        /// Its directory.
        path: String,
        /// Why.
        detail: String,
    },
    /// A write or fsync failed, or it was closed; it takes nothing more until it is opened again.
    #[error("TS0502: the sandbox ledger has stopped: {0}")]
    Stopped(String),
    /// A row cannot be read.
    #[error("TS0503: the sandbox ledger cannot be read: {0}")]
    Corrupt(String),
    /// The sandbox that another process serves was not heard, or answered what it should not.
    #[error("TS0507: the sandbox at {url} cannot be asked: {detail}")]
    Remote {
        /// Where.
        url: String,
        /// Why.
        detail: String,
    },
    /// The address of a served sandbox cannot be used.
    #[error("TS0508: '{url}' is no sandbox's URL: {detail}")]
    Url {
        /// What was given.
        url: String,
        /// Why.
        detail: String,
    },
}

fn storage(error: fjall::Error) -> LedgerError {
    LedgerError::Corrupt(error.to_string())
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub result: PaymentResult,
    /// Whether the request was performed now; `false`: its key was seen before.
    pub fresh: bool,
}

/// A payment that was acted on, with the order it belongs to.
pub(super) type Acted = Option<(Text, Text, PaymentResult)>;

enum Reply {
    Answer(oneshot::Sender<Result<Answer, LedgerError>>, Result<Answer, LedgerError>),
    Acted(oneshot::Sender<Result<Acted, LedgerError>>, Result<Acted, LedgerError>),
}

impl Reply {
    /// Sends it; whoever no longer waits asks again with the same key.
    fn send(self, failed: Option<&LedgerError>) {
        match self {
            Self::Answer(to, answer) => {
                let _ = to.send(failed.map_or(answer, |error| Err(error.clone())));
            }
            Self::Acted(to, acted) => {
                let _ = to.send(failed.map_or(acted, |error| Err(error.clone())));
            }
        }
    }
}

/// Work for the ledger's thread.
pub(super) enum Job {
    Execute {
        tenant: Text,
        order_id: Text,
        request: Box<PaymentRequest>,
        unlucky: bool,
        to: oneshot::Sender<Result<Answer, LedgerError>>,
    },
    Authenticate {
        payment_id: Text,
        succeed: bool,
        to: oneshot::Sender<Result<Acted, LedgerError>>,
    },
}

/// Reads of the ledger, and its mailbox.
pub(super) struct Ledger {
    store: Store,
    groups: Arc<AtomicU64>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Why it has stopped; its sender is gone once the thread has ended.
    failed: watch::Receiver<Option<LedgerError>>,
}

impl Ledger {
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let fail = |detail: String| LedgerError::Open { path: dir.display().to_string(), detail };
        tillstream_journal::prepare(dir).map_err(|error| fail(error.to_string()))?;
        let store = Store::open(dir).map_err(|error| fail(error.to_string()))?;
        let (jobs, inbox) = channel();
        let groups = Arc::new(AtomicU64::new(0));
        let group = Group {
            store: store.clone(),
            groups: Arc::clone(&groups),
            payments: FxHashMap::default(),
            requests: FxHashMap::default(),
        };
        let (failure, failed) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("sandbox-ledger".into())
            .spawn(move || run(&inbox, group, &failure))
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { store, groups, jobs: Some(jobs), thread: Some(thread), failed })
    }

    pub fn send(&self, job: Job) -> Result<(), LedgerError> {
        let jobs = self.jobs.as_ref().ok_or_else(|| LedgerError::Stopped("closed".into()))?;
        jobs.send(job).map_err(|_| LedgerError::Stopped("its thread has ended".into()))
    }

    /// Groups made durable since it was opened.
    pub fn groups_committed(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// A payment, as last committed.
    pub fn payment(&self, payment_id: &str) -> Result<Option<SandboxPayment>, LedgerError> {
        self.store.payment(payment_id)
    }

    /// The answer kept for a request key, as last committed.
    pub fn answer(&self, request_key: &str) -> Result<Option<PaymentResult>, LedgerError> {
        Ok(self.store.request(request_key)?.map(|row| result_of(request_key, row)))
    }

    /// Resolves once it takes nothing more: a write or fsync failed, or its thread has ended.
    pub fn stopped(&self) -> impl Future<Output = LedgerError> + Send + use<> {
        let mut failed = self.failed.clone();
        async move {
            let told = failed.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            told.unwrap_or_else(|| LedgerError::Stopped("its thread has ended".into()))
        }
    }

    /// Whether it takes requests.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }

    /// Every payment behind an id, in id order.
    pub fn payments(
        &self,
        after: &str,
    ) -> impl Iterator<Item = Result<(Text, SandboxPayment), LedgerError>> + use<> {
        let range = (Bound::Excluded(after.as_bytes().to_vec()), Bound::<Vec<u8>>::Unbounded);
        self.store.payments.range(range).map(|entry| {
            let (key, value) = entry.into_inner().map_err(storage)?;
            let payment_id =
                Text::from_utf8(&key).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
            let payment = decoded(&payment_id, SandboxPayment::decode(&value))?;
            Ok((payment_id, payment))
        })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Store {
    database: Database,
    payments: Keyspace,
    requests: Keyspace,
}

fn decoded<T>(key: &str, row: Option<T>) -> Result<T, LedgerError> {
    row.ok_or_else(|| LedgerError::Corrupt(format!("row {key} has an unknown form")))
}

impl Store {
    fn open(dir: &Path) -> Result<Self, fjall::Error> {
        // Small buffers: the ledger stands beside the pipeline's own store on one machine.
        let database = Database::builder(dir).worker_threads(1).cache_size(8 * 1_024 * 1_024).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(8 * 1_024 * 1_024);
        let payments = database.keyspace("payments", options)?;
        let requests = database.keyspace("requests", options)?;
        let parent = dir.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tillstream_journal::sync_names(dir).map_err(fjall::Error::Io)?;
        File::open(parent).and_then(|it| it.sync_all()).map_err(fjall::Error::Io)?;
        Ok(Self { database, payments, requests })
    }

    fn payment(&self, payment_id: &str) -> Result<Option<SandboxPayment>, LedgerError> {
        let Some(bytes) = self.payments.get(payment_id).map_err(storage)? else { return Ok(None) };
        decoded(payment_id, SandboxPayment::decode(&bytes)).map(Some)
    }

    fn request(&self, request_key: &str) -> Result<Option<RequestRow>, LedgerError> {
        let Some(bytes) = self.requests.get(request_key).map_err(storage)? else { return Ok(None) };
        decoded(request_key, RequestRow::decode(&bytes)).map(Some)
    }
}

/// Rows that this group has changed, over what is committed: fjall's batch cannot read its own writes.
struct Group {
    store: Store,
    groups: Arc<AtomicU64>,
    payments: FxHashMap<Text, SandboxPayment>,
    requests: FxHashMap<Text, RequestRow>,
}

impl Group {
    fn payment(&self, payment_id: &str) -> Result<Option<SandboxPayment>, LedgerError> {
        match self.payments.get(payment_id) {
            Some(row) => Ok(Some(row.clone())),
            None => self.store.payment(payment_id),
        }
    }

    fn request(&self, request_key: &str) -> Result<Option<RequestRow>, LedgerError> {
        match self.requests.get(request_key) {
            Some(row) => Ok(Some(row.clone())),
            None => self.store.request(request_key),
        }
    }

    fn execute(
        &mut self,
        tenant: &str,
        order_id: &str,
        request: &PaymentRequest,
        unlucky: bool,
    ) -> Result<Answer, LedgerError> {
        let fingerprint = fingerprint(tenant, order_id, request);
        if let Some(row) = self.request(&request.request_key)? {
            let mut result = result_of(&request.request_key, row.clone());
            if row.fingerprint != fingerprint {
                result = declined(request, "idempotency_error");
            }
            return Ok(Answer { result, fresh: false });
        }
        let payment = self.payment(&request.payment_id)?;
        let Verdict { outcome, amount_minor, code, payment } =
            decide::decide(tenant, order_id, request, payment, unlucky);
        if let Some(payment) = payment {
            self.payments.insert(request.payment_id.clone(), payment);
        }
        let row = RequestRow {
            fingerprint,
            payment_id: request.payment_id.clone(),
            operation: request.operation,
            outcome,
            amount_minor,
            code,
        };
        self.requests.insert(request.request_key.clone(), row.clone());
        Ok(Answer { result: result_of(&request.request_key, row), fresh: true })
    }

    fn authenticate(&mut self, payment_id: &Text, succeed: bool) -> Result<Acted, LedgerError> {
        let Some(before) = self.payment(payment_id)? else { return Ok(None) };
        let (tenant, order_id) = (before.tenant.clone(), before.order_id.clone());
        let request_key = before.request_key.clone();
        let Some(verdict) = decide::authenticate(before, succeed) else { return Ok(None) };
        if let Some(payment) = verdict.payment {
            self.payments.insert(payment_id.clone(), payment);
        }
        let row = RequestRow {
            fingerprint: 0,
            payment_id: payment_id.clone(),
            operation: PaymentOperation::Authorize,
            outcome: verdict.outcome,
            amount_minor: verdict.amount_minor,
            code: verdict.code,
        };
        Ok(Some((tenant, order_id, result_of(&request_key, row))))
    }

    fn take(&mut self, job: Job) -> Reply {
        match job {
            Job::Execute { tenant, order_id, request, unlucky, to } => {
                let answer = self.execute(&tenant, &order_id, &request, unlucky);
                Reply::Answer(to, answer)
            }
            Job::Authenticate { payment_id, succeed, to } => {
                let acted = self.authenticate(&payment_id, succeed);
                Reply::Acted(to, acted)
            }
        }
    }

    /// Makes the group durable.
    fn commit(&mut self) -> Result<(), LedgerError> {
        // Only repeats: what they tell is durable.
        if self.payments.is_empty() && self.requests.is_empty() {
            return Ok(());
        }
        self.groups.fetch_add(1, Ordering::Relaxed);
        let mut batch = self.store.database.batch().durability(Some(PersistMode::SyncData));
        for (payment_id, row) in self.payments.drain() {
            batch.insert(&self.store.payments, payment_id.as_bytes(), row.encode());
        }
        for (request_key, row) in self.requests.drain() {
            batch.insert(&self.store.requests, request_key.as_bytes(), row.encode());
        }
        batch.commit().map_err(|error| LedgerError::Stopped(error.to_string()))
    }
}

fn run(inbox: &Receiver<Job>, mut group: Group, failure: &watch::Sender<Option<LedgerError>>) {
    let mut replies = Vec::new();
    while let Ok(first) = inbox.recv() {
        replies.push(group.take(first));
        while replies.len() < GROUP_MAX {
            let Ok(job) = inbox.try_recv() else { break };
            replies.push(group.take(job));
        }
        let failed = group.commit().err();
        // A failed fsync is never retried: what the disk holds is unknown until the ledger is opened again.
        if let Some(error) = &failed {
            tracing::error!(%error, "the sandbox ledger takes nothing more");
            failure.send_replace(failed.clone());
        }
        for reply in replies.drain(..) {
            reply.send(failed.as_ref());
        }
        if failed.is_some() {
            return;
        }
    }
}

/// Over everything a request asks for; not the attempt, and not when it was asked.
fn fingerprint(tenant: &str, order_id: &str, request: &PaymentRequest) -> u128 {
    let mut hash = Xxh3::new();
    let refund_id = request.refund_id.as_deref().unwrap_or_default();
    for part in [tenant, order_id, &request.payment_id, &request.currency, &request.method, refund_id] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(&request.amount_minor.to_le_bytes());
    hash.update(&[request.operation as u8, request.capture as u8]);
    hash.digest128()
}

fn declined(request: &PaymentRequest, code: &'static str) -> PaymentResult {
    PaymentResult {
        payment_id: request.payment_id.clone(),
        request_key: request.request_key.clone(),
        operation: request.operation,
        outcome: PaymentOutcome::Declined,
        amount_minor: request.amount_minor,
        provider_ref: None,
        code: Some(Text::const_new(code)),
        message: Some(Text::const_new(decide::message(code))),
    }
}

/// The provider's own ids derive from ours, so they need not be stored.
fn result_of(request_key: &str, row: RequestRow) -> PaymentResult {
    let provider_ref = match row.operation {
        PaymentOperation::Refund => derived_id("sbr_", &[request_key]),
        PaymentOperation::Authorize | PaymentOperation::Capture | PaymentOperation::Cancel => {
            derived_id("sbp_", &[&row.payment_id])
        }
    };
    let message = match (&row.code, row.outcome) {
        (Some(code), _) => Some(Text::const_new(decide::message(code))),
        (None, PaymentOutcome::RequiresAction) => {
            Some(Text::from(format!("/v1/sandbox/payments/{}/authenticate", row.payment_id)))
        }
        (None, _) => None,
    };
    PaymentResult {
        payment_id: row.payment_id,
        request_key: Text::new(request_key),
        operation: row.operation,
        outcome: row.outcome,
        amount_minor: row.amount_minor,
        provider_ref: Some(provider_ref),
        code: row.code,
        message,
    }
}
