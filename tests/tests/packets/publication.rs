//! Publications that are refused, and dataplanes that are found: what is left in the kernel.

use std::{collections::BTreeSet, net::SocketAddr};

use shifter_common::{abi::map, verdict::Verdict};
use shifter_daemon::dataplane::{
    Dataplane as _, PlannedBackend, ServicePlan, SlotPlan, bpf::BpfDataplane,
};

use crate::{
    kernel::{Hook, Kernel, node},
    plans::*,
};

fn slot(count: u16, first_port: u16) -> SlotPlan {
    SlotPlan {
        eligible: count > 0,
        backends: (0..count)
            .map(|i| PlannedBackend {
                addr: SocketAddr::from(([10, 0, 0, 20], first_port + i)),
                weight: 100,
                ready: true,
            })
            .collect(),
        ..SlotPlan::default()
    }
}

fn v4_only(slots: [SlotPlan; 2]) -> ServicePlan {
    let vips = vec![V.parse().expect("an address")];
    ServicePlan {
        vips,
        slots,
        ..plan()
    }
}

/// Ports that two hundred new flows are sent to.
fn reached(kernel: &Kernel, network: u8) -> BTreeSet<u16> {
    (0..200_u16)
        .map(|i| {
            let from = SocketAddr::from(([10, 9, 0, network], 20_000 + i));
            let to: SocketAddr = V.parse().expect("an address");
            let syn = shifter_tests::packet::Packet::tcp(from, to)
                .flags(SYN)
                .seq(1)
                .build();
            let ran = kernel.ingress(&syn);
            assert_eq!(ran.verdict, Verdict::SteeredNew);
            u16::from_be_bytes([ran.bytes[36], ran.bytes[37]])
        })
        .collect()
}

#[test]
fn a_table_that_does_not_fit_keeps_no_failed_backend_in_the_other_slot() {
    let mut kernel = Kernel::new(Hook::Tc);
    kernel.publish(&v4_only([slot(2, 1_000), slot(0, 0)]));
    // Fifty backends take 8,191 entries of 8,192, of which slot a has some.
    let mut both = v4_only([slot(2, 1_000), slot(50, 2_000)]);
    let error = kernel
        .dataplane()
        .publish(&both)
        .expect_err("slot b does not fit")
        .to_string();
    assert!(
        error.contains("no room for a lookup table of 8191 entries"),
        "{error}"
    );
    assert!(error.contains("raise [tables] table_entries"), "{error}");
    both.slots[0].backends[0].ready = false;
    kernel
        .dataplane()
        .publish(&both)
        .expect_err("slot b still does not fit");
    assert_eq!(
        reached(&kernel, 7),
        BTreeSet::from([1_001]),
        "slot a's failed backend is out"
    );
    let mut without_b = both;
    without_b.slots[1] = slot(0, 0);
    kernel.publish(&without_b);
    assert_eq!(reached(&kernel, 8), BTreeSet::from([1_001]));
}

/// Where each of two hundred clients' first packets go.
fn owners(kernel: &Kernel, network: u8) -> Vec<u16> {
    (0..200_u16)
        .map(|i| {
            let from = SocketAddr::from(([10, 9, i as u8, network], 20_000));
            let to: SocketAddr = V.parse().expect("an address");
            let syn = shifter_tests::packet::Packet::tcp(from, to)
                .flags(SYN)
                .seq(1)
                .build();
            let ran = kernel.ingress(&syn);
            assert!(
                matches!(ran.verdict, Verdict::SteeredNew | Verdict::SteeredFlow),
                "{:?}",
                ran.verdict
            );
            u16::from_be_bytes([ran.bytes[36], ran.bytes[37]])
        })
        .collect()
}

/// A daemon that starts with a backend out of traffic deals on top of what the kernel holds: nothing
/// is stored anew, and what is taken out of the file later moves nothing but itself.
#[test]
fn tables_are_dealt_on_top_of_what_the_kernel_holds() {
    let mut kernel = Kernel::new(Hook::Tc);
    let mut base = v4_only([slot(10, 1_000), slot(0, 0)]);
    kernel.publish(&base);
    base.slots[0].backends[3].ready = false;
    kernel.publish(&base);
    let before = kernel.dataplane().published().expect("services");
    let wanted = owners(&kernel, 1);

    let bpffs = kernel.leave();
    let mut dataplane = BpfDataplane::open(&node(bpffs.path())).expect("adopted");
    let publication = dataplane.publish(&base).expect("the plan is good");
    assert_eq!(publication.stored_at, None, "nothing had to change");
    assert_eq!(dataplane.published().expect("services"), before);
    drop(dataplane);

    let mut kernel = Kernel::over(Hook::Tc, bpffs);
    base.slots[0].backends.remove(7);
    kernel.publish(&base);
    // Other clients' addresses have other flows, so what is compared is selected anew.
    kernel.forget_flows();
    for (client, (old, new)) in wanted.iter().zip(owners(&kernel, 1)).enumerate() {
        if *old == 1_007 {
            assert_ne!(new, 1_007, "client {client}");
        } else {
            assert_eq!(*old, new, "client {client}");
        }
    }
}

#[test]
fn a_ninth_vip_is_refused_before_anything_changes() {
    let mut kernel = Kernel::new(Hook::Tc);
    let vips = |first: u8| -> Vec<SocketAddr> {
        (first..first + 8)
            .map(|i| SocketAddr::from(([10, 0, 0, i], 443)))
            .collect()
    };
    let base = ServicePlan {
        vips: vips(100),
        ..v4_only([slot(1, 1_000), slot(1, 2_000)])
    };
    kernel.publish(&base);
    let before = kernel.dataplane().published().expect("services");
    let moved = ServicePlan {
        vips: vips(101),
        weight_bp: 10_000,
        ..base
    };
    let error = kernel
        .dataplane()
        .publish(&moved)
        .expect_err("nine VIPs")
        .to_string();
    assert!(error.contains("more than 8 VIPs"), "{error}");
    assert_eq!(kernel.dataplane().published().expect("services"), before);
}

