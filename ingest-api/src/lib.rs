//! The HTTP door: request, validation, command, log; queries.
//!
//! [`router`] builds the axum router over [`Ingest`], which holds what the calls need. A 202 is sent after the
//! command is durable in the log; nothing here decides about orders, stock or money.

pub mod auth;
#[doc(hidden)]
pub mod bare;
pub mod moment;
pub mod ports;
pub mod problem;

mod analytics;
mod body;
mod commands;
mod countries;
mod cursor;
mod dead_letters;
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
mod params;
mod products;
mod routes;
mod sandbox;
mod shape;
mod topics;

pub use auth::ApiKeys;
pub use ingest::{Ingest, Parts};
pub use routes::{operations_router, router};
