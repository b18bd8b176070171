//! Bridges, subinterfaces, interfaces that come, go and change their names, and other people's programs.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use shifter_common::abi::program;
use shifter_daemon::model::{HookSpec, InterfaceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::{self, Plan},
    world::{CLIENT, CLIENT_POOL, Family, HOST_IF, HOST_TO_CLIENT, OTHER, Options, World},
};

use crate::stage::{ORDERS, PORT_A, orders, vip};

fn node(interfaces: &[(&str, HookSpec)]) -> Node {
    let mut node = Node::new(HookSpec::Tc);
    node.interfaces = interfaces
        .iter()
        .map(|(name, hook)| InterfaceSpec {
            name: (*name).into(),
            hook: *hook,
            checksums_complete: false,
        })
        .collect();
    node
}

/// A world with one version on the host.
struct Scene {
    world: World,
    _a: Backend,
}

impl Scene {
    fn new() -> Self {
        let world = World::pair(Options::default());
        let a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
        Self { world, _a: a }
    }

    fn start(&self, node: Node) -> Daemon {
        let daemon = self.prepare(node);
        let mut daemon = daemon;
        daemon.start_again();
        daemon.wait_until_ready();
        daemon
    }

    fn prepare(&self, node: Node) -> Daemon {
        let mut service = orders();
        service.slots[1].backends.clear();
        Daemon::prepare(self.world.host(), node, &[service])
    }

    /// Its last words, of a shifterd that does not start.
    fn refusal(&self, node: Node) -> String {
        let mut daemon = self.prepare(node);
        daemon.spawn();
        assert_eq!(daemon.wait(), Some(1), "{}", daemon.logs());
        let logs = daemon.logs();
        logs.lines().last().unwrap_or_default().to_owned()
    }

    /// Both families get through, every flow is selected once, none is dropped.
    #[track_caller]
    fn serves(&self, daemon: &Daemon) {
        let count = |daemon: &Daemon| {
            daemon.service(ORDERS).expect("known").slots[0]
                .counters
                .selected
        };
        let before = count(daemon);
        for family in Family::ALL {
            let report = self.load(&Plan::connections(vip(family), 4, 50));
            report.assert_clean();
        }
        assert_eq!(count(daemon) - before, 100);
        let drops: Vec<_> = daemon
            .status()
            .daemon
            .verdicts
            .into_iter()
            .filter(|(name, count)| name.starts_with("drop_") && *count > 0)
            .collect();
        assert!(drops.is_empty(), "{drops:?}");
    }

    fn load(&self, plan: &Plan) -> load::Report {
        load::run(&self.world.client().inside(), plan)
    }

    /// Gives the client's address to another interface of the client, the host's to another of the
    /// host.
    fn move_addresses(&self, client_if: &str, host_if: &str) {
        let ends = [
            (self.world.client(), "eth0", client_if, CLIENT),
            (self.world.host(), HOST_IF, host_if, HOST_TO_CLIENT),
        ];
        for (netns, old, new, addr) in ends {
            netns.ip(&format!("addr flush dev {old}"));
            netns.ip(&format!("link set {new} up"));
            netns.ip(&format!("addr replace {}/24 dev {new}", addr.v4));
            netns.ip(&format!("addr replace {}/64 dev {new} nodad", addr.v6));
        }
        self.set_routes();
    }

    fn set_routes(&self) {
        let (client, host) = (self.world.client(), self.world.host());
        client.ip(&format!(
            "-4 route replace default via {}",
            HOST_TO_CLIENT.v4
        ));
        client.ip(&format!(
            "-6 route replace default via {}",
            HOST_TO_CLIENT.v6
        ));
        host.ip(&format!(
            "-4 route replace {}/16 via {}",
            CLIENT_POOL.v4, CLIENT.v4
        ));
        host.ip(&format!(
            "-6 route replace {}/112 via {}",
            CLIENT_POOL.v6, CLIENT.v6
        ));
    }
}

/// Hook and reason of each interface.
fn hooks(daemon: &Daemon) -> BTreeMap<String, String> {
    let interfaces = daemon.status().interfaces.into_iter();
    interfaces
        .map(|i| (i.name, format!("{}: {}", i.hook, i.reason)))
        .collect()
}

/// A bridge, its port, and both at once: every flow is selected exactly once.
#[test]
fn a_bridge_and_its_port_do_not_steer_twice() {
    let scene = Scene::new();
    let host = scene.world.host();
    host.ip("link add br0 type bridge");
    host.ip(&format!("link set {HOST_IF} master br0"));
    scene.move_addresses("eth0", "br0");
    let of_port = "tc: driver veth is virtual: XDP cannot see offloaded checksums; only clients behind \
                   this port are steered, those behind all ports if br0 is named instead";
    let of_bridge = "tc: driver bridge is virtual: XDP cannot see offloaded checksums";
    for names in [&["br0"][..], &[HOST_IF], &["br0", HOST_IF]] {
        let interfaces: Vec<_> = names.iter().map(|name| (*name, HookSpec::Auto)).collect();
        let daemon = scene.start(node(&interfaces));
        scene.serves(&daemon);
        for (name, hook) in hooks(&daemon) {
            assert_eq!(hook, if name == "br0" { of_bridge } else { of_port });
        }
    }
}

