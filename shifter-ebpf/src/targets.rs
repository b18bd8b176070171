//! Target rules: which clients' new flows do not follow the weight.

use aya_ebpf::maps::lpm_trie::Key;
use shifter_common::{
    abi::{FlowKey, ServiceEntry, TargetKey, policy},
    select::Target,
};

use crate::maps::TARGETS;

/// What the rules of a service say about a client: the longest prefix that holds it decides. A
/// service without rules pays for one test of a bit.
#[inline(always)]
pub fn of(key: &FlowKey, service: &ServiceEntry) -> Option<Target> {
    if service.policy & policy::HAS_TARGETS == 0 {
        return None;
    }
    let whole = Key::new(TargetKey::BITS, TargetKey::new(key.service, key.client));
    Target::from_u32(*TARGETS.get(&whole)?)
}
