//! `manage_vip`: shifterd gives the host the address of a VIP, and takes its own back.

use shifter_daemon::model::{HookSpec, ProbeCheck, ServiceSpec};
use shifter_tests::{
    daemon::{Daemon, Node},
    world::{Family, OTHER, Options, World},
};

use crate::{
    greeter::{Greeter, ask},
    stage::{ORDERS, orders},
};

const OWN: [&str; 2] = ["10.0.0.77", "2001:db8::77"];
const FOREIGN: &str = "10.0.0.78";

fn spec(vips: &[&str]) -> ServiceSpec {
    let backends = Family::ALL.map(|family| OTHER.port(family, 8_081));
    let mut spec = orders(&backends, &[]);
    let vips = vips
        .iter()
        .map(|ip| std::net::SocketAddr::new(ip.parse().expect("an address"), 80));
    spec.vips = vips.collect();
    spec.slots[0].backends.retain(|backend| {
        spec.vips
            .iter()
            .any(|vip| vip.is_ipv4() == backend.addr.is_ipv4())
    });
    spec.readiness.check = ProbeCheck::None;
    spec.manages_vips = true;
    spec
}

fn has(world: &World, ip: &str) -> bool {
    let list = world.host().ip("-brief address show dev lo");
    list.split_whitespace()
        .any(|word| word.split('/').next() == Some(ip))
}

fn answered(world: &World, ip: &str) -> bool {
    let to = std::net::SocketAddr::new(ip.parse().expect("an address"), 80);
    ask(world.host(), to).is_ok_and(|name| name == "a")
}

/// The address comes with the service, outlives the daemon, goes when it is not asked for any more and
/// with `detach`; one that somebody else has made is refused and never touched.
#[test]
fn the_address_comes_and_goes_with_the_service() {
    let world = World::pair(Options::default());
    let listen = Family::ALL.map(|family| OTHER.port(family, 8_081).to_string());
    let _a = listen
        .each_ref()
        .map(|at| Greeter::start(world.host(), "a", at));
    let mut daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec(&OWN)]);
    daemon.wait_for("slot a is eligible", |status| {
        status.services[0].slots[0].eligible
    });
    for ip in OWN {
        assert!(has(&world, ip) && answered(&world, ip), "{ip}");
    }
    // Nothing of it hangs on a daemon, or on its file.
    daemon.kill9();
    daemon.remove_service(ORDERS);
    daemon.start_again();
    assert!(OWN.iter().all(|ip| has(&world, ip) && answered(&world, ip)));
    // Somebody else's.
    world.host().ip(&format!("address add {FOREIGN}/32 dev lo"));
    daemon.write_service(&spec(&[OWN[0], OWN[1], FOREIGN]));
    let text = format!("{:?}", daemon.apply().expect("answers"));
    assert!(
        text.contains(&format!(
            "{FOREIGN} is an address of this host already, and not by shifterd: remove it (where it \
             is: ip addr show to {FOREIGN}), or write manage_vip = false"
        )),
        "{text}"
    );
    assert!(OWN.iter().all(|ip| has(&world, ip)) && has(&world, FOREIGN));
    // One of two is not asked for any more.
    daemon.write_service(&spec(&[OWN[0]]));
    let report = daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    assert_eq!(OWN.map(|ip| has(&world, ip)), [true, false]);
    assert!(answered(&world, OWN[0]));
    daemon.detach(true).expect("detaches");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(OWN.map(|ip| has(&world, ip)), [false, false]);
    assert!(has(&world, FOREIGN));
}
