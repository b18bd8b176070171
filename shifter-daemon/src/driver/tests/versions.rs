//! Numbers of versions: given once, whatever is lost.

use super::session::{ORDERS, SEARCH, Session};

/// The numbers of a service's slots.
fn ids(session: &Session, service: &str) -> [u32; 2] {
    session.dataplane.with(|state| {
        let plan = state.plans.get(service).expect("published");
        plan.slots.clone().map(|slot| slot.version_id)
    })
}

#[tokio::test]
async fn a_number_is_given_once() {
    let mut session = Session::start(&[("orders.toml", ORDERS)]);
    assert_eq!(ids(&session, "orders"), [1, 2]);
    // A new service, then another version on a slot, then the first one's server again.
    session.act(&format!("write search.toml {SEARCH}")).await;
    session.act("apply").await;
    assert_eq!(ids(&session, "search"), [3, 0]);
    for (port, expected) in [(81, [1, 4]), (80, [1, 5])] {
        let text = ORDERS.replace("10.2.0.1:80", &format!("10.2.0.1:{port}"));
        session.act(&format!("write orders.toml {text}")).await;
        session.act("apply").await;
        assert_eq!(ids(&session, "orders"), expected);
    }
    // Weights and readiness are no versions, and neither is a restart.
    session.act("weight orders 500").await;
    let mut session = session.restart().await;
    assert_eq!(ids(&session, "orders"), [1, 5]);
    let text = ORDERS.replace("10.1.0.1:80", "10.1.0.1:81");
    session.act(&format!("write orders.toml {text}")).await;
    session.act("apply").await;
    assert_eq!(ids(&session, "orders"), [6, 5]);
}

#[tokio::test]
async fn what_the_disk_or_the_kernel_has_lost_the_other_knows() {
    // Everything but the state is lost: a reboot.
    let session = Session::start(&[("orders.toml", ORDERS)]);
    let (dir, _) = session.kill().await;
    let session = Session::start_in(dir, Default::default());
    assert_eq!(ids(&session, "orders"), [3, 4]);
    // The state is lost.
    let (dir, dataplane) = session.kill().await;
    std::fs::remove_dir_all(dir.path().join("state")).expect("a state directory");
    let mut session = Session::start_in(dir, dataplane);
    assert_eq!(ids(&session, "orders"), [3, 4], "as the kernel holds it");
    session.act(&format!("write search.toml {SEARCH}")).await;
    session.act("apply").await;
    assert_eq!(ids(&session, "search"), [5, 0]);
    // The disk refuses.
    session.act("lock").await;
    let text = ORDERS.replace("10.2.0.1:80", "10.2.0.1:81");
    session.act(&format!("write orders.toml {text}")).await;
    session.act("apply").await;
    assert_eq!(ids(&session, "orders"), [3, 6]);
    let mut session = session.restart().await;
    session.act(&format!("write orders.toml {ORDERS}")).await;
    session.act("apply").await;
    assert_eq!(ids(&session, "orders"), [3, 7], "the kernel held number 6");
}

/// A rollout brings another version to a slot, with the same servers' addresses as the one before.
#[tokio::test(start_paused = true)]
async fn a_rollout_numbers_its_version_and_a_retry_does_not() {
    let mut session = Session::start(&[("orders.toml", ORDERS)]);
    assert_eq!(ids(&session, "orders"), [1, 2]);
    session.act("start orders 3.2.0").await;
    session.act("pass 2").await;
    assert_eq!(ids(&session, "orders"), [1, 3]);
    session.act("abort orders").await;
    session.act("retry orders").await;
    session.act("pass 2").await;
    assert_eq!(ids(&session, "orders"), [1, 3]);
    session.act("abort orders").await;
    session.act("pass 2").await;
    session.act("start orders 3.2.1").await;
    session.act("pass 2").await;
    assert_eq!(ids(&session, "orders"), [1, 4]);
}
