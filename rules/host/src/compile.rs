//! Compiling in a process of its own, which can be killed.
//!
//! A module can be made so that its compilation takes the machine's time and memory. The child bounds itself before it
//! reads a byte of the module (processor time, address space, file size, no core dump), and the parent kills it when the
//! wall clock says so. It has the parent's binary, an empty environment and two pipes.

use crate::error::RuleHostError;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tillstream_rule_engine::{Pool, Refusal, RuleEngine, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Seconds of processor time.
const CPU_SECONDS_MAX: u64 = 5;
/// The same for an engine of ours, which is several times a rule and compiled once for all of them.
const ENGINE_CPU_SECONDS_MAX: u64 = 60;
/// Bytes of address space: what the compiler needs for the largest honest module, several times over.
const ADDRESS_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a file: the engine keeps the image of a memory in one that has no name.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of code a module may become.
const CODE_BYTES_MAX: u64 = 16 << 20;
/// The parent's patience; a loaded machine may need longer than the processor time.
const WALL_CLOCK_MAX: Duration = Duration::from_secs(15);
/// For an engine of ours only the processor time counts: nobody else can make it take longer, and a loaded machine may.
const ENGINE_WALL_CLOCK_MAX: Duration = Duration::from_secs(600);

/// The child's first byte.
const COMPILED: u8 = b'+';
const REFUSED: u8 = b'-';

/// What the child says of a module it does not take.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    reason: String,
    message: String,
}

/// Why a module was not compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotTaken {
    pub reason: String,
    pub message: String,
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason().to_owned(), message: refusal.to_string() }
    }
}

/// Starts compilers.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Compiler {
    /// A program that calls [`compile_child`] when it is given these arguments.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// Code for a module, or why it is not taken. For a source it is the code of its engine.
    pub(crate) async fn compile(&self, module: &[u8]) -> Result<Result<Vec<u8>, NotTaken>, RuleHostError> {
        // What can be told at a glance needs no process.
        if let Err(refusal) = tillstream_rule_engine::look(module) {
            return Ok(Err(refusal.into()));
        }
        let patience = if is_source(module) { ENGINE_WALL_CLOCK_MAX } else { WALL_CLOCK_MAX };
        match tokio::time::timeout(patience, self.run(module)).await {
            Ok(said) => said,
            Err(_) => Ok(Err(Refusal::Compile(format!("{} s", patience.as_secs())).into())),
        }
    }

    async fn run(&self, module: &[u8]) -> Result<Result<Vec<u8>, NotTaken>, RuleHostError> {
        let failed = |error: std::io::Error| RuleHostError::Compiler(error.to_string());
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut said = Vec::new();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // A child that has ended does not read: what it said before tells more than this.
                let _ = stdin.write_all(module).await;
            }
        };
        let take = async {
            match stdout {
                Some(stdout) => stdout.take(CODE_BYTES_MAX + 2).read_to_end(&mut said).await,
                None => Ok(0),
            }
        };
        let ((), taken) = tokio::join!(give, take);
        taken.map_err(failed)?;
        if said.len() as u64 > CODE_BYTES_MAX + 1 {
            return Ok(Err(Refusal::Compile(format!("{CODE_BYTES_MAX} bytes of code")).into()));
        }
        child.wait().await.map_err(failed)?;
        understand(said)
    }
}

/// Whether what is to be compiled is an engine of ours, and nothing of a tenant's.
fn is_source(module: &[u8]) -> bool {
    matches!(Source::read(module), Ok(Some(_)))
}

fn understand(mut said: Vec<u8>) -> Result<Result<Vec<u8>, NotTaken>, RuleHostError> {
    match said.first() {
        Some(&COMPILED) => {
            said.remove(0);
            Ok(Ok(said))
        }
        Some(&REFUSED) => match serde_json::from_slice::<Told>(&said[1..]) {
            Ok(told) => Ok(Err(NotTaken { reason: told.reason, message: told.message })),
            Err(error) => Err(RuleHostError::Compiler(error.to_string())),
        },
        Some(_) => Err(RuleHostError::Compiler("it said something else than it should".to_owned())),
        // It ended without a word: one of its bounds ended it.
        None => {
            let bounds = format!("{CPU_SECONDS_MAX} s of processor time or {} MiB", ADDRESS_BYTES_MAX >> 20);
            Ok(Err(Refusal::Compile(bounds).into()))
        }
    }
}

/// The child's whole life: bounds itself, reads a module from standard input, writes code to standard output.
///
/// # Errors
/// When it cannot be bounded, or a pipe breaks.
pub fn compile_child() -> Result<(), RuleHostError> {
    let failed = |error: std::io::Error| RuleHostError::Compiler(error.to_string());
    let bound_within = |resource, most, maximum| {
        let limit = Rlimit { current: Some(most), maximum: Some(maximum) };
        setrlimit(resource, limit).map_err(|error| RuleHostError::Compiler(error.to_string()))
    };
    let bound = |resource, most| bound_within(resource, most, most);
    bound_within(Resource::Cpu, CPU_SECONDS_MAX, ENGINE_CPU_SECONDS_MAX)?;
    bound(Resource::As, ADDRESS_BYTES_MAX)?;
    bound(Resource::Core, 0)?;
    bound(Resource::Fsize, FILE_BYTES_MAX)?;
    let mut module = Vec::new();
    std::io::stdin().lock().read_to_end(&mut module).map_err(failed)?;
    if is_source(&module) {
        bound(Resource::Cpu, ENGINE_CPU_SECONDS_MAX)?;
    }
    let said = match RuleEngine::new(Pool::OnDemand)?.compile(&module) {
        Ok(code) => [&[COMPILED], code.as_slice()].concat(),
        Err(refusal) => {
            let told = Told { reason: refusal.reason().to_owned(), message: refusal.to_string() };
            let mut said = vec![REFUSED];
            said.extend(
                serde_json::to_vec(&told).map_err(|error| RuleHostError::Compiler(error.to_string()))?,
            );
            said
        }
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&said).and_then(|()| out.flush()).map_err(failed)
}
