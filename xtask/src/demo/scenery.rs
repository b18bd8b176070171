//! What is told beside the numbers.

use std::path::Path;

use super::{
    Plane,
    daemon::{FAILURE_THRESHOLD, PROBE_INTERVAL_MS, SERVICE},
    load::RATE_PER_S,
    network::{CLIENT, HOST, INTERFACE, PORT, VIP},
    server::Version,
    table::{clipped, grouped},
};

/// What is there before anything happens. Paths are kept whole, so that they can be copied.
pub fn introduction(
    plane: Plane,
    hook: Option<&str>,
    socket: &Path,
    shifterctl: &Path,
) -> Vec<String> {
    let how = match plane {
        Plane::Socket => "to the versions' own sockets".to_owned(),
        Plane::Nat => format!("at {INTERFACE} by {}", hook.unwrap_or("nothing")),
    };
    let (first, second) = (Version::First.address(), Version::Second.address());
    [
        String::new(),
        "  client                      host".to_owned(),
        format!("  {CLIENT} ───── veth ───── {HOST}   service {SERVICE} at {VIP}:{PORT}"),
        format!("                                ├─ slot a  {first}  nginx, version 1"),
        format!("                                └─ slot b  {second}  nginx, version 2"),
        String::new(),
        format!("shifterd  steers new connections in the kernel, {how}"),
        format!(
            "load      {} requests a second at most, each on a connection of its own",
            grouped(RATE_PER_S.into())
        ),
        format!("look in   export SHIFTER_SOCKET={}", socket.display()),
        format!("          {} status --watch", shifterctl.display()),
        String::new(),
    ]
    .into()
}

/// What makes version 2 fail, and what follows from it.
pub fn failing(marker: &Path) -> Vec<String> {
    vec![
        String::new(),
        clipped(&format!("$ touch {}", marker.display())),
        "Version 2 answers GET /ready with 503 from now on, all else as before.".into(),
        format!(
            "shifterd asks every {PROBE_INTERVAL_MS} ms; {FAILURE_THRESHOLD} failures in a row \
             are too many."
        ),
        "Nobody touches the weight: watch shifterd.".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::table::COLUMNS;

    #[test]
    fn the_introduction_shows_what_is_there() {
        let of = |plane| {
            introduction(
                plane,
                Some("tc"),
                Path::new("/run/shifter-demo-4194304-99999999/shifter.sock"),
                Path::new("/src/shifter/target/release/shifterctl"),
            )
        };
        let lines = of(Plane::Nat);
        let expected = "
  client                      host
  10.1.0.2 ───── veth ───── 10.1.0.1   service demo at 10.0.0.10:80
                                ├─ slot a  10.0.0.20:8081  nginx, version 1
                                └─ slot b  10.0.0.20:8082  nginx, version 2

shifterd  steers new connections in the kernel, at eth0 by tc
load      2,000 requests a second at most, each on a connection of its own
look in   export SHIFTER_SOCKET=/run/shifter-demo-4194304-99999999/shifter.sock
          /src/shifter/target/release/shifterctl status --watch
";
        assert_eq!(lines.join("\n"), expected);
        assert!(
            lines.iter().all(|line| line.chars().count() <= COLUMNS),
            "{lines:?}"
        );
        let how = "shifterd  steers new connections in the kernel, to the versions' own sockets";
        assert!(how.len() <= COLUMNS && of(Plane::Socket).contains(&how.to_owned()));
    }

    #[test]
    fn the_failure_is_told() {
        let lines = failing(Path::new(
            "/run/shifter-demo-4194304-99999999/version-2/not-ready",
        ));
        let expected = "
$ touch /run/shifter-demo-4194304-99999999/version-2/not-ready
Version 2 answers GET /ready with 503 from now on, all else as before.
shifterd asks every 200 ms; 2 failures in a row are too many.
Nobody touches the weight: watch shifterd.";
        assert_eq!(lines.join("\n"), expected);
        assert!(
            lines.iter().all(|line| line.chars().count() <= COLUMNS),
            "{lines:?}"
        );
    }
}
