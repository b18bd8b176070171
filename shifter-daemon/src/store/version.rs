//! The last number that a version was given.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::{Store, fault::StoreError, write::Batch};

/// Its key in `meta`.
const KEY: &str = "last_version_id";

impl Store {
    /// The last number that a version was given; 0 if none was.
    pub fn last_version_id(&self) -> u32 {
        self.last_version_id
    }

    /// Notes that versions were given numbers up to this one. When it returns that is on disk.
    ///
    /// # Errors
    /// If the disk refuses; what is on it is then as it was.
    pub fn note_version_id(&mut self, version_id: u32) -> Result<(), StoreError> {
        if version_id <= self.last_version_id {
            return Ok(());
        }
        self.write(Batch {
            version_id: Some(version_id),
            ..Batch::default()
        })
    }
}

/// Reads it.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [KEY], |row| {
            row.get(0)
        })
        .optional()
        .map_err(StoreError::sql("reading", path))?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Writes it. It only grows.
pub(super) fn put(transaction: &Transaction<'_>, version_id: u32) -> rusqlite::Result<usize> {
    transaction.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value \
         WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
        (KEY, version_id.to_string()),
    )
}
