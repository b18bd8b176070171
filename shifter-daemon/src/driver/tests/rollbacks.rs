//! `rollback`.

use std::time::Duration;

use super::session::{ORDERS, Session};
use crate::{dataplane::memory::Operation, model::Slot};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];
const RESET: &str = "[rollback]\nestablished = \"reset\"\n";

#[tokio::test(start_paused = true)]
async fn open_connections_stay_unless_they_are_to_be_reset() {
    let resetting = format!("{ORDERS}{RESET}");
    // service file, command, connections of b that are reset
    let rows = [
        (ORDERS, "rollback orders", 0),
        (ORDERS, "rollback orders drain", 0),
        (ORDERS, "rollback orders reset", 3),
        (&resetting, "rollback orders", 3),
        (&resetting, "rollback orders drain", 0),
    ];
    for (file, command, reset_count) in rows {
        let mut session = Session::start(&[("orders.toml", file)]);
        let expected = match reset_count {
            0 => "2500 -> 0, generation 3".to_owned(),
            count => format!("2500 -> 0, generation 3, {count} flows reset"),
        };
        session
            .run(&[
                ("live orders a 10.1.0.1:80 5", ""),
                ("live orders b 10.2.0.1:80 3", ""),
                ("weight orders 2500", "0 -> 2500, generation 2"),
                (command, &expected),
                (
                    "plan orders",
                    "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
                ),
                ("record orders", "0 bp by root (uid 0)"),
                (
                    "event",
                    "root (uid 0): rollback b: 2500 -> 0, stored: weight 25 % -> 0 %, \
                     generation 3",
                ),
            ])
            .await;
        let live_count: u64 = session.dataplane.with(|state| state.live.values().sum());
        assert_eq!(live_count, 8 - reset_count, "{command}: those of a stay");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_with_nothing_to_take_back_is_done_all_the_same() {
    Session::start(FILES)
        .run(&[
            ("live orders b 10.2.0.1:80 3", ""),
            (
                "rollback orders reset",
                "0 -> 0, generation 1, 3 flows reset; nothing had to change",
            ),
            ("record orders", "0 bp by root (uid 0)"),
        ])
        .await;
}

/// Clients whose connections are reset come back, and there is only one place to come back to.
#[tokio::test(start_paused = true)]
async fn nothing_is_reset_while_the_baseline_is_out() {
    Session::start(FILES)
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("live orders b 10.2.0.1:80 3", ""),
            ("fails orders a 10.1.0.1:80 status 503", ""),
            (
                "rollback orders reset",
                "2500 -> 0, generation 4; slot a takes no new flows (not ready: 10.1.0.1:80 \
                 status 503): slot b takes them all; slot b takes the new flows all the same, so \
                 its open connections were not reset",
            ),
            (
                "show orders",
                "0 bp by root (uid 0), effective 10000, generation 4\n\
                a: 0 live of {\"10.1.0.1:80\": 0}, out: not ready: 10.1.0.1:80 status 503\n\
                b: 3 live of {\"10.2.0.1:80\": 3}\n\
                note: slot a takes no new flows (not ready: 10.1.0.1:80 status 503): slot b \
                takes them all",
            ),
            // With neither ready there is nothing to come back to, and nothing to keep.
            ("fails orders b 10.2.0.1:80 status 503", ""),
            (
                "rollback orders reset",
                "0 -> 0, generation 5, 3 flows reset; no slot is eligible: new flows are dropped \
                 and retried by their clients (slot a: not ready: 10.1.0.1:80 status 503; slot b: \
                 not ready: 10.2.0.1:80 status 503); nothing had to change",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_fails_does_not_undo_the_rollback() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 2500", "0 -> 2500, generation 2")])
        .await;
    session
        .dataplane
        .with(|state| state.failing.insert(Operation::Reset, "EPERM".into()));
    session
        .run(&[
            (
                "rollback orders reset",
                "2500 -> 0, generation 3; the weight is 0, but its flows could not be reset: EPERM",
            ),
            ("record orders", "0 bp by root (uid 0)"),
        ])
        .await;
}

/// The ends of a busy flow may have missed the first.
#[tokio::test(start_paused = true)]
async fn resets_are_repeated_until_the_ends_have_had_their_time() {
    let again_count = |session: &Session| session.dataplane.with(|state| state.resets_again.len());
    for (fails, expected_count) in [(false, 4), (true, 0)] {
        let mut session = Session::start(FILES);
        session
            .run(&[
                ("weight orders 2500", "0 -> 2500, generation 2"),
                ("live orders b 10.2.0.1:80 3", ""),
            ])
            .await;
        if fails {
            let failing = (Operation::ResetAgain, "EPERM".to_owned());
            session
                .dataplane
                .with(|state| state.failing.extend([failing]));
        }
        session
            .run(&[(
                "rollback orders reset",
                "2500 -> 0, generation 3, 3 flows reset",
            )])
            .await;
        assert_eq!(again_count(&session), 0, "the answer does not wait for it");
        tokio::time::sleep(Duration::from_millis(500)).await;
        // What failed once is not tried again, whatever becomes of it.
        session.dataplane.with(|state| state.failing.clear());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(again_count(&session), expected_count);
        let are_of_b = session.dataplane.with(|state| {
            let b = ("orders".to_owned(), Slot::B);
            state.resets_again.iter().all(|again| *again == b)
        });
        assert!(are_of_b);
        session
            .run(&[("weight orders 500", "0 -> 500, generation 4")])
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_reset_nothing_is_repeated() {
    let mut session = Session::start(FILES);
    session
        .run(&[(
            "rollback orders",
            "0 -> 0, generation 1; nothing had to change",
        )])
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        session
            .dataplane
            .with(|state| state.resets_again.is_empty())
    );
}
