//! Topics and their settings, and who is let in.

use crate::support::{PARTITIONS, PASSWORD, USER, server, settings, soon};
use std::sync::Arc;
use tillstream_kafka::{
    KafkaAdmin, KafkaBroker, KafkaClientError, KafkaSecurity, KafkaSettings, Password, Sasl, SaslMechanism,
    TopicsSpec,
};
use tillstream_log::broker::{Broker, BrokerError};
use tillstream_schemas::Topic;

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_as_they_were_made_and_differences_are_named() {
    let server = server();
    let admin = KafkaAdmin::new(&settings(&server)).unwrap();
    let spec = TopicsSpec::new(PARTITIONS, 1);
    assert_eq!(soon("create", admin.create_topics(&spec)).await.unwrap(), [], "they are there already");
    assert_eq!(soon("check", admin.check_topics(&spec)).await.unwrap(), []);

    let mut other = TopicsSpec::new(PARTITIONS + 1, 1);
    other.topics = vec![Topic::OrderEvents];
    other.history_retention_ms = -1;
    let told: Vec<String> =
        soon("check", admin.check_topics(&other)).await.unwrap().iter().map(|it| it.to_string()).collect();
    assert_eq!(
        told,
        [
            "orders.order.events.v1: partitions is 4, not 5",
            "orders.order.events.v1: retention.ms is 2592000000, not -1"
        ]
    );
    let found = soon("describe", admin.describe_topics(&Topic::CHANGELOGS)).await.unwrap();
    assert_eq!(found.len(), Topic::CHANGELOGS.len());
    assert!(found.iter().all(|it| it.settings["cleanup.policy"] == "compact" && it.replication == 1));

    let mut copies = TopicsSpec::new(1, 3);
    copies.topics = vec![Topic::OrderEvents];
    assert_eq!(
        soon("create", admin.create_topics(&copies)).await.unwrap(),
        [],
        "what is there is not altered"
    );
}

/// Settings that go by TLS with these credentials.
fn secured(address: &str, security: KafkaSecurity) -> KafkaSettings {
    let mut settings = KafkaSettings::new(address, "test");
    settings.request_timeout_ms = 5_000;
    settings.security = security;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_and_client_certificates_are_let_in_over_tls_and_others_are_not() {
    let server = server();
    let certificates = server.certificates().unwrap();
    let (ca_file, scram, mtls) = (
        Some(certificates.authority.clone()),
        server.scram_address().unwrap(),
        server.mtls_address().unwrap(),
    );
    let login = |password: &str| KafkaSecurity {
        ca_file: ca_file.clone(),
        sasl: Some(Sasl {
            mechanism: SaslMechanism::ScramSha256,
            user: USER.into(),
            password: Password::new(password),
        }),
        ..KafkaSecurity::default()
    };
    let certificate = KafkaSecurity {
        ca_file: ca_file.clone(),
        certificate_file: Some(certificates.client_certificate.clone()),
        key_file: Some(certificates.client_key.clone()),
        ..KafkaSecurity::default()
    };
    let without = KafkaSecurity { ca_file: ca_file.clone(), ..KafkaSecurity::default() };
    let strange = KafkaSecurity { tls: true, ..login(PASSWORD) };
    let strange = KafkaSecurity { ca_file: None, ..strange };
    let cases = [
        ("scram", scram, login(PASSWORD), true),
        ("a wrong password", scram, login("guessed"), false),
        ("an authority that is not trusted", scram, strange, false),
        ("a certificate", mtls, certificate, true),
        ("no certificate", mtls, without, false),
    ];
    for (name, address, security, let_in) in cases {
        let broker = KafkaBroker::new(secured(address, security), Arc::default()).unwrap();
        let asked = soon(name, broker.partitions(Topic::OrderCommands)).await;
        match asked {
            Ok(partitions) => assert!(let_in && partitions == Some(PARTITIONS), "{name}"),
            Err(BrokerError::Refused(reason)) => {
                assert!(!let_in && !reason.contains("guessed"), "{name}: {reason}")
            }
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_the_client_does_not_take_and_brokers_that_are_not_there_are_told_apart() {
    let missing = KafkaSecurity { ca_file: Some("no-such-file.pem".into()), ..KafkaSecurity::default() };
    let refused = KafkaBroker::new(secured("localhost:1", missing), Arc::default()).err().unwrap();
    assert!(matches!(refused, KafkaClientError::Settings(_)), "{refused:?}");
    let mut settings = KafkaSettings::new("127.0.0.1:1", "test");
    settings.request_timeout_ms = 500;
    let broker = KafkaBroker::new(settings, Arc::default()).unwrap();
    let error = soon("cluster", broker.cluster_id()).await.unwrap_err();
    assert!(matches!(error, KafkaClientError::Unreachable(_)), "{error:?}");
}
