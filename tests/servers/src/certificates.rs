//! Certificates for tests, made with the `openssl` program: an authority, a server's and a client's.

use crate::error::{ServerError, io};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// PEM files; every key is P-256, PKCS #8, without a password.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate, which both sides trust.
    pub authority: PathBuf,
    /// The server's key and certificate chain in one file; for `localhost` and `127.0.0.1`.
    pub server: PathBuf,
    /// A client's certificate; its subject is `CN=tillstream`.
    pub client_certificate: PathBuf,
    /// The client's key.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes them in a folder, which is created. Made twice, they come from two authorities that do not know each other.
    ///
    /// # Errors
    /// [`ServerError::Missing`] without `openssl`, [`ServerError::Program`] when it fails.
    pub fn create(folder: &Path) -> Result<Self, ServerError> {
        fs::create_dir_all(folder).map_err(io(format!("creating {}", folder.display())))?;
        let file = |name: &str| folder.join(name);
        let extensions =
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).map_err(io(format!("writing {name}")))
        };
        write("extensions", extensions)?;
        let key = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(folder, &format!("{key} -x509 -days 30 -subj /CN=tests -keyout ca.key -out ca.pem"))?;
        for (name, subject) in [("server", "localhost"), ("client", "tillstream")] {
            openssl(folder, &format!("{key} -subj /CN={subject} -keyout {name}.key -out {name}.csr"))?;
            let sign = "x509 -req -days 30 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions";
            openssl(folder, &format!("{sign} -in {name}.csr -out {name}.pem"))?;
        }
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(io(format!("reading {}", path.display())))
        };
        write("server-chain.pem", &[read("server.key")?, read("server.pem")?, read("ca.pem")?].concat())?;
        Ok(Self {
            authority: file("ca.pem"),
            server: file("server-chain.pem"),
            client_certificate: file("client.pem"),
            client_key: file("client.key"),
        })
    }
}

/// Runs it in `folder` with arguments that hold no blanks.
fn openssl(folder: &Path, arguments: &str) -> Result<(), ServerError> {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
    let done = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            ServerError::Missing { what: "openssl".into(), remedy: "install the package openssl" }
        }
        _ => io("starting openssl")(error),
    })?;
    if done.status.success() {
        return Ok(());
    }
    Err(ServerError::Program {
        program: format!("openssl {arguments}"),
        output: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}
