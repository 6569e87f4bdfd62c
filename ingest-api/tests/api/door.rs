//! The server in front of the router, over real sockets: clients that take their time, heads that are too much, browsers, and
//! its end.

use crate::harness::{Api, order};
use axum::body::Body;
use http::Method;
use std::net::SocketAddr;
use std::time::Duration;
use tillstream_ingest_api::{DoorSettings, allow_origins, parse_origin, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(20);

struct Door {
    address: SocketAddr,
    close: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Door {
    async fn open(settings: DoorSettings) -> Self {
        let api = Api::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (close, closed) = oneshot::channel();
        let router = allow_origins(api.router.clone(), vec![parse_origin("https://shop.example").unwrap()]);
        let serving = tokio::spawn(async move {
            let closed = async move { drop(closed.await) };
            serve(listener, router, &settings, closed).await;
            drop(api);
        });
        Self { address, close, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One call on a connection of its own.
    async fn call(&self, head: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await.expect("it is answered")
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
}

impl Answer {
    /// Reads an answer with its body; `None` when the connection was closed without one.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break end;
            }
            match timeout(DEADLINE, stream.read_buf(&mut bytes)).await.expect("it answers or closes in time")
            {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let answer = Self { status, head };
        let length: usize = answer.header("content-length").map_or(0, |it| it.parse().unwrap());
        while bytes.len() < end + 4 + length {
            if timeout(DEADLINE, stream.read_buf(&mut bytes)).await.unwrap().unwrap() == 0 {
                break;
            }
        }
        Some(answer)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|it| it.split_once(": "));
        lines.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

/// Writes a byte now and then for as long as the server lets it; answers once the connection is over.
async fn drip(mut stream: TcpStream, begin: &str) {
    stream.write_all(begin.as_bytes()).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut byte = [0];
    loop {
        tokio::select! {
            read = stream.read(&mut byte) => if matches!(read, Ok(0) | Err(_)) { return },
            _ = ticks.tick() => if stream.write_all(b"a").await.is_err() { return },
        }
    }
}

#[tokio::test]
async fn heads_that_drip_and_connections_that_idle_are_cut_while_others_are_served() {
    let settings = DoorSettings { head_timeout: Duration::from_millis(250), ..DoorSettings::default() };
    let door = Door::open(settings).await;
    let mut slow = Vec::new();
    for begin in ["GET /heal", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ", ""] {
        for _ in 0..20 {
            slow.push(tokio::spawn(drip(door.connect().await, begin)));
        }
    }
    // One that had an answer and then says nothing more.
    let mut idle = door.connect().await;
    idle.write_all(HEALTH.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.unwrap().status, 200);
    let mut served = 0;
    while slow.iter().any(|it| !it.is_finished()) {
        assert_eq!(timeout(DEADLINE, door.call(HEALTH)).await.unwrap().status, 200);
        served += 1;
    }
    assert!(served > 1, "others were served meanwhile");
    assert!(Answer::read(&mut idle).await.is_none(), "the idle one is closed");
}

#[tokio::test]
async fn too_many_headers_and_too_large_a_head_are_431_and_up_to_the_limit_all_is_well() {
    let settings = DoorSettings { headers_max: 20, head_bytes_max: 8_192, ..DoorSettings::default() };
    let door = Door::open(settings).await;
    let headers = |count: usize, bytes: usize| {
        let lines: String = (1..count).map(|it| format!("x-{it}: {}\r\n", "v".repeat(bytes))).collect();
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{lines}\r\n")
    };
    let cases =
        [(20, 1, 200), (21, 1, 431), (5_000, 1, 431), (2, 7_000, 200), (2, 9_000, 431), (20, 4_000, 431)];
    for (count, bytes, status) in cases {
        assert_eq!(
            door.call(&headers(count, bytes)).await.status,
            status,
            "{count} headers of {bytes} bytes"
        );
    }
}

#[tokio::test]
async fn as_many_connections_as_may_be_are_served_and_the_next_waits_for_its_turn() {
    let door = Door::open(DoorSettings { connections_max: 1, ..DoorSettings::default() }).await;
    let mut first = door.connect().await;
    first.write_all(HEALTH.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut first).await.unwrap().status, 200);
    let mut second = door.connect().await;
    second.write_all(HEALTH.as_bytes()).await.unwrap();
    first.write_all(HEALTH.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut first).await.unwrap().status, 200, "the first goes on");
    assert!(second.try_read(&mut [0; 1]).is_err(), "the second has no answer yet");
    drop(first);
    assert_eq!(Answer::read(&mut second).await.unwrap().status, 200);
}

#[tokio::test]
async fn every_answer_is_hardened_and_carries_the_request_id_it_was_asked_under() {
    let door = Door::open(DoorSettings::default()).await;
    let keyed = "authorization: Bearer till_demo\r\n";
    let cases: [(&str, &str, &str, u16); 10] = [
        ("GET", "/healthz", "", 200),
        ("GET", "/docs", "", 200),
        ("GET", "/v1/orders", keyed, 200),
        ("GET", "/v1/orders", "", 401),
        ("GET", "/v1/orders/ord_none", keyed, 404),
        ("GET", "/no/such/path", "", 404),
        ("DELETE", "/v1/orders", keyed, 405),
        ("GET", "/v1/orders?limit=-1", keyed, 400),
        ("POST", "/v1/orders", "authorization: Bearer till_demo\r\ncontent-type: text/plain\r\n", 400),
        (
            "OPTIONS",
            "/v1/orders",
            "origin: https://shop.example\r\naccess-control-request-method: POST\r\n",
            200,
        ),
    ];
    for (method, path, headers, status) in cases {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-request-id: ask-7\r\ncontent-length: 0\r\n{headers}\r\n"
        );
        let answer = door.call(&head).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.head);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {path}");
        }
        assert!(
            answer.header("content-security-policy").is_some_and(|it| it.contains("default-src 'none'")),
            "{path}"
        );
        assert!(answer.header("cache-control").is_some(), "{method} {path}");
        if method != "OPTIONS" {
            assert_eq!(answer.header("x-request-id"), Some("ask-7"), "{method} {path}");
        }
    }
    let unusable = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: a b\r\n\r\n";
    assert_eq!(
        door.call(unusable).await.header("x-request-id").map(str::len),
        Some(32),
        "one of ours instead"
    );
}

