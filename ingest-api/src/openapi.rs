//! `/openapi.json`: written by hand, held against the route table by a test.

use axum::response::{IntoResponse, Response};
use http::header;

const DOCUMENT: &str = include_str!("../static/openapi.json");

/// The contract.
pub(crate) async fn json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::table;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn the_document_has_exactly_the_calls_the_router_has() {
        let document = document();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, call) in methods.as_object().unwrap() {
                documented.insert((path.clone(), method.to_uppercase()));
                assert!(call["summary"].is_string() && call["responses"].is_object(), "{method} {path}");
            }
        }
        let routed: BTreeSet<_> =
            table().into_iter().map(|it| (it.path.to_owned(), it.method.to_string())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn keys_and_path_parameters_are_as_the_routes_have_them() {
        let document = document();
        for route in table() {
            let call = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert_eq!(
                call["security"].as_array().is_none(),
                route.scope.is_some(),
                "{} {}",
                route.method,
                route.path
            );
            let named: BTreeSet<&str> = call["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|it| it["in"] == "path")
                .filter_map(|it| it["name"].as_str())
                .collect();
            let in_path: BTreeSet<&str> =
                route.path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, in_path, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    object.values().for_each(|it| walk(it, document));
                }
                Value::Array(items) => items.iter().for_each(|it| walk(it, document)),
                _ => {}
            }
        }
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        walk(&document, &document);
    }
}
