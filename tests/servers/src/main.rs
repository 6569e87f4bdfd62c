//! Starts servers for developers and bench scripts, prints one JSON line about them, and ends them when it is ended.

use clap::Parser;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use tillstream_servers::{
    Cassandra, CassandraOptions, Certificates, ClientTls, Credentials, Kafka, KafkaOptions, ServerError,
    start_some,
};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Starts real servers on loopback, prints one JSON line (addresses, pids, logs), and runs until SIGTERM, Ctrl-C or the
/// end of its standard input (unless that is a terminal or /dev/null). Without flags: all of them.
#[derive(Parser)]
#[command(name = "tillstream-servers")]
struct Arguments {
    /// A Kafka broker.
    #[arg(long)]
    kafka: bool,
    /// A Cassandra node.
    #[arg(long)]
    cassandra: bool,
    /// A schema registry.
    #[arg(long)]
    registry: bool,
    /// Heap of the broker, MiB.
    #[arg(long, default_value_t = KafkaOptions::default().heap_mib)]
    kafka_heap: u32,
    /// Heap of the node, MiB.
    #[arg(long, default_value_t = CassandraOptions::default().heap_mib)]
    cassandra_heap: u32,
    /// How often the node makes its commit log durable, ms; 0: before every answer.
    #[arg(long, default_value_t = CassandraOptions::default().commitlog_sync_period_ms)]
    commitlog_sync_period: u32,
    /// The broker also listens with TLS, by SCRAM and by client certificate; the node asks for both.
    #[arg(long)]
    secure: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    // Before the start: a signal that comes meanwhile is kept, and the servers then end in order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let all = !(arguments.kafka || arguments.cassandra || arguments.registry);
    let user = arguments.secure.then(|| Credentials { user: "till".into(), password: "till-secret".into() });
    let kafka = KafkaOptions {
        heap_mib: arguments.kafka_heap,
        scram: user.clone(),
        mtls: arguments.secure,
        ..KafkaOptions::default()
    };
    let cassandra = CassandraOptions {
        heap_mib: arguments.cassandra_heap,
        commitlog_sync_period_ms: arguments.commitlog_sync_period,
        password: arguments.secure,
        tls: if arguments.secure { ClientTls::Mutual } else { ClientTls::Off },
        ..CassandraOptions::default()
    };
    let (kafka, cassandra, registry) = start_some(
        (all || arguments.kafka).then_some(kafka),
        (all || arguments.cassandra).then_some(cassandra),
        all || arguments.registry,
    );
    let (kafka, cassandra, registry) = (kafka.transpose()?, cassandra.transpose()?, registry.transpose()?);
    let about = json!({
        "kafka": kafka.as_ref().map(|it| about_kafka(it, &user)).transpose()?,
        "cassandra": cassandra.as_ref().map(about_cassandra).transpose()?,
        "registry": registry.as_ref().map(|it| entry(it.address(), it.pid(), it.log())).transpose()?,
    });
    let mut out = std::io::stdout();
    writeln!(out, "{about}")?;
    out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = input_ends() => {}
    }
    drop((kafka, cassandra, registry));
    // Not by returning: tokio would wait for a read of standard input that goes on.
    std::process::exit(0)
}

fn entry(address: &str, pid: Result<u32, ServerError>, log: &std::path::Path) -> Result<Value, ServerError> {
    Ok(json!({ "address": address, "pid": pid?, "log": log }))
}

fn about_kafka(kafka: &Kafka, user: &Option<Credentials>) -> Result<Value, ServerError> {
    let mut about = entry(kafka.address(), kafka.pid(), kafka.log())?;
    if let Some(Credentials { user, password }) = user {
        about["scram"] = json!({ "address": kafka.scram_address(), "user": user, "password": password });
        about["mtls"] = json!({ "address": kafka.mtls_address() });
        about["certificates"] = kafka.certificates().map_or(Value::Null, about_certificates);
    }
    Ok(about)
}

fn about_cassandra(cassandra: &Cassandra) -> Result<Value, ServerError> {
    let mut about = entry(cassandra.address(), cassandra.pid(), cassandra.log())?;
    if let Some((user, password)) = cassandra.login() {
        about["login"] = json!({ "user": user, "password": password });
        about["certificates"] = cassandra.certificates().map_or(Value::Null, about_certificates);
    }
    Ok(about)
}

fn about_certificates(it: &Certificates) -> Value {
    json!({ "authority": it.authority, "client_certificate": it.client_certificate, "client_key": it.client_key })
}

/// Ends when standard input does; never if that is a terminal, or a device such as /dev/null (a background job's).
async fn input_ends() {
    let stdin = std::io::stdin();
    let device = rustix::fs::fstat(stdin.as_fd()).is_ok_and(|it| {
        rustix::fs::FileType::from_raw_mode(it.st_mode) == rustix::fs::FileType::CharacterDevice
    });
    if device || stdin.is_terminal() {
        return std::future::pending().await;
    }
    let mut bytes = [0; 512];
    let mut input = tokio::io::stdin();
    while input.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}
