//! `audit` against daemons that tell the truth, and some that do not.

use std::fs;

use crate::support::{Answer, Fake, Ran, shifterctl, short_dir};
use serde_json::Value;
use shifter_common::audit::{NOTHING_BEFORE, seal};

const AUDIT: &str = include_str!("../data/audit.json");

/// A chain of this length.
fn chain(count: u64) -> Vec<String> {
    let mut prev = NOTHING_BEFORE.to_owned();
    (1..=count)
        .map(|seq| {
            let body = format!(
                "{{\"seq\":{seq},\"prev\":\"{prev}\",\"id\":\"0f-{seq}\",\"verb\":\"weight\",\"later\":1.50}}"
            );
            let (line, hash) = seal(&body);
            prev = hash;
            line
        })
        .collect()
}

/// A daemon that has these records, and pages as the true one does.
fn holding(lines: Vec<String>) -> Fake {
    Fake::start_with(move |path| {
        let value = |key: &str| {
            let (_, rest) = path.split_once(key)?;
            rest.split('&').next()?.parse::<usize>().ok()
        };
        let (after, limit) = (value("after=").unwrap(), value("limit=").unwrap());
        let page: Vec<&str> = lines
            .iter()
            .skip(after)
            .take(limit)
            .map(String::as_str)
            .collect();
        let body = format!(
            "{{\"records\":[{}],\"last_seq\":{},\"unwritten_count\":0,\"trouble\":\"\"}}",
            page.join(","),
            lines.len()
        );
        Answer::Json(200, body)
    })
}

fn broken(ran: &Ran) -> String {
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let (error, _) = ran.err.split_once("\nhelp: ").expect("a help");
    let words: Vec<&str> = error.split_whitespace().collect();
    let line = words.join(" ");
    let told = line.strip_prefix("error: the audit is broken: ");
    told.expect("what is broken").to_owned()
}

/// More than a page.
#[test]
fn a_long_chain_is_followed_and_exported_as_it_was_written() {
    let lines = chain(2_500);
    let fake = holding(lines.clone());
    let ran = fake.run(&["audit", "verify"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(
        ran.out
            .starts_with("ok: the chain of 2500 records holds\nlast hash: "),
        "{}",
        ran.out
    );
    assert_eq!(fake.asked().len(), 3);
    let ran = fake.run(&["audit", "export"]);
    assert_eq!(ran.out, lines.join("\n") + "\n");
    // What was exported is verified without a daemon.
    let dir = short_dir();
    let file = dir.path().join("audit.jsonl");
    fs::write(&file, &ran.out).unwrap();
    let file = file.to_str().unwrap();
    let ran = Ran::of(shifterctl().args(["audit", "verify", "--file", file, "-o", "json"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let verified: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(verified["records_count"], 2_500);
    assert_eq!(verified["broken"], Value::Null);
}

#[test]
fn the_first_broken_record_is_named() {
    type Meddle = fn(&mut Vec<String>);
    let rows: [(Meddle, &str); 4] = [
        (
            |lines| lines[1_200] = lines[1_200].replace("weight", "rollback"),
            "record 1201 was changed: its text has another hash than it carries",
        ),
        (|lines| drop(lines.remove(1_000)), "record 1001 is missing"),
        (
            |lines| lines[7] = "\"no record\"".into(),
            "what follows record 7 is no record of a chain",
        ),
        (
            |lines| lines[999] = "\"no record\"".into(),
            "what follows record 999 is no record of a chain",
        ),
    ];
    for (meddle, told) in rows {
        let mut lines = chain(1_500);
        meddle(&mut lines);
        let fake = holding(lines);
        assert_eq!(broken(&fake.run(&["audit", "verify"])), told);
        let ran = fake.run(&["audit", "verify", "-o", "json"]);
        let verified: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (ran.code, &verified["broken"]),
            (Some(1), &Value::from(told))
        );
    }
}

/// What the chain alone cannot tell: its end was cut off, or it was written anew from some record on.
#[test]
fn the_journal_knows_more_than_the_chain() {
    let lines = chain(5);
    let log: String = lines
        .iter()
        .zip(1..)
        .map(|(line, seq)| {
            let hash = shifter_common::audit::Link::of(line).unwrap().hash;
            format!("INFO audit audit_seq={seq} audit_hash={hash} audit_id=0f-{seq} verb=weight\n")
        })
        .collect();
    let dir = short_dir();
    let file = dir.path().join("log");
    fs::write(&file, &log).unwrap();
    let verify = |lines: Vec<String>| {
        holding(lines).run(&["audit", "verify", "--journal-file", file.to_str().unwrap()])
    };
    let ran = verify(lines.clone());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out
            .starts_with("ok: the chain of 5 records holds, the journal has 5 of them\n"),
        "{}",
        ran.out
    );
    assert_eq!(
        broken(&verify(lines[..4].to_vec())),
        "the journal has record 5, the audit ends with record 4"
    );
    let mut other = chain(5);
    let body = other[4]
        .split(",\"hash\"")
        .next()
        .unwrap()
        .replace("weight", "drain")
        + "}";
    other[4] = seal(&body).0;
    assert_eq!(
        broken(&verify(other)),
        "record 5 has another hash in the journal"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ran = Ran::of(shifterctl().args(["audit", "verify", "--file", "/nowhere/audit.jsonl"]));
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.err,
        "error: cannot read /nowhere/audit.jsonl: No such file or directory (os error 2)\n"
    );
}

#[test]
fn what_is_exported_follows_the_record_that_is_named() {
    let fake = Fake::ok(AUDIT);
    assert_eq!(fake.run(&["audit", "export", "--after", "3"]).code, Some(0));
    let (asked, ..) = fake.asked().remove(0);
    assert_eq!(asked, "GET /v1/audit?after=3&limit=1000");
}

/// JSON is what the daemon sent, so that hashes can be checked by others.
#[test]
fn json_is_as_it_was_sent() {
    let ran = Fake::ok(AUDIT).run(&["audit", "show", "-o", "json"]);
    assert_eq!(ran.out.trim_end(), AUDIT.trim_end());
    assert_eq!(ran.code, Some(0));
}

/// What a record says must not move an operator's cursor.
#[test]
fn records_are_made_safe_for_a_terminal() {
    let body = format!(
        "{{\"seq\":1,\"prev\":\"{NOTHING_BEFORE}\",\"id\":\"0f-1\",\"verb\":\"weight\",\"reason\":\"\\u001b[2Jgone\"}}"
    );
    let page = format!(
        "{{\"records\":[{}],\"last_seq\":1,\"unwritten_count\":0}}",
        seal(&body).0
    );
    let ran = Fake::ok(&page).run(&["audit", "show"]);
    assert!(
        !ran.out.contains('\u{1b}') && ran.out.contains("[2Jgone"),
        "{:?}",
        ran.out
    );
}

#[test]
fn a_refusal_is_a_refusal() {
    let refusal = r#"{"code":"state","message":"reading x: no","help":"mend it"}"#;
    let fake = Fake::start(Answer::Json(500, refusal.into()));
    for command in ["show", "verify", "export"] {
        let ran = fake.run(&["audit", command]);
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.err, "error: reading x: no\nhelp: mend it\n");
    }
}
