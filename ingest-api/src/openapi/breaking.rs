//! What of a contract a change would break for a client that was written against the one before.
//!
//! A request may widen and an answer may narrow, never the other way round: everything a client sends today must be taken
//! tomorrow, and everything it reads tomorrow must be something it knows today. What cannot be judged (another pattern, a
//! schema said in another way) counts as a break: a person decides.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Every break from one document to another, as sentences that begin with the place.
pub(super) fn breaks(before: &Value, after: &Value) -> Vec<String> {
    let mut breaks = Vec::new();
    let (old, new) = (Document(before), Document(after));
    for (path, calls) in members(&before["paths"]) {
        for (method, call) in members(calls) {
            let place = format!("{} {path}", method.to_uppercase());
            match after["paths"][path].get(method) {
                Some(now) => Call { old, new, place, breaks: &mut breaks }.compare(call, now),
                None => breaks.push(format!("{place}: the call is gone")),
            }
        }
    }
    breaks
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn words(value: &Value) -> BTreeSet<String> {
    items(value).iter().map(ToString::to_string).collect()
}

#[derive(Clone, Copy)]
struct Document<'a>(&'a Value);

impl<'a> Document<'a> {
    /// What a reference leads to; members beside the reference hold too.
    fn resolve(self, value: &Value) -> Value {
        let mut value = value.clone();
        while let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let target = self.0.pointer(reference.trim_start_matches('#')).cloned().unwrap_or_default();
            let Value::Object(beside) = value else { return target };
            let mut merged = target;
            if let Value::Object(merged) = &mut merged {
                merge(merged, beside);
            }
            value = merged;
        }
        value
    }
}

/// Adds members that stand beside a reference; those of both, such as `properties`, are merged.
fn merge(into: &mut Map<String, Value>, beside: Map<String, Value>) {
    for (name, value) in beside {
        if name == "$ref" {
            continue;
        }
        match (into.get_mut(&name), value) {
            (Some(Value::Object(there)), Value::Object(more)) => merge(there, more),
            (_, value) => drop(into.insert(name, value)),
        }
    }
}

struct Call<'a> {
    old: Document<'a>,
    new: Document<'a>,
    place: String,
    breaks: &'a mut Vec<String>,
}

