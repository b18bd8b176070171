//! Starts: the first one, and those after a crash at whatever moment.

use std::fs;

use shifter_common::steering::Slot;
use tokio::sync::mpsc;

use super::session::{ORDERS, SEARCH, Session, driver, event, store, write};
use crate::{
    control::ServiceRecord,
    dataplane::memory::{MemoryDataplane, Operation},
    model::OnEmpty,
};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];

#[tokio::test(start_paused = true)]
async fn a_first_start_puts_the_files_in_force() {
    let session = Session::start(&[("orders.toml", ORDERS), ("search.toml", "[service]\n")]);
    let status = session.status().await;
    assert!(!status.daemon.adopted);
    assert_eq!(status.events, []);
    let names: Vec<&str> = status.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["orders"], "a bad file is no service");
}

/// The same decisions, the same files, the same health: nothing is stored.
#[tokio::test(start_paused = true)]
async fn what_the_kernel_holds_is_taken_over_as_it_is() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("fails orders b 10.2.0.1:80 status 503", ""),
            ("ready orders b 10.2.0.1:80", ""),
        ])
        .await;
    let mut session = session.restart().await;
    let status = session.status().await;
    assert!(status.daemon.adopted);
    assert_eq!(status.services[0].generation, 4);
    session
        .run(&[
            (
                "event",
                "shifterd: adopted: 2500 -> 2500, nothing stored: found pinned with generation 4",
            ),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 5",
            ),
            (
                "weight orders 2500",
                "2500 -> 2500, generation 4; nothing had to change",
            ),
        ])
        .await;
}

fn decided(dir: &std::path::Path, weight_bp: u16) {
    let mut state = store(&dir.join("state"));
    let record = ServiceRecord {
        baseline: Slot::A,
        weight_bp,
        weight_by: "mia (uid 7)".into(),
        weight_set_unix_ms: 1,
        held: false,
        bypassed: None,
        versions: Default::default(),
        batch: None,
        drained: Default::default(),
    };
    state.save("orders", &record).expect("a writable directory");
}

/// The decision is on disk, the kernel was not told any more, nobody was answered.
#[tokio::test(start_paused = true)]
async fn after_a_crash_between_disk_and_kernel_the_decision_is_put_in_force() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    let (dir, dataplane) = session.kill().await;
    decided(dir.path(), 2_500);
    let mut session = Session::start_in(dir, dataplane);
    session
        .run(&[
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
            ),
            (
                "event",
                "shifterd: adopted: 500 -> 2500, nothing stored: found pinned with generation 2",
            ),
        ])
        .await;
    let status = session.service("orders").await;
    assert_eq!(
        (status.generation, status.weight_by.as_str()),
        (3, "mia (uid 7)")
    );
}

/// Traffic was taken back in the kernel, and the disk was not told any more: it is not given again
/// to the version that it was taken from.
#[tokio::test(start_paused = true)]
async fn after_a_crash_between_kernel_and_disk_traffic_stays_taken_back() {
    for keeps_file in [true, false] {
        let mut session = Session::start(FILES);
        session
            .run(&[
                ("weight orders 500", "0 -> 500, generation 2"),
                ("rollback orders", "500 -> 0, generation 3"),
            ])
            .await;
        let (dir, dataplane) = session.kill().await;
        decided(dir.path(), 500);
        if !keeps_file {
            fs::remove_file(dir.path().join("services.d/orders.toml")).expect("a file");
        }
        let mut session = Session::start_in(dir, dataplane);
        let status = session.service("orders").await;
        assert_eq!((status.weight_bp, status.generation), (0, 3));
        // Nor after a reboot.
        session
            .run(&[("record orders", "0 bp by found in the kernel")])
            .await;
    }
}

