//! Records on their way to a client, byte by byte as they were written: their hashes are of their text.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::store::AuditLines;

/// The body of an [`AuditPage`](shifter_common::wire::AuditPage).
fn body(found: &AuditLines) -> String {
    let AuditLines {
        lines,
        last_seq,
        unwritten_count,
        trouble,
    } = found;
    let records: Vec<String> = lines.iter().map(|line| element(line)).collect();
    let trouble = Value::from(trouble.as_str());
    format!(
        "{{\"records\":[{}],\"last_seq\":{last_seq},\"unwritten_count\":{unwritten_count},\"trouble\":\
         {trouble}}}",
        records.join(",")
    )
}

/// What somebody broke is sent as a text, so that the rest can be read.
fn element(line: &str) -> String {
    if serde_json::from_str::<IgnoredAny>(line).is_ok() {
        line.to_owned()
    } else {
        Value::from(line).to_string()
    }
}

pub(super) fn page(found: &AuditLines) -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, head, body(found)).into_response()
}

#[cfg(test)]
mod tests {
    use shifter_common::{audit::seal, wire::AuditPage};

    use super::*;

    #[test]
    fn records_are_sent_as_they_are() {
        let (line, _) = seal("{\"seq\":1,\"prev\":\"0\",\"later\":  [1.50]}");
        let found = AuditLines {
            lines: vec![line.clone()],
            last_seq: 1,
            unwritten_count: 2,
            trouble: "no \"room\"".into(),
        };
        let text = body(&found);
        assert!(text.contains(&line), "{text}");
        let page: AuditPage = serde_json::from_str(&text).expect("a page");
        assert_eq!((page.records[0].seq, page.last_seq), (1, 1));
        assert_eq!((page.unwritten_count, &*page.trouble), (2, "no \"room\""));
    }

    #[test]
    fn what_is_broken_keeps_nothing_from_being_read() {
        let found = AuditLines {
            lines: vec!["{}".into(), "{\"seq\":2,".into()],
            ..AuditLines::default()
        };
        let value: Value = serde_json::from_str(&body(&found)).expect("JSON");
        assert_eq!(value["records"][1], "{\"seq\":2,");
    }
}
