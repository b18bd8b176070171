//! One service: its file, its operators' decisions and its backends' health make one plan.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use shifter_common::{
    steering::{Slot, SteeringWord, WEIGHT_FULL_BP},
    wire::{ConfigChange, Role},
};

use super::{
    deviation::Deviation,
    health::BackendHealth,
    listener::{ListenerView, Relistened},
    outlier::{Decision, Ejector, Outcomes, Peer},
    plan::{PlanePlan, PublishedService, ServicePlan, SlotPlan, SocketPlan, serves},
    plane::{HostView, Steering, choose_plane},
    record::{Drained, ServiceRecord},
};
use crate::model::{
    BackendSpec, BreakerMode, BreakerSpec, OnEmpty, Plane, ProbeCheck, ProbeSpec, Readmit,
    ServiceSpec, SlotSpec, Target,
};

/// Who has set a weight of 0 when the kernel did.
pub const BREAKER: &str = "the breaker";

/// The wanted state of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceControl {
    spec: ServiceSpec,
    record: ServiceRecord,
    health: BTreeMap<(Slot, SocketAddr), BackendHealth>,
    /// The watch over each slot's backends.
    ejectors: [Ejector; 2],
    /// What listens for each backend; looked at on the socket plane only.
    listeners: BTreeMap<(Slot, SocketAddr), ListenerView>,
    /// The plane it is steered by, or why it can be by none.
    steering: Result<Steering, String>,
    /// The versions that have slots a and b; `None` for one that has no number yet.
    version_ids: [Option<u32>; 2],
    /// Whether a weight was given that is not in force yet: it forgets a trip.
    rearms: bool,
    /// Whether a rollout took its share back, and the latch is not in force yet.
    latches: bool,
    /// Whether a slot has been eligible since the service is known.
    has_served: bool,
    /// Why the service is not as its file says, if it is not.
    pub deviation: Option<Deviation>,
}

impl ServiceControl {
    /// A service from its file, with what is known from before: the recorded decisions, and the
    /// backends that the packet path holds ready. Records count more than what the packet path
    /// does, but for a weight of 0.
    pub fn new(
        spec: ServiceSpec,
        record: Option<ServiceRecord>,
        published: Option<&PublishedService>,
    ) -> Self {
        let mut record =
            record
                .or_else(|| published.map(recall))
                .unwrap_or_else(|| ServiceRecord {
                    baseline: spec.default_slot,
                    weight_bp: 0,
                    weight_by: String::new(),
                    weight_set_unix_ms: 0,
                    held: false,
                    drained: BTreeMap::new(),
                    bypassed: None,
                    versions: BTreeMap::new(),
                    batch: None,
                });
        if let Some(published) = published
            && was_taken_back(&record, published.word)
        {
            record = ServiceRecord {
                drained: record.drained,
                bypassed: record.bypassed,
                versions: record.versions,
                ..recall(published)
            };
        }
        // A record may have been edited by hand.
        record.weight_bp = record.weight_bp.min(WEIGHT_FULL_BP);
        let has_served =
            published.is_some_and(|p| Slot::ALL.into_iter().any(|slot| p.word.eligible(slot)));
        let steering = Ok(Steering {
            plane: match (spec.plane, published) {
                (Plane::Auto, Some(published)) => published.plane,
                (Plane::Auto, None) => Plane::Nat,
                (plane, _) => plane,
            },
            reason: "the host has not been looked at yet".into(),
        });
        let mut this = Self {
            spec,
            record,
            health: BTreeMap::new(),
            ejectors: Default::default(),
            listeners: BTreeMap::new(),
            steering,
            version_ids: published.map_or([None; 2], |published| published.version_ids),
            rearms: false,
            latches: false,
            has_served,
            deviation: None,
        };
        for (slot, backend) in this.backends() {
            let was_ready = published.is_some_and(|p| p.ready.contains(&(slot, backend)));
            let health = if was_ready {
                BackendHealth::ready()
            } else {
                this.first_health()
            };
            this.health.insert((slot, backend), health);
        }
        this.note_service();
        this
    }

