//! Files of earlier and later versions.

use std::fs;

use rusqlite::Connection;

use super::{fresh, open, origin, record};
use crate::store::{FILE, Store, legacy::StateRecord, schema};

fn state_json(weight_bp: u16) -> String {
    let services = [("orders".to_owned(), record(weight_bp))].into();
    let state = StateRecord {
        format: 1,
        services,
        last_version_id: 7,
    };
    serde_json::to_string_pretty(&state).expect("JSON")
}

#[test]
fn decisions_of_an_earlier_version_are_taken_over_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let old = dir.path().join("state.json");
    fs::write(&old, state_json(500)).expect("a disk");
    let (mut store, told) = Store::open(dir.path(), origin("boot-1"));
    assert_eq!(
        told,
        [format!(
            "the decisions of {0}/state.json are in {0}/shifter.db now; it is kept as \
             {0}/state.json.migrated",
            dir.path().display()
        )]
    );
    assert_eq!(store.service("orders"), Some(&record(500)));
    assert_eq!(store.last_version_id(), 7);
    let kept = fs::read_to_string(dir.path().join("state.json.migrated"));
    assert_eq!(kept.expect("the kept file"), state_json(500));
    assert!(!old.exists());
    store.save("orders", &record(900)).expect("a disk");
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(store.service("orders"), Some(&record(900)));
    store.flush().expect("a disk");
    drop(store);

    // An earlier version ran again in between.
    fs::write(&old, state_json(100)).expect("a disk");
    let (store, told) = Store::open(dir.path(), origin("boot-1"));
    assert!(told[0].ends_with("state.json.migrated-2"), "{told:?}");
    assert_eq!(store.service("orders"), Some(&record(100)));
}

#[test]
fn a_broken_file_of_an_earlier_version_is_kept_and_named() {
    for (text, why) in [
        ("{", "EOF"),
        ("{\"format\":9,\"services\":{}}", "format 9 is not 1"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("state.json"), text).expect("a disk");
        let (store, told) = Store::open(dir.path(), origin("boot-1"));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains(why) && told[0].contains("state.json.unreadable"),
            "{told:?}"
        );
        assert_eq!(store.service("orders"), None);
        let kept = fs::read_to_string(dir.path().join("state.json.unreadable"));
        assert_eq!(kept.expect("the kept file"), text);
    }
}

/// A downgrade must not cost what the later version knows.
#[test]
fn a_file_of_a_later_version_is_left_alone() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    drop(store);
    let file = dir.path().join(FILE);
    let connection = Connection::open(&file).expect("a database");
    connection
        .execute_batch("PRAGMA user_version = 77; ALTER TABLE audit ADD COLUMN later TEXT")
        .expect("a change");
    drop(connection);
    let before = fs::read(&file).expect("a file");

    let (mut store, told) = Store::open(dir.path(), origin("boot-1"));
    let newest = schema::NEWEST;
    let refusal = format!(
        "{} was written by a newer shifterd (schema 77; this one knows up to {newest}) and is left \
         alone: install that version again, or move the file away",
        file.display()
    );
    assert_eq!(
        told,
        [format!(
            "{refusal}; what it says of 1 service is known, nothing new can be kept"
        )]
    );
    assert_eq!(store.service("orders"), Some(&record(500)));
    let error = store.save("orders", &record(900)).expect_err("refused");
    assert_eq!(error.to_string(), refusal);
    drop(store);
    assert!(fs::read(&file).expect("a file") == before, "left alone");
}

/// Each step is tried on what the one before leaves.
#[test]
fn every_schema_is_brought_to_the_newest() {
    for from in 0..=schema::STEPS.len() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let connection = Connection::open(dir.path().join(FILE)).expect("a database");
        for step in &schema::STEPS[..from] {
            connection.execute_batch(step).expect("a step");
        }
        if from > 0 {
            connection
                .execute("INSERT INTO meta VALUES ('chain', '0123456789abcdef')", ())
                .expect("a name");
        }
        connection
            .pragma_update(None, "user_version", from as u32)
            .expect("a version");
        drop(connection);
        let mut store = open(dir.path());
        store.save("orders", &record(500)).expect("a disk");
        drop(store);
        let connection = Connection::open(dir.path().join(FILE)).expect("a database");
        let version = schema::version(&connection).expect("a version");
        assert_eq!(version, schema::NEWEST, "from {from}");
    }
}
