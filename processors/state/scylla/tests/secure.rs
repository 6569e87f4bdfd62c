//! Login and TLS, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{connect, settings, until};
use tillstream_conformance::{ORDER_0, row_key};
use tillstream_log::LogError;
use tillstream_scylla::{ScyllaSettings, Secret, TlsSettings};
use tillstream_servers::{Cassandra, CassandraOptions, Certificates, ClientTls};
use tillstream_stage::Table;
use tillstream_state::row_store::{RowStore, RowWrite, StateKey};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_known_client_with_the_password_gets_in_and_only_to_the_right_server() {
    let options = CassandraOptions {
        heap_mib: 768,
        password: true,
        tls: ClientTls::Mutual,
        ..CassandraOptions::default()
    };
    let cassandra = Cassandra::start(options).unwrap();
    let certificates = cassandra.certificates().unwrap();
    let (user, password) = cassandra.login().unwrap();
    let tls = TlsSettings {
        enabled: true,
        ca: Some(certificates.authority.clone()),
        cert: Some(certificates.client_certificate.clone()),
        key: Some(certificates.client_key.clone()),
    };
    let right = ScyllaSettings {
        user: Some(user.into()),
        password: Secret(password.into()),
        tls: tls.clone(),
        ..settings(cassandra.address(), "secure")
    };
    let store = until("connected", async || connect(&right).await.ok()).await;
    let value = Some(Bytes::from_static(b"1"));
    let write = RowWrite { key: StateKey::Row(row_key(Table::Order, "demo/a")), value, timestamp: 1 };
    store.write(ORDER_0, &[write]).await.unwrap();
    assert!(store.get_many(&[row_key(Table::Order, "demo/a")]).await.unwrap()[0].is_some());

    let folder = cassandra.folder().join("others");
    let others = Certificates::create(&folder).unwrap();
    let refused = [
        ("a wrong password", "TS0352", ScyllaSettings { password: Secret("guess".into()), ..right.clone() }),
        ("no login", "TS0352", ScyllaSettings { user: None, ..right.clone() }),
        ("no TLS", "TS0350", ScyllaSettings { tls: TlsSettings::default(), ..right.clone() }),
        (
            "no certificate of its own",
            "TS0350",
            with(&right, TlsSettings { cert: None, key: None, ..tls.clone() }),
        ),
        (
            "a certificate of another authority",
            "TS0350",
            with(
                &right,
                TlsSettings {
                    cert: Some(others.client_certificate.clone()),
                    key: Some(others.client_key.clone()),
                    ..tls.clone()
                },
            ),
        ),
        (
            "a server it does not know",
            "TS0350",
            with(&right, TlsSettings { ca: Some(others.authority), ..tls.clone() }),
        ),
        (
            "a key that is not the certificate's",
            "TS0355",
            with(&right, TlsSettings { key: Some(others.client_key), ..tls.clone() }),
        ),
        (
            "a file that is not there",
            "TS0355",
            with(&right, TlsSettings { ca: Some("/nowhere.pem".into()), ..tls }),
        ),
    ];
    for (what, code, settings) in refused {
        let error = connect(&settings).await.expect_err(what);
        let (LogError::Unavailable(text) | LogError::Stopped(text)) = &error else {
            panic!("{what}: {error}")
        };
        println!("{what}: {text}");
        assert!(text.starts_with(code), "{what}: {error}");
        assert!(!text.contains("guess"), "{what}: {error}");
    }
}

fn with(settings: &ScyllaSettings, tls: TlsSettings) -> ScyllaSettings {
    ScyllaSettings { tls, ..settings.clone() }
}
