//! wrk as a second load client: it checks nothing, but it is fast and known.

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::netns::Inside;

/// What wrk is told.
#[derive(Clone, Debug)]
pub struct Wrk {
    /// Where to connect.
    pub target: SocketAddr,
    /// Threads.
    pub threads: usize,
    /// Connections open at a time; at least as many as threads.
    pub connections: usize,
    /// How long, whole seconds.
    pub duration_s: u64,
    /// A connection for each request.
    pub close: bool,
}

/// What wrk says at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrkReport {
    /// Answers.
    pub requests: u64,
    /// Answers a second.
    pub requests_per_s: f64,
    /// Half of the answers took no longer.
    pub p50: Duration,
    /// 99 % of the answers took no longer.
    pub p99: Duration,
    /// Answers other than 2xx and 3xx.
    pub bad_statuses: u64,
    /// Connections that failed.
    pub connect_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Answers that took longer than 2 s.
    pub timeouts: u64,
}

impl WrkReport {
    /// Errors of all kinds. With a connection for each request, wrk counts the server's orderly close
    /// among the read errors now and then.
    pub fn errors_count(&self) -> u64 {
        let Self {
            bad_statuses,
            connect_errors,
            read_errors,
            write_errors,
            timeouts,
            ..
        } = self;
        bad_statuses + connect_errors + read_errors + write_errors + timeouts
    }

    /// Reads what wrk printed; `None` if that is not a report with latencies.
    pub fn parse(text: &str) -> Option<Self> {
        let mut report = Self::default();
        let (mut has_count, mut has_latency) = (false, false);
        for line in text.lines() {
            let words: Vec<&str> = line
                .split([' ', ','])
                .filter(|word| !word.is_empty())
                .collect();
            match *words.as_slice() {
                ["50%", value] => report.p50 = duration(value)?,
                ["99%", value] => {
                    report.p99 = duration(value)?;
                    has_latency = true;
                }
                [count, "requests", "in", ..] => {
                    report.requests = count.parse().ok()?;
                    has_count = true;
                }
                ["Requests/sec:", rate] => report.requests_per_s = rate.parse().ok()?,
                ["Non-2xx", "or", "3xx", "responses:", count] => {
                    report.bad_statuses = count.parse().ok()?;
                }
                [
                    "Socket",
                    "errors:",
                    "connect",
                    connect,
                    "read",
                    read,
                    "write",
                    write,
                    "timeout",
                    timeout,
                ] => {
                    report.connect_errors = connect.parse().ok()?;
                    report.read_errors = read.parse().ok()?;
                    report.write_errors = write.parse().ok()?;
                    report.timeouts = timeout.parse().ok()?;
                }
                _ => {}
            }
        }
        (has_count && has_latency).then_some(report)
    }
}

/// `1.5ms` and the like.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

impl Wrk {
    /// The command that runs it in a namespace.
    pub fn command(&self, netns: &Inside) -> Command {
        let mut command: Command = netns.command("wrk");
        command.arg("--latency");
        command.args(["--threads", &self.threads.to_string()]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.duration_s)]);
        if self.close {
            command.args(["--header", "Connection: close"]);
        }
        command.arg(format!("http://{}/", self.target));
        command
    }

    /// Runs it in a namespace.
    ///
    /// # Panics
    /// If wrk cannot be run, fails, or says something else than a report.
    #[track_caller]
    pub fn run(&self, netns: &Inside) -> WrkReport {
        let output = self.command(netns).output();
        let output = output.unwrap_or_else(|err| panic!("wrk: {err}; install the package wrk"));
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "wrk: {}\n{text}{said}",
            output.status
        );
        WrkReport::parse(&text).unwrap_or_else(|| panic!("not a report of wrk:\n{text}{said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
Running 2s test @ http://10.0.0.10:80/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.13ms  322.58us   9.81ms   92.31%
    Req/Sec    28.47k     1.91k   33.05k    70.00%
  Latency Distribution
     50%    1.08ms
     75%    1.20ms
     90%    1.35ms
     99%  980.50us
  113414 requests in 2.00s, 30.18MB read
Requests/sec:  56690.30
Transfer/sec:     15.08MB
";

    #[test]
    fn reports_are_read() {
        let clean = WrkReport {
            requests: 113_414,
            requests_per_s: 56_690.30,
            p50: Duration::from_micros(1_080),
            p99: Duration::from_nanos(980_500),
            ..WrkReport::default()
        };
        assert_eq!(WrkReport::parse(CLEAN), Some(clean.clone()));
        assert_eq!(clean.errors_count(), 0);
        let failed = CLEAN.replace(
            "Requests/sec",
            "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  \
             Non-2xx or 3xx responses: 50000\nRequests/sec",
        );
        let failed = WrkReport::parse(&failed).expect("a report");
        assert_eq!((failed.requests, failed.errors_count()), (113_414, 54_321));
        assert_eq!((failed.connect_errors, failed.timeouts), (1, 4_000));
    }

    #[test]
    fn other_texts_are_no_reports() {
        let rows = [
            "".to_owned(),
            "unable to connect to 10.0.0.10:80 Connection refused\n".to_owned(),
            CLEAN.replace("99%", "98%"),
            CLEAN.replace("113414 requests", "many requests"),
            CLEAN.replace("980.50us", "980.50 parsecs"),
        ];
        for text in rows {
            assert_eq!(WrkReport::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        let rows = [
            ("12us", Some(12_000)),
            ("1.5ms", Some(1_500_000)),
            ("2.00s", Some(2_000_000_000)),
            ("1.5m", Some(90_000_000_000)),
            ("12", None),
            ("ms", None),
            ("1d", None),
        ];
        for (text, nanos) in rows {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }
}
