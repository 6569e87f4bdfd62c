//! The HTTP door: request, validation, command, log; queries.
//!
//! [`router`] builds the axum router over [`Ingest`], which holds what the calls need. A 202 is sent after the
//! command is durable in the log; nothing here decides about orders, stock or money.

pub mod access;
pub mod auth;
#[doc(hidden)]
pub mod bare;
mod door;
mod headers;
pub mod moment;
pub mod ports;
pub mod problem;

mod analytics;
mod body;
mod categories;
mod commands;
mod countries;
mod cursor;
mod dead_letters;
mod docs;
mod encoding;
mod idempotency;
mod in_flight;
mod ingest;
mod inventory;
mod keys;
mod limiter;
mod observe;
mod openapi;
mod ops;
mod orders;
mod overload;
mod params;
mod products;
mod routes;
mod rules;
mod sandbox;
mod shape;
mod streams;
mod tenants;
mod topics;
pub mod webhooks;
mod written;

pub use access::ApiKeys;
pub use door::{DoorSettings, serve};
pub use headers::{BadOrigin, allow_origins, parse_origin};
pub use ingest::{Bounds, Ingest, Parts};
pub use overload::LoadBounds;
pub use routes::{operations_router, router};
