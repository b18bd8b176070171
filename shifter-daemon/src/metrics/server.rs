//! The endpoint: `GET /metrics`, and a hint at `/`.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, time::timeout};

use super::{CONTENT_TYPE, render};
use crate::{
    api::{Limits, connections},
    driver::{DriverHandle, Reply, Request},
};

/// Time the driver has for a status: half of Prometheus' default scrape timeout.
const STATUS_WITHIN: Duration = Duration::from_secs(5);

const HINT: &str = "shifterd: metrics are at /metrics. Nothing can be changed here; \
                    the control API is on the Unix socket (shifterctl).\n";

/// Serves the metrics until `shutdown`. Read-only; few connections, each for one short request.
///
/// # Errors
/// None today: what goes wrong with one client ends that client's connection only.
pub async fn serve(
    listener: TcpListener,
    handle: DriverHandle,
    shutdown: impl Future,
) -> io::Result<()> {
    serve_within(STATUS_WITHIN, listener, handle, shutdown).await;
    Ok(())
}

async fn serve_within(
    within: Duration,
    listener: TcpListener,
    handle: DriverHandle,
    shutdown: impl Future,
) {
    let metrics = move |State(handle)| metrics(handle, within);
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/", get(|| async { plain(StatusCode::OK, HINT) }))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "paths: GET /metrics, GET /\n") })
        .method_not_allowed_fallback(|| async {
            plain(StatusCode::METHOD_NOT_ALLOWED, "only GET works here\n")
        })
        .with_state(handle);
    let limits = Limits {
        connections_count: 16,
        lifetime: Duration::from_secs(30),
        ..Limits::default()
    };
    let open = |_: &_| {
        let router = router.clone();
        async move { Ok(router) }
    };
    connections::run(listener, limits, open, shutdown).await;
}

async fn metrics(handle: DriverHandle, within: Duration) -> Response {
    let status = handle.call(Request::Status, None, Instant::now());
    let why = match timeout(within, status).await {
        Ok(Ok(Reply::Status(status))) => match render(*status) {
            Ok(text) => return ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            Err(error) => error.to_string(),
        },
        Ok(Ok(other)) => format!("the driver answered something else: {other:?}"),
        Ok(Err(refusal)) => refusal.message,
        Err(_) => format!("the driver did not answer within {within:?}"),
    };
    // A failed scrape shows as `up == 0`; half a page would show as counters that vanish.
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("no metrics: {why}\n"),
    )
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text.into(),
    )
        .into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::net::SocketAddr;

    use shifter_common::wire::Refusal;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::{super::sample, *};

    /// A server whose driver gives this answer each time.
    async fn start(answer: Result<Reply, Refusal>) -> SocketAddr {
        start_with(Some(answer), None).await
    }

    /// As `start`, but the driver may never answer, within a time other than the usual.
    async fn start_with(
        answer: Option<Result<Reply, Refusal>>,
        answer_within: Option<Duration>,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (handle, mut queue) = DriverHandle::channel(4);
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(call) = queue.recv().await {
                assert_eq!((&call.request, &call.actor), (&Request::Status, &None));
                match &answer {
                    Some(answer) => drop(call.reply.send(answer.clone())),
                    None => unanswered.push(call),
                }
            }
        });
        let forever = std::future::pending::<()>();
        match answer_within {
            None => drop(tokio::spawn(serve(listener, handle, forever))),
            Some(within) => drop(tokio::spawn(serve_within(
                within, listener, handle, forever,
            ))),
        }
        addr
    }

    async fn ask(addr: SocketAddr, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn status() -> Result<Reply, Refusal> {
        Ok(Reply::Status(Box::new(sample::status())))
    }

    #[tokio::test]
    async fn a_scrape_gets_the_whole_text_each_time() {
        let addr = start(status()).await;
        for _ in 0..2 {
            let (head, body) = ask(addr, "GET /metrics").await;
            assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
            assert!(
                head.contains(&format!("content-type: {CONTENT_TYPE}")),
                "{head}"
            );
            assert_eq!(body, render(sample::status()).unwrap());
        }
    }

    #[tokio::test]
    async fn other_requests_get_a_hint() {
        let addr = start(status()).await;
        let rows = [
            ("GET /", 200, HINT),
            ("GET /metric", 404, "paths: GET /metrics, GET /\n"),
            ("GET /v1/status", 404, "paths: GET /metrics, GET /\n"),
            ("POST /metrics", 405, "only GET works here\n"),
            ("DELETE /", 405, "only GET works here\n"),
        ];
        for (request, code, text) in rows {
            let (head, body) = ask(addr, request).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {code} ")),
                "{request}: {head}"
            );
            assert_eq!(body, text, "{request}");
        }
    }

    #[tokio::test]
    async fn a_driver_that_refuses_fails_the_scrape() {
        let refusal = Refusal {
            code: "kernel".into(),
            message: "no maps".into(),
            help: String::new(),
        };
        let (head, body) = ask(start(Err(refusal)).await, "GET /metrics").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "no metrics: no maps\n");
    }

    #[tokio::test]
    async fn a_driver_that_hangs_fails_the_scrape() {
        let addr = start_with(None, Some(Duration::from_millis(50))).await;
        let (head, body) = ask(addr, "GET /metrics").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "no metrics: the driver did not answer within 50ms\n");
    }
}
