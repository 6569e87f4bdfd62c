//! A question for a module, as a file or a captured call holds it.

use super::{RulesError, read};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use tillstream_rule_host::Run;
use tillstream_stage::rule::RuleCall;

/// What a hook is asked, with the settings it is asked under.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Input {
    /// The order's id.
    #[serde(default = "no_order")]
    pub order_id: String,
    /// The rule's settings.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The question.
    #[serde(flatten)]
    pub call: RuleCall,
}

fn no_order() -> String {
    "ord_local".to_owned()
}

impl Input {
    /// From a file.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        Self::parse(&path.display().to_string(), &read(path)?)
    }

    /// From JSON; `what` names it in an error.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, RulesError> {
        serde_json::from_slice(bytes).map_err(|error| RulesError::Json { what: what.to_owned(), error })
    }

    /// The settings as the module gets them.
    pub fn settings_text(&self) -> String {
        Value::Object(self.settings.clone()).to_string()
    }
}

/// What a module said: what `rules run` prints and a snapshot keeps. Not what it cost, which the compiler's version
/// changes.
pub(super) fn outcome(run: &Run) -> Value {
    let log: Vec<_> = run.log.lines().collect();
    match &run.result {
        Ok((answer, review)) => json!({ "answer": answer, "review": review, "log": log }),
        Err(fault) => json!({ "fault": fault.outcome(), "message": fault.to_string(), "log": log }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::rule::Hook;

    const PRICE: &str = r#""hook":"price","order":{"currency":"GBP","metadata":{"customer.tier":"gold"}},
        "lines":[{"sku":"71053","quantity":12,"unit_price_minor":339}]"#;

    #[test]
    fn settings_and_the_order_id_may_stand_beside_the_question() {
        let plain = Input::parse("it", format!("{{{PRICE}}}").as_bytes()).unwrap();
        assert_eq!((plain.call.hook(), plain.call.lines()), (Hook::Price, 1));
        assert_eq!((plain.order_id.as_str(), plain.settings_text().as_str()), ("ord_local", "{}"));
        let set = format!(r#"{{"order_id":"ord_1","settings":{{"from_quantity":5}},{PRICE}}}"#);
        let set = Input::parse("it", set.as_bytes()).unwrap();
        assert_eq!(
            (set.order_id.as_str(), set.settings_text().as_str()),
            ("ord_1", r#"{"from_quantity":5}"#)
        );
        assert_eq!(set.call, plain.call);
    }

    #[test]
    fn an_input_without_a_hook_is_refused_with_its_name() {
        let error = Input::parse("orders.json", br#"{"lines":[]}"#).unwrap_err().to_string();
        assert!(error.starts_with("TS0932: orders.json") && error.contains("hook"), "{error}");
        let error = Input::parse("x", br#"{"hook":"cook","order":{},"lines":[]}"#).unwrap_err().to_string();
        assert!(error.contains("cook"), "{error}");
    }
}
