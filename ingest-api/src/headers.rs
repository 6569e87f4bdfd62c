//! Headers for browsers: what answers must not be taken for, and who else may ask from a page.

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, header};
use std::time::Duration;
use tower_http::cors::CorsLayer;

/// An origin that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: give scheme, host and port, such as https://shop.example")]
pub struct BadOrigin(String);

/// How long a browser may remember what it may send.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3_600);

/// The origin that a browser would name.
///
/// # Errors
/// When it has no scheme or host, or more than that.
pub fn parse_origin(text: &str) -> Result<HeaderValue, BadOrigin> {
    let bad = || BadOrigin(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(bad)?;
    let plain = |it: char| it.is_ascii_alphanumeric() || ".-:[]".contains(it);
    if !matches!(scheme, "http" | "https") || host.is_empty() || !host.chars().all(plain) {
        return Err(bad());
    }
    lower.parse().map_err(|_| bad())
}

/// Lets pages of these origins call (CORS); without any the router stays as it is, and browsers keep other pages out.
pub fn allow_origins(router: Router, origins: Vec<HeaderValue>) -> Router {
    if origins.is_empty() {
        return router;
    }
    let sent = ["idempotency-key", "prefer", "x-request-id", "traceparent", "last-event-id"];
    let allowed = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT].into_iter();
    router
        .layer(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
                .allow_headers(allowed.chain(sent.map(HeaderName::from_static)).collect::<Vec<_>>())
                .expose_headers([
                    HeaderName::from_static("x-request-id"),
                    header::RETRY_AFTER,
                    header::LOCATION,
                ])
                .max_age(PREFLIGHT_AGE),
        )
        // Preflights are answered before anything else sees them.
        .layer(map_response(harden))
}

/// Answers are data of one caller, never pages: nothing in them is run, framed, sniffed or kept.
pub(crate) async fn harden(mut response: Response) -> Response {
    const ALWAYS: [(HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    const UNLESS_SET: [(HeaderName, &str); 2] = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in UNLESS_SET {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_more() {
        for good in
            ["https://shop.example", "http://localhost:3000", "http://[::1]:80", "HTTPS://Shop.example"]
        {
            assert_eq!(parse_origin(good).unwrap(), good.to_ascii_lowercase());
        }
        for bad in [
            "",
            "*",
            "null",
            "shop.example",
            "https://",
            "https://shop.example/",
            "ftp://x",
            "https://a b",
            "https://u@h",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
