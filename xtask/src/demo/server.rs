//! The two versions of the service: real nginx, each with answers of its own.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use super::{
    child::{self, Child, Output},
    http,
    network::{BACKENDS, Network},
    place::Place,
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A version of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that serves at first, in slot a.
    First,
    /// The new one, in slot b.
    Second,
}

impl Version {
    /// Its number, as its answers and people say it.
    pub const fn number(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }

    /// Its name in `X-Backend`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "v1",
            Self::Second => "v2",
        }
    }

    /// Where it listens.
    pub fn address(self) -> SocketAddr {
        SocketAddr::new(BACKENDS.into(), 8080 + u16::from(self.number()))
    }
}

/// A running nginx.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts a version in the host's namespace and waits until it answers.
    ///
    /// # Errors
    /// nginx does not start or does not answer; the error carries the end of its log.
    pub fn start(place: &Place, network: &Network, version: Version) -> anyhow::Result<Self> {
        let name = format!("version-{}", version.number());
        let directory = place.directory(&name)?;
        let config = place.write(&format!("{name}/nginx.conf"), &config(version, &directory))?;
        let log = directory.join("error.log");
        let mut command = network.host.command("nginx");
        command
            .arg("-e")
            .arg(&log)
            .arg("-p")
            .arg(&directory)
            .arg("-c")
            .arg(config);
        let subject = format!("nginx of version {}", version.number());
        let child = Child::start(&subject, command, log, Output::Log)?;
        let address = version.address();
        child::wait_until(
            PATIENCE,
            || {
                child.check()?;
                let answer = network.host.run(|| http::get_tcp(address, "/ready"))?;
                Ok(answer
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(()))
            },
            || format!("{subject} does not answer at {address}{}", child.tail()),
        )?;
        Ok(Self { child, directory })
    }

    /// Makes `GET /ready` answer 503 from now on; everything else is answered as before. Returns
    /// the file that does it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fail_readiness(&self) -> anyhow::Result<PathBuf> {
        let marker = self.directory.join("not-ready");
        fs::write(&marker, "").with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(marker)
    }

    /// The connections that it has served so far, see [`Accepted::parse`].
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn accepted(&self) -> io::Result<Vec<Accepted>> {
        let log = fs::read_to_string(self.directory.join("access.log"))?;
        Ok(log.lines().filter_map(Accepted::parse).collect())
    }
}

/// A request as the server logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// When its connection was accepted, milliseconds of Unix time, off by one at most.
    pub unix_ms: u64,
}

impl Accepted {
    /// A line of the log: when the request was answered, and how long its connection existed
    /// then, both in seconds with three digits.
    fn parse(line: &str) -> Option<Self> {
        let (answered, lasted) = line.split_once(' ')?;
        let ms = |seconds: &str| {
            let (whole, part) = seconds.split_once('.')?;
            (part.len() == 3).then_some(())?;
            whole
                .parse::<u64>()
                .ok()?
                .checked_mul(1000)?
                .checked_add(part.parse().ok()?)
        };
        Some(Self {
            unix_ms: ms(answered)?.checked_sub(ms(lasted)?)?,
        })
    }
}

/// nginx's configuration; every path is the demo's own.
fn config(version: Version, directory: &Path) -> String {
    format!(
        r#"daemon off;
worker_processes 1;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 4096; }}
http {{
    default_type text/plain;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    log_format accepted '$msec $connection_time';
    server {{
        listen {address} backlog=4096;
        add_header X-Version "{number}" always;
        add_header X-Backend "{name}" always;
        add_header X-Connection "$pid-$connection" always;
        location = /ready {{
            access_log off;
            if (-f {directory}/not-ready) {{ return 503 "not ready\n"; }}
            return 200 "ready\n";
        }}
        location / {{
            access_log {directory}/access.log accepted;
            return 200 "version {number}\n";
        }}
    }}
}}
"#,
        directory = directory.display(),
        address = version.address(),
        number = version.number(),
        name = version.name(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_tell_when_connections_were_accepted() {
        let rows = [
            ("1700000000.500 0.002", Some(1_700_000_000_498)),
            ("1700000001.000 1.001", Some(1_699_999_999_999)),
            ("1700000000.500", None),
            ("1700000000.5 0.002", None),
            ("0.001 0.002", None),
            ("", None),
        ];
        for (line, expected) in rows {
            assert_eq!(
                Accepted::parse(line).map(|one| one.unix_ms),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn the_versions_differ_in_answers_and_ports() {
        let directory = Path::new("/run/demo");
        let [first, second] = [Version::First, Version::Second].map(|one| config(one, directory));
        for (text, port, body) in [(first, 8081, "version 1"), (second, 8082, "version 2")] {
            assert!(
                text.contains(&format!("listen 10.0.0.20:{port} ")),
                "{text}"
            );
            assert!(
                text.contains(&format!("return 200 \"{body}\\n\"")),
                "{text}"
            );
            // nginx writes nowhere but below the demo's directory.
            assert_eq!(text.matches("/run/demo/").count(), 9, "{text}");
        }
    }
}
