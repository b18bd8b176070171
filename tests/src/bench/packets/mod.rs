//! Packets through the programs of the running kernel, by `BPF_PROG_TEST_RUN`.

mod case;
mod kernel;
mod plan;
mod programs;

use shifter_common::verdict::Verdict;

pub use self::case::{Case, FLOWS_MAX, Hook, Kind, all};
use self::{kernel::Kernel, programs::Measured};
use super::{
    results::{PacketRow, Packets},
    spread::Spread,
};
use crate::world::Family;

/// Packets of a batch that does nothing.
const NOOP_PACKETS: u32 = 20_000;

/// One round of one row, ns a packet.
struct Sample {
    noop: f64,
    maker: f64,
    with_maker: f64,
}

/// What is measured, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'a> {
    /// The bench's kernel object.
    pub object: &'a [u8],
    /// Another object of shifter, measured on the same maps beside the one that was built in: what a
    /// change of the kernel programs does.
    pub against: Option<&'a [u8]>,
    /// Batches of each row.
    pub rounds: usize,
    /// Rows whose name contains this.
    pub only: &'a str,
}

/// Measures rows. They take turns: each gets one batch a round, with its two comparisons right
/// beside it. `progress` hears of every round.
///
/// # Panics
/// If a program answers with other bytes or another verdict than the row says, before or while it
/// is timed, or the kernel refuses something.
pub fn measure(effort: Effort<'_>, mut progress: impl FnMut(&str)) -> Packets {
    let Effort {
        object,
        against,
        rounds,
        only,
    } = effort;
    let cases: Vec<Case> = all()
        .into_iter()
        .filter(|case| case.id().contains(only))
        .collect();
    let mut kernel = Kernel::new(object, against);
    for family in Family::ALL {
        progress(&format!("{FLOWS_MAX} handshakes, {family:?}"));
        kernel.establish(family, FLOWS_MAX);
    }
    for case in &cases {
        kernel.check(case);
    }
    kernel.fill_floor(FLOWS_MAX);
    let mut samples: Vec<Vec<Sample>> = cases.iter().map(|_| Vec::new()).collect();
    let mut others: Vec<Vec<Sample>> = cases.iter().map(|_| Vec::new()).collect();
    let mut floor: Vec<(u32, Vec<Sample>)> = [1, 1_000, FLOWS_MAX].map(|n| (n, Vec::new())).into();
    for round in 1..=rounds {
        progress(&format!("packets, round {round} of {rounds}"));
        for nth in order(&cases) {
            samples[nth].push(sample(&mut kernel, &cases[nth], Measured::Shifter));
            if against.is_some() {
                others[nth].push(sample(&mut kernel, &cases[nth], Measured::Other));
            }
        }
        for (flows_count, samples) in floor.iter_mut().filter(|_| only.is_empty()) {
            let case = floor_case(*flows_count);
            samples.push(kernel.sample_of(&case, Measured::Floor, None));
        }
    }
    let noop = |hook_is_xdp: bool| {
        let rows = cases.iter().zip(&samples);
        let rows = rows.filter(|(case, _)| case.hook.is_xdp() == hook_is_xdp);
        Spread::of(rows.flat_map(|(_, samples)| samples.iter().map(|sample| sample.noop)))
    };
    let mut rows: Vec<PacketRow> = Vec::new();
    for (flows_count, samples) in floor.iter().filter(|(_, samples)| !samples.is_empty()) {
        let case = floor_case(*flows_count);
        let mut row = row(&case, samples);
        row.id = format!("floor/xdp/v4/{flows_count}");
        row.words = "floor: least DNAT".to_owned();
        rows.push(row);
    }
    for ((case, samples), others) in cases.iter().zip(&samples).zip(&others) {
        rows.push(row(case, samples));
        if against.is_some() {
            let mut row = row(case, others);
            row.id = format!("against/{}", row.id);
            row.words = format!("{}, the other object", row.words);
            rows.push(row);
        }
    }
    Packets {
        noop_xdp_ns: noop(true).unwrap_or_default(),
        noop_tc_ns: noop(false).unwrap_or_default(),
        programs: kernel.verified(),
        rows,
    }
}

