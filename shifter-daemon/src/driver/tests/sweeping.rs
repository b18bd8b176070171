//! Sweeps beside the loop, and what they let the dataplane forget.

use std::time::Duration;

use super::session::{ORDERS, Session};
use crate::{
    dataplane::{Census, memory::Operation},
    driver::sweep::Swept,
};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];
const INTERVAL: Duration = Duration::from_secs(10);

fn retired_count(session: &Session) -> u64 {
    session.dataplane.with(|state| state.retired_count)
}

#[tokio::test(start_paused = true)]
async fn what_no_flow_needs_is_retired_at_every_tick() {
    let session = Session::start(FILES);
    tokio::time::sleep(INTERVAL * 3 + INTERVAL / 2).await;
    assert_eq!(
        retired_count(&session),
        4,
        "at once, and after each interval"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_fails_is_tried_again() {
    for operation in [Operation::Sweep, Operation::Retire] {
        let session = Session::start(FILES);
        session
            .dataplane
            .with(|state| state.failing.insert(operation, "EINTR".into()));
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(retired_count(&session), 0);
        session.dataplane.with(|state| state.failing.clear());
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(retired_count(&session), 1);
    }
}

/// A census tells what there was when it was taken. A flow may have begun since, to a backend that
/// was taken out of the plan since: it must not be forgotten under it.
#[tokio::test(start_paused = true)]
async fn a_census_from_before_a_change_retires_nothing() {
    let session = Session::start(FILES);
    let (dir, dataplane) = session.kill().await;
    let (prober, _probed) = tokio::sync::mpsc::channel(8);
    let mut driver = super::session::driver(&dir, &dataplane, prober);
    let publications_count = driver.publications_count;
    let swept = || Swept {
        publications_count,
        census: Ok(Census::default()),
    };
    driver.handle_swept(swept());
    assert_eq!(dataplane.with(|state| state.retired_count), 1);
    driver
        .put_in_force("orders")
        .expect("a dataplane that takes everything");
    driver.handle_swept(swept());
    assert_eq!(
        dataplane.with(|state| state.retired_count),
        1,
        "made before the change"
    );
}
