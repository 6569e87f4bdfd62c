//! Where the servers' jars lie, and which ports they get.

use crate::error::{ServerError, io};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Below the range from which the kernel takes the ports of outgoing connections, so that none of those takes the port
/// of a server that is down for a moment.
const PORTS: std::ops::Range<u16> = 20_000..28_000;

/// The cache folder that `ops/dev/jars.sh` fills.
pub(crate) fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    set("TILLSTREAM_SERVERS_DIR").unwrap_or_else(|| {
        set("XDG_CACHE_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("tillstream/servers")
    })
}

/// The version in a pom of `ops/dev/servers`.
fn version(pom: &'static str) -> &'static str {
    pom.lines()
        .find_map(|line| line.strip_prefix("  <version>")?.strip_suffix("</version>"))
        .unwrap_or_default()
}

/// The folder of one server's jars.
///
/// # Errors
/// [`ServerError::Missing`] when `ops/dev/jars.sh` has not fetched that version.
pub(crate) fn jars(name: &str, pom: &'static str) -> Result<PathBuf, ServerError> {
    let folder = cache().join(format!("{name}-{}", version(pom)));
    let marker = PathBuf::from(format!("{}.complete", folder.display()));
    if marker.exists() {
        return Ok(folder);
    }
    Err(ServerError::Missing {
        what: folder.display().to_string(),
        remedy: "run ops/dev/jars.sh (or `make setup`) once",
    })
}

/// The `java` of `JAVA_HOME`, or of the path.
pub(crate) fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME")
        .map(|home| Path::new(&home).join("bin/java"))
        .filter(|it| it.exists())
        .unwrap_or_else(|| PathBuf::from("java"))
}

/// A loopback port that is ours, also against other processes that pick ports by this crate, until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port nobody listens on.
    pub(crate) fn pick() -> Result<Self, ServerError> {
        let folder = cache().join("ports");
        fs::create_dir_all(&folder).map_err(io(format!("creating {}", folder.display())))?;
        let mut last = std::io::Error::other("no port was tried");
        for _ in 0..200 {
            let mut bytes = [0; 2];
            getrandom::fill(&mut bytes)
                .map_err(|it| io("drawing a port")(std::io::Error::other(it.to_string())))?;
            let number = PORTS.start + u16::from_le_bytes(bytes) % (PORTS.end - PORTS.start);
            let path = folder.join(number.to_string());
            let lock = File::create(&path).map_err(io(format!("creating {}", path.display())))?;
            if lock.try_lock().is_err() {
                continue;
            }
            match TcpListener::bind(("127.0.0.1", number)) {
                Ok(_) => return Ok(Self { number, _lock: lock }),
                Err(error) => last = error,
            }
        }
        Err(io("finding a free loopback port")(last))
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    /// The port itself.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
