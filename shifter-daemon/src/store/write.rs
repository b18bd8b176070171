//! One transaction for what belongs together.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use shifter_common::{
    audit::{Chain, seal},
    wire::AuditRecord,
};

use super::{Revision, Store, audit, fault::StoreError, revision, rollout, version};
use crate::{
    control::ServiceRecord,
    rollout::{Rollout, Wanted},
};

/// Records that wait for the disk at most.
const WAITING_MAX_COUNT: usize = 10_000;

/// What is written together.
#[derive(Default)]
pub(super) struct Batch<'a> {
    /// A decision.
    pub service: Option<(&'a str, &'a ServiceRecord)>,
    /// The last number that a version was given.
    pub version_id: Option<u32>,
    /// What is about to be put in force.
    pub intent: Option<AuditRecord>,
    /// A rollout as it is now, and what is to follow it.
    pub rollout: Option<(&'a Rollout, Option<&'a Wanted>)>,
    /// Its place in the history.
    pub revision: Option<&'a Revision>,
    /// Records that belong to it, and are dropped with it if the disk refuses.
    pub records: Vec<AuditRecord>,
}

/// A record that was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    record: AuditRecord,
    hash: String,
}

impl Store {
    /// Takes a record that goes to the disk with whatever is written next.
    pub fn note(&mut self, record: AuditRecord) {
        let record = self.sign(record);
        if self.waiting.len() >= WAITING_MAX_COUNT {
            self.waiting.pop_front();
            self.lost_count += 1;
        }
        self.waiting.push_back(record);
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// If the disk refuses; then it goes on waiting.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.write(Batch::default())
    }

    /// Writes a batch with all records that wait, all or nothing.
    pub(super) fn write(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        let result = self.try_write(&batch);
        match &result {
            Ok(()) => {
                if let Some((name, record)) = batch.service {
                    self.services.insert(name.to_owned(), record.clone());
                }
                if let Some(version_id) = batch.version_id {
                    self.last_version_id = version_id;
                }
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                if error.asks_for_a_new_beginning() {
                    // The next attempt opens the file again, and puts it aside if it is broken.
                    self.disk = None;
                }
            }
        }
        result
    }

    fn try_write(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let mut told = Vec::new();
        self.attach(&mut told)?;
        for text in told {
            tracing::warn!("{text}");
        }
        let gap = (self.lost_count > 0).then(|| self.sign(audit::gap(self.lost_count)));
        let path = self.path.clone();
        let Some(connection) = self.disk.as_mut() else {
            return Ok(());
        };
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::sql("writing", &path))?;
        let records = gap.iter().chain(&self.waiting).chain(&batch.records);
        let mut chain = self.chain.clone();
        let mut written = Vec::new();
        for record in records {
            let name = &self.chain_name;
            written.push(append(&transaction, &path, &mut chain, name, record)?);
        }
        put(&transaction, &path, &self.origin.boot_id, batch)?;
        transaction
            .commit()
            .map_err(StoreError::sql("writing", &path))?;
        self.chain = chain;
        self.waiting.clear();
        self.lost_count = 0;
        self.trouble = None;
        for Written { record, hash } in &written {
            tracing::info!(
                audit_seq = record.seq,
                audit_hash = %hash,
                audit_id = %record.id,
                service = %record.service,
                verb = %record.verb,
                "audit"
            );
        }
        Ok(())
    }

    /// Completes a record with where it comes from, and when unless it says so.
    pub(super) fn sign(&self, mut record: AuditRecord) -> AuditRecord {
        if record.unix_ms == 0 {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            record.unix_ms = since.map_or(0, |since| since.as_millis() as u64);
        }
        record.host.clone_from(&self.origin.host);
        record.boot_id.clone_from(&self.origin.boot_id);
        record
    }
}

fn append(
    transaction: &Transaction<'_>,
    path: &Path,
    chain: &mut Chain,
    chain_name: &str,
    record: &AuditRecord,
) -> Result<Written, StoreError> {
    let seq = chain.seq() + 1;
    let record = AuditRecord {
        seq,
        prev: chain.hash().to_owned(),
        id: format!("{chain_name}-{seq}"),
        hash: String::new(),
        ..record.clone()
    };
    let body = serde_json::to_string(&record).map_err(StoreError::json("a record of the audit"))?;
    let (line, hash) = seal(&body);
    transaction
        .execute(
            "INSERT INTO audit (seq, service, rollout, line) VALUES (?1, ?2, ?3, ?4)",
            (seq, &record.service, record.rollout, line),
        )
        .map_err(StoreError::sql("writing", path))?;
    *chain = Chain::after(seq, hash.clone());
    Ok(Written { record, hash })
}

fn put(
    transaction: &Transaction<'_>,
    path: &Path,
    boot_id: &str,
    batch: &Batch<'_>,
) -> Result<(), StoreError> {
    let refused = StoreError::sql("writing", path);
    if let Some((name, record)) = batch.service {
        let text = serde_json::to_string(record).map_err(StoreError::json("a decision"))?;
        transaction
            .execute(
                "INSERT INTO service (name, record) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                (name, text),
            )
            .map_err(&refused)?;
    }
    if let Some(version_id) = batch.version_id {
        version::put(transaction, version_id).map_err(&refused)?;
    }
    // Whatever was intended before has come to something that was written, or is written now.
    transaction
        .execute("DELETE FROM intent", ())
        .map_err(&refused)?;
    if let Some(intent) = &batch.intent {
        let text = serde_json::to_string(intent).map_err(StoreError::json("an intent"))?;
        transaction
            .execute("INSERT INTO intent (record) VALUES (?1)", (text,))
            .map_err(&refused)?;
    }
    if let Some(rollout) = batch.rollout {
        let unix_ms = batch.records.last().map_or(0, |record| record.unix_ms);
        rollout::put(transaction, path, boot_id, rollout, unix_ms)?;
    }
    if let Some(revision) = batch.revision {
        revision::put(transaction, revision).map_err(&refused)?;
    }
    Ok(())
}

/// What a life of the daemon intended that ended before it could say what became of it.
pub(super) fn left_intents(
    connection: &Connection,
    path: &Path,
) -> Result<Vec<AuditRecord>, StoreError> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT record FROM intent ORDER BY id")?;
        let rows = statement.query_map((), |row| row.get(0))?;
        rows.collect()
    };
    let texts = read().map_err(StoreError::sql("reading", path))?;
    let records = texts.iter().filter_map(|text| {
        let mut record: AuditRecord = serde_json::from_str(text).ok()?;
        record.reason +=
            "; decided and on disk, but shifterd ended before it could say whether it was in force";
        Some(record)
    });
    Ok(records.collect())
}
