//! Holds every answer that any test here gets against `/openapi.json`: status, media type, body, codes of problems.

use crate::harness::Answer;
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use jsonschema::Validator;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tower::ServiceExt;

/// What the API says of itself.
pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    pub async fn of(router: &Router) -> Self {
        let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Self { document: serde_json::from_slice(&bytes).unwrap(), validators: Mutex::default() }
    }

    /// Every call: method, path, and what the document says of it.
    pub fn calls(&self) -> impl Iterator<Item = (Method, &str, &Value)> {
        self.document["paths"].as_object().unwrap().iter().flat_map(|(path, calls)| {
            calls
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, call)| (method.to_uppercase().parse().unwrap(), path.as_str(), call))
        })
    }

    /// The body the document shows for a call, if it takes one.
    pub fn example(call: &Value) -> Option<(&str, &Value)> {
        let (media_type, content) = call["requestBody"]["content"].as_object()?.iter().next()?;
        Some((media_type, &content["example"]))
    }

    fn template(&self, method: &Method, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap_or_default();
        let fits = |template: &str| {
            template.split('/').count() == path.split('/').count()
                && template
                    .split('/')
                    .zip(path.split('/'))
                    .all(|(wanted, it)| wanted.starts_with('{') || wanted == it)
        };
        // Of two that fit, such as /v1/orders/bulk and /v1/orders/{id}, the one with fewer parameters is meant.
        let of_path: Vec<&str> = self
            .calls()
            .filter(|(it, template, _)| it == method && fits(template))
            .map(|(_, template, _)| template)
            .collect();
        of_path.into_iter().min_by_key(|it| it.matches('{').count())
    }

    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let Some(template) = self.template(method, path) else { return };
        let status = answer.status.as_u16().to_string();
        let place = format!("{method} {template} {status}");
        let call = &self.document["paths"][template][method.as_str().to_lowercase()];
        // Segments that are no UTF-8, and the like, do not depend on the call.
        let mut response = &call["responses"][&status];
        if let Some(reference) = response["$ref"].as_str() {
            response = self.document.pointer(reference.trim_start_matches('#')).unwrap();
        }
        assert!(!response.is_null(), "{place} is not in the contract: {}", answer.text);
        let media_type = answer.header("content-type").split(';').next().unwrap();
        let Some(content) = response["content"].as_object() else {
            return assert_eq!(answer.text, "", "{place} has a body");
        };
        let content = content.get(media_type).unwrap_or_else(|| panic!("{place} is {media_type:?}"));
        for header in ["x-request-id", "x-content-type-options"] {
            assert_ne!(answer.header(header), "", "{place} lacks {header}");
        }
        let bodies: Vec<Value> = match media_type {
            "application/x-ndjson" => answer.lines(),
            "application/json" | "application/problem+json" => vec![answer.json()],
            _ => return,
        };
        let validator = self.validator(&format!("{place} {media_type}"), &content["schema"]);
        for body in bodies {
            let found: Vec<String> =
                validator.iter_errors(&body).map(|it| format!("{}: {it}", it.instance_path)).collect();
            assert!(found.is_empty(), "{place}: {found:#?} in {body}");
        }
    }

    fn validator(&self, place: &str, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock();
        let made = validators.entry(place.to_owned()).or_insert_with(|| {
            let mut schema = schema.clone();
            schema["components"] = self.document["components"].clone();
            Arc::new(jsonschema::options().should_validate_formats(true).build(&schema).unwrap())
        });
        made.clone()
    }
}
