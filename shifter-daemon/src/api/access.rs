//! Who may read and who may change.

use std::{ffi::CString, sync::Arc};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use shifter_common::wire::Refusal;

use super::Peer;
use crate::driver::Actor;

/// Members may read and change.
pub const GROUP_CHANGE: &str = "shifter";
/// Members may read.
pub const GROUP_VIEW: &str = "shifter-view";

/// What a user may do. Ordered: a larger right includes the smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    None,
    /// Requests that change nothing.
    Read,
    /// Everything.
    Change,
}

/// The user behind a connection, and what that user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, as logs and the audit name it.
    pub actor: Actor,
    /// What the user may do.
    pub right: Right,
}

impl Caller {
    /// Checks that the caller may do what needs `right`.
    ///
    /// # Errors
    /// Code `forbidden`, with the command that gives the right.
    pub fn require(&self, right: Right) -> Result<(), Refusal> {
        if self.right >= right {
            return Ok(());
        }
        let (act, group) = match right {
            Right::Change => ("change anything", GROUP_CHANGE),
            Right::None | Right::Read => ("read", GROUP_VIEW),
        };
        let Actor { uid, name, .. } = &self.actor;
        Err(Refusal {
            code: "forbidden".into(),
            message: format!("user {name} (uid {uid}) may not {act} here: not in group {group}"),
            help: format!("usermod -aG {group} {name}"),
        })
    }
}

/// Where users and groups are looked up.
pub trait Accounts: Send + Sync {
    /// Name of a user; `None` if the user has none.
    fn user_name(&self, uid: u32) -> Option<String>;
    /// Ids of all groups the user database puts a user in.
    fn groups_of(&self, user: &str) -> Vec<u32>;
    /// Id of a group; `None` if there is none of this name.
    fn gid_of(&self, group: &str) -> Option<u32>;
}

/// The host's users and groups. A failed lookup finds nobody, so it never grants anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn user_name(&self, uid: u32) -> Option<String> {
        User::from_uid(Uid::from_raw(uid))
            .ok()
            .flatten()
            .map(|user| user.name)
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let Ok(Some(primary)) = User::from_name(user).map(|user| user.map(|user| user.gid)) else {
            return Vec::new();
        };
        let groups = CString::new(user)
            .ok()
            .and_then(|user| getgrouplist(&user, primary).ok());
        groups
            .unwrap_or_default()
            .into_iter()
            .map(Gid::as_raw)
            .collect()
    }

    fn gid_of(&self, group: &str) -> Option<u32> {
        Group::from_name(group)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }
}

/// Decides what the peer of a connection may do.
#[derive(Clone)]
pub struct Access {
    accounts: Arc<dyn Accounts>,
    /// Judges every peer like this, whoever runs the tests.
    #[cfg(test)]
    always: Option<Caller>,
}

impl Access {
    /// Decides by the host's users and groups.
    pub fn system() -> Self {
        Self::with(SystemAccounts)
    }

    /// Decides by other accounts.
    pub fn with(accounts: impl Accounts + 'static) -> Self {
        Self {
            accounts: Arc::new(accounts),
            #[cfg(test)]
            always: None,
        }
    }

    /// Judges every peer alike.
    #[cfg(test)]
    pub(super) fn always(caller: Caller) -> Self {
        Self {
            always: Some(caller),
            ..Self::system()
        }
    }

    /// Names the peer's user and finds out what it may do. Lookups may ask the network (LDAP), so
    /// this may block.
    ///
    /// Both the groups of the peer's process and those of its user in the database count: a
    /// service with `DynamicUser=` is in no database, and somebody just added to a group need not
    /// log in again where the socket lets them connect at all.
    pub fn judge(&self, peer: &Peer) -> Caller {
        #[cfg(test)]
        if let Some(caller) = &self.always {
            return caller.clone();
        }
        let name = self.accounts.user_name(peer.uid);
        let member = |group: &str| {
            let Some(gid) = self.accounts.gid_of(group) else {
                return false;
            };
            peer.gids.contains(&gid)
                || name
                    .as_ref()
                    .is_some_and(|name| self.accounts.groups_of(name).contains(&gid))
        };
        let right = if peer.uid == 0 || member(GROUP_CHANGE) {
            Right::Change
        } else if member(GROUP_VIEW) {
            Right::Read
        } else {
            Right::None
        };
        let name = name.unwrap_or_else(|| peer.uid.to_string());
        Caller {
            actor: Actor {
                uid: peer.uid,
                name,
                loginuid: peer.loginuid,
            },
            right,
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    struct Fake {
        groups: &'static [(&'static str, u32)],
    }

