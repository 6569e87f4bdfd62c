//! What is wrong with an uploaded module, in words its author can act on.

use crate::config::LOG_INTERFACE;
use crate::limits::MODULE_BYTES_MAX;
use crate::source::{NEWEST, Source, engine_names};
use crate::{Module, RuleEngine};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use thiserror::Error;
use wasmtime::component::Component;

/// What hooks share: types alone, nothing that could be called.
const TYPES_INTERFACE: &str = "tillstream:rules/types@1.0.0";
const HEADER: [u8; 4] = *b"\0asm";
const CORE: [u8; 4] = [1, 0, 0, 0];

/// Why a module is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Size.
    #[error("the module has {found} bytes, at most {most} are taken; build it in release and strip it")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Neither Wasm nor a source.
    #[error(
        "this is no rule: it begins neither with the bytes 00 61 73 6d, as a WebAssembly component does, nor with the line \
         `// tillstream:rule {NEWEST}`, as JavaScript does that `tillstream rules build` has packed"
    )]
    NotWasm,
    /// A source for no engine of ours.
    #[error("there is no engine {0:?}; the first line of a source names one of: {names}", names = engine_names())]
    Engine(String),
    /// A source that its engine does not take in.
    #[error("the source is not taken: {0}")]
    Source(String),
    /// A core module.
    #[error("this is a core module, not a component; `tillstream rules build` makes one of it")]
    NotComponent,
    /// Cannot be read or compiled.
    #[error("the module is not valid: {0}")]
    Invalid(String),
    /// Imports.
    #[error("the module imports {}; only {LOG_INTERFACE} may be imported: a rule has no clock, randomness, files or network", .0.join(", "))]
    Imports(Vec<String>),
    /// No hook.
    #[error(
        "the module exports none of the hooks: price, allocate, risk, ship, measure (tillstream:rules@1.0.0)"
    )]
    NoHook,
    /// A hook of another shape.
    #[error("the module's {hook} hook is not the one of tillstream:rules@1.0.0: {why}")]
    Hook {
        /// Which.
        hook: &'static str,
        /// What is wrong.
        why: String,
    },
    /// More than a slot has.
    #[error("the module cannot be started: {0}")]
    Start(String),
    /// What it brings for its settings.
    #[error("the module's settings schema is not taken: {0}")]
    SettingsSchema(String),
    /// The compiler was stopped.
    #[error("compiling the module took more than {0}; a rule has few, small functions")]
    Compile(String),
}

impl Refusal {
    /// The bounded reason, for a problem document and the counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm => "not_wasm",
            Self::Engine(_) => "engine",
            Self::Source(_) => "source",
            Self::NotComponent => "not_component",
            Self::Invalid(_) => "invalid",
            Self::Imports(_) => "imports",
            Self::NoHook => "no_hook",
            Self::Hook { .. } => "hook",
            Self::Start(_) => "start",
            Self::SettingsSchema(_) => "settings_schema",
            Self::Compile(_) => "compile",
        }
    }
}

/// The digest a module is known by: SHA-256, in hex.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What can be told from size and first bytes, before anything is compiled.
///
/// # Errors
/// The refusal.
pub fn look(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(Refusal::TooLarge { found: bytes.len(), most: MODULE_BYTES_MAX });
    }
    match bytes.split_first_chunk::<4>() {
        Some((&HEADER, rest)) if rest.starts_with(&CORE) => Err(Refusal::NotComponent),
        Some((&HEADER, _)) => Ok(()),
        _ if Source::read(bytes)?.is_some() => Ok(()),
        _ => Err(Refusal::NotWasm),
    }
}

impl RuleEngine {
    /// Checks and compiles a module, in this process: what comes back can be loaded by an engine of the same
    /// [`RuleEngine::version`]. A hostile module can keep this busy for long, so the host does it in a child process. What
    /// comes back for a source is the code of its engine, which is ours and every rule's that names it.
    ///
    /// # Errors
    /// Why the module is not taken.
    pub fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        look(bytes)?;
        let invalid = |error: wasmtime::Error| Refusal::Invalid(short(&error));
        if let Some(source) = Source::read(bytes)? {
            return Component::from_binary(&self.engine, source.engine())
                .and_then(|it| it.serialize())
                .map_err(invalid);
        }
        let component = Component::from_binary(&self.engine, bytes).map_err(invalid)?;
        let kind = component.component_type();
        let foreign: Vec<String> = kind
            .imports(&self.engine)
            .map(|(name, _)| name.to_owned())
            .filter(|it| it != LOG_INTERFACE && it != TYPES_INTERFACE)
            .collect();
        if !foreign.is_empty() {
            return Err(Refusal::Imports(foreign));
        }
        Module::new(self, &component)?;
        component.serialize().map_err(invalid)
    }
}

/// An error's causes in one line, without the reports the library adds for its own developers.
pub(crate) fn short(error: &wasmtime::Error) -> String {
    bounded(&format!("{error:#}").replace('\n', " "))
}

/// A text of a length that can be shown.
pub(crate) fn bounded(text: &str) -> String {
    const BYTES_MAX: usize = 500;
    if text.len() <= BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
