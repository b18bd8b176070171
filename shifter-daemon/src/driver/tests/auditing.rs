//! What the audit says, and that nothing is done that it does not say.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;

use super::session::{ORDERS, SEARCH, Session, store};
use crate::{
    rollout::{Command, Effect, Now, Rollout, RolloutParts, Shell, Verb, run},
    store::{AuditQuery, FILE},
};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];

/// Commands, and the one record that each leaves before it is answered; none if it changed nothing.
#[tokio::test(start_paused = true)]
async fn every_command_leaves_one_record() {
    let mut session = Session::start(FILES);
    let moved = ORDERS.replace("10.2.0.1", "10.2.0.7");
    let rows = [
        (
            "weight orders 500".to_owned(),
            "orders weight: 0 -> 500, generation 2: weight 0 % -> 5 %, generation 2",
        ),
        (
            "weight orders 500".to_owned(),
            "orders weight: 500 -> 500, generation 2: weight 5 % -> 5 %, generation 2",
        ),
        (
            "rollback orders".to_owned(),
            "orders rollback b: 500 -> 0, generation 3: weight 5 % -> 0 %, generation 3",
        ),
        (
            "drain orders b".to_owned(),
            "orders drain b: 0 -> 0, generation 4: slot b takes no new flows, generation 4",
        ),
        (
            "undrain orders b".to_owned(),
            "orders drain b: 0 -> 0, generation 5: slot b may take new flows again, generation 5",
        ),
        (
            "bypass orders".to_owned(),
            "orders bypass: 0 -> 0, generation 5: new connections go around shifter, generation 5",
        ),
        (
            "unbypass orders".to_owned(),
            "orders bypass: 0 -> 0, generation 5: shifter steers new connections again, generation 5",
        ),
        (format!("write orders.toml {moved}"), ""),
        (
            "apply".to_owned(),
            "orders apply: 0 -> 0, generation 6: slot.b.backends changed",
        ),
        ("apply".to_owned(), ""),
        ("weight nobody 500".to_owned(), ""),
        ("weight orders 10001".to_owned(), ""),
        ("status".to_owned(), ""),
        (
            "detach force".to_owned(),
            " detach: 0 -> 0, generation 0: all programs are taken off (interfaces: memory0); 0 live flows were cut off",
        ),
    ];
    let mut told = String::new();
    for (command, record) in rows {
        session.act(&command).await;
        if !record.is_empty() {
            told += &format!("{}root by api for uid 1000: {record}", sep(&told));
        }
        assert_eq!(session.act("audit").await, told, "{command}");
    }
}

fn sep(told: &str) -> &'static str {
    if told.is_empty() { "" } else { "\n" }
}

/// What shifterd decides by itself. Backends that come and go without moving traffic from one version to
/// the other are no decision.
#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_told_too() {
    let mut session = Session::start(&[("orders.toml", ORDERS), ("search.toml", SEARCH)]);
    session
        .run(&[
            ("fails search a 10.1.0.9:80 timeout", ""),
            ("ready search a 10.1.0.9:80", ""),
            ("audit", ""),
            ("weight orders 500", "0 -> 500, generation 2"),
            ("fails orders b 10.2.0.1:80 timeout", ""),
            ("hangup", ""),
        ])
        .await;
    session
        .act(&format!(
            "write orders.toml {}",
            ORDERS.replace("10.1.0.1", "10.1.0.8")
        ))
        .await;
    session.act("hangup").await;
    let mut session = session.restart().await;
    let told = session.act("audit").await;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "root by api for uid 1000: orders weight: 0 -> 500, generation 2: weight 0 % -> 5 %, \
             generation 2",
            "shifterd by daemon: orders not ready b: 500 -> 0, generation 3: slot b: 10.2.0.1:80 \
             timeout",
            "SIGHUP by signal: orders apply: 0 -> 0, generation 4: slot.a.backends changed",
            "shifterd by daemon: orders adopted: 0 -> 500, generation 5: found pinned with \
             generation 4",
            "shifterd by daemon: search adopted: 0 -> 0, generation 3: found pinned with generation 3",
        ]
    );
}

