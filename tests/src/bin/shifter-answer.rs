//! A server of one process that answers as the tests' nginx does: `GET /` and `GET /ready` with 200, its
//! name in `X-Backend` and the connection in `X-Connection`. It listens by itself, sharing its addresses
//! with others of its kind, or accepts on listeners that it was given, as a socket-activated unit does. At
//! SIGTERM it closes its listeners and ends when it has answered everybody.

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd as _, OwnedFd},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    task::LocalSet,
    time::sleep,
};

const USAGE: &str = "usage: shifter-answer NAME inherit COUNT | NAME share ADDRESS:PORT...";
/// The first descriptor that is handed on, as systemd counts.
const FIRST_GIVEN: i32 = 3;
/// Longest request.
const REQUEST_MAX_BYTES: usize = 4_096;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let (name, listeners) = match arguments.as_slice() {
            [name, how, count] if how == "inherit" => (name, given(count.parse()?)?),
            [name, how, addrs @ ..] if how == "share" => (name, own(addrs)?),
            _ => bail!(USAGE),
        };
        let shared = Rc::new(Shared {
            name: name.clone(),
            begun: Cell::new(0),
            open: Cell::new(0),
        });
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            accepting.spawn_local(accept(listener, Rc::clone(&shared)));
        }
        signal(SignalKind::terminate())?.recv().await;
        accepting.shutdown().await;
        while shared.open.get() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    })
}

/// What all connections share; they are served by one thread.
struct Shared {
    name: String,
    begun: Cell<u64>,
    open: Cell<u64>,
}

/// Listeners that whoever started this program has left open for it.
fn given(count: i32) -> anyhow::Result<Vec<tokio::net::TcpListener>> {
    let listeners = (FIRST_GIVEN..FIRST_GIVEN + count).map(|descriptor| {
        // SAFETY: the caller has given these descriptors, and nothing else in here knows of them.
        let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        listener.set_nonblocking(true)?;
        Ok(tokio::net::TcpListener::from_std(listener)?)
    });
    listeners.collect()
}

fn own(addrs: &[String]) -> anyhow::Result<Vec<tokio::net::TcpListener>> {
    let listeners = addrs.iter().map(|addr| {
        let at: SocketAddr = addr.parse().with_context(|| addr.clone())?;
        let socket = if at.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseport(true)?;
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        Ok(socket.listen(65_535)?)
    });
    listeners.collect()
}

async fn accept(listener: tokio::net::TcpListener, shared: Rc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let turn = shared.begun.get();
            shared.begun.set(turn + 1);
            shared.open.set(shared.open.get() + 1);
            let shared = Rc::clone(&shared);
            tokio::task::spawn_local(async move {
                serve(stream, &shared.name, turn).await;
                shared.open.set(shared.open.get() - 1);
            });
        } else {
            // Out of descriptors, or the client has gone: the next one may be luckier.
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Answers until the client closes or asks for the end.
async fn serve(mut stream: TcpStream, name: &str, turn: u64) {
    let mut request = Vec::new();
    loop {
        let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            match stream.read_buf(&mut request).await {
                Ok(1..) if request.len() < REQUEST_MAX_BYTES => continue,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let is_last = head.contains("connection: close");
        request.drain(..end + 4);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Backend: {name}\r\nX-Connection: {}-{turn}\r\n\r\nok\n",
            std::process::id()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() || is_last {
            return;
        }
    }
}
