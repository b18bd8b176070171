//! The API over a real socket, with a driver that answers from a table.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use shifter_common::wire::{
    ApplyReport, Changed, Detach, Detached, Drain, Flow, Flows, Phase, Refusal, Rollback,
    SetWeight, Slot,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{Access, ApiServer, Caller, Limits, Right, SocketGroups, bind_for, serve};
use crate::{
    driver::{Actor, DriverHandle, Reply, Request},
    metrics::sample,
};

/// Everybody is ada, with this right.
fn ada_may(right: Right) -> Access {
    Access::always(Caller {
        actor: ada(),
        right,
    })
}

fn ada() -> Actor {
    Actor {
        uid: 1000,
        name: "ada".into(),
    }
}

fn changed(service: &str) -> Changed {
    Changed {
        service: service.into(),
        weight_before_bp: 0,
        weight_bp: 500,
        generation: 13,
        took_ns: 41_000,
        flows_reset_count: 0,
        notes: vec!["slot b is not ready: it gets no flows yet".into()],
    }
}

fn flows() -> Flows {
    Flows {
        total_count: 1,
        flows: vec![Flow {
            client: "192.0.2.1:50000".into(),
            vip: "10.0.0.10:443".into(),
            backend: "10.0.0.10:8443".into(),
            slot: Slot::A,
            cohort: 3,
            phase: Phase::Established,
            idle_ms: 1000,
        }],
    }
}

fn answer(request: &Request) -> Result<Reply, Refusal> {
    let known = |service: &str, reply: Reply| match service {
        "orders" => Ok(reply),
        _ => Err(Refusal {
            code: "unknown_service".into(),
            message: format!("no service `{service}`"),
            help: "services: orders".into(),
        }),
    };
    match request {
        Request::Status => Ok(Reply::Status(Box::new(sample::status()))),
        Request::Service(s) => known(
            s,
            Reply::Service(Box::new(sample::status().services.remove(0))),
        ),
        Request::Flows(s, _) => known(s, Reply::Flows(flows())),
        Request::Apply => Ok(Reply::Applied(ApplyReport::default())),
        Request::SetWeight(s, _) | Request::Rollback(s, _) | Request::Drain(s, _) => {
            known(s, Reply::Changed(changed(s)))
        }
        Request::Detach(Detach { force: true }) => Ok(Reply::Detached(Detached::default())),
        Request::Detach(Detach { force: false }) => Err(Refusal {
            code: "flows_open".into(),
            message: "3 flows are open".into(),
            help: "shifterctl detach --force".into(),
        }),
    }
}

type Asked = Arc<Mutex<Vec<(Request, Option<Actor>)>>>;

