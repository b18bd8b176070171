//! What is not ours: users who would like to be captured, other listeners, other namespaces.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use shifter_common::wire::Slot;
use shifter_daemon::model::{HookSpec, OnEmpty, ProbeCheck};
use shifter_tests::{
    daemon::{Daemon, Node},
    load::Plan,
    netns::Netns,
    world::{Family, OTHER, Options, World},
};

use crate::{
    greeter::{Greeter, ask},
    stage::{PORT_B, Stage, counter, cut_off, orders, slot, vip},
};

/// How often somebody listens in vain.
const TIMES: &str = "1000";

/// Runs a program as nobody, and gives what it has said.
fn as_nobody(host: &Netns, program: &[&str]) -> String {
    let mut command = host.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = command.args(program).output().expect("the program runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {err}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// As nobody, in the host's namespace while the port is free and while it is not, and as root of a namespace
/// of their own with the same address: listening a thousand times gets no connection and costs none.
#[test]
fn nobody_listens_on_a_backends_address() {
    let mut stage = Stage::new();
    stage.set_weight(5_000);
    let listen = env!("CARGO_BIN_EXE_shifter-listen");
    for family in Family::ALL {
        let addr = OTHER.port(family, PORT_B).to_string();
        let any = SocketAddr::new(
            family.pick(Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()),
            PORT_B,
        )
        .to_string();
        let begin = |time_s| {
            stage.load_beside(Plan {
                rate_per_s: Some(1_000.0),
                ..Plan::churn(vip(family), 16, Duration::from_secs(time_s))
            })
        };

        // Version b lives: nobody else gets its port, and a namespace of one's own is not the host.
        let load = begin(5);
        let said = as_nobody(stage.world.host(), &[listen, &addr, "10"]);
        assert_eq!(said, "0 0", "{family:?}, the port in use");
        let bits = family.pick(32, 128);
        let foreign = format!(
            "ip link set lo up && ip addr add {}/{bits} dev lo && exec {listen} {addr} {TIMES}",
            OTHER.ip(family)
        );
        let program = ["unshare", "-Urn", "sh", "-c", &foreign];
        let said = as_nobody(stage.world.host(), &program);
        assert_eq!(
            said,
            format!("{TIMES} 0"),
            "{family:?}, a namespace of one's own"
        );
        load.join().expect("ran").assert_clean();

        // It dies, and its port is free for anybody.
        let refused = |stage: &Stage| counter(&stage.service(), Slot::B, "capture_refused");
        let before = refused(&stage);
        let load = begin(6);
        stage.b.kill();
        for at in [&addr, &any] {
            let said = as_nobody(stage.world.host(), &[listen, at, TIMES]);
            assert_eq!(said, format!("{TIMES} 0"), "{family:?}, {at}");
        }
        // What version b had open dies with it, which is another test's matter.
        let (cut_off_count, _) = cut_off([load]);
        assert!(cut_off_count <= 16, "{cut_off_count}");
        assert!(refused(&stage) - before >= 2_000);
        stage.b.start_again();
        stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    }
    assert_eq!(counter(&stage.service(), Slot::A, "capture_refused"), 0);
}

/// Other ports of the VIP, other addresses of the host and the same address in another namespace
/// are served by whoever listens there.
#[test]
fn what_is_not_a_vip_is_not_steered() {
    let stage = Stage::new();
    let host = stage.world.host();
    let _other_port = Greeter::start(host, "other port", "10.0.0.10:81");
    let _other_addr = Greeter::start(host, "other address", "10.1.0.1:80");
    let client = stage.world.client();
    client.ip("addr add 10.0.0.10/32 dev lo");
    let _there = Greeter::start(client, "the client's own", "10.0.0.10:80");
    let rows = [
        (host, "10.0.0.10:81", "other port"),
        (client, "10.1.0.1:80", "other address"),
        (client, "10.0.0.10:80", "the client's own"),
    ];
    for (from, to, expected) in rows {
        let answer = ask(from, to.parse().expect("an address"));
        assert_eq!(answer.as_deref().ok(), Some(expected), "{to}: {answer:?}");
    }
    let service = stage.service();
    for which in Slot::ALL {
        assert_eq!(counter(&service, which, "lookups"), 0);
        assert_eq!(slot(&service, which).counters.established, 0);
    }
}

/// A listener on the VIP itself is nobody's version. It serves until there is one, and again when there is none
/// any more, if the service says that the host may answer; else connections are refused. In no case do they
/// get to another listener.
#[test]
fn a_listener_on_the_vip_serves_where_nobody_else_does() {
    for (on_empty, without_versions) in [
        (OnEmpty::Pass, Ok("the host")),
        (OnEmpty::Drop, Err(&ErrorKind::ConnectionRefused)),
    ] {
        let world = World::pair(Options::default());
        let host = world.host();
        let _own = Greeter::start(host, "the host", "10.0.0.10:80");
        let _other_port = Greeter::start(host, "other port", "10.0.0.20:80");
        let at = |text: &str| vec![text.parse().expect("an address")];
        let mut spec = orders(&at("10.0.0.20:81"), &at("10.0.0.20:82"));
        spec.vips = vec![vip(Family::V4)];
        spec.readiness.check = ProbeCheck::None;
        spec.on_empty = on_empty;
        let daemon = Daemon::start(host, Node::new(HookSpec::Tc), &[spec]);
        let assert_answers = |expected: Result<&str, &ErrorKind>, when: &str| {
            for _ in 0..5 {
                let answer = ask(world.client(), vip(Family::V4)).map_err(|error| error.kind());
                assert_eq!(answer.as_deref(), expected, "{on_empty:?}, {when}");
            }
        };
        assert_answers(Ok("the host"), "before there is a version to send to");
        let version = Greeter::start(host, "a", "10.0.0.20:81");
        daemon.wait_for("slot a is eligible", |status| {
            status.services[0].slots[0].eligible
        });
        assert_answers(Ok("a"), "with a version");
        drop(version);
        // At once, before the daemon knows.
        assert_answers(without_versions, "without it");
    }
}
