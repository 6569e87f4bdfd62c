//! The served sandbox: the providers' suite over the wire, and what a failed call lets its caller believe.

use super::super::{LedgerError, SandboxLedger, SandboxStatus};
use super::super::{METHOD_ACTION, METHOD_DECLINED, METHOD_TIMEOUT, SandboxProvider, SandboxSettings};
use super::{RemoteSandbox, RemoteSettings, serve_sandbox};
use crate::conformance::{self, Subject};
use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use crate::testing::request;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A sandbox served on a port of its own.
struct Served {
    provider: Arc<SandboxProvider>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start(settings: SandboxSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, settings)
    }

    fn on(listener: TcpListener, settings: SandboxSettings) -> Self {
        let provider = Arc::new(SandboxProvider::open(settings).unwrap());
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve_sandbox(listener, provider.clone(), async move {
            let _ = stopped.await;
        }));
        Self { provider, address, stop, server }
    }

    /// Ends it; the ledger is closed once this returns.
    async fn end(self) {
        let _ = self.stop.send(());
        self.server.await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&self.provider), 1, "nobody holds the ledger");
    }
}

fn settings(address: SocketAddr) -> RemoteSettings {
    RemoteSettings::new(format!("http://{address}"))
}

fn client(address: SocketAddr) -> RemoteSandbox {
    RemoteSandbox::new(settings(address)).unwrap()
}

fn payment(name: &str, method: &str) -> PaymentRequest {
    PaymentRequest {
        payment_id: format!("pay_{name}").into(),
        method: method.into(),
        ..request(&format!("req_{name}"), PaymentOperation::Authorize, 250)
    }
}

async fn ask(provider: &dyn PaymentProvider, request: &PaymentRequest) -> ProviderReply {
    provider.execute("demo", "ord_1", request).await
}

async fn outcome(provider: &dyn PaymentProvider, request: &PaymentRequest) -> (PaymentOutcome, Option<Text>) {
    let result = ask(provider, request).await.into_result(request);
    (result.outcome, result.code)
}

#[tokio::test]
async fn passes_the_providers_suite_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for run in ["first", "second"] {
        let served = Served::start(SandboxSettings::new(dir.path())).await;
        let client = client(served.address);
        let subject = Subject {
            provider: &client,
            good: "pm_card_visa",
            declined: METHOD_DECLINED,
            action: METHOD_ACTION,
        };
        conformance::check(&subject, run).await;
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn its_faults_cross_the_wire_as_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let served =
        Served::start(SandboxSettings { unavailable_rate: 1.0, ..SandboxSettings::new(dir.path()) }).await;
    let answered = outcome(&client(served.address), &payment("a", "pm_card_visa")).await;
    assert_eq!(answered, (PaymentOutcome::Unavailable, Some("sandbox_unavailable".into())));
    served.end().await;

    let served = Served::start(SandboxSettings::new(dir.path())).await;
    let client = client(served.address);
    let lost = payment("lost", METHOD_TIMEOUT);
    assert_eq!(outcome(&client, &lost).await, (PaymentOutcome::Unknown, Some("reply_lost".into())));
    assert!(
        matches!(client.lookup("req_lost").await, Lookup::Found(it) if it.outcome == PaymentOutcome::Captured)
    );
    let again = PaymentRequest { attempt: 2, ..lost };
    assert_eq!(outcome(&client, &again).await, (PaymentOutcome::Captured, None));
    assert_eq!(served.provider.payment("pay_lost").unwrap().unwrap().charges.len(), 1);
}