    impl Accounts for Fake {
        fn user_name(&self, uid: u32) -> Option<String> {
            Some(match uid {
                0 => "root".into(),
                1000 => "ada".into(),
                1001 => "bob".into(),
                1002 => "eve".into(),
                _ => return None,
            })
        }
        fn groups_of(&self, user: &str) -> Vec<u32> {
            match user {
                "ada" => vec![1000, 80],
                "bob" => vec![1001, 81],
                _ => vec![],
            }
        }
        fn gid_of(&self, group: &str) -> Option<u32> {
            self.groups
                .iter()
                .find(|(name, _)| *name == group)
                .map(|(_, gid)| *gid)
        }
    }

    const BOTH: &[(&str, u32)] = &[("shifter", 80), ("shifter-view", 81)];

    #[test]
    fn root_and_members_get_their_right_and_nobody_else() {
        /// What, groups that exist, uid and groups of the peer, its right and name.
        type Row = (
            &'static str,
            &'static [(&'static str, u32)],
            u32,
            &'static [u32],
            Right,
            &'static str,
        );
        let rows: &[Row] = &[
            ("root", BOTH, 0, &[0], Right::Change, "root"),
            (
                "root without the groups",
                &[],
                0,
                &[0],
                Right::Change,
                "root",
            ),
            (
                "member by the database",
                BOTH,
                1000,
                &[1000],
                Right::Change,
                "ada",
            ),
            (
                "viewer by the database",
                BOTH,
                1001,
                &[1001],
                Right::Read,
                "bob",
            ),
            ("nobody's member", BOTH, 1002, &[1002], Right::None, "eve"),
            (
                "primary group of the process",
                BOTH,
                1002,
                &[80],
                Right::Change,
                "eve",
            ),
            (
                "supplementary group",
                BOTH,
                1002,
                &[7, 81],
                Right::Read,
                "eve",
            ),
            ("both groups", BOTH, 1002, &[81, 80], Right::Change, "eve"),
            (
                "no name, viewing process",
                BOTH,
                61000,
                &[61000, 81],
                Right::Read,
                "61000",
            ),
            ("no name", BOTH, 61000, &[61000], Right::None, "61000"),
            (
                "the groups do not exist",
                &[],
                1000,
                &[1000, 80, 81],
                Right::None,
                "ada",
            ),
            ("group 0 is not root", BOTH, 1002, &[0], Right::None, "eve"),
        ];
        for (what, groups, uid, gids, right, name) in rows {
            let access = Access::with(Fake { groups });
            let caller = access.judge(&Peer {
                uid: *uid,
                gids: gids.to_vec(),
                loginuid: Some(1003),
            });
            assert_eq!(caller.right, *right, "{what}");
            assert_eq!(
                caller.actor,
                Actor {
                    uid: *uid,
                    name: (*name).into(),
                    loginuid: Some(1003),
                },
                "{what}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_user_the_group_and_the_command() {
        let caller = |right| Caller {
            actor: Actor {
                uid: 1002,
                name: "eve".into(),
                loginuid: None,
            },
            right,
        };
        let rows = [
            (
                Right::None,
                Right::Read,
                "user eve (uid 1002) may not read here: not in group shifter-view",
                "usermod -aG shifter-view eve",
            ),
            (
                Right::Read,
                Right::Change,
                "user eve (uid 1002) may not change anything here: not in group shifter",
                "usermod -aG shifter eve",
            ),
        ];
        for (has, needs, message, help) in rows {
            let refusal = caller(has).require(needs).unwrap_err();
            assert_eq!(refusal.code, "forbidden");
            assert_eq!(refusal.message, message);
            assert_eq!(refusal.help, help);
        }
        for (has, needs) in [
            (Right::Read, Right::Read),
            (Right::Change, Right::Read),
            (Right::Change, Right::Change),
        ] {
            assert_eq!(caller(has).require(needs), Ok(()));
        }
    }

    #[test]
    fn the_hosts_own_accounts_are_found() {
        let accounts = SystemAccounts;
        assert_eq!(accounts.user_name(0).as_deref(), Some("root"));
        assert!(accounts.groups_of("root").contains(&0));
        assert_eq!(accounts.gid_of("root"), Some(0));
        assert_eq!(accounts.gid_of("no such group"), None);
        assert!(accounts.groups_of("no such user").is_empty());
        assert!(accounts.groups_of("nul\0inside").is_empty());
    }
}
