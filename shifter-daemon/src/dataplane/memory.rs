//! A dataplane without a kernel, with failures on demand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use shifter_common::{
    abi::{BackendCounters, SlotCounters},
    steering::{Slot, SteeringWord},
    verdict::Verdict,
    wire::InterfaceStatus,
};

use super::{
    BackendReading, Bypass, Census, Dataplane, DataplaneError, FlowTable, HostView, ListedFlow,
    ListenerReading, ListenerView, LostPath, PlanePlan, Publication, PublishedService, ServicePlan,
    ServiceReading,
};
use crate::model::Plane;

/// Names one backend in one slot of a service.
pub type BackendKey = (String, Slot, SocketAddr);

/// Called before a plan is published; an error is the dataplane's refusal.
pub type OnPublish = Box<dyn FnMut(&ServicePlan) -> Result<(), String> + Send>;

/// What can fail on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`Dataplane::published`]
    Published,
    /// [`Dataplane::read`]
    Read,
    /// [`Dataplane::verdicts`]
    Verdicts,
    /// [`Dataplane::lookups`]
    Lookups,
    /// [`Dataplane::listeners`]
    Listeners,
    /// [`Dataplane::retire`]
    Retire,
    /// [`Dataplane::bypass`]
    Bypass,
    /// [`Dataplane::detach`]
    Detach,
    /// [`FlowTable::sweep`] and [`FlowTable::census`]
    Sweep,
    /// [`FlowTable::flows`]
    Flows,
    /// [`FlowTable::reset`]
    Reset,
    /// [`FlowTable::reset_again`]
    ResetAgain,
}

/// What the fake holds; shared, so that a test can look at it while a driver owns the dataplane.
#[derive(Default)]
pub struct MemoryState {
    /// Plans in force by service.
    pub plans: BTreeMap<String, ServicePlan>,
    /// Steering words by service.
    pub words: BTreeMap<String, SteeringWord>,
    /// Every plan published, in order.
    pub history: Vec<ServicePlan>,
    /// Every backend there ever was; the place is its index.
    pub backends: Vec<BackendKey>,
    /// Counters; zero unless set.
    pub counters: BTreeMap<BackendKey, BackendCounters>,
    /// Addresses of the host, which choose the plane.
    pub local: std::collections::BTreeSet<std::net::IpAddr>,
    /// Addresses that the host was given.
    pub held: std::collections::BTreeSet<std::net::IpAddr>,
    /// Why the socket plane cannot be had, if it cannot.
    pub socket_plane_lacks: Option<String>,
    /// What listens, by address. Whoever is not named here is captured, in epoch 1.
    pub listeners: BTreeMap<SocketAddr, ListenerView>,
    /// Live flows.
    pub live: BTreeMap<BackendKey, u64>,
    /// What [`FlowTable::flows`] lists, by service.
    pub flows: BTreeMap<String, Vec<ListedFlow>>,
    /// Slots whose flows were reset, in order.
    pub resets: Vec<(String, Slot)>,
    /// Slots whose silent flows were reset, in order.
    pub idle_resets: Vec<(String, Slot)>,
    /// Live flows that are silent.
    pub silent: BTreeMap<BackendKey, u64>,
    /// Slots whose flows were reset again, in order.
    pub resets_again: Vec<(String, Slot)>,
    /// How often something was to be retired.
    pub retired_count: u64,
    /// Looks at each plan first and may refuse it.
    pub on_publish: Option<OnPublish>,
    /// What fails, with which text.
    pub failing: BTreeMap<Operation, String>,
    /// Whether there was something to take over.
    pub was_adopted: bool,
    /// What [`Dataplane::lost_paths`] says.
    pub lost_paths: Vec<LostPath>,
    /// Ways around it in force.
    pub ways: Vec<Bypass>,
    /// Whether the programs were taken off.
    pub is_detached: bool,
}

/// A dataplane in memory.
#[derive(Clone, Default)]
pub struct MemoryDataplane {
    /// What it holds.
    pub state: Arc<Mutex<MemoryState>>,
}

impl MemoryDataplane {
    /// Looks at the state, or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut MemoryState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn attempt<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut MemoryState) -> T,
    ) -> Result<T, DataplaneError> {
        self.with(|state| match state.failing.get(&operation) {
            Some(text) => Err(DataplaneError::Refused(text.clone())),
            None => Ok(act(state)),
        })
    }
}

