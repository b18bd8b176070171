//! Requests through the whole way: rates, latencies, and above all the processor time they take.

use super::{
    cpu,
    results::{EndToEnd, EndToEndRow},
    spread::{Spread, paired_ratios},
    way::{Setup, Way},
};
use crate::wrk::{Wrk, WrkReport};

/// Connections of the loads with many.
const CONNECTIONS: usize = 32;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Many connections that stay open.
    KeepAlive,
    /// A connection for each request.
    PerConnection,
    /// One connection that stays open: latency.
    One,
}

impl Load {
    /// All.
    pub const ALL: [Self; 3] = [Self::KeepAlive, Self::PerConnection, Self::One];

    /// In tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::PerConnection => "connection per request",
            Self::One => "one connection",
        }
    }

    const fn connections(self) -> usize {
        match self {
            Self::KeepAlive | Self::PerConnection => CONNECTIONS,
            Self::One => 1,
        }
    }

    fn wrk(self, setup: &Setup, duration_s: u64) -> Wrk {
        Wrk {
            target: setup.target(),
            threads: 1,
            connections: self.connections(),
            duration_s,
            close: self == Self::PerConnection,
        }
    }

    /// What the ratio of processor time to direct's should be at least.
    const fn target_cpu_ratio(self, way: Way) -> Option<f64> {
        match (way, self) {
            (Way::ShifterSocket, Self::KeepAlive) => Some(0.97),
            (Way::ShifterSocket, Self::PerConnection) => Some(0.94),
            (Way::ShifterSocketHttp, Self::KeepAlive) => Some(0.93),
            (Way::ShifterSocketHttp, Self::PerConnection) => Some(0.90),
            (Way::ShifterTc, Self::KeepAlive) => Some(0.92),
            (Way::ShifterTc, Self::PerConnection) => Some(0.87),
            _ => None,
        }
    }

    /// What a request should take above direct at most, µs.
    const fn target_above_direct_us(self, way: Way) -> Option<f64> {
        match (way, self) {
            (Way::ShifterTc, Self::One) => Some(2.0),
            _ => None,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Default)]
struct Measurement {
    report: WrkReport,
    load_ns: u64,
    backends_ns: u64,
    between_ns: u64,
    softirq_ns: u64,
}

impl Measurement {
    /// A share of the processor time, µs a request.
    fn us(&self, ns: u64) -> f64 {
        ns as f64 / 1e3 / self.report.requests as f64
    }

    fn cpu_us(&self) -> f64 {
        self.us(self.load_ns + self.backends_ns + self.between_ns + self.softirq_ns)
    }

    fn p50_us(&self) -> f64 {
        self.report.p50.as_secs_f64() * 1e6
    }

    /// Mean time of a request, as its connection sees it: connections are never idle.
    fn mean_us(&self, load: Load) -> f64 {
        load.connections() as f64 * 1e6 / self.report.requests_per_s
    }
}

/// Measures all ways under all loads. In a round each way has its turn under a load right after the
/// other; who comes first changes from round to round. `progress` hears of every turn.
///
/// # Panics
/// If a way cannot be set up or load not be made.
pub fn measure(
    ways: &[Way],
    rounds: usize,
    duration_s: u64,
    mut progress: impl FnMut(&str),
) -> EndToEnd {
    let setups: Vec<Setup> = ways
        .iter()
        .map(|way| {
            progress(&format!("setting up {}", way.name()));
            Setup::new(*way)
        })
        .collect();
    let mut rows = Vec::new();
    let mut measured: Vec<Vec<Vec<Measurement>>> = vec![vec![Vec::new(); ways.len()]; 3];
    for round in 0..rounds {
        for (load, by_way) in Load::ALL.into_iter().zip(&mut measured) {
            for turn in 0..setups.len() {
                let nth = (turn + round) % setups.len();
                progress(&format!(
                    "round {} of {rounds}: {}, {}",
                    round + 1,
                    load.name(),
                    ways[nth].name()
                ));
                by_way[nth].push(measurement(&setups[nth], load, duration_s));
            }
        }
    }
    for (load, by_way) in Load::ALL.into_iter().zip(&measured) {
        rows.extend(assemble(load, ways, by_way));
    }
    EndToEnd {
        measurement_s: duration_s,
        connections: CONNECTIONS,
        rows,
    }
}

fn measurement(setup: &Setup, load: Load, duration_s: u64) -> Measurement {
    let (backends, between) = (setup.backend_pids(), setup.between_pids());
    let softirq = cpu::softirq_threads();
    let read = || [&backends, &between, &softirq].map(|pids: &Vec<_>| cpu::of_processes(pids));
    let before = read();
    let mut command = load.wrk(setup, duration_s).command(&setup.client());
    let ran = cpu::run(&mut command);
    let cpu::Ran { status, said, ns } =
        ran.unwrap_or_else(|err| panic!("wrk: {err}; install the package wrk"));
    let after = read();
    let report = WrkReport::parse(&said).filter(|report| status.success() && report.requests > 0);
    let report = report.unwrap_or_else(|| panic!("{}: wrk: {status}: {said}", setup.way().name()));
    let [backends_ns, between_ns, softirq_ns] =
        [0, 1, 2].map(|nth| after[nth].saturating_sub(before[nth]));
    Measurement {
        report,
        load_ns: ns,
        backends_ns,
        between_ns,
        softirq_ns,
    }
}

