//! An API key offered as a WebSocket subprotocol: a browser cannot set `Authorization` on a WebSocket.
//!
//! A page opens `new WebSocket(url, ["tillstream.events.v1", "tillstream.key." + key])`. The server picks the first
//! and never repeats the second. Keys do not stand in URLs, where logs would keep them.

use http::{HeaderMap, header};

/// The subprotocol that is spoken.
pub(super) const PROTOCOL: &str = "tillstream.events.v1";
const KEY_PREFIX: &str = "tillstream.key.";

/// The key that a WebSocket handshake offers, if it does.
pub(crate) fn key_of(headers: &HeaderMap) -> Option<&str> {
    let upgrade = headers.get(header::UPGRADE)?;
    if !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|it| it.to_str().ok());
    offered
        .flat_map(|it| it.split(','))
        .find_map(|it| it.trim().strip_prefix(KEY_PREFIX))
        .filter(|it| !it.is_empty() && it.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_from_a_websocket_handshake_only() {
        let mut headers = HeaderMap::new();
        let offered = "tillstream.events.v1, tillstream.key.till_1";
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        assert_eq!(key_of(&headers), None);
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        assert_eq!(key_of(&headers), Some("till_1"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL.parse().unwrap());
        assert_eq!(key_of(&headers), None);
    }
}
