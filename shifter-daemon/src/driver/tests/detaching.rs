//! `detach`.

use super::session::{ORDERS, Session};
use crate::driver::Ended;

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];

#[tokio::test(start_paused = true)]
async fn flows_keep_the_programs_where_they_are_unless_forced() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("live orders a 10.1.0.1:80 4", ""),
            ("live orders b 10.2.0.1:80 1", ""),
            (
                "detach",
                "flows_open: 5 live flows would break / drain them first, or: shifterctl detach \
                 --force",
            ),
        ])
        .await;
    assert!(!session.dataplane.with(|state| state.is_detached));
    session
        .run(&[
            ("weight orders 500", "0 -> 500, generation 2"),
            ("detach force", "detached memory0, 5 flows broken"),
        ])
        .await;
    assert!(session.dataplane.with(|state| state.is_detached));
    session
        .run(&[(
            "weight orders 600",
            "internal: shifterd is stopping and takes no more requests / traffic stays steered; \
             start it again with: systemctl start shifterd",
        )])
        .await;
    assert_eq!(
        session.driver.await.expect("ends by itself"),
        Ended::Detached
    );
}

#[tokio::test(start_paused = true)]
async fn one_flow_is_one_flow() {
    let refusal = "flows_open: 1 live flow would break / drain them first, or: shifterctl detach \
                   --force";
    Session::start(FILES)
        .run(&[("live orders b 10.2.0.1:80 1", ""), ("detach", refusal)])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_vip_without_another_path_keeps_them_too() {
    let mut session = Session::start(FILES);
    session.dataplane.with(|state| {
        state.lost_paths = vec![crate::dataplane::LostPath {
            vip: "10.0.0.10:80".parse().expect("a VIP"),
            service: "orders".into(),
            why: "nobody listens there",
        }];
    });
    session
        .run(&[
            (
                "detach",
                "vip_lost: VIP 10.0.0.10:80 of orders would lose its only path: nobody listens \
                 there / send its clients elsewhere first, or: shifterctl detach --force",
            ),
            ("live orders b 10.2.0.1:80 2", ""),
            (
                "detach",
                "flows_open: 2 live flows would break; VIP 10.0.0.10:80 of orders would lose its \
                 only path: nobody listens there / drain them and send the clients elsewhere first, \
                 or: shifterctl detach --force",
            ),
        ])
        .await;
    assert!(!session.dataplane.with(|state| state.is_detached));
    session
        .run(&[("detach force", "detached memory0, 2 flows broken")])
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_flows_there_is_nothing_to_force() {
    let mut session = Session::start(FILES);
    session
        .run(&[("detach", "detached memory0, 0 flows broken")])
        .await;
    assert_eq!(
        session.driver.await.expect("ends by itself"),
        Ended::Detached
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_handles_are_gone_ends_and_leaves_everything_in_force() {
    let session = Session::start(FILES);
    drop(session.handle);
    assert_eq!(session.driver.await.expect("ends by itself"), Ended::Closed);
    assert!(!session.dataplane.with(|state| state.is_detached));
    assert!(
        session
            .dataplane
            .with(|state| state.plans.contains_key("orders"))
    );
}
