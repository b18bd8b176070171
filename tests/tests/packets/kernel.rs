//! The real kernel programs over maps filled by the daemon's own publication, run on single packets
//! by BPF_PROG_TEST_RUN.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapType},
    programs::{Program, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use nix::libc;
use shifter_common::{
    abi::{
        BackendCounters, FlowCounters, FlowEntry, FlowKey, SlotCounters, TICK_SHIFT, map, program,
    },
    breaker, observe, protocol,
    verdict::{Action, Verdict},
};
use shifter_daemon::{
    dataplane::{Dataplane as _, ServicePlan, bpf::BpfDataplane},
    model::{NodeSpec, SizeSpec},
};
use shifter_tests::bpffs::Bpffs;

/// Which entry point ingress packets take. Replies always take TC egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
}

/// What the kernel did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub verdict: Verdict,
    pub bytes: Vec<u8>,
}

/// A dataplane of its own, without interfaces.
pub struct Kernel {
    /// `None` only while it is opened anew: two cannot hold the same pins.
    pub dataplane: Option<BpfDataplane>,
    programs: Ebpf,
    hook: Hook,
    bpffs: Bpffs,
}

/// A node without interfaces and with small tables.
pub fn node(bpffs: &Path) -> NodeSpec {
    NodeSpec {
        interfaces: Vec::new(),
        control_socket: "/nonexistent".into(),
        metrics: None,
        state_dir: "/nonexistent".into(),
        bpffs: bpffs.to_owned(),
        services_dir: "/nonexistent".into(),
        local_clients: shifter_daemon::model::LocalClientsSpec::Off,
        sizes: SizeSpec {
            services_count: 4,
            backends_count: 64,
            flows_count: 4_096,
            pending_count: 4_096,
            table_entries_count: 8_192,
        },
        idle: Default::default(),
    }
}

impl Kernel {
    /// The daemon's side.
    pub fn dataplane(&mut self) -> &mut BpfDataplane {
        self.dataplane.as_mut().expect("opened")
    }

    /// Empties all maps, so that the next script finds the kernel as a new one. Loading the programs
    /// again for each script would take a second each.
    pub fn wipe(&mut self) {
        self.dataplane = None;
        let pins = self.bpffs.path().join("shifter").join("v1").join("maps");
        let own = map::ALL.into_iter().filter(|name| *name != map::LAYOUT);
        // A row of counters is emptied when it is given to a service.
        let observed = observe::map::ALL.into_iter();
        let observed = observed.filter(|name| *name != observe::map::OBSERVED);
        for name in own.chain(breaker::map::ALL).chain(observed) {
            let data = MapData::from_pin(pins.join(name)).expect("the pin");
            empty(&data);
        }
        self.dataplane = Some(BpfDataplane::open(&node(self.bpffs.path())).expect("a dataplane"));
    }

    /// A map by its pin.
    pub fn pinned(&self, name: &str) -> MapData {
        let pins = self.bpffs.path().join("shifter").join("v1").join("maps");
        MapData::from_pin(pins.join(name)).expect("the pin")
    }

    /// Elements of a hash map.
    pub fn entries(&self, name: &str) -> usize {
        let data = self.pinned(name);
        let info = data.info().expect("the map");
        let (key_bytes, value_bytes) = (info.key_size(), info.value_size());
        assert_eq!((key_bytes, value_bytes), (24, 40), "{name}: of flows");
        let map = Map::from_map_data(data).expect("a map");
        let flows: HashMap<_, FlowKey, FlowEntry> = map.try_into().expect("a hash map");
        flows.keys().count()
    }

    /// Ends this dataplane and opens it anew over the same pins, as a daemon that starts again.
    pub fn reopen(&mut self) {
        self.dataplane = None;
        self.dataplane = Some(BpfDataplane::open(&node(self.bpffs.path())).expect("a dataplane"));
    }

    pub fn new(hook: Hook) -> Self {
        Self::over(hook, Bpffs::mount("packets"))
    }

    /// The dataplane that is pinned here, or a new one.
    pub fn over(hook: Hook, bpffs: Bpffs) -> Self {
        Self::build(hook, bpffs, |_| {})
    }

    /// With another node than usual.
    pub fn with(hook: Hook, change: impl Fn(&mut NodeSpec)) -> Self {
        Self::build(hook, Bpffs::mount("packets"), change)
    }