impl MemoryState {
    /// The sum of a slot's backends.
    fn slot_counters(&self, service: &str, slot: Slot) -> SlotCounters {
        let mut sum = SlotCounters::default();
        let of_slot = self.counters.iter();
        for (_, counters) in of_slot.filter(|((name, of, _), _)| name == service && *of == slot) {
            let (flows, more) = (&mut sum.flows, &counters.flows);
            flows.selected += more.selected;
            flows.established += more.established;
            flows.refused += more.refused;
            flows.closed += more.closed;
            flows.reset_by_client += more.reset_by_client;
            flows.reset_by_backend += more.reset_by_backend;
            flows.unanswered += more.unanswered;
        }
        sum
    }

    fn published(&self, name: &str, plan: &ServicePlan) -> PublishedService {
        let of_slot = |slot| {
            plan.slot(slot)
                .backends
                .iter()
                .map(move |backend| (slot, backend))
        };
        PublishedService {
            name: name.to_owned(),
            word: self.words.get(name).copied().unwrap_or_default(),
            vips: plan.vips.clone(),
            protocol: plan.protocol,
            on_empty: plan.on_empty,
            on_full: match &plan.plane {
                PlanePlan::Nat => Default::default(),
                PlanePlan::Socket(socket) => socket.on_full,
            },
            targets: plan.targets.clone(),
            observe: plan.observe,
            plane: match plan.plane {
                PlanePlan::Nat => Plane::Nat,
                PlanePlan::Socket(_) => Plane::Socket,
            },
            ready: Slot::ALL
                .into_iter()
                .flat_map(of_slot)
                .filter(|(_, backend)| backend.ready)
                .map(|(slot, backend)| (slot, backend.addr))
                .collect(),
            version_ids: Slot::ALL.map(|slot| {
                let planned = plan.slot(slot);
                (!planned.backends.is_empty()).then_some(planned.version_id)
            }),
        }
    }

    fn publish(&mut self, plan: &ServicePlan) -> Publication {
        let old = self.words.get(&plan.name).copied().unwrap_or_default();
        let mut word = plan.steer(old);
        // Whether a trip is to be forgotten is no state; the word tells what became of it.
        let kept = ServicePlan {
            rearms: false,
            latches: false,
            ..plan.clone()
        };
        let has_changed = word != old || self.plans.get(&plan.name) != Some(&kept);
        if has_changed {
            word = word.with_generation(old.generation().wrapping_add(1));
        }
        for slot in Slot::ALL {
            for backend in &plan.slot(slot).backends {
                let key = (plan.name.clone(), slot, backend.addr);
                if !self.backends.contains(&key) {
                    self.backends.push(key);
                }
            }
        }
        self.words.insert(plan.name.clone(), word);
        self.plans.insert(plan.name.clone(), kept);
        self.history.push(plan.clone());
        Publication {
            word,
            stored_at: has_changed.then(Instant::now),
        }
    }
}

impl Dataplane for MemoryDataplane {
    fn published(&self) -> Result<Vec<PublishedService>, DataplaneError> {
        self.attempt(Operation::Published, |state| {
            state
                .plans
                .iter()
                .map(|(name, plan)| state.published(name, plan))
                .collect()
        })
    }

    fn publish(&mut self, plan: &ServicePlan) -> Result<Publication, DataplaneError> {
        self.with(|state| {
            if let Some(on_publish) = &mut state.on_publish {
                on_publish(plan).map_err(DataplaneError::Refused)?;
            }
            Ok(state.publish(plan))
        })
    }

    fn host_view(&self) -> HostView {
        self.with(|state| HostView {
            local: state.local.clone(),
            socket_plane: state.socket_plane_lacks.clone().map_or(Ok(()), Err),
        })
    }

    fn listeners(&mut self, plan: &ServicePlan) -> Result<Vec<ListenerReading>, DataplaneError> {
        if plan.plane == PlanePlan::Nat {
            return Ok(Vec::new());
        }
        self.attempt(Operation::Listeners, |state| {
            let of_slot = |slot| plan.slot(slot).backends.iter().map(move |b| (slot, b.addr));
            let readings = Slot::ALL.into_iter().flat_map(of_slot);
            readings
                .map(|(slot, addr)| ListenerReading {
                    slot,
                    addr,
                    view: state.listeners.get(&addr).cloned().unwrap_or(ListenerView {
                        is_captured: true,
                        epoch: 1,
                        ..ListenerView::default()
                    }),
                })
                .collect()
        })
    }

    fn read(&self, service: &str) -> Result<ServiceReading, DataplaneError> {
        self.attempt(Operation::Read, |state| ServiceReading {
            slots: Slot::ALL.map(|slot| state.slot_counters(service, slot)),
            backends: (0..)
                .zip(&state.backends)
                .filter(|(_, (name, ..))| name == service)
                .map(|(index, &(_, slot, addr))| BackendReading {
                    index,
                    slot,
                    addr,
                    counters: state
                        .counters
                        .get(&(service.to_owned(), slot, addr))
                        .copied()
                        .unwrap_or_default(),
                })
                .collect(),
            ..ServiceReading::default()
        })
    }

