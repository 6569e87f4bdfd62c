//! Puts the calls together to one OpenAPI 3.1 document.

use super::call::{Answer, Body, Call};
use super::{calls, input};
use crate::access::Scope;
use crate::idempotency::{KEY_CHARACTERS_MAX, WAIT_SECONDS_MAX};
use crate::problem::{self, Code, Problem};
use crate::routes::table;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const ABOUT: &str = "Orders in; priced, reserved, paid, fulfilled and counted.

Every call below `/v1` needs `Authorization: Bearer <api key>`; the tenant comes from the key, and nothing of another \
tenant can be seen or named. Amounts are whole minor units (2.55 is `255`), times RFC 3339. A 202 is sent once the command \
is durable. Errors are problem documents (RFC 9457): `code` is stable, `errors` names each field and the fix. \
Send `X-Request-Id` or `traceparent` to find a call again: a trace id, or a request id that is a UUID, stands in every \
record and log line that the call causes. Every answer carries `X-Request-Id`.";

const TAGS: [(&str, &str); 10] = [
    ("orders", "Place orders, act on them, read them."),
    ("returns", "Returns and credits that name no order."),
    ("products", "The catalog. A change answers once it is in force."),
    ("inventory", "Stock levels and adjustments."),
    ("analytics", "What the orders came to, in event time."),
    ("rules", "The tenant's own rules: upload a module, activate a version, roll back."),
    ("keys", "API keys: what they may do, how long, how often; and the tenants they speak for."),
    ("webhooks", "Endpoints that hear of events, signed as Standard Webhooks says; deliveries, replays."),
    ("sandbox", "The sandbox payment provider's back door."),
    ("operations", "Dead letters, topics, health, metrics, this document."),
];

/// Builds the document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|it| {
        it.definitions_path = "/components/schemas".into();
        it.meta_schema = None;
    });
    let mut parts = Parts { generator: settings.into_generator(), ..Parts::default() };
    parts.generator.subschema_for::<problem::Body<'static>>();
    parts.schemas.extend(input::shared());
    let scopes: BTreeMap<(&str, String), Option<Scope>> =
        table().into_iter().map(|it| ((it.path, it.method.to_string()), it.scope)).collect();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in calls::all() {
        let scope = scopes.get(&(call.path, call.method.to_string())).copied().flatten();
        let operation = parts.operation(&call, scope);
        paths.entry(call.path).or_default().insert(call.method.as_str().to_lowercase(), operation);
    }
    parts.schemas.extend(parts.generator.take_definitions(true));
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, about)| json!({ "name": name, "description": about })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tillstream",
            "version": "1",
            "summary": "Orders in, priced, reserved, paid, fulfilled and counted",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "apiKey": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "apiKey": { "type": "http", "scheme": "bearer", "description": "An API key: `till_…`. Each call names the scope that the key needs." } },
            "parameters": headers(),
            "headers": answer_headers(),
            "responses": parts.responses,
            "schemas": parts.schemas,
        },
    })
}

#[derive(Default)]
struct Parts {
    generator: SchemaGenerator,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
}

