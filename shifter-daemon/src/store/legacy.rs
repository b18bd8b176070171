//! `state.json`, in which earlier versions kept decisions.

use std::{collections::BTreeMap, fs, io, path::Path};

use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use super::{disk, fault::StoreError, version};
use crate::control::ServiceRecord;

const FILE: &str = "state.json";
const FORMAT: u32 = 1;

/// Its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateRecord {
    /// Version of this format, 1.
    pub format: u32,
    /// Decisions by service.
    pub services: BTreeMap<String, ServiceRecord>,
    /// The last number that a version was given. It only grows.
    #[serde(default)]
    pub last_version_id: u32,
}

/// Takes over what an earlier version wrote, and puts its file aside. As long as it is there, it is newer
/// than anything here: only an earlier version that ran since can have written it. Gives what a person
/// should know.
///
/// # Errors
/// If the file cannot be read or put aside, or the store cannot be written.
pub(super) fn import(
    connection: &mut Connection,
    store: &Path,
) -> Result<Option<String>, StoreError> {
    let path = store.with_file_name(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("reading", &path)(error)),
    };
    let problem = match serde_json::from_slice::<StateRecord>(&bytes) {
        Ok(record) if record.format == FORMAT => {
            write(connection, store, &record)?;
            let aside = disk::put_aside(&path, "migrated")?;
            return Ok(Some(format!(
                "the decisions of {} are in {} now; it is kept as {}",
                path.display(),
                store.display(),
                aside.display()
            )));
        }
        Ok(record) => format!("format {} is not {FORMAT}", record.format),
        Err(error) => error.to_string(),
    };
    let aside = disk::put_aside(&path, "unreadable")?;
    Ok(Some(format!(
        "{} cannot be understood ({problem}): kept as {}; weights are taken from the kernel",
        path.display(),
        aside.display()
    )))
}

fn write(connection: &mut Connection, store: &Path, state: &StateRecord) -> Result<(), StoreError> {
    let refused = StoreError::sql("writing", store);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&refused)?;
    for (name, record) in &state.services {
        let text = serde_json::to_string(record).map_err(StoreError::json("a decision"))?;
        transaction
            .execute(
                "INSERT OR REPLACE INTO service (name, record) VALUES (?1, ?2)",
                (name, text),
            )
            .map_err(&refused)?;
    }
    if state.last_version_id > 0 {
        version::put(&transaction, state.last_version_id).map_err(&refused)?;
    }
    transaction.commit().map_err(&refused)
}
