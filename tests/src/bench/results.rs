//! What the bench found, as written to `results.json`.

use serde::{Deserialize, Serialize};

use super::spread::Spread;

/// Everything of one run. A part that was not asked for is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where it ran.
    pub machine: Machine,
    /// Whether it was a short run, good for a look and for nothing else.
    pub quick: bool,
    /// Packets through the programs.
    pub packets: Option<Packets>,
    /// Requests through the whole way.
    pub end_to_end: Option<EndToEnd>,
    /// Weights changed under load.
    pub change: Option<Change>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Date of the run, `YYYY-MM-DD`.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors online.
    pub cpus_count: usize,
    /// Whether BPF programs are compiled to machine code.
    pub jit: bool,
    /// Processes that wanted to run when the bench began, over the last minute: what else went on.
    pub load: f64,
    /// Versions of the programs beside shifter.
    pub programs: Vec<String>,
}

/// The packet rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packets {
    /// A program that does nothing at XDP, ns a run: the harness.
    pub noop_xdp_ns: Spread,
    /// The same at TC.
    pub noop_tc_ns: Spread,
    /// What the kernel's verifier went through for each of shifter's programs; older results do not
    /// say.
    #[serde(default)]
    pub programs: Vec<Verified>,
    /// The rows.
    pub rows: Vec<PacketRow>,
}

/// A program that the kernel has accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// The program.
    pub name: String,
    /// Instructions that the verifier went through, over all states; at 1,000,000 it gives up. 0 if
    /// the kernel does not say (before 5.16).
    pub instructions: u32,
}

/// One packet row. Its samples are one batch a round each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PacketRow {
    /// Its name, such as `established/xdp/v4/1000`.
    pub id: String,
    /// In words.
    pub words: String,
    /// The hook, in words.
    pub hook: String,
    /// `v4` or `v6`.
    pub family: String,
    /// Flows in random order; 0 if each packet has its own.
    pub flows_count: u32,
    /// Packets of a batch.
    pub batch_packets: u32,
    /// Packet maker and program, ns a packet.
    pub with_maker_ns: Spread,
    /// Packet maker and a program that does nothing, ns a packet.
    pub maker_ns: Spread,
    /// The difference of these two in the same round, plus the harness of the same round: what
    /// the program alone would show, ns a packet.
    pub ns: Spread,
    /// What `ns` should be at most.
    pub target_ns: Option<f64>,
}

/// The end-to-end rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndToEnd {
    /// Seconds of one measurement.
    pub measurement_s: u64,
    /// Connections of the rows with many.
    pub connections: usize,
    /// The rows.
    pub rows: Vec<EndToEndRow>,
}

/// One way under one kind of load. Its samples are one measurement a round each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndToEndRow {
    /// The way, such as `nftables`.
    pub way: String,
    /// The load, such as `keep-alive`.
    pub load: String,
    /// Requests in all rounds.
    pub requests: u64,
    /// Errors in all rounds.
    pub errors: u64,
    /// Requests a second.
    pub requests_per_s: Spread,
    /// Half of the answers took no longer, µs.
    pub p50_us: Spread,
    /// 99 % of the answers took no longer, µs.
    pub p99_us: Spread,
    /// Mean time of a request as its connection sees it, µs.
    pub mean_us: Spread,
    /// Processor time a request, µs: of everybody named below.
    pub cpu_us: Spread,
    /// Of that, the load generator's.
    pub cpu_load_us: Spread,
    /// Of that, the backends'.
    pub cpu_backends_us: Spread,
    /// Of that, shifterd's or the proxy's.
    pub cpu_between_us: Spread,
    /// Of that, the kernel's threads for interrupts that are too many, of the whole machine.
    pub cpu_softirq_us: Spread,
    /// Processor time of direct over this one's, of the same round: 1 is as cheap as direct.
    pub cpu_ratio: Spread,
    /// Processor time of nftables over this one's, of the same round, if both were measured.
    pub cpu_nftables_ratio: Option<Spread>,
    /// Requests a second of this one over direct's, of the same round.
    pub rate_ratio: Spread,
    /// The median time of a request minus direct's, of the same round, µs.
    pub p50_above_direct_us: Spread,
    /// What `cpu_ratio` should be at least.
    pub target_cpu_ratio: Option<f64>,
    /// What `p50_above_direct_us` should be at most.
    pub target_above_direct_us: Option<f64>,
}

/// The change rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The rows.
    pub rows: Vec<ChangeRow>,
}

/// One way's changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The way.
    pub way: String,
    /// Weight changes, from all to nothing and back.
    pub changes: u64,
    /// Connections that were tried.
    pub connections: u64,
    /// Connections that failed.
    pub failed: u64,
    /// What they said, each once.
    pub failures: Vec<String>,
    /// From giving the command to its return, µs.
    pub command_us: Spread,
    /// From giving the command to the beginning of the last connection that went to the old
    /// version, µs; 0 if there was none.
    pub last_on_old_us: Spread,
    /// Connections that began after the command had returned and went to the old version.
    pub wrong_after_return: u64,
}
