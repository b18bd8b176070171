//! The history of a service: which version sat on which slot.

use rusqlite::{Row, Transaction, types::Type};
use shifter_common::steering::Slot;

use super::{Store, fault::StoreError, write::Batch};

/// A version that was put on a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The service.
    pub service: String,
    /// Counts up from 1 in a service; given when it is written, until then 0.
    pub number: u64,
    /// The slot.
    pub slot: Slot,
    /// The label.
    pub version: String,
    /// SHA-256 of the plan, or of the service's file.
    pub config_hash: String,
    /// The rollout that brought it, if one did.
    pub rollout: Option<u64>,
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// By whom.
    pub actor: String,
    /// What became of it, in words: `running`, `succeeded`, `rolled back: …`.
    pub outcome: String,
}

impl Store {
    /// Adds a revision; one of a rollout that has one changes that.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add_revision(&mut self, revision: &Revision) -> Result<(), StoreError> {
        self.write(Batch {
            revision: Some(revision),
            ..Batch::default()
        })
    }

    /// All revisions of a service, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn revisions(&mut self, service: &str) -> Result<Vec<Revision>, StoreError> {
        self.attach(&mut Vec::new())?;
        let Some(connection) = &self.disk else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<Revision>> {
            let mut statement = connection.prepare(
                "SELECT service, number, slot, version, config_hash, rollout, unix_ms, actor, outcome \
                 FROM revision WHERE service = ?1 ORDER BY number",
            )?;
            let rows = statement.query_map([service], of_row)?;
            rows.collect()
        };
        read().map_err(StoreError::sql("reading", &self.path))
    }
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Revision> {
    let slot: String = row.get(2)?;
    let slot = Slot::ALL
        .into_iter()
        .find(|known| known.to_string() == slot)
        .ok_or_else(|| {
            let why = format!("`{slot}` is no slot");
            rusqlite::Error::FromSqlConversionFailure(2, Type::Text, why.into())
        })?;
    Ok(Revision {
        service: row.get(0)?,
        number: row.get(1)?,
        slot,
        version: row.get(3)?,
        config_hash: row.get(4)?,
        rollout: row.get(5)?,
        unix_ms: row.get(6)?,
        actor: row.get(7)?,
        outcome: row.get(8)?,
    })
}

pub(super) fn put(transaction: &Transaction<'_>, revision: &Revision) -> rusqlite::Result<()> {
    let Revision {
        service,
        number: _,
        slot,
        version,
        config_hash,
        rollout,
        unix_ms,
        actor,
        outcome,
    } = revision;
    transaction.execute(
        "INSERT INTO revision (service, number, slot, version, config_hash, rollout, unix_ms, actor, \
         outcome) VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM revision WHERE service = ?1), \
         ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (service, rollout) WHERE rollout IS NOT NULL DO UPDATE SET \
         slot = excluded.slot, version = excluded.version, config_hash = excluded.config_hash, \
         outcome = excluded.outcome",
        (
            service,
            slot.to_string(),
            version,
            config_hash,
            rollout,
            unix_ms,
            actor,
            outcome,
        ),
    )?;
    Ok(())
}
