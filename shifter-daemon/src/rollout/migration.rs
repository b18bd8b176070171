//! The migration lock: a database schema that the old version cannot live with locks the way back.

use serde::{Deserialize, Serialize};

use super::label::Label;

/// What a release does to the schema it shares with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationPhase {
    /// It only adds: old and new version can live with it.
    Expand,
    /// It takes away what older versions need.
    Contract,
}

/// What is known of the version that must not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldVersion {
    /// Its label.
    pub version: Label,
    /// Its live flows on this host; `None` if they could not be counted.
    pub live_count: Option<u64>,
    /// When its last flow was seen, Unix milliseconds; `None` if it is not known.
    pub last_flow_unix_ms: Option<u64>,
}

/// One version that has been in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number in the service's history, from 1.
    pub revision: u64,
    /// Its label.
    pub version: Label,
    /// What it did to the schema, if it did.
    pub migration: Option<MigrationPhase>,
}

/// Why the lock holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrationRefused {
    /// The old version still has flows.
    #[error(
        "a contracting migration would break version {version}, which has {live_count} connections \
         on this host: wait until they have ended, or reset them (shifterctl flows)"
    )]
    InUse {
        /// The old version.
        version: Label,
        /// Its live flows.
        live_count: u64,
    },
    /// It may still be wanted back.
    #[error(
        "a contracting migration would lock the way back to version {version}, which had a \
         connection {since_s} s ago: its rollback window is {window_s} s, so wait {wait_s} s more"
    )]
    WindowOpen {
        /// The old version.
        version: Label,
        /// Time since its last flow.
        since_s: u64,
        /// The window.
        window_s: u64,
        /// What is left of it.
        wait_s: u64,
    },
    /// Nothing is known of it.
    #[error(
        "a contracting migration needs to know when version {version} had its last connection, and \
         nobody counted: let shifterd watch it for its rollback window of {window_s} s first"
    )]
    Unknown {
        /// The old version.
        version: Label,
        /// The window.
        window_s: u64,
    },
    /// The schema no longer fits.
    #[error(
        "version {contract} (revision {revision}) took away from the schema what version {target} \
         needs: go forward with a new release, or repeat with --force if the schema was restored"
    )]
    Contracted {
        /// The version that contracted.
        contract: Label,
        /// Its revision.
        revision: u64,
        /// Where the undo would go.
        target: Label,
    },
    /// There is no such revision.
    #[error("there is no revision {revision}; {known}")]
    NoRevision {
        /// As asked.
        revision: u64,
        /// Which there are.
        known: String,
    },
}

/// Whether a contracting migration may begin: the old version must have had no flow on this host for
/// its rollback window.
///
/// # Errors
/// Why it may not, with the time to wait.
pub fn check_contract(
    old: &OldVersion,
    window_ms: u64,
    unix_ms: u64,
) -> Result<(), MigrationRefused> {
    let version = || old.version.clone();
    let unknown = || MigrationRefused::Unknown {
        version: version(),
        window_s: window_ms.div_ceil(1_000),
    };
    match old.live_count {
        None => return Err(unknown()),
        Some(0) => {}
        Some(live_count) => {
            return Err(MigrationRefused::InUse {
                version: version(),
                live_count,
            });
        }
    }
    let last_ms = old.last_flow_unix_ms.ok_or_else(unknown)?;
    // A clock that stepped back makes the flow one of the future: then nothing has passed yet.
    let since_ms = unix_ms.saturating_sub(last_ms);
    if since_ms >= window_ms {
        return Ok(());
    }
    Err(MigrationRefused::WindowOpen {
        version: version(),
        since_s: since_ms / 1_000,
        window_s: window_ms.div_ceil(1_000),
        wait_s: (window_ms - since_ms).div_ceil(1_000),
    })
}

