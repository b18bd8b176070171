//! `cargo xtask build`: the kernel object, then the binaries that carry it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context;

use crate::{
    process::{self, Job},
    screen::{self, Mark},
    setup::toolchain::{self, Toolchain},
    workspace::Workspace,
};

/// The target that the kernel programs are compiled for: BPF in the host's byte order.
pub const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};
/// The bench's kernel programs, beside shifter's.
pub const BENCH_OBJECT: &str = "bench.o";
/// A build of everything from nothing takes a few minutes.
pub const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Between arguments in `CARGO_ENCODED_RUSTFLAGS`, which may contain spaces.
const SEPARATOR: &str = "\x1f";

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Optimise the binaries (the default).
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build the binaries quickly, with debug assertions.
    #[arg(long)]
    debug: bool,
    /// Build the kernel programs only.
    #[arg(long)]
    kernel: bool,
    /// Build the version to come that tests upgrade to, too.
    #[arg(long, requires = "debug")]
    rehearsal: bool,
}

/// How the binaries are compiled. The kernel object is always optimised: the verifier would
/// refuse anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `target/debug`
    Debug,
    /// `target/release`
    Release,
}

impl Profile {
    /// The directory below the target directory.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Runs `cargo xtask build`.
///
/// # Errors
/// The toolchain cannot be had, or a build fails.
pub fn run(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let toolchain = toolchain::ensure(workspace)?;
    kernel(workspace, &toolchain, LIMIT)?;
    if arguments.rehearsal {
        rehearsal(workspace, &toolchain, LIMIT)?;
    }
    if !arguments.kernel {
        let profile = if arguments.debug {
            Profile::Debug
        } else {
            Profile::Release
        };
        binaries(workspace, profile)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the kernel programs and puts the object where shifterd's build looks for it.
///
/// # Errors
/// The build fails or takes longer than `limit`, or the object cannot be written.
pub fn kernel(
    workspace: &Workspace,
    toolchain: &Toolchain,
    limit: Duration,
) -> anyhow::Result<PathBuf> {
    let mut command = kernel_cargo(workspace, toolchain, "build");
    command.args(["--release"]);
    let log = workspace.log("kernel-build");
    let _ = fs::remove_file(&log);
    let done = process::run(Job::new("object", command, &log, limit))?;
    let took = done.success("object")?;
    let directory = workspace.target.join("bpf");
    let built = directory.join(TARGET).join("release");
    let object = directory.join("shifter.o");
    let changed = publish(&built.join("shifter-ebpf"), &object)?;
    publish(
        &built.join("shifter-bench-ebpf"),
        &directory.join(BENCH_OBJECT),
    )?;
    let len_bytes = fs::metadata(&object)?.len();
    let fact = format!(
        "{} ({len_bytes} bytes, {}), {}",
        workspace.relative(&object),
        if changed { "new" } else { "unchanged" },
        screen::seconds(took)
    );
    screen::line(Mark::Good, "object", &fact);
    Ok(object)
}

/// Builds the shifterd of a version to come, kernel programs and all, for tests that replace one version
/// by the other: `target/debug/shifterd-rehearsal`. The usual one must be built after it, because cargo
/// gives both the same place.
///
/// # Errors
/// A build fails or takes longer than `limit`, or a file cannot be written.
pub fn rehearsal(
    workspace: &Workspace,
    toolchain: &Toolchain,
    limit: Duration,
) -> anyhow::Result<()> {
    const FEATURE: &str = "--features=rehearsal";
    let mut command = kernel_cargo(workspace, toolchain, "build");
    command.args(["--release", FEATURE]);
    let log = workspace.log("rehearsal-build");
    let _ = fs::remove_file(&log);
    process::run(Job::new("rehearsal", command, &log, limit))?.success("rehearsal")?;
    let built = workspace.target.join("bpf").join(TARGET);
    let object = workspace.target.join("bpf/rehearsal.o");
    publish(&built.join("release/shifter-ebpf"), &object)?;
    let mut command = workspace.cargo();
    command
        .env("SHIFTER_BPF_OBJECT", &object)
        .args(["build", "--package=shifter-daemon", FEATURE]);
    let done = process::run(Job::new("rehearsal", command, &log, limit))?;
    let took = done.success("rehearsal")?;
    let directory = workspace.target.join(Profile::Debug.directory());
    let program = directory.join("shifterd-rehearsal");
    // Cargo's file may be one with another name; a copy of it stays what it is.
    let part = program.with_extension("part");
    fs::copy(directory.join("shifterd"), &part)
        .and_then(|_| fs::rename(&part, &program))
        .with_context(|| format!("cannot write {}", program.display()))?;
    let fact = format!(
        "{}, {}",
        workspace.relative(&program),
        screen::seconds(took)
    );
    screen::line(Mark::Good, "rehearsal", &fact);
    Ok(())
}

/// Cargo for the kernel programs: `verb` is `build` or `clippy`.
pub fn kernel_cargo(workspace: &Workspace, toolchain: &Toolchain, verb: &str) -> Command {
    let flags = [
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ];
    let mut command = toolchain.compiler.cargo(workspace);
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
        .args([
            verb,
            "--package=shifter-ebpf",
            "-Zbuild-std=core",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(workspace.target.join("bpf"));
    command
}

/// Copies `built` to `object` if its content differs, so that nothing that includes the object
/// is built again for nothing; by a rename, so that nobody reads half of it.
fn publish(built: &Path, object: &Path) -> anyhow::Result<bool> {
    let content = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let part = object.with_extension("o.part");
    fs::write(&part, content).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, object).with_context(|| format!("cannot write {}", object.display()))?;
    Ok(true)
}

/// Builds shifterd and shifterctl.
///
/// # Errors
/// The build fails.
pub fn binaries(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    let command = binaries_cargo(workspace, profile);
    let log = workspace.log("binaries-build");
    let _ = fs::remove_file(&log);
    let done = process::run(Job::new("binaries", command, &log, LIMIT))?;
    let took = done.success("binaries")?;
    let directory = workspace.target.join(profile.directory());
    let fact = format!(
        "shifterd and shifterctl in {}, {}",
        workspace.relative(&directory),
        screen::seconds(took)
    );
    screen::line(Mark::Good, "binaries", &fact);
    Ok(())
}

/// Cargo for shifterd and shifterctl.
pub fn binaries_cargo(workspace: &Workspace, profile: Profile) -> Command {
    let mut command = workspace.cargo();
    command.args(["build", "--package=shifter-daemon", "--package=shifterctl"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    command
}

/// The build script that takes the object from here, for its tests: a package's own tests do
/// not see its build script.
#[cfg(test)]
#[path = "../../shifter-daemon/build.rs"]
#[allow(dead_code, reason = "nothing calls a build script's main")]
mod daemon_script;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_takes_the_object_of_its_own_target_directory() {
        let base = std::env::temp_dir().join(format!("xtask-script-{}", std::process::id()));
        let out = base.join("target/debug/build/shifter-daemon-1/out");
        let object = |directory: &str| base.join(directory).join("bpf/shifter.o");
        for directory in ["", "target"] {
            let object = object(directory);
            fs::create_dir_all(object.parent().expect("a parent")).expect("a directory");
            fs::write(object, "object").expect("a file");
        }
        fs::create_dir_all(&out).expect("a directory");
        // Only what cargo has marked as its own is a target directory.
        assert_ne!(daemon_script::object(&out), Some(object("")));
        assert_ne!(daemon_script::object(&out), Some(object("target")));
        fs::write(base.join("target/CACHEDIR.TAG"), "").expect("a file");
        assert_eq!(daemon_script::object(&out), Some(object("target")));
        fs::remove_dir_all(&base).expect("removed");
    }

    #[test]
    fn a_missing_object_is_answered_with_the_command() {
        let expected = "the kernel programs are not built yet: run `cargo xtask build`";
        assert_eq!(daemon_script::MISSING, expected);
    }

    #[test]
    fn the_object_is_written_only_when_it_changed() {
        let directory = std::env::temp_dir().join(format!("xtask-publish-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let (built, object) = (directory.join("built"), directory.join("shifter.o"));
        let rows: [(&[u8], bool); 3] = [(b"one", true), (b"one", false), (b"two", true)];
        for (content, changed) in rows {
            fs::write(&built, content).expect("a file");
            assert_eq!(
                publish(&built, &object).expect("published"),
                changed,
                "{content:?}"
            );
            assert_eq!(fs::read(&object).expect("an object"), content);
        }
        fs::remove_dir_all(&directory).expect("removed");
    }
}
