//! Which programs of the kernel are shifter's own: those it has pinned.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use super::bpf;

/// Levels of directories below the pins' own that are looked at.
const DEPTH: u32 = 4;

/// Ids of the programs pinned at or below `dir`, directly or by a link. What cannot be read is left
/// out: without its pins a program counts as foreign, and foreign programs are never touched.
pub fn pinned_programs(dir: &Path) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut open = vec![(dir.to_owned(), DEPTH)];
    while let Some((dir, depth)) = open.pop() {
        for (path, is_dir) in entries(&dir) {
            if is_dir {
                if depth > 0 {
                    open.push((path, depth - 1));
                }
            } else if let Some(id) = program_id(&path) {
                ids.insert(id);
            }
        }
    }
    ids
}

fn entries(dir: &Path) -> Vec<(PathBuf, bool)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?.is_dir())))
        .collect()
}

fn program_id(path: &Path) -> Option<u32> {
    let object = bpf::open_pin(path).ok()?;
    // A map's information begins like a program's: ask what the descriptor is first.
    let kind = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd())).ok()?;
    match kind.to_str()? {
        "anon_inode:bpf-prog" => bpf::program_info(&object).ok().map(|(id, _)| id),
        "anon_inode:bpf_link" | "anon_inode:bpf-link" => bpf::link_program_id(&object).ok(),
        _ => None,
    }
}
