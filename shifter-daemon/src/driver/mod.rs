//! The one loop that turns the outside world into events and effects into calls.

mod commands;
mod events;
mod handle;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shifter_common::{steering::Slot, wire::Event};
use tokio::sync::mpsc;

pub use self::{commands::describe, handle::*};
use self::events::Events;
use crate::{
    config::LoadedServices,
    config_files,
    control::{BackendHealth, PublishedService, ServiceControl},
    dataplane::{Census, Dataplane, DataplaneError},
    model::NodeSpec,
    probe::{ProbeEvent, Prober, Target, TargetKey},
    state::StateFile,
};

/// Time between two sweeps of the flow tables.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Results of probes that are taken before anything else gets its turn.
const PROBES_AT_ONCE_COUNT: usize = 4_096;

/// Who acts when nobody asked.
const SHIFTERD: &str = "shifterd";

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The handles are gone.
    Closed,
    /// An operator detached the packet path: there is nothing left to do.
    Detached,
}

/// All services and everything that acts on them.
pub struct Driver {
    node: NodeSpec,
    node_file: PathBuf,
    dataplane: Box<dyn Dataplane>,
    services: BTreeMap<String, ServiceControl>,
    state: StateFile,
    prober: Prober,
    events: Events,
    /// Services whose last publication failed; tried again at each tick.
    unpublished: BTreeSet<String>,
    /// Generation in force by service.
    words: BTreeMap<String, shifter_common::steering::SteeringWord>,
    started_unix_ms: u64,
    is_detached: bool,
}

/// A sweep's result on its way back to the loop.
type Swept = Result<Census, DataplaneError>;

impl Driver {
    /// Takes over what the packet path holds, reads the service files and puts them in force.
    ///
    /// # Errors
    /// If the packet path does not answer.
    pub fn start(
        node: NodeSpec,
        node_file: PathBuf,
        dataplane: Box<dyn Dataplane>,
        state: StateFile,
        prober: Prober,
    ) -> Result<Self, DataplaneError> {
        let mut this = Self {
            node,
            node_file,
            dataplane,
            services: BTreeMap::new(),
            state,
            prober,
            events: Events::default(),
            unpublished: BTreeSet::new(),
            words: BTreeMap::new(),
            started_unix_ms: unix_ms(),
            is_detached: false,
        };
        let loaded = config_files::load_services(&this.node.services_dir);
        this.adopt(loaded)?;
        let names: Vec<String> = this.services.keys().cloned().collect();
        for name in names {
            this.publish(&name);
        }
        this.update_probes();
        Ok(this)
    }

    /// Joins files, recorded decisions and what the kernel holds.
    fn adopt(&mut self, mut loaded: LoadedServices) -> Result<(), DataplaneError> {
        let published: BTreeMap<String, PublishedService> =
            self.dataplane.published()?.into_iter().map(|p| (p.name.clone(), p)).collect();
        let orphans: BTreeMap<String, ServiceControl> = published
            .iter()
            .filter(|(name, _)| !loaded.services.contains_key(*name))
            .map(|(name, published)| {
                let reason = lost_file_reason(&loaded, name).to_owned();
                let record = self.state.service(name).cloned();
                (name.clone(), ServiceControl::orphan(published, record, reason))
            })
            .collect();
        loaded.keep(&orphans.iter().map(|(name, c)| (name.clone(), c.spec().clone())).collect());
        for diagnostic in &loaded.diagnostics {
            tracing::error!("{diagnostic}");
        }
        self.services.extend(orphans);
        for (name, spec) in loaded.services {
            let record = self.state.service(&name).cloned();
            let control = ServiceControl::new(spec, record, published.get(&name));
            self.services.insert(name, control);
        }
        for (name, published) in &published {
            self.words.insert(name.clone(), published.word);
            let effective = self.services.get(name).map_or(0, ServiceControl::effective_bp);
            self.record(name, SHIFTERD, "adopted", None, (effective, effective), 0, format!(
                "found pinned with generation {}",
                published.word.generation()
            ));
        }
        Ok(())
    }

