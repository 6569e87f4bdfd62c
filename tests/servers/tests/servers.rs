//! The servers themselves: they start, keep what they hold over a kill, freeze, and say why they do not start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tillstream_servers::{
    Cassandra, CassandraOptions, ClientTls, Credentials, Kafka, KafkaOptions, Registry, ServerError, Stack,
};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{command:?}: {text}");
    text
}

fn topics(kafka: &Kafka) -> String {
    output(kafka.tool(TOPICS).args(["--bootstrap-server", kafka.address(), "--list"]))
}

fn get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn all_start_at_once_and_keep_data_and_ports_over_a_kill() {
    let Stack { kafka, cassandra, registry } = Stack::start().unwrap();
    let create =
        ["--create", "--topic", "orders", "--partitions", "3", "--bootstrap-server", kafka.address()];
    output(kafka.tool(TOPICS).args(create));
    assert!(get(&format!("{}/subjects", registry.address())).ends_with("[]"));
    let statements = [
        "CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE k.t (a int PRIMARY KEY, b text)",
        "INSERT INTO k.t (a, b) VALUES (1, 'kept over a kill')",
    ];
    for statement in statements {
        cassandra.execute(statement).unwrap();
    }
    let before = (kafka.address().to_owned(), cassandra.address().to_owned(), kafka.pid().unwrap());
    assert!(kafka.rss_bytes().unwrap() > 50 << 20);
    assert!(cassandra.cpu_seconds().unwrap() > 0.5);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            kafka.kill().unwrap();
            assert!(matches!(kafka.pid(), Err(ServerError::Down { .. })));
            kafka.start_again().unwrap();
        });
        scope.spawn(|| {
            cassandra.stop().unwrap();
            cassandra.start_again().unwrap();
        });
    });
    assert_eq!((before.0.as_str(), before.1.as_str()), (kafka.address(), cassandra.address()));
    assert_ne!(before.2, kafka.pid().unwrap());
    assert!(topics(&kafka).contains("orders"));
    let row = cassandra.execute("SELECT b FROM k.t WHERE a = 1").unwrap();
    assert!(String::from_utf8_lossy(&row).contains("kept over a kill"));
}

