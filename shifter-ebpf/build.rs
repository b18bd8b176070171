//! Refuses a build for anything but BPF, where the compiler's own words would mislead.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target != "bpf" {
        println!("cargo::error=the kernel programs are built for BPF, not for {target}:");
        println!("cargo::error=run `cargo xtask build`, or pass `--exclude shifter-ebpf`");
    }
}
