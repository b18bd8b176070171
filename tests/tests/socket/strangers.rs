//! What is not ours: users who would like to be captured, other listeners, other namespaces.

use std::time::Duration;

use shifter_common::wire::Slot;
use shifter_tests::{
    load::Plan,
    world::{Family, OTHER},
};

use crate::{
    greeter::{Greeter, ask},
    stage::{PORT_B, Stage, counter, slot, vip},
};

/// As nobody, in the host's namespace while the port is free, and as root of a namespace of their
/// own with the same address while it is served: listening a thousand times gets no connection.
#[test]
fn nobody_listens_on_a_backends_address() {
    let mut stage = Stage::new();
    stage.set_weight(5_000);
    let listen = env!("CARGO_BIN_EXE_shifter-listen");
    for family in Family::ALL {
        let addr = OTHER.port(family, PORT_B).to_string();
        let bits = family.pick(32, 128);
        let foreign = format!(
            "ip link set lo up && ip addr add {}/{bits} dev lo && exec {listen} {addr} 1000",
            OTHER.ip(family)
        );
        for is_foreign in [false, true] {
            let load = stage.load_beside(Plan {
                rate_per_s: Some(1_000.0),
                ..Plan::churn(vip(family), 16, Duration::from_secs(5))
            });
            let mut command = stage.world.host().command("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            if is_foreign {
                command.args(["unshare", "-Urn", "sh", "-c", &foreign]);
            } else {
                stage.b.kill();
                command.args([listen, &addr, "1000"]);
            }
            let output = command.output().expect("the program runs");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(said.trim(), "1000 0", "{family:?} {is_foreign}: {err}");
            let report = load.join().expect("the load ran");
            // The version's own death is another test's matter.
            for kind in [
                shifter_tests::load::ErrorKind::Refused,
                shifter_tests::load::ErrorKind::ConnectTimeout,
            ] {
                assert_eq!(report.errors(kind), 0, "{report:#?}");
            }
            assert!(report.errors_count() <= 16, "{report:#?}");
            if !is_foreign {
                let refused_count = counter(&stage.service(), Slot::B, "capture_refused");
                assert!(refused_count >= 1_000, "{refused_count}");
                stage.b.start_again();
                stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
            }
        }
    }
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
