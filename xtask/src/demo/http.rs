//! As much HTTP as the demo needs: one GET on a connection of its own.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer.
const MOST_BYTES: u64 = 4 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Asks over TCP.
///
/// # Errors
/// Those of the connection; `InvalidData` if the answer is not HTTP.
pub fn get_tcp(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    get(stream, path)
}

/// Asks over a Unix socket.
///
/// # Errors
/// As [`get_tcp`].
pub fn get_unix(socket: &Path, path: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    get(stream, path)
}

fn get(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    // HTTP/1.0: the answer ends with the connection, and is not in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: demo\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    Some(Answer {
        status,
        body: bytes[end + 4..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let rows: [(&str, Option<(u16, &str)>); 5] = [
            ("HTTP/1.0 200 OK\r\nX: y\r\n\r\n{}\n", Some((200, "{}\n"))),
            ("HTTP/1.1 503 No\r\n\r\n", Some((503, ""))),
            ("HTTP/1.1 200 OK\r\nX: y\r\n", None),
            ("HTTP/1.1 abc\r\n\r\n", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|(status, body)| Answer {
                status,
                body: body.as_bytes().to_vec(),
            });
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}
