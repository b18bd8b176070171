//! One service: its file, its operators' decisions and its backends' health make one plan.

use std::{collections::BTreeMap, net::SocketAddr};

use shifter_common::{
    steering::{Slot, WEIGHT_FULL_BP},
    wire::{ConfigChange, Role},
};

use super::{
    plan::{PlannedBackend, PublishedService, ServicePlan, SlotPlan},
    record::{Drained, ServiceRecord},
};
use crate::model::{
    BackendSpec, OnEmpty, Plane, ProbeCheck, ProbeSpec, Protocol, ServiceSpec, SlotSpec,
};

/// What probing knows of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHealth {
    /// Whether new flows may go there.
    pub ready: bool,
    /// Why not; empty if ready.
    pub reason: String,
    /// Whether that is knowledge: a probe has spoken, or the packet path held it ready.
    pub is_known: bool,
}

impl BackendHealth {
    /// Known to be ready.
    pub fn ready() -> Self {
        Self { ready: true, reason: String::new(), is_known: true }
    }

    /// Known not to be ready.
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self { ready: false, reason: reason.into(), is_known: true }
    }

    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self { ready: false, reason: "not probed yet".into(), is_known: false }
    }
}

/// The wanted state of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceControl {
    spec: ServiceSpec,
    record: ServiceRecord,
    health: BTreeMap<(Slot, SocketAddr), BackendHealth>,
    /// Why the service is not as its file says: the file is gone or has errors.
    pub detached_reason: Option<String>,
}

impl ServiceControl {
    /// A service from its file, with what is known from before: the recorded decisions, and the
    /// backends that the packet path holds ready.
    pub fn new(
        spec: ServiceSpec,
        record: Option<ServiceRecord>,
        published: Option<&PublishedService>,
    ) -> Self {
        let record = record
            .or_else(|| published.map(recall))
            .unwrap_or_else(|| ServiceRecord {
                baseline: spec.default_slot,
                weight_bp: 0,
                weight_by: String::new(),
                weight_set_unix_ms: 0,
                drained: BTreeMap::new(),
            });
        let mut this = Self { spec, record, health: BTreeMap::new(), detached_reason: None };
        for (slot, backend) in this.backends() {
            let was_ready = published.is_some_and(|p| p.ready.contains(&(slot, backend)));
            let health =
                if was_ready { BackendHealth::ready() } else { this.first_health() };
            this.health.insert((slot, backend), health);
        }
        this
    }

    /// A service that the packet path holds but no file describes. It steers on as it is.
    pub fn orphan(
        published: &PublishedService,
        record: Option<ServiceRecord>,
        reason: String,
    ) -> Self {
        let mut slots = [SlotSpec::default(), SlotSpec::default()];
        for (slot, addr) in &published.ready {
            slots[slot.index() as usize]
                .backends
                .push(BackendSpec { addr: *addr, weight: 100 });
        }
        let spec = ServiceSpec {
            name: published.name.clone(),
            vips: published.vips.clone(),
            protocol: Protocol::Tcp,
            plane: Plane::Nat,
            affinity: published.word.affinity(),
            default_slot: published.word.baseline(),
            on_empty: OnEmpty::default(),
            slots,
            readiness: ProbeSpec {
                check: ProbeCheck::None,
                interval: std::time::Duration::from_secs(1),
                timeout: std::time::Duration::from_secs(1),
                success_threshold: 1,
                failure_threshold: 1,
            },
            drain_timeout: std::time::Duration::from_secs(60),
            rollback_established: Default::default(),
        };
        let mut this = Self::new(spec, record, Some(published));
        this.detached_reason = Some(reason);
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
    }

    /// The canary's slot.
    pub fn canary(&self) -> Slot {
        self.record.baseline.other()
    }

    /// A slot's part.
    pub fn role(&self, slot: Slot) -> Role {
        if slot == self.record.baseline { Role::Baseline } else { Role::Canary }
    }

    /// Every backend with its slot.
    pub fn backends(&self) -> Vec<(Slot, SocketAddr)> {
        Slot::ALL
            .into_iter()
            .flat_map(|slot| self.spec.slot(slot).backends.iter().map(move |b| (slot, b.addr)))
            .collect()
    }

    /// A backend's health.
    pub fn health(&self, slot: Slot, addr: SocketAddr) -> BackendHealth {
        self.health.get(&(slot, addr)).cloned().unwrap_or_default()
    }

    /// Notes what a probe found. A backend that is not of this service is ignored: its probe was
    /// under way when it was taken out.
    pub fn set_health(&mut self, slot: Slot, addr: SocketAddr, health: BackendHealth) {
        if let Some(known) = self.health.get_mut(&(slot, addr)) {
            *known = health;
        }
    }

    /// Takes a changed file over. Health of backends that stay is kept.
    pub fn respec(&mut self, spec: ServiceSpec) -> Vec<ConfigChange> {
        let changes = crate::config::diff(&self.spec, &spec);
        self.spec = spec;
        let mut health = BTreeMap::new();
        for key in self.backends() {
            let known = self.health.remove(&key).unwrap_or_else(|| self.first_health());
            health.insert(key, known);
        }
        self.health = health;
        self.detached_reason = None;
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
    }

