//! Tables, and the way from each older form of them to the present one.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{fault::StoreError, origin};

/// What leads from each schema to the next, the first from an empty file. A step that was shipped changes
/// no more.
pub(super) const STEPS: &[&str] = &["
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE service (
    name TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE intent (
    id INTEGER PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE rollout (
    service TEXT NOT NULL,
    id INTEGER NOT NULL,
    plan_hash TEXT NOT NULL,
    is_final INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    began_unix_ms INTEGER NOT NULL,
    kept_unix_ms INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    next TEXT,
    PRIMARY KEY (service, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE revision (
    service TEXT NOT NULL,
    number INTEGER NOT NULL,
    slot TEXT NOT NULL,
    version TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    rollout INTEGER,
    unix_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (service, number)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX revision_rollout ON revision (service, rollout) WHERE rollout IS NOT NULL;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    rollout INTEGER,
    line TEXT NOT NULL
) STRICT;
CREATE INDEX audit_service ON audit (service, rollout, seq);
"];

/// Key of the chain's name.
pub(super) const CHAIN_KEY: &str = "chain";

/// The newest schema that this version knows.
pub(super) const NEWEST: u32 = STEPS.len() as u32;

/// Brings a file to the newest schema, in one transaction.
///
/// # Errors
/// If a newer daemon wrote it, or the disk refuses.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let refused = StoreError::sql("preparing", path);
    let found = version(connection).map_err(&refused)?;
    if found > NEWEST {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: NEWEST,
        });
    }
    if found == NEWEST {
        return Ok(());
    }
    let name = origin::new_name().map_err(StoreError::io("naming the chain of", path))?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&refused)?;
    for step in STEPS.iter().skip(found as usize) {
        transaction.execute_batch(step).map_err(&refused)?;
    }
    transaction
        .execute(
            "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)",
            (CHAIN_KEY, name),
        )
        .map_err(&refused)?;
    transaction
        .pragma_update(None, "user_version", NEWEST)
        .map_err(&refused)?;
    transaction.commit().map_err(&refused)
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