/// An interface on top of another one, alone and with its parent hooked as well: packets pass both, and
/// every flow is selected exactly once.
#[test]
fn a_subinterface_and_its_parent_do_not_steer_twice() {
    let scene = Scene::new();
    for netns in [scene.world.client(), scene.world.host()] {
        netns.ip("link add link eth0 name sub0 type macvlan mode bridge");
        // The parent must not answer for the address of its subinterface.
        netns.sysctl("net.ipv4.conf.all.arp_ignore", "1");
    }
    scene.move_addresses("sub0", "sub0");
    for names in [&["sub0"][..], &["sub0", HOST_IF]] {
        let interfaces: Vec<_> = names.iter().map(|name| (*name, HookSpec::Auto)).collect();
        let daemon = scene.start(node(&interfaces));
        scene.serves(&daemon);
        assert_eq!(
            hooks(&daemon)["sub0"],
            "tc: driver macvlan is virtual: XDP cannot see offloaded checksums"
        );
    }
}

/// An interface that was deleted and made anew under its old name and its old index is hooked again: by
/// a shifterd that starts then, and by one that runs.
#[test]
fn an_interface_that_was_made_anew_is_hooked_again() {
    let scene = Scene::new();
    let make_anew = || {
        let (client, host) = (scene.world.client(), scene.world.host());
        let index = host
            .run(|| nix::net::if_::if_nametoindex(HOST_IF))
            .expect("there");
        host.ip(&format!("link del {HOST_IF}"));
        host.ip(&format!(
            "link add {HOST_IF} index {index} type veth peer name eth0 netns {}",
            client.path().display()
        ));
        for (netns, addr) in [(client, CLIENT), (host, HOST_TO_CLIENT)] {
            netns.ip("link set eth0 up");
            netns.ip(&format!("addr add {}/24 dev eth0", addr.v4));
            netns.ip(&format!("addr add {}/64 dev eth0 nodad", addr.v6));
        }
        scene.set_routes();
        index
    };
    let mut daemon = scene.start(node(&[(HOST_IF, HookSpec::Tc)]));
    scene.serves(&daemon);
    daemon.kill9();
    make_anew();
    daemon.start_again();
    daemon.wait_until_ready();
    scene.serves(&daemon);
    let index = make_anew();
    let said =
        format!("interface eth0 was made anew (index {index}, now {index}): hooked again, tc");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while !daemon.logs().contains(&said) {
        assert!(std::time::Instant::now() < end, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    scene.serves(&daemon);
    scene.world.host().ip(&format!("link del {HOST_IF}"));
    daemon.wait_for("the interface is missed", |status| {
        status.interfaces[0]
            .reason
            .starts_with("gone: hooked again when it is back; ")
    });
}

/// A new name changes nothing for packets; status says it, and a start that does not find the old name
/// names the new one.
#[test]
fn an_interface_that_was_renamed_is_named() {
    let scene = Scene::new();
    let mut patient = node(&[(HOST_IF, HookSpec::Tc)]);
    patient.patience = std::time::Duration::from_secs(40);
    let mut daemon = scene.start(patient);
    let host = scene.world.host();
    let index = host
        .run(|| nix::net::if_::if_nametoindex(HOST_IF))
        .expect("there");
    // Addresses and routes survive a new name; it takes the interface down on older kernels only.
    host.ip(&format!("link set {HOST_IF} name wan0"));
    scene.set_routes();
    scene.serves(&daemon);
    daemon.wait_for("status knows the new name", |status| {
        status.interfaces[0]
            .reason
            .starts_with("called wan0 now: write that in the node file; ")
    });
    daemon.stop();
    daemon.spawn();
    assert_eq!(daemon.wait(), Some(1));
    let logs = daemon.logs();
    assert_eq!(
        logs.lines().last(),
        Some(&*format!(
            "shifterd: there is no interface \"eth0\"; those there are: ip -br link; shifter's \
             programs are on wan0 (index {index}): if that is eth0 under a new name, write it in the \
             node file"
        ))
    );
    let report = scene.load(&Plan::connections(vip(Family::V4), 4, 50));
    report.assert_clean();
}

/// Generic XDP when asked for, and from one mode to the other and back under load without a lost packet.
#[test]
fn xdp_changes_its_mode_under_load() {
    let scene = Scene::new();
    let mut daemon = scene.start(node(&[(HOST_IF, HookSpec::XdpGeneric)]));
    scene.serves(&daemon);
    assert!(hooks(&daemon)[HOST_IF].starts_with("xdp-generic: asked for; driver veth is virtual"));
    let client = scene.world.client().inside();
    let load = std::thread::spawn(move || {
        let plan = Plan {
            rate_per_s: Some(400.0),
            ..Plan::keep_alive(vip(Family::V4), 8, std::time::Duration::from_secs(8))
        };
        load::run(&client, &plan)
    });
    for hook in [
        HookSpec::Xdp,
        HookSpec::XdpGeneric,
        HookSpec::Tc,
        HookSpec::XdpGeneric,
    ] {
        daemon.stop();
        let mut spec = daemon.node_spec();
        spec.interfaces[0].hook = hook;
        daemon.write_node(&shifter_tests::daemon::node_toml(&spec));
        daemon.start_again();
        daemon.wait_until_ready();
        scene.serves(&daemon);
    }
    let report = load.join().expect("the load ran");
    report.assert_clean();
    assert_eq!(report.connections, 8, "no connection was opened again");
}

/// Somebody else's XDP program stays: `auto` steers at TC and names it, `xdp` is refused with its name.
#[test]
fn a_foreign_xdp_program_is_named_and_stays() {
    let scene = Scene::new();
    let foreign = ForeignXdp::attach(&scene);
    let mut daemon = scene.start(node(&[(HOST_IF, HookSpec::Auto)]));
    scene.serves(&daemon);
    let holder = format!("xdp_ingress (id {})", foreign.id);
    assert_eq!(
        hooks(&daemon)[HOST_IF],
        format!("tc: a foreign XDP program is attached: {holder}")
    );
    for (hook, name) in [
        (HookSpec::Xdp, "xdp"),
        (HookSpec::XdpGeneric, "xdp-generic"),
    ] {
        let refusal = scene.refusal(node(&[(HOST_IF, hook)]));
        assert_eq!(
            refusal,
            format!(
                "shifterd: hook = \"{name}\" on eth0: a foreign XDP program holds it: {holder}; use \
                 hook = \"tc\", or take it off: ip link set dev eth0 xdp off"
            )
        );
    }
    daemon.detach(true).expect("detaches");
    assert_eq!(daemon.wait(), Some(0));
    let found = scene
        .world
        .host()
        .run(|| shifter_daemon::doctor::interface::inspect(HOST_IF));
    assert_eq!(found.expect("there").xdp_prog_id, Some(foreign.id));
}

/// Somebody else's classifiers keep their places before, while and after shifter is there.
#[test]
fn foreign_classifiers_keep_their_order() {
    let scene = Scene::new();
    let first = ForeignTcx::attach(&scene);
    let second = ForeignTcx::attach(&scene);
    let foreign = vec![first.id, second.id];
    assert_eq!(ingress(&scene), foreign);
    let mut daemon = scene.start(node(&[(HOST_IF, HookSpec::Tc)]));
    scene.serves(&daemon);
    let with_ours = ingress(&scene);
    assert_eq!((&with_ours[..2], with_ours.len()), (&foreign[..], 3));
    daemon.kill9();
    let third = ForeignTcx::attach(&scene);
    daemon.start_again();
    assert_eq!(ingress(&scene), [&with_ours[..], &[third.id]].concat());
    scene.serves(&daemon);
    daemon.detach(true).expect("detaches");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(ingress(&scene), vec![first.id, second.id, third.id]);
}

/// Ids of the programs at TC ingress, in their order.
fn ingress(scene: &Scene) -> Vec<u32> {
    let query = || SchedClassifier::query_tcx(HOST_IF, TcAttachType::Ingress);
    let (_, programs) = scene.world.host().run(query).expect("the kernel answers");
    programs
        .iter()
        .map(aya::programs::ProgramInfo::id)
        .collect()
}

fn object() -> Ebpf {
    Ebpf::load(shifter_daemon::dataplane::bpf::object()).expect("the object loads")
}

/// One of shifter's own programs over maps of its own, which steer nobody.
struct ForeignXdp {
    id: u32,
    _link: XdpLink,
    _object: Ebpf,
}

impl ForeignXdp {
    fn attach(scene: &Scene) -> Self {
        let mut object = object();
        let xdp: &mut Xdp = object
            .program_mut(program::XDP_INGRESS)
            .expect("the program")
            .try_into()
            .expect("XDP");
        xdp.load().expect("loads");
        let id = xdp.info().expect("loaded").id();
        let link = scene
            .world
            .host()
            .run(|| xdp.attach(HOST_IF, XdpMode::Driver));
        let link = xdp.take_link(link.expect("attaches")).expect("the link");
        Self {
            id,
            _link: link,
            _object: object,
        }
    }
}

struct ForeignTcx {
    id: u32,
    _link: SchedClassifierLink,
    _object: Ebpf,
}

impl ForeignTcx {
    fn attach(scene: &Scene) -> Self {
        let mut object = object();
        let classifier: &mut SchedClassifier = object
            .program_mut(program::TC_INGRESS)
            .expect("the program")
            .try_into()
            .expect("a classifier");
        classifier.load().expect("loads");
        let id = classifier.info().expect("loaded").id();
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let link = scene
            .world
            .host()
            .run(|| classifier.attach_with_options(HOST_IF, TcAttachType::Ingress, options));
        let link = classifier
            .take_link(link.expect("attaches"))
            .expect("the link");
        Self {
            id,
            _link: link,
            _object: object,
        }
    }
}