#[tokio::test]
async fn a_browser_of_a_named_origin_may_call_and_one_of_another_may_not() {
    let door = Door::open(DoorSettings::default()).await;
    let preflight = |origin: &str, method: &str, headers: &str| {
        format!(
            "OPTIONS /v1/orders HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n\
             access-control-request-method: {method}\r\naccess-control-request-headers: {headers}\r\n\r\n"
        )
    };
    let wanted = "authorization,content-type,idempotency-key,prefer,traceparent";
    let welcome = door.call(&preflight("https://shop.example", "POST", wanted)).await;
    assert_eq!(welcome.header("access-control-allow-origin"), Some("https://shop.example"));
    let allowed = welcome.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    assert!(wanted.split(',').all(|it| allowed.split(',').any(|at| at.trim() == it)), "{allowed}");
    let methods = welcome.header("access-control-allow-methods").unwrap();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(methods.contains(method), "{methods}");
    }
    assert!(!allowed.contains("x-anything"));
    for origin in ["https://evil.example", "http://shop.example", "https://shop.example.evil.example", "null"]
    {
        let refused = door.call(&preflight(origin, "POST", wanted)).await;
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        let call = format!("GET /healthz HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n\r\n");
        assert_eq!(door.call(&call).await.header("access-control-allow-origin"), None, "{origin}");
    }
    let own = door.call("GET /healthz HTTP/1.1\r\nhost: x\r\norigin: https://shop.example\r\n\r\n").await;
    assert_eq!(own.header("access-control-allow-origin"), Some("https://shop.example"));
    assert!(own.header("access-control-expose-headers").unwrap().contains("x-request-id"));
}

#[tokio::test]
async fn a_call_that_is_under_way_when_the_door_closes_is_answered_and_no_new_one_is_taken() {
    let door = Door::open(DoorSettings::default()).await;
    let body = order().to_string();
    let (begin, rest) = body.split_at(10);
    let mut under_way = door.connect().await;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer till_demo\r\nidempotency-key: k\r\n\
         expect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    under_way.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once the call is under way.
    assert_eq!(Answer::read(&mut under_way).await.unwrap().status, 100);
    under_way.write_all(begin.as_bytes()).await.unwrap();
    let mut idle = door.connect().await;
    idle.write_all(HEALTH.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.unwrap().status, 200);
    let Door { address, close, serving } = door;
    close.send(()).unwrap();
    assert!(Answer::read(&mut idle).await.is_none(), "who waits for nothing is let go");
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, refused).await.expect("nobody new is taken");
    assert!(!serving.is_finished());
    under_way.write_all(rest.as_bytes()).await.unwrap();
    let answer = Answer::read(&mut under_way).await.expect("it is answered");
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")), "{}", answer.head);
    timeout(DEADLINE, serving).await.expect("then it is over").unwrap();
}

/// A body that brings a byte every five seconds and never ends.
fn dripping() -> Body {
    Body::from_stream(futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Some((Ok::<_, std::convert::Infallible>("a"), ()))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_with_408() {
    let api = Api::start().await;
    let begun = tokio::time::Instant::now();
    let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
    let answer = api.call(Method::POST, "/v1/orders", &headers, dripping()).await;
    assert_eq!(answer.problem(), (408, "TS0623".into()));
    assert_eq!(answer.header("connection"), "close");
    assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
    // Of a bulk call the head is out already: a result says it, and the answer ends.
    let begun = tokio::time::Instant::now();
    let headers = [("content-type", "application/x-ndjson")];
    let answer = api.call(Method::POST, "/v1/orders/bulk", &headers, dripping()).await;
    let results = answer.lines();
    assert_eq!(results.len(), 1, "{results:?}");
    assert_eq!((&results[0]["status"], &results[0]["problem"]["code"]), (&408.into(), &"TS0623".into()));
    assert!(begun.elapsed() <= Duration::from_secs(61), "{:?}", begun.elapsed());
    assert!(api.store.order_commands().is_empty());
}
