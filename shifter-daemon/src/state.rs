//! The state file: what the control API acknowledged is in it before the answer is sent.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    control::{ServiceRecord, StateRecord},
    rollout::RolloutRecord,
};

const FORMAT: u32 = 1;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or file cannot be used.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The state on disk.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    record: StateRecord,
}

impl StateFile {
    /// Reads the state below a directory, which is made if it does not exist. A file that cannot be
    /// understood is kept under another name; the text says where and why.
    ///
    /// # Errors
    /// If the directory cannot be made or the file cannot be read.
    pub fn open(dir: &Path) -> Result<(Self, Option<String>), StateError> {
        fs::create_dir_all(dir).map_err(|source| StateError::Io {
            what: "creating the state directory",
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join("state.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((
                    Self {
                        path,
                        record: empty(),
                    },
                    None,
                ));
            }
            Err(source) => {
                return Err(StateError::Io {
                    what: "reading",
                    path,
                    source,
                });
            }
        };
        let problem = match serde_json::from_slice::<StateRecord>(&bytes) {
            Ok(record) if record.format == FORMAT => return Ok((Self { path, record }, None)),
            Ok(record) => format!("format {} is not {FORMAT}", record.format),
            Err(error) => error.to_string(),
        };
        let aside = path.with_extension("json.unreadable");
        fs::rename(&path, &aside).map_err(|source| StateError::Io {
            what: "putting aside",
            path: path.clone(),
            source,
        })?;
        let text = format!(
            "{} cannot be understood ({problem}): kept as {}; weights are taken from the kernel",
            path.display(),
            aside.display()
        );
        Ok((
            Self {
                path,
                record: empty(),
            },
            Some(text),
        ))
    }

    /// The decisions about a service.
    pub fn service(&self, name: &str) -> Option<&ServiceRecord> {
        self.record.services.get(name)
    }

    /// Writes the decisions about a service. When it returns they are on disk.
    ///
    /// # Errors
    /// If the disk refuses; the file is then as it was.
    pub fn save(&mut self, name: &str, record: &ServiceRecord) -> Result<(), StateError> {
        if self.record.services.get(name) == Some(record) {
            return Ok(());
        }
        let mut changed = self.record.clone();
        changed.services.insert(name.to_owned(), record.clone());
        self.replace(changed)
    }

    /// The last rollout of each service that had one.
    pub fn rollouts(&self) -> &BTreeMap<String, RolloutRecord> {
        &self.record.rollouts
    }

    /// Writes a service's rollout. When it returns it is on disk.
    ///
    /// # Errors
    /// If the disk refuses; the file is then as it was.
    pub fn keep_rollout(
        &mut self,
        service: &str,
        rollout: &RolloutRecord,
    ) -> Result<(), StateError> {
        if self.record.rollouts.get(service) == Some(rollout) {
            return Ok(());
        }
        let mut changed = self.record.clone();
        let rollouts = &mut changed.rollouts;
        rollouts.insert(service.to_owned(), rollout.clone());
        self.replace(changed)
    }

    fn replace(&mut self, changed: StateRecord) -> Result<(), StateError> {
        self.write(&changed).map_err(|source| StateError::Io {
            what: "writing",
            path: self.path.clone(),
            source,
        })?;
        self.record = changed;
        Ok(())
    }

    fn write(&self, record: &StateRecord) -> io::Result<()> {
        let aside = self.path.with_extension("json.new");
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        // The rename itself is on disk only when the directory is.
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

fn empty() -> StateRecord {
    StateRecord {
        format: FORMAT,
        ..StateRecord::default()
    }
}

impl StateFile {
    /// Services whose new connections go around shifter.
    pub fn bypassed(&self) -> Vec<String> {
        let services = self.record.services.iter();
        services
            .filter(|(_, record)| record.bypassed.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shifter_common::steering::Slot;

    use super::*;

    fn record(weight_bp: u16) -> ServiceRecord {
        ServiceRecord {
            baseline: Slot::A,
            weight_bp,
            weight_by: "root (uid 0)".into(),
            weight_set_unix_ms: 1,
            held: false,
            bypassed: None,
            versions: Default::default(),
            batch: None,
            drained: Default::default(),
        }
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut state, problem) = StateFile::open(dir.path()).expect("a new directory");
        assert_eq!(problem, None);
        state
            .save("orders", &record(500))
            .expect("a writable directory");
        state
            .save("search", &record(0))
            .expect("a writable directory");
        let (again, problem) = StateFile::open(dir.path()).expect("the same directory");
        assert_eq!(problem, None);
        assert_eq!(again.service("orders"), Some(&record(500)));
        assert_eq!(again.service("search"), Some(&record(0)));
        assert_eq!(again.service("other"), None);
    }

    #[test]
    fn a_broken_file_is_kept_and_named() {
        for (text, why) in [
            ("{", "EOF"),
            ("{\"format\":9,\"services\":{}}", "format 9 is not 1"),
        ] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::write(dir.path().join("state.json"), text).expect("a writable directory");
            let (state, problem) = StateFile::open(dir.path()).expect("opens all the same");
            let problem = problem.expect("a problem");
            assert!(
                problem.contains(why) && problem.contains("state.json.unreadable"),
                "{problem}"
            );
            assert_eq!(state.service("orders"), None);
            let kept = fs::read_to_string(dir.path().join("state.json.unreadable"));
            assert_eq!(kept.expect("the kept file"), text);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = StateFile::open(Path::new("/proc/nowhere/shifter")).expect_err("no such place");
        let text = error.to_string();
        assert!(
            text.starts_with("creating the state directory /proc/nowhere/shifter: "),
            "{text}"
        );
    }

    #[test]
    fn a_failed_write_leaves_the_record_as_it_was() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut state, _) = StateFile::open(dir.path()).expect("a new directory");
        state
            .save("orders", &record(500))
            .expect("a writable directory");
        // A directory in the place of the file to be written makes every write fail, for root too.
        fs::create_dir(dir.path().join("state.json.new")).expect("a writable directory");
        let error = state
            .save("orders", &record(900))
            .expect_err("the write fails");
        assert!(error.to_string().contains("writing"), "{error}");
        assert_eq!(state.service("orders"), Some(&record(500)));
    }
}
