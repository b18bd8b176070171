//! One connection that is watched, from its SYN on.
//!
//! Each side writes fields of its own: segments of the client and of the backend may be seen at the same
//! moment on two processors, and neither waits for the other.
//!
//! A connection's data are looked at segment by segment, and each only once: what was sent again is known
//! by its number. A response counts if a request waits for it, so what a body happens to look like counts
//! for nothing.

use super::{
    http::{Head, Response, is_request, status},
    what,
};

/// Data beyond the last that was seen, by at most this much, are new: no window in use is larger.
const WINDOW_MAX_BYTES: u32 = 1 << 30;

/// A connection that is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// When its SYN came, ns of the boot clock. Client's.
    pub opened_ns: u64,
    /// When the client's first data came; 0 before. Client's.
    pub asked_ns: u64,
    /// Number of the client's next byte that is new. Client's.
    pub next_from_client: u32,
    /// Requests so far. Client's.
    pub asked_count: u32,
    /// 1 if what the client says is not HTTP/1.x in clear text. Client's.
    pub is_opaque: u32,
    /// Number of the backend's next byte that is new. Backend's.
    pub next_from_backend: u32,
    /// Final responses so far to requests that were seen. Backend's.
    pub answered_count: u32,
    /// 1 once the backend has answered the SYN. Backend's.
    pub is_accepted: u16,
    /// 1 once the backend has sent data. Backend's.
    pub has_spoken: u16,
}
const _: () = assert!(size_of::<Watch>() == 40);

/// A segment that carries data.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Number of its first byte.
    pub seq: u32,
    /// Bytes of data; at least one.
    pub len_bytes: u32,
    /// Its first bytes; `None` if it has fewer.
    pub head: Option<&'a Head>,
}

impl Segment<'_> {
    /// Whether it begins with what was not seen before; then the next one does behind it.
    #[inline(always)]
    const fn advances(&self, next: &mut u32) -> bool {
        if self.seq.wrapping_sub(*next) >= WINDOW_MAX_BYTES {
            return false;
        }
        *next = self.seq.wrapping_add(self.len_bytes);
        true
    }
}

/// What a segment of the backend says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// From the client's first data to the backend's first, ns.
    pub first_byte_ns: Option<u64>,
    /// A response begins with it.
    pub response: Option<Response>,
    /// There is nothing more to see in this connection.
    pub is_last: bool,
}

impl Watch {
    /// A connection whose SYN comes now.
    #[inline(always)]
    pub const fn opened(now_ns: u64, next_from_client: u32) -> Self {
        Self {
            opened_ns: now_ns,
            asked_ns: 0,
            next_from_client,
            asked_count: 0,
            is_opaque: 0,
            next_from_backend: 0,
            answered_count: 0,
            is_accepted: 0,
            has_spoken: 0,
        }
    }

    /// The backend answers the SYN: how long that took, if it is the first time. A later answer may bring
    /// other numbers.
    #[inline(always)]
    pub const fn accept(&mut self, now_ns: u64, next_from_backend: u32) -> Option<u64> {
        self.next_from_backend = next_from_backend;
        if self.is_accepted != 0 {
            return None;
        }
        self.is_accepted = 1;
        Some(now_ns.saturating_sub(self.opened_ns))
    }

    /// The client sends data. `what` says what is looked for, see [`what`].
    #[inline(always)]
    pub const fn ask(&mut self, what: u32, now_ns: u64, segment: &Segment<'_>) {
        if !segment.advances(&mut self.next_from_client) {
            return;
        }
        let is_first = self.asked_ns == 0;
        if is_first {
            self.asked_ns = now_ns;
        }
        if what & what::HTTP == 0 {
            return;
        }
        let is_request = match segment.head {
            Some(head) => is_request(head),
            None => false,
        };
        if is_request {
            self.asked_count = self.asked_count.wrapping_add(1);
        } else if is_first {
            self.is_opaque = 1;
        }
    }

