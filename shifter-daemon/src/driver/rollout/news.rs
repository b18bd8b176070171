//! Flows that rollouts wait for.

use tokio::sync::mpsc;

use super::super::{Driver, sweep::Swept};
use crate::{
    dataplane::Census,
    rollout::{Event, PhaseKind, SlotFlows},
};

impl Driver {
    /// Counts flows now, if a rollout waits for some to end.
    pub(in super::super) fn count_for_rollouts(&self, swept: &mpsc::Sender<Swept>) {
        let is_wanted = self.rollouts.live.values().any(|live| {
            matches!(
                live.rollout.phase().kind(),
                PhaseKind::Pending | PhaseKind::Draining
            )
        });
        if is_wanted {
            self.begin_sweep(swept.clone());
        }
    }

    /// Tells the rollouts how many flows their versions have.
    pub(in super::super) fn tell_flows(&mut self, census: &Census) {
        let names: Vec<String> = self.rollouts.live.keys().cloned().collect();
        for name in names {
            let Some(flows) = self.flows_of(&name, census) else {
                continue;
            };
            let Some(live) = self.rollouts.live.get_mut(&name) else {
                continue;
            };
            if live.told_flows != flows || !live.rollout.phase().is_final() {
                live.told_flows = flows;
                self.tell_news(&name, Event::Flows(flows));
            }
        }
    }

    fn flows_of(&self, service: &str, census: &Census) -> Option<SlotFlows> {
        let canary = self.rollouts.live.get(service)?.rollout.parts().canary;
        let reading = match self.dataplane.read(service) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::error!(service, "counting its flows: {error}");
                return None;
            }
        };
        let count = |slot| -> u64 {
            let of_slot = reading.backends.iter().filter(|b| b.slot == slot);
            let count = |of: &std::collections::HashMap<u32, u64>, index| {
                of.get(index).copied().unwrap_or(0)
            };
            of_slot
                .map(|b| count(&census.live, &b.index) + count(&census.departed, &b.index))
                .sum()
        };
        Some(SlotFlows {
            canary_count: Some(count(canary)),
            baseline_count: Some(count(canary.other())),
        })
    }
}
