//! The loaded programs: shifter's own, and the bench's before and beside them.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use shifter_common::{
    abi::{map, program},
    recipe::{FloorKey, FloorTarget},
};

use super::case::Hook;
use crate::bench::results::Verified;

/// What the packet maker goes on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// shifter's program of the hook.
    Shifter,
    /// The same program of another object.
    Other,
    /// A program that does nothing.
    Nothing,
    /// The least DNAT.
    Floor,
}

/// A program's run.
pub struct Ran {
    /// ns a packet.
    pub ns: f64,
    /// What the program returned last.
    pub returned: u32,
    /// The packet after the last run.
    pub bytes: Vec<u8>,
}

/// A copy of the bench's object whose maker goes on to one program of each kind.
struct Maker {
    object: Ebpf,
}

/// The programs of an object of shifter, alone and behind a maker.
struct Steering {
    object: Ebpf,
    ingress: Maker,
    egress: Maker,
}

impl Steering {
    fn load(pins: &Path, object: &[u8], bench: &[u8]) -> Self {
        let mut loader = EbpfLoader::new();
        for name in map::ALL
            .into_iter()
            .chain(shifter_common::breaker::map::ALL)
            .chain(shifter_common::observe::map::ALL)
        {
            loader.map_pin_path(name, pins.join(name));
        }
        let mut object = loader.load(object).expect("an object of shifter");
        for name in [
            program::XDP_INGRESS,
            program::TC_INGRESS,
            program::TC_EGRESS,
        ] {
            load(&mut object, name);
        }
        let fd = |name: &str| fd(&object, name);
        let (xdp, tc) = (fd(program::XDP_INGRESS), fd(program::TC_INGRESS));
        let ingress = Maker::new(bench).onto(Some(&xdp), Some(&tc));
        let egress = Maker::new(bench).onto(None, Some(&fd(program::TC_EGRESS)));
        Self {
            object,
            ingress,
            egress,
        }
    }

    fn verified(&self) -> Vec<Verified> {
        let programs = self.object.programs();
        let one = |(name, program): (&str, &Program)| {
            let info = match program {
                Program::Xdp(xdp) => xdp.info(),
                Program::SchedClassifier(classifier) => classifier.info(),
                _ => return None,
            };
            let instructions = info.ok()?.verified_instruction_count().unwrap_or(0);
            Some(Verified {
                name: name.to_owned(),
                instructions,
            })
        };
        programs.filter_map(one).collect()
    }

    fn maker(&self, hook: Hook) -> &Maker {
        match hook {
            Hook::Xdp | Hook::TcIngress => &self.ingress,
            Hook::TcEgress => &self.egress,
        }
    }
}

/// All programs.
pub struct Programs {
    shifter: Steering,
    other: Option<Steering>,
    to_nothing: Maker,
    to_floor: Maker,
}

