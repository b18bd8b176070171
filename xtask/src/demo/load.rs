//! The load: one connection for each request, from the client's namespace.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::{
    child::{self, Child, Output},
    network::{Network, PORT, VIP},
    place::Place,
    server::Version,
};

/// Requests a second, at most.
pub const RATE_PER_S: u32 = 2_000;
/// Connections open at a time, at most.
const CONCURRENCY: u32 = 32;
/// When the load ends by itself, if nobody ends it. It is the longest time the client takes.
const LONGEST_S: u32 = 600;
/// How long the client may take to finish what it has begun: its own limit for an answer is 5 s.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How often an interrupt is looked for while a line is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// What the client saw in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Its length, milliseconds.
    pub window_ms: u64,
    /// Requests sent.
    pub sent_count: u64,
    /// Answers that passed every check, by version: the first, the second.
    pub answered: [u64; 2],
    /// Requests without a good answer.
    pub failed_count: u64,
    /// Half of the answers took no longer, microseconds.
    pub p50_us: u64,
    /// 99 % of the answers took no longer, microseconds.
    pub p99_us: u64,
    /// The first failures in words.
    pub examples: Vec<String>,
}

/// A line of the client's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// What happened since the line before.
    Interval(Window),
    /// What happened in all; the last line.
    Summary(Window),
}

/// A running client.
#[derive(Debug)]
pub struct Load {
    /// The process.
    pub child: Child,
    lines: Receiver<String>,
}

impl Load {
    /// Starts the client; it says each second what happened in it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(place: &Place, network: &Network, binaries: &Path) -> anyhow::Result<Self> {
        let mut command = network.client.command(binaries.join("shifter-load"));
        command.arg(format!("{VIP}:{PORT}"));
        command.args(["--rate-per-s", &RATE_PER_S.to_string()]);
        command.args(["--concurrency", &CONCURRENCY.to_string()]);
        command.args(["--requests-per-connection", "1", "--interval-ms", "1000"]);
        command.args(["--time-s", &LONGEST_S.to_string()]);
        let log = place.path().join("load.log");
        let mut child = Child::start("the load client", command, log, Output::Pipe)?;
        let stdout = child.stdout().context("the load client has no output")?;
        let (sender, lines) = mpsc::channel();
        // It ends with the pipe, or when nobody listens any more.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line within `limit`, if one comes.
    ///
    /// # Errors
    /// The client has ended, said something that cannot be read, or an interrupt came.
    pub fn line(&self, limit: Duration) -> anyhow::Result<Option<Line>> {
        let begun = Instant::now();
        loop {
            child::heed_interrupt()?;
            let left = limit.saturating_sub(begun.elapsed());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => return Line::parse(&line).map(Some),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.child.wait(END_LIMIT)?;
                    self.child.check()?;
                }
            }
        }
    }

    /// Ends the load: requests under way are finished. Returns what happened in all.
    ///
    /// # Errors
    /// The client does not end in time or says no summary.
    pub fn finish(&mut self) -> anyhow::Result<Window> {
        self.child.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < END_LIMIT {
            if let Some(Line::Summary(all)) = self.line(END_LIMIT)? {
                return Ok(all);
            }
        }
        bail!("the load client says no summary{}", self.child.tail())
    }
}

/// As the client writes it, as far as it matters here.
#[derive(Deserialize)]
struct Report {
    kind: Kind,
    window_ms: u64,
    attempts: u64,
    requests: u64,
    errors: BTreeMap<String, u64>,
    backends: BTreeMap<String, Backend>,
    request: Quantiles,
    #[serde(default)]
    examples: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Interval,
    Summary,
}

#[derive(Deserialize)]
struct Backend {
    requests: u64,
}

#[derive(Deserialize)]
struct Quantiles {
    p50_us: u64,
    p99_us: u64,
}

impl Line {
    /// Reads a line of the client's output.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let report: Report = serde_json::from_str(text)
            .with_context(|| format!("the load client says \"{text}\""))?;
        let of = |version: Version| {
            report
                .backends
                .get(version.name())
                .map_or(0, |b| b.requests)
        };
        let answered = [of(Version::First), of(Version::Second)];
        // An answer that is neither version's is no good one.
        let strange_count = report.requests.saturating_sub(answered.iter().sum());
        let window = Window {
            window_ms: report.window_ms,
            sent_count: report.attempts,
            answered,
            failed_count: report.errors.values().sum::<u64>() + strange_count,
            p50_us: report.request.p50_us,
            p99_us: report.request.p99_us,
            examples: report.examples,
        };
        Ok(match report.kind {
            Kind::Interval => Self::Interval(window),
            Kind::Summary => Self::Summary(window),
        })
    }
}

impl Window {
    /// Answers of both versions a second.
    pub fn rate_per_s(&self) -> u64 {
        let answered_count: u64 = self.answered.iter().sum();
        (answered_count * 1_000)
            .checked_div(self.window_ms)
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"interval","at_ms":3000,"window_ms":1000,"attempts":2002,
        "connections":2001,"requests":2000,"errors":{"reset":1,"timeout":2},
        "backends":{"v1":{"connections":1900,"requests":1899,"errors":0},
                    "v2":{"connections":100,"requests":99,"errors":3},
                    "stranger":{"connections":2,"requests":2,"errors":0}},
        "connect":{"count":2001,"p50_us":40,"p99_us":90,"p999_us":100,"max_us":200},
        "request":{"count":2000,"p50_us":140,"p99_us":900,"p999_us":1000,"max_us":2000},
        "examples":["10.1.0.2:1, v2: Reset: gone"]}"#;

    fn window() -> Window {
        Window {
            window_ms: 1_000,
            sent_count: 2_002,
            answered: [1_899, 99],
            failed_count: 5,
            p50_us: 140,
            p99_us: 900,
            examples: vec!["10.1.0.2:1, v2: Reset: gone".to_owned()],
        }
    }

    #[test]
    fn lines_are_read() {
        let summary = LINE.replace("\"interval\"", "\"summary\"");
        let quiet = r#"{"kind":"interval","at_ms":1,"window_ms":0,"attempts":0,"connections":0,
            "requests":0,"errors":{},"backends":{},"request":{"p50_us":0,"p99_us":0}}"#;
        let rows = [
            (LINE, Line::Interval(window())),
            (&summary, Line::Summary(window())),
            (quiet, Line::Interval(Window::default())),
        ];
        for (text, expected) in rows {
            assert_eq!(Line::parse(text).expect("a line"), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_line_is_named() {
        for text in ["", "{}", "thread 'main' panicked", "{\"kind\":\"other\"}"] {
            let error = Line::parse(text).expect_err("no line").to_string();
            assert_eq!(error, format!("the load client says \"{text}\""));
        }
    }

    #[test]
    fn rates_are_per_second() {
        let rows = [(1_000, 1_998), (500, 3_996), (0, 0)];
        for (window_ms, expected) in rows {
            let window = Window {
                window_ms,
                ..window()
            };
            assert_eq!(window.rate_per_s(), expected, "{window_ms} ms");
        }
    }
}
