//! `manage_vip`: which addresses the host is given, and which are left alone.

use super::session::{ORDERS, SEARCH, Session};

fn managed(text: &str) -> String {
    text.replace("vip =", "manage_vip = true\nvip =")
}

fn held(session: &Session) -> Vec<String> {
    let held = session.dataplane.with(|state| state.held.clone());
    held.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_host_has_what_files_ask_for() {
    let mut session = Session::start(&[("orders.toml", &managed(ORDERS))]);
    assert_eq!(held(&session), ["10.0.0.10"]);
    session
        .act(&format!("write search.toml {}", managed(SEARCH)))
        .await;
    session.act("apply").await;
    assert_eq!(held(&session), ["10.0.0.10", "10.0.0.20"]);
    // A service whose file is gone or bad steers on, and its address stays.
    session.act("remove search.toml").await;
    session.act("write orders.toml nonsense").await;
    session.act("apply").await;
    assert_eq!(held(&session), ["10.0.0.10", "10.0.0.20"]);
    let mut session = session.restart().await;
    assert_eq!(held(&session), ["10.0.0.10", "10.0.0.20"]);
    session.act(&format!("write orders.toml {ORDERS}")).await;
    session.act("apply").await;
    assert_eq!(held(&session), ["10.0.0.20"], "not asked for any more");
}

#[tokio::test]
async fn an_address_of_somebody_else_is_refused() {
    let mut session = Session::start(&[("orders.toml", ORDERS)]);
    let ours = "10.0.0.10".parse().expect("an address");
    session.dataplane.with(|state| state.local.insert(ours));
    session
        .act(&format!("write orders.toml {}", managed(ORDERS)))
        .await;
    let answer = session.act("apply").await;
    let why = "manage_vip = true, but 10.0.0.10 is an address of this host already, and not by \
               shifterd: remove it (where it is: ip addr show to 10.0.0.10), or write manage_vip = \
               false";
    assert!(answer.contains(why), "{answer}");
    assert_eq!(held(&session), [""; 0]);
    // One that shifterd has given is no obstacle.
    session.dataplane.with(|state| state.held.insert(ours));
    let answer = session.act("apply").await;
    assert!(!answer.contains(why), "{answer}");
    assert_eq!(held(&session), ["10.0.0.10"]);
}
