//! Records, their chain, and what a crash between decision and deed leaves.

use std::fs;

use rusqlite::Connection;
use shifter_common::{
    audit::{Chain, NOTHING_BEFORE},
    wire::{AuditActor, AuditRecord},
};

use super::{AuditQuery, after_a_crash, draft, fresh, lines, open, origin, record, records, told};
use crate::store::{FILE, Store};

fn verify(lines: &[String]) -> Result<u64, String> {
    let mut chain = Chain::default();
    for line in lines {
        chain.follow(line).map_err(|broken| broken.to_string())?;
    }
    Ok(chain.seq())
}

#[test]
fn a_chain_begins_with_its_beginning_and_goes_on_in_the_next_life() {
    let (dir, mut store) = fresh();
    assert!(
        !store.waiting.is_empty(),
        "the beginning is written with the rest"
    );
    store.note(draft("orders", "weight"));
    store.flush().expect("a disk");
    assert!(store.waiting.is_empty());
    drop(store);
    let mut store = open(dir.path());
    assert!(store.waiting.is_empty(), "no second beginning");
    store.note(draft("orders", "rollback"));
    store.save("orders", &record(0)).expect("a disk");
    assert_eq!(
        told(&mut store),
        [
            "1  chain a new chain begins",
            "2 orders weight",
            "3 orders rollback"
        ]
    );
    let lines = lines(&mut store);
    assert_eq!(verify(&lines), Ok(3));
    let records = records(&mut store);
    assert_eq!(records[0].prev, NOTHING_BEFORE);
    assert!(records[0].unix_ms > 1_000_000_000_000, "now");
    assert_eq!(records[1].unix_ms, 7, "as it says");
    for (record, seq) in records.iter().zip(1..) {
        assert_eq!((&*record.host, &*record.boot_id), ("web-1", "boot-1"));
        let (chain, number) = record.id.split_once('-').expect("a number");
        assert_eq!((chain.len(), number), (16, &*format!("{seq}")));
        assert_eq!(chain, &records[0].id[..16]);
    }
}

/// Every field gets to the disk and back.
#[test]
fn a_record_is_read_as_it_was_written() {
    let (_dir, mut store) = fresh();
    let full = AuditRecord {
        unix_ms: 1_764_107_000_123,
        service: "orders".into(),
        rollout: Some(4),
        version: "3.2.0".into(),
        old_version: "3.1.9".into(),
        config_hash: "c0ffee".into(),
        actor: AuditActor {
            uid: Some(0),
            user: "root".into(),
            how: "api".into(),
            loginuid: Some(1000),
        },
        verb: "phase".into(),
        slot: Some(shifter_common::steering::Slot::B),
        reason: "it said \"no\", \u{e4}h,\n\"hash\":\"".into(),
        from: "baking 1".into(),
        to: "rolling back".into(),
        step: Some(1),
        weight_before_bp: 500,
        weight_after_bp: 0,
        metrics: vec![Default::default()],
        gates: vec![Default::default()],
        flows: Some(Default::default()),
        program_tag: "0123456789abcdef".into(),
        generation: 9,
        took_ns: 41,
        ..AuditRecord::default()
    };
    store.note(full.clone());
    store.flush().expect("a disk");
    let read = records(&mut store).pop().expect("a record");
    let expected = AuditRecord {
        seq: read.seq,
        prev: read.prev.clone(),
        id: read.id.clone(),
        host: read.host.clone(),
        boot_id: read.boot_id.clone(),
        hash: read.hash.clone(),
        ..full
    };
    assert_eq!(read, expected);
    assert_eq!(verify(&lines(&mut store)), Ok(2));
}

