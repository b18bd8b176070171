//! Rollouts, as the state machine writes itself.

use std::path::Path;

use rusqlite::{Connection, Row, Transaction};
use shifter_common::wire::AuditRecord;

use super::{Revision, Store, fault::StoreError, write::Batch};
use crate::rollout::{Phase, Rollout, Wanted};

/// A rollout that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRollout {
    /// It, as it was kept last.
    pub rollout: Rollout,
    /// The version that begins when this one is over.
    pub next: Option<Wanted>,
    /// Whether the host began anew since.
    pub is_rebooted: bool,
    /// When it was kept first, Unix milliseconds; 0 if nothing tells.
    pub began_unix_ms: u64,
    /// When it was kept last, Unix milliseconds; 0 if nothing tells.
    pub kept_unix_ms: u64,
}

/// One record for each transition that a rollout has not kept yet. Who did it, what was counted and what
/// gates answered is for the driver to add: without, it was the daemon, and nothing was.
pub fn records(rollout: &Rollout) -> Vec<AuditRecord> {
    let parts = rollout.parts();
    let transitions = rollout.transitions().iter();
    let records = transitions.map(|transition| AuditRecord {
        unix_ms: transition.unix_ms,
        service: parts.service.clone(),
        rollout: Some(parts.id),
        version: parts.version.to_string(),
        old_version: parts
            .old_version
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        config_hash: rollout.plan().hash().to_owned(),
        actor: super::audit::daemon(),
        verb: "phase".into(),
        slot: Some(parts.canary),
        reason: transition.why.clone(),
        from: transition.from.clone(),
        to: transition.to.clone(),
        step: step(rollout.phase()),
        weight_before_bp: transition.share_before.weight_bp,
        weight_after_bp: transition.share_after.weight_bp,
        ..AuditRecord::default()
    });
    records.collect()
}

fn step(phase: &Phase) -> Option<u16> {
    match phase {
        Phase::Shifting { step, .. } | Phase::Baking { step, .. } => Some(*step),
        _ => None,
    }
}

impl Store {
    /// Puts a rollout with what is to follow it, the records of its new transitions and its place in the
    /// history on disk, all or nothing.
    ///
    /// # Errors
    /// If the disk refuses; what is on it is then as it was, and the records are gone.
    pub fn keep_rollout(
        &mut self,
        rollout: &Rollout,
        next: Option<&Wanted>,
        records: Vec<AuditRecord>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        let records = records.into_iter().map(|record| self.sign(record));
        let records = records.collect();
        self.write(Batch {
            rollout: Some((rollout, next)),
            revision,
            records,
            ..Batch::default()
        })
    }

    /// All rollouts that go on, and the newest one of each service, in the order of services and numbers;
    /// with what a person should know of those that cannot be understood.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn rollouts(&self) -> Result<(Vec<KeptRollout>, Vec<String>), StoreError> {
        let Some(connection) = &self.disk else {
            return Ok((self.read.clone(), Vec::new()));
        };
        let sql = "SELECT service, id, began_unix_ms, kept_unix_ms, boot_id, rollout, next FROM rollout AS this \
                   WHERE is_final = 0 \
                   OR id = (SELECT max(id) FROM rollout WHERE service = this.service) \
                   ORDER BY service, id";
        select(connection, &self.path, sql, (), &self.origin.boot_id)
    }

    /// All rollouts of a service, oldest first; those that cannot be understood are left out.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn rollouts_of(&self, service: &str) -> Result<Vec<KeptRollout>, StoreError> {
        let Some(connection) = &self.disk else {
            let mut kept = self.read.clone();
            kept.retain(|kept| kept.rollout.parts().service == service);
            return Ok(kept);
        };
        let sql = "SELECT service, id, began_unix_ms, kept_unix_ms, boot_id, rollout, next FROM rollout \
                   WHERE service = ?1 ORDER BY id";
        let found = select(connection, &self.path, sql, [service], &self.origin.boot_id)?;
        Ok(found.0)
    }

    /// The number of a service's next rollout, from 1.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn next_rollout(&mut self, service: &str) -> Result<u64, StoreError> {
        self.attach(&mut Vec::new())?;
        let Some(connection) = &self.disk else {
            return Ok(1);
        };
        connection
            .query_row(
                "SELECT coalesce(max(id), 0) + 1 FROM rollout WHERE service = ?1",
                [service],
                |row| row.get(0),
            )
            .map_err(StoreError::sql("reading", &self.path))
    }
}

