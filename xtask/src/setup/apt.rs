//! Debian packages: installed without questions, without starting or enabling services.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    identity::Elevation,
    process::{self, Job},
    screen::{self, Mark},
    workspace::Workspace,
};

/// LLVM's headers and libraries are several hundred megabytes.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Where dpkg finds the programs that packages' scripts call.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The programs through which packages start services and arrange for their start at boot.
const SERVICE_STARTERS: [&str; 4] = [
    "invoke-rc.d",
    "deb-systemd-invoke",
    "deb-systemd-helper",
    "update-rc.d",
];
/// Stands in for each of them while packages are installed: starting and enabling succeed
/// without being done, everything else goes to the real program. A policy file in the system
/// would do the same, and would stay behind if this process were killed.
const STAND_IN: &str = r#"#!/bin/sh
for word; do
    case $word in start | enable | defaults) exit 0 ;; esac
done
PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "${0##*/}" "$@"
"#;

/// The command that a person without root would ask somebody to run.
pub fn command_line(packages: &[String]) -> String {
    format!(
        "sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Refuses an installation that cannot be tried.
fn check(has_apt: bool, elevation: Elevation, packages: &[String]) -> anyhow::Result<()> {
    if !has_apt {
        bail!(
            "this system has no apt-get: install what Debian calls {}",
            packages.join(" ")
        );
    }
    if elevation == Elevation::None {
        bail!(
            "root is needed to install packages: run `{}`",
            command_line(packages)
        );
    }
    Ok(())
}

/// Installs `packages` from the configured sources, after an update of the package lists if the
/// lists at hand do not do.
///
/// # Errors
/// There is no apt-get or no way to be root, the package lists know no such package, or the
/// installation fails; the error names what to run by hand.
pub fn install(workspace: &Workspace, packages: &[String]) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    let has_apt = Path::new("/usr/bin/apt-get").exists();
    check(has_apt, workspace.identity.elevation(), packages)?;
    let stand_ins = stand_ins(workspace)?;
    let mut updated = false;
    if unknown(packages).is_some() {
        update(workspace)?;
        updated = true;
    }
    if let Some(package) = unknown(packages) {
        bail!("the configured package sources have no {package}");
    }
    screen::line(Mark::Change, "apt-get", &format!("installing {wanted}"));
    let installed = get_packages(workspace, &stand_ins, packages);
    let installed = match installed {
        // Lists that are out of date name files that are gone.
        Err(_) if !updated && !crate::interrupt::requested() => {
            update(workspace)?;
            get_packages(workspace, &stand_ins, packages)
        }
        other => other,
    };
    let took = installed.with_context(|| format!("run by hand: `{}`", command_line(packages)))?;
    screen::line(
        Mark::Good,
        "apt-get",
        &format!("done in {}", screen::seconds(took)),
    );
    Ok(())
}

fn get_packages(
    workspace: &Workspace,
    stand_ins: &Path,
    packages: &[String],
) -> anyhow::Result<Duration> {
    let mut arguments = vec!["install".to_owned(), "--no-install-recommends".to_owned()];
    arguments.push(format!(
        "--option=DPkg::Path={}:{SYSTEM_PATH}",
        stand_ins.display()
    ));
    arguments.extend_from_slice(packages);
    apt_get(workspace, &arguments)
}

fn update(workspace: &Workspace) -> anyhow::Result<()> {
    // One source that does not answer must not hide the others: the lists that came are used.
    apt_get(workspace, &["update".to_owned()])
        .map(drop)
        .or_else(|error| {
            if crate::interrupt::requested() {
                return Err(error);
            }
            screen::line(Mark::Change, "apt-get", &format!("{error:#}; going on"));
            Ok(())
        })
}

fn apt_get(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<Duration> {
    let variables = [
        ("DEBIAN_FRONTEND", OsStr::new("noninteractive")),
        ("LC_ALL", OsStr::new("C.UTF-8")),
    ];
    let elevated = workspace
        .identity
        .elevate(OsStr::new("apt-get"), &variables);
    let mut command = elevated.context("root is needed to install packages")?;
    command.args(["--yes", "--quiet", "--option=DPkg::Lock::Timeout=120"]);
    command
        .args(["--option=Dpkg::Options::=--force-confold"])
        .args(arguments);
    let log = workspace.log("apt-get");
    let job = Job {
        whole: true,
        ..Job::new("apt-get", command, &log, LIMIT)
    };
    process::run(job)?.success("apt-get")
}

/// The first of `packages` that the package lists cannot install.
fn unknown(packages: &[String]) -> Option<&String> {
    packages.iter().find(|package| {
        let mut command = Command::new("apt-cache");
        command.env("LC_ALL", "C").args(["policy", package]);
        let policy = process::output(command).unwrap_or_default();
        !has_candidate(&policy)
    })
}

/// Whether `apt-cache policy PACKAGE` names a version that can be installed.
fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|version| version.trim() != "(none)")
}

/// A directory with a stand-in for each program that would start a service.
fn stand_ins(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let directory = workspace.target.join("xtask-apt");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for name in SERVICE_STARTERS {
        let path = directory.join(name);
        fs::write(&path, STAND_IN).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_from_apt() {
        let rows = [
            ("", false),
            (
                "wrk:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n",
                false,
            ),
            ("wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3+b2\n", true),
        ];
        for (policy, expected) in rows {
            assert_eq!(has_candidate(policy), expected, "{policy:?}");
        }
    }

    #[test]
    fn the_command_to_run_by_hand_is_whole() {
        let packages = ["nginx", "wrk"].map(str::to_owned);
        let expected = "sudo apt-get install --no-install-recommends nginx wrk";
        assert_eq!(command_line(&packages), expected);
    }

    #[test]
    fn installations_that_cannot_be_tried_say_what_to_do() {
        let rows = [
            (true, Elevation::Root, None),
            (true, Elevation::Sudo, None),
            (
                true,
                Elevation::None,
                Some(
                    "root is needed to install packages: run `sudo apt-get install \
                     --no-install-recommends nginx wrk`",
                ),
            ),
            (
                false,
                Elevation::Root,
                Some("this system has no apt-get: install what Debian calls nginx wrk"),
            ),
        ];
        let packages = ["nginx", "wrk"].map(str::to_owned);
        for (has_apt, elevation, expected) in rows {
            let error = check(has_apt, elevation, &packages)
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected, "{has_apt} {elevation:?}");
        }
    }

    #[test]
    fn stand_ins_swallow_starts_and_pass_the_rest_on() {
        let directory = std::env::temp_dir().join(format!("xtask-apt-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        // `test` is a program of every system, and its exit code tells whether it was reached.
        let program = directory.join("test");
        fs::write(&program, STAND_IN).expect("a script");
        let rows: [(&[&str], bool); 4] = [
            (&["1", "=", "2"], false),
            (&["1", "=", "1"], true),
            (&["nginx", "start"], true),
            (&["--quiet", "enable", "nginx.service"], true),
        ];
        for (arguments, expected) in rows {
            let mut command = Command::new("sh");
            command.arg(&program).args(arguments);
            assert_eq!(process::output(command).is_ok(), expected, "{arguments:?}");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }
}