    /// A service that the packet path holds but no good file describes, so that it can steer on as
    /// it is. What the packet path does not tell (backends that are not ready, shares of backends,
    /// the probe) is not known: each backend counts as ready from here on.
    pub fn orphan(
        published: &PublishedService,
        record: Option<ServiceRecord>,
        deviation: Deviation,
    ) -> Self {
        let mut slots = [SlotSpec::default(), SlotSpec::default()];
        for (slot, addr) in &published.ready {
            slots[slot.index() as usize].backends.push(BackendSpec {
                addr: *addr,
                weight: 100,
            });
        }
        let spec = ServiceSpec {
            name: published.name.clone(),
            vips: published.vips.clone(),
            protocol: published.protocol,
            plane: published.plane,
            affinity: published.word.affinity(),
            default_slot: published.word.baseline(),
            on_empty: published.on_empty,
            readmit: Readmit::Listen,
            on_full: published.on_full,
            observe: published.observe,
            // What the host was given stays: see the driver.
            manages_vips: false,
            slots,
            targets: published.targets.clone(),
            readiness: ProbeSpec {
                check: ProbeCheck::None,
                port: None,
                interval: std::time::Duration::from_secs(1),
                timeout: std::time::Duration::from_secs(1),
                success_threshold: 1,
                failure_threshold: 1,
            },
            outlier: None,
            // What it was is in the kernel's rules, and whether it is armed in the word.
            breaker: BreakerSpec {
                mode: if published.word.armed() {
                    BreakerMode::Armed
                } else {
                    BreakerMode::Off
                },
                ..BreakerSpec::default()
            },
            drain_timeout: std::time::Duration::from_secs(60),
            rollback_established: Default::default(),
            rollout: Default::default(),
        };
        let mut this = Self::new(spec, record, Some(published));
        this.deviation = Some(deviation);
        this
    }

    /// The service as its file describes it.
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// The operators' decisions.
    pub fn record(&self) -> &ServiceRecord {
        &self.record
    }

    /// Puts recorded decisions back, when a change could not be carried out.
    pub fn restore(&mut self, record: ServiceRecord) {
        self.record = record;
        self.rearms = false;
        self.latches = false;
        self.note_service();
    }

    /// The canary's slot.
    pub fn canary(&self) -> Slot {
        self.record.baseline.other()
    }

    /// A slot's part.
    pub fn role(&self, slot: Slot) -> Role {
        if slot == self.record.baseline {
            Role::Baseline
        } else {
            Role::Canary
        }
    }

    /// Every backend with its slot.
    pub fn backends(&self) -> Vec<(Slot, SocketAddr)> {
        Slot::ALL
            .into_iter()
            .flat_map(|slot| {
                self.spec
                    .slot(slot)
                    .backends
                    .iter()
                    .map(move |b| (slot, b.addr))
            })
            .collect()
    }

    /// Chooses the plane by what the host is like. To be called when the service is made and when
    /// its file or the host has changed. Says whether the choice is another.
    ///
    /// # Errors
    /// Why the service can be steered by no plane.
    pub fn choose_plane(&mut self, host: &HostView) -> Result<bool, String> {
        let steering = choose_plane(&self.spec, host);
        let is_other = match (&steering, &self.steering) {
            (Ok(new), Ok(old)) => new.plane != old.plane,
            (new, old) => new.is_ok() != old.is_ok(),
        };
        if is_other {
            self.listeners.clear();
        }
        self.steering = steering;
        self.note_service();
        match &self.steering {
            Ok(_) => Ok(is_other),
            Err(why) => Err(why.clone()),
        }
    }

    /// The plane the service is steered by and why, or why by none.
    pub fn steering(&self) -> Result<&Steering, &String> {
        self.steering.as_ref()
    }