#[test]
fn a_write_that_waits_for_the_commit_log_outlives_a_kill() {
    let options = CassandraOptions { heap_mib: 512, commitlog_sync_period_ms: 0, ..Default::default() };
    let cassandra = Cassandra::start(options).unwrap();
    cassandra
        .execute("CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        .unwrap();
    cassandra.execute("CREATE TABLE k.t (a int PRIMARY KEY, b text)").unwrap();
    cassandra.execute("INSERT INTO k.t (a, b) VALUES (1, 'acknowledged')").unwrap();
    cassandra.kill().unwrap();
    assert!(cassandra.execute("SELECT b FROM k.t").is_err(), "it is down");
    cassandra.start_again().unwrap();
    let row = cassandra.execute("SELECT b FROM k.t WHERE a = 1").unwrap();
    assert!(String::from_utf8_lossy(&row).contains("acknowledged"));
}

#[test]
fn a_frozen_server_keeps_its_connections_and_says_nothing() {
    let registry = Registry::start().unwrap();
    let host = registry.address().strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    registry.pause().unwrap();
    let mut stream = TcpStream::connect(&host).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    write!(stream, "GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    assert!(stream.read_to_string(&mut text).is_err() && text.is_empty(), "{text}");
    registry.resume().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[test]
fn a_server_that_cannot_start_says_so_with_the_end_of_its_log() {
    let settings = vec![("log.segment.bytes".to_owned(), "none".to_owned())];
    // The storage tool reads the settings first, and refuses them itself.
    let error = Kafka::start(KafkaOptions { settings, ..Default::default() }).unwrap_err().to_string();
    assert!(error.contains("log.segment.bytes"), "{error}");
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Cassandra::start(CassandraOptions { settings, ..Default::default() }).unwrap_err();
    assert!(matches!(error, ServerError::Failed { server: "cassandra", .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn secure_listeners_of_the_broker_take_only_those_who_show_what_is_asked() {
    let user = Credentials { user: "till".into(), password: "a secret".into() };
    let options = KafkaOptions { heap_mib: 512, scram: Some(user), mtls: true, ..Default::default() };
    let kafka = Kafka::start(options).unwrap();
    let certificates = kafka.certificates().unwrap();
    let client = |name: &str, lines: &[String]| {
        let path = kafka.folder().join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    };
    let trust =
        format!("ssl.truststore.type=PEM\nssl.truststore.location={}", certificates.authority.display());
    let key = std::fs::read_to_string(&certificates.client_key).unwrap();
    let chain = std::fs::read_to_string(&certificates.client_certificate).unwrap();
    let inline = |pem: &str| pem.trim().replace('\n', " \\\n");
    let shown = format!(
        "ssl.keystore.type=PEM\nssl.keystore.key={}\nssl.keystore.certificate.chain={}",
        inline(&key),
        inline(&chain)
    );
    let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
    let scram = |password: &str| {
        format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\n\
             sasl.jaas.config={module} username=\"till\" password=\"{password}\";"
        )
    };
    let mtls = "security.protocol=SSL".to_owned();
    let impatient = "request.timeout.ms=5000\ndefault.api.timeout.ms=5000".to_owned();
    let cases = [
        ("right password", kafka.scram_address(), vec![scram("a secret"), trust.clone()], true),
        ("wrong password", kafka.scram_address(), vec![scram("a guess"), trust.clone()], false),
        ("certificate", kafka.mtls_address(), vec![mtls.clone(), trust.clone(), shown], true),
        ("no certificate", kafka.mtls_address(), vec![mtls, trust], false),
    ];
    std::thread::scope(|scope| {
        for (at, (case, address, mut lines, welcome)) in cases.into_iter().enumerate() {
            lines.push(impatient.clone());
            let file = client(&format!("client-{at}.properties"), &lines);
            let mut command = kafka.tool(TOPICS);
            command.args(["--bootstrap-server", address.unwrap(), "--list", "--command-config"]).arg(file);
            scope.spawn(move || {
                let done = command.output().unwrap();
                let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
                assert_eq!(done.status.success(), welcome, "{case}: {text}");
            });
        }
    });
}

#[test]
fn a_secure_node_takes_only_those_who_show_a_certificate_and_log_in() {
    let options = CassandraOptions {
        heap_mib: 512,
        password: true,
        tls: ClientTls::Mutual,
        ..CassandraOptions::default()
    };
    // Ready means that the superuser was let in, by TLS with the client's certificate.
    let cassandra = Cassandra::start(options).unwrap();
    assert_eq!(cassandra.login(), Some(("cassandra", "cassandra")));
    cassandra.execute("CREATE ROLE till WITH PASSWORD = 'a secret' AND LOGIN = true").unwrap();
    let probe = |arguments: &[&str]| {
        let mut client = Command::new("timeout")
            .args([
                "10",
                "openssl",
                "s_client",
                "-quiet",
                "-verify_quiet",
                "-tls1_2",
                "-connect",
                cassandra.address(),
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // OPTIONS; a refused handshake ends the program before it reads this.
        let _ = client.stdin.take().unwrap().write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]);
        let mut head = [0; 5];
        let answered = client.stdout.take().unwrap().read_exact(&mut head).is_ok() && head[4] == 6;
        let _ = client.kill();
        let _ = client.wait();
        answered
    };
    let certificates = cassandra.certificates().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (text(&certificates.client_certificate), text(&certificates.client_key));
    assert!(probe(&["-cert", &certificate, "-key", &key, "-ign_eof"]));
    assert!(!probe(&["-ign_eof"]), "no certificate");
    let other = tillstream_servers::Certificates::create(&cassandra.folder().join("other")).unwrap();
    let (certificate, key) = (text(&other.client_certificate), text(&other.client_key));
    assert!(!probe(&["-cert", &certificate, "-key", &key, "-ign_eof"]), "another authority's");
    let mut plain = TcpStream::connect(cassandra.address()).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    plain.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]).unwrap();
    let mut head = [0; 9];
    assert!(plain.read_exact(&mut head).is_err() || head[0] != 0x84, "no TLS: {head:02x?}");
}

/// The binary with a registry, and what it said about it.
fn binary() -> (Child, Value) {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_tillstream-servers"))
        .arg("--registry")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(binary.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let about: Value = serde_json::from_str(&line).unwrap();
    assert!(about["kafka"].is_null() && about["cassandra"].is_null(), "{about}");
    let url = about["registry"]["address"].as_str().unwrap();
    assert!(get(&format!("{url}/subjects")).starts_with("HTTP/1.1 200"));
    (binary, about)
}

#[test]
fn the_binary_ends_with_its_input_and_its_servers_end_with_it() {
    let (mut binary, about) = binary();
    drop(binary.stdin.take());
    assert!(binary.wait().unwrap().success());
    assert!(
        !Path::new(&format!("/proc/{}", about["registry"]["pid"])).exists(),
        "the server ended before it"
    );
    assert!(!Path::new(about["registry"]["log"].as_str().unwrap()).exists(), "its folder is gone");
}

#[test]
fn servers_do_not_outlive_a_killed_binary() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return eprintln!("not tested: setpriv (util-linux) is not here");
    }
    let (mut binary, about) = binary();
    binary.kill().unwrap();
    binary.wait().unwrap();
    // Orphaned, it may stay as a zombie where nobody reaps; a zombie has no command line.
    let command_line = format!("/proc/{}/cmdline", about["registry"]["pid"]);
    let gone = || std::fs::read(&command_line).map_or(true, |it| it.is_empty());
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        gone()
    }));
    std::fs::remove_dir_all(Path::new(about["registry"]["log"].as_str().unwrap()).parent().unwrap()).unwrap();
}