#[tokio::test]
async fn its_back_door_shows_and_authenticates_payments() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(SandboxSettings::new(dir.path())).await;
    let client = client(served.address);
    let manual = PaymentRequest { capture: CaptureMode::Manual, ..payment("manual", METHOD_ACTION) };
    for asked in [&payment("auto", METHOD_ACTION), &manual, &payment("a/b %", "pm_card_visa")] {
        ask(&client, asked).await;
    }
    let ledger: &dyn SandboxLedger = &client;
    let cases = [
        ("pay_auto", Some(PaymentOutcome::Captured)),
        ("pay_auto", Some(PaymentOutcome::Captured)),
        ("pay_manual", Some(PaymentOutcome::Authorized)),
        ("pay_a/b %", None),
        ("pay_nobody", None),
    ];
    for (payment_id, expected) in cases {
        let acted = ledger.authenticate(payment_id, true).await.unwrap();
        assert_eq!(acted, served.provider.authenticate(payment_id, true).await.unwrap(), "{payment_id}");
        assert_eq!(acted.map(|it| it.2.outcome), expected, "{payment_id}");
    }
    for payment_id in ["pay_auto", "pay_manual", "pay_a/b %", "pay_nobody"] {
        let seen = ledger.payment(payment_id).await.unwrap();
        assert_eq!(seen, served.provider.payment(payment_id).unwrap(), "{payment_id}");
    }
    let auto = ledger.payment("pay_auto").await.unwrap().unwrap();
    assert_eq!((auto.status, auto.charges.len()), (SandboxStatus::Captured, 1));
    assert_eq!(auto.charges[0].request_key, "req_auto");
}

#[tokio::test]
async fn the_list_is_paged_and_names_every_charge_and_refund() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(SandboxSettings::new(dir.path())).await;
    let client = client(served.address);
    for n in 0..25 {
        ask(&client, &payment(&format!("{n:02}"), "pm_card_visa")).await;
    }
    for (key, amount_minor) in [("r1", 100), ("r2", 50)] {
        let refund = PaymentRequest {
            payment_id: "pay_07".into(),
            ..request(key, PaymentOperation::Refund, amount_minor)
        };
        assert_eq!(outcome(&client, &refund).await.0, PaymentOutcome::Refunded);
    }
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let page = http_get(served.address, &format!("/v1/payments?after={after}&limit=10")).await;
        let lines: Vec<serde_json::Value> =
            page.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.len() < 10;
        all.extend(lines);
        if last {
            break;
        }
        after = all.last().unwrap()["id"].as_str().unwrap().to_owned();
    }
    let ids: Vec<&str> = all.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..25).map(|n| format!("pay_{n:02}")).collect::<Vec<_>>());
    for it in &all {
        let key = it["id"].as_str().unwrap().replace("pay_", "req_");
        assert_eq!(it["charges"], serde_json::json!([{"request_key": key, "amount_minor": 250}]), "{it}");
        assert_eq!(it["status"], "captured");
    }
    let moved = |key: &str, amount: i64| serde_json::json!({"request_key": key, "amount_minor": amount});
    assert_eq!(all[7]["refunds"], serde_json::json!([moved("r1", 100), moved("r2", 50)]));
    assert_eq!(all[8]["refunds"], serde_json::json!([]));
}

/// The body of a GET.
async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn without_a_connection_nothing_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(address);
    let answered = outcome(&client, &payment("a", "pm_card_visa")).await;
    assert_eq!(answered, (PaymentOutcome::Unavailable, Some("sandbox_unreachable".into())));
    assert_eq!(client.lookup("req_a").await, Lookup::Unavailable);
    let failed = SandboxLedger::payment(&client, "pay_a").await;
    assert!(matches!(failed, Err(LedgerError::Remote { .. })), "{failed:?}");
}

