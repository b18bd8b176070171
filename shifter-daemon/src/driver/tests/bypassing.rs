//! `bypass`.

use super::session::{ORDERS, Session};
use crate::dataplane::memory::Operation;

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];

fn ways(session: &Session) -> Vec<String> {
    session.dataplane.with(|state| {
        let ways = state.ways.iter();
        ways.map(|way| {
            let targets: Vec<String> = way
                .targets
                .iter()
                .map(|(target, weight)| format!("{target} {weight}"))
                .collect();
            format!("{}: {}", way.service, targets.join(", "))
        })
        .collect()
    })
}

#[tokio::test(start_paused = true)]
async fn new_connections_go_around_until_it_is_undone() {
    let mut session = Session::start(FILES);
    session.act("fails orders a 10.1.0.1:80 refused").await;
    session.act("fails orders b 10.2.0.1:80 refused").await;
    session
        .run(&[(
            "bypass orders",
            "not_eligible: no slot of orders is eligible: there is nowhere to send its clients / make \
             a slot ready first; see: shifterctl status orders",
        )])
        .await;
    assert!(ways(&session).is_empty());
    session
        .run(&[
            ("ready orders a 10.1.0.1:80", ""),
            ("ready orders b 10.2.0.1:80", ""),
        ])
        .await;
    let note = "bypassed by root (uid 0): new connections go to one version by the nftables table inet \
                shifter_bypass; undo it with: shifterctl bypass orders --undo";
    session.act("bypass orders").await;
    assert_eq!(ways(&session), ["orders: 10.1.0.1:80 100"]);
    assert!(
        session
            .service("orders")
            .await
            .notes
            .contains(&note.to_owned())
    );
    // Twice is once, and the live version is followed.
    session.act("bypass orders").await;
    session.act("weight orders 9000").await;
    assert_eq!(ways(&session), ["orders: 10.2.0.1:80 100"]);
    session.act("fails orders b 10.2.0.1:80 refused").await;
    assert_eq!(ways(&session), ["orders: 10.1.0.1:80 100"]);
    session.act("fails orders a 10.1.0.1:80 refused").await;
    assert_eq!(
        ways(&session),
        ["orders: 10.1.0.1:80 100"],
        "nothing is better"
    );
    // It outlives the daemon.
    let mut session = session.restart().await;
    assert_eq!(ways(&session), ["orders: 10.2.0.1:80 100"]);
    session.act("unbypass orders").await;
    assert!(ways(&session).is_empty());
    let notes = session.service("orders").await.notes;
    assert!(
        notes.iter().all(|note| !note.contains("bypassed")),
        "{notes:?}"
    );
    session.act("unbypass orders").await;
    assert!(ways(&session).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_host_refuses_is_not_decided() {
    let mut session = Session::start(FILES);
    session.act("ready orders a 10.1.0.1:80").await;
    session.dataplane.with(|state| {
        state.failing.insert(
            Operation::Bypass,
            "nft is missing; install the package nftables: apt-get install nftables".into(),
        );
    });
    session
        .run(&[(
            "bypass orders",
            "kernel: nft is missing; install the package nftables: apt-get install nftables / see: \
             shifterctl doctor",
        )])
        .await;
    let notes = session.service("orders").await.notes;
    assert!(
        notes.iter().all(|note| !note.contains("bypassed")),
        "{notes:?}"
    );
}
