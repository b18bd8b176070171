//! What probes find is put in force unasked, and recorded.

use std::time::{Duration, Instant};

use super::session::{ORDERS, SEARCH, Session, event};
use crate::{
    model::Slot,
    probe::{ProbeEvent, TargetKey},
};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS), ("search.toml", SEARCH)];

#[tokio::test(start_paused = true)]
async fn a_version_that_fails_is_taken_out_and_let_in_again() {
    Session::start(FILES)
        .run(&[
            ("weight orders 5000", "0 -> 5000, generation 2"),
            (
                "fails orders b 10.2.0.1:80 status 503; 3 failures in a row",
                "",
            ),
            (
                "event",
                "shifterd: not ready b: 5000 -> 0, stored: slot b: 10.2.0.1:80 status 503; 3 \
                 failures in a row",
            ),
            (
                "plan orders",
                "5000 bp, a open [10.1.0.1:80], b shut [], published 3",
            ),
            ("record orders", "5000 bp by root (uid 0)"),
            ("ready orders b 10.2.0.1:80", ""),
            (
                "event",
                "shifterd: ready b: 0 -> 5000, stored: slot b: 10.2.0.1:80 is ready",
            ),
            (
                "plan orders",
                "5000 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 4",
            ),
            ("fails orders a 10.1.0.1:80 connection refused", ""),
            (
                "event",
                "shifterd: not ready a: 5000 -> 10000, stored: slot a: 10.1.0.1:80 connection \
                 refused",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn another_reason_is_shown_but_is_no_event() {
    Session::start(FILES)
        .run(&[
            ("fails orders b 10.2.0.1:80 connection refused", ""),
            ("fails orders b 10.2.0.1:80 status 503", ""),
            (
                "event",
                "shifterd: not ready b: 0 -> 0, stored: slot b: 10.2.0.1:80 connection refused",
            ),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b shut [], published 2",
            ),
            (
                "show orders",
                "0 bp by shifterd, effective 0, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}, out: not ready: 10.2.0.1:80 status 503",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_service_any_more_is_ignored() {
    Session::start(FILES)
        .run(&[
            ("fails nowhere b 10.2.0.1:80 status 503", ""),
            ("fails orders a 10.2.0.1:80 status 503", ""),
            ("fails orders b 10.2.0.2:80 status 503", ""),
            ("event", "none"),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_tried_again_and_not_told_as_done() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 5000", "0 -> 5000, generation 2"),
            ("refuse ENOMEM", ""),
            ("fails orders b 10.2.0.1:80 status 503", ""),
            (
                "event",
                "shifterd: not ready b: 5000 -> 5000, nothing stored: slot b: 10.2.0.1:80 status \
                 503; not in force yet: ENOMEM",
            ),
            (
                "show orders",
                "5000 bp by root (uid 0), effective 5000, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}, out: not ready: 10.2.0.1:80 status 503\n\
                 note: slot b takes no new flows (not ready: 10.2.0.1:80 status 503): slot a \
                 takes them all\n\
                 note: not in force as shown: ENOMEM; shifterd tries again every 10 s",
            ),
            ("refuse", ""),
        ])
        .await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    session
        .run(&[(
            "plan orders",
            "5000 bp, a open [10.1.0.1:80], b shut [], published 3",
        )])
        .await;
}

/// Found together, published together: one table for all backends of a service.
#[tokio::test(start_paused = true)]
async fn results_that_come_together_make_one_plan_for_each_service() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 5000", "0 -> 5000, generation 2")])
        .await;
    let caused_at = Instant::now();
    let rows = [
        ("orders", Slot::A, "10.1.0.1:80"),
        ("search", Slot::A, "10.1.0.9:80"),
        ("orders", Slot::B, "10.2.0.1:80"),
    ];
    for (service, slot, addr) in rows {
        let key = TargetKey {
            service: service.into(),
            slot,
            addr: addr.parse().expect("an address"),
        };
        let reason = "status 500".into();
        let found = ProbeEvent {
            key,
            ready: false,
            reason,
            caused_at,
            decided_at: caused_at,
        };
        session.probes.try_send(found).expect("room");
    }
    let status = session.status().await;
    let told: Vec<String> = status.events.iter().skip(1).map(event).collect();
    assert_eq!(
        told,
        [
            "shifterd: not ready a: 5000 -> 0, stored: slot a: 10.1.0.1:80 status 500",
            "shifterd: not ready b: 5000 -> 0, stored: slot b: 10.2.0.1:80 status 500",
            "shifterd: not ready a: 0 -> 0, stored: slot a: 10.1.0.9:80 status 500",
        ]
    );
    for event in &status.events[1..] {
        let since_ns = caused_at.elapsed().as_nanos();
        assert!(
            u128::from(event.took_ns) <= since_ns,
            "from the cause on: {event:?}"
        );
    }
    session
        .run(&[
            ("plan orders", "5000 bp, a shut [], b shut [], published 3"),
            ("plan search", "0 bp, a shut [], b shut [], published 2"),
        ])
        .await;
}

/// A clock that gives the cause a later time than the store must not bring the loop down.
#[tokio::test(start_paused = true)]
async fn a_cause_in_the_future_took_no_time() {
    let session = Session::start(FILES);
    let key = TargetKey {
        service: "orders".into(),
        slot: Slot::B,
        addr: "10.2.0.1:80".parse().expect("an address"),
    };
    let later = Instant::now() + Duration::from_secs(3_600);
    let found = ProbeEvent {
        key,
        ready: false,
        reason: "status 500".into(),
        caused_at: later,
        decided_at: later,
    };
    session.probes.send(found).await.expect("a driver");
    let status = session.status().await;
    assert_eq!(status.events.last().map(|event| event.took_ns), Some(0));
    assert_eq!(status.services[0].generation, 2);
}