/// Every rollout of a file.
pub(super) fn load(
    connection: &Connection,
    path: &Path,
    boot_id: &str,
) -> Result<Vec<KeptRollout>, StoreError> {
    let sql = "SELECT service, id, began_unix_ms, kept_unix_ms, boot_id, rollout, next FROM rollout \
               ORDER BY service, id";
    select(connection, path, sql, (), boot_id).map(|(rollouts, _)| rollouts)
}

fn select(
    connection: &Connection,
    path: &Path,
    sql: &str,
    params: impl rusqlite::Params,
    boot_id: &str,
) -> Result<(Vec<KeptRollout>, Vec<String>), StoreError> {
    let read = || -> rusqlite::Result<Vec<Result<KeptRollout, String>>> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map(params, |row| of_row(row, boot_id))?;
        rows.collect()
    };
    let rows = read().map_err(StoreError::sql("reading", path))?;
    let (mut kept, mut problems) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Ok(rollout) => kept.push(rollout),
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    Ok((kept, problems))
}

fn of_row(row: &Row<'_>, boot_id: &str) -> rusqlite::Result<Result<KeptRollout, String>> {
    let (service, id): (String, u64) = (row.get(0)?, row.get(1)?);
    let (began_unix_ms, kept_unix_ms) = (row.get(2)?, row.get(3)?);
    let (boot, text): (String, String) = (row.get(4)?, row.get(5)?);
    let wrong = |why: &str| {
        format!("rollout {id} of {service} cannot be understood ({why}): traffic stays as it is")
    };
    let rollout: Rollout = match serde_json::from_str(&text) {
        Ok(rollout) => rollout,
        Err(error) => return Ok(Err(wrong(&error.to_string()))),
    };
    if !rollout.plan().is_intact() {
        return Ok(Err(wrong("its plan is not the one that was frozen")));
    }
    let next = match row
        .get::<_, Option<String>>(6)?
        .map(|text| serde_json::from_str(&text))
    {
        None => None,
        Some(Ok(next)) => Some(next),
        Some(Err(error)) => return Ok(Err(wrong(&error.to_string()))),
    };
    Ok(Ok(KeptRollout {
        rollout,
        next,
        // A boot that has no name is never another one.
        is_rebooted: !boot.is_empty() && !boot_id.is_empty() && boot != boot_id,
        began_unix_ms,
        kept_unix_ms,
    }))
}

pub(super) fn put(
    transaction: &Transaction<'_>,
    path: &Path,
    boot_id: &str,
    (rollout, next): (&Rollout, Option<&Wanted>),
    unix_ms: u64,
) -> Result<(), StoreError> {
    let text = serde_json::to_string(rollout).map_err(StoreError::json("a rollout"))?;
    let next = next.map(serde_json::to_string).transpose();
    let next = next.map_err(StoreError::json("what follows a rollout"))?;
    let parts = rollout.parts();
    transaction
        .execute(
            "INSERT INTO rollout (service, id, plan_hash, is_final, boot_id, began_unix_ms, \
             kept_unix_ms, rollout, next) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8) \
             ON CONFLICT (service, id) DO UPDATE SET plan_hash = excluded.plan_hash, \
             is_final = excluded.is_final, boot_id = excluded.boot_id, \
             kept_unix_ms = max(kept_unix_ms, excluded.kept_unix_ms), rollout = excluded.rollout, \
             next = excluded.next",
            (
                &parts.service,
                parts.id,
                rollout.plan().hash(),
                rollout.phase().is_final(),
                boot_id,
                unix_ms,
                text,
                next,
            ),
        )
        .map_err(StoreError::sql("writing", path))?;
    Ok(())
}
