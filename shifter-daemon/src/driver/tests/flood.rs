//! A storm of probe results beside operators.

use std::time::Instant;

use super::session::{ORDERS, SEARCH, Session};
use crate::{
    driver::{Reply, Request},
    model::Slot,
    probe::{ProbeEvent, TargetKey},
};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS), ("search.toml", SEARCH)];
const STORM_COUNT: u32 = 10_000;

fn flap(nth: u32) -> ProbeEvent {
    let now = Instant::now();
    ProbeEvent {
        key: TargetKey {
            service: "orders".into(),
            slot: Slot::B,
            addr: "10.2.0.1:80".parse().expect("an address"),
        },
        ready: nth % 2 == 1,
        reason: "status 503".into(),
        caused_at: now,
        decided_at: now,
    }
}

/// Ten thousand results wait, and new ones come as fast as they are read: operators are answered.
#[tokio::test(start_paused = true)]
async fn operators_are_answered_in_a_storm() {
    let mut session = Session::start(FILES);
    for nth in 0..STORM_COUNT {
        session.probes.try_send(flap(nth)).expect("room");
    }
    let probes = session.probes.clone();
    let storm = tokio::spawn(async move {
        for nth in 0.. {
            if probes.send(flap(nth)).await.is_err() {
                return;
            }
        }
    });
    session
        .run(&[
            (
                "show search",
                "0 bp by shifterd, effective 0, generation 1\n\
                a: 0 live of {\"10.1.0.9:80\": 0}\n\
                b: 0 live of {}, out: no backends",
            ),
            (
                "drain search a",
                "not_eligible: slot b of search is not eligible (no backends): \
                draining slot a would leave new flows nowhere to go / make slot b ready first; \
                see: shifterctl status search",
            ),
        ])
        .await;
    for weight_bp in [100, 200, 300] {
        let request = Request::SetWeight(
            "orders".into(),
            shifter_common::wire::SetWeight { weight_bp },
        );
        let reply = session.handle.call(request, None, Instant::now()).await;
        assert!(matches!(reply, Ok(Reply::Changed(_))), "{reply:?}");
    }
    assert!(
        !storm.is_finished(),
        "it did not end before the operators were answered"
    );
    storm.abort();
}

/// However many results wait, they are taken in handfuls and each service is published once for
/// each.
#[tokio::test(start_paused = true)]
async fn a_storm_is_read_in_handfuls() {
    let session = Session::start(FILES);
    for nth in 0..STORM_COUNT {
        session.probes.try_send(flap(nth)).expect("room");
    }
    let mut last = 0;
    while session.probes.capacity() < session.probes.max_capacity() {
        session.status().await;
        last += 1;
    }
    let published_count = session.dataplane.with(|state| {
        state
            .history
            .iter()
            .filter(|plan| plan.name == "orders")
            .count()
    });
    assert!(
        (2..=20).contains(&published_count),
        "{published_count} plans for {STORM_COUNT}"
    );
    assert!(last <= 12, "{last} answers while it was read");
    let status = session.status().await;
    assert_eq!(status.events.len(), 100, "the newest are kept");
    let last = status
        .events
        .last()
        .map(|event| (event.seq, event.what.as_str()));
    assert_eq!(
        last,
        Some((u64::from(STORM_COUNT), "ready")),
        "and none was lost on the way"
    );
    assert!(status.services[0].slots[1].eligible);
}