#[test]
fn records_are_found_by_place_service_and_rollout() {
    let (_dir, mut store) = fresh();
    for (service, rollout) in [("orders", Some(1)), ("search", None), ("orders", Some(2))] {
        store.note(AuditRecord {
            rollout,
            ..draft(service, "phase")
        });
    }
    store.flush().expect("a disk");
    let mut ask = |after, limit, service: Option<&str>, rollout| {
        let query = AuditQuery {
            after,
            limit,
            service: service.map(Into::into),
            rollout,
        };
        let found = store.audit(&query).expect("a disk");
        assert_eq!((found.last_seq, found.unwritten_count), (4, 0));
        let links = found.lines.iter();
        links
            .map(|line| shifter_common::audit::Link::of(line).expect("a record").seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(None, 2, None, None), [3, 4], "the newest, oldest first");
    assert_eq!(ask(Some(0), 2, None, None), [1, 2]);
    assert_eq!(ask(Some(2), 9, None, None), [3, 4]);
    assert_eq!(ask(None, 9, Some("orders"), None), [2, 4]);
    assert_eq!(ask(Some(2), 9, Some("orders"), None), [4]);
    assert_eq!(ask(None, 9, Some("orders"), Some(1)), [2]);
    assert_eq!(ask(Some(u64::MAX), 9, None, None), [] as [u64; 0]);
}

/// The decision was on disk, the kernel may not have been told.
#[test]
fn a_crash_between_decision_and_deed_is_told_by_the_next_life() {
    let (dir, mut store) = fresh();
    let intent = AuditRecord {
        reason: "weight 0 % -> 5 %".into(),
        ..draft("orders", "weight")
    };
    store
        .decide("orders", &record(500), intent)
        .expect("a disk");
    let (copy, mut again) = after_a_crash(dir.path());
    assert_eq!(again.service("orders"), Some(&record(500)));
    again.flush().expect("a disk");
    let expected = [
        "1  chain a new chain begins",
        "2 orders weight weight 0 % -> 5 %; decided and on disk, but shifterd ended before it could \
         say whether it was in force",
    ];
    assert_eq!(told(&mut again), expected);
    drop(again);
    let mut third = open(copy.path());
    assert!(third.waiting.is_empty(), "it is told once");
    assert_eq!(told(&mut third), expected);

    // Without a crash what became of it is told, once.
    store.note(draft("orders", "weight"));
    store.save("orders", &record(500)).expect("a disk");
    let (_copy, mut again) = after_a_crash(dir.path());
    assert_eq!(
        told(&mut again),
        ["1  chain a new chain begins", "2 orders weight"]
    );
    assert!(again.waiting.is_empty());
}

/// Somebody with a root shell and sqlite3.
#[test]
fn what_was_changed_in_the_file_is_found() {
    let (dir, mut store) = fresh();
    for verb in ["weight", "rollback", "drain"] {
        store.note(draft("orders", verb));
    }
    store.flush().expect("a disk");
    drop(store);
    let meddle = |sql: &str| {
        let connection = Connection::open(dir.path().join(FILE)).expect("a database");
        connection.execute_batch(sql).expect(sql);
    };
    meddle("UPDATE audit SET line = replace(line, 'rollback', 'weight') WHERE seq = 3");
    assert_eq!(
        verify(&lines(&mut open(dir.path()))),
        Err("record 3 was changed: its text has another hash than it carries".into())
    );
    meddle("DELETE FROM audit WHERE seq = 3");
    assert_eq!(
        verify(&lines(&mut open(dir.path()))),
        Err("record 3 is missing".into())
    );
    // Even then the chain goes on.
    let mut store = open(dir.path());
    store.note(draft("orders", "weight"));
    store.flush().expect("a disk");
    let last = records(&mut store).pop().expect("a record");
    assert_eq!((last.seq, &*last.verb), (5, "weight"));
}

/// A broken last record does not keep the daemon from recording.
#[test]
fn a_broken_end_is_followed_as_it_stands() {
    let (dir, mut store) = fresh();
    store.note(draft("orders", "weight"));
    store.flush().expect("a disk");
    drop(store);
    let connection = Connection::open(dir.path().join(FILE)).expect("a database");
    connection
        .execute("UPDATE audit SET line = 'x' WHERE seq = 2", ())
        .expect("a change");
    drop(connection);
    let mut store = open(dir.path());
    store.note(draft("orders", "rollback"));
    store.flush().expect("a disk");
    assert_eq!(
        verify(&lines(&mut store)),
        Err("what follows record 1 is no record of a chain".into())
    );
    assert_eq!(lines(&mut store).len(), 3);
}

/// A file of another life stays as it was when somebody else's is put in its place.
#[test]
fn each_chain_has_a_name_of_its_own() {
    let names: Vec<String> = (0..2)
        .map(|_| {
            let (_dir, mut store) = fresh();
            store.flush().expect("a disk");
            records(&mut store)[0].id.clone()
        })
        .collect();
    assert_ne!(names[0], names[1]);
}

/// A disk that refuses for a long time costs the oldest records, and the audit says so.
#[test]
fn more_than_can_wait_is_counted() {
    let (dir, mut store) = fresh();
    store.flush().expect("a disk");
    let lock = Connection::open(dir.path().join(FILE)).expect("a database");
    lock.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    for _ in 0..10_003 {
        store.note(draft("orders", "weight"));
    }
    let error = store.flush().expect_err("locked").to_string();
    let file = dir.path().join(FILE);
    assert_eq!(
        error,
        format!("writing {}: database is locked", file.display())
    );
    assert_eq!(store.trouble(), Some(&*error));
    let found = store.audit(&AuditQuery::default()).expect("reads");
    assert_eq!(
        (found.last_seq, found.unwritten_count, found.trouble),
        (1, 10_003, error)
    );
    lock.execute_batch("ROLLBACK").expect("a lock");
    store.flush().expect("a disk");
    assert_eq!(store.trouble(), None);
    let gap = &records(&mut store)[1];
    assert_eq!(
        gap.reason,
        "3 records were lost, since the disk refused more than can wait for it"
    );
    let last = store.audit(&AuditQuery::default()).expect("reads").last_seq;
    assert_eq!(last, 10_002);
    fs::metadata(&file).expect("a file");
    let (_, told) = Store::open(dir.path(), origin("boot-2"));
    assert_eq!(told, Vec::<String>::new());
}