impl Call<'_> {
    fn broke(&mut self, what: impl std::fmt::Display) {
        self.breaks.push(format!("{}: {what}", self.place));
    }

    fn compare(&mut self, before: &Value, after: &Value) {
        if before["operationId"] != after["operationId"] {
            self.broke("has another operationId");
        }
        self.security(before, after);
        self.parameters(before, after);
        self.body(before, after);
        self.answers(before, after);
    }

    fn security(&mut self, before: &Value, after: &Value) {
        let of = |document: Document<'_>, call: &Value| {
            call.get("security").or_else(|| document.0.get("security")).cloned().unwrap_or_default()
        };
        let (was, is) = (of(self.old, before), of(self.new, after));
        let suffices = |given: &Value| {
            items(&is).is_empty()
                || items(&is).iter().any(|wanted| {
                    members(wanted).all(|(scheme, scopes)| {
                        given.get(scheme).is_some_and(|had| words(scopes).is_subset(&words(had)))
                    })
                })
        };
        let nothing = Value::Object(Map::new());
        let given = if items(&was).is_empty() { std::slice::from_ref(&nothing) } else { items(&was) };
        if !given.iter().all(suffices) {
            self.broke("needs more authority than before");
        }
    }

    fn parameters(&mut self, before: &Value, after: &Value) {
        let of = |document: Document<'_>, call: &Value| -> Vec<Value> {
            items(&call["parameters"]).iter().map(|it| document.resolve(it)).collect()
        };
        let same = |a: &Value, b: &Value| a["in"] == b["in"] && a["name"] == b["name"];
        let (was, is) = (of(self.old, before), of(self.new, after));
        for parameter in &was {
            let name = format!("{} parameter {}", text(&parameter["in"]), text(&parameter["name"]));
            match is.iter().find(|it| same(it, parameter)) {
                None => self.broke(format!("{name} is gone")),
                Some(now) => {
                    if now["required"] == true && parameter["required"] != true {
                        self.broke(format!("{name} is required now"));
                    }
                    self.taken(&name, &parameter["schema"], &now["schema"]);
                }
            }
        }
        for parameter in is.iter().filter(|it| it["required"] == true) {
            if !was.iter().any(|it| same(it, parameter)) {
                self.broke(format!(
                    "{} parameter {} is new and required",
                    text(&parameter["in"]),
                    text(&parameter["name"])
                ));
            }
        }
    }

    fn body(&mut self, before: &Value, after: &Value) {
        let was = self.old.resolve(&before["requestBody"]);
        let is = self.new.resolve(&after["requestBody"]);
        if is["required"] == true && was["required"] != true {
            self.broke("the body is required now");
        }
        for (media_type, content) in members(&was["content"]) {
            match is["content"].get(media_type) {
                None => self.broke(format!("takes no {media_type} any more")),
                Some(now) => self.taken("body", &content["schema"], &now["schema"]),
            }
        }
    }

    fn answers(&mut self, before: &Value, after: &Value) {
        for (status, answer) in members(&before["responses"]) {
            let was = self.old.resolve(answer);
            let Some(is) = after["responses"].get(status).map(|it| self.new.resolve(it)) else {
                // A problem that does not come any more harms nobody.
                if status.starts_with('2') {
                    self.broke(format!("does not answer {status} any more"));
                }
                continue;
            };
            for (name, _) in members(&was["headers"]) {
                if is["headers"].get(name).is_none() {
                    self.broke(format!("{status} has no header {name} any more"));
                }
            }
            for (media_type, content) in members(&was["content"]) {
                match is["content"].get(media_type) {
                    None => self.broke(format!("{status} is no {media_type} any more")),
                    Some(now) => {
                        // New codes of problems are additions: the status says what kind of trouble it is.
                        let open_codes = !status.starts_with('2');
                        self.read(status, &content["schema"], &now["schema"], open_codes);
                    }
                }
            }
        }
    }

    /// What is sent: everything that was taken must still be.
    fn taken(&mut self, place: &str, before: &Value, after: &Value) {
        let found = Subset { given: self.old, taken: self.new, answer: false, open_codes: false }
            .check(place, before, after);
        found.into_iter().for_each(|it| self.broke(it));
    }

    /// What is read: everything that comes must have been known.
    fn read(&mut self, place: &str, before: &Value, after: &Value, open_codes: bool) {
        let found =
            Subset { given: self.new, taken: self.old, answer: true, open_codes }.check(place, after, before);
        found.into_iter().for_each(|it| self.broke(it));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether everything that one schema describes is taken by another.
#[derive(Clone, Copy)]
struct Subset<'a> {
    given: Document<'a>,
    taken: Document<'a>,
    /// An answer is judged: then `given` is the new schema, and a member the old one names must not vanish from it.
    answer: bool,
    open_codes: bool,
}

/// Bounds from below: `taken` may not be above `given`.
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
/// Bounds from above.
const UPPER: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
/// What can only be the same, or not asked for any more.
const SAME: [&str; 6] = ["pattern", "format", "multipleOf", "not", "uniqueItems", "const"];

