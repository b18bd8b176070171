//! Each change leaves one line.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use shifter_common::wire::{ApplyReport, Changed, Refusal};

use super::world::World;
use crate::api::Right;

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
    let _: ApplyReport = world.post("/v1/apply", "").await.json(200);
    assert_eq!(
        logged(),
        " INFO shifter_daemon::api::server: request verb=\"apply\" actor=ada (uid 1000) \
         asked=files took_us=N\n"
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
