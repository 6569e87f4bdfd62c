//! A rule that is its source: JavaScript, run by an engine that the host provides.
//!
//! The first line names the engine, so that the text alone, and with it its digest, says what the rule does: an engine that
//! is released stays as it is, and a later one comes beside it under a name of its own. The JSON schema of the rule's
//! settings may stand on the second line.

use crate::Module;
use crate::inspect::{Refusal, bounded, digest, short};
use crate::limits::{CODE_BYTES_MAX, COMPILE_FUEL, Limits, START_FUEL};
use crate::run::{Session, store};
use std::sync::{Arc, OnceLock};
use tillstream_stage::rule::{Hook, Hooks};
use wasmtime::component::{ComponentExportIndex, Instance, TypedFunc};
use wasmtime::{Store, Trap};

/// What the first line begins with.
const ENGINE_MARK: &str = "// tillstream:rule ";
/// What the second line may begin with.
const SCHEMA_MARK: &str = "// tillstream:settings-schema ";

/// An engine: a component of the world in `rules/javascript/engine/wit`, by the name under which rules ask for it.
struct Provided {
    name: &'static str,
    component: &'static [u8],
    /// Taken once: every source that is loaded asks for it.
    digest: OnceLock<String>,
}

impl Provided {
    fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest(self.component))
    }
}

/// Every engine that was ever released, the newest last.
static ENGINES: [Provided; 1] = [Provided {
    name: "javascript-1",
    component: include_bytes!("../../javascript/javascript-1.wasm"),
    digest: OnceLock::new(),
}];

/// The engine of a rule that is written today.
pub(crate) const NEWEST: &str = "javascript-1";

/// What an engine says: it, or what is wrong with the source; or the call ended.
type Came<T> = wasmtime::Result<Result<T, String>>;
/// The functions of an engine.
type Compile = TypedFunc<(String,), (Result<Vec<u8>, String>,)>;
type Load<'a> = TypedFunc<(&'a [u8],), (Result<(), String>,)>;
type HookNames = TypedFunc<(), (Vec<String>,)>;

/// A rule's source, with what its first lines say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    engine: usize,
    schema: Option<&'a str>,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// The source that these bytes are; `None` when they do not begin as one.
    ///
    /// # Errors
    /// When they do, and are none all the same.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Self>, Refusal> {
        if !bytes.starts_with(ENGINE_MARK.as_bytes()) {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| Refusal::Source(format!("it is no UTF-8: {error}")))?;
        let (name, text) = line_of(text, ENGINE_MARK).unwrap_or_default();
        let engine = ENGINES.iter().position(|it| it.name == name);
        let engine = engine.ok_or_else(|| Refusal::Engine(name.to_owned()))?;
        let (schema, text) = match line_of(text, SCHEMA_MARK) {
            Some((schema, text)) => (Some(schema), text),
            None => (None, text),
        };
        if line_of(text, SCHEMA_MARK).is_some() {
            return Err(Refusal::SettingsSchema("the source brings two".to_owned()));
        }
        Ok(Some(Self { engine, schema, text }))
    }

    /// The JSON schema of its settings.
    pub fn settings_schema(&self) -> Option<&'a str> {
        self.schema
    }

    /// The component of the engine that it asks for.
    pub fn engine(&self) -> &'static [u8] {
        ENGINES.get(self.engine).map_or(&[], |it| it.component)
    }

    /// The digest of that component.
    pub fn engine_digest(&self) -> &'static str {
        ENGINES.get(self.engine).map_or("", Provided::digest)
    }
}

/// What the first line says behind the mark, and what comes after the line.
fn line_of<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.strip_prefix(mark)?;
    let (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
    Some((line.trim(), rest))
}

/// A source with the lines in front that make a rule of it: which engine runs it (where it does not say so itself), and the
/// schema of its settings, where there is one.
#[must_use]
pub fn with_engine(source: &str, schema: Option<&str>) -> String {
    let (engine, rest) = line_of(source, ENGINE_MARK).unwrap_or((NEWEST, source));
    // A schema is JSON: a line's end stands in it only between its parts.
    let schema = schema.map(|it| format!("{SCHEMA_MARK}{}\n", it.trim().replace(['\r', '\n'], " ")));
    format!("{ENGINE_MARK}{engine}\n{}{rest}", schema.unwrap_or_default())
}

/// The engines by name, with their digests.
pub fn engines() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENGINES.iter().map(|it| (it.name, it.digest()))
}

