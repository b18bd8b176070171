//! bpf-linker: it links the bitcode that rustc emits, so both must carry the same LLVM.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};

use super::{apt, compiler::Compiler};
use crate::{
    process::{self, Job},
    screen::{self, Mark},
    workspace::Workspace,
};

/// The version that is built and looked for.
pub const VERSION: &str = "0.13.0";
/// LLVM majors that this version can be built against.
pub const LLVM_MAJORS: [u32; 3] = [21, 22, 23];
/// How the names of directories begin in which a linker is built.
const REMAINS: &str = ".bpf-linker-build-";
/// Building it takes one to three minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Linking the smallest possible program takes a fraction of a second.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// The smallest program that has code, debug information and a section: if a linker makes an
/// object of it, it reads this compiler's bitcode. It brings its own lang items, so that no
/// `core` must be built first.
const PROBE: &str = r#"#![feature(no_core, lang_items)]
#![no_core]
#![no_main]
#![allow(internal_features)]
#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[lang = "copy"]
pub trait Copy {}
impl Copy for i32 {}
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn probe() -> i32 { 2 }
"#;

/// The directory of the cached linker for an LLVM. It comes into being by a rename, complete.
fn directory(cache: &Path, llvm: u32) -> PathBuf {
    cache.join(format!("bpf-linker-{VERSION}-llvm-{llvm}"))
}

/// The Debian packages that building the linker needs.
fn packages(llvm: u32) -> Vec<String> {
    let mut packages = vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    packages.extend(["zlib1g-dev", "libzstd-dev", "libxml2-dev"].map(str::to_owned));
    packages
}

/// Finds or builds a linker for `compiler`.
///
/// # Errors
/// bpf-linker does not know this LLVM, LLVM cannot be had, or the build fails.
pub fn ensure(workspace: &Workspace, compiler: &Compiler) -> anyhow::Result<PathBuf> {
    let llvm = compiler.version.llvm;
    check_llvm(&compiler.version.release, llvm)?;
    let cached = directory(&workspace.cache, llvm).join("bin/bpf-linker");
    if cached.exists() {
        match probe(workspace, compiler, &cached) {
            Ok(()) => {
                let fact = format!("{VERSION} for LLVM {llvm}: in the cache");
                screen::line(Mark::Good, "bpf-linker", &fact);
                return Ok(cached);
            }
            Err(error) => {
                let fact = format!("the cached one does not work, removed: {error:#}");
                screen::line(Mark::Change, "bpf-linker", &fact);
                fs::remove_dir_all(directory(&workspace.cache, llvm))
                    .context("cannot remove the broken bpf-linker from the cache")?;
            }
        }
    }
    if let Some(found) = on_path("bpf-linker")
        && probe(workspace, compiler, &found).is_ok()
    {
        let fact = format!("{}: links what this rustc emits", found.display());
        screen::line(Mark::Good, "bpf-linker", &fact);
        return Ok(found);
    }
    let fact = format!("missing: {VERSION} for LLVM {llvm}; building it takes a few minutes");
    screen::line(Mark::Change, "bpf-linker", &fact);
    build(workspace, compiler, &cached)?;
    probe(workspace, compiler, &cached).context("the bpf-linker that was just built is no use")?;
    Ok(cached)
}

/// Refuses an LLVM that this bpf-linker cannot be built against.
fn check_llvm(rustc: &str, llvm: u32) -> anyhow::Result<()> {
    if LLVM_MAJORS.contains(&llvm) {
        return Ok(());
    }
    bail!(
        "rustc {rustc} emits bitcode of LLVM {llvm}, and bpf-linker {VERSION} knows LLVM {} to {}",
        LLVM_MAJORS[0],
        LLVM_MAJORS[LLVM_MAJORS.len() - 1]
    )
}

