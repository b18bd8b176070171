//! The interfaces carry programs only while a service needs them.

use std::time::Duration;

use shifter_common::wire::Slot;
use shifter_daemon::model::Plane;
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{node_toml, service},
    load::Plan,
    world::{Family, OTHER, VIP},
};

use crate::{
    held::Held,
    stage::{Stage, slot, vip},
};

/// Port of the VIP of the other service.
const NAT_PORT: u16 = 81;

fn hook(stage: &Stage) -> String {
    stage.daemon.status().interfaces[0].hook.clone()
}

#[track_caller]
fn wait_for_hook(stage: &Stage, hook: &str) {
    let what = format!("the hook is {hook}");
    let status = stage.daemon.wait_for(&what, |status| {
        status
            .interfaces
            .iter()
            .all(|interface| interface.hook == hook)
    });
    let dir = stage.daemon.bpffs().join("shifter/v1/links");
    let names = std::fs::read_dir(dir).expect("links");
    let names: Vec<String> = names
        .map(|entry| {
            entry
                .expect("a pin")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let on_interfaces = names.iter().filter(|name| name.starts_with("egress-"));
    let expected = if hook == "none" {
        0
    } else {
        status.interfaces.len()
    };
    assert_eq!(on_interfaces.count(), expected, "{names:?}");
}

/// With services of the socket plane alone the programs go; they come with the first service of the nat
/// plane, and stay until its last flow has ended. No connection notices.
#[test]
fn the_hooks_rest_while_nobody_needs_them() {
    let mut stage = Stage::new();
    stage.daemon.be_patient(Duration::from_secs(40));
    wait_for_hook(&stage, "none");
    let load = stage.load_beside(Plan {
        rate_per_s: Some(200.0),
        ..Plan::churn(vip(Family::V4), 4, Duration::from_secs(40))
    });
    stage.daemon.kill9();
    // A flow that is over is remembered for its last packets.
    let mut node = stage.daemon.node_spec();
    node.idle.closed = Duration::from_secs(10);
    stage.daemon.write_node(&node_toml(&node));
    stage.daemon.start_again();
    assert_eq!(hook(&stage), "none", "the next daemon leaves it at that");
    let mut nat = service(
        "search",
        &VIP.ports(NAT_PORT),
        &OTHER.ports(9_081),
        &OTHER.ports(9_082),
    );
    nat.readiness.interval = Duration::from_millis(500);
    nat.readiness.timeout = Duration::from_millis(500);
    nat.readiness.failure_threshold = 4;
    let _search = Backend::start(
        stage.world.host(),
        Spec::new("search", &[OTHER.ports(9_081), OTHER.ports(9_082)].concat()),
    );
    stage.daemon.write_service(&nat);
    let report = stage.daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    wait_for_hook(&stage, "tc");
    stage.daemon.wait_for("search is eligible", |status| {
        let search = status.services.iter().find(|s| s.name == "search");
        search.is_some_and(|s| s.slots.iter().all(|slot| slot.eligible))
    });
    let mut held = Held::open(stage.world.client(), VIP.port(Family::V4, NAT_PORT), 2);
    assert_eq!(held.backend(), "search");
    nat.plane = Plane::Socket;
    stage.daemon.write_service(&nat);
    let report = stage.daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    // Longer than from one sweep to the next.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(hook(&stage), "tc", "two flows are open");
    assert_eq!(held.alive_count(), 2);
    drop(held);
    wait_for_hook(&stage, "none");
    load.join().expect("ran").assert_clean();
    let service = stage.service();
    assert!(slot(&service, Slot::A).counters.established > 2_000);
}
