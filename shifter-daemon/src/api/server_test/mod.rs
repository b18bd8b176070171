//! The API over a real socket: answers, refusals and rights.

use std::time::Duration;

use shifter_common::wire::{
    ApplyReport, AuditPage, Bypass, Changed, DeploymentRecord, Detach, Detached, Drain, Flows,
    History, PlannedRollout, Refusal, Rollback, SetWeight, Slot,
};

use self::world::{World, ada, ada_may, changed, exchange, flows};
use super::{Right, SocketGroups, bind_for, serve};
use crate::{
    driver::{DriverHandle, Request},
    metrics::sample,
    store::AuditQuery,
};

mod limits;
mod log;
mod world;

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
    let plan: PlannedRollout = world
        .get("/v1/services/orders/plan/3.2.0%2Bb7")
        .await
        .json(200);
    assert_eq!((plan.version.as_str(), plan.slot), ("3.2.0+b7", Slot::B));
    let history: History = world.get("/v1/services/orders/history").await.json(200);
    assert_eq!(history, History::default());
    let record: DeploymentRecord = world.get("/v1/services/orders/history/4").await.json(200);
    assert_eq!(record, DeploymentRecord::default());
    let page: AuditPage = world.get("/v1/audit?after=0&limit=5").await.json(200);
    assert_eq!((page.records.len(), page.last_seq), (1, 1));
    let report: ApplyReport = world.post("/v1/apply", "").await.json(200);
    assert_eq!(report, ApplyReport::default());
    for (verb, body) in [
        ("weight", r#"{"weight_bp": 500}"#),
        ("rollback", "{}"),
        ("drain", r#"{"slot": "b"}"#),
        ("bypass", r#"{"undo": true}"#),
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
        Request::Plan(orders(), "3.2.0+b7".parse().unwrap()),
        Request::History(orders()),
        Request::Deployment(orders(), 4),
        Request::Audit(AuditQuery {
            after: Some(0),
            limit: 5,
            ..AuditQuery::default()
        }),
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
        Request::Bypass(orders(), Bypass { undo: true }),
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
async fn a_version_that_is_no_label_is_refused() {
    let refusal: Refusal = World::quick()
        .get("/v1/services/orders/plan/3%202")
        .await
        .json(400);
    assert_eq!(
        (refusal.message.as_str(), refusal.help.as_str()),
        (
            "`3 2` cannot name a version",
            "use 1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\", such as 3.2.0"
        )
    );
}

#[tokio::test]
async fn what_the_driver_never_hears_of() {
    let world = World::quick();
    let list = "paths: GET /v1/status, GET /v1/services/{service}, \
                GET /v1/services/{service}/flows, GET /v1/services/{service}/plan/{version}, \
                GET /v1/services/{service}/history, \
                GET /v1/services/{service}/history/{rollout}, GET /v1/audit, POST /v1/apply, \
                POST /v1/services/{service}/weight, POST /v1/services/{service}/rollback, \
                POST /v1/services/{service}/drain, POST /v1/services/{service}/rollout, \
                POST /v1/services/{service}/rollout/command, POST /v1/services/{service}/bypass, \
                POST /v1/detach";
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
