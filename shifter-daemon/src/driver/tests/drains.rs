//! `drain`, and its undoing.

use super::session::{ORDERS, Session};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];

#[tokio::test(start_paused = true)]
async fn a_drained_slot_takes_no_new_flows_until_it_is_undone() {
    Session::start(FILES)
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            (
                "drain orders b",
                "2500 -> 2500, generation 3; slot b takes no new flows (drained by root (uid 0)): \
                 slot a takes them all",
            ),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b shut [10.2.0.1:80], published 3",
            ),
            (
                "record orders",
                "2500 bp by root (uid 0), b by root (uid 0)",
            ),
            (
                "event",
                "root (uid 0): drain b: 2500 -> 0, stored: slot b takes no new flows, \
                 generation 3",
            ),
            (
                "drain orders b",
                "2500 -> 2500, generation 3; slot b takes no new flows (drained by root (uid 0)): \
                 slot a takes them all; nothing had to change",
            ),
            (
                "drain orders a",
                "not_eligible: slot b of orders is not eligible (drained by root (uid 0)): \
                 draining slot a would leave new flows nowhere to go / make slot b ready first; \
                 see: shifterctl status orders",
            ),
            ("undrain orders b", "2500 -> 2500, generation 4"),
            (
                "event",
                "root (uid 0): drain b: 0 -> 2500, stored: slot b may take new flows again, \
                 generation 4",
            ),
            ("record orders", "2500 bp by root (uid 0)"),
            (
                "undrain orders b",
                "2500 -> 2500, generation 4; nothing had to change",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_version_that_serves_can_be_drained_in_favour_of_the_other() {
    Session::start(FILES)
        .run(&[
            (
                "drain orders a",
                "0 -> 0, generation 2; slot a takes no new flows (drained by root (uid 0)): \
                 slot b takes them all",
            ),
            (
                "event",
                "root (uid 0): drain a: 0 -> 10000, stored: slot a takes no new flows, \
                 generation 2",
            ),
            // A failure may leave nothing; an operator may not.
            ("fails orders b 10.2.0.1:80 status 503", ""),
            ("undrain orders a", "0 -> 0, generation 4"),
            (
                "drain orders a",
                "not_eligible: slot b of orders is not eligible (not ready: 10.2.0.1:80 status \
                 503): draining slot a would leave new flows nowhere to go / make slot b ready \
                 first; see: shifterctl status orders",
            ),
        ])
        .await;
}

/// What takes nothing away is not refused, however little is left.
#[tokio::test(start_paused = true)]
async fn what_changes_nothing_is_not_refused() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("drain orders b", "0 -> 0, generation 2"),
            ("fails orders a 10.1.0.1:80 status 503", ""),
        ])
        .await;
    for command in ["drain orders b", "undrain orders a"] {
        session
            .run(&[(
                command,
                "0 -> 0, generation 3; no slot is eligible: new flows are dropped and retried by \
                 their clients (slot a: not ready: 10.1.0.1:80 status 503; slot b: drained by \
                 root (uid 0)); nothing had to change",
            )])
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_outlives_the_daemon() {
    let mut session = Session::start(FILES);
    session
        .run(&[(
            "drain orders a",
            "0 -> 0, generation 2; slot a takes no new flows (drained by root (uid 0)): slot b \
             takes them all",
        )])
        .await;
    let mut session = session.restart().await;
    session
        .run(&[
            (
                "plan orders",
                "0 bp, a shut [10.1.0.1:80], b open [10.2.0.1:80], published 3",
            ),
            ("undrain orders a", "0 -> 0, generation 3"),
        ])
        .await;
}