/// Takes every connection, reads a request, and does `then`: writes these bytes and closes; or holds still.
async fn stranger(then: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            match then {
                Some(bytes) => {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                }
                None => held.push(stream),
            }
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_is_missing_or_a_strangers_leaves_it_open() {
    let cases = [
        (Some(""), "sandbox_no_answer"),
        (Some("HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"payment_id\""), "sandbox_no_answer"),
        (None, "sandbox_no_answer"),
        (Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), "sandbox_unreadable"),
        (Some("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"), "sandbox_unreadable"),
        (Some("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "sandbox_unreadable"),
    ];
    for (then, code) in cases {
        let settings =
            RemoteSettings { answer_timeout: Duration::from_millis(200), ..settings(stranger(then).await) };
        let client = RemoteSandbox::new(settings).unwrap();
        let answered = outcome(&client, &payment("a", "pm_card_visa")).await;
        assert_eq!(answered, (PaymentOutcome::Unknown, Some(code.into())), "{then:?}");
        assert_eq!(client.lookup("req_a").await, Lookup::Unavailable, "{then:?}: never taken for absent");
    }
}

#[tokio::test]
async fn a_call_that_finds_no_free_connection_was_not_sent() {
    let settings = RemoteSettings {
        connections_max: 1,
        wait_timeout: Duration::from_millis(50),
        ..settings(stranger(None).await)
    };
    let client = RemoteSandbox::new(settings).unwrap();
    let (first, second) = (payment("a", "pm_card_visa"), payment("b", "pm_card_visa"));
    let second = tokio::select! {
        biased;
        answered = ask(&client, &first) => panic!("the stranger never answers: {answered:?}"),
        second = outcome(&client, &second) => second,
    };
    assert_eq!(second, (PaymentOutcome::Unavailable, Some("sandbox_unreachable".into())));
}

#[tokio::test]
async fn connections_are_kept_and_a_restarted_sandbox_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Served::on(listener, SandboxSettings::new(dir.path()));
    let client = client(address);
    let asked: Vec<PaymentRequest> = (0..40).map(|n| payment(&n.to_string(), "pm_card_visa")).collect();
    let before = futures::future::join_all(asked.iter().map(|it| ask(&client, it))).await;
    served.end().await;

    // Its connections are gone, and the client sees so before it writes to them.
    let unreachable = outcome(&client, &asked[0]).await;
    assert_eq!(unreachable, (PaymentOutcome::Unavailable, Some("sandbox_unreachable".into())));

    let served = Served::on(TcpListener::bind(address).await.unwrap(), SandboxSettings::new(dir.path()));
    let again = futures::future::join_all(asked.iter().map(|it| ask(&client, it))).await;
    assert_eq!(before, again);
    assert!(again.iter().all(|it| matches!(it, ProviderReply::Answered(_))));
    let totals = served.provider.totals().unwrap();
    assert_eq!((totals["GBP"].captured_payments, totals["GBP"].captured_minor), (40, 40 * 250));
}

#[tokio::test]
async fn one_connection_serves_calls_one_after_another() {
    let (listener, backend) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tempfile::tempdir().unwrap());
    let served = Served::start(SandboxSettings::new(backend.path())).await;
    let (address, behind) = (listener.local_addr().unwrap(), served.address);
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let _ = count.send(());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let client = client(address);
    for n in 0..20 {
        ask(&client, &payment(&n.to_string(), "pm_card_visa")).await;
    }
    counted.recv().await.unwrap();
    assert!(counted.try_recv().is_err(), "a second connection was opened");
    assert_eq!(served.provider.payments().count(), 20);
}

#[test]
fn a_url_that_cannot_be_used_is_refused_by_name() {
    for url in
        ["", "sandbox:8090", "https://sandbox:8090", "http://", "http://sandbox/?a=1", "http://sand box"]
    {
        let refused = RemoteSandbox::new(RemoteSettings::new(url)).err();
        assert!(
            matches!(&refused, Some(LedgerError::Url { url: it, .. }) if it == url),
            "{url}: {refused:?}"
        );
    }
    for url in ["http://127.0.0.1:8090", "http://sandbox", "http://[::1]:8090/behind/", "http://sandbox:80/"]
    {
        assert!(RemoteSandbox::new(RemoteSettings::new(url)).is_ok(), "{url}");
    }
}

/// What the ledger's owner relies on: the directory is free once the server has ended.
#[tokio::test]
async fn a_served_ledger_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(SandboxSettings::new(dir.path())).await;
    let open = |dir: &Path| SandboxProvider::open(SandboxSettings::new(dir)).err();
    assert!(matches!(open(dir.path()), Some(LedgerError::Open { .. })));
    served.end().await;
    assert_eq!(open(dir.path()), None);
}
