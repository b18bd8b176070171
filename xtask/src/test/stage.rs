//! The stages of `cargo xtask test`, as data.

use std::time::Duration;

use crate::setup::component::Component;

/// All stages together, on two cores, not counting the installation of tools.
#[cfg(test)]
pub const BUDGET_S: u64 = 52 * 60;
/// A stage that takes this many times its budget hangs, and is ended.
const PATIENCE: u32 = 3;

/// One part of the tests that is timed and counted for itself.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What `--stage` and `--allow-skip` call it.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// How long it may take on two cores before that is said.
    pub budget_s: u64,
    /// What must be there for it to run.
    pub needs: &'static [Need],
    /// What it does.
    pub work: Work,
}

impl Stage {
    /// How long it may take.
    pub const fn budget(&self) -> Duration {
        Duration::from_secs(self.budget_s)
    }

    /// How long it may take before it is ended.
    pub const fn limit(&self) -> Duration {
        self.budget().saturating_mul(PATIENCE)
    }
}

/// Something that a stage cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The toolchain of the kernel programs.
    Toolchain,
    /// The kernel object, which the daemon includes.
    Object,
    /// The shifterd of a version to come, to replace one version by the other.
    Rehearsal,
    /// A companion of cargo.
    Component(Component),
    /// Root with the capabilities to load programs and make links.
    Root,
    /// The kernel's type information, which programs are loaded against.
    Btf,
    /// The programs of the system that tests run.
    Programs,
}

/// What a stage does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A cargo command that counts as one test.
    Cargo(&'static [&'static str]),
    /// A cargo command whose libtest numbers count.
    Libtest(&'static [&'static str]),
    /// The build of the kernel object, and clippy's view of its source.
    Kernel,
    /// The licences of the dependency tree.
    Licences,
    /// Test binaries of the package shifter-tests, compiled as usual and run as root.
    Root {
        /// Which of them.
        targets: Targets,
        /// Whether they start shifterd and shifterctl.
        binaries: bool,
        /// Arguments for libtest.
        arguments: &'static [&'static str],
    },
}

/// A choice among the test targets of a package.
#[derive(Clone, Copy, Debug)]
pub enum Targets {
    /// These.
    Only(&'static [&'static str]),
    /// All but these.
    Except(&'static [&'static str]),
}

impl Targets {
    /// Whether `target` is among them.
    pub fn contain(self, target: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(&target),
            Self::Except(names) => !names.contains(&target),
        }
    }
}

/// The test targets that need the kernel, but no network.
const PACKETS: &[&str] = &["packets"];
/// The test targets that boot machines of their own.
const SYSTEMD: &[&str] = &["systemd"];
/// The test targets of the socket plane.
const SOCKET: &[&str] = &["socket"];
/// The test targets of rollouts.
const ROLLOUT: &[&str] = &["rollout"];
/// All of these.
const APART: &[&str] = &["packets", "systemd", "socket", "rollout"];

