//! Disks that do not do what they should.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use rusqlite::Connection;

use super::{draft, fresh, open, origin, record, told};
use crate::store::{FILE, Store};

#[test]
fn a_broken_file_is_kept_and_named() {
    type Break = fn(&Path);
    let rows: [(&str, Break, &str); 3] = [
        (
            "not a database",
            |file| fs::write(file, "x".repeat(5_000)).expect("a disk"),
            "file is not a database",
        ),
        (
            "a page is overwritten",
            |file| {
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .open(file)
                    .expect("a file");
                file.seek(SeekFrom::Start(2 * 4_096)).expect("a place");
                file.write_all(&[0x5a; 4_096]).expect("a disk");
            },
            "",
        ),
        (
            "the end is missing",
            |file| {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(file)
                    .expect("a file");
                file.set_len(3 * 4_096).expect("a disk");
            },
            "",
        ),
    ];
    for (what, spoil, why) in rows {
        let (dir, mut store) = fresh();
        store.save("orders", &record(500)).expect("a disk");
        drop(store);
        let file = dir.path().join(FILE);
        spoil(&file);
        let spoiled = fs::read(&file).expect("a file");
        let (mut store, problems) = Store::open(dir.path(), origin("boot-1"));
        let text = problems.first().expect(what).clone();
        let aside = dir.path().join("shifter.db.unreadable");
        assert!(
            text.starts_with(&format!("{} cannot be understood (", file.display()))
                && text.contains(why)
                && text.ends_with(&format!(
                    "): kept as {}; weights are taken from the kernel",
                    aside.display()
                )),
            "{what}: {text}"
        );
        assert!(
            fs::read(&aside).expect("the kept file") == spoiled,
            "{what}"
        );
        assert_eq!(store.service("orders"), None, "{what}");
        store.save("orders", &record(900)).expect("a disk");
        // The audit says why it begins anew.
        assert_eq!(told(&mut store), [format!("1  chain {text}")]);
        drop(store);
        assert_eq!(open(dir.path()).service("orders"), Some(&record(900)));

        // Another one gets another name.
        spoil(&file);
        let (_, problems) = Store::open(dir.path(), origin("boot-1"));
        assert!(
            problems[0].contains("shifter.db.unreadable-2;"),
            "{what}: {problems:?}"
        );
        assert!(
            fs::read(&aside).expect("the kept file") == spoiled,
            "{what}"
        );
    }
}

#[test]
fn a_row_that_cannot_be_understood_costs_one_service() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    store.save("search", &record(100)).expect("a disk");
    drop(store);
    let file = dir.path().join(FILE);
    let connection = Connection::open(&file).expect("a database");
    connection
        .execute("UPDATE service SET record = '{' WHERE name = 'orders'", ())
        .expect("a change");
    drop(connection);
    let (store, told) = Store::open(dir.path(), origin("boot-1"));
    assert_eq!(
        told,
        [format!(
            "what {} says of orders cannot be understood (EOF while parsing an object at line 1 \
             column 1): its weight is taken from the kernel; it says {{",
            file.display()
        )]
    );
    assert_eq!(store.service("orders"), None);
    assert_eq!(store.service("search"), Some(&record(100)));
}

#[test]
fn a_directory_that_cannot_be_made_is_named_and_needed_for_nothing_but_keeping() {
    let dir = Path::new("/proc/nowhere/shifter");
    let (mut store, told) = Store::open(dir, origin("boot-1"));
    let why = "creating the state directory /proc/nowhere/shifter: No such file or directory (os \
               error 2)";
    assert_eq!(
        told,
        [format!(
            "{why}; weights are taken from the kernel, nothing new can be kept"
        )]
    );
    assert_eq!(store.service("orders"), None);
    let error = store
        .save("orders", &record(500))
        .expect_err("no such place");
    assert_eq!(error.to_string(), why);
    assert_eq!(store.trouble(), Some(why));
    let (rollouts, problems) = store.rollouts().expect("nothing");
    assert!(rollouts.is_empty() && problems.is_empty());
}

