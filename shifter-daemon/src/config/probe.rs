//! `[probe]`.

use std::time::Duration;

use super::{
    field::Field,
    report::{Report, shown},
    schema,
    section::Section,
};
use crate::model::{ProbeCheck, ProbeSpec};

const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_hours(1);
/// Shorter if the interval is.
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const THRESHOLD_DEFAULT: u32 = 3;
const THRESHOLD_MAX: u32 = 1_000;

/// Reads the readiness probe; without one, every backend is ready.
pub(super) fn read(probe: &Section<'_>, report: &mut Report<'_>) -> ProbeSpec {
    let readiness = probe.section("readiness", &schema::service::READINESS, report);
    let interval = readiness
        .get("interval")
        .map(|field| field.duration(INTERVAL_MIN..=INTERVAL_MAX, report));
    let timeout = readiness
        .get("timeout")
        .map(|field| field.duration(TIMEOUT_MIN..=INTERVAL_MAX, report));
    if let (Some(Some(timeout)), Some(field)) = (timeout, readiness.get("timeout"))
        && !matches!(interval, Some(None))
    {
        timeout_fits(timeout, interval.flatten(), &field, report);
    }
    let interval = interval.flatten().unwrap_or(INTERVAL_DEFAULT);
    let port = readiness.get("port").and_then(|field| {
        let port = field.count(1..=u32::from(u16::MAX), "", report)?;
        u16::try_from(port).ok()
    });
    let mut threshold = |name| {
        let field = readiness.get(name);
        field
            .and_then(|field| field.count(1..=THRESHOLD_MAX, "", report))
            .unwrap_or(THRESHOLD_DEFAULT)
    };
    ProbeSpec {
        port,
        success_threshold: threshold("success_threshold"),
        failure_threshold: threshold("failure_threshold"),
        check: check(&readiness, report),
        interval,
        timeout: timeout.flatten().unwrap_or(TIMEOUT_DEFAULT.min(interval)),
    }
}

/// A probe that may outlast the interval would pile up on a backend that hangs.
fn timeout_fits(
    timeout: Duration,
    interval: Option<Duration>,
    field: &Field<'_>,
    report: &mut Report<'_>,
) {
    let (limit, given) = match interval {
        Some(interval) => (interval, ""),
        None => (INTERVAL_DEFAULT, ", 1s unless given"),
    };
    if timeout > limit {
        report.value(
            &field.at(),
            format!("`{}` is longer than `interval`{given}", field.path()),
            "make it shorter, or the interval longer",
        );
    }
}

fn check(readiness: &Section<'_>, report: &mut Report<'_>) -> ProbeCheck {
    let host = readiness.get("host");
    let host_read = host.as_ref().and_then(|field| host_header(field, report));
    match (readiness.get("http"), readiness.get("tcp")) {
        (Some(http), None) => match path(&http, report) {
            Some(path) => ProbeCheck::Http {
                path,
                host: host_read,
            },
            None => ProbeCheck::None,
        },
        (None, Some(tcp)) => {
            if tcp.boolean(report) == Some(false) {
                report.value(
                    &tcp.at(),
                    "`probe.readiness.tcp` = false asks for nothing",
                    "write tcp = true or http = \"/path\"; without probe, remove `readiness`",
                );
            }
            if let Some(host) = host {
                report.value(
                    &host.at(),
                    "`probe.readiness.host` is for http probes only",
                    "remove it, or write http = \"/path\" instead of tcp",
                );
            }
            ProbeCheck::Tcp
        }
        (Some(http), Some(_)) => {
            report.value(
                &http.at(),
                "`probe.readiness` has both `http` and `tcp`",
                "keep one; an http probe connects as well",
            );
            ProbeCheck::None
        }
        (None, None) => {
            if readiness.is_present() {
                report.whole(
                    readiness.at().as_ref(),
                    "`probe.readiness` does not say what to ask",
                    "add http = \"/path\" or tcp = true",
                );
            }
            ProbeCheck::None
        }
    }
}

/// The path goes into a request line as it is.
fn path(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    const LEN_MAX_BYTES: usize = 1_024;
    let path = field.string(report)?;
    let visible = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if path.starts_with('/') && visible && path.len() <= LEN_MAX_BYTES {
        return Some(path.to_owned());
    }
    report.value(
        &field.at(),
        format!("`{}` must be a path, found {}", field.path(), shown(path)),
        "begin it with /; write spaces and other characters as %20 and so on",
    );
    None
}

/// The host goes into a header line as it is.
fn host_header(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    const LEN_MAX_BYTES: usize = 259;
    let host = field.string(report)?;
    let possible = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if !host.is_empty() && host.len() <= LEN_MAX_BYTES && host.bytes().all(possible) {
        return Some(host.to_owned());
    }
    report.value(
        &field.at(),
        format!(
            "`{}` must be a host name, found {}",
            field.path(),
            shown(host)
        ),
        "write a name, with a port if need be: host = \"orders.example:8443\"",
    );
    None
}
