//! Against a real registry: Apicurio, started here (`ops/dev/jars.sh` fetches it).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tillstream_registry::{Registry, RegistryError, RegistrySettings, Standing, Step};
use tillstream_schemas::codec::{self, Compatibility, HISTORY, Schema};
use tillstream_schemas::order_command::OrderCommand;
use tillstream_schemas::wire_ids::WireIds;
use tillstream_servers::Certificates;
use tokio::runtime::Runtime;

/// A registry with nothing in it, and a runtime to speak to it.
struct Bench {
    server: tillstream_servers::Registry,
    runtime: Runtime,
}

impl Bench {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { server: tillstream_servers::Registry::start().unwrap(), runtime }
    }

    fn registry(&self) -> Registry {
        Registry::new(RegistrySettings::new(self.server.address())).unwrap()
    }

    fn register(&self) -> Result<Vec<Step>, RegistryError> {
        let mut steps = Vec::new();
        self.runtime.block_on(self.registry().register(|step| steps.push(step.clone())))?;
        Ok(steps)
    }

    fn standings(&self) -> BTreeMap<&'static str, Standing> {
        let found = self.runtime.block_on(self.registry().check()).unwrap();
        found.into_iter().map(|it| (it.subject, it.standing)).collect()
    }

    fn resolve(&self) -> Result<WireIds, RegistryError> {
        self.runtime.block_on(self.registry().resolve())
    }

    /// A call of somebody else's.
    fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.server.address());
        self.runtime.block_on(async {
            let answer = reqwest::Client::new().request(method, url).json(body).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
            answer.json().await.unwrap()
        })
    }

    fn post(&self, subject: &str, schema: &Value) -> u32 {
        let body = json!({ "schema": schema.to_string() });
        let answer = self.call(reqwest::Method::POST, &format!("/subjects/{subject}/versions"), &body);
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    }

    fn set_level(&self, subject: &str, level: &str) {
        self.call(reqwest::Method::PUT, &format!("/config/{subject}"), &json!({ "compatibility": level }));
    }
}

fn subjects() -> impl Iterator<Item = &'static str> {
    Schema::ALL.iter().flat_map(|it| it.subjects().iter().copied())
}

fn schema_of(subject: &str) -> Schema {
    *Schema::ALL.iter().find(|it| it.subjects().contains(&subject)).unwrap()
}

/// Our ids of a schema's versions, the newest last.
fn locals(schema: Schema) -> Vec<u32> {
    let older = HISTORY.iter().filter(|it| it.schema == schema).map(|it| it.id);
    older.chain([schema.current().id]).collect()
}

#[test]
fn what_is_registered_is_the_same_has_an_id_and_is_held_to_its_level() {
    let bench = Bench::start();
    // Somebody else's schemas take the first ids, which are ids of ours too.
    for number in 0..20 {
        let schema = json!({"type": "record", "name": format!("Other{number}"), "fields": []});
        bench.post(&format!("other-{number}-value"), &schema);
    }
    assert!(bench.standings().values().all(|it| *it == Standing::Missing));
    match bench.resolve() {
        Err(error @ RegistryError::Missing { .. }) => {
            let shown = error.to_string();
            assert!(shown.contains(Schema::OrderCommand.subject()), "{shown}");
            assert!(shown.contains("tillstream schemas register"), "{shown}");
        }
        other => panic!("{other:?}"),
    }

    let steps = bench.register().unwrap();
    assert_eq!(steps.iter().map(|it| it.subject).collect::<Vec<_>>(), subjects().collect::<Vec<_>>());
    for step in &steps {
        assert_eq!(step.added.len(), locals(schema_of(step.subject)).len(), "{step:?}");
    }
    assert!(bench.standings().values().all(|it| *it == Standing::Same), "{:?}", bench.standings());
    for schema in Schema::ALL {
        for subject in schema.subjects() {
            let config = bench.call(reqwest::Method::GET, &format!("/config/{subject}"), &Value::Null);
            assert_eq!(config["compatibilityLevel"], schema.compatibility().as_str(), "{subject}");
        }
    }

    let ids = bench.resolve().unwrap();
    for step in &steps {
        let added: Vec<u32> = step.added.iter().map(|it| ids.to_local(*it)).collect();
        assert_eq!(added, locals(schema_of(step.subject)), "{}", step.subject);
    }
    assert!(Schema::ALL.iter().all(|it| ids.to_registry(*it as u32) > 20));

    assert!(bench.register().unwrap().iter().all(|it| it.added.is_empty()), "a second time adds nothing");
    assert_eq!(bench.resolve().unwrap(), ids);

    bench.set_level(Schema::OrderEvent.subject(), "BACKWARD");
    assert_eq!(bench.standings()[Schema::OrderEvent.subject()], Standing::OtherLevel("BACKWARD".into()));
    bench.register().unwrap();
    assert_eq!(bench.standings()[Schema::OrderEvent.subject()], Standing::Same);

    decodes_with_another_library(&bench, &ids);
    a_password_lets_in(&bench, &ids);
    a_start_without_the_registry(bench, &ids);
}

