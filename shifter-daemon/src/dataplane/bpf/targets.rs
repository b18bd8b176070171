//! Putting target rules into the trie.
//!
//! Rules change one by one while packets look. The order of the steps sees to it that at each moment
//! a client finds what the old rules say or what the new ones say, never a third thing: what is added
//! goes in longest first, then what is gone goes out shortest first.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use shifter_common::{
    abi::{TargetKey, capacity, policy},
    select::Target,
};

use super::{
    super::{DataplaneError, ServicePlan},
    BpfDataplane,
    maps::map_error,
};
use crate::model::{Prefix, Targets};

/// Rules in the trie by service index.
pub type Entered = BTreeMap<u32, Targets>;

/// One change of the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter(Prefix, Target),
    Remove(Prefix),
}

/// The changes from one set of rules to another, in order.
fn steps(old: &Targets, new: &Targets) -> Vec<Step> {
    let mut entered: Vec<(Prefix, Target)> = new
        .iter()
        .filter(|(prefix, target)| old.get(prefix) != Some(target))
        .map(|(prefix, target)| (*prefix, *target))
        .collect();
    entered.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len_bits()));
    let mut removed: Vec<Prefix> = old
        .keys()
        .filter(|prefix| !new.contains_key(prefix))
        .copied()
        .collect();
    removed.sort_by_key(|prefix| prefix.len_bits());
    entered
        .into_iter()
        .map(|(prefix, target)| Step::Enter(prefix, target))
        .chain(removed.into_iter().map(Step::Remove))
        .collect()
}

/// The key of a rule.
pub(super) fn trie_key(service: u32, prefix: Prefix) -> Key<TargetKey> {
    let key = TargetKey::new(service, prefix.addr().into());
    Key::new(key.bits_before_prefix() + u32::from(prefix.len_bits()), key)
}

/// The rule of a key; `None` if nothing of ours has this form.
fn rule(key: &Key<TargetKey>, value: u32) -> Option<(u32, Prefix, Target)> {
    let (service, prefix) = prefix_of(key)?;
    Some((service, prefix, Target::from_u32(value)?))
}

/// The service and prefix of a key; `None` if nothing of ours has this form.
pub(super) fn prefix_of(key: &Key<TargetKey>) -> Option<(u32, Prefix)> {
    let data = key.data();
    let len = key.prefix_len().checked_sub(data.bits_before_prefix())?;
    let prefix = Prefix::of(data.client.to_ip(), u8::try_from(len).ok()?)?;
    Some((data.service(), prefix))
}

impl BpfDataplane {
    /// Reads the rules back from the trie.
    pub(super) fn recall_targets(&mut self) -> Result<(), DataplaneError> {
        let mut entered = Entered::new();
        for found in self.maps.targets.iter() {
            let (key, value) = found.map_err(|error| map_error("reading TARGETS", error))?;
            if let Some((service, prefix, target)) = rule(&key, value) {
                entered.entry(service).or_default().insert(prefix, target);
            }
        }
        self.targets = entered;
        Ok(())
    }

    /// Whether there is room for a plan's rules beside those they replace.
    pub(super) fn check_targets(&self, plan: &ServicePlan) -> Result<(), DataplaneError> {
        let service = self.services.get(&plan.name);
        let own = service.and_then(|service| self.targets.get(service));
        let held_count: usize = self.targets.values().map(Targets::len).sum();
        let is_held = |prefix: &&Prefix| own.is_some_and(|own| own.contains_key(*prefix));
        let added_count = plan.targets.keys().filter(|p| !is_held(p)).count();
        if held_count + added_count <= capacity::TARGETS as usize {
            return Ok(());
        }
        Err(DataplaneError::Refused(format!(
            "no room for {added_count} more target prefixes of {}: {held_count} of {} are in use; \
             name fewer and larger networks",
            plan.name,
            capacity::TARGETS
        )))
    }

    /// Puts a plan's rules in force. Flows that exist keep their backends.
    pub(super) fn enter_targets(
        &mut self,
        service: u32,
        plan: &ServicePlan,
    ) -> Result<(), DataplaneError> {
        let old = self.targets.get(&service).cloned().unwrap_or_default();
        if plan.targets.is_empty() {
            // Nobody looks any more when the entries go.
            self.set_policy(service, policy::HAS_TARGETS, 0)?;
        }
        for step in steps(&old, &plan.targets) {
            let changed = match step {
                Step::Enter(prefix, target) => self.enter_rule(service, prefix, target),
                Step::Remove(prefix) => self.remove_rule(service, prefix),
            };
            changed?;
        }
        if !plan.targets.is_empty() {
            self.set_policy(service, policy::HAS_TARGETS, policy::HAS_TARGETS)?;
        }
        Ok(())
    }