/// The first executable of this name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Services of a system live where a user's PATH does not reach.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Links a tiny program, as the real build does.
fn probe(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> anyhow::Result<()> {
    let mut command = workspace.identity.compile(linker);
    command.arg("--version");
    let version = process::output(command)?;
    if version.split_whitespace().last() != Some(VERSION) {
        bail!("it is {}, not {VERSION}", version.trim());
    }
    let directory = workspace.target.join("xtask-probe");
    fs::create_dir_all(&directory)?;
    workspace.identity.hand_over(&directory)?;
    let source = directory.join("probe.rs");
    fs::write(&source, PROBE).with_context(|| format!("cannot write {}", source.display()))?;
    let object = directory.join("probe.o");
    let log = workspace.log("bpf-linker-probe");
    // Last time's complaints would only mislead.
    let _ = fs::remove_file(&log);
    let mut command = compiler.rustc(workspace);
    command
        .args([
            "--edition=2024",
            "--crate-name=probe",
            "--crate-type=bin",
            "-O",
        ])
        .args([
            "--target",
            crate::build::TARGET,
            "-Cpanic=abort",
            "-Cdebuginfo=2",
        ])
        .arg(format!("-Clinker={}", linker.display()))
        .args(["-Clink-arg=--btf", "-o"])
        .arg(&object)
        .arg(&source);
    let done = process::run(Job::new("bpf-linker", command, &log, PROBE_LIMIT))?;
    if done.end != process::End::Success {
        bail!(
            "linking a tiny program {}; see {}",
            done.end.words(),
            log.display()
        );
    }
    Ok(())
}

/// Builds the linker into a temporary directory beside its place, then renames it.
fn build(workspace: &Workspace, compiler: &Compiler, cached: &Path) -> anyhow::Result<()> {
    let llvm = compiler.version.llvm;
    let prefix = llvm_prefix(workspace, llvm)?;
    make_cache(workspace)?;
    let lock = File::options()
        .create(true)
        .append(true)
        .open(workspace.cache.join("lock"))
        .context("cannot lock the cache")?;
    // Another clone may be building the same thing: wait for it instead of doing it twice.
    lock.lock().context("cannot lock the cache")?;
    workspace.identity.hand_over(&workspace.cache)?;
    if cached.exists() {
        return Ok(());
    }
    let place = directory(&workspace.cache, llvm);
    remove_remains(&workspace.cache)?;
    let work = workspace
        .cache
        .join(format!("{REMAINS}{}", std::process::id()));
    let mut command = compiler.cargo(workspace);
    // The clone's configuration and lock file are none of this build's business.
    command
        .current_dir(&workspace.cache)
        .env("CARGO_TARGET_DIR", work.join("target"))
        .env("LLVM_PREFIX", &prefix)
        .args(["install", "bpf-linker", "--locked", "--version", VERSION])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg("--root")
        .arg(work.join("root"));
    let log = workspace.log("bpf-linker");
    let _ = fs::remove_file(&log);
    let done = process::run(Job::new("bpf-linker", command, &log, BUILD_LIMIT))?;
    let took = done.success("bpf-linker")?;
    fs::rename(work.join("root"), &place)
        .with_context(|| format!("cannot put bpf-linker into {}", place.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let fact = format!(
        "built in {}, kept in {}",
        screen::seconds(took),
        place.display()
    );
    screen::line(Mark::Good, "bpf-linker", &fact);
    Ok(())
}

/// Removes what interrupted builds left behind. The caller holds the lock, so none is under way.
fn remove_remains(cache: &Path) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(REMAINS) {
            let path = entry.path();
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The cache directory, made as whoever compiles.
fn make_cache(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = workspace.identity.compile("mkdir");
    command.arg("-p").arg(&workspace.cache);
    process::output(command)
        .map(drop)
        .context("cannot make the cache directory")
}

/// An LLVM of this major with its headers and libraries, installed if need be.
fn llvm_prefix(workspace: &Workspace, llvm: u32) -> anyhow::Result<PathBuf> {
    let usual = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let given = std::env::var_os("LLVM_PREFIX").map(PathBuf::from);
    for prefix in given.iter().chain([&usual]) {
        if is_llvm(prefix, llvm) {
            let fact = format!("{llvm} in {}", prefix.display());
            screen::line(Mark::Good, "LLVM", &fact);
            return Ok(prefix.clone());
        }
    }
    screen::line(
        Mark::Change,
        "LLVM",
        &format!("missing: {llvm} with headers"),
    );
    apt::install(workspace, &packages(llvm))?;
    if !is_llvm(&usual, llvm) {
        bail!(
            "llvm-{llvm}-dev is installed, but {} is not complete",
            usual.display()
        );
    }
    Ok(usual)
}

/// Whether bpf-linker can be built against what lies below `prefix`.
fn is_llvm(prefix: &Path, llvm: u32) -> bool {
    let mut command = std::process::Command::new(prefix.join("bin/llvm-config"));
    command.arg("--version");
    let major = process::output(command).ok();
    let major = major
        .as_deref()
        .and_then(|version| version.split('.').next()?.parse().ok());
    major == Some(llvm)
        && prefix.join("include/llvm-c/Core.h").exists()
        && prefix.join("lib/libPolly.a").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remains_of_interrupted_builds_are_removed_and_nothing_else() {
        let cache = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        let kept = directory(&cache, 22).join("bin");
        fs::create_dir_all(&kept).expect("a directory");
        fs::create_dir_all(cache.join(format!("{REMAINS}1/root"))).expect("a directory");
        remove_remains(&cache).expect("removed");
        assert!(kept.exists());
        assert_eq!(fs::read_dir(&cache).expect("a directory").count(), 1);
        fs::remove_dir_all(&cache).expect("removed");
    }

    #[test]
    fn each_llvm_has_a_linker_and_packages_of_its_own() {
        let cache = Path::new("/cache");
        assert_eq!(
            directory(cache, 22),
            Path::new("/cache/bpf-linker-0.13.0-llvm-22")
        );
        assert_ne!(directory(cache, 22), directory(cache, 23));
        assert_eq!(packages(23)[..2], ["llvm-23-dev", "libpolly-23-dev"]);
    }

    #[test]
    fn an_llvm_that_bpf_linker_does_not_know_is_named() {
        let rows = [(21, true), (22, true), (23, true), (20, false), (24, false)];
        for (llvm, known) in rows {
            let error = check_llvm("1.90.0", llvm)
                .err()
                .map(|error| error.to_string());
            let expected = format!(
                "rustc 1.90.0 emits bitcode of LLVM {llvm}, and bpf-linker 0.13.0 knows LLVM 21 to \
                 23"
            );
            assert_eq!(error, (!known).then_some(expected));
        }
    }
}