    /// The backend sends data.
    #[inline(always)]
    pub const fn answer(&mut self, what: u32, now_ns: u64, segment: &Segment<'_>) -> Answer {
        let mut answer = Answer {
            first_byte_ns: None,
            response: None,
            is_last: false,
        };
        if !segment.advances(&mut self.next_from_backend) {
            return answer;
        }
        let is_first = self.has_spoken == 0;
        self.has_spoken = 1;
        if is_first && self.asked_ns != 0 {
            answer.first_byte_ns = Some(now_ns.saturating_sub(self.asked_ns));
        }
        if what & what::HTTP == 0 {
            // A backend that speaks first is waited for no longer either.
            answer.is_last = true;
            return answer;
        }
        if self.is_opaque != 0 {
            answer.is_last = true;
            if is_first {
                answer.response = Some(Response::Unknown);
            }
            return answer;
        }
        let waiting_count = self.asked_count.wrapping_sub(self.answered_count) as i32;
        let is_asked = waiting_count > 0;
        // The first request may have come where it is not seen: with the SYN, or with the segment that
        // completed the handshake.
        let is_awaited = is_asked || is_first;
        let status = match segment.head {
            Some(head) => status(head),
            None => None,
        };
        answer.response = match status {
            // Another one than that of the request that is known, or a body that looks like one.
            Some(_) if !is_awaited => Some(Response::Unknown),
            Some(status) => Some(Response::of_status(status)),
            // The beginning of a status line, or no HTTP at all.
            None if is_awaited => Some(Response::Unknown),
            None => None,
        };
        // After 101 another protocol is spoken.
        answer.is_last = matches!(status, Some(101)) && is_awaited;
        let is_final = match status {
            Some(status) => status >= 200,
            None => true,
        };
        if is_asked && is_final && answer.response.is_some() {
            self.answered_count = self.answered_count.wrapping_add(1);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEAD_LEN_BYTES;
    use super::*;
    use proptest::prelude::*;

    /// A connection, and what is known of it at its ends.
    struct Wire {
        watch: Watch,
        what: u32,
        now_ns: u64,
        client: u32,
        backend: u32,
    }

    const BOTH: u32 = what::LATENCY | what::HTTP;

    impl Wire {
        fn new(what: u32) -> Self {
            // Numbers that wrap.
            let (client, backend) = (u32::MAX - 20, u32::MAX - 40);
            let mut watch = Watch::opened(1_000, client);
            assert_eq!(watch.accept(1_400, backend), Some(400));
            Self {
                watch,
                what,
                now_ns: 10_000,
                client,
                backend,
            }
        }

        fn client(&mut self, text: &[u8]) {
            self.now_ns += 1_000;
            let head = head(text);
            let segment = segment(self.client, text, head.as_ref());
            self.watch.ask(self.what, self.now_ns, &segment);
            // Sent again, once.
            self.watch.ask(self.what, self.now_ns + 5, &segment);
            self.client = self.client.wrapping_add(text.len() as u32);
        }

        fn backend(&mut self, text: &[u8]) -> Answer {
            self.now_ns += 1_000;
            let head = head(text);
            let segment = segment(self.backend, text, head.as_ref());
            let answer = self.watch.answer(self.what, self.now_ns, &segment);
            let again = self.watch.answer(self.what, self.now_ns, &segment);
            assert_eq!(again, Answer::default(), "sent again");
            self.backend = self.backend.wrapping_add(text.len() as u32);
            answer
        }
    }

    fn head(text: &[u8]) -> Option<Head> {
        text.get(..HEAD_LEN_BYTES)
            .map(|bytes| bytes.try_into().expect("as many"))
    }

    const fn segment<'a>(seq: u32, text: &[u8], head: Option<&'a Head>) -> Segment<'a> {
        Segment {
            seq,
            len_bytes: text.len() as u32,
            head,
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\n\r\n";

    /// What is counted of a dialogue: `>` is the client, `<` the backend.
    fn counted(dialogue: &[(char, &[u8])]) -> Vec<Response> {
        let mut wire = Wire::new(BOTH);
        let mut seen = Vec::new();
        for (side, text) in dialogue {
            if *side == '>' {
                wire.client(text);
                continue;
            }
            let answer = wire.backend(text);
            seen.extend(answer.response);
            if answer.is_last {
                break;
            }
        }
        seen
    }

    #[test]
    fn dialogues() {
        use Response::{ClientError, Informational, ServerError, Success, Unknown};
        type Row = (&'static str, Vec<(char, &'static [u8])>, Vec<Response>);
        let big = Box::leak(vec![b'x'; 65_536].into_boxed_slice()) as &[u8];
        let mut far = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        far.extend_from_slice(big);
        let far = Box::leak(far.into_boxed_slice()) as &[u8];
        let rows: Vec<Row> = vec![
            ("one", vec![('>', GET), ('<', OK)], vec![Success]),
            (
                "kept alive",
                vec![
                    ('>', GET),
                    ('<', OK),
                    ('>', GET),
                    ('<', BAD),
                    ('>', GET),
                    ('<', OK),
                ],
                vec![Success, ServerError, Success],
            ),
            (
                "in a row, a segment each",
                vec![
                    ('>', GET),
                    ('>', GET),
                    ('>', GET),
                    ('<', OK),
                    ('<', BAD),
                    ('<', OK),
                ],
                vec![Success, ServerError, Success],
            ),
            (
                "in a row, in one segment",
                vec![
                    ('>', b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
                    ('<', OK),
                    ('<', BAD),
                ],
                vec![Success, Unknown],
            ),
            (
                "a body in segments",
                vec![
                    ('>', GET),
                    ('<', OK),
                    ('<', big),
                    ('<', b"tail"),
                    ('>', GET),
                    ('<', BAD),
                ],
                vec![Success, ServerError],
            ),
            (
                "a body that looks like an error",
                vec![('>', GET), ('<', OK), ('<', BAD)],
                vec![Success, Unknown],
            ),
            (
                "100 is not final",
                vec![
                    ('>', b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"),
                    ('<', b"HTTP/1.1 100 Continue\r\n\r\n"),
                    ('>', big),
                    ('<', b"HTTP/1.1 413 Too Large\r\n\r\n"),
                ],
                vec![Informational, ClientError],
            ),
            (
                "another protocol",
                vec![
                    ('>', GET),
                    ('<', b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
                    ('<', BAD),
                ],
                vec![Informational],
            ),
            (
                "a split status line",
                vec![
                    ('>', GET),
                    ('<', b"HT"),
                    ('<', b"TP/1.1 500 Internal"),
                    ('>', GET),
                    ('<', BAD),
                ],
                vec![Unknown, ServerError],
            ),
            (
                "a status line behind its beginning",
                vec![('>', GET), ('<', b"HTTP/1.1 "), ('<', b"500 Oh\r\n\r\n")],
                vec![Unknown],
            ),
            ("binary", vec![('>', GET), ('<', &[0; 40])], vec![Unknown]),
            (
                "long headers",
                vec![('>', GET), ('<', far), ('<', big)],
                vec![Success],
            ),
            (
                "a long request",
                vec![
                    ('>', b"POST /x HTTP/1.1\r\nX: "),
                    ('>', big),
                    ('>', big),
                    ('<', BAD),
                ],
                vec![ServerError],
            ),
            (
                "TLS",
                vec![
                    (
                        '>',
                        b"\x16\x03\x01\x02\x00\x01\x00\x01\x00\x01\x00\x01\x00\x01\x00\x01",
                    ),
                    ('<', BAD),
                ],
                vec![Unknown],
            ),
            (
                "HTTP/2",
                vec![('>', b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ('<', &[0; 40])],
                vec![Unknown],
            ),
            (
                "a backend that speaks first",
                vec![('<', b"220 mail.example ESMTP"), ('<', BAD)],
                vec![Unknown, Unknown],
            ),
            (
                "a request that nobody saw",
                vec![('<', OK), ('>', GET), ('<', BAD)],
                vec![Success, ServerError],
            ),
            (
                "a request in pieces",
                vec![('>', b"GET"), ('>', b" / HTTP/1.1\r\n\r\n"), ('<', BAD)],
                vec![Unknown],
            ),
        ];
        for (name, dialogue, expected) in rows {
            assert_eq!(counted(&dialogue), expected, "{name}");
        }
    }

    #[test]
    fn times_are_those_of_the_first() {
        let mut wire = Wire::new(what::LATENCY);
        assert_eq!(
            wire.watch.accept(9_999, wire.backend),
            None,
            "a second SYN/ACK"
        );
        wire.client(GET);
        wire.client(b"and more");
        let answer = wire.backend(OK);
        assert_eq!(
            answer.first_byte_ns,
            Some(2_000),
            "from the first of three segments"
        );
        assert_eq!((answer.response, answer.is_last), (None, true));
        let mut wire = Wire::new(BOTH);
        assert_eq!(
            wire.backend(b"hello").first_byte_ns,
            None,
            "nobody has asked"
        );
        wire.client(GET);
        assert_eq!(wire.backend(OK).first_byte_ns, None, "it had spoken before");
    }

    #[test]
    fn what_lies_behind_is_old_and_a_gap_is_none() {
        let mut watch = Watch::opened(0, 100);
        watch.accept(0, 1_000);
        let head = head(GET).expect("long enough");
        let at = |seq| Segment {
            seq,
            len_bytes: 40,
            head: Some(&head),
        };
        watch.ask(BOTH, 1, &at(99));
        assert_eq!(watch.asked_count, 0);
        watch.ask(BOTH, 1, &at(100));
        watch.ask(BOTH, 1, &at(120));
        assert_eq!(watch.asked_count, 1);
        watch.ask(BOTH, 1, &at(1_000));
        watch.ask(BOTH, 1, &at(140));
        assert_eq!(watch.asked_count, 2, "what fills the gap comes too late");
    }

    proptest! {
        /// Segments of whatever kind: an error is counted only for a segment that says so, while one was
        /// asked for and not answered.
        #[test]
        fn nothing_hostile_is_an_error(
            segments in prop::collection::vec((any::<bool>(), 0_usize..6, prop::collection::vec(any::<u8>(), 1..64)), 0..60)
        ) {
            let mut wire = Wire::new(BOTH);
            let (mut asked, mut errors) = (1_u32, 0_u32);
            for (is_client, kind, noise) in segments {
                let text = match kind {
                    0 => GET.to_vec(),
                    1 => OK.to_vec(),
                    2 => BAD.to_vec(),
                    3 => BAD[..5].to_vec(),
                    _ => noise,
                };
                if is_client {
                    asked += u32::from(kind == 0);
                    wire.client(&text);
                    continue;
                }
                let says_so = head(&text).and_then(|head| status(&head)).is_some_and(|code| code >= 500);
                let answer = wire.backend(&text);
                if answer.response == Some(Response::ServerError) {
                    prop_assert!(says_so);
                    errors += 1;
                }
                if answer.is_last {
                    break;
                }
            }
            prop_assert!(errors <= asked);
        }
    }
}
