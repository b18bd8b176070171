//! A script: what happens in order, and the counters at its end.

use std::collections::BTreeMap;

use shifter_common::{
    steering::Slot,
    verdict::{Action, Verdict},
};
use shifter_daemon::dataplane::{Dataplane as _, ServicePlan};
use shifter_tests::packet::{Packet, describe, difference};

use crate::kernel::{Hook, Kernel};

/// One thing that happens.
#[derive(Clone)]
pub enum Step {
    /// A packet comes in by the interface: input, verdict, output. No output: it is unchanged, or
    /// dropped.
    In(Packet, Verdict, Option<Packet>),
    /// A backend's answer comes in by the interface.
    Back(Packet, Verdict, Option<Packet>),
    /// A packet leaves by the interface.
    Out(Packet, Verdict, Option<Packet>),
    /// Raw bytes come in, and pass unchanged.
    Raw(Vec<u8>, Verdict),
    /// The daemon puts another plan in force.
    Publish(ServicePlan),
    /// Nothing happens for so long that the kernel calls it silence.
    Silence,
    /// The flow tables grow older by so many seconds.
    Age(u32),
    /// An operator resets the live flows of a slot; this many.
    Reset(Slot, u64),
}

/// A named script.
#[derive(Clone)]
pub struct Script {
    pub name: &'static str,
    pub plan: ServicePlan,
    pub steps: Vec<Step>,
    /// Every counter of the service that is not zero at the end, apart from `bytes_*`, which are
    /// computed from the packets.
    pub counters: &'static [(&'static str, u64)],
}

impl Script {
    pub fn expects(&self, wanted: Verdict) -> bool {
        self.steps.iter().any(|step| match step {
            Step::In(_, verdict, _)
            | Step::Back(_, verdict, _)
            | Step::Out(_, verdict, _)
            | Step::Raw(_, verdict) => *verdict == wanted,
            Step::Publish(_) | Step::Reset(..) | Step::Silence | Step::Age(_) => false,
        })
    }

    /// What differs from the expectation; empty if nothing does.
    fn run(&self, kernel: &mut Kernel, hook: Hook) -> Vec<String> {
        kernel.wipe();
        kernel.publish(&self.plan);
        let mut faults = Vec::new();
        let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            let place = format!("{} ({hook:?}), step {}", self.name, number + 1);
            let (ran, input, verdict, output) = match step {
                Step::In(packet, verdict, output) | Step::Back(packet, verdict, output) => {
                    let input = packet.build();
                    (kernel.ingress(&input), input, verdict, output)
                }
                Step::Out(packet, verdict, output) => {
                    let input = packet.build();
                    (kernel.egress(&input), input, verdict, output)
                }
                Step::Raw(bytes, verdict) => (kernel.ingress(bytes), bytes.clone(), verdict, &None),
                Step::Publish(plan) => {
                    kernel.publish(plan);
                    continue;
                }
                Step::Age(time_s) => {
                    kernel.age_flows(*time_s);
                    continue;
                }
                Step::Silence => {
                    // Three ticks of 2^30 ns.
                    std::thread::sleep(std::time::Duration::from_millis(3_300));
                    continue;
                }
                Step::Reset(slot, expected) => {
                    let count = kernel
                        .dataplane()
                        .flow_table()
                        .reset(&self.plan.name, *slot);
                    let count = count.expect("the kernel resets");
                    if count != *expected {
                        faults.push(format!(
                            "{place}: {count} flows reset instead of {expected}"
                        ));
                    }
                    continue;
                }
            };
            *verdicts.entry(*verdict).or_default() += 1;
            if ran.verdict != *verdict {
                faults.push(format!(
                    "{place}: {:?} instead of {verdict:?} for {}",
                    ran.verdict,
                    describe(&input)
                ));
                continue;
            }
            if verdict.action() == Action::Drop {
                continue;
            }
            let expected = output.as_ref().map_or_else(|| input.clone(), Packet::build);
            if let Some(difference) = difference(&expected, &ran.bytes) {
                faults.push(format!("{place}: {difference}"));
            }
        }
        faults.extend(self.compare_counters(kernel, &verdicts, hook));
        faults
    }

    fn compare_counters(
        &self,
        kernel: &Kernel,
        expected_verdicts: &BTreeMap<Verdict, u64>,
        hook: Hook,
    ) -> Option<String> {
        for (verdict, count) in Verdict::ALL.iter().zip(kernel.verdicts()) {
            let expected = expected_verdicts.get(verdict).copied().unwrap_or(0);
            if count != expected {
                return Some(format!(
                    "{} ({hook:?}): counter {} is {count} instead of {expected}",
                    self.name,
                    verdict.label()
                ));
            }
        }
        let mut counted = kernel.counters(&self.plan.name);
        let (bytes, steered) = self.bytes();
        let sum = |suffix: &str| -> u64 {
            counted
                .iter()
                .filter(|(name, _)| name.ends_with(suffix))
                .map(|(_, n)| n)
                .sum()
        };
        if (sum("bytes_in"), sum("bytes_out")) != (bytes, steered) {
            return Some(format!(
                "{} ({hook:?}): bytes {} in and {} out instead of {bytes} and {steered}",
                self.name,
                sum("bytes_in"),
                sum("bytes_out"),
            ));
        }
        counted.retain(|name, _| !name.contains("bytes_"));
        let expected: BTreeMap<String, u64> = self
            .counters
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        (counted != expected).then(|| {
            format!(
                "{} ({hook:?}): counters {counted:#?} instead of {expected:#?}",
                self.name
            )
        })
    }

    /// Bytes of the packets steered in and out.
    fn bytes(&self) -> (u64, u64) {
        let mut sums = (0, 0);
        for step in &self.steps {
            match step {
                Step::In(
                    packet,
                    Verdict::SteeredNew
                    | Verdict::SteeredFlow
                    | Verdict::SteeredReset
                    | Verdict::SteeredError
                    | Verdict::SteeredTurned,
                    _,
                ) => {
                    sums.0 += packet.build().len() as u64;
                }
                Step::Back(packet, Verdict::SteeredTurned, _)
                | Step::Out(
                    packet,
                    Verdict::SteeredReply | Verdict::SteeredReset | Verdict::SteeredErrorReply,
                    _,
                ) => {
                    sums.1 += packet.build().len() as u64;
                }
                _ => {}
            }
        }
        sums
    }
}

/// Runs all scripts and reports every fault of every one of them.
pub fn run_all(scripts: &[Script], hook: Hook) {
    let mut kernel = Kernel::new(hook);
    let faults: Vec<String> = scripts
        .iter()
        .flat_map(|script| script.run(&mut kernel, hook))
        .collect();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
