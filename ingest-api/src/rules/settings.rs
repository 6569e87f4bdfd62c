//! What a rule is told beside the order, before it goes into an event.

use crate::problem::{FieldError, Problem};
use serde_json::{Map, Value};
use tillstream_rule_lifecycle::{Rule, SettingsSchema};
use tillstream_schemas::Text;

/// The settings as text, if the version's schema takes them.
///
/// # Errors
/// A problem that names every field that does not fit.
pub(super) fn checked(rule: &Rule, version: i64, settings: Map<String, Value>) -> Result<Text, Problem> {
    let settings = Value::Object(settings);
    // A version that is not there is the fold's to refuse; a schema was read when it was uploaded.
    let schema =
        rule.version(version).and_then(|it| SettingsSchema::parse(it.settings_schema.as_ref()?).ok());
    let misfits = schema.map_or_else(Vec::new, |it| it.misfits(&settings));
    if misfits.is_empty() {
        return Ok(settings.to_string().into());
    }
    let fix = "send what `settings_schema` of the version says";
    let error = |it: tillstream_rule_lifecycle::SettingsMisfit| {
        FieldError::new(format!("settings{}", it.path), it.message, fix)
    };
    Err(Problem::invalid_fields(misfits.into_iter().map(error).collect()))
}
