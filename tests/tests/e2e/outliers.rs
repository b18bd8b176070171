//! Backends that fail where their peers do not.

use std::time::Duration;

use shifter_daemon::model::{BackendSpec, HookSpec, OutlierSpec, ProbeCheck};
use shifter_tests::{
    load::Plan,
    world::{Family, OTHER, Options},
};

use crate::stage::{ORDERS, Stage, orders, vip};

/// Nobody listens there.
const PORT_DEAD: u16 = 8_099;

/// One of two backends refuses every connection, and no probe says so. After five clients were
/// refused nobody is any more, for as long as the ejection lasts.
#[test]
fn a_backend_that_refuses_is_ejected() {
    let mut spec = orders();
    spec.readiness.check = ProbeCheck::None;
    spec.slots[0].backends.extend(
        OTHER
            .ports(PORT_DEAD)
            .into_iter()
            .map(|addr| BackendSpec { addr, weight: 100 }),
    );
    spec.outlier = Some(OutlierSpec {
        consecutive_errors: 5,
        compare_peers: true,
        min_flows: 50,
        interval: Duration::from_secs(10),
        ejection: Duration::from_secs(60),
        max_ejection: Duration::from_secs(600),
        max_ejected_percent: 50,
    });
    let stage = Stage::with(HookSpec::Tc, Options::default(), spec);
    for family in Family::ALL {
        let dead = OTHER.port(family, PORT_DEAD).to_string();
        // A look counts what is new since the one before, and the first may not have been yet.
        let mut refused_count = 0;
        let service = stage.wait("the dead backend is ejected", |service| {
            refused_count += stage
                .load(&Plan::connections(vip(family), 4, 20))
                .errors_count();
            let backend = service.slots[0].backends.iter().find(|b| b.addr == dead);
            backend.is_some_and(|backend| !backend.ready)
        });
        assert!(refused_count >= 5, "{refused_count} refused");
        let backends = &service.slots[0].backends;
        let backend = backends
            .iter()
            .find(|b| b.addr == dead)
            .expect("it is shown");
        assert!(
            backend.reason.starts_with("ejected for 60 s: ")
                && backend.reason.ends_with(" errors in a row"),
            "{backend:?}"
        );
        stage
            .load(&Plan::connections(vip(family), 4, 300))
            .assert_clean();
    }
    let events = stage.daemon.status().events;
    let ejected = events
        .iter()
        .filter(|event| event.service == ORDERS && event.what == "ejected")
        .count();
    assert_eq!(ejected, 2, "{events:#?}");
}
