//! The route table: what the router is built from, and what `/openapi.json` must cover.

use crate::access::Scope;
use crate::access::Scope::{
    AnalyticsRead, CatalogRead, CatalogWrite, InventoryRead, InventoryWrite, KeysRead, KeysWrite, OpsRead,
    OpsWrite, OrdersRead, OrdersWrite, RuleSigningWrite, RulesRead, RulesWrite, TenantsWrite, WebhooksRead,
    WebhooksWrite,
};
use crate::encoding::compress;
use crate::headers::harden;
use crate::observe::observe;
use crate::orders::{actions, bulk, credits, events, place, query};
use crate::problem::{Code, Problem};
use crate::{
    Ingest, analytics, auth, categories, dead_letters, docs, inventory, keys, openapi, ops, products, rules,
    sandbox, tenants, topics, webhooks,
};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use http::{Method, Uri};
use std::sync::Arc;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;
const PATCH: Method = Method::PATCH;

/// One call.
pub(crate) struct Route {
    pub method: Method,
    pub path: &'static str,
    /// What a key must be allowed to do for it; `None`: it needs no key.
    pub scope: Option<Scope>,
    handler: MethodRouter<Arc<Ingest>>,
}

fn keyed(scope: Scope, method: Method, path: &'static str, handler: MethodRouter<Arc<Ingest>>) -> Route {
    Route { method, path, scope: Some(scope), handler }
}

fn open(path: &'static str, handler: MethodRouter<Arc<Ingest>>) -> Route {
    Route { method: Method::GET, path, scope: None, handler }
}

/// Every call there is.
pub(crate) fn table() -> Vec<Route> {
    [of_orders(), of_settings(), of_operations()].into_iter().flatten().collect()
}