/// The file in force, not the one that was refused.
#[tokio::test(start_paused = true)]
async fn records_carry_the_hash_of_the_file_in_force() {
    let mut session = Session::start(FILES);
    let hash = |session: &Session| {
        let newest = AuditQuery {
            limit: 1,
            ..AuditQuery::default()
        };
        let lines = session.on_disk().1.audit(&newest).expect("a disk").lines;
        let record: shifter_common::wire::AuditRecord =
            serde_json::from_str(&lines[0]).expect("a record");
        record.config_hash
    };
    session.act("weight orders 500").await;
    let first = hash(&session);
    // `sha256sum` of the file.
    assert_eq!(first, shifter_common::audit::hash(ORDERS));
    let moved = ORDERS.replace("10.2.0.1", "10.2.0.7");
    session.act(&format!("write orders.toml {moved}")).await;
    session.act("refuse no room").await;
    session.act("apply").await;
    session.act("refuse").await;
    session.act("weight orders 600").await;
    assert_eq!(hash(&session), first);
    session.act("apply").await;
    session.act("weight orders 700").await;
    assert_eq!(hash(&session), shifter_common::audit::hash(&moved));
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refused_is_told() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("refuse no room", ""),
            (
                "weight orders 500",
                "kernel: no room; what was decided before could not be put in force again either (no \
                 room); shifterd tries it every 10 s / see: shifterctl doctor",
            ),
            (
                "audit",
                "root by api for uid 1000: orders weight: 0 -> 0, generation 1: the kernel refused \
                 it: no room",
            ),
        ])
        .await;
}

/// When the kernel is told, the decision is on disk; if the daemon dies there and then, its next life
/// says so.
#[tokio::test(start_paused = true)]
async fn a_decision_is_on_disk_with_its_record_before_the_kernel_is_told() {
    let mut session = Session::start(FILES);
    let crashed = tempfile::tempdir().expect("a temporary directory");
    let crashed: Arc<Mutex<Option<TempDir>>> = Arc::new(Mutex::new(Some(crashed)));
    let (from, to) = (session.dir.path().join("state"), Arc::clone(&crashed));
    session.dataplane.with(|state| {
        state.on_publish = Some(Box::new(move |_| {
            let to = to.lock().expect("nobody panicked");
            let to = to.as_ref().expect("a directory").path();
            for name in [FILE, "shifter.db-wal"] {
                fs::copy(from.join(name), to.join(name)).map_err(|error| error.to_string())?;
            }
            Ok(())
        }));
    });
    session.act("weight orders 500").await;
    let crashed = crashed.lock().expect("nobody panicked").take();
    let crashed = crashed.expect("a directory");
    let mut left = store(crashed.path());
    assert_eq!(
        left.service("orders").map(|record| record.weight_bp),
        Some(500)
    );
    left.flush().expect("a disk");
    let newest = AuditQuery {
        limit: 1,
        ..AuditQuery::default()
    };
    let line = left.audit(&newest).expect("a disk").lines.remove(0);
    let record: shifter_common::wire::AuditRecord = serde_json::from_str(&line).expect("a record");
    assert_eq!(
        (record.reason.as_str(), record.weight_after_bp),
        (
            "weight 0 % -> 5 %; decided and on disk, but shifterd ended before it could say whether \
             it was in force",
            500
        )
    );
    assert_eq!(record.actor.uid, Some(0));
}

/// A disk that refuses keeps nobody from taking traffic back; the record comes when it can.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_written_later() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 500", "0 -> 500, generation 2"),
            ("lock", ""),
        ])
        .await;
    let before = session.act("audit").await;
    session.act("rollback orders").await;
    assert_eq!(session.act("audit").await, before);
    session.run(&[("unlock", ""), ("pass 11", "")]).await;
    let after = session.act("audit").await;
    assert_eq!(
        after.strip_prefix(&before),
        Some(
            "\nroot by api for uid 1000: orders rollback b: 500 -> 0, generation 3: weight 5 % -> 0 %, \
             generation 3"
        )
    );
}