/// A value under the registry's id is read by apache-avro with the schema that the registry has under that id, and both
/// read the same.
fn decodes_with_another_library(bench: &Bench, ids: &WireIds) {
    let settings = SrSettings::new(bench.server.address().to_owned());
    for line in include_str!("../../golden/order-command/v1/refund-order.hex").lines() {
        let bytes = line.trim();
        let value: Vec<u8> = (0..bytes.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap())
            .collect();
        let command: OrderCommand = codec::decode(&value).unwrap();
        let mut wire = codec::encode(&command).unwrap();
        ids.header_to_registry(&mut wire);
        assert_ne!(wire[..5], value[..5]);
        let id = u32::from_be_bytes(wire[1..5].try_into().unwrap());
        let registered = bench.runtime.block_on(get_schema_by_id(id, &settings)).unwrap();
        let schema = apache_avro::Schema::parse_str(&registered.schema).unwrap();
        let datum = apache_avro::from_avro_datum(&schema, &mut &wire[5..], None).unwrap();
        let apache_avro::types::Value::Record(fields) = &datum else { panic!("{datum:?}") };
        let tenant = apache_avro::types::Value::String(command.tenant.to_string());
        assert!(fields.contains(&("tenant".to_owned(), tenant)), "{fields:?}");
        assert_eq!(apache_avro::to_avro_datum(&schema, datum).unwrap(), value[5..]);
    }
}

/// Every connection's first request must carry the password; then bytes go to and fro.
fn gate(registry: &str, wanted: &'static str) -> String {
    let (host, path) = registry.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (host, listener) = (host.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}/{path}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut client, mut head, mut byte) = (stream.unwrap(), Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            if !String::from_utf8(head.clone()).unwrap().contains(wanted) {
                let _ = client.write_all(DENIED.as_bytes());
                continue;
            }
            let mut server = TcpStream::connect(&host).unwrap();
            server.write_all(&head).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    url
}

fn a_password_lets_in(bench: &Bench, ids: &WireIds) {
    // ursula:hunter2
    let url = gate(bench.server.address(), "authorization: Basic dXJzdWxhOmh1bnRlcjI=\r\n");
    let resolve = |password: &str| {
        let mut settings = RegistrySettings::new(&url);
        settings.user = Some("ursula".into());
        settings.password = Some(password.into());
        bench.runtime.block_on(Registry::new(settings).unwrap().resolve())
    };
    assert_eq!(resolve("hunter2").unwrap(), *ids);
    assert!(matches!(resolve("hunter3"), Err(RegistryError::Denied { status: 401, .. })));
}

