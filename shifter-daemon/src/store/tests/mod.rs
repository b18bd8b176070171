//! The store against real files.

mod auditing;
mod faults;
mod migrating;
mod rolling;

use std::{fs, path::Path};

use shifter_common::{steering::Slot, wire::AuditRecord};
use tempfile::TempDir;

use super::{AuditQuery, Origin, Store};
use crate::control::ServiceRecord;

fn origin(boot_id: &str) -> Origin {
    Origin {
        host: "web-1".into(),
        boot_id: boot_id.into(),
    }
}

/// A store in which nothing is amiss.
fn open(dir: &Path) -> Store {
    let (store, told) = Store::open(dir, origin("boot-1"));
    assert_eq!(told, Vec::<String>::new());
    store
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    (dir, store)
}

/// What a crash at this instant would leave, opened again.
fn after_a_crash(dir: &Path) -> (TempDir, Store) {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if entry.file_type().expect("a type").is_file() && !name.to_string_lossy().ends_with("-shm")
        {
            fs::copy(entry.path(), copy.path().join(name)).expect("a copy");
        }
    }
    let store = open(copy.path());
    (copy, store)
}

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

fn draft(service: &str, verb: &str) -> AuditRecord {
    AuditRecord {
        unix_ms: 7,
        service: service.into(),
        verb: verb.into(),
        ..AuditRecord::default()
    }
}

/// The audit: number, service, verb and reason of each record.
fn told(store: &mut Store) -> Vec<String> {
    let records = records(store).into_iter();
    records
        .map(|r| {
            format!("{} {} {} {}", r.seq, r.service, r.verb, r.reason)
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn lines(store: &mut Store) -> Vec<String> {
    let all = AuditQuery {
        after: Some(0),
        limit: 1_000,
        ..AuditQuery::default()
    };
    store.audit(&all).expect("a readable disk").lines
}

fn records(store: &mut Store) -> Vec<AuditRecord> {
    let lines = lines(store).into_iter();
    lines
        .map(|line| serde_json::from_str(&line).expect("a record"))
        .collect()
}

#[test]
fn what_was_saved_is_there_after_a_crash() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    store.save("search", &record(0)).expect("a disk");
    store.save("orders", &record(900)).expect("a disk");
    let (_copy, again) = after_a_crash(dir.path());
    assert_eq!(again.service("orders"), Some(&record(900)));
    assert_eq!(again.service("search"), Some(&record(0)));
    assert_eq!(again.service("other"), None);
}

#[test]
fn the_number_of_a_version_only_grows() {
    let (dir, mut store) = fresh();
    assert_eq!(store.last_version_id(), 0);
    store.save("orders", &record(500)).expect("a disk");
    for (noted, last) in [(7, 7), (3, 7), (12, 12)] {
        store.note_version_id(noted).expect("a disk");
        assert_eq!(store.last_version_id(), last);
        let (_copy, again) = after_a_crash(dir.path());
        assert_eq!(again.last_version_id(), last);
        assert_eq!(again.service("orders"), Some(&record(500)));
    }
}

#[test]
fn bypassed_services_are_listed() {
    let (_dir, mut store) = fresh();
    let bypassed = ServiceRecord {
        bypassed: Some(crate::control::Drained {
            by: "root (uid 0)".into(),
            since_unix_ms: 1,
        }),
        ..record(0)
    };
    store.save("orders", &bypassed).expect("a disk");
    store.save("search", &record(0)).expect("a disk");
    assert_eq!(store.bypassed(), ["orders"]);
}

/// Nobody but root and the daemon's group reads what operators do.
#[test]
fn the_file_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    for name in ["shifter.db", "shifter.db-wal", "shifter.db-shm"] {
        let mode = fs::metadata(dir.path().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o027, 0, "{name} {mode:o}");
    }
}

/// What a commit promises: that it is on the disk, not on its way there.
#[test]
fn a_commit_waits_for_the_disk() {
    let (_dir, store) = fresh();
    let disk = store.disk.as_ref().expect("a disk");
    let synchronous: u32 = disk
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .expect("a number");
    let mode: String = disk
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("a mode");
    assert_eq!((synchronous, mode.as_str()), (2, "wal"), "FULL");
}
