//! Why the disk did not do something.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file cannot be used.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite refuses.
    #[error("{what} {path}: {source}")]
    Sql {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: rusqlite::Error,
    },
    /// A later version of the daemon wrote it.
    #[error(
        "{path} was written by a newer shifterd (schema {found}; this one knows up to {known}) and is \
         left alone: install that version again, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this version knows.
        known: u32,
    },
    /// It is no database, or a broken one.
    #[error("{path} cannot be understood ({why})")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A value cannot be written as text.
    #[error("{what} cannot be written as JSON: {source}")]
    Json {
        /// The value.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// SQLite's refusal; a broken file is told as such.
    pub(super) fn sql(what: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            let code = source.sqlite_error_code();
            let is_broken = matches!(
                code,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            );
            let path = path.clone();
            if is_broken {
                let why = source.to_string();
                Self::Broken { path, why }
            } else {
                Self::Sql { what, path, source }
            }
        }
    }

    /// Whether the file has to be opened anew before it can be written again: a disk that was read-only or
    /// that failed is not asked a second time by the same connection.
    pub(super) fn asks_for_a_new_beginning(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Sql { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
            ),
            _ => false,
        }
    }

    pub(super) fn io(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            what,
            path: path.clone(),
            source,
        }
    }

    pub(super) fn json(what: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |source| Self::Json { what, source }
    }
}
