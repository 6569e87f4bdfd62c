//! One server process: started, watched, killed, frozen, and started again on the same data.

use crate::clock::Deadline;
use crate::error::{ServerError, io};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// How long a start may take.
const READY: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(30);
/// How much of a log an error shows.
const TAIL_LINES: usize = 40;

/// A program and its arguments, the same at every start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Program {
    /// `java` with its arguments; its temporary files go to `tmp`.
    pub(crate) fn java<A: Into<OsString>>(tmp: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut all = vec![OsString::from(format!("-Djava.io.tmpdir={}", tmp.display()))];
        all.extend(arguments.into_iter().map(Into::into));
        Self { path: crate::home::java(), arguments: all, environment: Vec::new() }
    }

    /// The command, without what ties it to this process.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        self.dress(&mut command);
        command
    }

    /// The command, killed by the kernel when this process dies (where `setpriv` is there to ask for it).
    fn bound_command(&self) -> Command {
        let Some(setpriv) = setpriv() else { return self.command() };
        let mut command = Command::new(setpriv);
        command.args([OsStr::new("--pdeathsig"), OsStr::new("KILL"), self.path.as_os_str()]);
        command.args(&self.arguments);
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        // Options of the caller's shell must not change the servers under test.
        for name in ["JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
    }
}

fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|it| it.join("setpriv")).find(|it| it.exists())
        })
        .as_deref()
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Spawns from a thread that lives as long as this process: the kernel sends the death signal when the *thread* that
/// made a child ends, and a test's thread ends with the test.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // Whoever asked has gone only if it panicked; its child must not stay.
                if let Err(unsent) = answer.send(command.spawn())
                    && let Ok(mut child) = unsent.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        sender
    });
    let gone = || std::io::Error::other("the thread that starts servers is gone");
    let (sender, answer) = channel();
    spawner.send((command, sender)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Where the log of the running start begins, bytes.
    log_start: u64,
}

/// A server: its folder, its log, and its process while there is one.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    program: Program,
    log: PathBuf,
    state: Mutex<State>,
    /// Dropped after the process was killed.
    folder: Folder,
}

/// A server's folder, removed with it unless `TILLSTREAM_KEEP_SERVERS` is set.
#[derive(Debug)]
pub(crate) struct Folder(Option<TempDir>);

impl Folder {
    /// A new one.
    pub(crate) fn create(name: &str) -> Result<Self, ServerError> {
        let made = tempfile::Builder::new().prefix(&format!("tillstream-{name}-")).tempdir();
        let folder = Self(Some(made.map_err(io("creating a server's folder"))?));
        let tmp = folder.path().join("tmp");
        fs::create_dir(&tmp).map_err(io("creating a server's folder"))?;
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, ServerError> {
        let path = self.path().join(name);
        fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("TILLSTREAM_KEEP_SERVERS").is_some()
            && let Some(folder) = self.0.take()
        {
            let _ = folder.keep();
        }
    }
}

impl Process {
    /// A server that is not running yet.
    pub(crate) fn new(name: &'static str, program: Program, folder: Folder) -> Self {
        let log = folder.path().join(format!("{name}.log"));
        Self { name, program, log, state: Mutex::new(State::default()), folder }
    }

    /// Starts it; it must not be running.
    pub(crate) fn start(&self) -> Result<(), ServerError> {
        let mut state = self.state.lock();
        if state.child.is_some() {
            return Err(self.failed("is running already"));
        }
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let out = open().map_err(io(format!("opening {}", self.log.display())))?;
        let errors = out.try_clone().map_err(io("doubling a log's descriptor"))?;
        state.log_start = out.metadata().map_err(io("measuring a log"))?.len();
        let mut command = self.program.bound_command();
        // Its own group: Ctrl-C is for us, who then stop it in order.
        command.stdout(out).stderr(errors).process_group(0);
        state.child = Some(spawn(command).map_err(io(format!("starting {}", self.program.path.display())))?);
        Ok(())
    }