    fn build(hook: Hook, bpffs: Bpffs, change: impl Fn(&mut NodeSpec)) -> Self {
        let mut node = node(bpffs.path());
        change(&mut node);
        let dataplane = BpfDataplane::open(&node).expect("a dataplane");
        let pins = bpffs.path().join("shifter").join("v1").join("maps");
        let mut loader = EbpfLoader::new();
        let parts = map::ALL.into_iter().chain(breaker::map::ALL);
        for name in parts.chain(observe::map::ALL) {
            loader.map_pin_path(name, pins.join(name));
        }
        let mut programs = loader
            .load(shifter_daemon::dataplane::bpf::object())
            .expect("the object");
        let ingress = match hook {
            Hook::Xdp => program::XDP_INGRESS,
            Hook::Tc => program::TC_INGRESS,
        };
        for name in [ingress, program::TC_EGRESS] {
            match programs.program_mut(name).expect("the program") {
                Program::Xdp(xdp) => xdp.load().expect("XDP loads"),
                Program::SchedClassifier(classifier) => classifier.load().expect("TC loads"),
                other => panic!("{name} is {other:?}"),
            }
        }
        Self {
            dataplane: Some(dataplane),
            programs,
            hook,
            bpffs,
        }
    }

    /// Empties the flow tables.
    pub fn forget_flows(&self) {
        let pins = self.bpffs.path().join("shifter").join("v1").join("maps");
        for name in [map::FLOWS, map::PENDING] {
            empty(&MapData::from_pin(pins.join(name)).expect("the pin"));
        }
    }

    /// Ends this dataplane as a daemon's end does: everything stays pinned.
    pub fn leave(self) -> Bpffs {
        let Self {
            dataplane,
            programs,
            bpffs,
            ..
        } = self;
        drop((dataplane, programs));
        bpffs
    }

    pub fn publish(&mut self, plan: &ServicePlan) {
        self.dataplane().publish(plan).expect("the plan is good");
    }

    pub fn ingress(&self, frame: &[u8]) -> Ran {
        match self.hook {
            Hook::Xdp => self.run(frame, program::XDP_INGRESS),
            Hook::Tc => self.run(frame, program::TC_INGRESS),
        }
    }

    pub fn egress(&self, frame: &[u8]) -> Ran {
        self.run(frame, program::TC_EGRESS)
    }

    fn run(&self, frame: &[u8], name: &str) -> Ran {
        let before = self.verdicts();
        let mut bytes = vec![0; frame.len() + 256];
        let options = || TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        let options = TestRunOptions {
            data_out: Some(&mut bytes),
            ..options()
        };
        let program = self.programs.program(name).expect("the program");
        let (result, pass, drop, turn) = if let Ok(xdp) = <&Xdp>::try_from(program) {
            (xdp.test_run(options), 2, 1, 3)
        } else {
            let classifier = <&SchedClassifier>::try_from(program).expect("a classifier");
            (classifier.test_run(options), u32::MAX, 2, 7)
        };
        let result = result.expect("the kernel runs the program");
        bytes.truncate(result.data_size_out as usize);
        let after = self.verdicts();
        let changed: Vec<Verdict> = Verdict::ALL
            .iter()
            .copied()
            .filter(|verdict| after[*verdict as usize] != before[*verdict as usize])
            .collect();
        let sum: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        assert_eq!(
            (changed.len(), sum),
            (1, 1),
            "one packet, one verdict: {changed:?}"
        );
        let expected = match changed[0].action() {
            Action::Pass => pass,
            Action::Drop => drop,
            Action::Turn => turn,
        };
        assert_eq!(result.return_value, expected, "{:?} at {name}", changed[0]);
        Ran {
            verdict: changed[0],
            bytes,
        }
    }

