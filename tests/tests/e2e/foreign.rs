//! What is not ours is not touched, whatever shifter does meanwhile.

use std::time::Duration;

use shifter_common::abi::{map, program};
use shifter_daemon::model::HookSpec;
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::{self, Plan},
    world::{Family, HOST_IF, OTHER, Options, VIP, World},
};

use crate::stage::{PORT, PORT_A, PORT_B, Stage, orders, vip};

/// Direct connections to a backend's own address and connections to another port of the VIP go on
/// while shifterd is killed, adopts, has its programs replaced, detaches and builds anew.
#[test]
fn direct_and_foreign_traffic_passes_while_shifter_comes_and_goes() {
    let mut stage = Stage::new(HookSpec::Tc);
    let _other = Backend::start(stage.world.host(), Spec::new("other", &VIP.ports(8_080)));
    let time = Duration::from_secs(12);
    let load = |plan: Plan| {
        stage.load_beside(Plan {
            rate_per_s: Some(400.0),
            ..plan
        })
    };
    let loads = [
        load(Plan::churn(OTHER.port(Family::V4, PORT_A), 8, time)),
        load(Plan::keep_alive(OTHER.port(Family::V6, PORT_B), 8, time)),
        load(Plan::churn(VIP.port(Family::V6, 8_080), 8, time)),
        load(Plan::keep_alive(VIP.port(Family::V4, 8_080), 8, time)),
    ];
    stage.set_weight(5_000);
    for round in 0..6 {
        stage
            .load(&Plan::connections(vip(Family::V4), 8, 200))
            .assert_clean();
        stage.daemon.kill9();
        if round % 2 == 0 {
            let replaced = replace_ingress(&stage);
            assert_eq!(replaced, 1, "the ingress link");
        }
        stage.daemon.start_again();
        let names = [
            program::TC_INGRESS.to_owned(),
            program::TC_EGRESS.to_owned(),
        ];
        assert_eq!(attached(&stage), names, "the right programs are back");
        stage
            .load(&Plan::connections(vip(Family::V6), 8, 200))
            .assert_clean();
        if round % 3 == 2 {
            stage.daemon.detach(true).expect("detaches");
            assert_eq!(stage.daemon.wait(), Some(0));
            assert!(
                attached(&stage).is_empty(),
                "nothing is left on the interface"
            );
            stage.daemon.start_again();
            stage.wait("both slots are eligible", |s| {
                s.slots.iter().all(|slot| slot.eligible)
            });
        }
    }
    let verdicts = stage.daemon.status().daemon.verdicts;
    let drops: Vec<_> = verdicts
        .iter()
        .filter(|(name, count)| name.starts_with("drop_") && *count > 0)
        .collect();
    assert!(drops.is_empty(), "{drops:?}");
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 1_000, "{report:?}");
    }
}

/// A service that the host serves on the VIP already is taken under shifter: its open connections go
/// on with it, new ones are steered as soon as a slot is ready, and none fails in between.
#[test]
fn a_running_service_is_taken_over_without_a_broken_connection() {
    let world = World::pair(Options::default());
    let _before = Backend::start(world.host(), Spec::new("before", &VIP.ports(PORT)));
    let _a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let client = world.client().inside();
    let time = Duration::from_secs(5);
    let plans = [
        Plan {
            rate_per_s: Some(300.0),
            ..Plan::keep_alive(vip(Family::V4), 8, time)
        },
        Plan {
            rate_per_s: Some(500.0),
            ..Plan::churn(vip(Family::V6), 8, time)
        },
    ];
    let loads = plans.map(|plan| {
        let client = client.clone();
        std::thread::spawn(move || load::run(&client, &plan))
    });
    std::thread::sleep(Duration::from_millis(1_000));
    let mut spec = orders();
    spec.slots[1].backends.clear();
    let _daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec]);
    let [old, new] = loads.map(|load| load.join().expect("the load ran"));
    old.assert_clean();
    assert_eq!(old.connections, 8, "no connection was opened again");
    assert_eq!(old.backend("before").connections, 8);
    new.assert_clean();
    assert!(new.backend("before").connections > 0, "{new:?}");
    assert!(new.backend("a").connections > 0, "{new:?}");
}

/// Puts another program into the pinned ingress link, as an older or newer shifter would have left
/// it. Gives how many links were changed.
fn replace_ingress(stage: &Stage) -> usize {
    use aya::programs::{
        SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    };
    let root = stage.daemon.bpffs().join("shifter").join("v1");
    let mut loader = aya::EbpfLoader::new();
    for name in map::ALL {
        loader.map_pin_path(name, root.join("maps").join(name));
    }
    let mut object = loader
        .load(shifter_daemon::dataplane::bpf::object())
        .expect("the object");
    let other: &mut SchedClassifier = object
        .program_mut(program::TC_EGRESS)
        .expect("the program")
        .try_into()
        .expect("a classifier");
    other.load().expect("loads");
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("links")).expect("the links") {
        let path = entry.expect("an entry").path();
        if !path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ingress-"))
        {
            continue;
        }
        let link = FdLink::from(PinnedLink::from_pin(&path).expect("the pin"));
        other
            .attach_to_link(SchedClassifierLink::try_from(link).expect("a TCX link"))
            .expect("the kernel replaces the program");
        count += 1;
    }
    count
}

/// Names of the programs at TC on the host's interface, ingress then egress.
fn attached(stage: &Stage) -> Vec<String> {
    use aya::programs::{SchedClassifier, TcAttachType};
    stage.world.host().run(|| {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .into_iter()
            .flat_map(|direction| {
                SchedClassifier::query_tcx(HOST_IF, direction)
                    .expect("the kernel answers")
                    .1
            })
            .map(|program| program.name_as_str().unwrap_or("?").to_owned())
            .collect()
    })
}
