//! How other tasks talk to the driver.

use std::time::Instant;

use crate::{
    rollout::Label,
    store::{AuditLines, AuditQuery},
};
use shifter_common::wire::{
    ApplyReport, Bypass, Changed, DeploymentRecord, Detach, Detached, Drain, Flows, History,
    PlannedRollout, Refusal, Rollback, RolloutCommand, RolloutReply, ServiceStatus, SetWeight,
    StartRollout, Status,
};
use tokio::sync::{mpsc, oneshot};

/// Who asks, as the kernel says (SO_PEERCRED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// User id.
    pub uid: u32,
    /// User name, or the number if the user has none.
    pub name: String,
    /// User id of the login that led to this, whatever the user became since; if the kernel keeps it.
    pub loginuid: Option<u32>,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (uid {})", self.name, self.uid)
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everything.
    Status,
    /// One service.
    Service(String),
    /// Flows of a service, at most this many.
    Flows(String, usize),
    /// What a rollout to this version would do.
    Plan(String, Label),
    /// Records of the audit.
    Audit(AuditQuery),
    /// Revisions and rollouts of a service.
    History(String),
    /// One rollout of a service, as the audit tells it.
    Deployment(String, u64),
    /// Read the service files again and put them in force.
    Apply,
    /// Change the canary's weight.
    SetWeight(String, SetWeight),
    /// Weight to 0.
    Rollback(String, Rollback),
    /// No new flows to a slot, or allow them again.
    Drain(String, Drain),
    /// New connections around shifter, or through it again.
    Bypass(String, Bypass),
    /// Take all programs off the interfaces.
    Detach(Detach),
    /// Bring a version to its traffic.
    Start(String, StartRollout),
    /// Move a rollout.
    Command(String, RolloutCommand),
    /// Look at what listens for the backends of the socket plane.
    LookAtListeners,
    /// Look for canaries that the kernel has taken out of traffic: it says that there is one.
    LookForTrips,
}

/// The answer to a [`Request`], by variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Service`].
    Service(Box<ServiceStatus>),
    /// To [`Request::Flows`].
    Flows(Flows),
    /// To [`Request::Plan`].
    Planned(Box<PlannedRollout>),
    /// To [`Request::Audit`].
    Audit(AuditLines),
    /// To [`Request::History`].
    History(Box<History>),
    /// To [`Request::Deployment`].
    Deployment(Box<DeploymentRecord>),
    /// To [`Request::Apply`].
    Applied(ApplyReport),
    /// To the requests that change one service.
    Changed(Changed),
    /// To the requests about a rollout.
    Rollout(Box<RolloutReply>),
    /// To [`Request::Detach`].
    Detached(Detached),
    /// To [`Request::LookAtListeners`] and [`Request::LookForTrips`].
    Looked,
}

/// A request on its way to the driver.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks; `None` for the daemon's own readers (metrics, SIGHUP).
    pub actor: Option<Actor>,
    /// When the request arrived.
    pub arrived: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// A cheap handle to the driver's queue.
#[derive(Clone, Debug)]
pub struct DriverHandle {
    calls: mpsc::Sender<Call>,
}

impl DriverHandle {
    /// A handle, and the queue the driver reads. At most `capacity` calls wait; further callers
    /// wait for a place.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Call>) {
        let (calls, queue) = mpsc::channel(capacity);
        (Self { calls }, queue)
    }

    /// Asks the driver and waits for the answer.
    ///
    /// # Errors
    /// The driver's refusal, or code `internal` if the driver is gone.
    pub async fn call(
        &self,
        request: Request,
        actor: Option<Actor>,
        arrived: Instant,
    ) -> Result<Reply, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal {
            code: "internal".into(),
            message: "shifterd is stopping and takes no more requests".into(),
            help: "traffic stays steered; start it again with: systemctl start shifterd".into(),
        };
        let call = Call {
            request,
            actor,
            arrived,
            reply,
        };
        self.calls.send(call).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
