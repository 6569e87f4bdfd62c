//! `rules`.

use super::Target;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `rules`.
#[derive(Debug, Args)]
pub struct Rules {
    /// Where the compiled engine for JavaScript is kept from one command to the next; left out: `tillstream/rules` in the
    /// user's folder for caches.
    #[arg(long, global = true, env = "TILLSTREAM_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What to try, on which orders.
#[derive(Debug, Args)]
pub struct Backtest {
    /// The component, or JavaScript; it is uploaded as a version that answers nothing. Left out: a version that is there already.
    pub module: Option<PathBuf>,
    /// The rule's name; left out: the name of the component's file.
    #[arg(long, env = "TILLSTREAM_RULE_NAME")]
    pub name: Option<String>,
    /// Which version; left out: the module's, or the newest.
    #[arg(long, env = "TILLSTREAM_RULE_VERSION", conflicts_with = "module")]
    pub version: Option<i64>,
    /// The hook that is asked; left out: the first one of the version that a backtest can ask.
    #[arg(long, env = "TILLSTREAM_RULE_HOOK", value_enum)]
    pub hook: Option<HookName>,
    /// The version it is compared with; left out: what happened, or at the hooks allocate and risk what is active.
    #[arg(long, env = "TILLSTREAM_RULE_AGAINST", value_name = "VERSION")]
    pub against: Option<i64>,
    /// What it is told beside the order, a JSON object; left out: the settings of the active version.
    #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
    pub settings: Option<String>,
    /// Leaves the tenant's other active rules out of it.
    #[arg(long, env = "TILLSTREAM_RULE_ALONE")]
    pub alone: bool,
    /// Orders placed at this time or later, RFC 3339.
    #[arg(long, env = "TILLSTREAM_BACKTEST_FROM", value_name = "TIME")]
    pub from: Option<String>,
    /// Orders placed before this time, RFC 3339.
    #[arg(long, env = "TILLSTREAM_BACKTEST_TO", value_name = "TIME")]
    pub to: Option<String>,
    /// Orders a second, at most.
    #[arg(long, env = "TILLSTREAM_BACKTEST_RATE", value_name = "ORDERS")]
    pub orders_per_second: Option<u32>,
    /// Prints JSON instead of a table.
    #[arg(long, env = "TILLSTREAM_BACKTEST_JSON")]
    pub json: bool,
    /// The pipeline.
    #[command(flatten)]
    pub target: Target,
}

/// What holds for an order when a rule gives no answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Fallback {
    /// As if there were no rule.
    Skip,
    /// The order is refused.
    Refuse,
    /// Somebody looks at the order before its money is taken.
    Review,
}

/// Where a canary stops by itself.
#[derive(Clone, Copy, Debug, Args)]
pub struct CanaryBounds {
    /// It stops at so many failures; left out: 10.
    #[arg(long, env = "TILLSTREAM_RULE_STOP_AT_FAILURES")]
    pub stop_at_failures: Option<i64>,
    /// It stops once the totals of one currency's orders differ by so much from what the active version would have made
    /// them, minor units; left out: no bound.
    #[arg(long, env = "TILLSTREAM_RULE_STOP_AT_DIFFERENCE", value_name = "MINOR")]
    pub stop_at_difference: Option<i64>,
}

/// A language to write a rule in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust.
    Rust,
    /// JavaScript.
    Javascript,
    /// Python.
    Python,
}

/// A hook of a rule.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum HookName {
    /// Prices.
    Price,
    /// Locations.
    Allocate,
    /// Risk.
    Risk,
    /// Shipments.
    Ship,
    /// Dimensions for analytics.
    Measure,
}