/// The order of a round: rows that fill the table of handshakes come last, those that fill it to its
/// end at the very last, because emptying it takes longest.
fn order(cases: &[Case]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by_key(|nth| match cases[*nth].kind {
        Kind::New => 1,
        Kind::NewEvicting => 2,
        _ => 0,
    });
    order
}

/// The packets that the floor is measured with: those of shifter's own row.
fn floor_case(flows_count: u32) -> Case {
    let mut cases = all().into_iter();
    let is_it = |case: &Case| {
        case.kind == Kind::Established
            && case.hook.is_xdp()
            && case.family == Family::V4
            && case.flows_count == flows_count
    };
    let case = cases.find(is_it).expect("a row for each number of flows");
    Case {
        target_ns: None,
        ..case
    }
}

fn sample(kernel: &mut Kernel, case: &Case, measured: Measured) -> Sample {
    match case.kind {
        Kind::New => kernel.empty_pending(),
        Kind::NewEvicting => kernel.fill_pending(case.family),
        _ => {}
    }
    kernel.sample_of(case, measured, Some(case.verdict()))
}

impl Kernel {
    /// A batch of a row, with its comparisons. Every timed packet must get the verdict, if the
    /// program counts verdicts.
    fn sample_of(&mut self, case: &Case, measured: Measured, verdict: Option<Verdict>) -> Sample {
        self.run(case, measured, case.warm_packets());
        let before = self.verdicts();
        let with_maker = self.run(case, measured, case.batch_packets);
        let after = self.verdicts();
        for of in Verdict::ALL {
            let (seen, index) = (verdict == Some(*of), *of as usize);
            let expected = if seen {
                u64::from(case.batch_packets)
            } else {
                0
            };
            let counted = after[index] - before[index];
            assert_eq!(
                counted,
                expected,
                "{}: {} packets were {}",
                case.id(),
                counted,
                of.label()
            );
        }
        self.run(case, Measured::Nothing, 2_000);
        let maker = self.run(case, Measured::Nothing, case.batch_packets);
        let noop = self.noop(case.hook.is_xdp(), NOOP_PACKETS);
        Sample {
            noop,
            maker,
            with_maker,
        }
    }
}

fn row(case: &Case, samples: &[Sample]) -> PacketRow {
    let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).unwrap_or_default();
    PacketRow {
        id: case.id(),
        words: case.words().to_owned(),
        hook: case.hook.name().to_owned(),
        family: case.family.pick("v4", "v6").to_owned(),
        flows_count: case.flows_count,
        batch_packets: case.batch_packets,
        with_maker_ns: spread(|sample| sample.with_maker),
        maker_ns: spread(|sample| sample.maker),
        ns: spread(|sample| sample.with_maker - sample.maker + sample.noop),
        target_ns: case.target_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_evict_come_last_and_others_keep_their_order() {
        let cases = all();
        let order = order(&cases);
        let kinds: Vec<Kind> = order.iter().map(|nth| cases[*nth].kind).collect();
        let from = |kind| kinds.iter().position(|one| *one == kind);
        assert_eq!(order[0], 0);
        assert!(from(Kind::Reply) < from(Kind::New));
        assert_eq!(kinds[kinds.len() - 4..], [Kind::NewEvicting; 4]);
    }

    #[test]
    fn a_row_is_the_difference_of_the_same_round_and_the_harness() {
        let case = floor_case(1_000);
        let sample = |noop, maker, with_maker| Sample {
            noop,
            maker,
            with_maker,
        };
        // The second round ran on a machine half as fast.
        let row = row(
            &case,
            &[sample(13.0, 25.0, 95.0), sample(26.0, 50.0, 190.0)],
        );
        assert_eq!((row.ns.min, row.ns.max), (83.0, 166.0));
        assert_eq!((row.maker_ns.min, row.with_maker_ns.max), (25.0, 190.0));
        assert_eq!(row.id, "established/xdp/v4/1000");
    }
}
