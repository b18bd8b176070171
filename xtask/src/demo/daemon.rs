//! shifterd in the host's namespace, and what it says of itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use shifter_common::wire::{Event, ServiceStatus, Slot, Status};

use super::{
    Plane,
    child::{self, Child, Output, Said},
    http,
    network::{INTERFACE, Network, PORT, VIP},
    place::Place,
    server::Version,
};

/// The service's name.
pub const SERVICE: &str = "demo";
/// Time between two readiness probes of a version.
pub const PROBE_INTERVAL_MS: u32 = 200;
/// Failed probes in a row that take a version out.
pub const FAILURE_THRESHOLD: u32 = 2;

/// How long shifterd may take to load its programs and find both versions ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a command of shifterctl may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// A running shifterd.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub child: Child,
    socket: PathBuf,
    shifterctl: PathBuf,
}

impl Daemon {
    /// Writes the files of the node and the service, starts shifterd and waits until it holds
    /// both slots eligible.
    ///
    /// # Errors
    /// It does not get so far; the error carries the end of its log.
    pub fn start(
        place: &Place,
        network: &Network,
        binaries: &Path,
        plane: Plane,
    ) -> anyhow::Result<Self> {
        let socket = place.path().join("shifter.sock");
        let bpffs = place.mount_bpffs("bpf")?;
        let state = place.directory("state")?;
        let config = place.write("shifter.toml", &node_file(&socket, &bpffs, &state))?;
        place.directory("services.d")?;
        place.write("services.d/demo.toml", &service_file(plane))?;
        let mut command = network.host.command(binaries.join("shifterd"));
        command.arg("--config").arg(config);
        let log = place.path().join("shifterd.log");
        let child = Child::start("shifterd", command, log, Output::Log)?;
        let daemon = Self {
            child,
            socket,
            shifterctl: binaries.join("shifterctl"),
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let ask = || {
            self.child.check()?;
            // Before its socket is there, nobody answers.
            let Ok(status) = self.ask() else {
                return Ok(None);
            };
            Ok(service(&status)
                .filter(|demo| demo.slots.iter().all(|slot| slot.eligible))
                .map(drop))
        };
        child::wait_until(START_LIMIT, ask, || {
            let why = match self.ask() {
                Err(error) => format!("shifterd does not tell its status: {error:#}"),
                Ok(status) => lacking(&status),
            };
            format!("{why}{}", self.child.tail())
        })
    }

    /// `GET /v1/status`
    ///
    /// # Errors
    /// It has ended, does not answer, or not with a status; the error carries the end of its log.
    pub fn status(&self) -> anyhow::Result<Status> {
        self.child.check()?;
        let status = self.ask();
        status.with_context(|| format!("shifterd does not tell its status{}", self.child.tail()))
    }

    fn ask(&self) -> anyhow::Result<Status> {
        let answer = http::get_unix(&self.socket, "/v1/status")
            .with_context(|| format!("no answer at {}", self.socket.display()))?;
        if answer.status != 200 {
            let said = String::from_utf8_lossy(&answer.body);
            bail!("it answers with {}: {}", answer.status, said.trim());
        }
        serde_json::from_slice(&answer.body).context("its answer cannot be read")
    }

    /// Where its programs see packets: `tc` or `xdp`.
    ///
    /// # Errors
    /// As [`Daemon::status`].
    pub fn hook(&self) -> anyhow::Result<Option<String>> {
        let interfaces = self.status()?.interfaces.into_iter();
        Ok(interfaces
            .filter(|one| one.name == INTERFACE)
            .map(|one| one.hook)
            .next())
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The shifterctl that goes with it.
    pub fn shifterctl_path(&self) -> &Path {
        &self.shifterctl
    }

    /// Runs shifterctl with these words and returns what it said.
    ///
    /// # Errors
    /// It cannot be run, or refuses.
    pub fn shifterctl(&self, words: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(&self.shifterctl);
        command.env("SHIFTER_SOCKET", &self.socket).args(words);
        let said = child::run(command, COMMAND_LIMIT)?;
        if !said.status.success() {
            bail!(
                "`shifterctl {}` ended with {}: {}{}",
                words.join(" "),
                said.status,
                said.err.trim(),
                self.child.tail()
            );
        }
        Ok(said)
    }
}

/// The demo's service in a status.
pub fn service(status: &Status) -> Option<&ServiceStatus> {
    status
        .services
        .iter()
        .find(|service| service.name == SERVICE)
}

/// The event by which a slot lost its readiness, if it is newer than `after_seq`.
pub fn taken_out(status: &Status, slot: Slot, after_seq: u64) -> Option<&Event> {
    status.events.iter().find(|event| {
        event.service == SERVICE
            && event.seq > after_seq
            && event.what == "not ready"
            && event.slot == Some(slot)
    })
}

/// Why the demo cannot begin yet.
fn lacking(status: &Status) -> String {
    let Some(demo) = service(status) else {
        return "shifterd knows no service demo".to_owned();
    };
    let out = demo.slots.iter().filter(|slot| !slot.eligible);
    let reasons: Vec<String> = out
        .map(|slot| format!("slot {} is not eligible ({})", slot.slot, slot.reason))
        .collect();
    reasons.join(", ")
}

/// The node file.
fn node_file(socket: &Path, bpffs: &Path, state: &Path) -> String {
    format!(
        r#"[[interface]]
name = "{INTERFACE}"

[control]
socket = "{socket}"

[state]
dir = "{state}"

[bpf]
bpffs = "{bpffs}"
"#,
        socket = socket.display(),
        state = state.display(),
        bpffs = bpffs.display(),
    )
}

/// The service file.
fn service_file(plane: Plane) -> String {
    format!(
        r#"[service]
name = "{SERVICE}"
vip = "{VIP}:{PORT}"
plane = "{plane}"

[slot.a]
backends = ["{first}"]

[slot.b]
backends = ["{second}"]

[probe]
readiness = {{ http = "/ready", interval = "{PROBE_INTERVAL_MS}ms", timeout = "{PROBE_INTERVAL_MS}ms", failure_threshold = {FAILURE_THRESHOLD} }}
"#,
        plane = plane.name(),
        first = Version::First.address(),
        second = Version::Second.address(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, service: &str, what: &str, slot: Option<Slot>) -> Event {
        Event {
            seq,
            unix_ms: 0,
            service: service.to_owned(),
            by: "shifterd".to_owned(),
            what: what.to_owned(),
            slot,
            detail: String::new(),
            effective_before_bp: 2_500,
            effective_after_bp: 0,
            took_ns: 0,
        }
    }

    fn status(events: Vec<Event>) -> Status {
        let daemon = serde_json::json!({
            "version": "0", "pid": 1, "started_unix_ms": 0, "adopted": false, "pins": "",
            "abi_version": 1, "flows_count": 0, "flows_capacity_count": 0,
            "flows_evicted_count": 0, "pending_count": 0, "pending_capacity_count": 0,
            "pending_evicted_count": 0, "verdicts": [],
        });
        Status {
            daemon: serde_json::from_value(daemon).expect("a daemon's status"),
            interfaces: Vec::new(),
            local_clients: Default::default(),
            services: Vec::new(),
            events,
        }
    }

    #[test]
    fn the_right_event_is_found() {
        let (a, b) = (Some(Slot::A), Some(Slot::B));
        let rows = [
            (event(8, SERVICE, "not ready", b), Some(8)),
            (event(7, SERVICE, "not ready", b), None),
            (event(8, SERVICE, "not ready", a), None),
            (event(8, SERVICE, "not ready", None), None),
            (event(8, SERVICE, "ready", b), None),
            (event(8, "other", "not ready", b), None),
        ];
        for (event, expected) in rows {
            let status = status(vec![event.clone()]);
            let found = taken_out(&status, Slot::B, 7).map(|event| event.seq);
            assert_eq!(found, expected, "{event:?}");
        }
    }

    #[test]
    fn a_service_that_is_not_there_is_named() {
        assert_eq!(
            lacking(&status(Vec::new())),
            "shifterd knows no service demo"
        );
    }
}
