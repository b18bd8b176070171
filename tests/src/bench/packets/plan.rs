//! The service that the packet rows steer, and the packets' ends.

use std::net::SocketAddr;

use shifter_common::{
    addr::{Addr, Be16},
    recipe::{CLIENT_IS_DESTINATION, Recipe},
    steering::{Affinity, Slot},
};
use shifter_daemon::{
    dataplane::{PlannedBackend, ServicePlan, SlotPlan},
    model::{OnEmpty, Protocol},
};

use super::case::{Case, Kind};
use crate::{
    packet::{Packet, flag},
    world::Family,
};

/// The client's first sequence number; its SYN carries no data.
pub const CLIENT_SEQ: u32 = 0;
/// The backend's.
pub const BACKEND_SEQ: u32 = 0;
/// Packets of flows that nobody has seen begin here, far behind those of established flows.
pub const NEW_FROM: u64 = 1 << 20;

/// The VIP.
pub fn vip(family: Family) -> SocketAddr {
    addr(family.pick("10.0.0.10:443", "[2001:db8::10]:443"))
}

/// The backend that gets everything.
pub fn backend(family: Family) -> SocketAddr {
    addr(family.pick("10.0.0.20:8080", "[2001:db8::20]:8080"))
}

/// An address and port of nobody.
pub fn foreign(family: Family) -> SocketAddr {
    addr(family.pick("10.0.0.30:5432", "[2001:db8::30]:5432"))
}

/// The VIP's port at an address of nobody.
pub fn foreign_on_port(family: Family) -> SocketAddr {
    addr(family.pick("10.0.0.30:443", "[2001:db8::30]:443"))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of this file")
}

/// The client of a flow, as the packet maker makes it.
pub fn client(family: Family, flow_index: u32) -> SocketAddr {
    let word = Recipe::client_word(flow_index, family == Family::V6);
    let ip = match family {
        Family::V4 => std::net::Ipv4Addr::from(word).into(),
        Family::V6 => {
            let [high, low] = [(word >> 16) as u16, word as u16];
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, high, low).into()
        }
    };
    SocketAddr::new(ip, Recipe::client_port(flow_index))
}

/// One VIP and one backend of each family in slot a; slot b has one too and gets nothing.
pub fn plan() -> ServicePlan {
    let slot = |backends: [SocketAddr; 2]| SlotPlan {
        eligible: true,
        backends: backends
            .map(|addr| PlannedBackend {
                addr,
                weight: 100,
                ready: true,
            })
            .into(),
        ..SlotPlan::default()
    };
    ServicePlan {
        name: "bench".into(),
        vips: Family::ALL.map(vip).into(),
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
        slots: [
            slot(Family::ALL.map(backend)),
            slot(["10.0.0.20:9090", "[2001:db8::20]:9090"].map(addr)),
        ],
    }
}

/// A packet of a row, of one flow.
pub fn packet(case: &Case, flow_index: u32) -> Packet {
    let family = case.family;
    let client = client(family, flow_index);
    let (server, flags) = match case.kind {
        Kind::Established => (vip(family), flag::ACK),
        Kind::Reply => (backend(family), flag::ACK),
        Kind::New | Kind::NewEvicting => (vip(family), flag::SYN),
        Kind::Foreign => (foreign(family), flag::ACK),
        Kind::ForeignOnPort => (foreign_on_port(family), flag::ACK),
    };
    let packet = if case.kind == Kind::Reply {
        Packet::tcp(server, client)
    } else {
        Packet::tcp(client, server)
    };
    packet.flags(flags).seq(1).ack(1)
}

/// What a packet of a row must become.
pub fn steered(case: &Case, packet: Packet) -> Packet {
    match case.kind {
        Kind::Established | Kind::New | Kind::NewEvicting => packet.to(backend(case.family)),
        Kind::Reply => packet.from(vip(case.family)),
        Kind::Foreign | Kind::ForeignOnPort => packet,
    }
}

/// The frame that the packet maker turns into a row's packets, from a turn on.
pub fn frame(case: &Case, turn: u64) -> Vec<u8> {
    let family = case.family;
    let other_end = match case.kind {
        Kind::Established | Kind::New | Kind::NewEvicting => vip(family),
        Kind::Reply => backend(family),
        Kind::Foreign => foreign(family),
        Kind::ForeignOnPort => foreign_on_port(family),
    };
    let recipe = Recipe {
        turn,
        flows_count: case.flows_count,
        flags: if case.kind == Kind::Reply {
            CLIENT_IS_DESTINATION
        } else {
            0
        },
        addr: Addr::from(other_end.ip()).words,
        port: Be16::from_host(other_end.port()).0,
        pad: [0; 3],
    };
    packet(case, 0).payload(bytes(&recipe)).build()
}

/// A recipe as it stands in memory.
fn bytes(recipe: &Recipe) -> Vec<u8> {
    let Recipe {
        turn,
        flows_count,
        flags,
        addr,
        port,
        pad,
    } = recipe;
    let mut bytes = Vec::with_capacity(size_of::<Recipe>());
    bytes.extend(turn.to_ne_bytes());
    bytes.extend(flows_count.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(addr.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(port.to_ne_bytes());
    bytes.extend(pad.iter().flat_map(|half| half.to_ne_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_fills_its_bytes() {
        assert_eq!(bytes(&Recipe::default()), vec![0; size_of::<Recipe>()]);
        let recipe = Recipe {
            turn: 1,
            port: 0x0102_u16.to_be(),
            ..Recipe::default()
        };
        let bytes = bytes(&recipe);
        assert_eq!(bytes[..8], 1_u64.to_ne_bytes());
        assert_eq!(bytes[32..34], [1, 2]);
    }

    #[test]
    fn clients_are_those_of_the_packet_maker() {
        let rows = [
            (Family::V4, 0, "10.9.0.0:1024"),
            (Family::V4, 63_999, "10.9.249.255:1024"),
            (Family::V6, 63_999, "[2001:db8:9::f9ff]:1024"),
            (Family::V4, NEW_FROM as u32, "10.9.0.0:1040"),
        ];
        for (family, index, expected) in rows {
            assert_eq!(client(family, index).to_string(), expected);
        }
    }
}
