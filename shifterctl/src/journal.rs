//! What shifterd wrote to the journal of its audit: number, hash and name of each record. Pure.

/// A record as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Its name: the chain's, and the number.
    pub id: String,
}

impl Seal {
    /// Name of its chain.
    pub fn chain(&self) -> &str {
        chain(&self.id)
    }
}

/// The name of the chain in the name of a record.
pub fn chain(id: &str) -> &str {
    id.rsplit_once('-').map_or("", |(chain, _)| chain)
}

/// Finds the seals in lines of a log, whether it is written as text or as JSON.
pub fn seals(text: &str) -> Vec<Seal> {
    text.lines().filter_map(seal).collect()
}

fn seal(line: &str) -> Option<Seal> {
    Some(Seal {
        seq: value(line, "audit_seq")?.parse().ok()?,
        hash: value(line, "audit_hash")?.to_owned(),
        id: value(line, "audit_id")?.to_owned(),
    })
}

/// `KEY=VALUE`, or `"KEY":VALUE` with or without quotes around it.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    let rest = rest.trim_start_matches(['"', '=', ':']);
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

/// How a journal contradicts an audit, if it does. `hashes` are those of records 1, 2, … of the chain.
/// Gives how many records of it the journal has; it forgets old ones, and may never have had some.
///
/// # Errors
/// The first contradiction, in words.
pub fn compare(seals: &[Seal], chain_name: &str, hashes: &[String]) -> Result<usize, String> {
    let mut common_count = 0;
    for seal in seals.iter().filter(|seal| seal.chain() == chain_name) {
        let seq = seal.seq;
        let at = usize::try_from(seq).ok().and_then(|seq| seq.checked_sub(1));
        match at.and_then(|at| hashes.get(at)) {
            Some(hash) if *hash == seal.hash => common_count += 1,
            Some(_) => return Err(format!("record {seq} has another hash in the journal")),
            None => {
                return Err(format!(
                    "the journal has record {seq}, the audit ends with record {}",
                    hashes.len()
                ));
            }
        }
    }
    Ok(common_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(seq: u64, hash: &str, chain: &str) -> Seal {
        Seal {
            seq,
            hash: hash.into(),
            id: format!("{chain}-{seq}"),
        }
    }

    #[test]
    fn seals_are_found_in_text_and_json() {
        let text = "INFO shifterd: steering\n\
             INFO audit audit_seq=1 audit_hash=ab01 audit_id=0f-1 service=orders verb=weight\n\
             {\"level\":\"INFO\",\"fields\":{\"message\":\"audit\",\"audit_seq\":2,\"audit_hash\":\
             \"ab02\",\"audit_id\":\"0f-2\",\"service\":\"\"}}\n\
             INFO audit audit_seq=x audit_hash=ab03 audit_id=0f-3\n\
             INFO audit audit_seq=4 audit_hash= audit_id=0f-4\n";
        let found = seals(text);
        assert_eq!(found, [sealed(1, "ab01", "0f"), sealed(2, "ab02", "0f")]);
        assert_eq!(found[0].chain(), "0f");
    }

    #[test]
    fn a_journal_that_contradicts_is_told() {
        let hashes = ["h1", "h2"].map(str::to_owned);
        let rows: [(&[Seal], Result<usize, &str>); 5] = [
            (&[], Ok(0)),
            (&[sealed(2, "h2", "a"), sealed(9, "h9", "b")], Ok(1)),
            (
                &[sealed(1, "h1", "a"), sealed(2, "hx", "a")],
                Err("record 2 has another hash in the journal"),
            ),
            (
                &[sealed(3, "h3", "a")],
                Err("the journal has record 3, the audit ends with record 2"),
            ),
            (
                &[sealed(0, "h0", "a")],
                Err("the journal has record 0, the audit ends with record 2"),
            ),
        ];
        for (seals, told) in rows {
            let found = compare(seals, "a", &hashes);
            assert_eq!(found, told.map_err(str::to_owned), "{seals:?}");
        }
    }
}
