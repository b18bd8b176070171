//! Redis: a subscriber hears every message, a benchmark loses no request.

use std::{os::unix::process::CommandExt as _, thread::sleep, time::Duration};

use shifter_daemon::model::Plane;
use shifter_tests::process::Process;

use crate::stage::{Stage, server, vip};

/// Messages that are published while the service is shifted.
const MESSAGES: usize = 60;

fn server_process(stage: &Stage, version: usize) -> Process {
    let addr = server(version);
    let name = format!("redis-{version}");
    // Debian's redis-tools has the server as well: the program becomes it by its name.
    let process = stage.serve(&name, "redis-check-rdb", |command| {
        command.arg0("redis-server").args([
            "--port",
            &addr.port().to_string(),
            "--bind",
            &addr.ip().to_string(),
            "--save",
            "",
            "--protected-mode",
            "no",
            "--dir",
            &stage.scratch.path().display().to_string(),
        ]);
    });
    stage.await_server(&process, addr);
    process
}

fn through(plane: Plane) {
    let mut stage = Stage::new("redis");
    let _servers = [0, 1].map(|version| server_process(&stage, version));
    stage.steer(plane);
    let (host, port) = (vip().ip().to_string(), vip().port().to_string());
    let to_vip = ["-h", &host, "-p", &port];

    let subscriber = stage.client(
        "subscriber",
        "redis-cli",
        &[&to_vip[..], &["subscribe", "news"]].concat(),
    );
    while !subscriber.log().contains("subscribe\nnews\n1") {
        assert!(subscriber.is_running(), "{}", subscriber.log());
        sleep(Duration::from_millis(20));
    }
    // Its connections are of both versions, so that a rollback meets some of them.
    stage.set_weight(5_000);
    let load = stage.client(
        "benchmark",
        "redis-benchmark",
        &[
            &to_vip[..],
            &["-t", "set,get", "-n", "150000", "-c", "20", "-q"],
        ]
        .concat(),
    );
    let (inside, at) = (stage.world.host().inside(), server(0));
    let publisher = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            let said = inside.tool(
                "redis-cli",
                &[
                    "-h",
                    &at.ip().to_string(),
                    "-p",
                    &at.port().to_string(),
                    "publish",
                    "news",
                    &format!("message {number}."),
                ],
            );
            // The subscriber came before the shift, so version a has it for good.
            assert_eq!(
                said.trim(),
                "1",
                "subscribers of version a at message {number}"
            );
            sleep(Duration::from_millis(20));
        }
    });
    while stage.live()[1] == 0 {
        assert!(load.is_running(), "{}", load.log());
    }
    stage.shift_while(|| load.is_running() || !publisher.is_finished());
    publisher.join().expect("every message had its subscriber");
    let said = stage.succeeds(load);
    assert!(said.contains("GET:") && !said.contains("rror"), "{said}");
    for number in 0..MESSAGES {
        assert!(
            subscriber.log().contains(&format!("message {number}.")),
            "message {number} was not heard:\n{}",
            subscriber.log()
        );
    }
    assert!(subscriber.is_running());
}

#[test]
fn nat_plane() {
    through(Plane::Nat);
}

#[test]
fn socket_plane() {
    through(Plane::Socket);
}