    /// Whether new flows are given to listening sockets.
    pub fn is_on_socket_plane(&self) -> bool {
        matches!(&self.steering, Ok(steering) if steering.plane == Plane::Socket)
    }

    /// Notes what listens for a backend, and says what that brings. A backend that is not of this
    /// service is ignored. One that listens anew has to be found ready again, unless its file or the
    /// lack of a probe says otherwise.
    pub fn set_listener(&mut self, slot: Slot, addr: SocketAddr, view: ListenerView) -> Relistened {
        let key = (slot, addr);
        if !self.health.contains_key(&key) {
            return Relistened::No;
        }
        let mut news = view.since(self.listeners.get(&key));
        if news == Relistened::Anew {
            if self.readmits_on_listen() {
                news = Relistened::Changed;
            } else {
                let health = BackendHealth::not_ready("listens again and is not probed yet");
                self.health.insert(key, health);
            }
        }
        self.listeners.insert(key, view);
        self.note_service();
        news
    }

    /// What listens for a backend, if that is known.
    pub fn listener(&self, slot: Slot, addr: SocketAddr) -> Option<&ListenerView> {
        self.listeners.get(&(slot, addr))
    }

    fn readmits_on_listen(&self) -> bool {
        self.spec.readmit == Readmit::Listen || self.spec.readiness.check == ProbeCheck::None
    }

    /// Whether a backend takes new flows, by its probe and, on the socket plane, by its listeners.
    pub fn standing(&self, slot: Slot, addr: SocketAddr) -> Option<BackendHealth> {
        let health = self.health(slot, addr)?;
        if !self.is_on_socket_plane() {
            return Some(health.clone());
        }
        Some(match self.listeners.get(&(slot, addr)) {
            Some(view) => view.limit(health),
            None if health.ready => BackendHealth::not_ready("its listener is not captured yet"),
            None => health.clone(),
        })
    }

    /// A backend's health as probed; `None` if it is not of this service.
    pub fn health(&self, slot: Slot, addr: SocketAddr) -> Option<&BackendHealth> {
        self.health.get(&(slot, addr))
    }

    /// Notes what a probe found, and says whether that is news. A backend that is not of this
    /// service is ignored: its probe was under way when it was taken out.
    pub fn set_health(&mut self, slot: Slot, addr: SocketAddr, health: BackendHealth) -> bool {
        let Some(known) = self.health.get_mut(&(slot, addr)) else {
            return false;
        };
        let is_news = health.is_news_after(known);
        *known = health;
        self.note_service();
        is_news
    }

    /// Whether new flows may go to a backend: its probe lets it, and it is not ejected, unless
    /// nobody else of its family is left.
    pub fn takes_flows(&self, slot: Slot, addr: SocketAddr) -> bool {
        let is_ready = |addr| self.standing(slot, addr).is_some_and(|health| health.ready);
        let is_ejected = |addr| self.ejected_reason(slot, addr).is_some();
        let stands_in = |other: &BackendSpec| {
            other.addr != addr
                && other.addr.is_ipv6() == addr.is_ipv6()
                && other.weight > 0
                && is_ready(other.addr)
                && !is_ejected(other.addr)
        };
        is_ready(addr)
            && (!is_ejected(addr) || !self.spec.slot(slot).backends.iter().any(stands_in))
    }

    /// Why a backend is ejected; `None` if it is not.
    pub fn ejected_reason(&self, slot: Slot, addr: SocketAddr) -> Option<&str> {
        self.ejectors[slot.index() as usize].reason(addr)
    }

    /// Looks at what became of each backend's flows, and decides who gets no new ones for a while.
    pub fn look_for_outliers(
        &mut self,
        outcomes: impl Fn(Slot, SocketAddr) -> Outcomes,
        now: Instant,
    ) -> Vec<(Slot, Decision)> {
        let Some(spec) = self.spec.outlier.clone() else {
            return Vec::new();
        };
        let mut decisions = Vec::new();
        for slot in Slot::ALL {
            let backends = self.spec.slot(slot).backends.iter();
            let peers: Vec<Peer> = backends
                .filter(|backend| backend.weight > 0)
                .map(|backend| Peer {
                    addr: backend.addr,
                    ready: self.health(slot, backend.addr).is_some_and(|h| h.ready),
                    outcomes: outcomes(slot, backend.addr),
                })
                .collect();
            let ejector = &mut self.ejectors[slot.index() as usize];
            let decided = ejector.look(&spec, &peers, now);
            decisions.extend(decided.into_iter().map(|decision| (slot, decision)));
        }
        decisions
    }

