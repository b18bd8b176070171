use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn backends(count: u32) -> Vec<Candidate> {
    (0..count)
        .map(|i| Candidate {
            index: i,
            addr: IpAddr::from((0x0a01_0000 + i / 3).to_be_bytes()).into(),
            port: Be16::from_host(8_000 + (i % 3) as u16),
            weight: 100,
            ready: true,
        })
        .collect()
}

fn fresh(candidates: &[Candidate]) -> Dealt {
    deal(candidates, &Dealt::default())
}

fn shares(table: &[u32]) -> BTreeMap<u32, u32> {
    let mut shares = BTreeMap::new();
    for &index in table {
        *shares.entry(index).or_default() += 1;
    }
    shares
}

/// Entries that changed hands although nobody had to give or take them: `touched` are the backends
/// that the change was about.
fn disturbed(before: &[u32], after: &[u32], touched: &[u32]) -> usize {
    assert_eq!(before.len(), after.len());
    before
        .iter()
        .zip(after)
        .filter(|&(b, a)| b != a && !touched.contains(b) && !touched.contains(a))
        .count()
}

#[test]
fn sizes_are_prime() {
    for size in SIZES {
        let prime = (2..).take_while(|d| d * d <= size).all(|d| size % d != 0);
        assert!(prime, "{size}");
    }
    assert_eq!(table_size(0), 0);
    assert_eq!(table_size(1), 127);
    assert_eq!(table_size(1_000), 131_071);
    assert_eq!(table_size(100_000), 262_139);
}

#[test]
fn a_size_is_kept_while_it_fits() {
    // entries before, backends now, expected
    for (before, backends, expected) in [
        (0, 2, 251),
        (127, 2, 251),
        (251, 1, 251),
        (2_039, 1, 2_039),
        (4_093, 1, 127),
        (262_139, 100_000, 262_139),
        (100, 1, 127),
        (251, 0, 0),
    ] {
        assert_eq!(next_size(before, backends), expected, "{before} {backends}");
    }
}

/// A backend that fails moves no entry but its own, and finds them again when it returns.
#[test]
fn a_failing_backend_disturbs_no_other() {
    for count in [3_u32, 10, 100, 1_000] {
        let mut all = backends(count);
        let before = fresh(&all);
        assert!(before.table.len() >= (ENTRIES_PER_BACKEND * count) as usize);
        for gone in [0, count / 2, count - 1] {
            all[gone as usize].ready = false;
            let after = deal(&all, &before);
            assert_eq!(
                disturbed(&before.table, &after.table, &[gone]),
                0,
                "{count} backends, {gone} fails"
            );
            assert_eq!(after.owners, before.owners);
            assert!(!after.table.contains(&gone) && !after.table.contains(&FREE));
            all[gone as usize].ready = true;
            assert_eq!(deal(&all, &after), before);
        }
    }
}

/// The disruption of the paper, at the hundred entries a backend that it asks for and fewer: what
/// plain Maglev moves among the others (1 to 3 %) stays where it is.
#[test]
fn removing_or_adding_a_backend_disturbs_at_most_one_percent() {
    for count in [3_u32, 10, 100, 655] {
        let all = backends(count);
        let before = fresh(&all);
        for gone in [0, count / 2, count - 1] {
            let rest: Vec<_> = all.iter().copied().filter(|c| c.index != gone).collect();
            let without = deal(&rest, &before);
            let again = deal(&all, &without);
            for (what, one, other) in [("removed", &before, &without), ("added", &without, &again)]
            {
                let count_disturbed = disturbed(&one.table, &other.table, &[gone]);
                assert!(
                    count_disturbed * 100 <= one.table.len(),
                    "{gone} of {count} {what}: {count_disturbed} of {}",
                    one.table.len()
                );
            }
            assert_eq!(shares(&again.table), shares(&before.table));
        }
    }
}

/// Growing out of a size stretches the table; most hashes keep their backend all the same.
#[test]
fn a_table_that_outgrows_its_size_keeps_most_owners() {
    for count in [2_u32, 10, 81, 327] {
        let before = fresh(&backends(count));
        let after = deal(&backends(count + 1), &before);
        let (old, new) = (before.table.len() as u64, after.table.len() as u64);
        if new == old {
            continue;
        }
        let samples = 1_000_000_u64;
        let moved = (0..samples)
            .filter(|sample| {
                let at = |table: &[u32], size| table[(sample * size / samples) as usize];
                let (b, a) = (at(&before.table, old), at(&after.table, new));
                a != b && a != count
            })
            .count();
        let share = moved as f64 / samples as f64;
        assert!(share < 0.16, "{count} backends, {old} -> {new}: {share:.3}");
    }
}

