//! Decisions about services.

use std::{collections::BTreeMap, path::Path};

use rusqlite::Connection;
use shifter_common::wire::AuditRecord;

use super::{Store, fault::StoreError, write::Batch};
use crate::control::ServiceRecord;

impl Store {
    /// The decisions about a service that are on disk.
    pub fn service(&self, name: &str) -> Option<&ServiceRecord> {
        self.services.get(name)
    }

    /// Writes the decisions about a service, and the records that wait. When it returns they are on disk.
    ///
    /// # Errors
    /// If the disk refuses; what is on it is then as it was.
    pub fn save(&mut self, name: &str, record: &ServiceRecord) -> Result<(), StoreError> {
        let is_known = self.services.get(name) == Some(record);
        if is_known && self.waiting.is_empty() {
            return Ok(());
        }
        self.write(Batch {
            service: (!is_known).then_some((name, record)),
            ..Batch::default()
        })
    }

    /// Writes a decision that is not in force yet. The record says what is decided; it is forgotten with
    /// the next thing that is written, which says what became of it. If nothing is, the next start finds
    /// it.
    ///
    /// # Errors
    /// If the disk refuses; what is on it is then as it was.
    pub fn decide(
        &mut self,
        name: &str,
        record: &ServiceRecord,
        intent: AuditRecord,
    ) -> Result<(), StoreError> {
        if self.services.get(name) == Some(record) {
            return Ok(());
        }
        let intent = self.sign(intent);
        self.write(Batch {
            service: Some((name, record)),
            intent: Some(intent),
            ..Batch::default()
        })
    }

    /// Services whose new connections go around shifter.
    pub fn bypassed(&self) -> Vec<String> {
        let services = self.services.iter();
        services
            .filter(|(_, record)| record.bypassed.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// Reads all of them. Those that cannot be understood are left out, each with a text.
pub(super) fn load(
    connection: &Connection,
    path: &Path,
) -> Result<(BTreeMap<String, ServiceRecord>, Vec<String>), StoreError> {
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = connection.prepare("SELECT name, record FROM service")?;
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let rows = read().map_err(StoreError::sql("reading", path))?;
    let (mut services, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, text) in rows {
        match serde_json::from_str(&text) {
            Ok(record) => drop(services.insert(name, record)),
            Err(error) => problems.push(format!(
                "what {} says of {name} cannot be understood ({error}): its weight is taken from the \
                 kernel; it says {text}",
                path.display()
            )),
        }
    }
    Ok((services, problems))
}
