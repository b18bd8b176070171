//! What outlives the daemon and the host: operators' decisions, rollouts, revisions, the audit.
//!
//! All of it is in one SQLite file, `shifter.db` in the state directory (WAL, `synchronous=FULL`), and
//! every method that writes returns when what it wrote is on disk. One transaction writes everything
//! that belongs together, with the records of the audit that wait:
//!
//! | Method | Writes, both or neither |
//! |---|---|
//! | [`Store::decide`] | a decision, and that it is about to be put in force |
//! | [`Store::save`] | a decision that is in force, and what [`Store::note`] was told |
//! | [`Store::flush`] | what [`Store::note`] was told |
//! | [`Store::keep_rollout`] | a rollout, its new transitions as records, its revision |
//!
//! A driver of rollouts implements [`crate::rollout::Shell::keep`] with [`Store::keep_rollout`]:
//!
//! ```text
//! fn keep(&mut self, rollout: &Rollout) -> Result<(), String> {
//!     let mut records = store::records(rollout);     // one for each transition, to be completed
//!     for record in &mut records { record.actor = …; record.metrics = …; }
//!     self.store.keep_rollout(rollout, next, records, revision.as_ref()).map_err(|error| error.to_string())
//! }
//! ```
//!
//! At its start it asks [`Store::rollouts`] for those that go on; each says whether the host began anew
//! since. [`Store::next_rollout`] numbers a new one, [`Store::revisions`] and [`Store::add_revision`] are
//! the history of a service.
//!
//! The store opens whatever the disk says. Without it, what can be read is known, writing is refused with
//! the reason, and each attempt tries the disk again: traffic does not depend on it.

mod audit;
mod disk;
mod fault;
mod legacy;
mod origin;
mod revision;
mod rollout;
mod schema;
mod service;
#[cfg(test)]
mod tests;
mod version;
mod write;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use shifter_common::{audit::Chain, wire::AuditRecord};

pub use self::{
    audit::{AuditLines, AuditQuery},
    fault::StoreError,
    origin::Origin,
    revision::Revision,
    rollout::{KeptRollout, records},
};
use crate::control::ServiceRecord;

/// The file in the state directory.
pub const FILE: &str = "shifter.db";

/// What is on disk, and what waits for it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    origin: Origin,
    /// `None` while it cannot be used.
    disk: Option<Connection>,
    /// Why the last attempt to write failed.
    trouble: Option<String>,
    services: BTreeMap<String, ServiceRecord>,
    last_version_id: u32,
    /// Rollouts as they were read when the disk could not be written.
    read: Vec<KeptRollout>,
    /// Name of the chain of this file.
    chain_name: String,
    /// The newest record on disk.
    chain: Chain,
    /// Records that are not on disk yet, oldest first.
    waiting: VecDeque<AuditRecord>,
    /// Records that were given up, since the disk refused too many.
    lost_count: u64,
}

impl Store {
    /// Opens the store below a directory, which is made if it does not exist. Gives what a person should
    /// know of what was found.
    pub fn open(dir: &Path, origin: Origin) -> (Self, Vec<String>) {
        let mut this = Self {
            path: dir.join(FILE),
            origin,
            disk: None,
            trouble: None,
            services: BTreeMap::new(),
            last_version_id: 0,
            read: Vec::new(),
            chain_name: String::new(),
            chain: Chain::default(),
            waiting: VecDeque::new(),
            lost_count: 0,
        };
        let mut told = Vec::new();
        if let Err(error) = this.attach(&mut told) {
            told.push(this.go_without(&error));
        }
        (this, told)
    }

    /// Why the disk does not take what it is given, if it does not.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Begins to use the file, unless it is in use.
    fn attach(&mut self, told: &mut Vec<String>) -> Result<(), StoreError> {
        if self.disk.is_some() {
            return Ok(());
        }
        let mut opened = disk::open(&self.path)?;
        let begins = opened.put_aside.take();
        let legacy = legacy::import(&mut opened.connection, &self.path)?;
        let connection = &opened.connection;
        let (services, problems) = service::load(connection, &self.path)?;
        let last_version_id = version::load(connection, &self.path)?;
        let (chain_name, chain) = audit::tip(connection, &self.path)?;
        let left = write::left_intents(connection, &self.path)?;
        let known = std::mem::replace(&mut self.services, services);
        let known_version_id = std::mem::replace(&mut self.last_version_id, last_version_id);
        self.chain_name = chain_name;
        self.chain = chain;
        self.disk = Some(opened.connection);
        self.trouble = None;
        if self.chain.seq() == 0 {
            let reason = begins
                .clone()
                .unwrap_or_else(|| "a new chain begins".into());
            // Before all that waits.
            let record = self.sign(audit::beginning(reason));
            self.waiting.push_front(record);
        }
        self.waiting.extend(left);
        if begins.is_some() {
            // The file broke while it was in use: what it said is known.
            for (name, record) in &known {
                self.save(name, record)?;
            }
            self.note_version_id(known_version_id)?;
        }
        told.extend(begins);
        told.extend(legacy);
        told.extend(problems);
        Ok(())
    }

    /// Reads what can be read, and says why nothing can be written.
    fn go_without(&mut self, error: &StoreError) -> String {
        let text = match disk::peek(&self.path, &self.origin.boot_id) {
            Ok((services, rollouts)) => {
                let known = services.len();
                self.services = services;
                self.read = rollouts;
                format!(
                    "{error}; what it says of {known} service{} is known, nothing new can be kept",
                    if known == 1 { "" } else { "s" }
                )
            }
            Err(why) => {
                tracing::debug!("reading {} aside: {why}", self.path.display());
                format!("{error}; weights are taken from the kernel, nothing new can be kept")
            }
        };
        self.trouble = Some(error.to_string());
        text
    }
}
