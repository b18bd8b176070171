//! One question to one backend.

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{self, timeout_at},
};

use super::{ProbeFailure, Waiting};
use crate::model::ProbeCheck;

/// Bytes of a status line with headers, or of a body, that a probe reads at most.
pub const READ_LIMIT_BYTES: usize = 64 * 1024;

/// The rest of an exchange whose verdict is known.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A backend's answer, or the lack of one.
pub struct Answer {
    /// The verdict.
    pub result: Result<(), ProbeFailure>,
    /// When it was known.
    pub at: Instant,
    rest: Option<Rest>,
}

impl Answer {
    /// An answer with nothing left to read, known at `at`.
    pub fn new(result: Result<(), ProbeFailure>, at: Instant) -> Self {
        Self {
            result,
            at,
            rest: None,
        }
    }

    /// Reads and forgets what is left of the answer, at most [`READ_LIMIT_BYTES`] and never past
    /// the probe's timeout, so that the backend sees an orderly close. The verdict does not wait
    /// for this: it is known with the status.
    pub async fn finish(self) {
        if let Some(rest) = self.rest {
            rest.await;
        }
    }
}

/// The clock of tokio, which tests may stop.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Asks the backend at `addr` once. The connection and the status line together get `timeout`.
pub async fn ask(check: &ProbeCheck, addr: SocketAddr, timeout: Duration) -> Answer {
    let deadline = time::Instant::now() + timeout;
    match check {
        ProbeCheck::None => Answer::new(Ok(()), now()),
        ProbeCheck::Tcp => {
            let result = connect(addr, deadline, timeout).await.map(drop);
            Answer::new(result, now())
        }
        ProbeCheck::Http { path, host } => {
            let host = host.clone().unwrap_or_else(|| addr.to_string());
            match ask_http(path, &host, addr, deadline, timeout).await {
                Ok((status, rest)) => {
                    let good = (200..=399).contains(&status);
                    let result = if good {
                        Ok(())
                    } else {
                        Err(ProbeFailure::Status(status))
                    };
                    Answer {
                        result,
                        at: now(),
                        rest: Some(rest),
                    }
                }
                Err(failure) => Answer::new(Err(failure), now()),
            }
        }
    }
}

async fn connect(
    addr: SocketAddr,
    deadline: time::Instant,
    timeout: Duration,
) -> Result<TcpStream, ProbeFailure> {
    let stream = timeout_at(deadline, TcpStream::connect(addr))
        .await
        .map_err(|_| ProbeFailure::TimedOut {
            after: timeout,
            waiting: Waiting::Connect,
        })?
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => ProbeFailure::Refused,
            _ => ProbeFailure::Connect(error.to_string()),
        })?;
    if is_connected_to_itself(&stream) {
        return Err(ProbeFailure::Refused);
    }
    Ok(stream)
}

/// A connection from an address of this host to one of its ephemeral ports may get that very port
/// as its source, and TCP then connects the socket with itself although nobody listens.
fn is_connected_to_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

async fn ask_http(
    path: &str,
    host: &str,
    addr: SocketAddr,
    deadline: time::Instant,
    timeout: Duration,
) -> Result<(u16, Rest), ProbeFailure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, "shifterd")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ProbeFailure::Unaskable(error.to_string()))?;
    let stream = connect(addr, deadline, timeout).await?;
    timeout_at(deadline, converse(stream, request, deadline))
        .await
        .map_err(|_| ProbeFailure::TimedOut {
            after: timeout,
            waiting: Waiting::Status,
        })?
        .map_err(|error| http_failure(&error))
}

