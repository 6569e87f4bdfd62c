//! The services of `docker-compose.yml`, with exactly its commands and environment, on the real servers that stand for
//! its containers: topics and schemas are made, every service starts at the same moment on an empty keyspace, and an
//! order goes through.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;
use serde_yaml_ng::Value as Yaml;
use std::collections::BTreeMap;
use std::path::Path;
use tillstream_e2e::{Server, bare_command, free_port, root};
use tillstream_e2e_cluster::command::run;
use tillstream_e2e_cluster::spawn::spawn;
use tillstream_e2e_cluster::{blocking, wait_for};
use tillstream_servers::Stack;

/// A service's command and environment, as the file has them.
struct Service {
    command: Vec<String>,
    environment: Vec<(String, String)>,
}

fn text(value: &Yaml) -> String {
    match value {
        Yaml::String(text) => text.clone(),
        other => serde_yaml_ng::to_string(other).unwrap().trim().to_owned(),
    }
}

/// `${NAME:-default}` is the default: nothing is set here.
fn interpolated(value: &str) -> String {
    match value.strip_prefix("${").and_then(|it| it.strip_suffix('}')).and_then(|it| it.split_once(":-")) {
        Some((_, default)) => default.to_owned(),
        None => value.to_owned(),
    }
}

fn services(places: &[(&str, String)]) -> BTreeMap<String, Service> {
    let file = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let mut file: Yaml = serde_yaml_ng::from_str(&file).unwrap();
    // What is merged in may have merged something in itself.
    for _ in 0..2 {
        file.apply_merge().unwrap();
    }
    let ours =
        file["services"].as_mapping().unwrap().iter().filter(|(_, it)| it["image"] == "tillstream:dev");
    let placed =
        |value: &str| places.iter().fold(interpolated(value), |text, (from, to)| text.replace(from, to));
    ours.map(|(name, it)| {
        let command = it["command"].as_sequence().map(|it| it.iter().map(text).collect());
        let environment = it["environment"].as_mapping().into_iter().flatten();
        let environment = environment.map(|(name, value)| (text(name), placed(&text(value)))).collect();
        let service = Service { command: command.unwrap_or_else(|| vec!["serve".into()]), environment };
        (text(name), service)
    })
    .collect()
}

impl Service {
    fn prepare(&self, dir: &Path) -> std::process::Command {
        let mut command = bare_command();
        command.args(&self.command).env("TILLSTREAM_DATA_DIR", dir);
        for (name, value) in self.environment.iter().filter(|(name, _)| name != "TILLSTREAM_DATA_DIR") {
            command.env(name, value);
        }
        command
    }

    async fn once(&self, dir: &Path) {
        let mut command = self.prepare(dir);
        blocking(move || run(&mut command)).await.ok();
    }

    fn start(&self, dir: &Path, listen: &str, port: u16) -> Server {
        let mut command = self.prepare(dir);
        command.env(listen, format!("127.0.0.1:{port}"));
        spawn(&command, port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_the_compose_file_run_on_the_stand_ins() {
    let stack = blocking(Stack::start).await.unwrap();
    let sandbox_port = free_port();
    let places = [
        ("http://redpanda:8081", stack.registry.address().to_owned()),
        ("redpanda:9092", stack.kafka.address().to_owned()),
        ("scylla:9042", stack.cassandra.address().to_owned()),
        ("sandbox:8080", format!("127.0.0.1:{sandbox_port}")),
    ];
    let services = services(&places);
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["effects", "ingest", "orders", "sandbox", "schemas", "topics"]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Twice: a second `docker compose up` runs them again.
    for name in ["topics", "schemas", "topics", "schemas"] {
        services[name].once(&at(name)).await;
    }
    let sandbox = services["sandbox"].start(&at("sandbox"), "TILLSTREAM_SANDBOX_LISTEN", sandbox_port);
    let mut running = vec![sandbox];
    let mut ingest = None;
    for name in ["ingest", "orders", "effects"] {
        let server = services[name].start(&at(name), "TILLSTREAM_HTTP", free_port());
        if name == "ingest" { ingest = Some(server) } else { running.push(server) }
    }
    let mut ingest = ingest.unwrap();
    ingest.ready().await;
    let key = services["ingest"].environment.iter().find(|(name, _)| name == "TILLSTREAM_DEMO_KEY").unwrap();
    let client = reqwest::Client::new();
    let order = json!({
        "currency": "GBP", "country": "GB",
        "lines": [{ "sku": "LAMP", "quantity": 2, "unit_price": 1_250 }],
        "payment": { "method": "pm_card_visa" },
    });
    let stock = json!({ "delta": 10, "reason": "received", "location": "main" });
    let post = async |path: &str, key_of_call: &str, body: &serde_json::Value| {
        let call = client.post(format!("{}{path}", ingest.url())).bearer_auth(&key.1);
        let answer =
            call.header("Idempotency-Key", key_of_call).header("Prefer", "wait=30").json(body).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    assert_eq!(post("/v1/inventory/LAMP/adjustments", "stock", &stock).await.0, 200);
    let (status, placed) = post("/v1/orders", "order", &order).await;
    assert_eq!((status, placed["status"].as_str()), (200, Some("confirmed")), "{placed}");
    // Its revenue reaches the analytics task of another process.
    let path = format!(
        "{}/v1/analytics/revenue?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&by=day",
        ingest.url()
    );
    let counted = wait_for(std::time::Duration::from_secs(60), async || {
        let answer = client.get(&path).bearer_auth(&key.1).send().await.ok()?;
        let revenue = answer.json::<serde_json::Value>().await.ok()?;
        (revenue["data"][0]["gross"] == 2_500).then_some(())
    });
    counted.await.expect("the order is counted");
    for server in running.into_iter().chain([ingest]) {
        assert!(server.terminate().await.success(), "SIGTERM drains and exits 0");
    }
}
