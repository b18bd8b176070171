//! Load on a service, with every answer checked: JSON lines while it runs, a summary at the end.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use shifter_tests::load::{self, Line, Plan, Report, Sources};
use tokio::signal::unix::{SignalKind, signal};

/// Makes load on a service and checks that no connection changes its backend.
///
/// Prints one JSON line each interval and one for the whole at the end, which comes after its time,
/// its count, or SIGTERM or SIGINT. Exit codes: 0 nothing failed, 1 something failed, 2 usage.
#[derive(Debug, Parser)]
#[command(name = "shifter-load")]
struct Args {
    /// Address and port, such as 10.0.0.10:80 or [2001:db8::10]:80
    target: SocketAddr,
    /// What to ask for
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections open at a time
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Requests on a connection before the next one is opened; 0 for as many as fit into the time
    #[arg(long, default_value_t = 1)]
    requests_per_connection: u64,
    /// Connections in all; without it, as many as fit into the time
    #[arg(long)]
    connections: Option<u64>,
    /// Seconds until it ends
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    time_s: f64,
    /// Requests a second over all connections; without it, as many as are answered
    #[arg(long, value_parser = rate)]
    rate_per_s: Option<f64>,
    /// Milliseconds a handshake may take
    #[arg(long, default_value_t = 5_000)]
    connect_timeout_ms: u64,
    /// Milliseconds an answer may take
    #[arg(long, default_value_t = 5_000)]
    timeout_ms: u64,
    /// Milliseconds between lines
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    interval_ms: u64,
    /// Addresses to connect from in turn, such as 10.9.0.0+1000; all must be this machine's
    #[arg(long, value_parser = sources)]
    sources: Option<Sources>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let longest = Plan::LONGEST.as_secs_f64();
    let within = |seconds: &f64| (0.001..=longest).contains(seconds);
    text.parse()
        .ok()
        .filter(within)
        .ok_or_else(|| format!("seconds from 0.001 to {longest}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let within = |rate: &f64| (0.001..=1e6).contains(rate);
    text.parse()
        .ok()
        .filter(within)
        .ok_or_else(|| "requests a second from 0.001 to 1000000".into())
}

fn sources(text: &str) -> Result<Sources, String> {
    let parse = || {
        let (first, count) = text.split_once('+')?;
        let first: IpAddr = first.parse().ok()?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some(Sources { first, count })
    };
    parse().ok_or_else(|| "first address and count, such as 10.9.0.0+1000".into())
}

impl Args {
    fn plan(self) -> Plan {
        Plan {
            target: self.target,
            path: self.path,
            concurrency: self.concurrency,
            requests_per_connection: (self.requests_per_connection > 0)
                .then_some(self.requests_per_connection),
            connections: self.connections,
            time: Duration::from_secs_f64(self.time_s),
            rate_per_s: self.rate_per_s,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            timeout: Duration::from_millis(self.timeout_ms),
            sources: self.sources,
            interval: Duration::from_millis(self.interval_ms),
        }
    }
}

/// Ends with SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the signals end the process: nothing is left to wait for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Prints a line; false if nobody reads any more.
fn print(line: &Line) -> bool {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line).is_ok() && writeln!(out).is_ok()
}

fn main() -> ExitCode {
    let plan = Args::parse().plan();
    if let Some(Sources { first, .. }) = plan.sources
        && first.is_ipv4() != plan.target.is_ipv4()
    {
        eprintln!(
            "--sources {first}: another family than the target {}",
            plan.target
        );
        return ExitCode::from(2);
    }
    let summary: Report = load::run_here(
        &plan,
        |window| {
            print(&Line::Interval(window));
        },
        stopped(),
    );
    let failed = summary.errors_count() > 0;
    print(&Line::Summary(summary));
    ExitCode::from(u8::from(failed))
}
