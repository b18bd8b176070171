//! The start: files, recorded decisions and what the kernel holds become services.

use std::collections::BTreeMap;

use super::{Driver, SHIFTERD, events::Happening};
use crate::{
    config::LoadedServices,
    control::{Deviation, PublishedService, ServiceControl, effective_bp},
    dataplane::DataplaneError,
    model::Services,
};

impl Driver {
    /// Joins the three and puts the result in force.
    pub(super) fn adopt(&mut self, mut loaded: LoadedServices) -> Result<(), DataplaneError> {
        self.dataplane.expect_bypass(self.state.bypassed());
        let published: BTreeMap<String, PublishedService> = self
            .dataplane
            .published()?
            .into_iter()
            .map(|p| (p.name.clone(), p))
            .collect();
        let host = self.dataplane.host_view();
        let held: Services = published
            .iter()
            .map(|(name, published)| (name.clone(), held_spec(published)))
            .collect();
        loaded.keep(&held);
        for diagnostic in &loaded.diagnostics {
            tracing::error!("{diagnostic}");
        }
        let version_ids = published.values().flat_map(|p| p.version_ids).flatten();
        self.last_version_id = version_ids.max().unwrap_or_default();
        let mut orphans = BTreeMap::new();
        for (name, published) in &published {
            self.words.insert(name.clone(), published.word);
            if !loaded.services.contains_key(name) {
                let deviation = lost_file(&loaded, name);
                let record = self.state.service(name).cloned();
                let orphan = ServiceControl::orphan(published, record, deviation);
                orphans.insert(name.clone(), orphan);
            }
        }
        for (name, spec) in std::mem::take(&mut loaded.services) {
            self.file_hashes.insert(name.clone(), loaded.hash(&name));
            let record = self.held_after_boot(&name);
            let mut control = ServiceControl::new(spec, record, published.get(&name));
            // Why it can be steered by no plane is said where it is put in force.
            let _ = control.choose_plane(&host);
            self.number_versions(&mut control);
            self.services.insert(name.clone(), control);
            self.note_listeners(&name);
            self.keep_record(&name);
            // A failure is noted where it happens.
            let _ = self.put_in_force(&name);
        }
        for (name, mut orphan) in orphans {
            self.number_versions(&mut orphan);
            self.services.insert(name.clone(), orphan);
            self.note_listeners(&name);
            self.keep_record(&name);
            if self.is_decided_otherwise(&name) {
                let _ = self.put_in_force(&name);
            }
        }
        for (name, published) in &published {
            self.record_adoption(name, published);
        }
        Ok(())
    }

    /// Writes down what the kernel knew better than the disk.
    fn keep_record(&mut self, name: &str) {
        let Some(control) = self.services.get(name) else {
            return;
        };
        if self.state.service(name).is_some()
            && let Err(error) = self.state.save(name, control.record())
        {
            tracing::error!(service = name, "what is in force is not on disk: {error}");
        }
    }

    /// Whether the recorded decisions about a service are not what the kernel does. If they are, a
    /// service without file is left alone: the kernel knows more of it than this daemon does.
    fn is_decided_otherwise(&self, name: &str) -> bool {
        let Some(control) = self.services.get(name) else {
            return false;
        };
        let word = self.words.get(name).copied().unwrap_or_default();
        self.state.service(name).is_some() && control.plan().steer(word) != word
    }

    fn record_adoption(&mut self, name: &str, published: &PublishedService) {
        let generation = published.word.generation();
        let deviation = self
            .services
            .get(name)
            .and_then(|control| control.deviation.as_ref());
        let detail = match deviation {
            None => format!("found pinned with generation {generation}"),
            Some(deviation) => format!(
                "found pinned with generation {generation}, steered on as it was: {deviation}"
            ),
        };
        self.record(Happening {
            service: name,
            by: SHIFTERD,
            what: "adopted",
            slot: None,
            detail,
            before_bp: effective_bp(published.word),
            took_ns: 0,
        });
    }
}

/// The addresses that a service of the kernel holds.
fn held_spec(published: &PublishedService) -> crate::model::ServiceSpec {
    ServiceControl::orphan(published, None, Deviation::Unknown)
        .spec()
        .clone()
}

/// Why a service that is in force has no good file.
pub fn lost_file(loaded: &LoadedServices, name: &str) -> Deviation {
    if !loaded.dir_read {
        Deviation::Unknown
    } else if loaded.refused.contains(name) {
        Deviation::Bad
    } else {
        Deviation::Gone
    }
}
