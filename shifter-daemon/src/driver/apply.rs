//! `apply` and SIGHUP: the files are read again, and what has changed is put in force.

use std::{collections::BTreeSet, time::Instant};

use shifter_common::wire::{ApplyReport, ConfigChange, Effect};

use super::{Driver, adoption::lost_file, commands::took_ns, events::Happening};
use crate::{
    config::{self, LoadedServices},
    config_files,
    control::{Deviation, ServiceControl},
    dataplane::DataplaneError,
    model::ServiceSpec,
};

impl Driver {
    /// Never moves a weight.
    pub(super) fn apply(&mut self, by: &str, arrived: Instant) -> ApplyReport {
        let mut loaded = config_files::load_services(&self.node.services_dir);
        let in_force = self
            .services
            .iter()
            .map(|(name, c)| (name.clone(), c.spec().clone()));
        loaded.keep(&in_force.collect());
        let mut report = ApplyReport {
            diagnostics: std::mem::take(&mut loaded.diagnostics),
            ..ApplyReport::default()
        };
        self.apply_node(&mut report);
        let specs = std::mem::take(&mut loaded.services);
        let named: BTreeSet<String> = specs.keys().cloned().collect();
        for (name, spec) in specs {
            let hash = loaded.hash(&name);
            let known = self.file_hashes.insert(name.clone(), hash);
            report
                .changes
                .extend(self.apply_service(spec.clone(), by, arrived));
            let is_in_force = self
                .services
                .get(&name)
                .is_some_and(|control| *control.spec() == spec);
            if !is_in_force {
                match known {
                    Some(known) => self.file_hashes.insert(name, known),
                    None => self.file_hashes.remove(&name),
                };
            }
        }
        self.find_lost_files(&loaded, &named, by, &mut report);
        self.update_probes();
        self.hold_vips();
        report
    }

    fn apply_node(&self, report: &mut ApplyReport) {
        match config_files::load_node(&self.node_file) {
            Ok(node) => report.changes.extend(config::diff_node(&self.node, &node)),
            Err(diagnostics) => {
                report.diagnostics.splice(0..0, diagnostics);
            }
        }
    }

    fn apply_service(
        &mut self,
        spec: ServiceSpec,
        by: &str,
        arrived: Instant,
    ) -> Vec<ConfigChange> {
        let name = spec.name.clone();
        let before_bp = self.in_force_bp(&name);
        let old = self.services.get(&name).cloned();
        let (new, mut changes) = match &old {
            Some(old) => {
                let mut new = old.clone();
                let changes = new.respec(spec);
                (new, changes)
            }
            None => {
                let record = self.held_after_boot(&name);
                (
                    ServiceControl::new(spec, record, None),
                    vec![change_of_name("", &name)],
                )
            }
        };
        let host = self.dataplane.host_view();
        let (mut new, mut refusal) = (new, None);
        if let Err(why) = self.time_changes(&name, &mut changes) {
            tracing::error!(service = name, by, "its file was refused: {why}");
            if let Some(control) = self.services.get_mut(&name) {
                control.deviation = Some(Deviation::Refused(why.clone()));
            }
            return refused(changes, &name, &why);
        }
        let is_moved = match new.choose_plane(&host) {
            Ok(is_other) => is_other,
            Err(why) => {
                refusal = Some(why);
                false
            }
        };
        refusal = refusal.or_else(|| self.vip_obstacle(old.as_ref(), new.spec()));
        self.number_versions(&mut new);
        let was_adrift = old.as_ref().is_some_and(|old| old.deviation.is_some());
        let is_due = is_moved
            || refusal.is_some()
            || !changes.is_empty()
            || was_adrift
            || self.unpublished.contains_key(&name);
        let detail = match &old {
            None => "new service".to_owned(),
            Some(_) if was_adrift && changes.is_empty() => "its file is good again".to_owned(),
            Some(_) if was_adrift => format!("its file is good again, {}", changed(&changes)),
            Some(_) => changed(&changes),
        };
        let is_new = old.is_none();
        self.services.insert(name.clone(), new);
        if !is_due {
            return changes;
        }
        self.note_listeners(&name);
        let plan = self.services.get(&name).map(ServiceControl::plan);
        let published = match (refusal, plan) {
            (Some(why), _) => Err(DataplaneError::Refused(why)),
            (None, Some(plan)) => self.publish(&plan),
            (None, None) => return changes,
        };
        match published {
            Ok(publication) => {
                let took_ns = took_ns(arrived, publication.stored_at);
                self.record(Happening {
                    service: &name,
                    by,
                    what: "apply",
                    slot: None,
                    detail,
                    before_bp,
                    took_ns,
                });
                changes
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(service = name, by, "its file was refused: {why}");
                if is_new {
                    self.services.remove(&name);
                } else if let Some(mut old) = old {
                    if !changes.is_empty() || was_adrift {
                        old.deviation = Some(Deviation::Refused(why.clone()));
                    }
                    self.services.insert(name.clone(), old);
                    // A failure is noted where it happens.
                    let _ = self.put_in_force(&name);
                }
                refused(changes, &name, &why)
            }
        }
    }

    /// Finds the services that have no good file any more; they are steered on.
    fn find_lost_files(
        &mut self,
        loaded: &LoadedServices,
        named: &BTreeSet<String>,
        by: &str,
        report: &mut ApplyReport,
    ) {
        let lost: Vec<String> = self
            .services
            .keys()
            .filter(|name| !named.contains(*name))
            .cloned()
            .collect();
        for name in lost {
            let deviation = lost_file(loaded, &name);
            if deviation == Deviation::Gone {
                report.orphaned.push(name.clone());
            }
            let Some(control) = self.services.get_mut(&name) else {
                continue;
            };
            if control.deviation.as_ref() == Some(&deviation) {
                continue;
            }
            let detail = format!("steered on as it was: {deviation}");
            control.deviation = Some(deviation);
            self.record(Happening {
                service: &name,
                by,
                what: "apply",
                slot: None,
                detail,
                before_bp: self.in_force_bp(&name),
                took_ns: 0,
            });
        }
    }
}

/// The same changes as not done.
fn refused(mut changes: Vec<ConfigChange>, name: &str, why: &str) -> Vec<ConfigChange> {
    if changes.is_empty() {
        // What was refused is the service as a whole.
        changes.push(change_of_name(name, name));
    }
    for change in &mut changes {
        change.effect = Effect::Refused;
        change.reason = why.to_owned();
    }
    changes
}

fn change_of_name(before: &str, after: &str) -> ConfigChange {
    ConfigChange {
        service: after.to_owned(),
        key: "service.name".into(),
        before: before.to_owned(),
        after: after.to_owned(),
        effect: Effect::Now,
        reason: String::new(),
    }
}

/// Which keys have changed, in words.
fn changed(changes: &[ConfigChange]) -> String {
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    if keys.is_empty() {
        "tried again".into()
    } else {
        format!("{} changed", keys.join(", "))
    }
}
