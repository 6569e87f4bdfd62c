//! Bad input as data: what is sent, and the problem it must be answered with. The router and the real binary are both held
//! against it.

use serde_json::{Value, json};

/// What is sent, and what must come back.
pub struct Case {
    pub name: String,
    pub method: String,
    pub path: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub status: u16,
    pub code: String,
    /// The field, header or parameter that must be named, with a fix.
    pub field: Option<String>,
    /// What `Allow` must list.
    pub allow: Option<Vec<String>>,
}

/// Every case of `cases.json`.
pub fn all() -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert!(cases.len() > 80, "{} cases", cases.len());
    cases.iter().map(read).collect()
}

/// A good order; cases change it.
pub fn order() -> Value {
    json!({
        "customer": "c-1", "currency": "GBP", "country": "GB",
        "lines": [{ "sku": "85123A", "quantity": 6, "unit_price": 255 }],
        "payment": { "method": "pm_card_visa" },
    })
}

fn read(case: &Value) -> Case {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {case}")).to_owned();
    let (method, path) = case["call"].as_str().unwrap().split_once(' ').unwrap();
    let mut headers: Vec<(String, String)> = match case["headers"].as_object() {
        Some(headers) => headers.iter().map(|(name, it)| (name.clone(), text(&unfolded(it)))).collect(),
        None if case["body"].is_null()
            && case["hex"].is_null()
            && case["order"].is_null()
            && case["pieces"].is_null() =>
        {
            Vec::new()
        }
        None => [("Content-Type", "application/json"), ("Idempotency-Key", "k")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    if let Some(bomb) = case["header_bomb"].as_array() {
        let (count, length) = (bomb[0].as_u64().unwrap(), bomb[1].as_u64().unwrap() as usize);
        headers.extend((0..count).map(|it| (format!("x-bomb-{it}"), "b".repeat(length))));
    }
    Case {
        name: text(&case["name"]),
        method: method.to_owned(),
        path: path.to_owned(),
        key: case["key"].as_str().unwrap_or("valid").to_owned(),
        headers,
        body: body(case),
        status: u16::try_from(case["expect"]["status"].as_u64().unwrap()).unwrap(),
        code: text(&case["expect"]["code"]),
        field: case["expect"]["field"].as_str().map(str::to_owned),
        allow: case["allow"].as_array().map(|it| it.iter().map(text).collect()),
    }
}

fn body(case: &Value) -> Vec<u8> {
    if let Some(hex) = case["hex"].as_str() {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        return (0..hex.len()).step_by(2).map(digits).collect();
    }
    if let Some(pieces) = case["pieces"].as_array() {
        return pieces.iter().flat_map(|it| repeated(it).into_bytes()).collect();
    }
    let Some(changes) = case["order"].as_object() else {
        return case["body"].as_str().unwrap_or_default().into();
    };
    let mut order = order();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        order.pointer_mut(parent).unwrap()[name] = unfolded(value);
    }
    order.to_string().into_bytes()
}

fn repeated(of: &Value) -> String {
    of[0].as_str().unwrap().repeat(of[1].as_u64().unwrap() as usize)
}

/// `{"repeat": [text, n]}` and `{"times": [value, n]}` stand for what is too long to write down.
fn unfolded(value: &Value) -> Value {
    if !value["repeat"].is_null() {
        return repeated(&value["repeat"]).into();
    }
    match value["times"].as_array() {
        Some(times) => vec![times[0].clone(); times[1].as_u64().unwrap() as usize].into(),
        None => value.clone(),
    }
}

/// What is wrong with the answer to a case, if anything. `header` reads one of the answer's headers.
pub fn fault(case: &Case, status: u16, header: impl Fn(&str) -> String, text: &str) -> Option<String> {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let said = |name: &str| problem[name].as_str().unwrap_or_default();
    let named = |field: &String| {
        let errors = problem["errors"].as_array().into_iter().flatten();
        errors.clone().any(|it| it["field"] == **field && it["fix"].as_str().is_some_and(|it| it.len() > 5))
    };
    let allowed = |allow: &Vec<String>| {
        let header = header("allow");
        let mut allowed: Vec<&str> = header.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        allowed == *allow
    };
    let demands = [
        ("another status", status == case.status && problem["status"] == status),
        ("another code", said("code") == case.code),
        ("no problem document", header("content-type") == "application/problem+json"),
        ("no detail", !said("detail").is_empty()),
        ("too long an answer", text.len() < 64 << 10),
        ("no request id", !header("x-request-id").is_empty()),
        ("the field or its fix is not named", case.field.as_ref().is_none_or(named)),
        ("another Allow", case.allow.as_ref().is_none_or(allowed)),
        ("no challenge", status != 401 || header("www-authenticate").starts_with("Bearer")),
    ];
    let fault = demands.into_iter().find(|(_, holds)| !holds)?.0;
    let short: String = text.chars().take(600).collect();
    Some(format!("{}: {fault}: {status} {short}", case.name))
}
