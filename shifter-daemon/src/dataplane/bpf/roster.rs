//! Which backend indexes are whose, and which are free. Read from the map once, at the start; what
//! publication then needs costs as much as the service is large, not as the table is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shifter_common::abi::{BackendEntry, backend_state};

/// The indexes of the backend table.
#[derive(Debug, Default)]
pub struct Roster {
    by_service: BTreeMap<u32, BTreeSet<u32>>,
    /// Free indexes; the one that has been free for longest is used next.
    free: VecDeque<u32>,
    /// Backend ids up to this one were given out.
    last_id: u32,
}

impl Roster {
    /// Reads the whole table, in the order of its indexes.
    pub fn read(entries: impl Iterator<Item = BackendEntry>) -> Self {
        let mut this = Self::default();
        for (index, entry) in (0..).zip(entries) {
            // Entries keep their id when they are freed, so the largest is never given out again.
            this.last_id = this.last_id.max(entry.backend_id);
            if entry.state == backend_state::FREE {
                this.free.push_back(index);
            } else {
                this.by_service
                    .entry(entry.service)
                    .or_default()
                    .insert(index);
            }
        }
        this
    }

    /// A service's indexes, in order.
    pub fn of(&self, service: u32) -> impl Iterator<Item = u32> + '_ {
        self.by_service.get(&service).into_iter().flatten().copied()
    }

    /// All indexes in use.
    pub fn used(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_service.values().flatten().copied()
    }

    /// Gives a service an index, and a backend id that no other ever had. `None` if all are in use.
    pub fn take(&mut self, service: u32) -> Option<(u32, u32)> {
        let index = self.free.pop_front()?;
        self.by_service.entry(service).or_default().insert(index);
        self.last_id = self.last_id.wrapping_add(1);
        Some((index, self.last_id))
    }

    /// Takes an index back.
    pub fn give_back(&mut self, service: u32, index: u32) {
        let Some(indexes) = self.by_service.get_mut(&service) else {
            return;
        };
        if indexes.remove(&index) {
            self.free.push_back(index);
        }
        if indexes.is_empty() {
            self.by_service.remove(&service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(service: u32, state: u8, backend_id: u32) -> BackendEntry {
        BackendEntry {
            service,
            state,
            backend_id,
            ..BackendEntry::default()
        }
    }

    #[test]
    fn indexes_are_given_out_once_and_ids_never_again() {
        use backend_state::{DRAINING, FREE, READY};
        let table = [
            entry(0, FREE, 0),
            entry(7, READY, 3),
            entry(9, FREE, 12),
            entry(7, DRAINING, 4),
        ];
        let mut roster = Roster::read(table.into_iter());
        let of = |roster: &Roster, service| roster.of(service).collect::<Vec<_>>();
        assert_eq!(of(&roster, 7), [1, 3]);
        assert_eq!(of(&roster, 9), [] as [u32; 0]);
        assert_eq!(roster.take(9), Some((0, 13)));
        assert_eq!(roster.take(7), Some((2, 14)));
        assert_eq!(roster.take(7), None, "all are in use");
        assert_eq!(of(&roster, 7), [1, 2, 3]);
        assert_eq!(roster.used().collect::<Vec<_>>(), [1, 2, 3, 0]);
        roster.give_back(7, 3);
        roster.give_back(7, 3);
        roster.give_back(8, 1);
        roster.give_back(9, 0);
        assert_eq!(roster.take(5), Some((3, 15)), "free for longest");
        assert_eq!(roster.take(5), Some((0, 16)));
        assert_eq!(roster.take(5), None, "none was given back twice");
    }
}
