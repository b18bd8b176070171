//! What is seen of the versions' answers on the socket plane, where no packet is touched.

use std::{collections::BTreeMap, fs, time::Duration};

use shifter_common::{
    socket::program,
    wire::{ObservedStatus, ServiceStatus, Slot},
};
use shifter_daemon::model::{ObserveSpec, Prefix, ProbeCheck, ServiceSpec};
use shifter_tests::{
    conversation::{classes, converse, drop_answers, logged},
    http::{ask, connect},
    world::{Family, OTHER},
};

use crate::stage::{ORDERS, PORT_A, PORT_B, Stage, orders, slot, vip};

fn observed() -> ServiceSpec {
    let mut spec = orders(&OTHER.ports(PORT_A), &OTHER.ports(PORT_B));
    spec.readiness.check = ProbeCheck::None;
    spec.observe = ObserveSpec {
        latency: true,
        http: true,
    };
    spec.breaker.settle = Duration::ZERO;
    spec.breaker.trusted = [Prefix::of([10, 0, 0, 0].into(), 8).expect("a prefix")].into();
    spec
}

fn stage() -> Stage {
    Stage::with(&OTHER.ports(PORT_A), &OTHER.ports(PORT_B), observed())
}

fn seen(service: &ServiceStatus, of: Slot) -> &ObservedStatus {
    slot(service, of).observed.as_ref().expect("it is observed")
}

/// Whether the programs are there that see every packet.
fn watches(stage: &Stage) -> bool {
    let dir = stage.daemon.bpffs().join("shifter/v1/sockets");
    let pinned = |name: &&str| dir.join(name).exists();
    assert!(
        pinned(&program::OBSERVE),
        "{}: {:?}",
        dir.display(),
        fs::read_dir(&dir)
    );
    let count = program::WATCHING.iter().filter(|name| pinned(name)).count();
    assert!(count == 0 || count == 2, "{count} of two");
    count == 2
}

#[test]
fn responses_are_those_of_the_servers_logs_also_when_packets_get_lost() {
    for (family, loses) in [(Family::V4, false), (Family::V6, false), (Family::V4, true)] {
        let mut stage = stage();
        let earlier = [stage._a.statuses(), stage.b.statuses()];
        // Only a trial could be ended by what b answers.
        stage.b.set_ready(false);
        stage.set_weight(10_000);
        let client = stage.world.client().inside();
        if loses {
            drop_answers(&client);
        }
        converse(&client, vip(family), 4);
        if family == Family::V4 && !loses {
            // A daemon that dies and starts again loses nothing.
            stage.daemon.kill9();
            converse(&client, vip(family), 4);
            assert!(watches(&stage));
            stage.daemon.start_again();
            converse(&client, vip(family), 4);
            assert!(watches(&stage));
        }
        stage.set_weight(0);
        converse(&client, vip(family), 4);
        let service = stage.wait("the counts agree with the servers' logs", |service| {
            let servers = [
                (Slot::A, &stage._a, &earlier[0]),
                (Slot::B, &stage.b, &earlier[1]),
            ];
            servers
                .iter()
                .all(|(of, server, earlier)| classes(seen(service, *of)) == logged(server, earlier))
        });
        for of in [Slot::A, Slot::B] {
            let (seen, counters) = (seen(&service, of), &slot(&service, of).counters);
            let counts = classes(seen);
            let name = format!("{family:?}, {loses}, {of}: {seen:?}");
            assert!(counts["2xx"] > 100 && counts["4xx"] > 20, "{name}");
            assert!(!counts.contains_key("unknown"), "{name}");
            assert_eq!(counts.contains_key("5xx"), of == Slot::B, "{name}");
            assert_eq!(
                seen.connect.count, 0,
                "{name}: the kernel answers for itself"
            );
            let first_count = seen.first_byte.count;
            assert!(
                first_count > counters.established / 2 && first_count <= counters.established,
                "{name}"
            );
            assert!(seen.first_byte.p50_ns > 0, "{name}");
        }
    }
}

#[test]
fn a_version_that_answers_5xx_is_out_after_a_handful_of_errors() {
    let stage = stage();
    stage.set_weight(500);
    stage.b.set_ready(false);
    let client = stage.world.client().inside();
    let (mut bad_count, mut quiet_count) = (0, 0);
    for _ in 0..2_000 {
        let is_bad = client.run(|| {
            let mut stream = connect(vip(Family::V4)).expect("a connection");
            let answers =
                [(); 3].map(|()| ask(&mut stream, "GET", "/ready", None).expect("an answer"));
            answers.iter().any(|answer| answer.status == 503)
        });
        if is_bad {
            (bad_count, quiet_count) = (bad_count + 1, 0);
        } else {
            quiet_count += 1;
        }
        if bad_count > 0 && quiet_count == 400 {
            break;
        }
    }
    let service = stage.wait("the trip is known", |service| service.breaker.tripped);
    assert!(
        (1..=6).contains(&bad_count),
        "{bad_count}: {:?}",
        service.breaker
    );
    assert_eq!(quiet_count, 400, "the old version serves everybody");
    let errors: BTreeMap<_, _> = service.breaker.errors.iter().cloned().collect();
    assert_eq!(
        (errors["canary"], errors["baseline"], errors["trips"]),
        (bad_count, 0, 1)
    );
    let expected = BTreeMap::from([("5xx".to_owned(), 3 * bad_count)]);
    assert_eq!(classes(seen(&service, Slot::B)), expected);
}

#[test]
fn packets_are_looked_at_only_while_somebody_asks_for_it() {
    let stage = stage();
    assert!(watches(&stage));
    let client = stage.world.client().inside();
    let mut stream = client.run(|| connect(vip(Family::V4)).expect("a connection"));
    let mut get = || {
        ask(&mut stream, "GET", "/", None)
            .expect("an answer")
            .status
    };
    assert_eq!(get(), 200);
    let total = |service: &ServiceStatus| -> u64 {
        let classes = classes(seen(service, Slot::A));
        classes.values().sum()
    };
    stage.wait("it is counted", |service| total(service) == 1);
    let mut plain = observed();
    plain.observe = ObserveSpec::default();
    stage.daemon.write_service(&plain);
    stage.daemon.apply().expect("a good file");
    assert!(!watches(&stage));
    assert_eq!(get(), 200, "the connection goes on");
    let service = stage.service();
    assert_eq!(total(&service), 1, "what was seen stays");
    assert_eq!(service.observe, ["connections"]);
    // On again: for new connections, and for those that were watched before.
    stage.daemon.write_service(&observed());
    stage.daemon.apply().expect("a good file");
    assert!(watches(&stage));
    let again = client.run(|| {
        let mut stream = connect(vip(Family::V4)).expect("a connection");
        ask(&mut stream, "GET", "/", None)
            .expect("an answer")
            .status
    });
    assert_eq!(again, 200);
    let service = stage.wait("it is counted", |service| total(service) == 2);
    assert_eq!(service.name, ORDERS);
}
