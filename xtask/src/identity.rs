//! Who runs this and who compiles: a person who came through sudo compiles as themselves.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User};

/// The person behind sudo.
#[derive(Clone, Debug)]
pub struct SudoUser {
    uid: Uid,
    gid: Gid,
    name: String,
    home: PathBuf,
}

impl SudoUser {
    /// The user whose id `SUDO_UID` gives.
    fn find(text: &str) -> anyhow::Result<Self> {
        let uid = text
            .parse()
            .map(Uid::from_raw)
            .with_context(|| format!("SUDO_UID is \"{text}\", which is no user id"))?;
        let Some(user) = User::from_uid(uid)? else {
            bail!("SUDO_UID is {text}, but no user has that id: run this as yourself");
        };
        Ok(Self {
            uid,
            gid: user.gid,
            name: user.name,
            home: user.dir,
        })
    }
}

/// How something that needs root can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elevation {
    /// This process is root.
    Root,
    /// sudo runs it without asking for a password.
    Sudo,
    /// Not at all.
    None,
}

/// Whose machine powers and whose files these are.
#[derive(Clone, Debug)]
pub struct Identity {
    root: bool,
    sudo_user: Option<SudoUser>,
}

impl Identity {
    /// Reads the effective user and, for root, `SUDO_UID`.
    ///
    /// # Errors
    /// `SUDO_UID` is not a number, or names nobody.
    pub fn detect() -> anyhow::Result<Self> {
        let root = Uid::effective().is_root();
        let sudo_uid = std::env::var("SUDO_UID").ok().filter(|_| root);
        let sudo_user = match sudo_uid.as_deref() {
            None | Some("0") => None,
            Some(text) => Some(SudoUser::find(text)?),
        };
        Ok(Self { root, sudo_user })
    }

    /// The home directory of whoever compiles.
    pub fn home(&self) -> Option<PathBuf> {
        match &self.sudo_user {
            Some(user) => Some(user.home.clone()),
            None => std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
        }
    }

    /// Whether the environment's XDG directories are those of whoever compiles.
    pub fn owns_environment(&self) -> bool {
        self.sudo_user.is_none()
    }

