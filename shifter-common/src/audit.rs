//! The chain of the audit: each record carries the hash of the one before. Pure.
//!
//! A record is one line of JSON that begins `{"seq":17,"prev":"…"` and ends `,"hash":"…"}`. The hash is
//! SHA-256 of the line without its last member, `,"hash":"…"`, in hexadecimal digits; `prev` is the hash
//! of the record with the number before, or zeros in the first one. Lines are kept and handed on as they
//! were written, so that a version that knows more fields, or fewer, finds the same hash.

use sha2::{Digest as _, Sha256};

/// `prev` of a chain's first record.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const HASH_KEY: &str = ",\"hash\":\"";
const SEQ_KEY: &str = "{\"seq\":";
const PREV_KEY: &str = ",\"prev\":\"";
/// Hexadecimal digits of a hash.
const HASH_LEN: usize = 64;

/// The hash of a record without hash.
pub fn hash(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Appends its hash to a record without one, which is a JSON object. Gives the line and the hash.
pub fn seal(body: &str) -> (String, String) {
    let hash = hash(body);
    let open = body.strip_suffix('}').unwrap_or(body);
    (format!("{open}{HASH_KEY}{hash}\"}}"), hash)
}

/// What the chain reads of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Number, from 1.
    pub seq: u64,
    /// Hash of the record before.
    pub prev: &'a str,
    /// Hash that the line carries.
    pub hash: &'a str,
    open: &'a str,
}

impl<'a> Link<'a> {
    /// Reads a line; `None` if it is not a record of a chain.
    pub fn of(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix(SEQ_KEY)?;
        let (seq, rest) = rest.split_once(PREV_KEY)?;
        let (prev, _) = rest.split_once('"')?;
        let (open, hash) = line.strip_suffix("\"}")?.rsplit_once(HASH_KEY)?;
        let is_hash = |text: &str| {
            text.len() == HASH_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let digits = seq.bytes().all(|byte| byte.is_ascii_digit());
        (digits && is_hash(prev) && is_hash(hash)).then_some(Self {
            seq: seq.parse().ok()?,
            prev,
            hash,
            open,
        })
    }

    /// The hash that the text of the line has.
    pub fn true_hash(&self) -> String {
        hash(&format!("{}}}", self.open))
    }
}

/// Where and how a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The line after this record is no record.
    Unreadable {
        /// The last good record; 0 if there is none.
        after: u64,
    },
    /// A record's text has another hash than it carries.
    Changed {
        /// Its number.
        seq: u64,
    },
    /// Records are not there.
    Missing {
        /// The first of them.
        from: u64,
        /// The record that is there.
        until: u64,
    },
    /// A number comes again.
    Repeated {
        /// It.
        seq: u64,
    },
    /// A record does not follow on the one before.
    Unlinked {
        /// Its number.
        seq: u64,
    },
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unreadable { after: 0 } => f.write_str("the first line is no record of a chain"),
            Self::Unreadable { after } => {
                write!(f, "what follows record {after} is no record of a chain")
            }
            Self::Changed { seq } => write!(
                f,
                "record {seq} was changed: its text has another hash than it carries"
            ),
            Self::Missing { from, until } if from + 1 == *until => {
                write!(f, "record {from} is missing")
            }
            Self::Missing { from, until } => {
                write!(f, "records {from} to {} are missing", until - 1)
            }
            Self::Repeated { seq } => write!(f, "record {seq} is out of order"),
            Self::Unlinked { seq } => write!(
                f,
                "record {seq} does not follow on record {}: its `prev` is another record's hash",
                seq.saturating_sub(1)
            ),
        }
    }
}

impl core::error::Error for Broken {}

/// How far a chain was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    seq: u64,
    hash: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: NOTHING_BEFORE.into(),
        }
    }
}

impl Chain {
    /// A chain whose last record is known.
    pub fn after(seq: u64, hash: String) -> Self {
        Self { seq, hash }
    }

