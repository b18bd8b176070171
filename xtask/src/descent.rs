//! The processes that descend from one: they may have left its process group, as daemons do.

use std::fs;

use nix::unistd::Pid;

/// A process, told apart from a later one that got the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    parent: Pid,
    /// When it began, in clock ticks after the boot.
    began_ticks: u64,
    running: bool,
}

impl Process {
    /// Reads a line of `/proc/PID/stat`. The name in it may contain spaces and parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(' ')?;
        let (_, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok()?),
            parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
            began_ticks: fields.get(19)?.parse().ok()?,
            running: !["Z", "X"].contains(fields.first()?),
        })
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        Self::parse(&stat).is_some_and(|now| now.running && now.began_ticks == self.began_ticks)
    }
}

/// All processes of the system that can be seen.
fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        // A process that has just ended is none to look after.
        .filter_map(|entry| Process::parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

/// What descends from `root`, itself not included.
pub fn of(root: Pid) -> Vec<Process> {
    below(root, &all())
}

fn below(root: Pid, all: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            // Ids are reused while they are read: never walk in a circle.
            if process.pid != root && !found.iter().any(|known| known.pid == process.pid) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        let (pid, parent) = (Pid::from_raw(pid), Pid::from_raw(parent));
        Process {
            pid,
            parent,
            began_ticks: 0,
            running: true,
        }
    }

    #[test]
    fn lines_of_proc_are_read() {
        let ticks = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 77 0";
        let rows = [
            (format!("42 (sh) S 7 {ticks}"), Some((42, 7, true))),
            (format!("42 (a) b (c)) R 7 {ticks}"), Some((42, 7, true))),
            (format!("42 (sh) Z 7 {ticks}"), Some((42, 7, false))),
            ("42 (sh) S 7".to_owned(), None),
            (String::new(), None),
        ];
        for (stat, expected) in rows {
            let got = Process::parse(&stat);
            let short = got.map(|one| (one.pid.as_raw(), one.parent.as_raw(), one.running));
            assert_eq!(short, expected, "{stat}");
            assert!(got.is_none_or(|one| one.began_ticks == 77), "{stat}");
        }
    }

    #[test]
    fn descendants_are_found_over_generations() {
        let all = [
            process(2, 1),
            process(3, 2),
            process(4, 3),
            process(5, 1),
            process(6, 3),
        ];
        let pids = |root| -> Vec<i32> {
            let mut pids: Vec<i32> = below(Pid::from_raw(root), &all)
                .iter()
                .map(|one| one.pid.as_raw())
                .collect();
            pids.sort_unstable();
            pids
        };
        let rows = [
            (2, vec![3, 4, 6]),
            (3, vec![4, 6]),
            (5, vec![]),
            (9, vec![]),
        ];
        for (root, expected) in rows {
            assert_eq!(pids(root), expected, "{root}");
        }
    }

    #[test]
    fn a_circle_ends() {
        let all = [process(2, 3), process(3, 2)];
        assert_eq!(below(Pid::from_raw(2), &all), [process(3, 2)]);
    }
}
