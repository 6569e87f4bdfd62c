//! SIGKILL of a served sandbox in the middle of a load: asked again with the same keys, every payment is charged once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use futures::StreamExt;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tillstream_effects::{
    PaymentProvider, ProviderReply, RemoteSandbox, RemoteSettings, SandboxProvider, SandboxSettings,
    serve_sandbox,
};
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome, PaymentResult};

/// Set for the child: where its ledger is.
const CHILD_DIR: &str = "TILLSTREAM_SANDBOX_KILL_DIR";
const PAYMENTS: usize = 3_000;
const IN_FLIGHT: usize = 128;
/// The sandbox is killed once it has answered so many, life by life.
const CUTS: [usize; 3] = [200, 900, 1_700];

/// A sandbox in a process of its own.
struct Sandbox {
    child: Child,
    client: RemoteSandbox,
}

impl Sandbox {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["every_payment_is_charged_once_through_sigkill", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|it| it.split("listens on ").nth(1).map(str::to_owned)).unwrap();
        Self { child, client: RemoteSandbox::new(RemoteSettings::new(url)).unwrap() }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does until it is killed.
async fn serve(dir: &Path) {
    let provider = Arc::new(SandboxProvider::open(SandboxSettings::new(dir)).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "listens on http://{}", listener.local_addr().unwrap()).unwrap();
    drop(out);
    serve_sandbox(listener, provider, std::future::pending()).await.unwrap();
}

fn payment(n: usize) -> PaymentRequest {
    PaymentRequest {
        payment_id: format!("pay_{n:05}").into(),
        request_key: format!("req_{n:05}").into(),
        attempt: 1,
        operation: PaymentOperation::Authorize,
        amount_minor: 100 + n as i64,
        currency: "GBP".into(),
        method: "pm_card_visa".into(),
        capture: CaptureMode::Automatic,
        refund_id: None,
        first_asked_at_ms: 0,
    }
}

/// Asks for every payment; with `cut`, kills the sandbox once it has answered so many. Returns what was answered.
async fn load(sandbox: &Sandbox, cut: Option<usize>) -> BTreeMap<usize, PaymentResult> {
    let answered = AtomicUsize::new(0);
    let calls = futures::stream::iter(0..PAYMENTS).map(|n| {
        let answered = &answered;
        async move {
            let request = payment(n);
            let reply = sandbox.client.execute("demo", &format!("ord_{n:05}"), &request).await;
            let ProviderReply::Answered(result) = reply else { return None };
            if Some(answered.fetch_add(1, Ordering::Relaxed) + 1) == cut {
                let pid = sandbox.child.id().to_string();
                assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            }
            Some((n, result))
        }
    });
    calls.buffer_unordered(IN_FLIGHT).filter_map(std::future::ready).collect().await
}

/// The whole list, as a harness would read it.
fn charges(dir: &Path) -> BTreeMap<String, Vec<(String, i64)>> {
    let provider = SandboxProvider::open(SandboxSettings::new(dir)).unwrap();
    let payments = provider.payments().map(|it| it.unwrap());
    payments
        .map(|(id, it)| {
            let charges = it.charges.iter().map(|it| (it.request_key.to_string(), it.amount_minor));
            (id.to_string(), charges.collect())
        })
        .collect()
}

#[test]
fn every_payment_is_charged_once_through_sigkill() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(CHILD_DIR) {
        Some(dir) => runtime.block_on(serve(Path::new(&dir))),
        None => runtime.block_on(kill_and_ask_again()),
    }
}

async fn kill_and_ask_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut told: BTreeMap<usize, PaymentResult> = BTreeMap::new();
    for cut in CUTS.map(Some).into_iter().chain([None]) {
        let sandbox = Sandbox::start(dir.path());
        let answered = load(&sandbox, cut).await;
        match cut {
            Some(cut) => assert!(
                (cut..PAYMENTS).contains(&answered.len()),
                "{} of the life cut at {cut}",
                answered.len()
            ),
            None => assert_eq!(answered.len(), PAYMENTS),
        }
        for (n, result) in answered {
            assert_eq!(result.outcome, PaymentOutcome::Captured, "{n}");
            let before = told.entry(n).or_insert_with(|| result.clone());
            assert_eq!(*before, result, "{n}: what was once told stands");
        }
    }
    let expected =
        (0..PAYMENTS).map(|n| (format!("pay_{n:05}"), vec![(format!("req_{n:05}"), 100 + n as i64)]));
    assert_eq!(charges(dir.path()), expected.collect());
}
