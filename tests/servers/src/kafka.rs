//! One Kafka broker that is its own controller.

use crate::certificates::Certificates;
use crate::error::{ServerError, io};
use crate::home::{Port, jars};
use crate::process::{Folder, Process, Program, server_methods};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A name and a password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// How a broker is started; the plaintext listener is always there.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// Heap, MiB.
    pub heap_mib: u32,
    /// A listener with TLS where this user logs in by SCRAM-SHA-256.
    pub scram: Option<Credentials>,
    /// A listener with TLS that asks for a client's certificate.
    pub mtls: bool,
    /// Settings of the broker that come last, so that they win.
    pub settings: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { heap_mib: 768, scram: None, mtls: false, settings: Vec::new() }
    }
}

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    ports: Ports,
    address: String,
    scram_address: Option<String>,
    mtls_address: Option<String>,
    certificates: Option<Certificates>,
    class_path: String,
}

#[derive(Debug)]
struct Ports {
    plain: Port,
    controller: Port,
    scram: Option<Port>,
    mtls: Option<Port>,
}

impl Kafka {
    /// Formats a log folder, starts a broker on it, and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::Missing`] before `ops/dev/jars.sh` ran or without `openssl` (TLS listeners);
    /// [`ServerError::Failed`] with the end of its log.
    pub fn start(options: KafkaOptions) -> Result<Self, ServerError> {
        let jars = jars("kafka", include_str!("../../../ops/dev/servers/kafka.xml"))?;
        let class_path = format!("{}/*", jars.display());
        let folder = Folder::create("kafka")?;
        let ports = Ports {
            plain: Port::pick()?,
            controller: Port::pick()?,
            scram: options.scram.as_ref().map(|_| Port::pick()).transpose()?,
            mtls: options.mtls.then(Port::pick).transpose()?,
        };
        let secure = options.mtls || options.scram.is_some();
        let certificates =
            secure.then(|| Certificates::create(&folder.path().join("certificates"))).transpose()?;
        let settings = settings(folder.path(), &ports, certificates.as_ref(), &options);
        let settings = folder.write("server.properties", &settings)?;
        let logging = folder.write("log4j2.properties", include_str!("../config/log4j2.properties"))?;
        format_storage(&class_path, &settings, &folder, options.scram.as_ref())?;
        let program = Program::java(
            &folder.path().join("tmp"),
            [
                format!("-Xmx{}m", options.heap_mib),
                format!("-Dlog4j2.configurationFile={}", logging.display()),
                "-cp".into(),
                class_path.clone(),
                "kafka.Kafka".into(),
                settings.display().to_string(),
            ],
        );
        let kafka = Self {
            process: Process::new("kafka", program, folder),
            address: ports.plain.address(),
            scram_address: ports.scram.as_ref().map(Port::address),
            mtls_address: ports.mtls.as_ref().map(Port::address),
            ports,
            certificates,
            class_path,
        };
        kafka.process.start()?;
        kafka.wait_ready()?;
        Ok(kafka)
    }

    /// The plaintext listener, `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The listener with TLS and SCRAM-SHA-256 (`SASL_SSL`), if asked for.
    pub fn scram_address(&self) -> Option<&str> {
        self.scram_address.as_deref()
    }

    /// The listener with TLS and client certificates (`SSL`), if asked for.
    pub fn mtls_address(&self) -> Option<&str> {
        self.mtls_address.as_deref()
    }

    /// The certificates, if a listener with TLS was asked for.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// One of Kafka's own tools by its class, such as `org.apache.kafka.tools.TopicCommand`; arguments are the
    /// caller's to add.
    pub fn tool(&self, class: &str) -> Command {
        let tmp = self.process.folder().join("tmp");
        Program::java(&tmp, ["-XX:TieredStopAtLevel=1", "-cp", &self.class_path, class]).command()
    }

    /// Waits, at most 120 s, until the broker says that it started and answers `ApiVersions`.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with the end of its log.
    pub fn wait_ready(&self) -> Result<(), ServerError> {
        self.process.wait_until(|process| {
            process.logged("Kafka Server started") && answers(self.ports.plain.number()).is_ok_and(|it| it)
        })
    }

    server_methods!();
}

/// `ApiVersions`, version 0, and whether its answer says that nothing is wrong.
fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Size, key 18, version 0, correlation id 7, no client id.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    Ok(head[4..] == [0, 0, 0, 7, 0, 0])
}

fn settings(
    folder: &Path,
    ports: &Ports,
    certificates: Option<&Certificates>,
    options: &KafkaOptions,
) -> String {
    let mut listeners = vec![("PLAINTEXT", "PLAINTEXT", &ports.plain)];
    listeners.extend(ports.scram.as_ref().map(|port| ("SCRAM", "SASL_SSL", port)));
    listeners.extend(ports.mtls.as_ref().map(|port| ("MTLS", "SSL", port)));
    let places = |it: &[(&str, &str, &Port)]| {
        it.iter().map(|(name, _, port)| format!("{name}://{}", port.address())).collect::<Vec<_>>().join(",")
    };
    let advertised = places(&listeners);
    listeners.push(("CONTROLLER", "PLAINTEXT", &ports.controller));
    let protocols = listeners
        .iter()
        .map(|(name, protocol, _)| format!("{name}:{protocol}"))
        .collect::<Vec<_>>()
        .join(",");
    let mut text = include_str!("../config/server.properties").to_owned();
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={value}");
    };
    set("log.dirs", &folder.join("data").display().to_string());
    set("controller.quorum.voters", &format!("1@{}", ports.controller.address()));
    set("listeners", &places(&listeners));
    set("advertised.listeners", &advertised);
    set("listener.security.protocol.map", &protocols);
    if let Some(certificates) = certificates {
        set("ssl.keystore.type", "PEM");
        set("ssl.keystore.location", &certificates.server.display().to_string());
        set("ssl.truststore.type", "PEM");
        set("ssl.truststore.location", &certificates.authority.display().to_string());
    }
    if ports.scram.is_some() {
        let class = "org.apache.kafka.common.security.scram.ScramLoginModule";
        set("listener.name.scram.sasl.enabled.mechanisms", "SCRAM-SHA-256");
        set("listener.name.scram.scram-sha-256.sasl.jaas.config", &format!("{class} required;"));
    }
    if ports.mtls.is_some() {
        set("listener.name.mtls.ssl.client.auth", "required");
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    text
}

/// A cluster id is 16 bytes in URL-safe base64; any will do, as every broker here is alone.
const CLUSTER: &str = "dGlsbHN0cmVhbS10ZXN0cw";

fn format_storage(
    class_path: &str,
    settings: &PathBuf,
    folder: &Folder,
    scram: Option<&Credentials>,
) -> Result<(), ServerError> {
    let tmp = folder.path().join("tmp");
    let tool = ["-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool", "format"];
    let mut command = Program::java(&tmp, tool).command();
    command.args(["-t", CLUSTER, "-c"]).arg(settings);
    if let Some(Credentials { user, password }) = scram {
        command.args(["--add-scram", &format!("SCRAM-SHA-256=[name={user},password={password}]")]);
    }
    let done = command.output().map_err(io("starting Kafka's storage tool"))?;
    if done.status.success() {
        return Ok(());
    }
    let output = [done.stdout, done.stderr].concat();
    Err(ServerError::Program {
        program: "Kafka's storage tool".into(),
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}