/// What is known of before, and that the store mends itself when the disk does.
#[test]
fn without_a_disk_what_it_says_is_known_and_it_is_tried_again() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    // A crash: part of it is in the log alone.
    let crashed = tempfile::tempdir().expect("a temporary directory");
    for name in [FILE, "shifter.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).expect("a copy");
    }
    // A directory in the place of one of SQLite's files stops it, for root too.
    let obstacle = crashed.path().join("shifter.db-shm");
    fs::create_dir(&obstacle).expect("a disk");
    let (mut store, problems) = Store::open(crashed.path(), origin("boot-1"));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("what it says of 1 service is known, nothing new can be kept"),
        "{problems:?}"
    );
    assert_eq!(store.service("orders"), Some(&record(500)));
    store.note(draft("orders", "rollback"));
    let error = store.save("orders", &record(0)).expect_err("no disk");
    assert!(error.to_string().contains("shifter.db: "), "{error}");
    assert_eq!(store.service("orders"), Some(&record(500)));
    fs::remove_dir(&obstacle).expect("a disk");
    store.save("orders", &record(0)).expect("a disk again");
    assert_eq!(store.trouble(), None);
    assert_eq!(
        told(&mut store),
        ["1  chain a new chain begins", "2 orders rollback"]
    );
}

#[test]
fn a_failed_write_leaves_everything_as_it_was() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    let lock = Connection::open(dir.path().join(FILE)).expect("a database");
    lock.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    store.note(draft("orders", "weight"));
    let error = store.save("orders", &record(900)).expect_err("locked");
    assert_eq!(
        error.to_string(),
        format!(
            "writing {}: database is locked",
            dir.path().join(FILE).display()
        )
    );
    assert_eq!(store.service("orders"), Some(&record(500)));
    lock.execute_batch("ROLLBACK").expect("a lock");
    assert_eq!(told(&mut store), ["1  chain a new chain begins"]);
    store.save("orders", &record(900)).expect("a disk");
    assert_eq!(
        told(&mut store),
        ["1  chain a new chain begins", "2 orders weight"]
    );
}

/// Full, for SQLite: it may not have one page more.
#[test]
fn a_full_disk_is_named() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    let disk = store.disk.as_ref().expect("a disk");
    let pages_count: u32 = disk
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .expect("a number");
    disk.pragma_update_and_check(None, "max_page_count", pages_count, |_| Ok(()))
        .expect("a limit");
    let long = "x".repeat(100_000);
    store.note(draft("orders", &long));
    let error = store.flush().expect_err("full").to_string();
    assert_eq!(
        error,
        format!(
            "writing {}: database or disk is full",
            dir.path().join(FILE).display()
        )
    );
    assert!(!store.waiting.is_empty());
    let disk = store.disk.as_ref().expect("a disk");
    disk.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
        .expect("a limit");
    store.flush().expect("room again");
    assert_eq!(told(&mut store).len(), 2);
}

/// The disk tears a page while the daemon is at work.
#[test]
fn a_file_that_breaks_in_use_is_put_aside_and_what_is_known_is_written_anew() {
    let (dir, mut store) = fresh();
    store.save("orders", &record(500)).expect("a disk");
    store.save("search", &record(100)).expect("a disk");
    let disk = store.disk.as_ref().expect("a disk");
    disk.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
        .expect("a checkpoint");
    disk.execute_batch("PRAGMA shrink_memory")
        .expect("no cache");
    let file = dir.path().join(FILE);
    let length = fs::metadata(&file).expect("a file").len();
    let mut spoilt = fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("a file");
    spoilt.seek(SeekFrom::Start(4_096)).expect("a place");
    spoilt
        .write_all(&vec![0x5a; length as usize - 4_096])
        .expect("a disk");
    store.note(draft("orders", "weight"));
    let error = store.save("orders", &record(900)).expect_err("broken");
    assert!(
        error.to_string().contains("cannot be understood"),
        "{error}"
    );
    assert_eq!(store.service("orders"), Some(&record(500)));
    store.save("orders", &record(900)).expect("a new file");
    let told = told(&mut store);
    assert!(told[0].contains("shifter.db.unreadable"), "{told:?}");
    assert_eq!(told[1..], ["2 orders weight"]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.service("orders"), Some(&record(900)));
    assert_eq!(store.service("search"), Some(&record(100)));
}