    fn tripped(&self) -> Vec<(String, SteeringWord)> {
        self.with(|state| {
            let words = state.words.iter().filter(|(_, word)| word.tripped());
            words.map(|(name, word)| (name.clone(), *word)).collect()
        })
    }

    fn verdicts(&self) -> Result<Vec<u64>, DataplaneError> {
        self.attempt(Operation::Verdicts, |_| vec![0; Verdict::COUNT as usize])
    }

    fn lookups(&self) -> Result<Vec<u64>, DataplaneError> {
        self.attempt(Operation::Lookups, |_| {
            vec![0; shifter_common::socket::LookupVerdict::COUNT as usize]
        })
    }

    fn flow_table(&self) -> Arc<dyn FlowTable> {
        Arc::new(self.clone())
    }

    fn retire(&mut self, _census: &Census) -> Result<(), DataplaneError> {
        self.attempt(Operation::Retire, |state| state.retired_count += 1)
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        Vec::new()
    }

    fn pins(&self) -> String {
        "memory".into()
    }

    fn was_adopted(&self) -> bool {
        self.with(|state| state.was_adopted)
    }

    fn lost_paths(&self) -> Vec<LostPath> {
        self.with(|state| state.lost_paths.clone())
    }

    fn held_vips(&self) -> Result<std::collections::BTreeSet<std::net::IpAddr>, DataplaneError> {
        Ok(self.with(|state| state.held.clone()))
    }

    fn hold_vips(
        &mut self,
        wanted: &std::collections::BTreeSet<std::net::IpAddr>,
        kept: &std::collections::BTreeSet<std::net::IpAddr>,
    ) -> Result<(), DataplaneError> {
        self.with(|state| {
            let MemoryState { held, local, .. } = state;
            held.retain(|ip| wanted.contains(ip) || kept.contains(ip));
            held.extend(wanted.iter().filter(|ip| !local.contains(ip)));
        });
        Ok(())
    }

    fn bypass(&mut self, ways: &[Bypass]) -> Result<(), DataplaneError> {
        self.attempt(Operation::Bypass, |state| state.ways = ways.to_vec())
    }

    fn expect_bypass(&mut self, _services: Vec<String>) {}

    fn detach(&mut self) -> Result<Vec<String>, DataplaneError> {
        self.attempt(Operation::Detach, |state| {
            state.is_detached = true;
            vec!["memory0".into()]
        })
    }
}

impl FlowTable for MemoryDataplane {
    fn sweep(&self) -> Result<Census, DataplaneError> {
        self.census()
    }

    fn census(&self) -> Result<Census, DataplaneError> {
        self.attempt(Operation::Sweep, |state| {
            let live = (0..)
                .zip(&state.backends)
                .filter_map(|(index, key)| Some((index, *state.live.get(key)?)))
                .collect();
            let flows_count = state.live.values().sum();
            Census {
                flows_count,
                live,
                ..Census::default()
            }
        })
    }

    fn flows(&self, service: &str) -> Result<Vec<ListedFlow>, DataplaneError> {
        self.attempt(Operation::Flows, |state| {
            state.flows.get(service).cloned().unwrap_or_default()
        })
    }

    fn reset(&self, service: &str, slot: Slot) -> Result<u64, DataplaneError> {
        self.attempt(Operation::Reset, |state| {
            state.resets.push((service.to_owned(), slot));
            let mut count = 0;
            state.live.retain(|(name, of, _), live| {
                let is_meant = name == service && *of == slot;
                count += if is_meant { *live } else { 0 };
                !is_meant
            });
            count
        })
    }

    fn reset_idle(
        &self,
        service: &str,
        slot: Slot,
        _silence: std::time::Duration,
    ) -> Result<u64, DataplaneError> {
        self.attempt(Operation::Reset, |state| {
            state.idle_resets.push((service.to_owned(), slot));
            let mut count = 0;
            let MemoryState { live, silent, .. } = state;
            silent.retain(|key, silent| {
                let is_meant = key.0 == service && key.1 == slot;
                if is_meant {
                    count += *silent;
                    if let Some(live) = live.get_mut(key) {
                        *live = live.saturating_sub(*silent);
                    }
                }
                !is_meant
            });
            count
        })
    }

    fn reset_again(&self, service: &str, slot: Slot) -> Result<(), DataplaneError> {
        self.attempt(Operation::ResetAgain, |state| {
            state.resets_again.push((service.to_owned(), slot));
        })
    }

    fn capacity_count(&self) -> u64 {
        1_000
    }

    fn pending_capacity_count(&self) -> u64 {
        500
    }
}