/// After a reboot the kernel is empty, the decisions are not.
#[tokio::test(start_paused = true)]
async fn after_a_reboot_the_recorded_decisions_count() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    let (dir, _) = session.kill().await;
    Session::start_in(dir, MemoryDataplane::default())
        .run(&[
            (
                "plan orders",
                "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
            ("event", "none"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_record_the_kernel_counts() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    let (dir, dataplane) = session.kill().await;
    fs::remove_dir_all(dir.path().join("state")).expect("a writable directory");
    let mut session = Session::start_in(dir, dataplane);
    session
        .run(&[(
            "plan orders",
            "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
        )])
        .await;
    let status = session.service("orders").await;
    assert_eq!(
        (status.generation, status.weight_by.as_str()),
        (2, "found in the kernel")
    );
    assert_eq!(status.weight_set_unix_ms, 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changed_meanwhile_is_put_in_force() {
    let session = Session::start(FILES);
    let (dir, dataplane) = session.kill().await;
    write(&dir, "orders.toml", &ORDERS.replace("10.2.0.1", "10.2.0.7"));
    Session::start_in(dir, dataplane)
        .run(&[(
            "plan orders",
            "0 bp, a open [10.1.0.1:80], b open [10.2.0.7:80], published 2",
        )])
        .await;
}

/// Without a good file the kernel knows more of a service than the daemon does.
#[tokio::test(start_paused = true)]
async fn a_service_without_a_good_file_is_left_alone() {
    let passing = ORDERS.replace("vip =", "on_empty = \"pass\"\nvip =");
    for (text, why) in [
        (None, "its file is gone"),
        (Some("["), "its file has errors"),
    ] {
        let mut session = Session::start(&[("orders.toml", &passing)]);
        session
            .run(&[("weight orders 500", "0 -> 500, generation 2")])
            .await;
        let (dir, dataplane) = session.kill().await;
        match text {
            Some(text) => write(&dir, "orders.toml", text),
            None => fs::remove_file(dir.path().join("services.d/orders.toml")).expect("a file"),
        }
        let mut session = Session::start_in(dir, dataplane);
        let adopted = format!(
            "shifterd: adopted: 500 -> 500, nothing stored: found pinned with generation 2, \
             steered on as it was: {why}"
        );
        let note = format!("500 -> 700, generation 3; steered on as it was: {why}");
        session
            .run(&[
                ("event", &adopted),
                (
                    "plan orders",
                    "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 2",
                ),
                ("weight orders 700", &note),
            ])
            .await;
        let on_empty = session
            .dataplane
            .with(|state| state.plans["orders"].on_empty);
        assert_eq!(on_empty, OnEmpty::Pass, "{why}");
        assert_eq!(session.service("orders").await.orphaned, text.is_none());
    }
}

/// The file is gone and the last decision did not reach the kernel: both count.
#[tokio::test(start_paused = true)]
async fn a_service_without_a_file_gets_what_was_decided() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    let (dir, dataplane) = session.kill().await;
    decided(dir.path(), 2_500);
    fs::remove_file(dir.path().join("services.d/orders.toml")).expect("a file");
    Session::start_in(dir, dataplane)
        .run(&[(
            "plan orders",
            "2500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
        )])
        .await;
}

/// A file that claims what a service without a file holds is refused; but the service it speaks of
/// is in force, too, and must not be forgotten.
#[tokio::test(start_paused = true)]
async fn a_service_whose_changed_file_claims_too_much_is_kept() {
    let session = Session::start(&[("orders.toml", ORDERS), ("search.toml", SEARCH)]);
    let (dir, dataplane) = session.kill().await;
    fs::remove_file(dir.path().join("services.d/orders.toml")).expect("a file");
    write(
        &dir,
        "search.toml",
        &SEARCH.replace("10.0.0.20:80", "10.0.0.10:80"),
    );
    let mut session = Session::start_in(dir, dataplane);
    let status = session.status().await;
    let notes: Vec<String> = status
        .services
        .iter()
        .map(|service| format!("{}: {}", service.name, service.notes.join("; ")))
        .collect();
    assert_eq!(
        notes,
        [
            "orders: steered on as it was: its file is gone",
            "search: steered on as it was: its file has errors"
        ]
    );
    session
        .run(&[
            ("fails search a 10.1.0.9:80 status 503", ""),
            ("plan search", "0 bp, a shut [], b shut [], published 2"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_at_the_start_is_shown_and_tried_again() {
    let dataplane = MemoryDataplane::default();
    let first = Session::start(FILES);
    let (dir, _) = first.kill().await;
    dataplane.with(|state| state.on_publish = Some(Box::new(|_| Err("no room".into()))));
    let mut session = Session::start_in(dir, dataplane);
    session
        .run(&[
            (
                "show orders",
                "0 bp by shifterd, effective 0, generation 0\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: not in force as shown: no room; shifterd tries again every 10 s",
            ),
            ("plan orders", "none"),
            // An operator who has made room need not wait.
            (
                "apply",
                "orders service.name: orders -> orders refused: no room",
            ),
            ("refuse", ""),
            ("apply", ""),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
            ("event", "root (uid 0): apply: 0 -> 0, stored: tried again"),
        ])
        .await;
    assert_eq!(session.service("orders").await.notes, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_does_not_tell_what_it_holds_ends_the_start() {
    let session = Session::start(FILES);
    let (dir, dataplane) = session.kill().await;
    dataplane.with(|state| state.failing.insert(Operation::Published, "EBADF".into()));
    let node = crate::config_files::load_node(&dir.path().join("shifter.toml")).expect("good");
    let state = store(&node.state_dir);
    let prober = crate::probe::Prober::new(mpsc::channel(1).0);
    let node_file = dir.path().join("shifter.toml");
    let started = crate::driver::Driver::start(node, node_file, Box::new(dataplane), state, prober);
    assert_eq!(
        started.err().map(|error| error.to_string()).as_deref(),
        Some("EBADF")
    );
}

/// What was adopted is told before anything else happens.
#[tokio::test(start_paused = true)]
async fn adoption_is_told_for_every_service() {
    let session = Session::start(&[("orders.toml", ORDERS), ("search.toml", SEARCH)]);
    let session = session.restart().await;
    let told: Vec<String> = session.status().await.events.iter().map(event).collect();
    let adopted = "shifterd: adopted: 0 -> 0, nothing stored: found pinned with generation 1";
    assert_eq!(told, [adopted, adopted]);
}

/// The targets that the prober gets say what is known of them.
#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_leaves_no_prober_behind() {
    let session = Session::start(FILES);
    let (dir, dataplane) = session.kill().await;
    let (prober, mut probed) = mpsc::channel(8);
    let driver = driver(&dir, &dataplane, prober);
    let mut keys = vec![];
    for _ in 0..2 {
        keys.push(probed.recv().await.expect("a target").key.slot);
    }
    keys.sort();
    assert_eq!(keys, Slot::ALL);
    drop(driver);
    assert_eq!(probed.recv().await, None);
}
