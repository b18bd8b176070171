//! VIPs and backends that share a set of the fast table: as many as fit, and one too many.

use std::net::SocketAddr;

use shifter_common::{
    abi::VipKey,
    addr::Be16,
    addr_set::{AddrSet, BACKEND_SETS_COUNT, VIP_SETS_COUNT, WAYS_COUNT},
    verdict::Verdict,
};
use shifter_daemon::dataplane::{PlannedBackend, ServicePlan, SlotPlan};
use shifter_tests::packet::Packet;

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
};

/// Ports of an address that lie in one set with the first of them.
fn neighbours(address: [u8; 4], sets_count: u32, first_port: u16) -> Vec<SocketAddr> {
    let set = |addr: &SocketAddr| {
        let key = VipKey {
            addr: addr.ip().into(),
            port: Be16::from_host(addr.port()),
            protocol: 6,
            pad: 0,
        };
        AddrSet::index(&key, sets_count)
    };
    let all = (first_port..u16::MAX).map(|port| SocketAddr::from((address, port)));
    let wanted = set(&SocketAddr::from((address, first_port)));
    all.filter(|addr| set(addr) == wanted)
        .take(WAYS_COUNT + 2)
        .collect()
}

fn with(vips: &[SocketAddr], backends: &[SocketAddr]) -> ServicePlan {
    let backends = backends.iter().map(|addr| PlannedBackend {
        addr: *addr,
        weight: 100,
        ready: true,
    });
    ServicePlan {
        vips: vips.to_vec(),
        slots: [
            SlotPlan {
                eligible: true,
                backends: backends.collect(),
                ..SlotPlan::default()
            },
            SlotPlan {
                eligible: false,
                backends: Vec::new(),
                ..SlotPlan::default()
            },
        ],
        ..plan()
    }
}

/// The verdict of a SYN to each address, from a client of its own.
fn verdicts(kernel: &Kernel, to: &[SocketAddr], network: u8) -> Vec<Verdict> {
    let syn = |(nth, to): (usize, &SocketAddr)| {
        let from = SocketAddr::from(([10, 9, network, nth as u8], 20_000));
        let packet = Packet::tcp(from, *to).flags(SYN).seq(1);
        kernel.ingress(&packet.build()).verdict
    };
    to.iter().enumerate().map(syn).collect()
}

#[test]
fn vips_of_one_set_are_found_however_many() {
    use Verdict::{PassForeign as Foreign, SteeredNew as New};
    let vips = neighbours([10, 0, 0, 10], VIP_SETS_COUNT, 443);
    let backend = ["10.0.0.20:8080".parse().expect("an address")];
    let mut kernel = Kernel::new(Hook::Xdp);
    for (count, expected) in [
        (1, [New, Foreign, Foreign, Foreign]),
        (2, [New, New, Foreign, Foreign]),
        (3, [New, New, New, Foreign]),
        (4, [New, New, New, New]),
    ] {
        kernel.publish(&with(&vips[..count], &backend));
        assert_eq!(
            verdicts(&kernel, &vips, count as u8),
            expected,
            "{count} VIPs"
        );
    }
    // Taken out again, first ones first: what is left is found, new flows to the others are not ours.
    kernel.publish(&with(&vips[2..], &backend));
    assert_eq!(verdicts(&kernel, &vips, 5), [Foreign, Foreign, New, New]);
    // A daemon that starts finds the same.
    kernel.reopen();
    assert_eq!(verdicts(&kernel, &vips, 6), [Foreign, Foreign, New, New]);
    kernel.publish(&with(&vips, &backend));
    assert_eq!(verdicts(&kernel, &vips, 7), [New; 4]);
}

#[test]
fn backends_of_one_set_are_found_by_their_replies() {
    let backends = neighbours([10, 0, 0, 20], BACKEND_SETS_COUNT, 8_080);
    let vip: SocketAddr = V.parse().expect("an address");
    let mut kernel = Kernel::new(Hook::Tc);
    kernel.publish(&with(&[vip], &backends));
    let mut reached = std::collections::BTreeSet::new();
    for nth in 0..64_u8 {
        let from = SocketAddr::from(([10, 9, 0, nth], 20_000));
        let syn = Packet::tcp(from, vip).flags(SYN).seq(1).build();
        let ran = kernel.ingress(&syn);
        assert_eq!(ran.verdict, Verdict::SteeredNew);
        let port = u16::from_be_bytes([ran.bytes[36], ran.bytes[37]]);
        let backend = SocketAddr::from(([10, 0, 0, 20], port));
        reached.insert(backend);
        let answer = Packet::tcp(backend, from).flags(SYN | ACK).seq(5).ack(2);
        assert_eq!(
            kernel.egress(&answer.build()).verdict,
            Verdict::SteeredReply
        );
    }
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), backends);
    // Another port of the same set, which is no backend's, answers for itself.
    kernel.publish(&with(&[vip], &backends[..1]));
    let other = neighbours([10, 0, 0, 20], BACKEND_SETS_COUNT, 9_000);
    assert!(!backends.contains(&other[0]));
    let from = SocketAddr::from(([10, 9, 0, 1], 20_000));
    let answer = Packet::tcp(other[0], from).flags(SYN | ACK).seq(5).ack(2);
    assert_eq!(kernel.egress(&answer.build()).verdict, Verdict::PassForeign);
}