/// Who reads the audit gets what is on disk, and is told of what is not.
#[tokio::test(start_paused = true)]
async fn the_audit_says_what_it_does_not_hold_yet() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 500", "0 -> 500, generation 2"),
            ("lock", ""),
        ])
        .await;
    session.act("rollback orders").await;
    let query = AuditQuery {
        limit: 10,
        ..AuditQuery::default()
    };
    let request = crate::driver::Request::Audit(query);
    let reply = session
        .handle
        .call(request, None, std::time::Instant::now())
        .await;
    let Ok(crate::driver::Reply::Audit(found)) = reply else {
        panic!("{reply:?}");
    };
    let file = session.dir.path().join("state").join(FILE);
    assert_eq!(
        (found.lines.len(), found.last_seq, found.unwritten_count),
        (3, 3, 1)
    );
    assert_eq!(
        found.trouble,
        format!("writing {}: database is locked", file.display())
    );
}

/// A world in which everything succeeds at once.
struct Willing;

impl Shell for Willing {
    fn keep(&mut self, _: &Rollout) -> Result<(), String> {
        Ok(())
    }

    fn carry_out(&mut self, _: &Effect) -> Option<Result<(), String>> {
        Some(Ok(()))
    }

    fn now(&mut self) -> Now {
        Now {
            mono_ms: 1,
            unix_ms: 1,
        }
    }
}

/// A rollout that the store holds, with two records. It is over: nobody goes on with it.
fn rolled(state_dir: &std::path::Path) {
    let loaded = crate::config::collect(vec![("orders.toml".into(), Ok(ORDERS.into()))]);
    let plan = loaded.services["orders"].rollout_plan(shifter_common::steering::Slot::B);
    let parts = RolloutParts {
        id: 7,
        service: "orders".into(),
        version: "3.2.0".parse().expect("a label"),
        old_version: None,
        canary: shifter_common::steering::Slot::B,
    };
    let record = |to: &str| shifter_common::wire::AuditRecord {
        service: "orders".into(),
        rollout: Some(7),
        version: "3.2.0".into(),
        to: to.into(),
        ..Default::default()
    };
    let mut rollout = Rollout::new(parts, plan.expect("a plan"));
    let abort = Command {
        by: "root (uid 0)".into(),
        verb: Verb::Abort,
    };
    run(
        &mut rollout,
        crate::rollout::Event::Command(abort),
        &mut Willing,
    )
    .expect("accepted");
    assert!(rollout.phase().is_final());
    let revision = crate::store::Revision {
        service: "orders".into(),
        number: 0,
        slot: shifter_common::steering::Slot::B,
        version: "3.2.0".into(),
        config_hash: String::new(),
        rollout: Some(7),
        unix_ms: 1,
        actor: "root (uid 0)".into(),
        outcome: "running".into(),
    };
    store(state_dir)
        .keep_rollout(
            &rollout,
            None,
            vec![record("Gated"), record("Warming")],
            Some(&revision),
        )
        .expect("a disk");
}

#[tokio::test(start_paused = true)]
async fn a_service_has_a_history() {
    let session = Session::start(&[("orders.toml", ORDERS), ("search.toml", SEARCH)]);
    let (dir, dataplane) = session.kill().await;
    rolled(&dir.path().join("state"));
    let mut session = Session::start_in(dir, dataplane);
    session
        .run(&[
            ("history orders", "1 revisions, 1 rollouts"),
            ("history search", "0 revisions, 0 rollouts"),
            (
                "history nobody",
                "unknown_service: there is no service nobody / services are: orders, search",
            ),
            ("deployment orders 7", "3.2.0 of 2 records: Warming"),
            (
                "deployment orders 8",
                "unknown_rollout: the audit knows no rollout 8 of orders / rollouts are: 7",
            ),
            (
                "deployment search 1",
                "unknown_rollout: the audit knows no rollout 1 of search / search has had no rollout",
            ),
            (
                "deployment nobody 1",
                "unknown_service: there is no service nobody / services are: orders, search",
            ),
        ])
        .await;
    // Its file goes, and with the next start it does: its history stays.
    session.act("remove orders.toml").await;
    let (dir, _) = session.kill().await;
    let dataplane = crate::dataplane::memory::MemoryDataplane::default();
    Session::start_in(dir, dataplane)
        .run(&[("history orders", "1 revisions, 1 rollouts")])
        .await;
}
