//! A dataplane without a kernel, with failures on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use shifter_common::{
    steering::{Slot, SteeringWord},
    verdict::Verdict,
    wire::InterfaceStatus,
};

use super::{
    Census, Dataplane, DataplaneError, FlowTable, ListedFlow, Publication, PublishedService,
    ServicePlan, ServiceReading,
};

/// What the fake holds; shared, so that a test can look at it while a driver owns the dataplane.
#[derive(Debug, Default)]
pub struct MemoryState {
    /// Plans in force by service.
    pub plans: BTreeMap<String, ServicePlan>,
    /// Steering words by service.
    pub words: BTreeMap<String, SteeringWord>,
    /// Every plan published, in order.
    pub history: Vec<ServicePlan>,
    /// Fails the next publications with this text.
    pub fail_publish: Option<String>,
    /// Live flows by service and slot.
    pub live: BTreeMap<(String, Slot), u64>,
    /// Whether the programs were taken off.
    pub is_detached: bool,
}

/// A dataplane in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDataplane {
    /// What it holds.
    pub state: Arc<Mutex<MemoryState>>,
}

impl MemoryDataplane {
    fn with<T>(&self, act: impl FnOnce(&mut MemoryState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Dataplane for MemoryDataplane {
    fn published(&self) -> Result<Vec<PublishedService>, DataplaneError> {
        Ok(self.with(|state| {
            state
                .plans
                .iter()
                .map(|(name, plan)| PublishedService {
                    name: name.clone(),
                    word: state.words.get(name).copied().unwrap_or_default(),
                    vips: plan.vips.clone(),
                    ready: Slot::ALL
                        .into_iter()
                        .flat_map(|slot| plan.slot(slot).backends.iter().map(move |b| (slot, b)))
                        .filter(|(_, backend)| backend.ready)
                        .map(|(slot, backend)| (slot, backend.addr))
                        .collect(),
                })
                .collect()
        }))
    }

    fn publish(&mut self, plan: &ServicePlan) -> Result<Publication, DataplaneError> {
        self.with(|state| {
            if let Some(text) = &state.fail_publish {
                return Err(DataplaneError::Refused(text.clone()));
            }
            let old = state.words.get(&plan.name).copied().unwrap_or_default();
            let mut word = old
                .with_weight_bp(plan.weight_bp)
                .with_baseline(plan.baseline)
                .with_affinity(plan.affinity);
            for slot in Slot::ALL {
                word = word.with_eligible(slot, plan.slot(slot).eligible);
            }
            let has_changed = word != old || state.plans.get(&plan.name) != Some(plan);
            if has_changed {
                word = word.with_generation(old.generation().wrapping_add(1));
            }
            state.words.insert(plan.name.clone(), word);
            state.plans.insert(plan.name.clone(), plan.clone());
            state.history.push(plan.clone());
            Ok(Publication {
                word,
                stored_at: has_changed.then(Instant::now),
            })
        })
    }

    fn read(&self, _service: &str) -> Result<ServiceReading, DataplaneError> {
        Ok(ServiceReading::default())
    }

    fn verdicts(&self) -> Result<Vec<u64>, DataplaneError> {
        Ok(vec![0; Verdict::COUNT as usize])
    }

    fn flow_table(&self) -> Arc<dyn FlowTable> {
        Arc::new(self.clone())
    }

    fn retire(&mut self, _census: &Census) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        Vec::new()
    }

    fn pins(&self) -> String {
        "memory".into()
    }

    fn was_adopted(&self) -> bool {
        self.with(|state| !state.plans.is_empty())
    }

    fn detach(&mut self) -> Result<Vec<String>, DataplaneError> {
        self.with(|state| state.is_detached = true);
        Ok(Vec::new())
    }
}

impl FlowTable for MemoryDataplane {
    fn sweep(&self) -> Result<Census, DataplaneError> {
        let entries_count = self.with(|state| state.live.values().sum());
        // Without backend indexes the flows cannot be told apart further than by their number.
        let live = std::collections::HashMap::from([(0, entries_count)]);
        Ok(Census {
            entries_count,
            live,
            ..Census::default()
        })
    }

    fn flows(&self, _service: &str) -> Result<Vec<ListedFlow>, DataplaneError> {
        Ok(Vec::new())
    }

    fn reset(&self, service: &str, slot: Slot) -> Result<u64, DataplaneError> {
        Ok(self.with(|state| state.live.remove(&(service.to_owned(), slot)).unwrap_or(0)))
    }

    fn reset_again(&self, _service: &str, _slot: Slot) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn capacity_count(&self) -> u64 {
        1
    }
}