    /// Waits until `ready` says so. `ready` may take its time, but must come back.
    pub(crate) fn wait_until(&self, mut ready: impl FnMut(&Self) -> bool) -> Result<(), ServerError> {
        let deadline = Deadline::after(READY);
        loop {
            {
                let mut state = self.state.lock();
                let child = state.child.as_mut().ok_or(ServerError::Down { server: self.name })?;
                if let Some(status) = child.try_wait().map_err(io("asking for a server's state"))? {
                    state.child = None;
                    return Err(self.failed(format!("ended with {status}")));
                }
            }
            if ready(self) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(self.failed(format!("was not ready within {} s", READY.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the log of the running start holds `text`.
    pub(crate) fn logged(&self, text: &str) -> bool {
        let start = self.state.lock().log_start;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    }

    /// The error that says what the server did, with the end of its log.
    pub(crate) fn failed(&self, what: impl Into<String>) -> ServerError {
        ServerError::Failed {
            server: self.name,
            what: what.into(),
            log: self.log.clone(),
            tail: self.log_tail(TAIL_LINES),
        }
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The log, of all starts.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn pid_of(&self, state: &State) -> Result<Pid, ServerError> {
        let child = state.child.as_ref().ok_or(ServerError::Down { server: self.name })?;
        Ok(Pid::from_child(child))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32, ServerError> {
        let pid = self.pid_of(&self.state.lock())?;
        Ok(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends a signal. The child is not reaped before the lock is had, so the id cannot be another process's.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        let state = self.state.lock();
        let pid = self.pid_of(&state)?;
        kill_process(pid, signal).map_err(|it| io(format!("signalling {}", self.name))(it.into()))
    }

    /// SIGSTOP, and waits until no thread of it runs any more: on a busy machine some go on for a while, and answer.
    pub(crate) fn pause(&self) -> Result<(), ServerError> {
        self.signal(Signal::STOP)?;
        let deadline = Deadline::after(STOP);
        while !self.is_stopped()? {
            if deadline.passed() {
                return Err(self.failed(format!("was not frozen within {} s", STOP.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether each of its threads is stopped (`T`, the field behind the command's name in brackets; a thread that has
    /// ended meanwhile does not run either).
    fn is_stopped(&self) -> Result<bool, ServerError> {
        let path = format!("/proc/{}/task", self.pid()?);
        let threads = fs::read_dir(&path).map_err(io(format!("reading {path}")))?;
        Ok(threads.filter_map(Result::ok).all(|it| {
            let stat = fs::read_to_string(it.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        }))
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&self) -> Result<(), ServerError> {
        let mut state = self.state.lock();
        let mut child = state.child.take().ok_or(ServerError::Down { server: self.name })?;
        child.kill().map_err(io(format!("killing {}", self.name)))?;
        child.wait().map_err(io(format!("waiting for {}", self.name)))?;
        Ok(())
    }

    /// SIGTERM, and waits for the end; a server that stays is killed, and that is an error.
    pub(crate) fn stop(&self) -> Result<(), ServerError> {
        self.signal(Signal::CONT)?;
        self.signal(Signal::TERM)?;
        let deadline = Deadline::after(STOP);
        loop {
            let mut state = self.state.lock();
            let child = state.child.as_mut().ok_or(ServerError::Down { server: self.name })?;
            if child.try_wait().map_err(io("asking for a server's state"))?.is_some() {
                state.child = None;
                return Ok(());
            }
            drop(state);
            if deadline.passed() {
                self.kill()?;
                return Err(self.failed(format!("did not stop within {} s and was killed", STOP.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// CPU time of the running process so far, user and system, seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, ServerError> {
        let path = format!("/proc/{}/stat", self.pid()?);
        let text = fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
        // The command's name, in brackets, may hold blanks; fields 14 and 15 are counted from behind it.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
        Ok(ticks / f64::from(per_second))
    }

    /// Resident memory of the running process, bytes.
    pub(crate) fn rss_bytes(&self) -> Result<u64, ServerError> {
        let path = format!("/proc/{}/status", self.pid()?);
        let text = fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(kib.and_then(|it| it.trim().parse::<u64>().ok()).unwrap_or(0) * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What every server can be asked and told, in terms of its `process` and its `wait_ready`.
macro_rules! server_methods {
    () => {
        /// The process id.
        ///
        /// # Errors
        /// [`ServerError::Down`].
        pub fn pid(&self) -> Result<u32, ServerError> {
            self.process.pid()
        }

        /// SIGKILL, and waits for the end. Data and ports stay.
        ///
        /// # Errors
        /// [`ServerError::Down`] when it is not running.
        pub fn kill(&self) -> Result<(), ServerError> {
            self.process.kill()
        }

        /// SIGTERM, and waits for the end. Data and ports stay.
        ///
        /// # Errors
        /// [`ServerError::Failed`] when it had to be killed after 30 s.
        pub fn stop(&self) -> Result<(), ServerError> {
            self.process.stop()
        }

        /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same data and ports, and waits until it is
        /// ready.
        ///
        /// # Errors
        /// [`ServerError::Failed`] with the end of its log.
        pub fn start_again(&self) -> Result<(), ServerError> {
            self.process.start()?;
            self.wait_ready()
        }

        /// Freezes it (SIGSTOP): connections stay open and nothing answers.
        ///
        /// # Errors
        /// [`ServerError::Down`]; [`ServerError::Failed`] when it goes on running.
        pub fn pause(&self) -> Result<(), ServerError> {
            self.process.pause()
        }

        /// Ends [`Self::pause`] (SIGCONT).
        ///
        /// # Errors
        /// [`ServerError::Down`].
        pub fn resume(&self) -> Result<(), ServerError> {
            self.process.signal(rustix::process::Signal::CONT)
        }

        /// CPU time since this start, user and system, seconds.
        ///
        /// # Errors
        /// [`ServerError::Down`].
        pub fn cpu_seconds(&self) -> Result<f64, ServerError> {
            self.process.cpu_seconds()
        }

        /// Resident memory, bytes.
        ///
        /// # Errors
        /// [`ServerError::Down`].
        pub fn rss_bytes(&self) -> Result<u64, ServerError> {
            self.process.rss_bytes()
        }

        /// Its log, of all starts, both streams.
        pub fn log(&self) -> &std::path::Path {
            self.process.log()
        }

        /// The last lines of its log.
        pub fn log_tail(&self, lines: usize) -> String {
            self.process.log_tail(lines)
        }

        /// Its folder: settings, data, log. Removed when this is dropped, unless `TILLSTREAM_KEEP_SERVERS` is set.
        pub fn folder(&self) -> &std::path::Path {
            self.process.folder()
        }
    };
}
pub(crate) use server_methods;