    /// Takes a changed file over. Health of backends that stay is kept.
    pub fn respec(&mut self, spec: ServiceSpec) -> Vec<ConfigChange> {
        let changes = crate::config::diff(&self.spec, &spec);
        self.note_versions(&spec);
        self.spec = spec;
        let mut health = BTreeMap::new();
        for key in self.backends() {
            let known = self
                .health
                .remove(&key)
                .unwrap_or_else(|| self.first_health());
            health.insert(key, known);
        }
        self.health = health;
        if self.spec.outlier.is_none() {
            self.ejectors = Default::default();
        }
        self.listeners
            .retain(|key, _| self.health.contains_key(key));
        self.deviation = None;
        self.note_service();
        changes
    }

    /// Health of a backend before its first probe.
    fn first_health(&self) -> BackendHealth {
        match self.spec.readiness.check {
            ProbeCheck::None => BackendHealth::ready(),
            ProbeCheck::Tcp | ProbeCheck::Http { .. } => BackendHealth::unknown(),
        }
    }

    /// Sets the canary's weight.
    pub fn set_weight(&mut self, weight_bp: u16, by: &str, unix_ms: u64) {
        self.record.weight_bp = weight_bp.min(WEIGHT_FULL_BP);
        self.record.weight_by = by.to_owned();
        self.record.weight_set_unix_ms = unix_ms;
        self.record.held = false;
        self.record.batch = None;
        self.rearms = true;
        self.latches = false;
        self.note_service();
    }

    /// Notes that what was decided is in force: from here on a trip is a new one.
    pub fn note_in_force(&mut self) {
        self.rearms = false;
        self.latches = false;
    }

    /// Notes that the kernel has taken all new flows back from the canary by itself.
    pub fn note_trip(&mut self, unix_ms: u64) {
        let rearms = self.rearms;
        self.set_weight(0, BREAKER, unix_ms);
        self.record.held = true;
        self.rearms = rearms;
    }

    /// Takes all new flows back from the canary, those of target rules too.
    pub fn take_back(&mut self, by: &str, unix_ms: u64) {
        let has_something =
            self.record.held || self.record.weight_bp > 0 || self.has_target(Target::Canary);
        self.set_weight(0, by, unix_ms);
        self.record.held = has_something;
    }

    /// Takes a slot out for an operator, or back in.
    pub fn set_drained(&mut self, slot: Slot, drained: bool, by: &str, unix_ms: u64) {
        if drained {
            self.record.drained.entry(slot).or_insert_with(|| Drained {
                by: by.to_owned(),
                since_unix_ms: unix_ms,
            });
        } else {
            self.record.drained.remove(&slot);
        }
        self.note_service();
    }

    /// Sends new connections around shifter for an operator, or through it again.
    pub fn set_bypassed(&mut self, bypassed: bool, by: &str, unix_ms: u64) {
        if bypassed {
            self.record.bypassed.get_or_insert_with(|| Drained {
                by: by.to_owned(),
                since_unix_ms: unix_ms,
            });
        } else {
            self.record.bypassed = None;
        }
    }

    /// When an operator took a slot out.
    pub fn drained(&self, slot: Slot) -> Option<&Drained> {
        self.record.drained.get(&slot)
    }

    /// Why the kernel may not select a slot; `None` if it may.
    pub fn ineligible_reason(&self, slot: Slot) -> Option<String> {
        self.own_reason(slot).or_else(|| {
            self.must_wait(slot)
                .then(|| format!("slot {} has not been probed yet", slot.other()))
        })
    }

