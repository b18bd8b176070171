//! Putting plans in force, and trying again what failed.

use super::Driver;
use crate::{
    control::{ServicePlan, effective_bp},
    dataplane::{DataplaneError, Publication},
};

impl Driver {
    /// Puts a plan in force and notes what the kernel then reads. On failure the caller decides
    /// what becomes of the service.
    pub(super) fn publish(&mut self, plan: &ServicePlan) -> Result<Publication, DataplaneError> {
        self.publications_count += 1;
        if let Some(Err(why)) = self.services.get(&plan.name).map(|c| c.steering()) {
            return Err(DataplaneError::Refused(why.clone()));
        }
        let publication = self.dataplane.publish(plan)?;
        if self.unpublished.remove(&plan.name).is_some() {
            tracing::info!(service = plan.name, "in force again");
        }
        self.words.insert(plan.name.clone(), publication.word);
        if !publication.word.tripped() {
            self.tripped.remove(&plan.name);
            self.rollouts.note_latch(&plan.name, false);
        }
        if let Some(control) = self.services.get_mut(&plan.name) {
            control.note_in_force();
        }
        self.follow_bypass(&plan.name);
        Ok(publication)
    }

    /// Puts in force what is decided about a service. If that fails it is tried again at each tick,
    /// and `status` says so.
    pub(super) fn put_in_force(&mut self, name: &str) -> Result<Publication, String> {
        let plan = self.services.get(name).map(|control| control.plan());
        let plan = plan.ok_or_else(|| format!("there is no service {name}"))?;
        self.publish(&plan).map_err(|error| {
            let error = error.to_string();
            let known = self.unpublished.insert(name.to_owned(), error.clone());
            if known.as_ref() != Some(&error) {
                tracing::error!(service = name, "cannot be put in force: {error}");
            }
            error
        })
    }

    /// Tries again what failed.
    pub(super) fn retry(&mut self) {
        let names: Vec<String> = self.unpublished.keys().cloned().collect();
        for name in names {
            // A failure is noted where it happens.
            let _ = self.put_in_force(&name);
        }
    }

    /// The share of new flows that the canary gets by what is in force, basis points.
    pub(super) fn in_force_bp(&self, name: &str) -> u16 {
        effective_bp(self.words.get(name).copied().unwrap_or_default())
    }
}
