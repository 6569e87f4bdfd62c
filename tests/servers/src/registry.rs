//! A schema registry that speaks the Confluent API: Apicurio, its storage in memory.

use crate::error::ServerError;
use crate::home::{Port, jars};
use crate::process::{Folder, Process, Program, server_methods};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A running schema registry. What it holds is in memory and gone with its process.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    port: Port,
    url: String,
}

impl Registry {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::Missing`] before `ops/dev/jars.sh` ran; [`ServerError::Failed`] with the end of its log.
    pub fn start() -> Result<Self, ServerError> {
        let jars = jars("registry", include_str!("../../../ops/dev/servers/registry.xml"))?;
        let version = jars.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        let runner = format!("apicurio-registry-app-{}-runner.jar", version.trim_start_matches("registry-"));
        let folder = Folder::create("registry")?;
        let port = Port::pick()?;
        let mut program = Program::java(
            &folder.path().join("tmp"),
            [
                "-Xmx256m".into(),
                "-XX:TieredStopAtLevel=1".into(),
                "-Dquarkus.http.host=127.0.0.1".into(),
                format!("-Dquarkus.http.port={}", port.number()),
                "-jar".into(),
                jars.join(runner).display().to_string(),
            ],
        );
        program.environment = vec![("REGISTRY_STORAGE_KIND".into(), "sql".into())];
        let url = format!("http://{}/apis/ccompat/v7", port.address());
        let registry = Self { process: Process::new("registry", program, folder), port, url };
        registry.process.start()?;
        registry.wait_ready()?;
        Ok(registry)
    }

    /// The base URL of the Confluent API.
    pub fn address(&self) -> &str {
        &self.url
    }

    /// Waits, at most 120 s, until the Confluent API answers 200.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with the end of its log.
    pub fn wait_ready(&self) -> Result<(), ServerError> {
        self.process.wait_until(|_| self.answers().is_ok_and(|it| it))
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number()))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let path = "/apis/ccompat/v7/subjects";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    }

    server_methods!();
}