    fn enter_rule(
        &mut self,
        service: u32,
        prefix: Prefix,
        target: Target,
    ) -> Result<(), DataplaneError> {
        self.maps
            .targets
            .insert(&trie_key(service, prefix), target as u32, 0)
            .map_err(|error| map_error(format!("entering target {prefix}"), error))?;
        self.targets
            .entry(service)
            .or_default()
            .insert(prefix, target);
        Ok(())
    }

    fn remove_rule(&mut self, service: u32, prefix: Prefix) -> Result<(), DataplaneError> {
        self.maps
            .targets
            .remove(&trie_key(service, prefix))
            .map_err(|error| map_error(format!("removing target {prefix}"), error))?;
        if let Some(rules) = self.targets.get_mut(&service) {
            rules.remove(&prefix);
            if rules.is_empty() {
                self.targets.remove(&service);
            }
        }
        Ok(())
    }

    /// Takes all rules of a service out; what cannot be removed is met again by the next plan.
    pub(super) fn forget_targets(&mut self, service: u32) {
        let prefixes: Vec<Prefix> = self
            .targets
            .get(&service)
            .map(|rules| rules.keys().copied().collect())
            .unwrap_or_default();
        for prefix in prefixes {
            let _ = self.remove_rule(service, prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// The reference: every rule is tried, the longest that holds the client wins.
    fn naive(rules: &Targets, client: IpAddr) -> Option<Target> {
        rules
            .iter()
            .filter(|(prefix, _)| prefix.contains(client))
            .max_by_key(|(prefix, _)| prefix.len_bits())
            .map(|(_, target)| *target)
    }

    /// The trie as the kernel documents it (Documentation/bpf/map_lpm_trie.rst): of the entries
    /// whose first bits the key shares, as they lie in memory, the longest.
    fn trie(rules: &Targets, service: u32, client: IpAddr) -> Option<u32> {
        let bytes = |key: TargetKey| {
            let mut bytes = key.scope.to_ne_bytes().to_vec();
            for word in key.client.words {
                bytes.extend(word.to_ne_bytes());
            }
            bytes
        };
        let bit = |bytes: &[u8], i: u32| bytes[(i / 8) as usize] >> (7 - i % 8) & 1;
        let wanted = bytes(TargetKey::new(service, client.into()));
        rules
            .iter()
            .map(|(prefix, target)| (trie_key(7, *prefix), *target as u32))
            .filter(|(key, _)| {
                let own = bytes(key.data());
                (0..key.prefix_len()).all(|i| bit(&own, i) == bit(&wanted, i))
            })
            .max_by_key(|(key, _)| key.prefix_len())
            .map(|(_, value)| value)
    }

    /// Few distinct bits, so that prefixes hold each other and clients.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..4, 0_u32..4)
                .prop_map(|(high, low)| IpAddr::from((high << 30 | low).to_be_bytes())),
            (0_u128..4, 0_u128..4, 0_u128..2).prop_map(|(high, low, mapped)| IpAddr::from(
                (high << 126 | mapped << 96 | low).to_be_bytes()
            )),
        ]
    }

    fn rules() -> impl Strategy<Value = Targets> {
        let length = prop_oneof![0_u8..4, 28_u8..=33, 94_u8..100, 125_u8..=128];
        let target = prop_oneof![Just(Target::Baseline), Just(Target::Canary)];
        prop::collection::vec((address(), length, target), 0..12).prop_map(|rows| {
            rows.into_iter()
                .filter_map(|(addr, len, target)| Some((Prefix::of(addr, len)?, target)))
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_longest_prefix_wins(rules in rules(), client in address()) {
            let expected = naive(&rules, client).map(|target| target as u32);
            prop_assert_eq!(trie(&rules, 7, client), expected);
            prop_assert_eq!(trie(&rules, 8, client), None, "another service's rules");
        }

        #[test]
        fn a_rule_is_read_back_as_it_was_written(rules in rules()) {
            for (prefix, target) in rules {
                let read = rule(&trie_key(65_535, prefix), target as u32);
                prop_assert_eq!(read, Some((65_535, prefix, target)));
            }
        }

        /// After each step a client finds the old answer or the new one.
        #[test]
        fn a_change_shows_nobody_a_third_thing(
            old in rules(), new in rules(), clients in prop::collection::vec(address(), 1..8),
        ) {
            let mut rules = old.clone();
            for step in steps(&old, &new) {
                match step {
                    Step::Enter(prefix, target) => { rules.insert(prefix, target); }
                    Step::Remove(prefix) => { rules.remove(&prefix); }
                }
                for client in &clients {
                    let seen = naive(&rules, *client);
                    let allowed = [naive(&old, *client), naive(&new, *client)];
                    prop_assert!(allowed.contains(&seen), "{} sees {:?}", client, seen);
                }
            }
            prop_assert_eq!(rules, new);
        }
    }
}