/// The stages in the order in which they run: what fails fast comes first.
pub const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        about: "the source is formatted",
        budget_s: 15,
        needs: &[Need::Component(Component::Rustfmt)],
        work: Work::Cargo(&["fmt", "--all", "--check"]),
    },
    Stage {
        name: "deny",
        about: "licences and origins of all dependencies are allowed",
        budget_s: 30,
        needs: &[],
        work: Work::Licences,
    },
    Stage {
        name: "ebpf",
        about: "the kernel programs build without warnings",
        budget_s: 90,
        needs: &[Need::Toolchain],
        work: Work::Kernel,
    },
    Stage {
        name: "clippy",
        about: "the source has no warnings",
        budget_s: 150,
        needs: &[Need::Object, Need::Component(Component::Clippy)],
        work: Work::Cargo(&[
            "clippy",
            "--workspace",
            "--exclude=shifter-ebpf",
            "--all-targets",
            "--features=shifter-common/user,shifter-common/wire",
            "--",
            "-Dwarnings",
        ]),
    },
    Stage {
        name: "unit",
        about: "tests that need nothing but a compiler, in every package",
        budget_s: 240,
        needs: &[Need::Object],
        work: Work::Libtest(&[
            "test",
            "--workspace",
            "--exclude=shifter-ebpf",
            "--exclude=shifter-tests",
            "--features=shifter-common/user,shifter-common/wire",
            "--no-fail-fast",
        ]),
    },
    Stage {
        name: "kernel",
        about: "packets through the programs in this kernel",
        budget_s: 360,
        needs: &[Need::Object, Need::Root, Need::Btf],
        work: Work::Root {
            targets: Targets::Only(PACKETS),
            binaries: false,
            arguments: &[],
        },
    },
    Stage {
        name: "e2e",
        about: "real programs, real traffic, in network namespaces",
        budget_s: 1_200,
        needs: &[
            Need::Object,
            Need::Rehearsal,
            Need::Root,
            Need::Btf,
            Need::Programs,
        ],
        work: Work::Root {
            targets: Targets::Except(APART),
            binaries: true,
            arguments: &["--test-threads=1"],
        },
    },
    Stage {
        name: "socket",
        about: "the socket plane: listeners captured, killed and replaced under load",
        budget_s: 600,
        needs: &[
            Need::Object,
            Need::Rehearsal,
            Need::Root,
            Need::Btf,
            Need::Programs,
        ],
        work: Work::Root {
            targets: Targets::Only(SOCKET),
            binaries: true,
            arguments: &["--test-threads=1"],
        },
    },
    Stage {
        name: "rollout",
        about: "rollouts under load: to the end, back, and through every crash",
        budget_s: 300,
        needs: &[Need::Object, Need::Root, Need::Btf, Need::Programs],
        work: Work::Root {
            targets: Targets::Only(ROLLOUT),
            binaries: true,
            arguments: &["--test-threads=1"],
        },
    },
    Stage {
        name: "systemd",
        about: "the packaged unit on machines that boot a real systemd",
        budget_s: 120,
        needs: &[Need::Object, Need::Root, Need::Btf, Need::Programs],
        work: Work::Root {
            targets: Targets::Only(SYSTEMD),
            binaries: true,
            arguments: &["--test-threads=1"],
        },
    },
];

/// The stage of this name.
pub fn find(name: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|stage| stage.name == name)
}

/// The names of all stages.
pub fn names() -> String {
    STAGES
        .iter()
        .map(|stage| stage.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_budgets_together_are_kept() {
        let sum_s: u64 = STAGES.iter().map(|stage| stage.budget_s).sum();
        assert!(
            sum_s <= BUDGET_S,
            "the stages have {sum_s} s, more than {BUDGET_S} s"
        );
    }

    #[test]
    fn stages_are_found_by_their_names() {
        for stage in STAGES {
            let found = find(stage.name).expect("a stage");
            assert_eq!(
                found.about, stage.about,
                "{} is the name of two stages",
                stage.name
            );
            assert!(stage.budget_s > 0, "{} has no budget", stage.name);
            assert_eq!(stage.limit(), stage.budget() * 3, "{}", stage.name);
        }
        assert!(find("no-such-stage").is_none());
    }

    #[test]
    fn each_target_of_the_root_tests_belongs_to_one_stage() {
        for target in [
            "packets",
            "e2e",
            "socket",
            "rollout",
            "systemd",
            "world",
            "shifter_tests",
        ] {
            let stages = STAGES
                .iter()
                .filter(|stage| {
                    matches!(stage.work, Work::Root { targets, .. } if targets.contain(target))
                })
                .count();
            assert_eq!(stages, 1, "{target}");
        }
    }

    #[test]
    fn the_kernel_crate_is_never_compiled_for_the_host() {
        for stage in STAGES {
            if let Work::Cargo(arguments) | Work::Libtest(arguments) = stage.work
                && arguments.contains(&"--workspace")
            {
                assert!(
                    arguments.contains(&"--exclude=shifter-ebpf"),
                    "{}",
                    stage.name
                );
            }
        }
    }
}