/// Sends the request and waits for the status; what is left to read ends at `deadline`.
async fn converse(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    deadline: time::Instant,
) -> hyper::Result<(u16, Rest)> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(READ_LIMIT_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = Box::pin(connection);
    let mut over = false;
    let response = {
        let mut response = pin!(sender.send_request(request));
        tokio::select! {
            response = &mut response => response?,
            // Where this was too early, the response says why.
            _ = &mut connection => {
                over = true;
                response.await?
            }
        }
    };
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let rest = async move {
        let read = async {
            let mut read_bytes = 0;
            while read_bytes < READ_LIMIT_BYTES
                && let Some(Ok(frame)) = body.frame().await
            {
                read_bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        let both = async {
            tokio::select! { () = read => {}, _ = &mut connection, if !over => {} }
        };
        // What is cut off here is of no interest: the verdict is out.
        let _cut_off = timeout_at(deadline, both).await;
    };
    Ok((status, Box::pin(rest) as Rest))
}

fn http_failure(error: &hyper::Error) -> ProbeFailure {
    if error.is_user() {
        return ProbeFailure::Unaskable(error.to_string());
    }
    if error.is_parse_too_large() {
        return ProbeFailure::NotHttp("more than 64 KiB of headers".into());
    }
    if let Some(source) = error.source() {
        // A request that was never sent because the connection had failed before.
        if let Some(cause) = source.downcast_ref::<hyper::Error>() {
            return http_failure(cause);
        }
        if let Some(cause) = source.downcast_ref::<io::Error>() {
            return match cause.kind() {
                io::ErrorKind::ConnectionReset => ProbeFailure::Reset,
                _ => ProbeFailure::Closed,
            };
        }
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return ProbeFailure::Closed;
    }
    ProbeFailure::NotHttp(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
        task::JoinHandle,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn http(path: &str) -> ProbeCheck {
        ProbeCheck::Http {
            path: path.into(),
            host: None,
        }
    }

    /// What a server on loopback does with each connection.
    #[derive(Clone)]
    enum Manner {
        /// Reads the request's head, writes this, closes.
        Answer(Vec<u8>),
        /// Writes this before anything was asked, then reads until the client has enough.
        Speak(&'static [u8]),
        /// Reads the request and closes.
        Close,
        /// Reads the request and resets.
        Reset,
        /// Says nothing.
        Silence,
        /// Writes this status line and headers, then a body without end.
        Endless(&'static str),
    }

    struct Server {
        addr: SocketAddr,
        requests: Arc<Mutex<Vec<String>>>,
        task: JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn server(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, manner.clone(), Arc::clone(&log)));
            }
        });
        Server {
            addr,
            requests,
            task,
        }
    }

    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    async fn serve(mut stream: TcpStream, manner: Manner, log: Arc<Mutex<Vec<String>>>) {
        if let Manner::Speak(words) = manner {
            // The client may be gone before all is said.
            let _ = stream.write_all(words).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        if let Manner::Silence = manner {
            std::future::pending::<()>().await;
        }
        let request = head(&mut stream).await;
        log.lock().unwrap().push(request);
        match manner {
            Manner::Answer(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Manner::Reset => stream.set_zero_linger().unwrap(),
            Manner::Endless(start) => {
                let _ = stream.write_all(start.as_bytes()).await;
                while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
            }
            Manner::Close | Manner::Speak(_) | Manner::Silence => {}
        }
    }

    fn status(line: &str) -> Manner {
        Manner::Answer(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok").into_bytes())
    }

    /// `Ok` as "ready", a failure as its text.
    fn words(result: Result<(), ProbeFailure>) -> String {
        result.map_or_else(|failure| failure.to_string(), |()| "ready".into())
    }

    #[tokio::test]
    async fn each_answer_has_its_words() {
        let tls = "(a backend that speaks TLS needs a tcp probe)";
        let huge = format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
            "y".repeat(4 * READ_LIMIT_BYTES)
        );
        #[rustfmt::skip]
        let rows: Vec<(&str, Manner, ProbeCheck, String)> = vec![
            ("200",       status("200 OK"),          http("/"), "ready".into()),
            ("301",       status("301 Moved"),       http("/"), "ready".into()),
            ("399",       status("399 Odd"),         http("/"), "ready".into()),
            ("400",       status("400 Bad"),         http("/"), "status 400".into()),
            ("503",       status("503 Unavailable"), http("/"), "status 503".into()),
            ("101",       status("101 Switching"),   http("/"), "status 101".into()),
            ("HTTP/1.0",  Manner::Answer(b"HTTP/1.0 200 OK\r\n\r\nok".into()),
                          http("/"), "ready".into()),
            ("100 first", Manner::Answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\
                          Content-Length: 0\r\n\r\n".into()), http("/"), "ready".into()),
            ("garbage",   Manner::Answer(b"\x15\x03\x01\x00\x02\x02\x46 a TLS alert\r\n".into()),
                          http("/"), format!("not HTTP: invalid HTTP version parsed {tls}")),
            ("too large", Manner::Answer(huge.into_bytes()),
                          http("/"), format!("not HTTP: more than 64 KiB of headers {tls}")),
            ("closed",    Manner::Close,   http("/"), "connection closed before a status".into()),
            ("half",      Manner::Answer(b"HTTP/1.1 20".into()),
                          http("/"), "connection closed before a status".into()),
            ("reset",     Manner::Reset,   http("/"), "connection reset before a status".into()),
            ("silent",    Manner::Silence, http("/"),
                          "timed out after 500ms waiting for a status".into()),
            ("endless",   Manner::Endless("HTTP/1.1 200 OK\r\n\r\n"), http("/"), "ready".into()),
            ("bad path",  Manner::Close,   http("/a b"),
                          "cannot ask: invalid uri character".into()),
            ("bad host",  Manner::Close,
                          ProbeCheck::Http { path: "/".into(), host: Some("a\nb".into()) },
                          "cannot ask: failed to parse header value".into()),
            ("tcp",       Manner::Silence, ProbeCheck::Tcp,  "ready".into()),
            ("none",      Manner::Silence, ProbeCheck::None, "ready".into()),
        ];
        for (what, manner, check, expected) in rows {
            let server = server(manner).await;
            let answer = ask(&check, server.addr, TIMEOUT).await;
            assert_eq!(words(answer.result.clone()), expected, "{what}");
            answer.finish().await;
        }
    }

    /// Whether the server's words come after the request was sent or before is the kernel's choice;
    /// both must say the same kind of thing.
    #[tokio::test]
    async fn a_server_that_speaks_first_is_not_http() {
        let server = server(Manner::Speak(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
        let said = words(ask(&http("/"), server.addr, TIMEOUT).await.result);
        assert!(said.starts_with("not HTTP: "), "{said}");

        for _ in 0..20 {
            let stream = TcpStream::connect(server.addr).await.unwrap();
            stream.readable().await.unwrap();
            let request = Request::get("/").body(Empty::new()).unwrap();
            let error = converse(stream, request, time::Instant::now())
                .await
                .err()
                .unwrap();
            let said = http_failure(&error).to_string();
            assert!(said.starts_with("not HTTP: "), "{said}");
        }
    }

    #[tokio::test]
    async fn nobody_listens() {
        let addr = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        for check in [ProbeCheck::Tcp, http("/")] {
            let said = words(ask(&check, addr, TIMEOUT).await.result);
            assert_eq!(said, "connection refused: nobody listens there");
        }
    }

    #[tokio::test]
    async fn a_full_accept_queue_times_out() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The kernel accepts a few more than the backlog says.
        let answer = loop {
            let timeout = Duration::from_millis(100);
            match time::timeout(timeout, TcpStream::connect(addr)).await {
                Ok(stream) => waiting.push(stream),
                Err(_) => break ask(&ProbeCheck::Tcp, addr, timeout).await,
            }
            assert!(waiting.len() < 16, "the accept queue never fills");
        };
        assert_eq!(
            words(answer.result),
            "timed out after 100ms while connecting"
        );
    }

    #[tokio::test]
    async fn an_unreachable_address_says_so() {
        // A multicast address takes no connection, on any host, with or without a route.
        let answer = ask(&ProbeCheck::Tcp, "224.0.0.1:80".parse().unwrap(), TIMEOUT).await;
        let said = words(answer.result);
        assert!(said.starts_with("cannot connect: "), "{said}");
    }

    #[tokio::test]
    async fn a_socket_connected_to_itself_is_no_backend() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let stream = socket.connect(addr).await.unwrap();
        assert!(is_connected_to_itself(&stream));

        let server = server(Manner::Silence).await;
        assert!(!is_connected_to_itself(
            &TcpStream::connect(server.addr).await.unwrap()
        ));
    }

    #[tokio::test]
    async fn the_request_is_as_promised() {
        let server = server(status("200 OK")).await;
        let named = ProbeCheck::Http {
            path: "/ready?deep=1".into(),
            host: Some("shop".into()),
        };
        for check in [http("/ready"), named] {
            ask(&check, server.addr, TIMEOUT).await.finish().await;
        }
        let mut expected = Vec::new();
        for (path, host) in [
            ("/ready", server.addr.to_string()),
            ("/ready?deep=1", "shop".into()),
        ] {
            expected.push(format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: shifterd\r\n\
                 connection: close\r\n\r\n"
            ));
        }
        assert_eq!(*server.requests.lock().unwrap(), expected);
    }

    /// The verdict on an endless body is known at once, and reading its rest ends by its size.
    #[tokio::test]
    async fn an_endless_body_is_cut_off() {
        let server = server(Manner::Endless("HTTP/1.1 503 No\r\n\r\n")).await;
        let minutes = Duration::from_secs(600);
        let answer = ask(&http("/"), server.addr, minutes).await;
        assert_eq!(answer.result, Err(ProbeFailure::Status(503)));
        time::timeout(Duration::from_secs(20), answer.finish())
            .await
            .unwrap();
    }
}
