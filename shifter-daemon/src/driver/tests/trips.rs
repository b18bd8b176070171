//! Trips of the kernel's breaker: when shifterd learns of them, and what it does then.

use std::time::Duration;

use tokio::time::Instant;

use super::session::{ORDERS, Session};

const TRIPPED: &str = "the breaker: tripped b: 0 -> 0, nothing stored: the kernel took slot b out of traffic \
                       and left no record of why";

#[tokio::test(start_paused = true)]
async fn what_the_kernel_tells_is_known_and_carried_out_at_once() {
    let file = format!("{ORDERS}[rollback]\nestablished = \"reset\"\n");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session
        .run(&[
            ("live orders a 10.1.0.1:80 5", ""),
            ("live orders b 10.2.0.1:80 3", ""),
            ("weight orders 2500", "0 -> 2500, generation 2"),
        ])
        .await;
    let begin = Instant::now();
    session
        .run(&[
            ("trip orders", ""),
            ("told", ""),
            ("event", TRIPPED),
            ("record orders", "0 bp by the breaker"),
            // A second word of it changes nothing.
            ("told", ""),
            ("event", TRIPPED),
        ])
        .await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(session.status().await.events.len(), 2, "weight, tripped");
    // The resets run beside the loop.
    for _ in 0..100 {
        let live_count: u64 = session.dataplane.with(|state| state.live.values().sum());
        if live_count == 5 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
        tokio::task::yield_now().await;
    }
    panic!("the connections of b are not reset");
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_could_not_tell_is_found_within_a_second() {
    let mut session = Session::start(&[("orders.toml", ORDERS)]);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("trip orders", ""),
            ("pass 2", ""),
            ("event", TRIPPED),
            ("record orders", "0 bp by the breaker"),
        ])
        .await;
}
