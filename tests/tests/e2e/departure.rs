//! Leaving the host: what is asked first, and that nothing is left.

use std::process::Output;

use shifter_common::wire::Slot;
use shifter_daemon::model::{HookSpec, LocalClientsSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Node, rehearsal, shifterd},
    load::Plan,
    world::{Family, OTHER, Options, VIP},
};

use crate::stage::{PORT, PORT_A, Stage, orders, slot, vip};

/// Runs `shifterd --detach` in the host's namespace: exit code and what it says.
fn detach(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = stage.world.host().command(shifterd());
    command.arg("--config").arg(stage.daemon.node_file());
    command.arg("--detach").args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the program starts");
    let text = [stdout, stderr].concat();
    (
        status.code(),
        String::from_utf8_lossy(&text).trim_end().to_owned(),
    )
}

/// How many programs hang at the host's interface and how many links are loaded for this stage.
fn attached_count(stage: &Stage) -> usize {
    use aya::programs::{SchedClassifier, TcAttachType};
    stage.world.host().run(|| {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .into_iter()
            .map(|direction| {
                SchedClassifier::query_tcx(shifter_tests::world::HOST_IF, direction)
                    .expect("the kernel answers")
                    .1
                    .len()
            })
            .sum()
    })
}

#[track_caller]
fn assert_nothing_is_left(stage: &Stage) {
    assert_eq!(attached_count(stage), 0);
    let pins = stage.daemon.bpffs().join("shifter");
    assert!(!pins.exists(), "{}", pins.display());
}

const LOST: [&str; 2] = [
    "VIP 10.0.0.10:80 of orders would lose its only path: nobody listens there",
    "VIP [2001:db8::10]:80 of orders would lose its only path: nobody listens there",
];

/// With a daemon: both reasons are told, and `--force` leaves nothing.
#[test]
fn with_a_daemon() {
    // A server that is started on the VIP asks itself whether it is up: not to be steered.
    let node = Node {
        local_clients: LocalClientsSpec::Off,
        ..Node::new(HookSpec::Tc)
    };
    let mut stage = Stage::on(node, Options::default(), orders());
    let client = stage.world.client().inside();
    let open = client.run(|| std::net::TcpStream::connect(vip(Family::V4)));
    let open = open.expect("a connection");
    stage.wait("it is open", |service| {
        slot(service, Slot::A).live_flows_count == 1
    });
    let refused = stage.daemon.detach(false).expect_err("a flow is open");
    assert_eq!(refused.code, "flows_open");
    assert_eq!(
        refused.message,
        format!("1 live flow would break; {}; {}", LOST[0], LOST[1])
    );
    drop(open);
    stage.wait("it is closed", |service| {
        slot(service, Slot::A).live_flows_count == 0
    });
    let refused = stage
        .daemon
        .detach(false)
        .expect_err("nobody else serves the VIP");
    assert_eq!(refused.code, "vip_lost");
    assert_eq!(refused.message, LOST.join("; "));
    assert_eq!(attached_count(&stage), 2, "nothing was touched");

    // Somebody listens on the VIP: nothing is lost any more.
    let _other = Backend::start(stage.world.host(), Spec::new("other", &VIP.ports(PORT)));
    stage.daemon.detach(false).expect("nothing breaks");
    assert_eq!(stage.daemon.wait(), Some(0));
    assert_nothing_is_left(&stage);
    for target in [vip(Family::V4), OTHER.port(Family::V6, PORT_A)] {
        stage
            .load(&Plan::connections(target, 8, 200))
            .assert_clean();
    }
}

/// Without one: the same questions, asked of what is pinned, and whoever pinned it.
#[test]
fn without_a_daemon() {
    let mut stage = Stage::new(HookSpec::Tc);
    let client = stage.world.client().inside();
    let connect = || {
        let open = client.run(|| std::net::TcpStream::connect(vip(Family::V6)));
        open.expect("a connection")
    };
    let open = [connect(), connect()];
    stage.wait("they are open", |service| {
        slot(service, Slot::A).live_flows_count == 2
    });
    let (code, text) = detach(&stage, &[]);
    assert_eq!(code, Some(1));
    let pins = stage.daemon.bpffs().join("shifter");
    assert_eq!(
        text,
        format!(
            "shifterd: another shifterd holds {}; stop it first: systemctl stop shifterd",
            pins.display()
        )
    );
    // A newer version's dataplane, and this version's command.
    assert_eq!(stage.daemon.stop(), Some(0));
    stage.daemon.become_program(rehearsal(), &[]);
    stage.daemon.start_again();
    assert_eq!(stage.daemon.stop(), Some(0));
    assert_eq!(
        detach(&stage, &[]),
        (
            Some(1),
            format!(
                "shifterd: 2 live flows of orders would break; {}; {}; send the clients elsewhere \
                 first, or break them with: shifterd --detach --force",
                LOST[0], LOST[1]
            )
        )
    );
    assert_eq!(attached_count(&stage), 2, "nothing was touched");
    assert_eq!(
        detach(&stage, &["--force"]),
        (Some(0), "10 programs taken off".into())
    );
    assert_nothing_is_left(&stage);
    drop(open);
    stage
        .load(&Plan::connections(OTHER.port(Family::V4, PORT_A), 8, 200))
        .assert_clean();
    assert_eq!(
        detach(&stage, &[]),
        (Some(0), "nothing was attached".into()),
        "it can be said twice"
    );
    // And it can all be had again.
    stage.daemon.become_program(shifterd(), &[]);
    stage.daemon.start_again();
    stage.wait("both slots are eligible", |service| {
        service.slots.iter().all(|slot| slot.eligible)
    });
    stage
        .load(&Plan::connections(vip(Family::V4), 8, 200))
        .assert_clean();
}

/// A dataplane in the middle of a replacement, or one that nobody understands, goes as well.
#[test]
fn whatever_is_there() {
    let mut stage = Stage::new(HookSpec::Tc);
    for step in ["renamed", "committed", "replacing-1", "settled"] {
        assert_eq!(stage.daemon.stop(), Some(0));
        let variables = [("SHIFTER_REHEARSE_KILL", step)];
        stage.daemon.become_program(rehearsal(), &variables);
        stage.daemon.spawn();
        assert_eq!(stage.daemon.wait(), None);
        let (code, text) = detach(&stage, &["--force"]);
        assert_eq!(
            (code, text.as_str()),
            (Some(0), "10 programs taken off"),
            "{step}"
        );
        assert_nothing_is_left(&stage);
        stage.daemon.become_program(shifterd(), &[]);
        stage.daemon.start_again();
    }
    assert_eq!(stage.daemon.stop(), Some(0));
    let layout = stage.daemon.bpffs().join("shifter/v1/maps/LAYOUT");
    std::fs::remove_file(layout).expect("removed");
    let (code, text) = detach(&stage, &[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("cannot be taken over: it does not say what its maps hold"),
        "{text}"
    );
    assert_eq!(detach(&stage, &["--force"]).0, Some(0));
    assert_nothing_is_left(&stage);
}
