//! From a connection to the driver and back.

use std::{io, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use shifter_common::wire::Refusal;
use tokio::{net::UnixListener, net::UnixStream, time::timeout};

use super::{
    Access, Caller, Endpoint, Limits, Peer, Right, audit, body, connections,
    endpoint::Parts,
    refused::{Refused, bad_request, json},
};
use crate::driver::{DriverHandle, Reply, Request};

/// The control API before it serves.
#[derive(Clone, Debug)]
pub struct ApiServer {
    handle: DriverHandle,
    access: Access,
    limits: Limits,
}

/// Serves the control API with the default [`Limits`] until `shutdown`.
///
/// # Errors
/// None today: what goes wrong with one client ends that client's connection only.
pub async fn serve(
    listener: UnixListener,
    handle: DriverHandle,
    access: Access,
    shutdown: impl Future,
) -> io::Result<()> {
    ApiServer::new(handle, access)
        .serve(listener, shutdown)
        .await
}

impl ApiServer {
    /// A server that asks this driver and lets these users in.
    pub fn new(handle: DriverHandle, access: Access) -> Self {
        Self {
            handle,
            access,
            limits: Limits::default(),
        }
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Serves until `shutdown`, then finishes running requests.
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future) -> io::Result<()> {
        let Self {
            handle,
            access,
            limits,
        } = self;
        let router = router(Arc::new(Shared { handle, limits }));
        let open = |stream: &UnixStream| {
            let (peer, access, router) = (Peer::of(stream), access.clone(), router.clone());
            async move {
                let peer = peer?;
                let caller = tokio::task::spawn_blocking(move || access.judge(&peer)).await?;
                Ok(router.layer(Extension(caller)))
            }
        };
        connections::run(listener, limits, open, shutdown).await;
        Ok(())
    }
}

struct Shared {
    handle: DriverHandle,
    limits: Limits,
}

fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        router = router.route(endpoint.path(), route(*endpoint));
    }
    router.fallback(unknown_path).with_state(shared)
}

fn route(endpoint: Endpoint) -> MethodRouter<Arc<Shared>> {
    let handler = move |State(shared): State<Arc<Shared>>,
                        Extension(caller): Extension<Caller>,
                        path: Result<Path<Vec<(String, String)>>, PathRejection>,
                        request: axum::extract::Request| async move {
        let arrived = Instant::now();
        match answer(endpoint, &shared, caller, path, request, arrived).await {
            Ok(reply) => reply_response(&reply),
            Err(refusal) => Refused(refusal).into_response(),
        }
    };
    let filter = match endpoint.right() {
        Right::Change => MethodFilter::POST,
        Right::Read | Right::None => MethodFilter::GET,
    };
    on(filter, handler).fallback(move |method: axum::http::Method| async move {
        Refused(Refusal {
            code: "wrong_method".into(),
            message: format!(
                "{} {} does not exist",
                body::shorten(method.as_str()),
                endpoint.path()
            ),
            help: format!("use {} {}", endpoint.method(), endpoint.path()),
        })
    })
}

async fn unknown_path(uri: Uri) -> Refused {
    Refused(Refusal {
        code: "unknown_path".into(),
        message: format!("no such path: {}", body::shorten(uri.path())),
        help: format!("paths: {}", Endpoint::list()),
    })
}

async fn answer(
    endpoint: Endpoint,
    shared: &Shared,
    caller: Caller,
    path: Result<Path<Vec<(String, String)>>, PathRejection>,
    request: axum::extract::Request,
    arrived: Instant,
) -> Result<Reply, Refusal> {
    if let Err(refusal) = caller.require(endpoint.right()) {
        if endpoint.right() == Right::Change {
            let Caller { actor, .. } = &caller;
            tracing::warn!(verb = endpoint.verb(), %actor, refusal = "forbidden", "request");
        }
        return Err(refusal);
    }
    let path = path.map_err(|rejection| {
        bad_request(
            rejection.body_text(),
            format!("the path is {}", endpoint.path()),
        )
    })?;
    let path_value = |key: &str| {
        let mut values = path.0.iter();
        let found = values.find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    };
    let (head, body) = request.into_parts();
    let body = read(body, shared.limits).await?;
    let request = endpoint.decode(Parts {
        service: path_value("service"),
        version: path_value("version"),
        rollout: path_value("rollout"),
        query: head.uri.query().unwrap_or_default(),
        content_type: head
            .headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.as_bytes()),
        body: &body,
    })?;
    if endpoint.right() < Right::Change {
        return shared
            .handle
            .call(request, Some(caller.actor), arrived)
            .await;
    }
    // In a task of its own: a client that hangs up must not take the log line with it.
    let handle = shared.handle.clone();
    let change = tokio::spawn(change(endpoint, handle, caller, request, arrived));
    change.await.unwrap_or_else(|error| {
        Err(Refusal {
            code: "internal".into(),
            message: format!("{} met a defect: {error}", endpoint.verb()),
            help: "see what is in force: shifterctl status; the log: journalctl -u shifterd".into(),
        })
    })
}

