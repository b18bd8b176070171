//! The first bytes of a segment, read as HTTP/1.x (RFC 9112).
//!
//! Only a segment's beginning is looked at. What does not look like a whole status line is nothing, and is
//! never taken for an error.

/// Bytes that are looked at: the shortest status line and the shortest request line are longer.
pub const HEAD_LEN_BYTES: usize = 16;

/// The first bytes of a segment's data.
pub type Head = [u8; HEAD_LEN_BYTES];

/// What a response is; the number is the place of its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Response {
    /// 1xx: the final response is still to come. 101 is final all the same.
    Informational = 0,
    /// 2xx.
    Success = 1,
    /// 3xx.
    Redirection = 2,
    /// 4xx.
    ClientError = 3,
    /// 5xx.
    ServerError = 4,
    /// An answer whose status cannot be seen.
    Unknown = 5,
}

impl Response {
    /// All, in the order of their counters.
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::Unknown,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// As metrics and the API call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Unknown => "unknown",
        }
    }

    /// The class of a status code.
    #[inline(always)]
    pub const fn of_status(status: u32) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Unknown,
        }
    }
}

/// The status code of a response that begins here, 100 to 599: `HTTP/1.x NNN` and a space or the line's
/// end.
#[inline(always)]
pub const fn status(head: &Head) -> Option<u32> {
    let begins = head[0] == b'H'
        && head[1] == b'T'
        && head[2] == b'T'
        && head[3] == b'P'
        && head[4] == b'/'
        && head[5] == b'1'
        && head[6] == b'.'
        && head[7].is_ascii_digit()
        && head[8] == b' ';
    let ends = head[12] == b' ' || head[12] == b'\r';
    let digits =
        matches!(head[9], b'1'..=b'5') && head[10].is_ascii_digit() && head[11].is_ascii_digit();
    if begins && ends && digits {
        Some(
            (head[9] - b'0') as u32 * 100
                + (head[10] - b'0') as u32 * 10
                + (head[11] - b'0') as u32,
        )
    } else {
        None
    }
}

/// Whether a request begins here: a method in capital letters, a space, and a target (RFC 9112 section
/// 3.2), which begins with a slash, an asterisk, a letter, a digit or a bracket. The first line of HTTP/2
/// (RFC 9113 section 3.4) is none: what follows it is binary.
#[inline(always)]
pub const fn is_request(head: &Head) -> bool {
    if head[0] == b'P' && head[1] == b'R' && head[2] == b'I' && head[3] == b' ' {
        return false;
    }
    let mut index = 0;
    while index < HEAD_LEN_BYTES - 1 {
        let byte = head[index];
        if byte == b' ' {
            let target = head[index + 1];
            return index >= 3
                && (matches!(target, b'/' | b'*' | b'[') || target.is_ascii_alphanumeric());
        }
        if !byte.is_ascii_uppercase() && byte != b'-' {
            return false;
        }
        index += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &[u8]) -> Head {
        let mut head = [0; HEAD_LEN_BYTES];
        for (to, from) in head.iter_mut().zip(text) {
            *to = *from;
        }
        head
    }

    #[test]
    fn status_lines() {
        let rows: [(&[u8], Option<u32>); 22] = [
            (b"HTTP/1.1 200 OK\r\n", Some(200)),
            (b"HTTP/1.0 404 Not Found\r\n", Some(404)),
            (b"HTTP/1.1 503 \r\n\r\n", Some(503)),
            (b"HTTP/1.1 500\r\n\r\n", Some(500)),
            (b"HTTP/1.1 100 Continue\r\n", Some(100)),
            (b"HTTP/1.1 599 x\r\n", Some(599)),
            (b"HTTP/1.1 099 x\r\n", None),
            (b"HTTP/1.1 600 x\r\n", None),
            (b"HTTP/1.1 999 x\r\n", None),
            (b"HTTP/1.1 5000 x\r\n", None),
            (b"HTTP/1.1 50 x\r\n\r\n", None),
            (b"HTTP/1.1  500 x\r\n", None),
            (b"HTTP/1.1 5x0 x\r\n", None),
            (b"HTTP/2.0 500 x\r\n", None),
            (b"HTTP/1.x 500 x\r\n", None),
            (b"HTTP/1 500 xxxxx\r\n", None),
            (b"http/1.1 500 x\r\n", None),
            (b"HTTP/1.1\t500 x\r\n", None),
            (b"\r\nHTTP/1.1 500 x", None),
            (b"HTT", None),
            (b"", None),
            (b"SSH-2.0-OpenSSH_9", None),
        ];
        for (text, expected) in rows {
            assert_eq!(status(&head(text)), expected, "{:?}", text.escape_ascii());
        }
    }

    #[test]
    fn request_lines() {
        let rows: [(&[u8], bool); 18] = [
            (b"GET / HTTP/1.1\r\n", true),
            (b"HEAD /x HTTP/1.1", true),
            (b"POST /a/long/path", true),
            (b"OPTIONS * HTTP/1.1", true),
            (b"CONNECT a:1 HTTP", true),
            (b"CONNECT [::1]:1 H", true),
            (b"GET http://a/ HTT", true),
            (b"PROPFIND /x HTTP/", true),
            (b"VERSION-CONTROL /", false),
            (b"PRI * HTTP/2.0\r\n", false),
            (b"get / HTTP/1.1\r\n", false),
            (b"GET  / HTTP/1.1\r\n", false),
            (b"GE / HTTP/1.1\r\n\r\n", false),
            (b"\r\nGET / HTTP/1.1", false),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", false),
            (b"{\"json\": true}....", false),
            (b"GETTINGSTARTEDNOW", false),
            (b"", false),
        ];
        for (text, expected) in rows {
            assert_eq!(
                is_request(&head(text)),
                expected,
                "{:?}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn classes_have_labels_in_the_order_of_their_counters() {
        for (place, class) in Response::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
            assert!(!class.label().is_empty());
        }
        assert_eq!(Response::of_status(600), Response::Unknown);
    }

    proptest! {
        /// Whatever is not exactly a status line is none; a line that is one gives its number.
        #[test]
        fn only_a_status_line_has_a_status(bytes: [u8; HEAD_LEN_BYTES], code in 0_u32..1_000, at in 0_usize..13, with: u8) {
            if let Some(found) = status(&bytes) {
                let text = format!("HTTP/1.{} {found}", char::from(bytes[7]));
                prop_assert_eq!(&bytes[..12], text.as_bytes());
            }
            let line = format!("HTTP/1.1 {code:03} reason");
            let mut line = head(line.as_bytes());
            let expected = (100..600).contains(&code).then_some(code);
            prop_assert_eq!(status(&line), expected);
            let before = line[at];
            line[at] = with;
            let is_same_kind = with == before || (before.is_ascii_digit() && with.is_ascii_digit())
                || (at == 12 && with == b'\r');
            if !is_same_kind {
                prop_assert_eq!(status(&line), None);
            }
            // What a server sends is no request, and the other way round.
            prop_assert!(!(is_request(&bytes) && status(&bytes).is_some()));
        }
    }
}