/// After a restart only the table in force is known. It stays in force.
#[test]
fn a_table_read_back_stays_as_it_is() {
    let mut all = backends(10);
    let whole = fresh(&all);
    assert_eq!(deal(&all, &Dealt::recalled(whole.table.clone())), whole);
    all[3].ready = false;
    all[7].ready = false;
    let table = deal(&all, &whole).table;
    let recalled = deal(&all, &Dealt::recalled(table.clone()));
    assert_eq!(recalled.table, table);
    all[3].ready = true;
    all[7].ready = true;
    let healed = deal(&all, &recalled);
    assert_eq!(disturbed(&table, &healed.table, &[3, 7]), 0);
    assert_eq!(shares(&healed.table), shares(&whole.table));
}

#[test]
fn equal_weights_get_equal_shares() {
    let shares = shares(&fresh(&backends(10)).table);
    let (least, most) = (shares.values().min(), shares.values().max());
    assert!(
        most.zip(least).is_some_and(|(m, l)| m - l <= 1),
        "{shares:?}"
    );
}

#[test]
fn nothing_gives_an_empty_table() {
    assert_eq!(fresh(&[]), Dealt::default());
    let mut idle = backends(2);
    idle.iter_mut().for_each(|c| c.weight = 0);
    assert_eq!(fresh(&idle), Dealt::default());
    let mut down = backends(2);
    down.iter_mut().for_each(|c| c.ready = false);
    assert!(fresh(&down).table.is_empty());
    assert_eq!(fresh(&down).owners, fresh(&backends(2)).owners);
}

/// A sequence of changes: for each backend whether it is configured, ready, and its weight.
fn changes() -> impl Strategy<Value = Vec<Vec<(bool, bool, u16)>>> {
    let backend = (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
        0_u16..=300,
    );
    prop::collection::vec(prop::collection::vec(backend, 12), 1..8)
}

proptest! {
    #[test]
    fn order_does_not_matter_and_weights_do(
        weights in prop::collection::vec(1_u16..=1_000, 1..12), seed: u64,
    ) {
        let mut all = backends(weights.len() as u32);
        for (candidate, weight) in all.iter_mut().zip(&weights) {
            candidate.weight = *weight;
        }
        let dealt = fresh(&all);
        let shift = (seed % all.len() as u64) as usize;
        all.rotate_left(shift);
        prop_assert_eq!(fresh(&all), dealt);
    }

    /// Whatever the history: every entry goes to a ready backend, shares are exact to an entry or
    /// two, a ready owner has its entries, nobody loses more than its share demands, and doing it
    /// again changes nothing.
    #[test]
    fn any_history_leaves_a_fair_table(history in changes()) {
        let mut before = Dealt::default();
        for states in history {
            let all: Vec<Candidate> = backends(12)
                .into_iter()
                .zip(states)
                .filter(|(_, (is_there, ..))| *is_there)
                .map(|(c, (_, ready, weight))| Candidate { ready, weight, ..c })
                .collect();
            let after = deal(&all, &before);
            prop_assert_eq!(&deal(&all, &after), &after);

            let size = after.owners.len() as f64;
            for (is_table, table) in [(false, &after.owners), (true, &after.table)] {
                let held = shares(table);
                let takes = |c: &Candidate| c.weight > 0 && (c.ready || !is_table);
                let total: f64 = all.iter().filter(|c| takes(c)).map(|c| f64::from(c.weight)).sum();
                prop_assert_eq!(table.is_empty(), total == 0.0);
                for candidate in &all {
                    let share = f64::from(held.get(&candidate.index).copied().unwrap_or(0));
                    let expected = if takes(candidate) {
                        f64::from(candidate.weight) / total * size
                    } else {
                        0.0
                    };
                    prop_assert!((share - expected).abs() < 2.0, "{share} for {expected}");
                }
            }
            for (owner, holder) in after.owners.iter().zip(&after.table) {
                let owner_is_ready = all.iter().any(|c| c.index == *owner && c.ready);
                prop_assert!(!owner_is_ready || owner == holder);
            }
            if before.owners.len() == after.owners.len() {
                let (old, new) = (shares(&before.owners), shares(&after.owners));
                let moved = before.owners.iter().zip(&after.owners).filter(|(b, a)| b != a).count();
                let due: u32 = old
                    .iter()
                    .map(|(index, held)| held.saturating_sub(new.get(index).copied().unwrap_or(0)))
                    .sum();
                prop_assert_eq!(moved, due as usize, "as few moves as the shares allow");
            }
            before = after;
        }
    }
}
