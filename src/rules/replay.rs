//! A real call, run again here: its input as the pipeline kept it, on a module of the author's.

use super::input::Input;
use super::{RulesError, local};
use crate::cli::Target;
use crate::client::{Client, segment};
use crate::output::line;
use serde_json::{Value, json};
use std::path::Path;
use tillstream_stage::rule::Hook;

/// Which call.
pub(super) struct Wanted<'a> {
    /// The rule's name.
    pub rule: &'a str,
    /// The order's id.
    pub order: &'a str,
    /// The hook, where the rule has several.
    pub hook: Option<Hook>,
}

/// A call that the pipeline kept.
#[derive(Debug)]
struct Captured {
    input: Input,
    version: String,
    /// What is masked in the input, so that the pipeline keeps nobody's name.
    masked: Vec<String>,
    /// What the rule said then: an answer and a review, or the outcome by which it gave none.
    said: (Value, Value),
}

/// `rules replay`; whether the module says what was said then.
pub(super) async fn replay(
    target: &Target,
    wanted: &Wanted<'_>,
    module: &Path,
    save: Option<&Path>,
    cache: Option<&Path>,
) -> Result<bool, RulesError> {
    let client = Client::new(&target.url, &target.api_key)?;
    let path = format!("/v1/rules/{}/samples?order={}", segment(wanted.rule), segment(wanted.order));
    let page = client.get(&path).await?;
    let captured = find(&page, wanted)?;
    if let Some(out) = save {
        let text = format!("{:#}\n", fixture(&captured.input));
        std::fs::write(out, text).map_err(|error| RulesError::File { path: out.to_path_buf(), error })?;
    }
    let run = local::ask(module, &captured.input, None, cache)?;
    let said = match &run.result {
        Ok((answer, review)) => (json!(answer), json!(review)),
        Err(fault) => (json!(fault.outcome()), Value::Null),
    };
    let same = said == captured.said;
    if same {
        line(format_args!("as version {} said then", captured.version));
    } else {
        let (answer, review) = &captured.said;
        line(format_args!(
            "version {} said then: {:#}",
            captured.version,
            json!({"answer": answer, "review": review})
        ));
    }
    if !captured.masked.is_empty() {
        let masked = captured.masked.join(", ");
        line(format_args!(
            "masked in the input: {masked}; a rule that decides from it says something else here"
        ));
    }
    Ok(same)
}

/// The newest captured call of the wanted hook.
fn find(page: &Value, wanted: &Wanted<'_>) -> Result<Captured, RulesError> {
    let none = || RulesError::NoSample { rule: wanted.rule.to_owned(), order: wanted.order.to_owned() };
    let of_hook = |it: &&Value| wanted.hook.is_none_or(|hook| it["hook"] == hook.as_str());
    let sample = page["data"].as_array().into_iter().flatten().find(of_hook).ok_or_else(none)?;
    let mut input = sample["input"].clone();
    input["order_id"] = json!(wanted.order);
    if sample["settings"].is_object() {
        input["settings"] = sample["settings"].clone();
    }
    let input = Input::parse("the captured input", input.to_string().as_bytes())?;
    let said = match &sample["answer"] {
        Value::Null => (sample["outcome"].clone(), Value::Null),
        answer => (answer.clone(), sample["review"].clone()),
    };
    let word = |it: &Value| it.as_str().map(str::to_owned);
    let masked = sample["masked"].as_array().into_iter().flatten().filter_map(word).collect();
    Ok(Captured { input, version: word(&sample["version"]).unwrap_or_default(), masked, said })
}

/// A captured input as a fixture's file.
fn fixture(input: &Input) -> Value {
    let mut text = json!(input.call);
    text["order_id"] = json!(input.order_id);
    text["settings"] = json!(input.settings);
    text
}
