//! Connections of clients: how many, for how long, and what they can break (nothing).

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// What one client, and all of them, can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_count: usize,
    /// Time for sending the head, and again for sending the body of a request.
    pub read: Duration,
    /// Time a connection may last, answer included.
    pub lifetime: Duration,
    /// Time that running requests get when the server stops.
    pub finish: Duration,
    /// Size of a request's body.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_count: 64,
            read: Duration::from_secs(10),
            lifetime: Duration::from_secs(60),
            finish: Duration::from_millis(1500),
            body_bytes: 64 * 1024,
        }
    }
}

/// Accepts until `shutdown`, then lets running requests finish. `open` makes the router of one
/// connection; it runs in the connection's own task. One request a connection: a client that
/// waits between requests cannot hold a place.
pub(crate) async fn run<L, Open, Opened>(
    mut listener: L,
    limits: Limits,
    open: Open,
    shutdown: impl Future,
) where
    L: Listener,
    Open: Fn(&L::Io) -> Opened,
    Opened: Future<Output = io::Result<Router>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_count));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed, so there is always a place to wait for.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await.0, place)
        };
        let (io, place) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut shutdown => break,
        };
        let router = open(&io);
        let stopped = stopped.clone();
        connections.spawn(async move {
            let _place = place;
            if timeout(limits.lifetime, connection(io, router, limits, stopped))
                .await
                .is_err()
            {
                tracing::debug!("a client held its connection too long; closed");
            }
        });
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
    }
    // The socket closes here: who connects now is refused instead of waiting for nobody.
    drop(listener);
    stop.send_replace(());
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(limits.finish, finished).await.is_err() {
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request met a defect; the server goes on");
    }
}

async fn connection<I>(
    io: I,
    router: impl Future<Output = io::Result<Router>>,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let router = match router.await {
        Ok(router) => router,
        Err(error) => {
            tracing::warn!(%error, "closed a connection whose peer the kernel does not name");
            return;
        }
    };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.read)
            .keep_alive(false)
            // A client that ends its side after the request still gets its answer.
            .half_close(true)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client's connection failed");
    }
}
