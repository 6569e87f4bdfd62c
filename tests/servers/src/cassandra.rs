//! One Cassandra node.

use crate::certificates::Certificates;
use crate::cql;
use crate::error::{ServerError, io};
use crate::home::{Port, jars};
use crate::process::{Folder, Process, Program, server_methods};
use rustix::process::{Pid, Signal};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What a node asks of its clients' connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// No TLS.
    #[default]
    Off,
    /// TLS, the node shows its certificate.
    Server,
    /// TLS, both sides show one.
    Mutual,
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct CassandraOptions {
    /// Heap, MiB.
    pub heap_mib: u32,
    /// How often the commit log is made durable, ms. With 0 every write waits for it (`commitlog_sync: batch`): only
    /// then does a killed node have every write it acknowledged, because a replay stops at the last mark, which a
    /// periodic log sets about every 100 ms.
    pub commitlog_sync_period_ms: u32,
    /// Whether clients must log in; see [`Cassandra::login`].
    pub password: bool,
    /// What clients' connections must be.
    pub tls: ClientTls,
    /// Settings of `cassandra.yaml` that come last.
    pub settings: Vec<(String, String)>,
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self {
            heap_mib: 1024,
            commitlog_sync_period_ms: 1000,
            password: false,
            tls: ClientTls::Off,
            settings: Vec::new(),
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Cassandra {
    process: Process,
    ports: Ports,
    address: String,
    certificates: Option<Certificates>,
    password: bool,
}

#[derive(Debug)]
struct Ports {
    native: Port,
    storage: Port,
    ssl_storage: Port,
}

impl Cassandra {
    /// Starts a node on an empty folder and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::Missing`] before `ops/dev/jars.sh` ran or without `openssl` (TLS);
    /// [`ServerError::Failed`] with the end of its log.
    pub fn start(options: CassandraOptions) -> Result<Self, ServerError> {
        let jars = jars("cassandra", include_str!("../../../ops/dev/servers/cassandra.xml"))?;
        let folder = Folder::create("cassandra")?;
        let ports = Ports { native: Port::pick()?, storage: Port::pick()?, ssl_storage: Port::pick()? };
        let secure = options.tls != ClientTls::Off;
        let certificates =
            secure.then(|| Certificates::create(&folder.path().join("certificates"))).transpose()?;
        let settings = settings(&folder, &ports, certificates.as_ref(), &options);
        let settings = folder.write("cassandra.yaml", &settings)?;
        let logging = folder.write("logback.xml", include_str!("../config/logback.xml"))?;
        let mut arguments = vec![
            format!("-Xmx{}m", options.heap_mib),
            format!("-Dcassandra.config=file://{}", settings.display()),
            format!("-Dcassandra.storagedir={}", folder.path().display()),
            format!("-Dlogback.configurationFile=file://{}", logging.display()),
        ];
        arguments.extend(include_str!("../config/cassandra.jvm").lines().map(str::to_owned));
        arguments.extend([
            "-cp".into(),
            format!("{}/*", jars.display()),
            "org.apache.cassandra.service.CassandraDaemon".into(),
        ]);
        let program = Program::java(&folder.path().join("tmp"), arguments);
        let cassandra = Self {
            process: Process::new("cassandra", program, folder),
            address: ports.native.address(),
            ports,
            certificates,
            password: options.password,
        };
        cassandra.process.start()?;
        cassandra.wait_ready()?;
        Ok(cassandra)
    }

    /// Where it speaks CQL, `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The certificates, if TLS was asked for.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// User and password of the superuser, if clients must log in.
    pub fn login(&self) -> Option<(&'static str, &'static str)> {
        self.password.then_some(("cassandra", "cassandra"))
    }

    /// Waits, at most 120 s, until the node answers CQL, and lets the superuser in where a login is asked for.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with the end of its log.
    pub fn wait_ready(&self) -> Result<(), ServerError> {
        self.process.wait_until(|_| self.with_connection(|_| Ok(())).is_ok())
    }

    /// Runs one statement at consistency ONE and returns the raw body of its result. For settings up and looks at what
    /// is there, not for load.
    ///
    /// # Errors
    /// [`ServerError::Io`] when the node cannot be reached or refuses the statement.
    pub fn execute(&self, statement: &str) -> Result<Vec<u8>, ServerError> {
        self.with_connection(|stream| cql::query(stream, statement)).map_err(io(statement))
    }

    fn with_connection<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let mut stream = match &self.certificates {
            None => Connection::plain(self.ports.native.number())?,
            Some(certificates) => Connection::tls(&self.address, certificates)?,
        };
        cql::options(&mut stream)?;
        cql::start_up(&mut stream, self.login())?;
        work(&mut stream)
    }

    server_methods!();
}

fn settings(
    folder: &Folder,
    ports: &Ports,
    certificates: Option<&Certificates>,
    options: &CassandraOptions,
) -> String {
    let mut text = include_str!("../config/cassandra.yaml")
        .replace("FOLDER", &folder.path().display().to_string())
        .replace("SSL_STORAGE_PORT", &ports.ssl_storage.number().to_string())
        .replace("STORAGE_PORT", &ports.storage.number().to_string())
        .replace("NATIVE_PORT", &ports.native.number().to_string());
    text.push_str(&match options.commitlog_sync_period_ms {
        0 => "commitlog_sync: batch\n".to_owned(),
        period => format!("commitlog_sync: periodic\ncommitlog_sync_period: {period}ms\n"),
    });
    if options.password {
        text.push_str("authenticator: PasswordAuthenticator\n");
    }
    if let Some(certificates) = certificates {
        let factory = "org.apache.cassandra.security.PEMBasedSslContextFactory";
        let _ = write!(
            text,
            "client_encryption_options:\n  enabled: true\n  optional: false\n  require_client_auth: {}\n  \
             keystore: {}\n  truststore: {}\n  ssl_context_factory:\n    class_name: {factory}\n",
            options.tls == ClientTls::Mutual,
            certificates.server.display(),
            certificates.authority.display(),
        );
    }
    for (name, value) in &options.settings {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

/// A connection for probes: plain, or through `openssl s_client`, which saves this crate a TLS library.
enum Connection {
    Plain(TcpStream),
    Tls { child: Child, to: ChildStdin, from: ChildStdout },
}

impl Connection {
    fn plain(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self::Plain(stream))
    }

    fn tls(address: &str, certificates: &Certificates) -> std::io::Result<Self> {
        // Starting a program is dear: not while nobody listens.
        TcpStream::connect(address)?;
        // A pipe has no read timeout: `timeout` ends the program, and with it the pipe.
        let mut child = Command::new("timeout")
            .args(["20", "openssl", "s_client", "-quiet", "-verify_quiet", "-verify_return_error"])
            .args(["-verify_ip", "127.0.0.1", "-connect", address, "-CAfile"])
            .arg(&certificates.authority)
            .arg("-cert")
            .arg(&certificates.client_certificate)
            .arg("-key")
            .arg(&certificates.client_key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let gone = || std::io::Error::other("openssl has no pipes");
        let (to, from) = (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        Ok(Self::Tls { child, to, from })
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls { from, .. } => from.read(bytes),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls { to, .. } => to.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls { to, .. } => to.flush(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Self::Tls { child, .. } = self {
            // `timeout` passes it on; the end of its input alone does not end `openssl -quiet`.
            let _ = rustix::process::kill_process(Pid::from_child(child), Signal::TERM);
            let _ = child.wait();
        }
    }
}