/// Whether an undo may go back to a revision. `history` is what has been in force, in any order.
///
/// # Errors
/// If there is no such revision, or one after it contracted the schema and nobody forces it.
pub fn check_undo(
    history: &[Release],
    to_revision: u64,
    is_forced: bool,
) -> Result<(), MigrationRefused> {
    let target = history
        .iter()
        .find(|release| release.revision == to_revision);
    let Some(target) = target else {
        let mut known: Vec<u64> = history.iter().map(|release| release.revision).collect();
        known.sort_unstable();
        let known: Vec<_> = known.iter().map(u64::to_string).collect();
        return Err(MigrationRefused::NoRevision {
            revision: to_revision,
            known: if known.is_empty() {
                "the service has no history yet: shifterctl start SERVICE VERSION".into()
            } else {
                format!("there are {}", known.join(", "))
            },
        });
    };
    let contract = history.iter().find(|release| {
        release.revision > to_revision && release.migration == Some(MigrationPhase::Contract)
    });
    match contract {
        Some(contract) if !is_forced => Err(MigrationRefused::Contracted {
            contract: contract.version.clone(),
            revision: contract.revision,
            target: target.version.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000_000;

    fn old(live_count: Option<u64>, ago_ms: Option<u64>) -> OldVersion {
        OldVersion {
            version: "3.1.0".parse().expect("a label"),
            live_count,
            last_flow_unix_ms: ago_ms.map(|ago_ms| NOW_MS - ago_ms),
        }
    }

    #[test]
    fn contracting_waits_for_the_old_version() {
        let window_ms = 3_600_000;
        let rows = [
            (old(Some(0), Some(3_600_000)), None),
            (
                old(Some(0), Some(3_599_999)),
                Some(
                    "a contracting migration would lock the way back to version 3.1.0, which had a \
                     connection 3599 s ago: its rollback window is 3600 s, so wait 1 s more",
                ),
            ),
            (
                old(Some(2), Some(9_000_000)),
                Some(
                    "a contracting migration would break version 3.1.0, which has 2 connections on \
                     this host: wait until they have ended, or reset them (shifterctl flows)",
                ),
            ),
            (
                old(None, Some(9_000_000)),
                Some(
                    "a contracting migration needs to know when version 3.1.0 had its last \
                     connection, and nobody counted: let shifterd watch it for its rollback window \
                     of 3600 s first",
                ),
            ),
            (
                old(Some(0), None),
                Some(
                    "a contracting migration needs to know when version 3.1.0 had its last \
                     connection, and nobody counted: let shifterd watch it for its rollback window \
                     of 3600 s first",
                ),
            ),
        ];
        for (old, error) in rows {
            let found = check_contract(&old, window_ms, NOW_MS);
            assert_eq!(
                found.err().map(|e| e.to_string()).as_deref(),
                error,
                "{old:?}"
            );
        }
        let future = OldVersion {
            last_flow_unix_ms: Some(NOW_MS + 5),
            ..old(Some(0), None)
        };
        assert!(
            check_contract(&future, window_ms, NOW_MS).is_err(),
            "the clock stepped back"
        );
    }

    #[test]
    fn no_way_back_past_a_contraction() {
        let release = |revision, version: &str, migration| Release {
            revision,
            version: version.parse().expect("a label"),
            migration,
        };
        let history = [
            release(3, "3.2.0", Some(MigrationPhase::Contract)),
            release(1, "3.0.0", None),
            release(4, "3.3.0", None),
            release(2, "3.1.0", Some(MigrationPhase::Expand)),
        ];
        let contracted = "version 3.2.0 (revision 3) took away from the schema what version 3.1.0 \
                          needs: go forward with a new release, or repeat with --force if the \
                          schema was restored";
        let rows = [
            (&history[..], 3, false, None),
            (&history, 2, false, Some(contracted)),
            (&history, 2, true, None),
            (
                &history,
                9,
                true,
                Some("there is no revision 9; there are 1, 2, 3, 4"),
            ),
            (
                &[],
                1,
                false,
                Some(
                    "there is no revision 1; the service has no history yet: shifterctl start \
                     SERVICE VERSION",
                ),
            ),
        ];
        for (history, revision, is_forced, error) in rows {
            let found = check_undo(history, revision, is_forced).err();
            assert_eq!(
                found.map(|e| e.to_string()).as_deref(),
                error,
                "{revision} {is_forced}"
            );
        }
    }
}