/// The names of the engines, in a sentence.
pub(crate) fn engine_names() -> String {
    ENGINES.iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

impl Module {
    /// The rule of a source; this is the engine that it asks for. The source is compiled in one sandbox, and taken in once in
    /// another with the limits of a call: what cannot be, or exports no hook, is refused here and not at its first order. The
    /// code that comes of it never leaves this process, and is read in sandboxes of this rule alone.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn with_source(&self, source: &Source<'_>) -> Result<Self, Refusal> {
        let code = self.alone(COMPILE_FUEL, |store, instance| {
            let compile: Compile = instance.get_typed_func(&mut *store, "compile")?;
            Ok(compile.call(&mut *store, (source.text.to_owned(),))?.0)
        })?;
        let load = self.pre.component().get_export_index(None, "load");
        let load = load.ok_or_else(|| Refusal::Start("the engine takes nothing in".to_owned()))?;
        let source = CompiledSource { code: code.into(), load };
        let names = self.alone(START_FUEL, |store, instance| {
            let hooks: HookNames = instance.get_typed_func(&mut *store, "hooks")?;
            match source.load(store, instance)? {
                Ok(()) => Ok(Ok(hooks.call(&mut *store, ())?.0)),
                Err(text) => Ok(Err(text)),
            }
        })?;
        let hooks: Hooks =
            Hook::ALL.into_iter().filter(|it| names.iter().any(|name| name == it.as_str())).collect();
        if hooks == Hooks::NONE {
            return Err(Refusal::NoHook);
        }
        Ok(Self { hooks, source: Some(source), ..self.clone() })
    }

    /// What comes of a sandbox of its own.
    fn alone<T>(
        &self,
        fuel: u64,
        of: impl FnOnce(&mut Store<Session>, &Instance) -> Came<T>,
    ) -> Result<T, Refusal> {
        let start = |error: wasmtime::Error| Refusal::Start(short(&error));
        let mut store = store(&self.engine.engine, &Limits::of(0), fuel).map_err(start)?;
        store.set_hostcall_fuel(CODE_BYTES_MAX);
        let instance = self.pre.instantiate(&mut store).map_err(start)?;
        match of(&mut store, &instance) {
            Ok(Ok(it)) => Ok(it),
            Ok(Err(text)) => Err(Refusal::Source(bounded(&text))),
            Err(error) => Err(Refusal::Source(match error.downcast_ref::<Trap>() {
                Some(Trap::OutOfFuel) => format!("it takes more than {fuel} units of fuel to begin"),
                _ => short(&error),
            })),
        }
    }
}

/// A source that its engine has compiled, and where the engine takes it in.
#[derive(Clone)]
pub(crate) struct CompiledSource {
    code: Arc<[u8]>,
    load: ComponentExportIndex,
}

impl CompiledSource {
    /// Has the engine of a sandbox take it in, or says what is wrong with it.
    pub(crate) fn load(&self, store: &mut Store<Session>, instance: &Instance) -> Came<()> {
        let load: Load<'_> = instance.get_typed_func(&mut *store, self.load)?;
        Ok(load.call(&mut *store, (&self.code,))?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Source<'_>>, Refusal> {
        Source::read(text.as_bytes())
    }

    #[test]
    fn a_source_is_known_by_its_first_line_and_says_its_engine_and_schema() {
        assert_eq!(read("export function price() {}"), Ok(None));
        let source =
            read("// tillstream:rule javascript-1\r\n// tillstream:settings-schema {\"a\": 1}\nrest\n");
        let source = source.unwrap().unwrap();
        assert_eq!((source.settings_schema(), source.text), (Some("{\"a\": 1}"), "rest\n"));
        assert_eq!(source.engine_digest(), engines().last().unwrap().1);
        assert_eq!(read("// tillstream:rule javascript-1").unwrap().unwrap().text, "");
    }

    #[test]
    fn a_source_that_asks_for_what_is_not_there_is_refused() {
        assert_eq!(read("// tillstream:rule python-1\n"), Err(Refusal::Engine("python-1".into())));
        let twice = "// tillstream:settings-schema {}\n".repeat(2);
        assert!(matches!(
            read(&format!("// tillstream:rule javascript-1\n{twice}")),
            Err(Refusal::SettingsSchema(_))
        ));
        let torn = Source::read(b"// tillstream:rule javascript-1\n\xff");
        assert!(matches!(torn, Err(Refusal::Source(_))), "{torn:?}");
    }

    #[test]
    fn the_first_line_is_put_in_front_once() {
        let packed = with_engine("let a;\n", Some("{\n  \"b\": 1\n}"));
        assert_eq!(
            packed,
            "// tillstream:rule javascript-1\n// tillstream:settings-schema {   \"b\": 1 }\nlet a;\n"
        );
        let plain = with_engine("let a;\n", None);
        assert_eq!(plain, "// tillstream:rule javascript-1\nlet a;\n");
        assert_eq!(with_engine(&plain, None), plain);
    }

    #[test]
    fn the_newest_engine_is_the_last() {
        assert_eq!(ENGINES.last().map(|it| it.name), Some(NEWEST));
    }
}