    /// The number of the last record; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its hash.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// How it breaks the chain, which then stands where it stood.
    pub fn follow(&mut self, line: &str) -> Result<(), Broken> {
        let link = Link::of(line).ok_or(Broken::Unreadable { after: self.seq })?;
        let expected = self.seq + 1;
        let seq = link.seq;
        if seq > expected {
            return Err(Broken::Missing {
                from: expected,
                until: seq,
            });
        }
        if seq < expected {
            return Err(Broken::Repeated { seq });
        }
        if link.true_hash() != link.hash {
            return Err(Broken::Changed { seq });
        }
        if link.prev != self.hash {
            return Err(Broken::Unlinked { seq });
        }
        *self = Self {
            seq,
            hash: link.hash.to_owned(),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of these verbs.
    fn lines(verbs: &[&str]) -> Vec<String> {
        let mut prev = NOTHING_BEFORE.to_owned();
        let numbered = (1_u64..).zip(verbs);
        numbered
            .map(|(seq, verb)| {
                let body = format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"verb\":\"{verb}\"}}");
                let (line, hash) = seal(&body);
                prev = hash;
                line
            })
            .collect()
    }

    fn follow(lines: &[String]) -> Result<u64, Broken> {
        let mut chain = Chain::default();
        for line in lines {
            chain.follow(line)?;
        }
        Ok(chain.seq())
    }

    /// The hash is what `sha256sum` says of the line without its last member.
    #[test]
    fn a_line_is_its_text_and_the_hash_of_it() {
        let body = format!("{{\"seq\":1,\"prev\":\"{NOTHING_BEFORE}\",\"verb\":\"weight\"}}");
        let (line, hash) = seal(&body);
        assert_eq!(
            hash,
            "1284b97b58d6b8d2eb8a1fe61b369c3940da4dc2f25ed546bcb8aa7874e254e8"
        );
        assert_eq!(
            line,
            format!(
                "{{\"seq\":1,\"prev\":\"{NOTHING_BEFORE}\",\"verb\":\"weight\",\"hash\":\"{hash}\"}}"
            )
        );
        let link = Link::of(&line).expect("a record");
        assert_eq!(
            (link.seq, link.prev, link.hash),
            (1, NOTHING_BEFORE, &*hash)
        );
        assert_eq!(link.true_hash(), hash);
    }

    #[test]
    fn a_good_chain_is_followed_to_its_end() {
        assert_eq!(follow(&[]), Ok(0));
        let good = lines(&["weight", "rollback", "a \\\",\\\"hash\\\":\\\" in a text"]);
        assert_eq!(follow(&good), Ok(3));
        let mut chain = Chain::after(1, Link::of(&good[0]).expect("a record").hash.into());
        assert_eq!(chain.follow(&good[1]), Ok(()));
    }

    /// Each way to meddle, and what is said of it.
    #[test]
    fn the_first_broken_record_is_named() {
        type Meddle = fn(&mut Vec<String>);
        let rows: [(&str, Meddle, &str); 8] = [
            (
                "a word is changed",
                |lines| lines[1] = lines[1].replace("rollback", "weight"),
                "record 2 was changed: its text has another hash than it carries",
            ),
            (
                "a word is changed, with the hash",
                |lines| {
                    let changed = lines[1].replace("rollback", "weight");
                    let open = Link::of(&changed).expect("a record").open.to_owned();
                    lines[1] = seal(&format!("{open}}}")).0;
                },
                "record 3 does not follow on record 2: its `prev` is another record's hash",
            ),
            (
                "one is taken out",
                |lines| drop(lines.remove(1)),
                "record 2 is missing",
            ),
            (
                "two are taken out",
                |lines| drop(lines.drain(1..3)),
                "records 2 to 3 are missing",
            ),
            (
                "the first is taken out",
                |lines| drop(lines.remove(0)),
                "record 1 is missing",
            ),
            (
                "two change places",
                |lines| lines.swap(1, 2),
                "record 2 is missing",
            ),
            (
                "one comes twice",
                |lines| lines[2] = lines[1].clone(),
                "record 2 is out of order",
            ),
            (
                "one is no record",
                |lines| lines[1] = "{}".into(),
                "what follows record 1 is no record of a chain",
            ),
        ];
        for (what, meddle, told) in rows {
            let mut lines = lines(&["weight", "rollback", "drain", "detach"]);
            meddle(&mut lines);
            let broken = follow(&lines).expect_err(what);
            assert_eq!(broken.to_string(), told, "{what}");
        }
        let first = follow(&["nonsense".into()]).expect_err("no record");
        assert_eq!(first.to_string(), "the first line is no record of a chain");
    }

    /// No single byte of a record can be another one.
    #[test]
    fn every_byte_counts() {
        let good = lines(&["weight", "rollback"]);
        for at in 0..good[0].len() {
            let mut bytes = good[0].clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            if changed == good[0] {
                continue;
            }
            assert!(follow(&[changed, good[1].clone()]).is_err(), "byte {at}");
        }
    }
}