    /// Runs until the handles are gone or an operator detaches.
    pub async fn run(
        mut self,
        mut calls: mpsc::Receiver<Call>,
        mut probes: mpsc::Receiver<ProbeEvent>,
    ) -> Ended {
        let (swept_tx, mut swept) = mpsc::channel::<Swept>(1);
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // A backend that fails goes before everything an operator may ask.
                biased;
                Some(event) = probes.recv() => {
                    self.handle_probes(event, &mut probes);
                    // However many probes speak, an operator gets a word in between.
                    if let Ok(call) = calls.try_recv() {
                        self.handle_call(call);
                    }
                }
                call = calls.recv() => match call {
                    Some(call) => self.handle_call(call),
                    None => return Ended::Closed,
                },
                Some(census) = swept.recv() => self.handle_swept(census),
                _ = tick.tick() => {
                    self.retry();
                    let (table, swept) = (self.dataplane.flow_table(), swept_tx.clone());
                    tokio::task::spawn_blocking(move || {
                        // A sweep that finds the last one's result still unread is dropped.
                        let _ = swept.try_send(table.sweep());
                    });
                }
            }
            if self.is_detached {
                return Ended::Detached;
            }
        }
    }

    /// Takes all results that are there, then publishes each service they concern once: a thousand
    /// backends that become ready together make one table, not a thousand.
    fn handle_probes(&mut self, first: ProbeEvent, probes: &mut mpsc::Receiver<ProbeEvent>) {
        let mut news: BTreeMap<String, (u16, Vec<ProbeEvent>)> = BTreeMap::new();
        let mut event = first;
        for taken in 1.. {
            let name = event.key.service.clone();
            let before = self.services.get(&name).map_or(0, ServiceControl::effective_bp);
            if self.note_probe(&event) {
                news.entry(name).or_insert((before, Vec::new())).1.push(event);
            }
            if taken == PROBES_AT_ONCE_COUNT {
                break;
            }
            match probes.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
        for (name, (before, events)) in news {
            let stored_at = self.publish(&name);
            let after = self.services.get(&name).map_or(0, ServiceControl::effective_bp);
            for event in events {
                let took = stored_at.map_or(Duration::ZERO, |at| {
                    at.checked_duration_since(event.caused_at).unwrap_or(Duration::ZERO)
                });
                let TargetKey { slot, addr, .. } = event.key;
                let (what, detail) = if event.ready {
                    ("ready", format!("slot {slot}: {addr} is ready"))
                } else {
                    ("not ready", format!("slot {slot}: {addr} {}", event.reason))
                };
                let effective = (before, after);
                self.record(&name, SHIFTERD, what, Some(slot), effective, nanos(took), detail);
            }
        }
    }

    /// Notes what a probe found. Says whether that is news: another reason for the same state is
    /// not, nor is the last word of a backend that was taken out meanwhile.
    fn note_probe(&mut self, event: &ProbeEvent) -> bool {
        let TargetKey { service, slot, addr } = &event.key;
        let Some(control) = self.services.get_mut(service) else { return false };
        if !control.backends().contains(&(*slot, *addr)) {
            return false;
        }
        let known = control.health(*slot, *addr);
        let health = if event.ready {
            BackendHealth::ready()
        } else {
            BackendHealth::not_ready(event.reason.clone())
        };
        let is_news = known.ready != health.ready || !known.is_known;
        control.set_health(*slot, *addr, health);
        is_news
    }

    /// Publishes a service's plan. Gives when the kernel could first read a change.
    fn publish(&mut self, name: &str) -> Option<Instant> {
        let plan = self.services.get(name)?.plan();
        match self.dataplane.publish(&plan) {
            Ok(publication) => {
                self.unpublished.remove(name);
                self.words.insert(name.to_owned(), publication.word);
                publication.stored_at
            }
            Err(error) => {
                tracing::error!(service = name, "cannot put {name} in force: {error}");
                self.unpublished.insert(name.to_owned());
                None
            }
        }
    }

    fn retry(&mut self) {
        for name in std::mem::take(&mut self.unpublished) {
            self.publish(&name);
        }
    }

    fn handle_swept(&mut self, census: Swept) {
        let retired = census.and_then(|census| self.dataplane.retire(&census));
        if let Err(error) = retired {
            tracing::error!("sweeping the flow tables: {error}");
        }
    }

    /// Tells the prober which backends there are.
    fn update_probes(&mut self) {
        let mut targets = BTreeMap::new();
        for (name, control) in &self.services {
            for (slot, addr) in control.backends() {
                let key = TargetKey { service: name.clone(), slot, addr };
                let target = Target {
                    spec: control.spec().readiness.clone(),
                    initially_ready: control.health(slot, addr).ready,
                };
                targets.insert(key, target);
            }
        }
        self.prober.update(targets);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one row of the event table; a struct would name each field twice"
    )]
    fn record(
        &mut self,
        service: &str,
        by: &str,
        what: &str,
        slot: Option<Slot>,
        (effective_before_bp, effective_after_bp): (u16, u16),
        took_ns: u64,
        detail: String,
    ) {
        self.events.record(Event {
            seq: 0,
            unix_ms: unix_ms(),
            service: service.to_owned(),
            by: by.to_owned(),
            what: what.to_owned(),
            slot,
            detail,
            effective_before_bp,
            effective_after_bp,
            took_ns,
        });
    }

    fn flow_table(&self) -> Arc<dyn crate::dataplane::FlowTable> {
        self.dataplane.flow_table()
    }
}

/// Why a service that is in force has no good file.
fn lost_file_reason(loaded: &LoadedServices, name: &str) -> &'static str {
    if !loaded.dir_read {
        "the directory of its file cannot be read"
    } else if loaded.refused.contains(name) {
        "its file has errors"
    } else {
        "its file is gone"
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
