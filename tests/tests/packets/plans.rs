//! The services that the scripts steer, and the packets they are made of.

use std::net::SocketAddr;

use shifter_common::steering::{Affinity, Slot};
use shifter_daemon::{
    dataplane::{PlanePlan, PlannedBackend, ServicePlan, SlotPlan, SocketPlan},
    model::{OnEmpty, Protocol},
};
use shifter_tests::packet::{Packet, flag};

/// The client.
pub const C: &str = "10.9.0.2:40000";
/// The VIP.
pub const V: &str = "10.0.0.10:443";
/// A second VIP of the same service.
pub const V2: &str = "10.0.0.11:443";
/// The backend of slot a.
pub const A: &str = "10.0.0.20:8080";
/// The backend of slot b.
pub const B: &str = "10.0.0.20:9090";
/// The same over IPv6.
pub const C6: &str = "[2001:db8:9::2]:40000";
pub const V6: &str = "[2001:db8::10]:443";
pub const A6: &str = "[2001:db8::20]:8080";
pub const B6: &str = "[2001:db8::20]:9090";

pub const SYN: u8 = flag::SYN;
pub const ACK: u8 = flag::ACK;
pub const FIN: u8 = flag::FIN;
pub const RST: u8 = flag::RST;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of this file")
}

fn slot(backends: &[&str]) -> SlotPlan {
    SlotPlan {
        eligible: !backends.is_empty(),
        backends: backends
            .iter()
            .map(|text| PlannedBackend {
                addr: addr(text),
                weight: 100,
                ready: true,
            })
            .collect(),
        ..SlotPlan::default()
    }
}

/// One VIP of each family, one backend of each family in each slot, all new flows to slot a.
pub fn plan() -> ServicePlan {
    ServicePlan {
        name: "orders".into(),
        vips: vec![addr(V), addr(V6)],
        protocol: Protocol::Tcp,
        affinity: Affinity::Connection,
        on_empty: OnEmpty::Drop,
        plane: Default::default(),
        baseline: Slot::A,
        weight_bp: 0,
        held: false,
        observe: Default::default(),
        breaker: Default::default(),
        rearms: false,
        latches: false,
        targets: Default::default(),
        slots: [slot(&[A, A6]), slot(&[B, B6])],
    }
}

/// The same over UDP.
pub fn udp_plan() -> ServicePlan {
    ServicePlan {
        protocol: Protocol::Udp,
        ..plan()
    }
}

/// All new flows to slot b.
pub fn to_b() -> ServicePlan {
    ServicePlan {
        weight_bp: 10_000,
        ..plan()
    }
}

/// A slot whose backends have failed.
pub fn without(mut plan: ServicePlan, slot: Slot) -> ServicePlan {
    let slot = &mut plan.slots[slot.index() as usize];
    slot.eligible = false;
    slot.backends
        .iter_mut()
        .for_each(|backend| backend.ready = false);
    plan
}

/// Two VIPs of one family.
pub fn two_vips(backends: &[&str]) -> ServicePlan {
    ServicePlan {
        vips: vec![addr(V), addr(V2)],
        slots: [slot(backends), SlotPlan::default()],
        ..plan()
    }
}

/// A datagram.
pub fn udp(from: &'static str, to: &'static str, payload: &str) -> Packet {
    Packet::udp(from, to).payload(payload)
}

/// From the client to an address, or back.
pub fn tcp(from: &'static str, to: &'static str, flags: u8, seq: u32, ack: u32) -> Packet {
    Packet::tcp(from, to).flags(flags).seq(seq).ack(ack)
}

/// The same with new flows given to sockets.
pub fn on_sockets(plan: ServicePlan) -> ServicePlan {
    ServicePlan {
        plane: PlanePlan::Socket(SocketPlan::default()),
        ..plan
    }
}
