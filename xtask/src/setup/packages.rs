//! Programs that are run, but not built here, and the Debian packages that have them.

use std::{fmt, path::Path};

use super::{apt, linker};
use crate::{
    screen::{self, Mark},
    workspace::Workspace,
};

/// What a program is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// `cargo xtask build`
    Build,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask bench`
    Bench,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Test => "test",
            Self::Demo => "demo",
            Self::Bench => "bench",
        })
    }
}

/// A program that comes with the system.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The executable, or the module that another program loads.
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What needs it.
    pub purposes: &'static [Purpose],
    /// What it does there.
    pub why: &'static str,
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "nginx",
        package: "nginx",
        purposes: &[Purpose::Test, Purpose::Demo, Purpose::Bench],
        why: "serves both versions",
    },
    Program {
        name: "wrk",
        package: "wrk",
        purposes: &[Purpose::Test, Purpose::Demo, Purpose::Bench],
        why: "makes load",
    },
    Program {
        name: "curl",
        package: "curl",
        purposes: &[Purpose::Test],
        why: "is an everyday client",
    },
    Program {
        name: "ip",
        package: "iproute2",
        purposes: &[Purpose::Test, Purpose::Demo, Purpose::Bench],
        why: "makes links and routes",
    },
    Program {
        name: "ethtool",
        package: "ethtool",
        purposes: &[Purpose::Test, Purpose::Demo, Purpose::Bench],
        why: "switches offloads",
    },
    Program {
        name: "nft",
        package: "nftables",
        purposes: &[Purpose::Test, Purpose::Bench],
        why: "filters, and leads connections around shifter; is measured beside it",
    },
    Program {
        name: "nsenter",
        package: "util-linux",
        purposes: &[Purpose::Test, Purpose::Demo],
        why: "enters namespaces",
    },
    Program {
        name: "traceroute",
        package: "traceroute",
        purposes: &[Purpose::Test],
        why: "lists the routers on the way",
    },
    Program {
        name: "setpriv",
        package: "util-linux",
        purposes: &[Purpose::Test, Purpose::Demo],
        why: "becomes a user without rights",
    },
    Program {
        name: "unshare",
        package: "util-linux",
        purposes: &[Purpose::Test, Purpose::Demo],
        why: "makes namespaces as such a user",
    },
    Program {
        name: "pg_createcluster",
        package: "postgresql",
        purposes: &[Purpose::Test],
        why: "is a database with sessions that last",
    },
    Program {
        name: "redis-cli",
        package: "redis-tools",
        purposes: &[Purpose::Test],
        why: "is a server, with its clients, that publishes",
    },
    Program {
        name: "sshd",
        package: "openssh-server",
        purposes: &[Purpose::Test],
        why: "keeps sessions open",
    },
    Program {
        name: "ssh",
        package: "openssh-client",
        purposes: &[Purpose::Test],
        why: "opens them",
    },
    Program {
        name: "debootstrap",
        package: "debootstrap",
        purposes: &[Purpose::Test],
        why: "builds a system to boot",
    },
    Program {
        name: "systemd-nspawn",
        package: "systemd-container",
        purposes: &[Purpose::Test],
        why: "boots it",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
        purposes: &[Purpose::Bench],
        why: "is measured beside shifter",
    },
    Program {
        name: "ngx_stream_module.so",
        package: "libnginx-mod-stream",
        purposes: &[Purpose::Bench],
        why: "is measured beside shifter",
    },
];

/// Where nginx's modules are.
const MODULES: &str = "/usr/lib/nginx/modules";

/// Whether a program is installed.
fn is_there(program: &Program) -> bool {
    linker::on_path(program.name).is_some() || Path::new(MODULES).join(program.name).is_file()
}

/// The programs that any of `purposes` needs.
fn needed(purposes: &[Purpose]) -> impl Iterator<Item = &'static Program> {
    PROGRAMS
        .iter()
        .filter(|program| program.purposes.iter().any(|one| purposes.contains(one)))
}

/// The programs for `purposes` that are not installed.
fn missing(purposes: &[Purpose]) -> Vec<&'static Program> {
    needed(purposes)
        .filter(|program| !is_there(program))
        .collect()
}

/// Lists the programs for `purposes` and installs those that are missing.
///
/// # Errors
/// Packages cannot be installed; the error names the programs that are missing.
pub fn ensure(workspace: &Workspace, purposes: &[Purpose]) -> anyhow::Result<()> {
    let absent = missing(purposes);
    let present: Vec<&str> = needed(purposes)
        .map(|program| program.name)
        .filter(|name| !absent.iter().any(|program| program.name == *name))
        .collect();
    if !present.is_empty() {
        screen::line(
            Mark::Good,
            "programs",
            &format!("installed: {}", present.join(", ")),
        );
    }
    if absent.is_empty() {
        return Ok(());
    }
    for program in &absent {
        let Program {
            name, package, why, ..
        } = program;
        screen::line(
            Mark::Change,
            name,
            &format!("missing: {why}; is in the package {package}"),
        );
    }
    let mut packages: Vec<String> = Vec::new();
    for program in &absent {
        if !packages.iter().any(|package| package == program.package) {
            packages.push(program.package.to_owned());
        }
    }
    apt::install(workspace, &packages)
        .map_err(|error| error.context(format!("missing programs: {}", names(&absent))))?;
    match missing(purposes).as_slice() {
        [] => Ok(()),
        still => anyhow::bail!("still missing after installation: {}", names(still)),
    }
}

/// The programs' names in a row.
fn names(programs: &[&Program]) -> String {
    programs
        .iter()
        .map(|program| program.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_listed_once_with_a_package_and_a_purpose() {
        for (index, program) in PROGRAMS.iter().enumerate() {
            let Program {
                name,
                package,
                purposes,
                why,
            } = program;
            let plain = |text: &str| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
            };
            assert!(plain(name) && plain(package), "{name} in {package}");
            assert!(!purposes.is_empty(), "nothing needs {name}");
            assert!(!why.is_empty(), "nobody knows why {name} is needed");
            let twin = PROGRAMS[..index]
                .iter()
                .find(|earlier| earlier.name == *name);
            assert!(twin.is_none(), "{name} is listed twice");
        }
    }

    #[test]
    fn a_build_needs_no_program_of_the_system() {
        assert!(missing(&[Purpose::Build]).is_empty());
    }
}
