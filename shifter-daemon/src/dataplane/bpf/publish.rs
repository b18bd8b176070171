//! Putting a plan in force.
//!
//! Order is everything here. What is taken out of traffic goes first, by one store. What is added
//! becomes reachable last: tables are written where no packet looks, then one store of the steering
//! word turns to them.

use std::{sync::atomic::Ordering, time::Instant};

use shifter_common::{
    abi::VIPS_PER_SERVICE,
    steering::{Slot, SteeringWord},
};

use super::{
    super::{DataplaneError, PlanePlan, Publication, ServicePlan},
    BpfDataplane, vip_key,
};

impl BpfDataplane {
    pub(super) fn publish_plan(
        &mut self,
        plan: &ServicePlan,
    ) -> Result<Publication, DataplaneError> {
        if let Some(publication) = self.steer_only(plan) {
            return Ok(publication);
        }
        self.check(plan)?;
        let is_new = !self.services.contains_key(&plan.name);
        let service = self.claim_service(plan)?;
        let outcome = self.carry_out(service, plan);
        if outcome.is_ok() {
            self.in_force.insert(service, plan.clone());
        } else {
            self.in_force.remove(&service);
        }
        if outcome.is_err() && is_new {
            self.give_up(service, plan);
        }
        outcome
    }

    /// Changes the steering word if a plan asks for nothing else, which is the common change and the
    /// urgent one: no map is read or written.
    fn steer_only(&mut self, plan: &ServicePlan) -> Option<Publication> {
        let service = *self.services.get(&plan.name)?;
        let in_force = self.in_force.get_mut(&service)?;
        let same = ServicePlan {
            baseline: plan.baseline,
            weight_bp: plan.weight_bp,
            affinity: plan.affinity,
            held: plan.held,
            rearms: plan.rearms,
            latches: plan.latches,
            ..in_force.clone()
        };
        if same != *plan {
            return None;
        }
        *in_force = same;
        let (word, stored_at) = self.change_word(service, |word| plan.steer(word));
        Some(Publication { word, stored_at })
    }

    pub(super) fn carry_out(
        &mut self,
        service: u32,
        plan: &ServicePlan,
    ) -> Result<Publication, DataplaneError> {
        let mut stored_at = self.take_out(service, plan);
        // Like the tables: what does not fit must not keep a failed backend in.
        let ruled = self.breaker.set_rules(service, &plan.breaker);
        self.look(service, plan);
        let indexes = self.claim_backends(service, plan)?;
        self.admit(service, plan, &indexes)?;
        // Slot by slot: a table that does not fit must not keep the other slot's failed backend in.
        let dealt = Slot::ALL.map(|slot| {
            self.deal(service, plan, slot, &indexes).map(|has_flipped| {
                self.turn(service, plan, slot, has_flipped, &mut stored_at);
            })
        });
        self.leave(service, plan);
        let targets = self.enter_targets(service, plan);
        for outcome in dealt {
            outcome?;
        }
        targets?;
        ruled?;
        // Whoever served the VIP until now goes on until a slot can: a new service takes its VIPs
        // only then. Once taken they stay.
        self.wake_for(plan)?;
        let has_vips = self.vips.of(service).next().is_some();
        if has_vips || plan.slots.iter().any(|slot| slot.eligible) {
            self.claim_vips(service, plan)?;
        }
        Ok(Publication {
            word: self.word(service),
            stored_at,
        })
    }

    /// Everything that can be refused without having changed anything.
    pub(super) fn check(&self, plan: &ServicePlan) -> Result<(), DataplaneError> {
        self.check_users(plan)?;
        let service = self.services.get(&plan.name);
        for vip in &plan.vips {
            if let Some(entry) = self.vips.get(&(*vip, plan.protocol.number()))
                && Some(&entry.service) != service
            {
                return Err(DataplaneError::Refused(format!(
                    "VIP {vip} of {} still carries flows of {}; wait until they end",
                    plan.name,
                    self.name_of(entry.service)
                )));
            }
        }
        if let Some(&service) = service
            && self.ordinals(service, plan).len() < plan.vips.len()
        {
            return Err(DataplaneError::Refused(format!(
                "{} would have more than {VIPS_PER_SERVICE} VIPs, those that still carry flows \
                 included; wait until these end, or name fewer",
                plan.name
            )));
        }
        for backend in plan.slots.iter().flat_map(|slot| &slot.backends) {
            if plan.plane == PlanePlan::Nat {
                self.hooks.check_backend(backend.addr)?;
            }
            let key = vip_key(backend.addr, plan.protocol.number());
            if let Some(owner) = self.owners.get(&key)
                && Some(&owner.service) != service
            {
                return Err(DataplaneError::Refused(format!(
                    "backend {} of {} still carries flows of {}; wait until they end",
                    backend.addr,
                    plan.name,
                    self.name_of(owner.service)
                )));
            }
        }
        self.check_targets(plan)
    }

    pub(super) fn name_of(&self, service: u32) -> String {
        self.services
            .iter()
            .find(|(_, index)| **index == service)
            .map_or_else(|| "another service".to_owned(), |(name, _)| name.clone())
    }

    /// Changes what needs no new table: slots that lose eligibility, weight, baseline, affinity.
    /// This is the store that takes a bad version out of traffic.
    pub(super) fn take_out(&self, service: u32, plan: &ServicePlan) -> Option<Instant> {
        self.change_word(service, |word| {
            let mut word = plan.choose(word);
            for slot in Slot::ALL {
                if !plan.slot(slot).eligible {
                    word = word.with_eligible(slot, false);
                }
            }
            word
        })
        .1
    }

    /// Turns a slot's new flows to what was prepared.
    pub(super) fn turn(
        &mut self,
        service: u32,
        plan: &ServicePlan,
        slot: Slot,
        has_flipped: bool,
        stored_at: &mut Option<Instant>,
    ) {
        let (_, at) = self.change_word(service, |word| {
            let word = word.with_eligible(slot, plan.slot(slot).eligible);
            if has_flipped {
                word.with_bank(slot, word.bank(slot) ^ 1)
            } else {
                word
            }
        });
        if has_flipped {
            self.flipped.insert((service, slot));
        }
        *stored_at = stored_at.or(at);
    }

    pub(super) fn word(&self, service: u32) -> SteeringWord {
        SteeringWord(
            self.maps
                .steering
                .atomic(service as usize)
                .load(Ordering::Acquire),
        )
    }

    /// Changes the steering word by compare-and-swap: the kernel may change it too. Gives the word
    /// in force and, if it had to be stored, when.
    pub(super) fn change_word(
        &self,
        service: u32,
        change: impl Fn(SteeringWord) -> SteeringWord,
    ) -> (SteeringWord, Option<Instant>) {
        let atomic = self.maps.steering.atomic(service as usize);
        let mut old = atomic.load(Ordering::Acquire);
        loop {
            let before = SteeringWord(old);
            let changed = change(before);
            if changed == before {
                return (before, None);
            }
            let is_same_trial = changed.weight_bp() == before.weight_bp()
                && changed.baseline() == before.baseline();
            let cohort = if is_same_trial {
                before.cohort()
            } else {
                next_cohort(before.cohort())
            };
            let new = changed
                .with_cohort(cohort)
                .with_generation(before.generation().wrapping_add(1));
            if !is_same_trial {
                self.breaker.prepare(service, before, new);
            }
            match atomic.compare_exchange_weak(old, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (new, Some(Instant::now())),
                Err(current) => old = current,
            }
        }
    }
}

/// Cohort 0 is for flows outside any trial.
const fn next_cohort(cohort: u8) -> u8 {
    match cohort.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}