impl Programs {
    /// Loads everything; shifter's programs find their maps by these pins. Another object of shifter
    /// uses the same maps.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn load(pins: &Path, bench: &[u8], other: Option<&[u8]>) -> Self {
        let object = shifter_daemon::dataplane::bpf::object();
        Self {
            shifter: Steering::load(pins, object, bench),
            other: other.map(|other| Steering::load(pins, other, bench)),
            to_nothing: Maker::new(bench).onto_own("pass_xdp", Some("pass_tc")),
            to_floor: Maker::new(bench).onto_own("floor_xdp", None),
        }
    }

    /// What the verifier said of shifter's programs.
    pub fn verified(&self) -> Vec<Verified> {
        self.shifter.verified()
    }

    /// Runs shifter's program of a hook on one packet.
    pub fn single(&self, hook: Hook, frame: &[u8]) -> Ran {
        let name = match hook {
            Hook::Xdp => program::XDP_INGRESS,
            Hook::TcIngress => program::TC_INGRESS,
            Hook::TcEgress => program::TC_EGRESS,
        };
        run(&self.shifter.object, name, frame, 1)
    }

    /// Runs the maker and what is measured behind it, so many times on one frame.
    pub fn made(&self, hook: Hook, measured: Measured, frame: &[u8], count: u32) -> Ran {
        let maker = match measured {
            Measured::Shifter => self.shifter.maker(hook),
            Measured::Other => self.other.as_ref().expect("another object").maker(hook),
            Measured::Nothing => &self.to_nothing,
            Measured::Floor => &self.to_floor,
        };
        let name = if hook.is_xdp() {
            "bench_xdp"
        } else {
            "bench_tc"
        };
        run(&maker.object, name, frame, count)
    }

    /// Runs a program that does nothing, without a maker.
    pub fn nothing(&self, is_xdp: bool, frame: &[u8], count: u32) -> Ran {
        let name = if is_xdp { "pass_xdp" } else { "pass_tc" };
        run(&self.to_nothing.object, name, frame, count)
    }

    /// Runs the floor on one packet.
    pub fn floor(&self, frame: &[u8]) -> Ran {
        run(&self.to_floor.object, "floor_xdp", frame, 1)
    }

    /// Adds flows to the floor's table.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn add_floor_flows(&mut self, flows: impl Iterator<Item = (FloorKey, FloorTarget)>) {
        let map = self.to_floor.object.map_mut("FLOOR_FLOWS");
        let mut map = HashMap::try_from(map.expect("the floor's table")).expect("a hash map");
        for (key, target) in flows {
            map.insert(key, target, 0).expect("room for a flow");
        }
    }
}

impl Maker {
    fn new(bench: &[u8]) -> Self {
        let mut object = Ebpf::load(bench).expect("the bench's object");
        for name in ["bench_xdp", "bench_tc", "pass_xdp", "pass_tc", "floor_xdp"] {
            load(&mut object, name);
        }
        Self { object }
    }

    /// Makes it go on to these.
    fn onto(mut self, xdp: Option<&ProgramFd>, tc: Option<&ProgramFd>) -> Self {
        for (name, measured) in [("MEASURED_XDP", xdp), ("MEASURED_TC", tc)] {
            let map = self.object.map_mut(name).expect("an array of programs");
            let mut array = ProgramArray::try_from(map).expect("an array of programs");
            if let Some(fd) = measured {
                array.set(0, fd, 0).expect("a program of the same kind");
            }
        }
        self
    }

    /// Makes it go on to programs of its own object.
    fn onto_own(self, xdp: &str, tc: Option<&str>) -> Self {
        let (xdp, tc) = (fd(&self.object, xdp), tc.map(|tc| fd(&self.object, tc)));
        self.onto(Some(&xdp), tc.as_ref())
    }
}

fn load(object: &mut Ebpf, name: &str) {
    match object.program_mut(name) {
        Some(Program::Xdp(xdp)) => xdp.load().expect("XDP loads"),
        Some(Program::SchedClassifier(classifier)) => classifier.load().expect("TC loads"),
        other => panic!("{name} is {other:?}"),
    }
}

fn fd(object: &Ebpf, name: &str) -> ProgramFd {
    let fd = match object.program(name) {
        Some(Program::Xdp(xdp)) => xdp.fd(),
        Some(Program::SchedClassifier(classifier)) => classifier.fd(),
        other => panic!("{name} is {other:?}"),
    };
    let fd = fd.expect("loaded").try_clone();
    fd.expect("another descriptor")
}

fn run(object: &Ebpf, name: &str, frame: &[u8], count: u32) -> Ran {
    let mut bytes = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut bytes),
        repeat: count,
        ..TestRunOptions::default()
    };
    let program = object.program(name).expect("a loaded program");
    let result = if let Ok(xdp) = <&Xdp>::try_from(program) {
        xdp.test_run(options)
    } else {
        let classifier = <&SchedClassifier>::try_from(program).expect("a classifier");
        classifier.test_run(options)
    };
    let result = result.unwrap_or_else(|err| panic!("{name}, {count} runs: {err}"));
    bytes.truncate(result.data_size_out as usize);
    Ran {
        ns: result.duration.as_nanos() as f64,
        returned: result.return_value,
        bytes,
    }
}
