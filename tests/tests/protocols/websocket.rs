//! WebSockets: twenty that were opened on either version talk on through every change.

use std::{
    net::{TcpListener, TcpStream},
    thread::{JoinHandle, sleep},
    time::Duration,
};

use shifter_daemon::model::Plane;
use tungstenite::{Message, WebSocket, accept, client};

use crate::stage::{Stage, server, vip};

const SOCKETS: usize = 20;
/// Messages on each, an answer awaited before the next.
const MESSAGES: usize = 80;

/// Answers each message with its version in front, until its client closes.
fn echo(version: usize, stream: TcpStream) {
    // A probe connects and leaves without a handshake.
    let Ok(mut socket) = accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message
            && socket
                .send(Message::text(format!("{version} {text}")))
                .is_err()
        {
            return;
        }
    }
}

fn serve(stage: &Stage, version: usize) {
    let listener = stage
        .world
        .host()
        .run(|| TcpListener::bind(server(version)));
    let listener = listener.expect("the port is free");
    // The thread ends with the test program; the listener is of a namespace that goes before.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(version, stream));
        }
    });
}

fn open(stage: &Stage) -> WebSocket<TcpStream> {
    let stream = stage.world.client().run(|| TcpStream::connect(vip()));
    let stream = stream.expect("the VIP answers");
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("a timeout");
    let (socket, _) = client(format!("ws://{}/", vip()), stream).expect("a handshake");
    socket
}

/// Talks on a socket and gives the version that answered, every time the same.
fn talk(number: usize, mut socket: WebSocket<TcpStream>) -> usize {
    let mut answered_by = None;
    for message in 0..MESSAGES {
        let sent = format!("{number}/{message}");
        socket.send(Message::text(&sent)).expect("it is sent");
        let answer = socket.read().expect("an answer").into_text().expect("text");
        let (version, echoed) = answer.split_once(' ').expect("version and text");
        assert_eq!(echoed, sent);
        let version: usize = version.parse().expect("a number");
        assert_eq!(
            *answered_by.get_or_insert(version),
            version,
            "socket {number}"
        );
        sleep(Duration::from_millis(40));
    }
    socket.close(None).expect("it closes");
    answered_by.expect("it talked")
}

fn through(plane: Plane) {
    let mut stage = Stage::new("websocket");
    for version in [0, 1] {
        serve(&stage, version);
    }
    stage.steer(plane);
    let talks: Vec<JoinHandle<usize>> = (0..SOCKETS)
        .map(|number| {
            stage.send_to(number % 2);
            let socket = open(&stage);
            std::thread::spawn(move || talk(number, socket))
        })
        .collect();
    stage.shift_while(|| talks.iter().any(|talk| !talk.is_finished()));
    for (number, talk) in talks.into_iter().enumerate() {
        let version = talk.join().expect("the socket talked to its end");
        assert_eq!(version, number % 2, "socket {number}");
    }
}

#[test]
fn nat_plane() {
    through(Plane::Nat);
}

#[test]
fn socket_plane() {
    through(Plane::Socket);
}