    /// Whether a slot that could serve waits for the other one, which should.
    ///
    /// A slot takes another one's share when that one has failed, not when nobody has looked at it
    /// yet: at a first start both are probed, and one of them answers first. But a service that has
    /// served is not interrupted for a backend that was added to it a moment ago; and the baseline
    /// does not wait for a version on trial.
    fn must_wait(&self, slot: Slot) -> bool {
        let other = slot.other();
        let is_entitled = self.role(slot) == Role::Baseline && self.wants(slot);
        !self.has_served && !is_entitled && self.wants(other) && self.is_unknown(other)
    }

    /// To be called after every change.
    fn note_service(&mut self) {
        self.has_served = self.has_served || Slot::ALL.iter().any(|slot| self.is_eligible(*slot));
    }

    fn has_target(&self, target: Target) -> bool {
        self.spec.targets.values().any(|to| *to == target)
    }

    /// Whether the weight or a target rule asks for new flows in a slot.
    fn wants(&self, slot: Slot) -> bool {
        match self.role(slot) {
            Role::Baseline => {
                self.record.weight_bp < WEIGHT_FULL_BP || self.has_target(Target::Baseline)
            }
            Role::Canary => {
                self.record.weight_bp > 0 || (!self.record.held && self.has_target(Target::Canary))
            }
        }
    }

    /// Whether a slot is not eligible merely because some of its backends were not probed yet.
    fn is_unknown(&self, slot: Slot) -> bool {
        self.own_reason(slot).is_some()
            && self.drained(slot).is_none()
            && self.spec.slot(slot).backends.iter().any(|backend| {
                let health = self.health(slot, backend.addr);
                backend.weight > 0 && health.is_some_and(|health| !health.is_known)
            })
    }

    /// What about a slot itself speaks against it.
    fn own_reason(&self, slot: Slot) -> Option<String> {
        let backends = &self.spec.slot(slot).backends;
        if backends.is_empty() {
            return Some("no backends".into());
        }
        if let Some(drained) = self.drained(slot) {
            return Some(format!("drained by {}", drained.by));
        }
        [false, true].into_iter().find_map(|is_v6| {
            let has_vip = self.spec.vips.iter().any(|vip| vip.is_ipv6() == is_v6);
            if has_vip {
                self.family_reason(slot, is_v6)
            } else {
                None
            }
        })
    }

    /// Why a slot has nothing for the clients of one address family.
    fn family_reason(&self, slot: Slot, is_v6: bool) -> Option<String> {
        let mut first = None;
        for backend in &self.spec.slot(slot).backends {
            if !serves(backend.addr, is_v6) || backend.weight == 0 {
                continue;
            }
            let Some(health) = self.standing(slot, backend.addr) else {
                continue;
            };
            if health.ready {
                return None;
            }
            first.get_or_insert_with(|| format!("not ready: {} {}", backend.addr, health.reason));
        }
        let family = if is_v6 { "IPv6" } else { "IPv4" };
        Some(first.unwrap_or_else(|| format!("no {family} backend with a weight")))
    }

    /// Whether the kernel may select a slot.
    pub fn is_eligible(&self, slot: Slot) -> bool {
        self.ineligible_reason(slot).is_none()
    }

    /// The wanted state of the packet path.
    pub fn plan(&self) -> ServicePlan {
        ServicePlan {
            name: self.spec.name.clone(),
            vips: self.spec.vips.clone(),
            protocol: self.spec.protocol,
            affinity: self.spec.affinity,
            on_empty: self.spec.on_empty,
            baseline: self.record.baseline,
            weight_bp: self.record.weight_bp,
            held: self.record.held,
            targets: self.spec.targets.clone(),
            observe: self.spec.observe,
            breaker: self.spec.breaker.clone(),
            rearms: self.rearms,
            latches: self.latches,
            plane: self.plane_plan(),
            slots: Slot::ALL.map(|slot| SlotPlan {
                eligible: self.is_eligible(slot),
                backends: self.planned_backends(slot),
                version_id: self.version_ids[slot.index() as usize].unwrap_or_default(),
            }),
        }
    }

