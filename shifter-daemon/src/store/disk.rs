//! The file itself: opened, put aside, or read from a copy.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{fault::StoreError, rollout, rollout::KeptRollout, schema, service};
use crate::control::ServiceRecord;

/// How long a write waits for somebody else who holds the file; the driver waits with it.
const BUSY: Duration = Duration::from_millis(100);

/// What SQLite adds to the name of a database for its other files.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Copies that are made at most of files that cannot be understood.
const ASIDE_MAX_COUNT: u32 = 100;

/// Where copies go that are read when the file itself cannot be used. The first is never on a disk.
const SCRATCH: [&str; 2] = ["/run", "/tmp"];

/// A file that can be written.
#[derive(Debug)]
pub(super) struct Opened {
    pub connection: Connection,
    /// What became of one that could not be understood.
    pub put_aside: Option<String>,
}

/// Opens the file, or makes it. One that cannot be understood is put aside, and another begun.
///
/// # Errors
/// If it cannot be written, or a newer daemon has written it.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(StoreError::io("creating the state directory", dir))?;
    let broken = match connect(path) {
        Ok(connection) => {
            return Ok(Opened {
                connection,
                put_aside: None,
            });
        }
        Err(StoreError::Broken { why, .. }) => why,
        Err(error) => return Err(error),
    };
    let aside = put_aside(path, "unreadable")?;
    let text = format!(
        "{} cannot be understood ({broken}): kept as {}; weights are taken from the kernel",
        path.display(),
        aside.display()
    );
    Ok(Opened {
        connection: connect(path)?,
        put_aside: Some(text),
    })
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // SQLite gives its other files the mode of the first one.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .map_err(StoreError::io("opening", path))?;
    let refused = StoreError::sql("opening", path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(&refused)?;
    connection.busy_timeout(BUSY).map_err(&refused)?;
    // Before anything is written: a newer daemon's file stays as it is.
    let found = schema::version(&connection).map_err(&refused)?;
    if found > schema::NEWEST {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema::NEWEST,
        });
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(&refused)?;
    if mode != "wal" {
        let source = io::Error::other(format!("the journal's mode is {mode}, not wal"));
        return Err(StoreError::io("opening", path)(source));
    }
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(&refused)?;
    let sound: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(&refused)?;
    if sound != "ok" {
        return Err(StoreError::Broken {
            path: path.to_owned(),
            why: sound.lines().next().unwrap_or_default().to_owned(),
        });
    }
    schema::migrate(&mut connection, path)?;
    // A file that can only be read says so not before it is written.
    connection
        .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
        .map_err(&refused)?;
    Ok(connection)
}

/// Gives a file and its companions another name that is free: `FILE.WHY`, `FILE.WHY-2`, …
///
/// # Errors
/// If it cannot be renamed.
pub(super) fn put_aside(path: &Path, why: &str) -> Result<PathBuf, StoreError> {
    let named = |number: u32, companion: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{why}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        name.push(companion);
        PathBuf::from(name)
    };
    let number = (1..ASIDE_MAX_COUNT)
        .find(|number| !named(*number, "").exists())
        .unwrap_or(ASIDE_MAX_COUNT);
    // The file itself goes last: what was put aside by halves is found again.
    for companion in COMPANIONS.iter().rev() {
        let mut from = OsString::from(path);
        from.push(companion);
        match fs::rename(&from, named(number, companion)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Io {
                    what: "putting aside",
                    path: from.into(),
                    source,
                });
            }
        }
    }
    Ok(named(number, ""))
}

/// Reads decisions and rollouts from a copy: a file on a disk that is full, or that cannot be written,
/// cannot be opened where it is.
///
/// # Errors
/// If it cannot be copied or read.
pub(super) fn peek(
    path: &Path,
    boot_id: &str,
) -> Result<(BTreeMap<String, ServiceRecord>, Vec<KeptRollout>), StoreError> {
    let mut failure = None;
    for dir in SCRATCH {
        match peek_in(path, Path::new(dir), boot_id) {
            Ok(found) => return Ok(found),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| {
        StoreError::io("copying", path)(io::Error::from(io::ErrorKind::NotFound))
    }))
}

fn peek_in(
    path: &Path,
    scratch: &Path,
    boot_id: &str,
) -> Result<(BTreeMap<String, ServiceRecord>, Vec<KeptRollout>), StoreError> {
    let dir = scratch.join(format!("shifter-state-{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(StoreError::io("creating", &dir))?;
    let found = read_copy(path, &dir, boot_id);
    if let Err(error) = fs::remove_dir_all(&dir) {
        tracing::warn!("{} stays behind: {error}", dir.display());
    }
    found
}

fn read_copy(
    path: &Path,
    dir: &Path,
    boot_id: &str,
) -> Result<(BTreeMap<String, ServiceRecord>, Vec<KeptRollout>), StoreError> {
    let copy = dir.join(super::FILE);
    for companion in ["", "-wal"] {
        let named = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(companion);
            PathBuf::from(name)
        };
        match fs::copy(named(path), named(&copy)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !companion.is_empty() => {}
            Err(source) => return Err(StoreError::io("copying", path)(source)),
        }
    }
    let connection = Connection::open(&copy).map_err(StoreError::sql("reading", path))?;
    let (services, problems) = service::load(&connection, path)?;
    for problem in problems {
        tracing::error!("{problem}");
    }
    let rollouts = rollout::load(&connection, path, boot_id).unwrap_or_default();
    Ok((services, rollouts))
}
