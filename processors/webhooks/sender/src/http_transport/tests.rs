use super::*;
use crate::testing::endpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every connection with these bytes; counts connections. `None`: never answers.
async fn server(answer: Option<Vec<u8>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                while stream.read(&mut request).await.is_ok_and(|it| it > 0) {
                    match &answer {
                        // The receiver may stop reading at any time.
                        Some(bytes) => drop(stream.write_all(bytes).await),
                        None => std::future::pending().await,
                    }
                }
            });
        }
    });
    (url, connections)
}

fn transport(allow_private: bool) -> HttpTransport {
    HttpTransport::new(HttpSettings {
        policy: TargetPolicy { allow_private },
        connect_timeout: Duration::from_millis(500),
        timeout: Duration::from_millis(800),
    })
}

async fn post(url: &str, allow_private: bool) -> Reply {
    let post = Post::new(&endpoint("whe_1", url), "msg_1".into(), b"{}".to_vec(), 5_000);
    transport(allow_private).post(post).await
}

fn response(head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), body].concat())
}

#[tokio::test]
async fn what_comes_back_is_what_the_reply_says() {
    let cases = [
        (response("200 OK", b"thanks"), Ok(200), None, "thanks"),
        (response("410 Gone", b""), Ok(410), None, ""),
        (response("302 Found\r\nlocation: http://127.0.0.1:1/", b""), Ok(302), None, ""),
        (response("503 Busy\r\nretry-after: 30", b""), Ok(503), Some(30_000), ""),
        (response("429 Slow\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT", b""), Ok(429), None, ""),
        (Some(b"SSH-2.0-x\r\n".to_vec()), Err(NoResponse::Protocol), None, ""),
        (None, Err(NoResponse::Timeout), None, ""),
    ];
    for (answer, status, retry_after_ms, body) in cases {
        let (url, connections) = server(answer).await;
        let reply = post(&url, true).await;
        assert_eq!(reply.status.map(|it| it.as_u16()), status);
        assert_eq!((reply.retry_after_ms, &reply.body[..]), (retry_after_ms, body.as_bytes()));
        assert_eq!(connections.load(Ordering::SeqCst), 1, "nothing is followed or tried twice");
    }
}

#[tokio::test]
async fn of_a_huge_response_only_the_beginning_is_read() {
    let (url, _) = server(response("200 OK", &vec![b'x'; 4 << 20])).await;
    let reply = post(&url, true).await;
    assert_eq!(reply.verdict(), tillstream_webhooks::Verdict::Delivered);
    assert_eq!(reply.body.len(), RESPONSE_BYTES_MAX);
    assert_eq!(reply.to_attempt(0, 0).response.len(), tillstream_webhooks::rows::SNIPPET_BYTES);
}

#[tokio::test]
async fn a_connection_goes_to_no_private_address_whatever_the_name_says() {
    let (url, connections) = server(response("200 OK", b"")).await;
    let port = url.rsplit(':').next().unwrap().trim_end_matches("/hook").to_owned();
    let strict = CheckedConnector { policy: TargetPolicy::default(), timeout: Duration::from_secs(1) };
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"] {
        let uri: http::Uri = format!("https://{host}:{port}/").parse().unwrap();
        let refused = tower::Service::call(&mut strict.clone(), uri).await;
        assert!(matches!(refused, Err(ConnectError::Private)), "{host}");
        let reply = post(&format!("https://{host}:{port}/"), false).await;
        assert_eq!(reply.status, Err(NoResponse::PrivateAddress), "{host}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_receiver_that_nobody_vouches_for_is_not_spoken_to() {
    let (url, _) = server(Some(b"no TLS at all".to_vec())).await;
    assert_eq!(post(&url.replace("http:", "https:"), true).await.status, Err(NoResponse::Tls));
    assert_eq!(post("http://127.0.0.1:1/", true).await.status, Err(NoResponse::Connect));
    assert_eq!(post("http://nowhere.invalid/", true).await.status, Err(NoResponse::Dns));
}
