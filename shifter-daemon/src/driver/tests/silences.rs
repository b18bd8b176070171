//! `rollback --established reset-idle`.

use std::time::Duration;

use super::session::{ORDERS, Session};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];
const NOTE: &str = "a connection that is still in use is reset once nobody has spoken on it for 5s, \
                    until 1m from now (drain.timeout)";

/// Live flows of slot b, and how often silent ones were reset.
fn b(session: &Session) -> (u64, usize) {
    session.dataplane.with(|state| {
        let live = state
            .live
            .iter()
            .filter(|((_, slot, _), _)| slot.index() == 1);
        (live.map(|(_, count)| count).sum(), state.idle_resets.len())
    })
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_silent_are_reset_at_once_and_the_others_as_they_fall_silent() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("live orders a 10.1.0.1:80 5", ""),
            ("live orders b 10.2.0.1:80 7", ""),
            ("silent orders b 10.2.0.1:80 3", ""),
            ("silent orders a 10.1.0.1:80 5", ""),
            (
                "rollback orders reset-idle",
                &format!("2500 -> 0, generation 3, 3 flows reset; {NOTE}"),
            ),
        ])
        .await;
    assert_eq!(b(&session).0, 4);
    session.act("silent orders b 10.2.0.1:80 2").await;
    pass(3).await;
    assert_eq!(b(&session).0, 2);
    // A drain's time is over.
    pass(60).await;
    let (live_count, resets_count) = b(&session);
    session.act("silent orders b 10.2.0.1:80 2").await;
    pass(10).await;
    assert_eq!(b(&session), (live_count, resets_count));
    let of_a = session
        .dataplane
        .with(|state| state.live.values().sum::<u64>())
        - live_count;
    assert_eq!(of_a, 5, "the other version's stay");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_takes_new_flows_again_keeps_its_connections() {
    let rollback = format!("2500 -> 0, generation 3; {NOTE}");
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("live orders b 10.2.0.1:80 7", ""),
            ("rollback orders reset-idle", &rollback),
            ("weight orders 500", "0 -> 500, generation 4"),
            ("silent orders b 10.2.0.1:80 2", ""),
        ])
        .await;
    pass(5).await;
    assert_eq!(b(&session).0, 7);
    // Nor is it forgotten that it was taken back by another weight of 0.
    session.act("weight orders 0").await;
    pass(5).await;
    assert_eq!(b(&session).0, 7);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reset_while_the_baseline_is_out() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("live orders b 10.2.0.1:80 3", ""),
            ("silent orders b 10.2.0.1:80 3", ""),
            ("fails orders a 10.1.0.1:80 status 503", ""),
        ])
        .await;
    let answer = session.act("rollback orders reset-idle").await;
    assert!(
        answer.ends_with("so its open connections were not reset"),
        "{answer}"
    );
    pass(5).await;
    assert_eq!(b(&session).0, 3);
}