    /// A command that compiles or writes caches: never root's on behalf of a sudo user.
    pub fn compile(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.sudo_user {
            command
                .uid(user.uid.as_raw())
                .gid(user.gid.as_raw())
                .env("HOME", &user.home)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
            for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
                command.env_remove(variable);
            }
            for variable in [
                "CARGO_HOME",
                "RUSTUP_HOME",
                "XDG_CACHE_HOME",
                "XDG_CONFIG_HOME",
            ] {
                let theirs = std::env::var_os(variable)
                    .and_then(|path| fs::metadata(path).ok())
                    .is_some_and(|found| found.uid() == user.uid.as_raw());
                if !theirs {
                    command.env_remove(variable);
                }
            }
        }
        command
    }

    /// A command that runs as root with these variables on top of the environment, if there is a
    /// way to.
    pub fn elevate(&self, program: &OsStr, variables: &[(&str, &OsStr)]) -> Option<Command> {
        let mut command = match self.elevation() {
            Elevation::None => return None,
            Elevation::Root => {
                let mut command = Command::new(program);
                command.envs(variables.iter().copied());
                return Some(command);
            }
            Elevation::Sudo => Command::new("sudo"),
        };
        // sudo clears the environment; env(1) sets again what is asked for.
        command.args(["-n", "--", "env"]);
        for (name, value) in variables {
            let mut word = OsStr::new(name).to_owned();
            word.push("=");
            word.push(value);
            command.arg(word);
        }
        command.arg(program);
        Some(command)
    }

    /// What to do if cargo does not run for whoever compiles.
    pub fn remedy(&self) -> String {
        match &self.sudo_user {
            Some(user) => format!(
                "cargo does not run as {}, and nothing is compiled as root for a sudo user: run \
                 `cargo xtask` as {}, without sudo",
                user.name, user.name
            ),
            None => "cargo does not run here".to_owned(),
        }
    }

    /// How a command that needs root can be run here.
    pub fn elevation(&self) -> Elevation {
        if self.root {
            return Elevation::Root;
        }
        let asked = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match asked {
            Ok(status) if status.success() => Elevation::Sudo,
            _ => Elevation::None,
        }
    }

    /// Gives everything of root's below `path` to the sudo user, if there is one.
    ///
    /// `sudo cargo xtask` has let cargo compile this very program as root before any line of it
    /// ran; and tests that need root leave files of root's behind.
    ///
    /// # Errors
    /// `chown` cannot be run or fails.
    pub fn hand_over(&self, path: &Path) -> anyhow::Result<()> {
        let Some(user) = &self.sudo_user else {
            return Ok(());
        };
        if !path.exists() {
            return Ok(());
        }
        let mut command = Command::new("chown");
        // Links are changed, not followed; files of other users stay theirs.
        command.args(["--recursive", "--no-dereference", "--from=0"]);
        command.arg(format!("{}:{}", user.uid, user.gid)).arg(path);
        crate::process::output(command).map(drop)
    }

    /// Refuses a clone that whoever compiles cannot write to.
    ///
    /// # Errors
    /// The sudo user does not own `root`.
    pub fn check_owner(&self, root: &Path) -> anyhow::Result<()> {
        let Some(user) = &self.sudo_user else {
            return Ok(());
        };
        let owner = fs::metadata(root)?.uid();
        if owner != user.uid.as_raw() {
            bail!(
                "{} belongs to user id {owner}, but sudo was called by {}, and nothing is \
                 compiled as root for a sudo user.\nGive it away: `sudo chown -R {} {}`",
                root.display(),
                user.name,
                user.name,
                root.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind_sudo() -> Identity {
        Identity {
            root: true,
            sudo_user: Some(SudoUser {
                uid: Uid::from_raw(12345),
                gid: Gid::from_raw(12346),
                name: "ada".to_owned(),
                home: PathBuf::from("/home/ada"),
            }),
        }
    }

    #[test]
    fn whom_sudo_calls_compiles_at_home() {
        let command = behind_sudo().compile("cargo");
        let set = |name: &str| {
            command
                .get_envs()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.is_some())
        };
        for name in ["HOME", "USER", "LOGNAME"] {
            assert_eq!(set(name), Some(true), "{name}");
        }
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
            assert_eq!(set(name), Some(false), "{name}");
        }
        assert_eq!(behind_sudo().home(), Some(PathBuf::from("/home/ada")));
        assert!(!behind_sudo().owns_environment());
    }

    #[test]
    fn a_login_compiles_as_it_is() {
        let login = Identity {
            root: true,
            sudo_user: None,
        };
        assert_eq!(login.compile("cargo").get_envs().count(), 0);
        assert!(login.owns_environment());
        assert_eq!(login.remedy(), "cargo does not run here");
    }

    #[test]
    fn a_clone_of_somebody_else_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let error = behind_sudo()
            .check_owner(root)
            .expect_err("refused")
            .to_string();
        let owner = fs::metadata(root).expect("a directory").uid();
        let expected = format!(
            "{root} belongs to user id {owner}, but sudo was called by ada, and nothing is \
             compiled as root for a sudo user.\nGive it away: `sudo chown -R ada {root}`",
            root = root.display()
        );
        assert_eq!(error, expected);
        assert!(
            Identity {
                root: true,
                sudo_user: None
            }
            .check_owner(root)
            .is_ok()
        );
    }

    #[test]
    fn a_cargo_out_of_reach_is_answered_with_a_remedy() {
        let expected = "cargo does not run as ada, and nothing is compiled as root for a sudo \
                        user: run `cargo xtask` as ada, without sudo";
        assert_eq!(behind_sudo().remedy(), expected);
    }

    #[test]
    fn sudo_ids_must_name_somebody() {
        let rows = [
            ("frog", "SUDO_UID is \"frog\", which is no user id"),
            (
                "4294967294",
                "SUDO_UID is 4294967294, but no user has that id: run this as yourself",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(
                SudoUser::find(text).expect_err("nobody").to_string(),
                expected
            );
        }
    }
}
