//! Whether the flow tables are large enough for the CPUs of this host.
//!
//! An LRU map keeps free entries ready on each CPU, and entries that were just added lie on a list
//! of their own until the map takes them over: up to 128 of each (`LOCAL_FREE_TARGET` and
//! `LOCAL_PENDING_LIST` in kernel/bpf/bpf_lru_list.c). In a table that is not much larger the kernel
//! evicts flows while there is room.

use super::super::DataplaneError;
use crate::model::SizeSpec;

/// Entries a CPU may set aside.
const SET_ASIDE_PER_CPU_COUNT: u64 = 256;
/// A table of this many times what is set aside holds at least three quarters of its size.
const COMFORT_FACTOR: u64 = 4;

/// Refuses tables that could not work, and warns of those that lose much of their size.
pub fn check(sizes: &SizeSpec) -> Result<(), DataplaneError> {
    let cpus_count = aya::util::nr_cpus()
        .map_err(|(_, error)| DataplaneError::kernel("counting CPUs", error))?;
    for (key, count) in [
        ("flows", sizes.flows_count),
        ("pending", sizes.pending_count),
    ] {
        match judge(key, u64::from(count), cpus_count as u64) {
            Judgement::Fits => {}
            Judgement::Tight(text) => tracing::warn!("{text}"),
            Judgement::TooSmall(text) => return Err(DataplaneError::Refused(text)),
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Fits,
    Tight(String),
    TooSmall(String),
}

fn judge(key: &str, count: u64, cpus_count: u64) -> Judgement {
    let aside_count = SET_ASIDE_PER_CPU_COUNT * cpus_count;
    let wanted_count = aside_count * COMFORT_FACTOR;
    if count >= wanted_count {
        return Judgement::Fits;
    }
    let facts = format!(
        "[tables] {key} = {count}, but {cpus_count} CPUs may set {aside_count} entries aside"
    );
    let help = format!("write {key} = {wanted_count} or more");
    if count < aside_count {
        Judgement::TooSmall(format!("{facts}: there would be no room for flows; {help}"))
    } else {
        Judgement::Tight(format!(
            "{facts}: flows may be forgotten from {} on; {help}",
            count - aside_count
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_against_cpus() {
        assert_eq!(judge("flows", 262_144, 2), Judgement::Fits);
        assert_eq!(judge("flows", 262_144, 256), Judgement::Fits);
        assert_eq!(judge("flows", 2_048, 2), Judgement::Fits);
        assert_eq!(
            judge("pending", 65_536, 128),
            Judgement::Tight(
                "[tables] pending = 65536, but 128 CPUs may set 32768 entries aside: flows may be \
                 forgotten from 32768 on; write pending = 131072 or more"
                    .into()
            )
        );
        assert_eq!(
            judge("flows", 1_024, 5),
            Judgement::TooSmall(
                "[tables] flows = 1024, but 5 CPUs may set 1280 entries aside: there would be no \
                 room for flows; write flows = 5120 or more"
                    .into()
            )
        );
    }
}
