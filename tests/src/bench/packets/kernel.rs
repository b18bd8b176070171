//! A dataplane of the bench's own, without interfaces, with flows in its tables.

use std::path::PathBuf;

use aya::maps::MapData;
use shifter_common::{
    abi::{FlowEntry, FlowKey, capacity, map},
    addr::Addr,
    recipe::{FloorKey, FloorTarget, Recipe},
    verdict::Action,
};
use shifter_daemon::{
    dataplane::{Dataplane as _, bpf::BpfDataplane},
    model::{NodeSpec, SizeSpec},
};

use super::{
    case::{Case, FLOWS_MAX, Hook, Kind},
    plan,
    programs::{Measured, Programs},
};
use crate::{
    bench::results::Verified,
    bpffs::Bpffs,
    packet::{Packet, describe, difference, flag},
    world::Family,
};

/// Flows of a row whose every byte is compared before it is timed.
const CHECKED_FLOWS: u32 = 1_000;

/// The dataplane, its programs, and where the packets of each row have got to.
pub struct Kernel {
    dataplane: BpfDataplane,
    programs: Programs,
    pending: aya::maps::HashMap<MapData, FlowKey, FlowEntry>,
    /// Whether the table of handshakes has no room left.
    is_pending_full: bool,
    /// The turn of the next packet that opens a flow.
    next_new: u64,
    /// The turn of the next packet of an existing flow.
    next: u64,
    // Dropped last.
    _bpffs: Bpffs,
}

impl Kernel {
    /// A dataplane with shifter's default sizes that steers [`plan::plan`].
    ///
    /// # Panics
    /// If the kernel refuses something.
    pub fn new(bench: &[u8], other: Option<&[u8]>) -> Self {
        let bpffs = Bpffs::mount("bench");
        let node = NodeSpec {
            interfaces: Vec::new(),
            control_socket: "/nonexistent".into(),
            metrics: None,
            state_dir: "/nonexistent".into(),
            bpffs: bpffs.path().to_owned(),
            services_dir: "/nonexistent".into(),
            local_clients: shifter_daemon::model::LocalClientsSpec::Off,
            sizes: SizeSpec::default(),
            idle: Default::default(),
        };
        let mut dataplane = BpfDataplane::open(&node).expect("a dataplane");
        dataplane.publish(&plan::plan()).expect("the plan is good");
        let pins = PathBuf::from(dataplane.pins()).join("maps");
        let pending = MapData::from_pin(pins.join(map::PENDING)).expect("the pin");
        Self {
            dataplane,
            programs: Programs::load(&pins, bench, other),
            pending: aya::maps::HashMap::try_from(aya::maps::Map::LruHashMap(pending))
                .expect("a hash map"),
            is_pending_full: false,
            next_new: plan::NEW_FROM,
            next: 1,
            _bpffs: bpffs,
        }
    }

    /// Completes the handshake of so many flows, comparing every byte.
    ///
    /// # Panics
    /// If a packet is not steered as it must be.
    pub fn establish(&self, family: Family, flows_count: u32) {
        let (vip, backend) = (plan::vip(family), plan::backend(family));
        for index in 0..flows_count {
            let client = plan::client(family, index);
            let in_ = |flags, seq, ack| Packet::tcp(client, vip).flags(flags).seq(seq).ack(ack);
            let syn = in_(flag::SYN, plan::CLIENT_SEQ, 0);
            let answer = Packet::tcp(backend, client)
                .flags(flag::SYN | flag::ACK)
                .seq(plan::BACKEND_SEQ)
                .ack(plan::CLIENT_SEQ + 1);
            let ack = in_(flag::ACK, plan::CLIENT_SEQ + 1, plan::BACKEND_SEQ + 1);
            self.expect(Hook::Xdp, &syn, &syn.clone().to(backend));
            self.expect(Hook::TcEgress, &answer, &answer.clone().from(vip));
            self.expect(Hook::Xdp, &ack, &ack.clone().to(backend));
        }
    }

