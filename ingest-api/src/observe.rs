//! What every call leaves behind: a duration by route and status, a request id, a trace context.

use crate::Ingest;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prometheus::{HistogramOpts, HistogramVec, Registry};
use std::convert::Infallible;
use std::sync::Arc;
use tillstream_schemas::Text;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: &str = "traceparent";

/// The HTTP metrics.
pub(crate) struct HttpMetrics {
    seconds: HistogramVec,
}

impl HttpMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let buckets =
            vec![0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
        let help = "How long a call took until its answer began, by matched route";
        let options = HistogramOpts::new("tillstream_http_request_seconds", help).buckets(buckets);
        let seconds = HistogramVec::new(options, &["route", "status"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { seconds })
    }
}

/// The W3C trace context of a call: the client's, one made of its request id, or one of ours.
#[derive(Clone, Debug)]
pub(crate) struct Trace(pub Text);

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(TRACEPARENT).and_then(|it| it.to_str().ok()).filter(|it| is_traceparent(it)) {
            Some(given) => Self(given.into()),
            None => Self::new(headers.get(REQUEST_ID).and_then(|it| uuid_bytes(it.as_bytes()))),
        }
    }

    /// One of ours, under the trace id that is given.
    fn new(trace_id: Option<[u8; 16]>) -> Self {
        let mut random = [0; 24];
        if getrandom::fill(&mut random).is_err() {
            // A trace without randomness is worth less than an order: go on with a fixed one.
            random = [1; 24];
        }
        if let Some(trace_id) = trace_id {
            random[..16].copy_from_slice(&trace_id);
        }
        let mut text = Text::with_capacity(55);
        text.push_str("00-");
        for (index, byte) in random.into_iter().enumerate() {
            if index == 16 {
                text.push('-');
            }
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 15));
        }
        text.push_str("-00");
        Self(text)
    }

    fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

fn hex_digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 })
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_traceparent(text: &str) -> bool {
    let hex = |it: &str| it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let some = |it: &str| hex(it) && it.bytes().any(|it| it != b'0');
    text.is_ascii()
        && text.len() == 55
        && text.starts_with("00-")
        && some(&text[3..35])
        && &text[35..36] == "-"
        && some(&text[36..52])
        && &text[52..53] == "-"
        && hex(&text[53..])
}

/// The bytes of a request id that is a UUID, with or without its hyphens: it can be the trace id, and so the one id that
/// stands in every record and log line of the call. Other request ids stand in the access log, beside the trace id.
fn uuid_bytes(request_id: &[u8]) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if !matches!(request_id.len(), 32 | 36) {
        return None;
    }
    let is_hyphen = |at: &usize| request_id.len() == 36 && HYPHENS.contains(at);
    let mut value = 0_u128;
    for (at, byte) in request_id.iter().enumerate() {
        match (is_hyphen(&at), byte) {
            (true, b'-') => {}
            (true, _) => return None,
            (false, byte) => value = value << 4 | u128::from(char::from(*byte).to_digit(16)?),
        }
    }
    (value != 0).then(|| value.to_be_bytes())
}

/// Who called, for the access log: told by an answer whose call had a valid key.
#[derive(Clone, Debug)]
pub(crate) struct CallOf(pub Text);

/// Calls that somebody makes all the time and nobody asks about afterwards.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// One line per call, without anything about persons: no address, no key, no customer, no path or query as it was sent.
/// The target is `access`, so that a filter such as `info,access=off` silences it.
fn log_access(method: &str, route: &str, seconds: f64, response: &Response, trace: &Trace) {
    let status = response.status().as_u16();
    let tenant = response.extensions().get::<CallOf>().map_or("", |it| it.0.as_str());
    let request_id = response.headers().get(REQUEST_ID).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (trace_id, ms) = (trace.trace_id(), (seconds * 1e6).round() / 1e3);
    if QUIET.contains(&route) {
        tracing::debug!(target: "access", method, route, status, ms, tenant, request_id, trace_id, "call");
    } else {
        tracing::info!(target: "access", method, route, status, ms, tenant, request_id, trace_id, "call");
    }
}

/// The methods that a line or a label may name; what else a client makes up is one of many.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Times the call by its matched route, and sees to request id and trace context.
pub(crate) async fn observe(State(ingest): State<Arc<Ingest>>, mut request: Request, next: Next) -> Response {
    let begun_ns = ingest.clock.monotonic_ns();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let trace = Trace::of(request.headers());
    let request_id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|it| it.len() <= 128 && it.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .or_else(|| HeaderValue::from_str(trace.trace_id()).ok());
    let method = known(request.method());
    request.extensions_mut().insert(trace.clone());
    let mut response = next.run(request).await;
    if let Some(request_id) = request_id {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let seconds = ingest.clock.monotonic_ns().saturating_sub(begun_ns) as f64 / 1e9;
    ingest.metrics.seconds.with_label_values(&[route, response.status().as_str()]).observe(seconds);
    log_access(method, route, seconds, &response, &trace);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_of_ours_is_a_valid_one_and_a_bad_one_is_replaced() {
        assert!(is_traceparent(&Trace::new(None).0));
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, good.parse().unwrap());
        assert_eq!(Trace::of(&headers).0, good);
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_id_that_is_a_uuid_becomes_the_trace_id_and_another_does_not() {
        let of = |request_id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, request_id.parse().unwrap());
            Trace::of(&headers)
        };
        for uuid in ["4BF92F35-77b3-4da6-a3ce-929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"] {
            let trace = of(uuid);
            assert!(is_traceparent(&trace.0), "{}", trace.0);
            assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
        for other in [
            "req-1",
            "00000000-0000-0000-0000-000000000000",
            "4bf92f35077b304da60a3ce0929d0e0e4736",
            "4bf92f3577b34da6a3ce929d0e0e473g",
        ] {
            let trace = of(other);
            assert!(is_traceparent(&trace.0) && !trace.0.contains("4bf92f35"), "{other}: {}", trace.0);
        }
    }
}
