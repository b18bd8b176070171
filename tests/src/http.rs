//! As much HTTP/1.1 as tests need: one request at a time, answers with a length.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest head of an answer.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Status code.
    pub status: u16,
    /// Length of the head in the stream, with its empty line.
    pub head_bytes: usize,
    /// Length of the body behind it.
    pub body_bytes: usize,
    fields: &'a str,
}

impl<'a> Head<'a> {
    /// Reads a head from the start of a stream; `None` if it is not complete yet.
    ///
    /// # Errors
    /// What is wrong with it: it is not HTTP/1.x, or says no length.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let start = &bytes[..bytes.len().min(7)];
            return match () {
                () if *start != b"HTTP/1."[..start.len()] => Err(quote("not HTTP/1.x", bytes)),
                () if bytes.len() > HEAD_MAX_BYTES => Err("a head without end".into()),
                () => Ok(None),
            };
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| quote("not UTF-8", bytes))?;
        let (first, fields) = text.split_once("\r\n").unwrap_or((text, ""));
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or_else(|| quote("not HTTP/1.x", bytes))?;
        let mut head = Self {
            status,
            head_bytes: end + 4,
            body_bytes: 0,
            fields,
        };
        let length = head.field("content-length").ok_or("no Content-Length")?;
        head.body_bytes = length
            .parse()
            .map_err(|_| format!("Content-Length: {length}"))?;
        Ok(Some(head))
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.split("\r\n").find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Length of the whole answer.
    pub fn total_bytes(&self) -> usize {
        self.head_bytes + self.body_bytes
    }
}

fn quote(what: &str, bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]);
    format!("{what}: {start:?}")
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `X-Backend`: the name of the backend; empty if not said.
    pub backend: String,
    /// `X-Connection`; empty if not said.
    pub connection: String,
    /// `X-Remote`, the client's address as the backend saw it; `None` if not said.
    pub remote: Option<SocketAddr>,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks on a connection and reads the answer.
///
/// # Errors
/// Those of the stream; `UnexpectedEof` if it ends before the answer does, `InvalidData` if the answer
/// is not HTTP/1.x with a length.
pub fn ask(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    body: Option<&str>,
) -> io::Result<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    if let Some(body) = body {
        request += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    request += "\r\n";
    request += body.unwrap_or_default();
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        if let Some(head) = Head::parse(&bytes).map_err(invalid)?
            && bytes.len() >= head.total_bytes()
        {
            let text = |name| head.field(name).unwrap_or_default().to_owned();
            return Ok(Answer {
                status: head.status,
                backend: text("x-backend"),
                connection: text("x-connection"),
                remote: head.field("x-remote").and_then(remote),
                body: bytes[head.head_bytes..head.total_bytes()].to_vec(),
            });
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend(&chunk[..count]),
        }
    }
}

/// `10.1.0.2 40000` as an address.
fn remote(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(' ')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// Opens a connection, asks once and closes it; nothing takes longer than 5 s.
///
/// # Errors
/// As [`ask`], and those of connecting.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(&mut connect(addr)?, "GET", path, None)
}

/// A connection on which nothing takes longer than 5 s.
///
/// # Errors
/// Those of connecting.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        type Row = (
            &'static str,
            Result<Option<(u16, usize, usize)>, &'static str>,
        );
        let rows: &[Row] = &[
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                Ok(Some((200, 38, 5))),
            ),
            (
                "HTTP/1.0 503 No\r\ncontent-length:0\r\n\r\n",
                Ok(Some((503, 37, 0))),
            ),
            (
                "HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n",
                Ok(Some((204, 36, 0))),
            ),
            ("", Ok(None)),
            ("HTT", Ok(None)),
            ("HTTP/1.1 200 OK\r\nContent-Le", Ok(None)),
            ("SSH-2.0-x", Err("not HTTP/1.x: \"SSH-2.0-x\"")),
            ("SSH\r\n\r\n", Err("not HTTP/1.x: \"SSH\\r\\n\\r\\n\"")),
            (
                "HTTP/1.1 abc\r\n\r\n",
                Err("not HTTP/1.x: \"HTTP/1.1 abc\\r\\n\\r\\n\""),
            ),
            ("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", Err("no Content-Length")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                Err("Content-Length: x"),
            ),
        ];
        for (text, expected) in rows {
            let seen = Head::parse(text.as_bytes());
            let seen =
                seen.map(|head| head.map(|head| (head.status, head.head_bytes, head.body_bytes)));
            assert_eq!(seen, expected.map_err(str::to_owned), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(HEAD_MAX_BYTES));
        assert_eq!(
            Head::parse(endless.as_bytes()).map(drop),
            Err("a head without end".into())
        );
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Backend:  v1 \r\n\r\n";
        let head = Head::parse(text).expect("valid").expect("complete");
        assert_eq!(head.field("x-backend"), Some("v1"));
        assert_eq!(head.field("X-BACKEND"), Some("v1"));
        assert_eq!(head.field("x-back"), None);
    }

    #[test]
    fn remotes() {
        assert_eq!(
            remote("10.1.0.2 40000"),
            Some("10.1.0.2:40000".parse().expect("valid"))
        );
        assert_eq!(
            remote("2001:db8::2 5"),
            Some("[2001:db8::2]:5".parse().expect("valid"))
        );
        assert_eq!(remote("nobody"), None);
    }
}