impl Parts {
    fn operation(&mut self, call: &Call, scope: Option<Scope>) -> Value {
        let mut parameters: Vec<Value> = call.segments.iter().map(input::segment).collect();
        if call.idempotent {
            parameters.push(json!({ "$ref": "#/components/parameters/IdempotencyKey" }));
        }
        if call.waits {
            parameters.push(json!({ "$ref": "#/components/parameters/PreferWait" }));
        }
        parameters.extend(call.query.iter().map(input::query));
        let mut operation = json!({
            "operationId": call.id,
            "summary": call.summary,
            "tags": [call.tag],
            "responses": self.responses_of(call, scope.is_some()),
            "security": scope.map_or(json!([]), |it| json!([{ "apiKey": [it.as_str()] }])),
        });
        if !call.about.is_empty() {
            operation["description"] = call.about.into();
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = &call.body {
            operation["requestBody"] = self.request_body(body);
        }
        operation
    }

    fn request_body(&mut self, body: &Body) -> Value {
        if !body.is_json() {
            let schema = json!({ "type": "string", "format": "binary" });
            let types = std::iter::once(&body.media_type).chain(body.other_types);
            let content: Map<String, Value> =
                types.map(|it| ((*it).to_owned(), json!({ "schema": schema }))).collect();
            return json!({ "required": true, "description": body.about, "content": content });
        }
        self.schemas.insert(body.name.to_owned(), input::object(body.fields));
        let schema = json!({ "$ref": format!("#/components/schemas/{}", body.name) });
        let mut request = json!({
            // No JSON at all is an empty object, and no lines are no lines.
            "required": body.media_type == "application/json" && body.fields.iter().any(|it| it.required),
            "content": { body.media_type: { "schema": schema, "example": body.example } },
        });
        if !body.about.is_empty() {
            request["description"] = body.about.into();
        }
        request
    }

    fn responses_of(&mut self, call: &Call, keyed: bool) -> Map<String, Value> {
        let mut responses = Map::new();
        for answer in &call.answers {
            let made = self.answer(answer);
            match responses.get_mut(&answer.status.to_string()) {
                // The same answer in another form.
                Some(known) => {
                    known["content"][answer.media_type] = made["content"][answer.media_type].clone()
                }
                None => {
                    responses.insert(answer.status.to_string(), made);
                }
            }
        }
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in call.all_problems(keyed) {
            by_status.entry(code.status().as_u16()).or_default().push(code);
        }
        for (status, codes) in by_status {
            let name = codes.iter().map(|it| it.as_str()).collect::<Vec<_>>().join("-");
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            self.responses.entry(name).or_insert_with(|| problem_response(&codes));
            responses.insert(status.to_string(), reference);
        }
        responses
    }

    fn answer(&mut self, answer: &Answer) -> Value {
        let request_id = json!({ "$ref": "#/components/headers/X-Request-Id" });
        let mut headers = Map::from_iter([("X-Request-Id".to_owned(), request_id)]);
        for (name, about) in &answer.headers {
            headers
                .insert((*name).to_owned(), json!({ "description": about, "schema": { "type": "string" } }));
        }
        let mut response = json!({ "description": answer.about, "headers": headers });
        if !answer.media_type.is_empty() {
            let mut content = match answer.schema {
                Some(schema) => json!({ "schema": schema(&mut self.generator) }),
                None if answer.media_type == "application/json" => json!({ "schema": { "type": "object" } }),
                None => json!({ "schema": { "type": "string" } }),
            };
            if let Some(example) = &answer.example {
                content["example"] = example.clone();
            }
            response["content"] = json!({ answer.media_type: content });
        }
        let links: Map<String, Value> = answer
            .links
            .iter()
            .map(|link| {
                let parameters: Map<String, Value> =
                    link.parameters.iter().map(|(name, from)| ((*name).to_owned(), (*from).into())).collect();
                (link.to.to_owned(), json!({ "operationId": link.to, "parameters": parameters }))
            })
            .collect();
        if !links.is_empty() {
            response["links"] = links.into();
        }
        response
    }
}

/// One status, and the codes it may come with.
fn problem_response(codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|it| it.as_str()).collect();
    let about: Vec<String> = codes.iter().map(|it| format!("`{}` {}", it.as_str(), it.title())).collect();
    let examples: Map<String, Value> = codes
        .iter()
        .map(|code| {
            let problem = Problem::new(*code, code.title());
            (code.as_str().to_owned(), json!({ "value": problem }))
        })
        .collect();
    let schema = json!({
        "$ref": "#/components/schemas/Problem",
        "properties": { "code": { "enum": names } },
    });
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    for (name, sent) in [
        ("Retry-After", codes.iter().any(|it| matches!(it.status().as_u16(), 429 | 503))),
        ("WWW-Authenticate", codes.contains(&Code::Unauthorized)),
    ] {
        if sent {
            headers[name] = json!({ "$ref": format!("#/components/headers/{name}") });
        }
    }
    json!({
        "description": about.join("; "),
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    })
}

fn headers() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": true, "example": "order-1",
            "description": "Visible ASCII, one per command, kept for 30 days: a repeat with the same body answers the same id, \
                with another body 422",
            "schema": { "type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS_MAX, "pattern": "^[!-~]+$" },
        },
        "PreferWait": {
            "name": "Prefer", "in": "header", "required": false, "example": "wait=5",
            "description": format!(
                "`wait=SECONDS`, at most {WAIT_SECONDS_MAX}: answer with the outcome if it comes in time (RFC 7240)"
            ),
            "schema": { "type": "string" },
        },
    })
}

fn answer_headers() -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    json!({
        "X-Request-Id": text("The id of this call: the one that was sent, else one of ours"),
        "Retry-After": {
            "description": "Seconds until the call may succeed, where that is known",
            "schema": { "type": "integer", "minimum": 0 },
        },
        "WWW-Authenticate": text("How to authenticate: `Bearer`"),
    })
}
