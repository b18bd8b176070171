//! Where the bench runs.

use std::{fs, process::Command};

use super::results::Machine;

/// The programs beside shifter, and how they are asked for their version.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx", "-v"),
    ("haproxy", "-v"),
    ("nft", "--version"),
    ("wrk", "--version"),
];

/// Describes this machine.
pub fn describe() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let programs = PROGRAMS.iter().filter_map(|(program, argument)| {
        let output = Command::new(program).arg(argument).output().ok()?;
        // nginx says it on standard error.
        let said = [output.stdout, output.stderr].concat();
        first_words(&String::from_utf8_lossy(&said))
    });
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Machine {
        date: date(seconds),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
        cpus_count: std::thread::available_parallelism().map_or(0, usize::from),
        jit: read("/proc/sys/net/core/bpf_jit_enable").trim() != "0",
        load: read("/proc/loadavg")
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0),
        programs: programs.collect(),
    }
}

/// A field of `/proc/cpuinfo`, of the first processor.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The name and the version in what a program says of itself.
fn first_words(said: &str) -> Option<String> {
    let line = said.lines().next()?;
    let line = line.trim_start_matches("nginx version: ");
    let words = line.split_whitespace();
    let words: Vec<&str> = words.filter(|word| *word != "version").take(2).collect();
    match words.as_slice() {
        [] => None,
        [one, ..] if one.contains('/') => Some((*one).to_owned()),
        words => Some(words.join(" ")),
    }
}

/// `YYYY-MM-DD` in UTC of seconds since 1970 (Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let rows = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_767_225_599, "2025-12-31"),
            (1_767_225_600, "2026-01-01"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(date(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn programs_say_their_versions() {
        let rows = [
            ("nginx version: nginx/1.22.1\n", Some("nginx/1.22.1")),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n",
                Some("HAProxy 2.6.12-1+deb12u4"),
            ),
            (
                "nftables v1.0.6 (Lester Gooch #5)\n",
                Some("nftables v1.0.6"),
            ),
            ("wrk 4.1.0 [epoll] Copyright", Some("wrk 4.1.0")),
            ("", None),
        ];
        for (said, expected) in rows {
            assert_eq!(first_words(said).as_deref(), expected, "{said:?}");
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        let machine = describe();
        assert!(machine.cpus_count > 0 && !machine.kernel.is_empty() && !machine.cpu.is_empty());
        let cpuinfo = "processor\t: 0\nmodel name\t: one\nmodel name\t: two\n";
        assert_eq!(field(cpuinfo, "model name").as_deref(), Some("one"));
        assert_eq!(field(cpuinfo, "nothing"), None);
    }
}