/// What to do about signatures.
#[derive(Debug, Subcommand)]
pub enum SigningCommand {
    /// The keys, and whether a signature is needed.
    List {
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Trusts a key.
    Add {
        /// Its public half, in hex, as `keygen` prints it.
        public_key: String,
        /// What people call it.
        #[arg(long, env = "TILLSTREAM_RULE_KEY_NAME", default_value = "cli")]
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Trusts a key no more.
    Revoke {
        /// Its id, as `list` prints it.
        id: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Takes signed modules alone from now on.
    Require {
        /// Takes unsigned ones again.
        #[arg(long, env = "TILLSTREAM_RULE_SIGNING_OFF")]
        off: bool,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Begins a project in a new folder, from one of the examples: it builds and tests at once.
    New {
        /// The rule's name, and the folder's: a to z, 0 to 9 and -.
        name: String,
        /// The language.
        #[arg(long, env = "TILLSTREAM_RULE_LANGUAGE", value_enum, default_value = "rust")]
        lang: Language,
        /// The example to begin from.
        #[arg(
            long,
            env = "TILLSTREAM_RULE_EXAMPLE",
            default_value = "volume-discount",
            value_parser = PossibleValuesParser::new(crate::rules::example_names())
        )]
        from: String,
    },
    /// Builds a rule written in Rust (needs the target wasm32-unknown-unknown) and writes its component.
    Build {
        /// The project's folder.
        #[arg(default_value = ".")]
        project: PathBuf,
        /// Where the component goes; left out: `target/<name>.wasm` in the project.
        #[arg(long, short, env = "TILLSTREAM_RULE_OUT", value_name = "FILE")]
        out: Option<PathBuf>,
        /// Keeps the names of functions, for `rules run --profile`; the module is larger by them.
        #[arg(long, env = "TILLSTREAM_RULE_NAMES")]
        names: bool,
    },
    /// Builds a rule and runs its fixtures: what it says must be what is kept beside them.
    Test {
        /// The project's folder.
        #[arg(default_value = ".")]
        project: PathBuf,
        /// Keeps what the rule says now.
        #[arg(long, env = "TILLSTREAM_RULE_UPDATE")]
        update: bool,
    },
    /// Checks, compiles and tries a module here, as an upload does.
    Validate {
        /// The component, or the JavaScript that `rules build` has packed.
        module: PathBuf,
    },
    /// Runs a module here on one input; prints its answer, log, and the share of each limit that it used.
    Run {
        /// The component, or the JavaScript that `rules build` has packed.
        module: PathBuf,
        /// A JSON file: what the hook is asked.
        #[arg(long, env = "TILLSTREAM_RULE_INPUT", value_name = "FILE")]
        input: PathBuf,
        /// The rule's settings, a JSON object; left out: those in the file, or none.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
        settings: Option<String>,
        /// Writes where the fuel went: collapsed stacks, for tools that draw flame graphs.
        #[arg(long, env = "TILLSTREAM_RULE_PROFILE", value_name = "FILE")]
        profile: Option<PathBuf>,
    },
    /// Fetches the input of a real call and runs it here; says whether the module answers what was answered then.
    Replay {
        /// The rule's name.
        name: String,
        /// The component, or the JavaScript, to run.
        module: PathBuf,
        /// The order's id.
        #[arg(long, env = "TILLSTREAM_RULE_ORDER_ID", value_name = "ID")]
        order: String,
        /// The hook, where the rule has several; left out: the newest call of any.
        #[arg(long, env = "TILLSTREAM_RULE_HOOK", value_enum)]
        hook: Option<HookName>,
        /// Keeps the input as a fixture.
        #[arg(long, env = "TILLSTREAM_RULE_SAVE", value_name = "FILE")]
        save: Option<PathBuf>,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Uploads a module as a rule's next version; it answers nothing before it is activated.
    Upload {
        /// The rule's name.
        name: String,
        /// The component, or the JavaScript that `rules build` has packed.
        module: PathBuf,
        /// A JSON schema for its settings: the module brings it along from now on.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS_SCHEMA", value_name = "FILE")]
        settings_schema: Option<PathBuf>,
        /// Its signature, as `sign` writes it; left out: the component's file name with `.sig` behind it, where that is there.
        #[arg(long, env = "TILLSTREAM_RULE_SIGNATURE", value_name = "FILE")]
        signature: Option<PathBuf>,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Activates a version.
    // Here `--version` is the rule's, not the binary's.
    #[command(disable_version_flag = true)]
    Activate {
        /// The rule's name.
        name: String,
        /// Which version; left out: the newest.
        #[arg(long, env = "TILLSTREAM_RULE_VERSION")]
        version: Option<i64>,
        /// Its place among the rules of a hook: lower is asked first.
        #[arg(long, env = "TILLSTREAM_RULE_ORDER")]
        order: Option<i32>,
        /// What it is told beside the order, a JSON object.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
        settings: Option<String>,
        /// What holds when it gives no answer.
        #[arg(long, env = "TILLSTREAM_RULE_FALLBACK", value_enum)]
        fallback: Option<Fallback>,
        /// Lets it hold although it gives no answer to most recent inputs.
        #[arg(long, env = "TILLSTREAM_RULE_FORCE")]
        force: bool,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Asks a version beside the active one; what it says is compared, and never applied.
    #[command(disable_version_flag = true)]
    Shadow {
        /// The rule's name.
        name: String,
        /// Which version; left out: the newest.
        #[arg(long, env = "TILLSTREAM_RULE_VERSION")]
        version: Option<i64>,
        /// What it is told beside the order, a JSON object; left out: what the active version is told.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
        settings: Option<String>,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Lets a version answer for a share of the orders; at a bound it stops by itself.
    #[command(disable_version_flag = true)]
    Canary {
        /// The rule's name.
        name: String,
        /// Which version; left out: the newest.
        #[arg(long, env = "TILLSTREAM_RULE_VERSION")]
        version: Option<i64>,
        /// The share of the orders.
        #[arg(long, env = "TILLSTREAM_RULE_PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: u8,
        /// What it is told beside the order, a JSON object; left out: what the active version is told.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
        settings: Option<String>,
        /// Where it stops.
        #[command(flatten)]
        bounds: CanaryBounds,
        /// Lets it hold although it gives no answer to most recent inputs.
        #[arg(long, env = "TILLSTREAM_RULE_FORCE")]
        force: bool,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Changes the settings of the active version.
    Settings {
        /// The rule's name.
        name: String,
        /// What it is told beside the order, a JSON object.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS", value_name = "JSON")]
        settings: String,
        /// Lets it hold although it gives no answer to most recent inputs.
        #[arg(long, env = "TILLSTREAM_RULE_FORCE")]
        force: bool,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Ends a trial; without one, brings back what was active before.
    Rollback {
        /// The rule's name.
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Takes a rule out.
    Retire {
        /// The rule's name.
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Tries a version on the tenant's past orders and prints what would have been different; Ctrl-C stops it.
    // Here `--version` is the rule's, not the binary's.
    #[command(disable_version_flag = true)]
    Backtest(Box<Backtest>),
    /// The versions of a rule: who signed them, and what they made of recent inputs.
    Versions {
        /// The rule's name.
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Makes a key that signs modules, in a new file, and prints its public half.
    Keygen {
        /// Where the key goes.
        #[arg(long, env = "TILLSTREAM_RULE_KEY", value_name = "FILE")]
        key: PathBuf,
    },
    /// Signs a module: writes its signature beside it, where `upload` and `backtest` find it.
    Sign {
        /// The component, or the JavaScript that `rules build` has packed.
        module: PathBuf,
        /// The key, as `keygen` made it (PKCS#8, PEM).
        #[arg(long, env = "TILLSTREAM_RULE_KEY", value_name = "FILE")]
        key: PathBuf,
        /// The JSON schema that `upload` will be given for its settings: it becomes a part of the module.
        #[arg(long, env = "TILLSTREAM_RULE_SETTINGS_SCHEMA", value_name = "FILE")]
        settings_schema: Option<PathBuf>,
    },
    /// Whose signatures of modules the tenant trusts, and whether they are needed.
    Signing {
        /// What to do.
        #[command(subcommand)]
        command: SigningCommand,
    },
    /// The tenant's rules.
    List {
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}
