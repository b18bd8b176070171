//! The control API as typed calls: blocking, one connection a call.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use shifter_common::wire::{
    ApplyReport, Bypass, Changed, Detach, Detached, Drain, EstablishedPolicy, Flows, Refusal,
    Rollback, RolloutCommand, RolloutReply, ServiceStatus, SetWeight, Slot, StartRollout, Status,
};

use crate::http::{self, Answer};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls of shifterd through its control socket. Every method panics if the daemon does not answer or
/// answers something that is not of the wire types; a refusal is a value.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What a call gives.
pub type Called<T> = Result<T, Refusal>;

impl Client {
    /// A client of the daemon at a socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Any request; the answer as it is.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        http::ask(&mut stream, method, path, body)
    }

    /// A request whose answer must be of a type, or a refusal.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Called<T> {
        let body = body.map(|body| serde_json::to_string(body).expect("wire types are JSON"));
        let answer = self.ask(method, path, body.as_deref());
        let answer = answer.unwrap_or_else(|err| panic!("{method} {path}: {err}"));
        match answer.status {
            200..=299 => Ok(read(method, path, &answer)),
            _ => Err(read(method, path, &answer)),
        }
    }

    #[track_caller]
    fn get<T: DeserializeOwned>(&self, path: &str) -> Called<T> {
        self.call(GET, path, None::<&()>)
    }

    #[track_caller]
    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Called<T> {
        self.call(POST, path, Some(body))
    }

    /// Everything.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.get("/v1/status").expect("status is never refused")
    }

    /// One service.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn service(&self, service: &str) -> Called<ServiceStatus> {
        self.get(&format!("/v1/services/{service}"))
    }

    /// Flows of a service, at most so many.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn flows(&self, service: &str, limit: usize) -> Called<Flows> {
        self.get(&format!("/v1/services/{service}/flows?limit={limit}"))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn apply(&self) -> Called<ApplyReport> {
        self.call(POST, "/v1/apply", None::<&()>)
    }

    /// Sets the canary's weight, basis points.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn set_weight(&self, service: &str, weight_bp: u16) -> Called<Changed> {
        self.post(
            &format!("/v1/services/{service}/weight"),
            &SetWeight { weight_bp },
        )
    }

    /// Weight to 0.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn rollback(
        &self,
        service: &str,
        established: Option<EstablishedPolicy>,
    ) -> Called<Changed> {
        self.post(
            &format!("/v1/services/{service}/rollback"),
            &Rollback { established },
        )
    }

    /// A version shall get the traffic.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn start_rollout(&self, service: &str, version: &str) -> Called<RolloutReply> {
        let start = StartRollout {
            version: version.to_owned(),
            ..StartRollout::default()
        };
        self.post(&format!("/v1/services/{service}/rollout"), &start)
    }

    /// Moves a rollout.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn rollout(&self, service: &str, command: &RolloutCommand) -> Called<RolloutReply> {
        self.post(&format!("/v1/services/{service}/rollout/command"), command)
    }

    /// No new flows to a slot, or again.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn drain(&self, service: &str, slot: Slot, undo: bool) -> Called<Changed> {
        self.post(
            &format!("/v1/services/{service}/drain"),
            &Drain { slot, undo },
        )
    }

    /// New flows around shifter, or through it again.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn bypass(&self, service: &str, undo: bool) -> Called<Changed> {
        self.post(&format!("/v1/services/{service}/bypass"), &Bypass { undo })
    }

    /// Takes all programs off the interfaces.
    ///
    /// # Errors
    /// The refusal.
    #[track_caller]
    pub fn detach(&self, force: bool) -> Called<Detached> {
        self.post("/v1/detach", &Detach { force })
    }
}

/// The body of an answer as a wire type.
#[track_caller]
fn read<T: DeserializeOwned>(method: &str, path: &str, answer: &Answer) -> T {
    serde_json::from_slice(&answer.body).unwrap_or_else(|err| {
        let text = String::from_utf8_lossy(&answer.body);
        panic!(
            "{method} {path}: status {}: {err} in: {text}",
            answer.status
        )
    })
}

const GET: &str = "GET";
const POST: &str = "POST";