impl Subset<'_> {
    fn check(self, place: &str, given: &Value, taken: &Value) -> Vec<String> {
        let (given, taken) = (self.given.resolve(given), self.taken.resolve(taken));
        let mut found = Vec::new();
        self.types(place, &given, &taken, &mut found);
        self.bounds(place, &given, &taken, &mut found);
        self.alternatives(place, &given, &taken, &mut found);
        self.members(place, &given, &taken, &mut found);
        if let Some(wanted) = taken.get("items") {
            let given = given.get("items").cloned().unwrap_or_default();
            found.extend(self.check(&format!("{place}[]"), &given, wanted));
        }
        if let Some(wanted) = taken.get("propertyNames") {
            let given = given.get("propertyNames").cloned().unwrap_or_default();
            found.extend(self.check(&format!("{place}.(names)"), &given, wanted));
        }
        found
    }

    fn types(self, place: &str, given: &Value, taken: &Value, found: &mut Vec<String>) {
        let of = |schema: &Value| -> Option<BTreeSet<String>> {
            match schema.get("type")? {
                Value::String(one) => Some(BTreeSet::from([one.clone()])),
                many => Some(items(many).iter().map(|it| text(it).to_owned()).collect()),
            }
        };
        if let Some(wanted) = of(taken) {
            let fits = |it: &String| wanted.contains(it) || (it == "integer" && wanted.contains("number"));
            let has_alternatives = given.get("anyOf").is_some() || given.get("oneOf").is_some();
            match of(given) {
                Some(given) if given.iter().all(fits) => {}
                None if has_alternatives => {}
                _ => found.push(format!("{place} has another type")),
            }
        }
        let open = self.open_codes && place.ends_with(".code");
        if let Some(wanted) = taken.get("enum").filter(|_| !open)
            && !given.get("enum").is_some_and(|it| words(it).is_subset(&words(wanted)))
        {
            found.push(format!("{place} has other words"));
        }
    }

    fn bounds(self, place: &str, given: &Value, taken: &Value, found: &mut Vec<String>) {
        let number = |schema: &Value, name: &str| schema.get(name).and_then(Value::as_f64);
        for name in LOWER {
            if number(taken, name).is_some_and(|wanted| number(given, name).is_none_or(|it| it < wanted)) {
                found.push(format!("{place} has another {name}"));
            }
        }
        for name in UPPER {
            if number(taken, name).is_some_and(|wanted| number(given, name).is_none_or(|it| it > wanted)) {
                found.push(format!("{place} has another {name}"));
            }
        }
        for name in SAME {
            if taken.get(name).is_some_and(|wanted| given.get(name) != Some(wanted)) {
                found.push(format!("{place} has another {name}"));
            }
        }
        if given.get("default") != taken.get("default") {
            found.push(format!("{place} has another default"));
        }
    }

    fn alternatives(self, place: &str, given: &Value, taken: &Value, found: &mut Vec<String>) {
        for name in ["anyOf", "oneOf", "allOf"] {
            let Some(wanted) = taken.get(name) else { continue };
            let alone = [given.clone()];
            let given = given.get(name).map_or(alone.as_slice(), items);
            let fits =
                |it: &Value| items(wanted).iter().any(|wanted| self.check(place, it, wanted).is_empty());
            if !given.iter().all(fits) || (name == "allOf" && given != items(wanted)) {
                found.push(format!("{place} has other alternatives"));
            }
        }
    }

    fn members(self, place: &str, given: &Value, taken: &Value, found: &mut Vec<String>) {
        let within = |name: &str| format!("{place}.{name}");
        for name in words(&taken["required"]).difference(&words(&given["required"])) {
            let name = name.trim_matches('"');
            let what = if self.answer { "may be missing now" } else { "is required now" };
            found.push(format!("{} {what}", within(name)));
        }
        let rest = taken.get("additionalProperties");
        for (name, schema) in members(&given["properties"]) {
            match (taken["properties"].get(name), rest) {
                (Some(wanted), _) => found.extend(self.check(&within(name), schema, wanted)),
                (None, Some(Value::Bool(false))) => found.push(format!("{} is gone", within(name))),
                (None, Some(wanted @ Value::Object(_))) => {
                    found.extend(self.check(&within(name), schema, wanted))
                }
                (None, _) => {}
            }
        }
        if self.answer {
            for (name, _) in members(&taken["properties"]) {
                if given["properties"].get(name).is_none() {
                    found.push(format!("{} is gone", within(name)));
                }
            }
        }
        match (given.get("additionalProperties"), rest) {
            (Some(Value::Bool(false)), _) | (_, None | Some(Value::Bool(true))) => {}
            (Some(given @ Value::Object(_)), Some(wanted @ Value::Object(_))) => {
                found.extend(self.check(&within("*"), given, wanted));
            }
            _ => found.push(format!("{place} takes fewer members")),
        }
    }
}
