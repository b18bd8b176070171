//! Puts the kernel object where the daemon's source includes it from: `OUT_DIR/shifter.o`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The answer to a build without kernel programs.
pub const MISSING: &str = "the kernel programs are not built yet: run `cargo xtask build`";

fn main() {
    println!("cargo::rerun-if-env-changed=SHIFTER_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let Some(object) = object(&out) else {
        println!("cargo::error={MISSING}");
        return;
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, out.join("shifter.o")) {
        println!(
            "cargo::error=cannot copy the kernel programs from {}: {error}",
            object.display()
        );
        println!("cargo::error={MISSING}");
    }
}

/// The object that was named, else the one in the target directory.
pub fn object(out: &Path) -> Option<PathBuf> {
    if let Some(named) = env::var_os("SHIFTER_BPF_OBJECT") {
        // A name that leads nowhere must not be papered over with another object.
        return Some(PathBuf::from(named));
    }
    // A build script is not told the target directory; but OUT_DIR lies inside it, unless cargo
    // is configured to keep intermediate files elsewhere. Cargo marks it with CACHEDIR.TAG.
    let above = out
        .ancestors()
        .filter(|path| path.join("CACHEDIR.TAG").exists());
    let moved = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    above
        .map(Path::to_owned)
        .chain(moved)
        .chain([usual])
        .map(|target| target.join("bpf/shifter.o"))
        .find(|object| object.exists())
}
