//! Records of the audit, as they were written.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use shifter_common::{
    audit::{Chain, Link},
    wire::{AuditActor, AuditRecord},
};

use super::{Store, fault::StoreError, schema};

/// Which records to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Those that follow this one, oldest first; the newest ones unless given, which come oldest first
    /// too.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: u32,
    /// Only those of this service.
    pub service: Option<String>,
    /// Of these, only those of this rollout.
    pub rollout: Option<u64>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditLines {
    /// The records, byte by byte as they were written.
    pub lines: Vec<String>,
    /// Number of the newest record on disk; 0 if there is none.
    pub last_seq: u64,
    /// Records that wait for the disk.
    pub unwritten_count: u64,
    /// Why they do.
    pub trouble: String,
}

impl Store {
    /// Reads records.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn audit(&mut self, query: &AuditQuery) -> Result<AuditLines, StoreError> {
        self.attach(&mut Vec::new())?;
        let mut found = AuditLines {
            lines: Vec::new(),
            last_seq: self.chain.seq(),
            unwritten_count: self.waiting.len() as u64 + self.lost_count,
            trouble: self.trouble.clone().unwrap_or_default(),
        };
        if let Some(connection) = &self.disk {
            found.lines =
                read(connection, query).map_err(StoreError::sql("reading", &self.path))?;
        }
        Ok(found)
    }
}

fn read(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<String>> {
    let order = if query.after.is_some() { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT line FROM audit WHERE seq > ?1 AND (?2 IS NULL OR service = ?2) \
         AND (?3 IS NULL OR rollout = ?3) ORDER BY seq {order} LIMIT ?4"
    );
    let mut statement = connection.prepare(&sql)?;
    // Numbers in a file are signed; none is larger than that.
    let after = i64::try_from(query.after.unwrap_or(0)).unwrap_or(i64::MAX);
    let rollout = query.rollout.map(|id| i64::try_from(id).unwrap_or(-1));
    let rows = statement.query_map((after, &query.service, rollout, query.limit), |row| {
        row.get(0)
    })?;
    let mut lines: Vec<String> = rows.collect::<rusqlite::Result<_>>()?;
    if query.after.is_none() {
        lines.reverse();
    }
    Ok(lines)
}

/// The name of the chain in a file, and its end.
pub(super) fn tip(connection: &Connection, path: &Path) -> Result<(String, Chain), StoreError> {
    let refused = StoreError::sql("reading", path);
    let name = connection
        .query_row(
            "SELECT value FROM meta WHERE key = ?1",
            [schema::CHAIN_KEY],
            |row| row.get(0),
        )
        .map_err(&refused)?;
    let last: Option<(u64, String)> = connection
        .query_row(
            "SELECT seq, line FROM audit ORDER BY seq DESC LIMIT 1",
            (),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(&refused)?;
    let chain = match last {
        None => Chain::default(),
        // A record that somebody broke is followed as it stands: what comes after it is sound in itself,
        // and to verify the chain finds the place.
        Some((seq, line)) => {
            let hash = Link::of(&line).map_or_else(
                || shifter_common::audit::hash(&line),
                |link| link.hash.to_owned(),
            );
            Chain::after(seq, hash)
        }
    };
    Ok((name, chain))
}

/// The daemon as an actor.
pub(super) fn daemon() -> AuditActor {
    AuditActor {
        user: "shifterd".into(),
        how: "daemon".into(),
        ..AuditActor::default()
    }
}

/// The first record of a chain.
pub(super) fn beginning(reason: String) -> AuditRecord {
    AuditRecord {
        actor: daemon(),
        verb: "chain".into(),
        reason,
        ..AuditRecord::default()
    }
}

/// What stands for records that were given up.
pub(super) fn gap(lost_count: u64) -> AuditRecord {
    beginning(format!(
        "{lost_count} records were lost, since the disk refused more than can wait for it"
    ))
}