/// The rows of a load, from the measurements of each way, round by round.
fn assemble(load: Load, ways: &[Way], by_way: &[Vec<Measurement>]) -> Vec<EndToEndRow> {
    let of = |way: Way, value: &dyn Fn(&Measurement) -> f64| -> Option<Vec<f64>> {
        let nth = ways.iter().position(|one| *one == way)?;
        Some(by_way[nth].iter().map(value).collect())
    };
    let spread = |sample: Vec<f64>| Spread::of(sample).unwrap_or_default();
    let rows = ways.iter().map(|way| {
        let values = |value: &dyn Fn(&Measurement) -> f64| of(*way, value).unwrap_or_default();
        let direct =
            |value: &dyn Fn(&Measurement) -> f64| of(Way::Direct, value).unwrap_or_default();
        let cpu = values(&Measurement::cpu_us);
        let rate = values(&|one| one.report.requests_per_s);
        let mean = values(&|one| one.mean_us(load));
        let p50 = values(&Measurement::p50_us);
        let above = p50
            .iter()
            .zip(direct(&Measurement::p50_us))
            .map(|(own, direct)| own - direct)
            .collect();
        let requests = by_way[ways.iter().position(|one| one == way).unwrap_or(0)].iter();
        EndToEndRow {
            way: way.name().to_owned(),
            load: load.name().to_owned(),
            requests: requests.clone().map(|one| one.report.requests).sum(),
            errors: requests.map(|one| one.report.errors_count()).sum(),
            requests_per_s: spread(rate.clone()),
            p50_us: spread(p50),
            p99_us: spread(values(&|one| one.report.p99.as_secs_f64() * 1e6)),
            mean_us: spread(mean),
            cpu_us: spread(cpu.clone()),
            cpu_load_us: spread(values(&|one| one.us(one.load_ns))),
            cpu_backends_us: spread(values(&|one| one.us(one.backends_ns))),
            cpu_between_us: spread(values(&|one| one.us(one.between_ns))),
            cpu_softirq_us: spread(values(&|one| one.us(one.softirq_ns))),
            cpu_ratio: spread(paired_ratios(&direct(&Measurement::cpu_us), &cpu)),
            cpu_nftables_ratio: of(Way::Nftables, &Measurement::cpu_us)
                .and_then(|nftables| Spread::of(paired_ratios(&nftables, &cpu))),
            rate_ratio: spread(paired_ratios(
                &rate,
                &direct(&|one| one.report.requests_per_s),
            )),
            p50_above_direct_us: spread(above),
            target_cpu_ratio: load.target_cpu_ratio(*way),
            target_above_direct_us: load.target_above_direct_us(*way),
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(requests: u64, cpu_ms: [u64; 4]) -> Measurement {
        let [load, backends, between, softirq] = cpu_ms.map(|ms| ms * 1_000_000);
        Measurement {
            report: WrkReport {
                requests,
                requests_per_s: requests as f64 / 2.0,
                p50: Duration::from_micros(40),
                p99: Duration::from_micros(90),
                timeouts: 1,
                ..WrkReport::default()
            },
            load_ns: load,
            backends_ns: backends,
            between_ns: between,
            softirq_ns: softirq,
        }
    }

    #[test]
    fn rows_are_ratios_to_direct_in_the_same_round() {
        assert_eq!(
            Load::KeepAlive.target_cpu_ratio(Way::ShifterSocket),
            Some(0.97)
        );
        let ways = [Way::Direct, Way::ShifterTc, Way::Nftables];
        let by_way = [
            vec![
                measured(1_000, [10, 8, 0, 2]),
                // The machine was slower in this round, for everybody.
                measured(500, [10, 8, 0, 2]),
            ],
            vec![
                measured(1_000, [12, 10, 1, 2]),
                measured(500, [12, 10, 1, 2]),
            ],
            vec![
                measured(1_000, [15, 12, 0, 3]),
                measured(500, [15, 12, 0, 3]),
            ],
        ];
        let rows = assemble(Load::One, &ways, &by_way);
        assert_eq!(rows.len(), 3);
        let direct = &rows[0];
        assert_eq!((direct.cpu_us.min, direct.cpu_us.max), (20.0, 40.0));
        assert_eq!((direct.cpu_ratio.min, direct.cpu_ratio.max), (1.0, 1.0));
        assert_eq!((direct.requests, direct.errors), (1_500, 2));
        let ours = &rows[1];
        assert_eq!((ours.cpu_ratio.min, ours.cpu_ratio.max), (0.8, 0.8));
        let to_nftables = ours.cpu_nftables_ratio.expect("nftables was measured");
        assert_eq!((to_nftables.min, to_nftables.max), (1.2, 1.2));
        assert_eq!(ours.cpu_between_us.min, 1.0);
        assert_eq!((ours.p50_us.median, ours.p99_us.median), (40.0, 90.0));
        // 500 and 250 requests a second on one connection.
        assert_eq!((ours.mean_us.min, ours.mean_us.max), (2_000.0, 4_000.0));
        assert_eq!(ours.p50_above_direct_us.max, 0.0);
        assert_eq!(ours.target_above_direct_us, Some(2.0));
        assert_eq!(ours.target_cpu_ratio, None);
        let alone = assemble(Load::KeepAlive, &ways[1..2], &by_way[1..2]);
        assert_eq!(alone[0].cpu_ratio, Spread::default());
        assert_eq!(alone[0].cpu_nftables_ratio, None);
        assert_eq!(alone[0].target_cpu_ratio, Some(0.92));
    }
}