#[test]
fn a_new_service_that_does_not_fit_leaves_nothing() {
    let mut kernel = Kernel::new(Hook::Tc);
    let large = v4_only([slot(50, 1_000), slot(2, 2_000)]);
    kernel
        .dataplane()
        .publish(&large)
        .expect_err("the second table does not fit");
    assert_eq!(kernel.dataplane().published().expect("services"), []);
    // Its addresses are free for another service.
    let other = ServicePlan {
        name: "other".into(),
        ..v4_only([slot(1, 1_000), slot(0, 0)])
    };
    kernel.publish(&other);
    assert_eq!(reached(&kernel, 7), BTreeSet::from([1_000]));
}

#[test]
fn what_is_pinned_is_adopted_with_the_sizes_it_was_built_with() {
    let mut kernel = Kernel::new(Hook::Tc);
    kernel.publish(&plan());
    let before = kernel.dataplane().published().expect("services");
    let bpffs = kernel.leave();
    for services_count in [2, 4, 8] {
        let mut node = node(bpffs.path());
        node.sizes.services_count = services_count;
        let found = BpfDataplane::open(&node).expect("opens");
        assert!(found.was_adopted());
        assert_eq!(
            found.published().expect("services"),
            before,
            "{services_count}"
        );
    }
}

/// What another build may lack without losing anything is built anew and the rest carried over; a
/// dataplane that lacks what it says it has is removed.
#[test]
fn half_a_dataplane_is_carried_over_or_built_anew() {
    let described: BTreeSet<&str> = shifter_common::layout::ALL.iter().map(|l| l.map).collect();
    for gone in map::ALL {
        let mut kernel = Kernel::new(Hook::Tc);
        kernel.publish(&plan());
        let bpffs = kernel.leave();
        let maps = bpffs.path().join("shifter").join("v1").join("maps");
        std::fs::remove_file(maps.join(gone)).expect("the pin is there");
        let mut anew = BpfDataplane::open(&node(bpffs.path())).expect("opens");
        let is_carried = !described.contains(gone) && gone != map::LAYOUT;
        assert_eq!(anew.was_adopted(), is_carried, "{gone}");
        let published = anew.published().expect("services");
        assert_eq!(published.len(), usize::from(is_carried), "{gone}");
        anew.publish(&plan()).expect("publishes");
        let left: Vec<_> = std::fs::read_dir(bpffs.path().join("shifter"))
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["v1"], "{gone}");
    }
}

#[test]
fn every_refusal_says_what_and_what_to_do() {
    let full = |kernel: &mut Kernel, plan: &ServicePlan, words: &[&str]| {
        let error = kernel
            .dataplane()
            .publish(plan)
            .expect_err("refused")
            .to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?}");
        }
    };
    let other = |slots| ServicePlan {
        name: "other".into(),
        vips: vec!["10.0.0.99:443".parse().expect("an address")],
        ..v4_only(slots)
    };
    let mut kernel = Kernel::new(Hook::Tc);
    kernel.publish(&two_vips(&[A, "10.0.0.20:8079"]));

    // A VIP and a backend that were taken out, while a client may still use them.
    let syn = tcp(C, V2, SYN, 1, 0).build();
    assert_eq!(kernel.ingress(&syn).verdict, Verdict::SteeredNew);
    let mut left = two_vips(&["10.0.0.20:8078"]);
    left.vips.pop();
    kernel.publish(&left);
    let mut wants_vip = other([slot(1, 3_000), slot(0, 0)]);
    wants_vip.vips = vec![V2.parse().expect("an address")];
    full(
        &mut kernel,
        &wants_vip,
        &["VIP 10.0.0.11:443", "still carries flows of orders", "wait"],
    );
    let mut wants_backend = other([slot(1, 3_000), slot(0, 0)]);
    wants_backend.slots[0].backends[0].addr = A.parse().expect("an address");
    full(
        &mut kernel,
        &wants_backend,
        &[
            "backend 10.0.0.20:8080",
            "still carries flows of orders",
            "wait",
        ],
    );

    // Tables that are full: four services, sixty-four backends.
    for i in 0..3_u16 {
        let name = format!("s{i}");
        let vips = vec![SocketAddr::from(([10, 0, 1, i as u8], 80))];
        kernel.publish(&ServicePlan {
            name,
            vips,
            ..v4_only([slot(1, 4_000 + i), slot(0, 0)])
        });
    }
    let fifth = other([slot(1, 3_000), slot(0, 0)]);
    full(
        &mut kernel,
        &fifth,
        &[
            "no room for service other",
            "all 4",
            "[tables] services",
            "detach",
        ],
    );
    let mut kernel = Kernel::new(Hook::Tc);
    let many = v4_only([slot(40, 1_000), slot(40, 2_000)]);
    full(
        &mut kernel,
        &many,
        &[
            "no room for backend",
            "all 64",
            "[tables] backends",
            "detach",
        ],
    );
}

#[test]
fn a_directory_that_is_no_bpffs_is_refused_with_the_command() {
    let error = BpfDataplane::open(&node(std::path::Path::new("/run")))
        .err()
        .expect("no bpffs")
        .to_string();
    assert_eq!(
        error,
        "/run is not a bpffs; mount it with: mount -t bpf bpf /run"
    );
}
