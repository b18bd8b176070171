//! All service files together: which can be put in force, and which are refused.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use shifter_common::wire::Diagnostic;

use super::{
    conflict::{check_all, check_kept, stem},
    service::ServiceFile,
};
use crate::model::Services;

/// What the service files ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedServices {
    /// Services whose file is good.
    pub services: Services,
    /// Their files, by service.
    pub files: BTreeMap<String, ServiceFile>,
    /// All problems, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// Services that have a file, good or bad.
    pub names: BTreeSet<String>,
    /// Services whose file is there but bad: they keep what is in force for them.
    pub refused: BTreeSet<String>,
    /// Whether the directory could be read. If not, a service that is not in `names` is not gone:
    /// nothing is known of it.
    pub dir_read: bool,
}

impl LoadedServices {
    /// SHA-256 of a service's file, in hexadecimal digits as `sha256sum` prints it; empty if it has none.
    pub fn hash(&self, service: &str) -> String {
        self.files.get(service).map_or_else(String::new, |file| {
            let digest = Sha256::digest(file.text.as_bytes());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

/// Reads the texts of service files, by file. A text that could not be obtained comes as the
/// problem. A bad file never affects a good one.
pub fn collect(texts: Vec<(String, Result<String, Diagnostic>)>) -> LoadedServices {
    let mut loaded = LoadedServices {
        dir_read: true,
        ..LoadedServices::default()
    };
    let mut good = Vec::new();
    for (file, text) in texts {
        let parsed = match text {
            Ok(text) => ServiceFile::parse(&file, &text),
            Err(problem) => Err(vec![problem]),
        };
        match parsed {
            Ok(parsed) => good.push(parsed),
            Err(mut problems) => {
                loaded.refused.insert(stem(&file).to_owned());
                loaded.diagnostics.append(&mut problems);
            }
        }
    }
    let problems = check_all(&good);
    let bad: BTreeSet<_> = problems
        .iter()
        .map(|problem| problem.file.clone())
        .collect();
    for file in good {
        if bad.contains(&file.file) {
            loaded
                .refused
                .extend([stem(&file.file).to_owned(), file.spec.name]);
        } else {
            loaded
                .services
                .insert(file.spec.name.clone(), file.spec.clone());
            loaded.files.insert(file.spec.name.clone(), file);
        }
    }
    loaded
        .refused
        .retain(|name| !loaded.services.contains_key(name));
    loaded.names = loaded
        .services
        .keys()
        .chain(&loaded.refused)
        .cloned()
        .collect();
    loaded.diagnostics.extend(problems);
    loaded.sort();
    loaded
}

impl LoadedServices {
    /// Takes into account what is in force: services whose file is refused or gone stay as they
    /// are, so a file that claims one of their addresses is refused as well.
    pub fn keep(&mut self, in_force: &Services) {
        loop {
            let mut kept = in_force.clone();
            kept.retain(|name, _| !self.services.contains_key(name));
            let is_refused = |name: &str| !self.dir_read || self.refused.contains(name);
            let problems = check_kept(self.files.values(), &kept, is_refused);
            if problems.is_empty() {
                break;
            }
            // What was just refused keeps its old addresses, which may refuse others in turn.
            for problem in &problems {
                let name = stem(&problem.file);
                self.services.remove(name);
                self.files.remove(name);
                self.refused.insert(name.to_owned());
            }
            self.diagnostics.extend(problems);
        }
        self.sort();
    }

    fn sort(&mut self) {
        // A problem without place speaks of the whole file and comes last, as within one file.
        self.diagnostics.sort_by(|one, other| {
            let key = |d: &Diagnostic| (d.line == 0, d.line, d.column);
            one.file
                .cmp(&other.file)
                .then_with(|| key(one).cmp(&key(other)))
        });
    }
}
