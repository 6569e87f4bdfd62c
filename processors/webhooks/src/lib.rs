//! Outgoing webhooks, as pure functions: who wants which event, in what order it is sent, when it is tried again, when it
//! is given up, and how it is signed. The shell that holds connections, clock and commit is `sender/`.

pub mod book;
pub mod endpoint;
pub mod feed;
pub mod filter;
pub mod lane;
pub mod message;
pub mod rows;
pub mod schedule;
pub mod signature;
pub mod target;

pub use book::{ENDPOINTS_MAX, EndpointBook, EndpointRefusal};
pub use endpoint::{Disabled, Endpoint};
pub use feed::{Feed, Health, Limits, Outcome, Send, Verdict};
pub use filter::EventFilter;
pub use lane::{Item, LaneChange, StoredLane};
pub use message::{MessageId, PublicEvent, Source};
pub use schedule::Schedule;
pub use signature::{SigningSecret, signatures};
pub use target::{TargetError, TargetPolicy};