fn a_start_without_the_registry(bench: Bench, ids: &WireIds) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schema-ids.json");
    let registry = bench.registry();
    let start = || bench.runtime.block_on(registry.resolve_or_cached(&path));
    assert_eq!(start().unwrap(), *ids);
    let kept = std::fs::read(&path).unwrap();
    bench.server.kill().unwrap();
    assert_eq!(start().unwrap(), *ids);
    std::fs::remove_file(&path).unwrap();
    match start() {
        Err(RegistryError::NoCache { down, .. }) => {
            assert!(matches!(*down, RegistryError::Unreachable { .. }))
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(&path, kept).unwrap();
    // It comes back empty: it is not down, and the kept ids are of a registry that is gone.
    bench.server.start_again().unwrap();
    assert!(matches!(start(), Err(RegistryError::Missing { .. })));
}

#[test]
fn a_schema_that_may_not_follow_is_refused_by_name_and_one_that_may_is_added() {
    let bench = Bench::start();
    let ours = |schema: Schema| serde_json::from_str::<Value>(schema.avsc()).unwrap();

    // An event with a field that new readers cannot do without in old data: nobody may take it away again.
    let event = Schema::OrderEvent.subject();
    let mut more = ours(Schema::OrderEvent);
    more["fields"].as_array_mut().unwrap().push(json!({"name": "needed", "type": "string"}));
    bench.post(event, &more);
    bench.set_level(event, Compatibility::FullTransitive.as_str());
    match &bench.standings()[event] {
        Standing::Incompatible(words) => assert!(!words.is_empty()),
        other => panic!("{other:?}"),
    }
    let error = bench.register().unwrap_err();
    assert!(matches!(&error, RegistryError::Incompatible { subject, .. } if subject == event), "{error}");
    assert!(error.to_string().starts_with("TS0114") && error.to_string().contains(event), "{error}");
    assert_eq!(
        bench.standings().values().filter(|it| **it == Standing::Missing).count(),
        subjects().count() - 1
    );
    // Held to no level before, it is refused at the registration itself.
    bench.set_level(event, "NONE");
    assert_eq!(bench.standings()[event], Standing::Addable);
    let error = bench.register().unwrap_err();
    assert!(matches!(&error, RegistryError::Incompatible { subject, .. } if subject == event), "{error}");
    bench.call(reqwest::Method::DELETE, &format!("/subjects/{event}"), &Value::Null);

    // A registry that keeps its own text of a schema, and an older build with another doc.
    let letter = Schema::DeadLetter;
    let mut normalised = ours(letter);
    normalised.as_object_mut().unwrap().remove("doc");
    let first = bench.post(letter.subjects()[1], &normalised);
    normalised["doc"] = json!("Another text.");
    let second = bench.post(letter.subjects()[1], &normalised);
    // A state row that lacks a field with a default.
    let mut older = ours(Schema::OrderState);
    let fields = older["fields"].as_array_mut().unwrap();
    let optional = fields.iter().rposition(|it| it.get("default").is_some()).unwrap();
    fields.remove(optional);
    let older = bench.post(Schema::OrderState.subject(), &older);
    bench.set_level(Schema::OrderState.subject(), "BACKWARD_TRANSITIVE");
    assert_eq!(bench.standings()[Schema::OrderState.subject()], Standing::Addable);

    let steps = bench.register().unwrap();
    let added = |subject| steps.iter().find(|it| it.subject == subject).unwrap().added.len();
    assert_eq!(
        (added(letter.subjects()[1]), added(Schema::OrderState.subject())),
        (0, locals(Schema::OrderState).len())
    );
    let ids = bench.resolve().unwrap();
    assert!(first != second);
    assert_eq!([first, second].map(|id| ids.to_local(id)), [letter as u32; 2]);
    assert_ne!(ids.to_local(older), Schema::OrderState as u32);
    let statuses = bench.standings();
    assert!(statuses.values().all(|it| *it == Standing::Same), "{statuses:?}");
}

const DENIED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

/// Answers every call alike, as a proxy before a registry does.
fn stub(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_the_registry_says_has_its_own_error_and_tells_no_secret() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broken = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 39\r\nConnection: close\r\n\r\n{\"error_code\":404,\"message\":\"no path\"}  ";
    let folder = tempfile::tempdir().unwrap();
    for (answer, code, down) in [
        (DENIED, "TS0111", false),
        (broken, "TS0112", true),
        (page, "TS0112", false),
        (missing, "TS0112", false),
        ("", "TS0110", true),
    ] {
        let mut settings = RegistrySettings::new(stub(answer));
        settings.user = Some("ursula".into());
        settings.password = Some("hunter2".into());
        settings.timeout = Duration::from_secs(5);
        let registry = Registry::new(settings).unwrap();
        let error = runtime.block_on(registry.check()).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.starts_with(code) && error.is_down() == down, "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("ursula"), "{shown}");
        let error =
            runtime.block_on(registry.resolve_or_cached(&folder.path().join("none.json"))).unwrap_err();
        assert!(error.to_string().starts_with(if down { "TS0117" } else { code }), "{error}");
    }
}

/// Ends with the test.
struct OpenSsl(Child);

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server over TLS whose registry is empty.
fn tls(folder: &Path, certificates: &Certificates) -> (OpenSsl, String) {
    std::fs::write(folder.join("subjects"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").unwrap();
    let mut child = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-HTTP", "-cert"])
        .arg(&certificates.server)
        .arg("-key")
        .arg(&certificates.server)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = OpenSsl(child);
    let address = lines.find_map(|it| it.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (server, format!("https://{address}"))
}

#[test]
fn only_the_certificates_that_were_given_are_trusted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ours = Certificates::create(&folder.path().join("ours")).unwrap();
    let theirs = Certificates::create(&folder.path().join("theirs")).unwrap();
    let (_server, url) = tls(folder.path(), &ours);
    let check = |ca_file: Option<&Path>| {
        let settings =
            RegistrySettings { ca_file: ca_file.map(Path::to_owned), ..RegistrySettings::new(&url) };
        runtime.block_on(Registry::new(settings).unwrap().check())
    };
    assert!(check(Some(&ours.authority)).unwrap().iter().all(|it| it.standing == Standing::Missing));
    for refused in [Some(theirs.authority.as_path()), None] {
        let error = check(refused).unwrap_err().to_string();
        assert!(error.starts_with("TS0110") && error.contains("certificate"), "{error}");
    }
}