    /// Takes a slot out for an operator, or back in.
    pub fn set_drained(&mut self, slot: Slot, drained: bool, by: &str, unix_ms: u64) {
        if drained {
            self.record
                .drained
                .entry(slot)
                .or_insert_with(|| Drained { by: by.to_owned(), since_unix_ms: unix_ms });
        } else {
            self.record.drained.remove(&slot);
        }
    }

    /// When an operator took a slot out.
    pub fn drained(&self, slot: Slot) -> Option<&Drained> {
        self.record.drained.get(&slot)
    }

    /// Why the kernel may not select a slot; `None` if it may.
    pub fn ineligible_reason(&self, slot: Slot) -> Option<String> {
        self.own_reason(slot).or_else(|| {
            // A slot takes another one's share when that one has failed, not when nobody has looked
            // at it yet: at a first start both are probed, and one of them answers first.
            let other = slot.other();
            let is_waiting = self.wants(other) && self.is_unknown(other);
            is_waiting.then(|| format!("slot {other} has not been probed yet"))
        })
    }

    /// Whether the weight asks for new flows in a slot.
    fn wants(&self, slot: Slot) -> bool {
        match self.role(slot) {
            Role::Baseline => self.record.weight_bp < WEIGHT_FULL_BP,
            Role::Canary => self.record.weight_bp > 0,
        }
    }

    /// Whether a slot is not eligible merely because some of its backends were not probed yet.
    fn is_unknown(&self, slot: Slot) -> bool {
        let backends = &self.spec.slot(slot).backends;
        self.own_reason(slot).is_some()
            && self.drained(slot).is_none()
            && backends.iter().any(|backend| !self.health(slot, backend.addr).is_known)
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
        for is_v6 in [false, true] {
            if !self.spec.vips.iter().any(|vip| vip.is_ipv6() == is_v6) {
                continue;
            }
            let mut of_family =
                backends.iter().filter(|b| b.addr.is_ipv6() == is_v6 && b.weight > 0).peekable();
            if of_family.peek().is_none() {
                let family = if is_v6 { "IPv6" } else { "IPv4" };
                return Some(format!("no {family} backend with a weight"));
            }
            let mut reasons = of_family.map(|b| (b.addr, self.health(slot, b.addr)));
            let first = reasons.clone().next();
            if reasons.all(|(_, health)| !health.ready) {
                return Some(match first {
                    Some((addr, health)) => format!("not ready: {addr} {}", health.reason),
                    None => "not ready".into(),
                });
            }
        }
        None
    }

    /// Whether the kernel may select a slot.
    pub fn is_eligible(&self, slot: Slot) -> bool {
        self.ineligible_reason(slot).is_none()
    }

    /// The share of new flows the canary gets, basis points.
    pub fn effective_bp(&self) -> u16 {
        match (self.is_eligible(self.record.baseline), self.is_eligible(self.canary())) {
            (true, true) => self.record.weight_bp,
            (false, true) => WEIGHT_FULL_BP,
            (_, false) => 0,
        }
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
            slots: Slot::ALL.map(|slot| SlotPlan {
                eligible: self.is_eligible(slot),
                backends: self
                    .spec
                    .slot(slot)
                    .backends
                    .iter()
                    .map(|backend| PlannedBackend {
                        addr: backend.addr,
                        weight: backend.weight,
                        ready: self.health(slot, backend.addr).ready,
                    })
                    .collect(),
            }),
        }
    }

    /// Why traffic is not as asked for, in sentences; empty if it is.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(reason) = &self.detached_reason {
            notes.push(format!("steered on as it was: {reason}"));
        }
        let (baseline, canary) = (self.record.baseline, self.canary());
        let (of_baseline, of_canary) =
            (self.ineligible_reason(baseline), self.ineligible_reason(canary));
        match (of_baseline, of_canary) {
            (None, None) => {}
            (Some(a), Some(b)) => {
                let fate = match self.spec.on_empty {
                    OnEmpty::Drop => "new flows are dropped and retried by their clients",
                    OnEmpty::Pass => "new flows go to the host's own stack",
                };
                notes.push(format!(
                    "no slot is eligible: {fate} (slot {baseline}: {a}; slot {canary}: {b})"
                ));
            }
            (Some(reason), None) => notes.push(format!(
                "slot {baseline} takes no new flows ({reason}): slot {canary} takes them all"
            )),
            (None, Some(reason)) if self.record.weight_bp > 0 => notes.push(format!(
                "slot {canary} takes no new flows ({reason}): slot {baseline} takes them all"
            )),
            (None, Some(_)) => {}
        }
        notes
    }
}

/// Decisions as the steering word shows them, when no record is left.
fn recall(published: &PublishedService) -> ServiceRecord {
    ServiceRecord {
        baseline: published.word.baseline(),
        weight_bp: published.word.weight_bp(),
        weight_by: "found in the kernel".into(),
        weight_set_unix_ms: 0,
        drained: BTreeMap::new(),
    }
}
