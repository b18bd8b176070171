//! Asking the gates of rollouts: a URL, a file, a program without rights. Never a shell.

mod exec;
mod http;

use std::{path::PathBuf, time::Duration};

use tokio::time::timeout;

use crate::rollout::{GateAnswer, GateCheck};

/// What a program or a server said that is shown to people, at most.
const SAID_MAX_CHARS: usize = 200;

/// A question to a gate, with everything it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub check: GateCheck,
    /// The user a program runs as.
    pub user: String,
    /// The version on trial; `{{version}}` stands for it.
    pub version: String,
    /// The service; `{{service}}` stands for it.
    pub service: String,
    /// Time for the answer.
    pub timeout: Duration,
}

impl Question {
    /// Asks. It ends within the time, whatever is asked.
    pub async fn ask(&self) -> GateAnswer {
        let asked = timeout(self.timeout, self.put());
        match asked.await {
            Ok(Ok(())) => GateAnswer::Yes,
            Ok(Err(why)) => GateAnswer::No(why),
            Err(_) => GateAnswer::No(format!("no answer within {:?}", self.timeout)),
        }
    }

    async fn put(&self) -> Result<(), String> {
        match &self.check {
            GateCheck::Http(url) => http::get(&self.fill(url)).await,
            GateCheck::File(path) => file(self.fill(path).into()).await,
            GateCheck::Exec(arguments) => {
                let arguments: Vec<String> = arguments.iter().map(|text| self.fill(text)).collect();
                exec::run(&arguments, &self.user).await
            }
            GateCheck::Manual => Err("only a person can answer it".into()),
        }
    }

    /// Labels and names have no character that means something to a program or in a URL.
    fn fill(&self, text: &str) -> String {
        text.replace("{{version}}", &self.version)
            .replace("{{service}}", &self.service)
    }
}

async fn file(path: PathBuf) -> Result<(), String> {
    match tokio::fs::try_exists(&path).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("there is no file {}", path.display())),
        Err(error) => Err(format!("looking for {}: {error}", path.display())),
    }
}

/// The beginning of what was said, on one line.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let printable = line.chars().filter(|c| !c.is_control());
    printable.take(SAID_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn question(check: GateCheck) -> Question {
        let own = nix::unistd::User::from_uid(nix::unistd::getuid());
        Question {
            check,
            user: own.ok().flatten().map_or("root".into(), |user| user.name),
            version: "3.2.0".into(),
            service: "orders".into(),
            timeout: Duration::from_secs(10),
        }
    }

    fn exec(arguments: &[&str]) -> Question {
        let arguments = arguments.iter().map(ToString::to_string);
        question(GateCheck::Exec(arguments.collect()))
    }

    fn no(text: &str) -> GateAnswer {
        GateAnswer::No(text.to_owned())
    }

    #[tokio::test]
    async fn files_are_there_or_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("go-{{version}}").display().to_string();
        let question = question(GateCheck::File(path.clone()));
        let missing = path.replace("{{version}}", "3.2.0");
        assert_eq!(
            question.ask().await,
            no(&format!("there is no file {missing}"))
        );
        std::fs::write(missing, "").expect("a writable directory");
        assert_eq!(question.ask().await, GateAnswer::Yes);
    }

    #[tokio::test]
    async fn programs_end_with_nothing_or_say_why() {
        let long = "x".repeat(300);
        let rows: [(&[&str], GateAnswer); 9] = [
            (&["/bin/true"], GateAnswer::Yes),
            (&["/bin/false"], no("/bin/false ended with 1")),
            (
                &[
                    "/usr/bin/test",
                    "{{version}}-{{service}}",
                    "=",
                    "3.2.0-orders",
                ],
                GateAnswer::Yes,
            ),
            // Nothing of it means anything to anybody: there is no shell.
            (&["/usr/bin/test", "$(id)", "=", "$(id)"], GateAnswer::Yes),
            (&["/usr/bin/env"], GateAnswer::Yes),
            // Whom it leaves behind keeps nobody waiting.
            (&["/bin/sh", "-c", "sleep 600 & exit 0"], GateAnswer::Yes),
            (
                &["/bin/sh", "-c", "setsid sleep 5 & exit 0"],
                GateAnswer::Yes,
            ),
            (
                &["/nowhere/at/all"],
                no("cannot run /nowhere/at/all: No such file or directory (os error 2)"),
            ),
            (
                &[
                    "/bin/sh",
                    "-c",
                    &format!("echo one; echo {long} >&2; exit 7"),
                ],
                no(&format!(
                    "/bin/sh ended with 7: {}",
                    "x".repeat(SAID_MAX_CHARS)
                )),
            ),
        ];
        for (arguments, answer) in rows {
            assert_eq!(exec(arguments).ask().await, answer, "{arguments:?}");
        }
    }

    #[tokio::test]
    async fn a_program_has_no_rights_no_environment_and_no_more_time() {
        let status = exec(&[
            "/bin/grep",
            "-q",
            "^NoNewPrivs:[[:space:]]*1$",
            "/proc/self/status",
        ]);
        assert_eq!(status.ask().await, GateAnswer::Yes);
        let environment = exec(&["/bin/sh", "-c", "test -z \"$HOME\" && test \"$PWD\" = /"]);
        assert_eq!(environment.ask().await, GateAnswer::Yes);
        let mut hangs = exec(&["/bin/sh", "-c", "sleep 600 & wait"]);
        hangs.timeout = Duration::from_millis(300);
        let begun = Instant::now();
        assert_eq!(hangs.ask().await, no("no answer within 300ms"));
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "it was not waited for"
        );
        let mut stranger = exec(&["/bin/true"]);
        stranger.user = "nobody-of-that-name".into();
        assert_eq!(
            stranger.ask().await,
            no("there is no user nobody-of-that-name: name one who may run the gate")
        );
    }

    #[tokio::test]
    async fn servers_say_yes_with_a_status_of_200_to_299() {
        let rows = [
            ("200 OK", "fine", GateAnswer::Yes),
            ("204 No Content", "", GateAnswer::Yes),
            ("302 Found", "", no("HTTP 302")),
            ("503 Busy", "not\nyet", no("HTTP 503: not yet")),
        ];
        for (status, body, answer) in rows {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let addr = listener.local_addr().expect("bound");
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut request = vec![0; 1_024];
                let len = stream.read(&mut request).await.expect("a request");
                let head = String::from_utf8_lossy(&request[..len]).into_owned();
                let len = body.len();
                let text = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(text.as_bytes()).await.expect("a client");
                head
            });
            let url = format!("http://{addr}/smoke?v={{{{version}}}}");
            assert_eq!(
                question(GateCheck::Http(url)).ask().await,
                answer,
                "{status}"
            );
            let head = server.await.expect("it ran").to_ascii_lowercase();
            assert!(
                head.starts_with("get /smoke?v=3.2.0 http/1.1\r\n"),
                "{head}"
            );
            assert!(head.contains(&format!("host: {addr}\r\n")), "{head}");
        }
        for (url, why) in [
            ("http://127.0.0.1:1/", "cannot connect to 127.0.0.1:1: "),
            ("http://[::", "http://[:: is no URL: "),
        ] {
            let answer = question(GateCheck::Http(url.into())).ask().await;
            assert!(
                matches!(&answer, GateAnswer::No(text) if text.starts_with(why)),
                "{answer:?}"
            );
        }
    }
}