/// Orders, what they are made of, what they came to.
fn of_orders() -> Vec<Route> {
    vec![
        keyed(OrdersWrite, POST, "/v1/orders", post(place::place)),
        keyed(OrdersRead, GET, "/v1/orders", get(query::list)),
        keyed(OrdersWrite, POST, "/v1/orders/bulk", post(bulk::bulk)),
        keyed(OrdersRead, GET, "/v1/orders/{id}", get(query::get)),
        keyed(OrdersRead, GET, "/v1/orders/events", get(events::of_tenant)),
        keyed(OrdersRead, GET, "/v1/orders/{id}/events", get(events::of_order)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/cancel", post(actions::cancel)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/capture", post(actions::capture)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/refunds", post(actions::refund)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/returns", post(actions::give_back)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/shipments", post(actions::ship)),
        keyed(OrdersWrite, POST, "/v1/orders/{id}/shipments/{shipment}/deliver", post(actions::deliver)),
        keyed(OrdersWrite, POST, "/v1/returns", post(credits::issue)),
        keyed(OrdersRead, GET, "/v1/returns/{id}", get(credits::get)),
        keyed(OrdersRead, GET, "/v1/sandbox/payments/{id}", get(sandbox::get)),
        keyed(OrdersWrite, POST, "/v1/sandbox/payments/{id}/authenticate", post(sandbox::authenticate)),
        keyed(CatalogRead, GET, "/v1/categories", get(categories::list)),
        keyed(CatalogRead, GET, "/v1/products", get(products::list)),
        keyed(CatalogWrite, PUT, "/v1/products/{sku}", put(products::put)),
        keyed(CatalogRead, GET, "/v1/products/{sku}", get(products::get)),
        keyed(CatalogWrite, DELETE, "/v1/products/{sku}", delete(products::remove)),
        keyed(InventoryRead, GET, "/v1/inventory/{sku}", get(inventory::get)),
        keyed(InventoryWrite, POST, "/v1/inventory/{sku}/adjustments", post(inventory::adjust)),
        keyed(AnalyticsRead, GET, "/v1/analytics/revenue", get(analytics::revenue)),
        keyed(AnalyticsRead, GET, "/v1/analytics/products", get(analytics::products)),
        keyed(AnalyticsRead, GET, "/v1/analytics/funnel", get(analytics::funnel)),
    ]
}

/// What a tenant sets up: rules, keys, webhooks.
fn of_settings() -> Vec<Route> {
    vec![
        keyed(RulesRead, GET, "/v1/rules", get(rules::list)),
        keyed(RulesRead, GET, "/v1/rules/{name}", get(rules::get)),
        keyed(RulesWrite, DELETE, "/v1/rules/{name}", delete(rules::retire)),
        keyed(RulesWrite, PUT, "/v1/rules/{name}/versions", put(rules::upload)),
        keyed(RulesRead, GET, "/v1/rules/{name}/versions", get(rules::versions)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/activate", post(rules::activate)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/rollback", post(rules::roll_back)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/backtests", post(rules::backtests::begin)),
        keyed(RulesRead, GET, "/v1/rules/{name}/backtests", get(rules::backtests::list)),
        keyed(RulesRead, GET, "/v1/rules/{name}/backtests/{id}", get(rules::backtests::get)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/backtests/{id}/cancel", post(rules::backtests::cancel)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/backtests/{id}/resume", post(rules::backtests::resume)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/shadow", post(rules::shadow)),
        keyed(RulesWrite, POST, "/v1/rules/{name}/canary", post(rules::canary)),
        keyed(RulesWrite, PUT, "/v1/rules/{name}/settings", put(rules::configure)),
        keyed(RulesRead, GET, "/v1/rules/{name}/samples", get(rules::samples)),
        keyed(RulesRead, GET, "/v1/rule-signing", get(rules::signing::get)),
        keyed(RuleSigningWrite, PUT, "/v1/rule-signing", put(rules::signing::set)),
        keyed(RuleSigningWrite, POST, "/v1/rule-signing/keys", post(rules::signing::add_key)),
        keyed(RuleSigningWrite, DELETE, "/v1/rule-signing/keys/{id}", delete(rules::signing::revoke_key)),
        keyed(KeysRead, GET, "/v1/keys", get(keys::list)),
        keyed(KeysWrite, POST, "/v1/keys", post(keys::create)),
        keyed(KeysWrite, DELETE, "/v1/keys/{id}", delete(keys::revoke)),
        keyed(KeysWrite, POST, "/v1/keys/{id}/rotate", post(keys::rotate)),
        keyed(TenantsWrite, GET, "/v1/tenants", get(tenants::list)),
        keyed(TenantsWrite, PUT, "/v1/tenants/{tenant}/limit", put(tenants::set_limit)),
        keyed(WebhooksWrite, POST, "/v1/webhooks/endpoints", post(webhooks::endpoints::create)),
        keyed(WebhooksRead, GET, "/v1/webhooks/endpoints", get(webhooks::endpoints::list)),
        keyed(WebhooksRead, GET, "/v1/webhooks/endpoints/{id}", get(webhooks::endpoints::get)),
        keyed(WebhooksWrite, PATCH, "/v1/webhooks/endpoints/{id}", patch(webhooks::endpoints::patch)),
        keyed(WebhooksWrite, DELETE, "/v1/webhooks/endpoints/{id}", delete(webhooks::endpoints::delete)),
        keyed(WebhooksWrite, POST, "/v1/webhooks/endpoints/{id}/test", post(webhooks::requests::test)),
        keyed(WebhooksWrite, POST, "/v1/webhooks/endpoints/{id}/secret", post(webhooks::requests::rotate)),
        keyed(WebhooksWrite, POST, "/v1/webhooks/endpoints/{id}/replay", post(webhooks::requests::replay)),
        keyed(WebhooksRead, GET, "/v1/webhooks/endpoints/{id}/deliveries", get(webhooks::deliveries::list)),
        keyed(
            WebhooksRead,
            GET,
            "/v1/webhooks/endpoints/{id}/deliveries/{message}",
            get(webhooks::deliveries::get),
        ),
        keyed(
            WebhooksWrite,
            POST,
            "/v1/webhooks/endpoints/{id}/deliveries/{message}/redeliver",
            post(webhooks::requests::redeliver),
        ),
    ]
}

/// What the operator looks at and mends.
fn of_operations() -> Vec<Route> {
    vec![
        keyed(OpsRead, GET, "/v1/dead-letters", get(dead_letters::list)),
        keyed(OpsWrite, POST, "/v1/dead-letters/redrive", post(dead_letters::redrive)),
        keyed(OpsRead, GET, "/v1/dead-letters/{topic}/{partition}/{offset}", get(dead_letters::get)),
        keyed(
            OpsWrite,
            POST,
            "/v1/dead-letters/{topic}/{partition}/{offset}/redrive",
            post(dead_letters::redrive_one),
        ),
        keyed(OpsRead, GET, "/v1/topics", get(topics::list)),
        keyed(OpsRead, GET, "/v1/topics/{topic}/records", get(topics::records)),
        open("/healthz", get(ops::healthz)),
        open("/readyz", get(ops::readyz)),
        open("/metrics", get(ops::metrics)),
        open("/openapi.json", get(openapi::json)),
        open("/docs", get(docs::docs)),
    ]
}

/// The router of a process without the ingest role: only what needs no key.
pub fn operations_router(ingest: Arc<Ingest>) -> Router {
    let open = table().into_iter().filter(|it| it.scope.is_none());
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
        match route.scope {
            Some(scope) => {
                let scoped = route.handler.route_layer(from_fn_with_state(scope, auth::require_scope));
                with_key = with_key.route(route.path, scoped);
            }
            None => without = without.route(route.path, route.handler),
        }
    }
    with_key
        .route_layer(from_fn_with_state(ingest.clone(), auth::require_key))
        .merge(without)
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response(harden))
        .layer(from_fn(compress))
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
