//! A fake daemon on a Unix socket, and the real program run against it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// What the fake daemon does with a connection.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status and JSON text.
    Json(u16, String),
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// These bytes, then nothing more.
    Stall(Vec<u8>),
}

/// What the fake daemon was asked: method and path, content type, body.
pub type Asked = (String, String, String);

/// A directory with a socket on which a fake daemon answers each connection the same.
pub struct Fake {
    _dir: tempfile::TempDir,
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A short directory, so that texts with its path stay readable.
pub fn short_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("sc")
        .tempdir_in("/tmp")
        .unwrap()
}

impl Fake {
    pub fn start(answer: Answer) -> Self {
        Self::start_with(move |_| answer.clone())
    }

    /// The answer to each path is chosen by `answer`.
    pub fn start_with(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let dir = short_dir();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        // Ends with the test's process.
        thread::spawn(move || {
            let mut stalled = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let Some(request) = read_request(&mut stream) else {
                    continue;
                };
                let path = request.0.split(' ').nth(1).unwrap_or_default().to_owned();
                record.lock().unwrap().push(request);
                match answer(&path) {
                    Answer::Json(status, body) => {
                        let len = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n\
                             connection: close\r\ncontent-length: {len}\r\n\r\n"
                        );
                        let _ = stream.write_all((head + &body).as_bytes());
                    }
                    Answer::Raw(bytes) => drop(stream.write_all(&bytes)),
                    Answer::Stall(bytes) => {
                        let _ = stream.write_all(&bytes);
                        stalled.push(stream);
                    }
                }
            }
        });
        Self {
            _dir: dir,
            socket,
            asked,
        }
    }

    pub fn ok(body: &str) -> Self {
        Self::start(Answer::Json(200, body.to_owned()))
    }

    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Runs the program against this daemon.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(shifterctl().arg("--socket").arg(&self.socket).args(args))
    }
}

fn read_request(stream: &mut UnixStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line.to_lowercase().starts_with(name));
        line.map(|line| line[name.len()..].trim().to_owned())
            .unwrap_or_default()
    };
    let mut body = vec![0; header("content-length:").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let target = lines.first()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some((
        target,
        header("content-type:"),
        String::from_utf8(body).ok()?,
    ))
}

/// The program, in an environment that changes nothing.
pub fn shifterctl() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_shifterctl")))
}

/// As [`shifterctl`], of a copy.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_remove("SHIFTER_SOCKET")
        .env_remove("NO_COLOR")
        .env("TZ", "UTC");
    command.env("TERM", "xterm-256color").stdin(Stdio::null());
    command
}

/// A copy of the program in a directory that everybody may enter.
pub fn copy_to(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = dir.join("shifterctl");
    fs::copy(env!("CARGO_BIN_EXE_shifterctl"), &copy).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// Runs a command. A script that another thread has just written cannot be executed while a process
/// that was forked meanwhile still holds it open for writing (ETXTBSY): that passes.
fn output(command: &mut Command) -> Output {
    for _ in 0..100 {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(std::time::Duration::from_millis(20));
            }
            outcome => return outcome.unwrap(),
        }
    }
    panic!("the program stayed busy for two seconds");
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = output(command);
        let out = String::from_utf8(stdout).unwrap();
        let err = String::from_utf8(stderr).unwrap();
        assert!(!err.contains("panicked"), "{err}");
        Self {
            code: status.code(),
            out,
            err,
        }
    }

    /// Asserts exit code and error text; lines may be broken anywhere, but not be wider than the
    /// screen.
    #[track_caller]
    pub fn failed(&self, code: i32, err: &str) -> &Self {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&self.err), words(err));
        assert_eq!(self.code, Some(code), "{}", self.err);
        for line in self.err.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        self
    }

    /// Asserts success without a word of error.
    #[track_caller]
    pub fn done(&self) -> &Self {
        assert_eq!(
            (self.code, self.err.as_str()),
            (Some(0), ""),
            "{}",
            self.out
        );
        self
    }
}