/// A server, its fake driver and what the driver was asked.
struct World {
    _dir: tempfile::TempDir,
    path: PathBuf,
    asked: Asked,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl World {
    fn start(right: Right, limits: Option<Limits>, pace: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shifter.sock");
        let listener = bind_for(&path, SocketGroups::default()).unwrap();
        let (handle, mut queue) = DriverHandle::channel(8);
        let asked = Asked::default();
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(call) = queue.recv().await {
                record
                    .lock()
                    .unwrap()
                    .push((call.request.clone(), call.actor.clone()));
                tokio::time::sleep(pace).await;
                let _ = call.reply.send(answer(&call.request));
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let access = ada_may(right);
        let server = match limits {
            None => tokio::spawn(serve(listener, handle, access, stopped)),
            Some(limits) => tokio::spawn(
                ApiServer::new(handle, access)
                    .with_limits(limits)
                    .serve(listener, stopped),
            ),
        };
        Self {
            _dir: dir,
            path,
            asked,
            stop: Some(stop),
            server,
        }
    }

    fn quick() -> Self {
        Self::start(Right::Change, None, Duration::ZERO)
    }

    async fn ask(&self, request: &str) -> Response {
        exchange(&self.path, request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        self.ask(&post(path, body)).await
    }

    fn asked(&self) -> Vec<(Request, Option<Actor>)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\n\r\n{body}"
    )
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json<T: serde::de::DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends the bytes and reads until the server closes.
async fn exchange(path: &Path, request: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // A server that answers before the end of the request may close meanwhile.
    let _ = stream.write_all(request).await;
    read_response(&mut stream).await
}

async fn read_response(stream: &mut UnixStream) -> Response {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn every_endpoint_asks_the_driver_as_the_user_and_sends_its_answer() {
    let world = World::quick();
    let orders = || "orders".to_owned();
    let status = world
        .get("/v1/status")
        .await
        .json::<shifter_common::wire::Status>(200);
    assert_eq!(status, sample::status());
    let service = world.get("/v1/services/orders").await.json(200);
    assert_eq!(sample::status().services[0], service);
    assert_eq!(
        world
            .get("/v1/services/orders/flows?limit=5")
            .await
            .json::<Flows>(200),
        flows()
    );
    let report: ApplyReport = world.post("/v1/apply", "").await.json(200);
    assert_eq!(report, ApplyReport::default());
    for (verb, body) in [
        ("weight", r#"{"weight_bp": 500}"#),
        ("rollback", "{}"),
        ("drain", r#"{"slot": "b"}"#),
    ] {
        let reply: Changed = world
            .post(&format!("/v1/services/orders/{verb}"), body)
            .await
            .json(200);
        assert_eq!(reply, changed("orders"), "{verb}");
    }
    let detached: Detached = world
        .post("/v1/detach", r#"{"force": true}"#)
        .await
        .json(200);
    assert_eq!(detached, Detached::default());

    let expected = [
        Request::Status,
        Request::Service(orders()),
        Request::Flows(orders(), 5),
        Request::Apply,
        Request::SetWeight(orders(), SetWeight { weight_bp: 500 }),
        Request::Rollback(orders(), Rollback::default()),
        Request::Drain(
            orders(),
            Drain {
                slot: Slot::B,
                undo: false,
            },
        ),
        Request::Detach(Detach { force: true }),
    ];
    assert_eq!(
        world.asked(),
        expected.map(|request| (request, Some(ada())))
    );
}

#[tokio::test]
async fn refusals_of_the_driver_keep_their_words_and_get_their_status() {
    let world = World::quick();
    let refusal: Refusal = world.get("/v1/services/nope").await.json(404);
    assert_eq!(
        (refusal.code.as_str(), refusal.help.as_str()),
        ("unknown_service", "services: orders")
    );
    let refusal: Refusal = world.post("/v1/detach", "").await.json(409);
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        ("flows_open", "3 flows are open")
    );
    // A name may be anything a URL can carry; the driver gets it decoded.
    let refusal: Refusal = world.get("/v1/services/%C3%A4%2Fb").await.json(404);
    assert_eq!(refusal.message, "no service `ä/b`");
}

#[tokio::test]
async fn what_the_driver_never_hears_of() {
    let world = World::quick();
    let list = "paths: GET /v1/status, GET /v1/services/{service}, \
                GET /v1/services/{service}/flows, POST /v1/apply, \
                POST /v1/services/{service}/weight, POST /v1/services/{service}/rollback, \
                POST /v1/services/{service}/drain, POST /v1/detach";
    for path in [
        "/",
        "/v1",
        "/v1/status/",
        "/v2/status",
        "/v1/services",
        "/v1/services/a/b",
    ] {
        let refusal: Refusal = world.get(path).await.json(404);
        assert_eq!(refusal.code, "unknown_path");
        assert_eq!(refusal.message, format!("no such path: {path}"));
        assert_eq!(refusal.help, list);
    }
    for (method, path, right) in [
        ("POST", "/v1/status", "GET"),
        ("DELETE", "/v1/services/orders", "GET"),
        ("GET", "/v1/services/orders/weight", "POST"),
        ("PUT", "/v1/apply", "POST"),
    ] {
        let response = world
            .ask(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        assert!(
            response
                .head
                .to_lowercase()
                .contains(&format!("allow: {}", right.to_lowercase()))
        );
        let refusal: Refusal = response.json(405);
        let route = path.replace("orders", "{service}");
        assert_eq!(refusal.code, "wrong_method");
        assert_eq!(refusal.message, format!("{method} {route} does not exist"));
        assert_eq!(refusal.help, format!("use {right} {route}"));
    }
    for path in ["/v1/services/", "/v1/services//flows"] {
        let response = world.get(path).await;
        assert!(matches!(response.status, 400 | 404), "{path}: {response:?}");
    }
    let refusal: Refusal = world.get("/v1/services/%ff").await.json(400);
    assert_eq!(refusal.code, "bad_request");
    assert_eq!(refusal.message, "Invalid URL: Invalid UTF-8 in `service`");
    assert_eq!(refusal.help, "the path is /v1/services/{service}");

    let refusal: Refusal = world
        .post("/v1/services/orders/weight", r#"{"weight_bp": 10001}"#)
        .await
        .json(400);
    assert!(
        refusal
            .message
            .starts_with("field `weight_bp` is 10001; right is")
    );
    let form = world
        .ask(
            "POST /v1/services/orders/weight HTTP/1.1\r\nhost: x\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: 13\r\n\r\n\
             weight_bp=500",
        )
        .await;
    assert!(
        form.json::<Refusal>(400)
            .message
            .contains("right is application/json")
    );
    assert_eq!(world.asked(), []);
}

#[tokio::test]
async fn a_body_has_at_most_64_kib() {
    let world = World::quick();
    let pad = " ".repeat(64 * 1024 - 2);
    let _: ApplyReport = world
        .post("/v1/apply", &format!("{{{pad}}}"))
        .await
        .json(200);
    let refusal: Refusal = world
        .post("/v1/apply", &format!("{{{pad}}} "))
        .await
        .json(400);
    assert_eq!(refusal.message, "the body is larger than 65536 bytes");
    assert_eq!(refusal.help, "no request needs more than a hundred");
    assert_eq!(world.asked().len(), 1);
}

#[tokio::test]
async fn viewers_read_and_strangers_do_nothing() {
    let viewer = World::start(Right::Read, None, Duration::ZERO);
    viewer
        .get("/v1/status")
        .await
        .json::<shifter_common::wire::Status>(200);
    let refusal: Refusal = viewer.post("/v1/apply", "").await.json(403);
    assert_eq!(refusal.help, "usermod -aG shifter ada");
    let stranger = World::start(Right::None, None, Duration::ZERO);
    let refusal: Refusal = stranger.get("/v1/status").await.json(403);
    assert_eq!(refusal.help, "usermod -aG shifter-view ada");
    let refusal: Refusal = stranger.post("/v1/detach", "").await.json(403);
    assert_eq!(refusal.help, "usermod -aG shifter ada");
    assert_eq!(stranger.asked(), []);
}

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
    let world = World::start(Right::Change, Some(TIGHT), Duration::ZERO);
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

#[tokio::test]
async fn a_driver_that_is_gone_is_said_to_be_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shifter.sock");
    let listener = bind_for(&path, SocketGroups::default()).unwrap();
    let (handle, queue) = DriverHandle::channel(1);
    drop(queue);
    tokio::spawn(serve(
        listener,
        handle,
        ada_may(Right::Change),
        std::future::pending::<()>(),
    ));
    let request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
    let refusal: Refusal = exchange(&path, request).await.json(500);
    assert_eq!(refusal.code, "internal");
    assert!(refusal.help.contains("systemctl start shifterd"));
}

/// What a log line goes to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_change_is_one_line_with_its_actor() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    // The test's runtime has one thread, so the server's tasks log here as well.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::quick();
    let logged = || {
        let bytes = std::mem::take(&mut *lines.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        // The time differs from run to run.
        let words = text
            .split(' ')
            .map(|word| match word.split_once("took_us=") {
                Some((before, rest)) => {
                    format!(
                        "{before}took_us=N{}",
                        rest.trim_start_matches(|c: char| c.is_ascii_digit())
                    )
                }
                None => word.to_owned(),
            });
        words.collect::<Vec<_>>().join(" ")
    };
    let rows = [
        (
            "weight",
            r#"{"weight_bp": 500}"#,
            r#" INFO shifter_daemon::api::server: request verb="set-weight" actor=ada (uid 1000) asked="orders" weight_bp=500 took_us=N"#,
        ),
        (
            "rollback",
            "",
            r#" INFO shifter_daemon::api::server: request verb="rollback" actor=ada (uid 1000) asked="orders" took_us=N"#,
        ),
        (
            "rollback",
            r#"{"established": "reset"}"#,
            r#" INFO shifter_daemon::api::server: request verb="rollback" actor=ada (uid 1000) asked="orders" established=Reset took_us=N"#,
        ),
        (
            "drain",
            r#"{"slot": "b", "undo": true}"#,
            r#" INFO shifter_daemon::api::server: request verb="drain" actor=ada (uid 1000) asked="orders" slot=b undo=true took_us=N"#,
        ),
    ];
    for (verb, body, line) in rows {
        let _: Changed = world
            .post(&format!("/v1/services/orders/{verb}"), body)
            .await
            .json(200);
        assert_eq!(logged(), format!("{line}\n"));
    }
    let _: Refusal = world.post("/v1/detach", "").await.json(409);
    assert_eq!(
        logged(),
        " WARN shifter_daemon::api::server: request verb=\"detach\" actor=ada (uid 1000) \
         asked=force=false took_us=N refusal=flows_open reason=\"3 flows are open\"\n"
    );
    // A name cannot add a line of its own.
    let _: Refusal = world
        .post("/v1/services/a%0Ab/rollback", "")
        .await
        .json(404);
    let line = logged();
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert!(line.contains(r#"asked="a\nb""#), "{line}");
    // Reading leaves no line.
    world
        .get("/v1/status")
        .await
        .json::<shifter_common::wire::Status>(200);
    assert_eq!(logged(), "");
    let viewer = World::start(Right::Read, None, Duration::ZERO);
    let _: Refusal = viewer.post("/v1/apply", "").await.json(403);
    assert_eq!(
        logged(),
        " WARN shifter_daemon::api::server: request verb=\"apply\" actor=ada (uid 1000) \
         refusal=\"forbidden\"\n"
    );
}
