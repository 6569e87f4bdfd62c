//! A client of server-sent events.

use crate::{DEADLINE, KEY};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

/// An open event stream and what is left of its text.
pub struct Events {
    response: reqwest::Response,
    buffer: String,
}

impl Events {
    /// Opens a path, after the event of that id where one is given.
    pub async fn open(url: &str, path: &str, last: Option<&str>) -> Self {
        let mut call = Client::new().get(format!("{url}{path}")).bearer_auth(KEY);
        call = call.header("accept", "text/event-stream");
        if let Some(last) = last {
            call = call.header("last-event-id", last);
        }
        let response = call.send().await.expect("the stream is answered");
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, buffer: String::new() }
    }

    /// Id and data of the next event; `None` when the stream has ended as it should.
    pub async fn next(&mut self) -> Result<Option<(String, Value)>, reqwest::Error> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|it| it.strip_prefix(name));
                let found = field("id: ").zip(field("data: "));
                let found = found
                    .map(|(id, data)| (id.to_owned(), serde_json::from_str(data).expect("data is JSON")));
                self.buffer = rest.to_owned();
                if found.is_some() {
                    return Ok(found);
                }
            }
            match timeout(DEADLINE, self.response.chunk()).await.expect("events come")? {
                Some(chunk) => self.buffer.push_str(std::str::from_utf8(&chunk).expect("events are text")),
                None => return Ok(None),
            }
        }
    }
}
