//! The dataplane between real clients and real backends, without a daemon: every combination of
//! hook, checksum offload, GRO, address family and place of the backend.

use std::time::Duration;

use shifter_daemon::{
    dataplane::{
        Dataplane as _, DataplaneError, PlannedBackend, ServicePlan, SlotPlan, bpf::BpfDataplane,
    },
    model::{Affinity, HookSpec, InterfaceSpec, NodeSpec, OnEmpty, Protocol, SizeSpec, Slot},
};
use shifter_tests::{
    backend::{Backend, Spec},
    bpffs::Bpffs,
    load::{self, Plan},
    world::{BACKEND, Dual, Family, HOST_IF, OTHER, Options, Place, VIP, World},
};

/// Where a slot's backend is.
const PLACES: [(&str, Place, Dual); 3] = [
    ("another port of the VIP's address", Place::Host, VIP),
    ("another address of the host", Place::Host, OTHER),
    ("a routed namespace", Place::Backend, BACKEND),
];

fn node(bpffs: &Bpffs, hook: HookSpec, checksums_complete: bool) -> NodeSpec {
    NodeSpec {
        interfaces: vec![InterfaceSpec {
            name: HOST_IF.into(),
            hook,
            checksums_complete,
        }],
        control_socket: "/nonexistent".into(),
        metrics: None,
        state_dir: "/nonexistent".into(),
        bpffs: bpffs.path().to_owned(),
        services_dir: "/nonexistent".into(),
        local_clients: shifter_daemon::model::LocalClientsSpec::Off,
        sizes: SizeSpec {
            services_count: 4,
            backends_count: 64,
            flows_count: 65_536,
            pending_count: 16_384,
            table_entries_count: 65_536,
        },
        idle: Default::default(),
    }
}

fn plan(place: Dual) -> ServicePlan {
    let slot = |port| SlotPlan {
        eligible: true,
        backends: place
            .ports(port)
            .into_iter()
            .map(|addr| PlannedBackend {
                addr,
                weight: 100,
                ready: true,
            })
            .collect(),
        ..SlotPlan::default()
    };
    ServicePlan {
        name: "orders".into(),
        vips: VIP.ports(80),
        protocol: Protocol::Tcp,
        affinity: Affinity::Connection,
        on_empty: OnEmpty::Drop,
        plane: Default::default(),
        baseline: Slot::A,
        weight_bp: 5_000,
        held: false,
        observe: Default::default(),
        breaker: Default::default(),
        rearms: false,
        latches: false,
        targets: Default::default(),
        slots: [slot(8_081), slot(8_082)],
    }
}

/// Both versions answer through the VIP, large answers included, and a direct connection to a
/// backend's own address goes on working.
fn exchange(hook: HookSpec, options: Options) {
    let world = World::routed(options);
    let complete = !options.tx_checksum;
    for (name, place, addr) in PLACES {
        let case = format!("{hook:?}, {options:?}, {name}");
        let bpffs = Bpffs::mount("wire");
        let mut dataplane = world
            .host()
            .run(|| BpfDataplane::open(&node(&bpffs, hook, complete)))
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        let published = world
            .host()
            .run(|| dataplane.publish(&plan(addr)).map(|_| ()));
        let cannot_work = hook == HookSpec::Xdp && options.tx_checksum && place == Place::Backend;
        if cannot_work {
            let error = published.expect_err(&case).to_string();
            assert!(
                matches!(error, ref text if text.contains("XDP cannot see offloaded checksums")
                && text.contains("hook = \"tc\"")),
                "{case}: {error}"
            );
            continue;
        }
        published.unwrap_or_else(|error: DataplaneError| panic!("{case}: {error}"));
        let start = |name: &str, port| {
            let spec = Spec {
                body_bytes: 40_000,
                ..Spec::new(name, &addr.ports(port))
            };
            Backend::start(world.get(place), spec)
        };
        let _backends = [start("a", 8_081), start("b", 8_082)];
        for family in Family::ALL {
            let target = VIP.port(family, 80);
            let report = load::run(&world.client().inside(), &Plan::connections(target, 8, 400));
            report.assert_clean();
            assert_eq!(report.requests, 400, "{case} {family:?}");
            for name in ["a", "b"] {
                let share = report.share(name);
                assert!(
                    (0.35..0.65).contains(&share),
                    "{case} {family:?}: {name} got {share}"
                );
            }
            let direct = Plan::connections(addr.port(family, 8_081), 2, 20);
            let report = load::run(&world.client().inside(), &direct);
            report.assert_clean();
            assert_eq!(report.backend("a").requests, 20, "{case} {family:?}");
        }
        let reading = dataplane.read("orders").expect("counters");
        let established: u64 = reading
            .slots
            .iter()
            .map(|slot| slot.flows.established)
            .sum();
        assert_eq!(established, 800, "{case}");
        world.host().run(|| dataplane.detach().expect("detaches"));
    }
}

#[test]
fn tc_with_every_offload() {
    for options in Options::all_offloads() {
        exchange(HookSpec::Tc, options);
    }
}

#[test]
fn native_xdp_with_every_offload() {
    for options in Options::all_offloads() {
        exchange(HookSpec::Xdp, options);
    }
}

#[test]
fn the_auto_hook_on_veth_is_tc_and_says_why() {
    let world = World::pair(Options::default());
    let bpffs = Bpffs::mount("wire");
    let dataplane = world
        .host()
        .run(|| BpfDataplane::open(&node(&bpffs, HookSpec::Auto, false)))
        .expect("opens");
    let interfaces = dataplane.interfaces();
    assert_eq!(interfaces.len(), 1);
    assert_eq!(interfaces[0].hook, "tc");
    assert!(
        interfaces[0].reason.contains("veth is virtual"),
        "{}",
        interfaces[0].reason
    );
    // Programs leave with their pins: nothing is attached afterwards.
    let mut dataplane = dataplane;
    world.host().run(|| dataplane.detach().expect("detaches"));
    drop(dataplane);
    std::thread::sleep(Duration::from_millis(50));
    let left = world.host().tool("ip", &["-d", "link", "show", HOST_IF]);
    assert!(!left.contains("xdp"), "{left}");
}