async fn read(body: Body, limits: Limits) -> Result<bytes::Bytes, Refusal> {
    let body = timeout(limits.read, Limited::new(body, limits.body_bytes).collect());
    match body.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(bad_request(
            format!("the body is larger than {} bytes", limits.body_bytes),
            "no request needs more than a hundred",
        )),
        Ok(Err(error)) => Err(bad_request(format!("the body cannot be read: {error}"), "")),
        Err(_) => Err(bad_request(
            format!("the body was not complete within {:?}", limits.read),
            "send as many bytes as content-length says",
        )),
    }
}

/// Asks the driver, and logs who asked for what and what became of it in one line.
async fn change(
    endpoint: Endpoint,
    handle: DriverHandle,
    Caller { actor, .. }: Caller,
    request: Request,
    arrived: Instant,
) -> Result<Reply, Refusal> {
    let asked = asked(&request);
    let by = actor.to_string();
    let result = handle.call(request, Some(actor), arrived).await;
    let took_us = u64::try_from(arrived.elapsed().as_micros()).unwrap_or(u64::MAX);
    let verb = endpoint.verb();
    match &result {
        Ok(_) => tracing::info!(verb, actor = %by, %asked, took_us, "request"),
        Err(Refusal { code, message, .. }) => tracing::warn!(
            verb, actor = %by, %asked, took_us, refusal = %code, reason = ?message, "request"
        ),
    }
    result
}

/// What a changing request asks for, on one line: names come from clients, so they are quoted.
fn asked(request: &Request) -> String {
    match request {
        Request::Status
        | Request::Service(_)
        | Request::Flows(..)
        | Request::Plan(..)
        | Request::Audit(_)
        | Request::History(_)
        | Request::Deployment(..)
        | Request::LookAtListeners
        | Request::LookForTrips => String::new(),
        Request::Apply => "files".into(),
        Request::SetWeight(service, set) => format!("{service:?} weight_bp={}", set.weight_bp),
        Request::Rollback(service, rollback) => match rollback.established {
            Some(policy) => format!("{service:?} established={policy:?}"),
            None => format!("{service:?}"),
        },
        Request::Drain(service, drain) => {
            format!("{service:?} slot={} undo={}", drain.slot, drain.undo)
        }
        Request::Bypass(service, bypass) => format!("{service:?} undo={}", bypass.undo),
        Request::Detach(detach) => format!("force={}", detach.force),
        Request::Start(service, start) => format!("{service:?} version={:?}", start.version),
        Request::Command(service, command) => format!("{service:?} {}", command.name()),
    }
}

fn reply_response(reply: &Reply) -> Response {
    match reply {
        Reply::Status(status) => json(StatusCode::OK, status),
        Reply::Service(service) => json(StatusCode::OK, service),
        Reply::Flows(flows) => json(StatusCode::OK, flows),
        Reply::Planned(plan) => json(StatusCode::OK, plan),
        Reply::Audit(lines) => audit::page(lines),
        Reply::History(history) => json(StatusCode::OK, history),
        Reply::Deployment(record) => json(StatusCode::OK, record),
        Reply::Applied(report) => json(StatusCode::OK, report),
        Reply::Changed(changed) => json(StatusCode::OK, changed),
        Reply::Rollout(done) => json(StatusCode::OK, done),
        Reply::Detached(detached) => json(StatusCode::OK, detached),
        // No client can ask for it.
        Reply::Looked => StatusCode::NO_CONTENT.into_response(),
    }
}
