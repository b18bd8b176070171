//! A server on a real socket, with a driver that answers from a table.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use shifter_common::{
    audit::seal,
    wire::{
        ApplyReport, Changed, Detach, Detached, Flow, Flows, Phase, PlannedRollout, Refusal,
        RolloutReply, Slot,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    api::{Access, ApiServer, Caller, Limits, Right, SocketGroups, bind_for, serve},
    driver::{Actor, DriverHandle, Reply, Request},
    metrics::sample,
    store::AuditLines,
};

/// Everybody is ada, with this right.
pub(super) fn ada_may(right: Right) -> Access {
    Access::always(Caller {
        actor: ada(),
        right,
    })
}

pub(super) fn ada() -> Actor {
    Actor {
        uid: 1000,
        name: "ada".into(),
        loginuid: None,
    }
}

pub(super) fn changed(service: &str) -> Changed {
    Changed {
        service: service.into(),
        weight_before_bp: 0,
        weight_bp: 500,
        generation: 13,
        took_ns: 41_000,
        flows_reset_count: 0,
        notes: vec!["slot b is not ready: it gets no flows yet".into()],
    }
}

pub(super) fn flows() -> Flows {
    Flows {
        total_count: 1,
        flows: vec![Flow {
            client: "192.0.2.1:50000".into(),
            vip: "10.0.0.10:443".into(),
            backend: "10.0.0.10:8443".into(),
            slot: Slot::A,
            cohort: 3,
            phase: Phase::Established,
            idle_ms: 1000,
        }],
    }
}

pub(super) fn answer(request: &Request) -> Result<Reply, Refusal> {
    let known = |service: &str, reply: Reply| match service {
        "orders" => Ok(reply),
        _ => Err(Refusal {
            code: "unknown_service".into(),
            message: format!("no service `{service}`"),
            help: "services: orders".into(),
        }),
    };
    match request {
        Request::Status => Ok(Reply::Status(Box::new(sample::status()))),
        Request::Service(s) => known(
            s,
            Reply::Service(Box::new(sample::status().services.remove(0))),
        ),
        Request::Flows(s, _) => known(s, Reply::Flows(flows())),
        Request::Plan(s, version) => known(
            s,
            Reply::Planned(Box::new(PlannedRollout {
                service: s.clone(),
                version: version.to_string(),
                slot: Slot::B,
                strategy: "blue-green".into(),
                hash: "00".into(),
                lasts_ms: 0,
                steps: Vec::new(),
                notes: Vec::new(),
            })),
        ),
        Request::Audit(_) => Ok(Reply::Audit(AuditLines {
            lines: vec![seal("{\"seq\":1,\"prev\":\"0\"}").0],
            last_seq: 1,
            ..AuditLines::default()
        })),
        Request::History(s) => known(s, Reply::History(Box::default())),
        Request::Deployment(s, _) => known(s, Reply::Deployment(Box::default())),
        Request::Apply => Ok(Reply::Applied(ApplyReport::default())),
        Request::LookAtListeners | Request::LookForTrips => Ok(Reply::Looked),
        Request::SetWeight(s, _)
        | Request::Rollback(s, _)
        | Request::Drain(s, _)
        | Request::Bypass(s, _) => known(s, Reply::Changed(changed(s))),
        Request::Start(s, _) | Request::Command(s, _) => {
            let rollout = sample::status().services.remove(0).rollout.unwrap();
            let done = RolloutReply {
                service: s.clone(),
                already: None,
                rollout,
            };
            known(s, Reply::Rollout(Box::new(done)))
        }
        Request::Detach(Detach { force: true }) => Ok(Reply::Detached(Detached::default())),
        Request::Detach(Detach { force: false }) => Err(Refusal {
            code: "flows_open".into(),
            message: "3 flows are open".into(),
            help: "shifterctl detach --force".into(),
        }),
    }
}

pub(super) type Asked = Arc<Mutex<Vec<(Request, Option<Actor>)>>>;

/// A server, its fake driver and what the driver was asked.
pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
    pub(super) asked: Asked,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) server: JoinHandle<std::io::Result<()>>,
}

impl World {
    pub(super) fn start(right: Right, limits: Option<Limits>, pace: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shifter.sock");
        let listener = bind_for(&path, SocketGroups::default()).unwrap();
        let (handle, mut queue) = DriverHandle::channel(8);
        let asked = Asked::default();
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(call) = queue.recv().await {
                record
                    .lock()
                    .unwrap()
                    .push((call.request.clone(), call.actor.clone()));
                tokio::time::sleep(pace).await;
                let _ = call.reply.send(answer(&call.request));
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let access = ada_may(right);
        let server = match limits {
            None => tokio::spawn(serve(listener, handle, access, stopped)),
            Some(limits) => tokio::spawn(
                ApiServer::new(handle, access)
                    .with_limits(limits)
                    .serve(listener, stopped),
            ),
        };
        Self {
            _dir: dir,
            path,
            asked,
            stop: Some(stop),
            server,
        }
    }

    pub(super) fn quick() -> Self {
        Self::start(Right::Change, None, Duration::ZERO)
    }

    pub(super) async fn ask(&self, request: &str) -> Response {
        exchange(&self.path, request.as_bytes()).await
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Response {
        self.ask(&post(path, body)).await
    }

    pub(super) fn asked(&self) -> Vec<(Request, Option<Actor>)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

pub(super) fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\n\r\n{body}"
    )
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Response {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends the bytes and reads until the server closes.
pub(super) async fn exchange(path: &Path, request: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // A server that answers before the end of the request may close meanwhile.
    let _ = stream.write_all(request).await;
    read_response(&mut stream).await
}

pub(super) async fn read_response(stream: &mut UnixStream) -> Response {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
