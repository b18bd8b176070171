//! `set-weight`, and what every change has in common.

use super::session::{ORDERS, SEARCH, Session};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS), ("search.toml", SEARCH)];

#[tokio::test(start_paused = true)]
async fn a_weight_is_in_force_on_disk_and_recorded() {
    Session::start(FILES)
        .run(&[
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
            ("record orders", "none"),
            ("event", "none"),
            ("weight orders 500", "0 -> 500, generation 2"),
            (
                "plan orders",
                "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 2",
            ),
            ("record orders", "500 bp by root (uid 0)"),
            (
                "event",
                "root (uid 0): weight: 0 -> 500, stored: weight 0 % -> 5 %, generation 2",
            ),
            ("weight orders 10000", "500 -> 10000, generation 3"),
            (
                "weight orders 10000",
                "10000 -> 10000, generation 3; nothing had to change",
            ),
            (
                "event",
                "root (uid 0): weight: 10000 -> 10000, nothing stored: weight 100 % -> 100 %, \
                 generation 3",
            ),
            (
                "weight search 0",
                "0 -> 0, generation 1; nothing had to change",
            ),
        ])
        .await;
}

/// What is asked for and what is given differ while a slot is out; the event tells what is given.
#[tokio::test(start_paused = true)]
async fn a_weight_for_a_version_that_is_not_ready_waits_for_it() {
    Session::start(FILES)
        .run(&[
            ("fails orders b 10.2.0.1:80 status 503", ""),
            (
                "weight orders 2500",
                "0 -> 2500, generation 3; slot b takes no new flows (not ready: 10.2.0.1:80 \
                 status 503): slot a takes them all",
            ),
            (
                "event",
                "root (uid 0): weight: 0 -> 0, stored: weight 0 % -> 25 %, generation 3",
            ),
            ("ready orders b 10.2.0.1:80", ""),
            (
                "event",
                "shifterd: ready b: 0 -> 2500, stored: slot b: 10.2.0.1:80 is ready",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_changes_nothing() {
    let refusals: &[(&str, &str)] = &[
        (
            "weight nowhere 500",
            "unknown_service: there is no service nowhere / services are: orders, search",
        ),
        (
            "rollback nowhere",
            "unknown_service: there is no service nowhere / services are: orders, search",
        ),
        (
            "drain nowhere a",
            "unknown_service: there is no service nowhere / services are: orders, search",
        ),
        (
            "show nowhere",
            "unknown_service: there is no service nowhere / services are: orders, search",
        ),
        (
            "flows nowhere",
            "unknown_service: there is no service nowhere / services are: orders, search",
        ),
        (
            "weight orders 10001",
            "bad_request: weight_bp is 10001, but at most 10000 / a weight is given in basis \
             points: 500 is 5 %",
        ),
        (
            "weight search 1",
            "not_eligible: slot b of search has no backends to send traffic to / add [slot.b] to \
             its file, then: shifterctl apply",
        ),
        (
            "drain search a",
            "not_eligible: slot b of search is not eligible (no backends): draining slot a would \
             leave new flows nowhere to go / make slot b ready first; see: shifterctl status \
             search",
        ),
    ];
    let mut session = Session::start(FILES);
    session.run(refusals).await;
    session
        .run(&[
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
            (
                "plan search",
                "0 bp, a open [10.1.0.9:80], b shut [], published 1",
            ),
            ("record orders", "none"),
            ("record search", "none"),
            ("event", "none"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_services_the_way_to_the_first_is_told() {
    let mut session = Session::start(&[]);
    let dir = session.dir.path().join("services.d");
    let expected = format!(
        "unknown_service: there is no service orders / write a file to {} and run: shifterctl \
         apply",
        dir.display()
    );
    session.run(&[("weight orders 500", &expected)]).await;
}
