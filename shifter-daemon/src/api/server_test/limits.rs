//! What clients cannot do to the server.

use std::time::Duration;

use shifter_common::wire::ApplyReport;
use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::world::{World, ada, exchange, post, read_response};
use crate::{
    api::{Limits, Right},
    driver::Request,
};

/// Short enough for a test, long enough for a busy machine.
const TIGHT: Limits = Limits {
    connections_count: 2,
    read: Duration::from_millis(300),
    lifetime: Duration::from_secs(2),
    finish: Duration::from_millis(300),
    body_bytes: 1024,
};

#[tokio::test]
async fn the_limits_are_those_promised() {
    let limits = Limits::default();
    assert_eq!(limits.connections_count, 64);
    assert_eq!(limits.read, Duration::from_secs(10));
    assert_eq!(limits.body_bytes, 65_536);
}

#[tokio::test]
async fn who_never_finishes_sending_is_cut() {
    let limits = Limits {
        lifetime: Duration::from_secs(600),
        ..TIGHT
    };
    let world = World::start(Right::Change, Some(limits), Duration::ZERO);
    let rows = [
        ("", 0, ""),
        ("GET /v1/status HTTP/1.1\r\nhost:", 0, ""),
        (
            "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
            400,
            "the body was not complete within 300ms",
        ),
    ];
    for (sent, status, message) in rows {
        let mut stream = UnixStream::connect(&world.path).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let response = tokio::time::timeout(Duration::from_secs(20), read_response(&mut stream))
            .await
            .expect("the server never hung up");
        assert_eq!(response.status, status, "{sent}");
        assert!(response.body.contains(message), "{}", response.body);
    }
    assert_eq!(world.asked(), []);
    world
        .get("/v1/status")
        .await
        .json::<shifter_common::wire::Status>(200);
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let limits = Limits {
        read: Duration::from_secs(600),
        lifetime: Duration::from_secs(600),
        ..TIGHT
    };
    let world = World::start(Right::Change, Some(limits), Duration::ZERO);
    let first = UnixStream::connect(&world.path).await.unwrap();
    let _second = UnixStream::connect(&world.path).await.unwrap();
    let third = world.get("/v1/status");
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(early.is_err(), "a third connection was served: {early:?}");
    drop(first);
    third.await.json::<shifter_common::wire::Status>(200);
}

#[tokio::test]
async fn a_connection_ends_though_its_client_never_reads() {
    let limits = Limits {
        connections_count: 1,
        ..TIGHT
    };
    // The driver takes longer than the connection may last.
    let world = World::start(Right::Change, Some(limits), Duration::from_secs(3));
    let mut stream = UnixStream::connect(&world.path).await.unwrap();
    stream
        .write_all(post("/v1/apply", "").as_bytes())
        .await
        .unwrap();
    let response = read_response(&mut stream).await;
    assert_eq!(response.status, 0, "{response:?}");
    assert_eq!(world.asked(), [(Request::Apply, Some(ada()))]);
}

#[tokio::test]
async fn what_is_not_http_ends_one_connection_only() {
    let world = World::quick();
    let rows: &[&[u8]] = &[
        b"\0\x01\x02\xff garbage\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ];
    for bytes in rows {
        let response = exchange(&world.path, bytes).await;
        assert!(matches!(response.status, 0 | 400), "{response:?}");
    }
    let head = "x".repeat(1 << 20);
    let response = exchange(&world.path, format!("GET /{head} HTTP/1.1\r\n").as_bytes()).await;
    assert!(matches!(response.status, 0 | 414 | 431), "{response:?}");
    drop(UnixStream::connect(&world.path).await.unwrap());
    assert_eq!(world.asked(), []);
    world
        .get("/v1/status")
        .await
        .json::<shifter_common::wire::Status>(200);
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_the_answer() {
    let world = World::start(Right::Change, None, Duration::from_millis(50));
    let mut stream = UnixStream::connect(&world.path).await.unwrap();
    stream
        .write_all(post("/v1/apply", "").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let _: ApplyReport = read_response(&mut stream).await.json(200);
}

#[tokio::test]
async fn the_end_lets_running_requests_finish_and_takes_no_new_ones() {
    let mut world = World::start(Right::Change, None, Duration::from_millis(400));
    let idle = UnixStream::connect(&world.path).await.unwrap();
    let mut running = UnixStream::connect(&world.path).await.unwrap();
    running
        .write_all(post("/v1/apply", "").as_bytes())
        .await
        .unwrap();
    while world.asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop.take().unwrap().send(()).unwrap();
    let _: ApplyReport = read_response(&mut running).await.json(200);
    (&mut world.server).await.unwrap().unwrap();
    let refused = UnixStream::connect(&world.path).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(idle);
}