    /// Compares what a row's program makes of a row's packets with what it must make of them, then
    /// what it makes of a packet of the maker.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&mut self, case: &Case) {
        for nth in 0..CHECKED_FLOWS {
            let flow_index = match case.kind {
                Kind::New | Kind::NewEvicting => {
                    self.next_new += 1;
                    self.next_new as u32 - 1
                }
                _ => Recipe::flow_index(u64::from(nth), case.flows_count),
            };
            let packet = plan::packet(case, flow_index);
            self.expect(case.hook, &packet, &plan::steered(case, packet.clone()));
        }
        let frame = plan::frame(case, self.next_new);
        let ran = self.programs.made(case.hook, Measured::Shifter, &frame, 1);
        let flow_index = Recipe::flow_index(self.next_new, case.flows_count);
        self.next_new += 1;
        let expected = plan::steered(case, plan::packet(case, flow_index)).build();
        // The maker leaves the checksums as they were; addresses and ports must be right.
        let ends = |bytes: &[u8]| match case.family {
            Family::V4 => [&bytes[26..34], &bytes[34..38]].concat(),
            Family::V6 => [&bytes[22..54], &bytes[54..58]].concat(),
        };
        assert_eq!(
            ends(&ran.bytes),
            ends(&expected),
            "{}: {} instead of {}",
            case.id(),
            describe(&ran.bytes),
            describe(&expected)
        );
    }

    fn expect(&self, hook: Hook, packet: &Packet, expected: &Packet) {
        let input = packet.build();
        let ran = self.programs.single(hook, &input);
        let passed = if hook.is_xdp() { 2 } else { u32::MAX };
        assert_eq!(ran.returned, passed, "{hook:?}: {}", describe(&input));
        if let Some(difference) = difference(&expected.build(), &ran.bytes) {
            panic!("{hook:?}: {}: {difference}", describe(&input));
        }
    }

    /// Runs a row's packets through a program; ns a packet.
    ///
    /// # Panics
    /// If the last packet did not pass.
    pub fn run(&mut self, case: &Case, measured: Measured, count: u32) -> f64 {
        let opens = matches!(case.kind, Kind::New | Kind::NewEvicting);
        let turn = if opens {
            &mut self.next_new
        } else {
            &mut self.next
        };
        let frame = plan::frame(case, *turn);
        *turn += u64::from(count);
        let ran = self.programs.made(case.hook, measured, &frame, count);
        let passed = if case.hook.is_xdp() { 2 } else { u32::MAX };
        debug_assert_eq!(case.verdict().action(), Action::Pass);
        assert_eq!(ran.returned, passed, "{}, {measured:?}", case.id());
        ran.ns
    }

    /// Runs a program that does nothing; ns a run.
    pub fn noop(&self, is_xdp: bool, count: u32) -> f64 {
        let frame = Packet::tcp(plan::client(Family::V4, 0), plan::vip(Family::V4)).build();
        self.programs.nothing(is_xdp, &frame, count).ns
    }

    /// What the verifier said of the programs.
    pub fn verified(&self) -> Vec<Verified> {
        self.programs.verified()
    }

    /// Packets by verdict.
    pub fn verdicts(&self) -> Vec<u64> {
        self.dataplane.verdicts().expect("counters")
    }

    /// Takes every handshake out of its table.
    pub fn empty_pending(&mut self) {
        self.is_pending_full = false;
        let keys: Vec<FlowKey> = self.pending.keys().filter_map(Result::ok).collect();
        for key in keys {
            // Gone already is as good.
            let _ = self.pending.remove(&key);
        }
    }

    /// Fills the table of handshakes, so that the next one evicts.
    pub fn fill_pending(&mut self, family: Family) {
        if std::mem::replace(&mut self.is_pending_full, true) {
            return;
        }
        let case = Case {
            kind: Kind::New,
            hook: Hook::Xdp,
            family,
            flows_count: 0,
            batch_packets: 0,
            target_ns: None,
        };
        self.run(
            &case,
            Measured::Shifter,
            capacity::PENDING + capacity::PENDING / 4,
        );
    }

    /// Gives the floor the same flows.
    pub fn fill_floor(&mut self, flows_count: u32) {
        let v4 =
            |addr: std::net::SocketAddr| (Addr::from(addr.ip()).v4_word(), addr.port().to_be());
        let (vip, vip_port) = v4(plan::vip(Family::V4));
        let (addr, port) = v4(plan::backend(Family::V4));
        let target = FloorTarget { addr, port, pad: 0 };
        self.programs.add_floor_flows((0..flows_count).map(|index| {
            let (client, client_port) = v4(plan::client(Family::V4, index));
            let key = FloorKey {
                client,
                vip,
                client_port,
                vip_port,
            };
            (key, target)
        }));
        let case = Case {
            kind: Kind::Established,
            hook: Hook::Xdp,
            family: Family::V4,
            flows_count: FLOWS_MAX,
            batch_packets: 1,
            target_ns: None,
        };
        for nth in 0..CHECKED_FLOWS {
            let packet = plan::packet(&case, Recipe::flow_index(u64::from(nth), FLOWS_MAX));
            let ran = self.programs.floor(&packet.build());
            let expected = plan::steered(&case, packet).build();
            if let Some(difference) = difference(&expected, &ran.bytes) {
                panic!("floor: {difference}");
            }
        }
    }
}