    /// Makes every flow look as if its last packet, and of UDP its last answer, had come earlier.
    pub fn age_flows(&self, time_s: u32) {
        let pins = self.bpffs.path().join("shifter").join("v1").join("maps");
        let ticks = ((u64::from(time_s) * 1_000_000_000) >> TICK_SHIFT) as u32 + 1;
        for name in [map::FLOWS, map::PENDING] {
            let data = MapData::from_pin(pins.join(name)).expect("the pin");
            let map = Map::from_map_data(data).expect("a map");
            let mut flows: HashMap<_, FlowKey, FlowEntry> = map.try_into().expect("flows");
            let all: Vec<_> = flows.iter().map(|flow| flow.expect("a flow")).collect();
            for (key, mut entry) in all {
                entry.last_seen_ticks = entry.last_seen_ticks.wrapping_sub(ticks);
                if key.protocol == protocol::UDP {
                    entry.next_from_backend = entry.next_from_backend.wrapping_sub(ticks);
                }
                flows.insert(key, entry, 0).expect("the flow is there");
            }
        }
    }

    pub fn verdicts(&self) -> Vec<u64> {
        self.dataplane
            .as_ref()
            .expect("opened")
            .verdicts()
            .expect("counters")
    }

    /// Every counter of a service that is not zero, by a readable name.
    pub fn counters(&self, service: &str) -> BTreeMap<String, u64> {
        let reading = self
            .dataplane
            .as_ref()
            .expect("opened")
            .read(service)
            .expect("counters");
        let mut named = BTreeMap::new();
        for (slot, counters) in ["a", "b"].into_iter().zip(&reading.slots) {
            // Taken apart, so that a new counter cannot be forgotten here.
            let SlotCounters {
                flows,
                failed_over,
                unserved,
                targeted,
            } = *counters;
            name_flows(slot, flows, &mut named);
            named.insert(format!("{slot}.failed_over"), failed_over);
            named.insert(format!("{slot}.unserved"), unserved);
            named.insert(format!("{slot}.targeted"), targeted);
        }
        for backend in &reading.backends {
            let prefix = format!("{}/{}", backend.slot, backend.addr);
            let BackendCounters {
                flows,
                packets_in,
                bytes_in,
                packets_out,
                bytes_out,
            } = backend.counters;
            name_flows(&prefix, flows, &mut named);
            named.insert(format!("{prefix}.packets_in"), packets_in);
            named.insert(format!("{prefix}.bytes_in"), bytes_in);
            named.insert(format!("{prefix}.packets_out"), packets_out);
            named.insert(format!("{prefix}.bytes_out"), bytes_out);
        }
        named.retain(|_, count| *count != 0);
        named
    }
}

/// Removes all elements of a hash map, or overwrites those of an array with zeros.
fn empty(data: &MapData) {
    const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let info = data.info().expect("the map");
    if matches!(
        info.map_type(),
        Ok(MapType::ProgramArray | MapType::SkStorage | MapType::RingBuf)
    ) {
        // Empty: nobody was replaced, and no socket was steered.
        return;
    }
    let is_hash = matches!(
        info.map_type().expect("a type"),
        MapType::Hash | MapType::LruHash | MapType::LpmTrie
    );
    let mut key = vec![0_u8; info.key_size() as usize];
    // Values of per-CPU maps are given for every possible CPU, eight bytes apart.
    let value = vec![0_u8; (info.value_size() as usize).next_multiple_of(8) * 512];
    let call = |command: libc::c_long, key: u64, value: u64| {
        let attr = Attr {
            map_fd: data.fd().as_fd().as_raw_fd() as u32,
            pad: 0,
            key,
            value,
            flags: 0,
        };
        // SAFETY: the pointers are to live buffers of at least the map's key and value sizes.
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Attr>()) == 0 }
    };
    if is_hash {
        while call(BPF_MAP_GET_NEXT_KEY, 0, key.as_mut_ptr() as u64) {
            assert!(call(BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0));
        }
    } else {
        for index in 0..info.max_entries() {
            let key = index.to_ne_bytes();
            assert!(call(
                BPF_MAP_UPDATE_ELEM,
                key.as_ptr() as u64,
                value.as_ptr() as u64
            ));
        }
    }
}

fn name_flows(prefix: &str, flows: FlowCounters, named: &mut BTreeMap<String, u64>) {
    let FlowCounters {
        selected,
        established,
        refused,
        closed,
        reset_by_client,
        reset_by_backend,
        unanswered,
    } = flows;
    for (name, count) in [
        ("selected", selected),
        ("established", established),
        ("refused", refused),
        ("closed", closed),
        ("reset_by_client", reset_by_client),
        ("reset_by_backend", reset_by_backend),
        ("unanswered", unanswered),
    ] {
        named.insert(format!("{prefix}.{name}"), count);
    }
}
