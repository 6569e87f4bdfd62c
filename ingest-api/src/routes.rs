//! The route table: what the router is built from, and what `/openapi.json` must cover.

use crate::observe::observe;
use crate::orders::{actions, bulk, credits, place, query};
use crate::problem::{Code, Problem};
use crate::{
    Ingest, analytics, auth, dead_letters, inventory, keys, openapi, ops, products, rules, sandbox, topics,
};
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use http::{HeaderName, HeaderValue, Method, Uri};
use std::sync::Arc;

/// One call.
pub(crate) struct Route {
    pub method: Method,
    pub path: &'static str,
    /// Whether it needs an API key.
    pub keyed: bool,
    handler: MethodRouter<Arc<Ingest>>,
}

fn keyed(method: Method, path: &'static str, handler: MethodRouter<Arc<Ingest>>) -> Route {
    Route { method, path, keyed: true, handler }
}

fn open(path: &'static str, handler: MethodRouter<Arc<Ingest>>) -> Route {
    Route { method: Method::GET, path, keyed: false, handler }
}

/// Every call there is.
pub(crate) fn table() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    vec![
        keyed(POST, "/v1/orders", post(place::place)),
        keyed(GET, "/v1/orders", get(query::list)),
        keyed(POST, "/v1/orders/bulk", post(bulk::bulk)),
        keyed(GET, "/v1/orders/{id}", get(query::get)),
        keyed(GET, "/v1/orders/{id}/events", get(query::events)),
        keyed(POST, "/v1/orders/{id}/cancel", post(actions::cancel)),
        keyed(POST, "/v1/orders/{id}/capture", post(actions::capture)),
        keyed(POST, "/v1/orders/{id}/refunds", post(actions::refund)),
        keyed(POST, "/v1/orders/{id}/returns", post(actions::give_back)),
        keyed(POST, "/v1/orders/{id}/shipments", post(actions::ship)),
        keyed(POST, "/v1/orders/{id}/shipments/{shipment}/deliver", post(actions::deliver)),
        keyed(POST, "/v1/returns", post(credits::issue)),
        keyed(GET, "/v1/returns/{id}", get(credits::get)),
        keyed(GET, "/v1/sandbox/payments/{id}", get(sandbox::get)),
        keyed(POST, "/v1/sandbox/payments/{id}/authenticate", post(sandbox::authenticate)),
        keyed(GET, "/v1/products", get(products::list)),
        keyed(PUT, "/v1/products/{sku}", put(products::put)),
        keyed(GET, "/v1/products/{sku}", get(products::get)),
        keyed(DELETE, "/v1/products/{sku}", delete(products::remove)),
        keyed(GET, "/v1/inventory/{sku}", get(inventory::get)),
        keyed(POST, "/v1/inventory/{sku}/adjustments", post(inventory::adjust)),
        keyed(GET, "/v1/analytics/revenue", get(analytics::revenue)),
        keyed(GET, "/v1/analytics/products", get(analytics::products)),
        keyed(GET, "/v1/analytics/funnel", get(analytics::funnel)),
        keyed(GET, "/v1/rules", get(rules::list)),
        keyed(GET, "/v1/rules/{name}", get(rules::get)),
        keyed(DELETE, "/v1/rules/{name}", delete(rules::retire)),
        keyed(PUT, "/v1/rules/{name}/versions", put(rules::upload)),
        keyed(GET, "/v1/rules/{name}/versions", get(rules::versions)),
        keyed(POST, "/v1/rules/{name}/activate", post(rules::activate)),
        keyed(POST, "/v1/rules/{name}/rollback", post(rules::roll_back)),
        keyed(GET, "/v1/keys", get(keys::list)),
        keyed(POST, "/v1/keys", post(keys::create)),
        keyed(DELETE, "/v1/keys/{id}", delete(keys::revoke)),
        keyed(GET, "/v1/dead-letters", get(dead_letters::list)),
        keyed(POST, "/v1/dead-letters/redrive", post(dead_letters::redrive)),
        keyed(GET, "/v1/dead-letters/{topic}/{partition}/{offset}", get(dead_letters::get)),
        keyed(POST, "/v1/dead-letters/{topic}/{partition}/{offset}/redrive", post(dead_letters::redrive_one)),
        keyed(GET, "/v1/topics", get(topics::list)),
        keyed(GET, "/v1/topics/{topic}/records", get(topics::records)),
        open("/healthz", get(ops::healthz)),
        open("/readyz", get(ops::readyz)),
        open("/metrics", get(ops::metrics)),
        open("/openapi.json", get(openapi::json)),
        open("/docs", get(ops::docs)),
    ]
}

/// The router of a process without the ingest role: only what needs no key.
pub fn operations_router(ingest: Arc<Ingest>) -> Router {
    let open = table().into_iter().filter(|it| !it.keyed);
    open.fold(Router::new(), |router, it| router.route(it.path, it.handler))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response(harden))
        .layer(from_fn_with_state(ingest.clone(), observe))
        .with_state(ingest)
}

/// The router of every call. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: else all callers
/// without a valid key share one limit.
pub fn router(ingest: Arc<Ingest>) -> Router {
    openapi::prepare();
    let (mut with_key, mut without) = (Router::new(), Router::new());
    for route in table() {
        if route.keyed {
            with_key = with_key.route(route.path, route.handler);
        } else {
            without = without.route(route.path, route.handler);
        }
    }
    with_key
        .route_layer(from_fn_with_state(ingest.clone(), auth::require_key))
        .merge(without)
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response(harden))
        .layer(from_fn_with_state(ingest.clone(), observe))
        .with_state(ingest)
}

async fn no_such_path(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Code::NoSuchPath, format!("there is no {path:?}; see /openapi.json")).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Code::MethodNotAllowed, format!("{path:?} does not take {method}; see /openapi.json"))
        .into_response()
}

/// Answers are data, never pages to sniff.
async fn harden(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}
