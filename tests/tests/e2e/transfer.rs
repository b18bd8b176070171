//! A bulk transfer in both directions over one connection, without any protocol.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use shifter_daemon::model::{ProbeCheck, ServiceSpec};
use shifter_tests::{daemon::service, netns::Inside};

use crate::stage::ORDERS;

/// Longer than any window: it cannot be over before the path's limits are met.
pub const LEN_BYTES: usize = 3_000_000;
/// How long nothing at all may happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Accepts connections for ever; each is read to its end and then answered with as much.
pub fn serve(netns: &Inside, addrs: &[SocketAddr]) {
    for addr in addrs {
        let listener = netns.run(|| TcpListener::bind(addr)).expect("a free port");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream));
            }
        });
    }
}

fn answer(mut stream: TcpStream) {
    let mut received = Vec::new();
    // A client that gave up says so itself.
    let _ = stream.set_read_timeout(Some(PATIENCE));
    if stream.read_to_end(&mut received).is_ok() {
        let _ = stream.write_all(&received);
    }
}

/// Connects, sends and receives. `prepare` may set options of the socket before anything is sent.
pub fn exchange(
    netns: &Inside,
    connect: impl FnOnce() -> io::Result<TcpStream> + Send,
) -> io::Result<()> {
    let mut stream = netns.run(connect)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..LEN_BYTES).map(|number| (number % 251) as u8).collect();
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    if received == sent {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{} of {LEN_BYTES} bytes came back",
            received.len()
        )))
    }
}

/// A service with one slot and without a probe.
pub fn plain(vips: &[SocketAddr], backends: &[SocketAddr]) -> ServiceSpec {
    let mut spec = service(ORDERS, vips, backends, &[]);
    spec.readiness.check = ProbeCheck::None;
    spec
}