    fn plane_plan(&self) -> PlanePlan {
        if !self.is_on_socket_plane() {
            return PlanePlan::Nat;
        }
        let admitted = self.listeners.iter().filter(|((slot, addr), view)| {
            view.is_captured && self.health(*slot, *addr).is_some_and(|h| h.ready)
        });
        PlanePlan::Socket(SocketPlan {
            readmits_on_listen: self.readmits_on_listen(),
            on_full: self.spec.on_full,
            users: Slot::ALL.map(|slot| self.spec.slot(slot).user.clone()),
            admitted: admitted
                .map(|((_, addr), view)| (*addr, view.epoch))
                .collect(),
        })
    }

    /// Why traffic is not as asked for, in sentences; empty if it is.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(deviation) = &self.deviation {
            notes.push(format!("steered on as it was: {deviation}"));
        }
        if self.record.held && self.has_target(Target::Canary) {
            notes.push(format!(
                "held back since a rollback or a rollout: clients that target rules send to the canary \
                 go to the baseline until a weight is set, if only: shifterctl set-weight {} 0%",
                self.spec.name
            ));
        }
        if let Some(bypassed) = &self.record.bypassed {
            notes.push(format!(
                "bypassed by {}: new connections go to one version by the nftables table {}; undo \
                 it with: shifterctl bypass {} --undo",
                bypassed.by,
                crate::bypass::TABLE,
                self.spec.name
            ));
        }
        let (baseline, canary) = (self.record.baseline, self.canary());
        let (of_baseline, of_canary) = (
            self.ineligible_reason(baseline),
            self.ineligible_reason(canary),
        );
        match (of_baseline, of_canary) {
            (None, None) => {}
            (Some(a), Some(b)) => {
                let fate = match self.spec.on_empty {
                    // The kernel knows no silence there: a lookup that finds nothing is refused.
                    OnEmpty::Drop if self.is_on_socket_plane() => "new flows are refused",
                    OnEmpty::Drop => "new flows are dropped and retried by their clients",
                    OnEmpty::Pass => "new flows go to the host's own stack",
                };
                notes.push(format!(
                    "no slot is eligible: {fate} (slot {baseline}: {a}; slot {canary}: {b})"
                ));
            }
            (Some(reason), None) if self.wants(baseline) => notes.push(format!(
                "slot {baseline} takes no new flows ({reason}): slot {canary} takes them all"
            )),
            (None, Some(reason)) if self.wants(canary) => notes.push(format!(
                "slot {canary} takes no new flows ({reason}): slot {baseline} takes them all"
            )),
            // The slot that is out should get nothing anyway.
            (Some(_), None) | (None, Some(_)) => {}
        }
        notes
    }
}

/// Whether the kernel was told to take all traffic back and the disk was not: such a decision
/// reaches the kernel first, every other one the disk. A word without a generation was told nothing.
fn was_taken_back(record: &ServiceRecord, word: SteeringWord) -> bool {
    word.generation() > 0
        && word.weight_bp() == 0
        && (record.weight_bp > 0 || (word.held() && !record.held))
        && word.baseline() == record.baseline
}

/// Decisions as the steering word shows them, when no record is left. A drain is not among them:
/// out of the word alone it cannot be told from a slot that was about to be added.
fn recall(published: &PublishedService) -> ServiceRecord {
    ServiceRecord {
        baseline: published.word.baseline(),
        weight_bp: published.word.weight_bp(),
        weight_by: "found in the kernel".into(),
        weight_set_unix_ms: 0,
        held: published.word.held(),
        drained: BTreeMap::new(),
        bypassed: None,
        versions: BTreeMap::new(),
        batch: None,
    }
}

mod share;
#[cfg(test)]
mod tests;
mod version;
