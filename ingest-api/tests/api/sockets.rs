//! The same streams over a WebSocket, on a real connection.

use crate::live::{Process, happen, log_event, order_id, process};
use crate::store::MemoryStore;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

async fn serve(process: &Process) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = process.api.router.clone().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn open(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Response), Error> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client_async(request, TcpStream::connect(address).await.unwrap()).await
}

const AUTHORIZED: [(&str, &str); 1] = [("authorization", "Bearer till_demo")];

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(Duration::from_secs(30), socket.next()).await.expect("a message").unwrap().unwrap()
}

/// The next message that is an event.
async fn event(socket: &mut Socket) -> Value {
    loop {
        let Message::Text(text) = next(socket).await else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["type"] != "stream.heartbeat" {
            return message;
        }
    }
}

#[tokio::test]
async fn an_orders_events_come_over_a_socket_and_resume() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let address = serve(&process).await;
    let order = order_id(1);
    happen(&store, "demo", &order, 1).await;
    let path = format!("/v1/orders/{order}/events");
    let (mut socket, _) = open(address, &path, &AUTHORIZED).await.unwrap();
    assert_eq!(event(&mut socket).await["data"]["version"], 1);
    happen(&store, "demo", &order, 2).await;
    let second = event(&mut socket).await;
    assert_eq!((&second["place"], &second["type"]), (&"2".into(), &"order.returned".into()));
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    loop {
        if let Message::Pong(bytes) = next(&mut socket).await {
            assert_eq!(bytes, "are you there");
            break;
        }
    }
    socket.close(None).await.unwrap();
    happen(&store, "demo", &order, 3).await;
    let (mut socket, _) = open(address, &format!("{path}?cursor=2"), &AUTHORIZED).await.unwrap();
    assert_eq!(event(&mut socket).await["data"]["version"], 3);
}

#[tokio::test]
async fn a_browser_offers_its_key_as_a_protocol_and_never_gets_it_back() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let address = serve(&process).await;
    let offered = [("sec-websocket-protocol", "tillstream.events.v1, tillstream.key.till_demo")];
    let (mut socket, response) = open(address, "/v1/orders/events", &offered).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "tillstream.events.v1");
    next(&mut socket).await;
    log_event(&store, "other", &order_id(1), 1).await;
    log_event(&store, "demo", &order_id(2), 1).await;
    assert_eq!(event(&mut socket).await["data"]["order_id"], order_id(2).as_str());
    for refused in [
        &[][..],
        &[("sec-websocket-protocol", "tillstream.events.v1, tillstream.key.till_wrong")],
        &[("sec-websocket-protocol", "tillstream.events.v1")],
    ] {
        match open(address, "/v1/orders/events", refused).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_drain_closes_sockets_with_a_reason_to_come_back() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let address = serve(&process).await;
    let (mut socket, _) = open(address, "/v1/orders/events", &AUTHORIZED).await.unwrap();
    next(&mut socket).await;
    let drain = tokio::spawn({
        let ingest = process.api.ingest.clone();
        async move { ingest.drain_streams().await }
    });
    loop {
        if let Message::Close(frame) = next(&mut socket).await {
            assert_eq!(frame.unwrap().code, CloseCode::Restart);
            break;
        }
    }
    drain.await.unwrap();
}

#[tokio::test]
async fn a_socket_that_is_too_chatty_or_gone_leaves_nothing_behind() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let address = serve(&process).await;
    for rude in [Message::Text("x".repeat(100_000).into()), Message::Close(None)] {
        let (mut socket, _) = open(address, "/v1/orders/events", &AUTHORIZED).await.unwrap();
        next(&mut socket).await;
        socket.send(rude).await.unwrap();
        let ended = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the end");
    }
    let free = async {
        while process.hub.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), free).await.expect("every subscription is given back");
}
