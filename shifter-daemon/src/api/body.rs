//! Request bodies: from bytes to a wire type, or to a refusal that names the field. Pure.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shifter_common::{steering::WEIGHT_FULL_BP, wire::Refusal};

use super::refused::bad_request;

/// What a request body may contain.
pub(super) struct Shape {
    /// The fields.
    pub fields: &'static [Field],
    /// A body that is accepted.
    pub example: &'static str,
}

/// One field of a body.
pub(super) struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether a body without it is refused.
    pub(super) required: bool,
    /// Which values are right, in words.
    pub(super) right: &'static str,
    /// Whether a value is right.
    pub(super) accepts: fn(&Value) -> bool,
}

/// Body of `SetWeight`.
pub(super) const SET_WEIGHT: Shape = Shape {
    fields: &[Field {
        name: "weight_bp",
        required: true,
        right: "an integer 0..=10000 in basis points (500 is 5 %)",
        accepts: |value| {
            value
                .as_u64()
                .is_some_and(|bp| bp <= u64::from(WEIGHT_FULL_BP))
        },
    }],
    example: r#"{"weight_bp": 500}"#,
};

/// Body of `Rollback`.
pub(super) const ROLLBACK: Shape = Shape {
    fields: &[Field {
        name: "established",
        required: false,
        right: r#""drain", "reset", "reset-idle" or null (as the service file says)"#,
        accepts: |value| {
            value.is_null() || matches!(value.as_str(), Some("drain" | "reset" | "reset-idle"))
        },
    }],
    example: r#"{"established": "reset"}"#,
};

/// Body of `Drain`.
pub(super) const DRAIN: Shape = Shape {
    fields: &[
        Field {
            name: "slot",
            required: true,
            right: r#""a" or "b""#,
            accepts: |value| matches!(value.as_str(), Some("a" | "b")),
        },
        Field {
            name: "undo",
            required: false,
            right: "true or false",
            accepts: Value::is_boolean,
        },
    ],
    example: r#"{"slot": "b", "undo": false}"#,
};

/// Body of `Bypass`.
pub(super) const BYPASS: Shape = Shape {
    fields: &[Field {
        name: "undo",
        required: false,
        right: "true or false",
        accepts: Value::is_boolean,
    }],
    example: r#"{"undo": false}"#,
};

/// Body of `Detach`.
pub(super) const DETACH: Shape = Shape {
    fields: &[Field {
        name: "force",
        required: false,
        right: "true or false",
        accepts: Value::is_boolean,
    }],
    example: r#"{"force": true}"#,
};

/// Body of requests that take none.
pub(super) const NOTHING: Shape = Shape {
    fields: &[],
    example: "{}",
};

/// Reads a body. No body at all is an empty object, so `curl -X POST` works where every field is
/// optional.
pub(super) fn decode<T: DeserializeOwned>(
    shape: &Shape,
    content_type: Option<&[u8]>,
    body: &[u8],
) -> Result<T, Refusal> {
    let body = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        check_content_type(content_type)?;
        body
    };
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        bad_request(
            format!("the body is not JSON: {error}"),
            format!("a body that works: {}", shape.example),
        )
    })?;
    let Value::Object(object) = &value else {
        return Err(bad_request(
            format!("the body is {}; right is a JSON object", kind(&value)),
            format!("a body that works: {}", shape.example),
        ));
    };
    check_fields(shape, object)?;
    // From the bytes again: only they still show a field that is given twice.
    serde_json::from_slice(body).map_err(|error| {
        bad_request(
            format!("the body is not right: {error}"),
            format!("a body that works: {}", shape.example),
        )
    })
}

fn check_content_type(content_type: Option<&[u8]>) -> Result<(), Refusal> {
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    let is_json = |essence: &[u8]| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    };
    if essence.is_some_and(is_json) {
        return Ok(());
    }
    let found = match content_type {
        Some(value) => format!("is `{}`", shorten(&String::from_utf8_lossy(value))),
        None => "is missing".into(),
    };
    Err(bad_request(
        format!("the content type {found}; right is application/json"),
        "with curl: -H 'content-type: application/json'",
    ))
}

fn check_fields(shape: &Shape, object: &Map<String, Value>) -> Result<(), Refusal> {
    for name in object.keys() {
        if !shape.fields.iter().any(|field| field.name == name) {
            return Err(unknown_field(shape, name));
        }
    }
    for field in shape.fields {
        let Field { name, right, .. } = field;
        let help = || format!("a body that works: {}", shape.example);
        match object.get(*name) {
            None if field.required => {
                return Err(bad_request(
                    format!("field `{name}` is missing; right is {right}"),
                    help(),
                ));
            }
            Some(value) if !(field.accepts)(value) => {
                let shown = shorten(&value.to_string());
                return Err(bad_request(
                    format!("field `{name}` is {shown}; right is {right}"),
                    help(),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown_field(shape: &Shape, name: &str) -> Refusal {
    let message = format!("unknown field `{}`", shorten(name));
    let known: Vec<_> = shape
        .fields
        .iter()
        .map(|field| format!("`{}`", field.name))
        .collect();
    let nearest = shape
        .fields
        .iter()
        .map(|field| (strsim::jaro_winkler(field.name, name), field.name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let help = match nearest {
        _ if known.is_empty() => "this request takes no fields: send no body, or {}".into(),
        Some((_, nearest)) => {
            format!(
                "did you mean `{nearest}`? a body that works: {}",
                shape.example
            )
        }
        None => format!(
            "fields: {}; a body that works: {}",
            known.join(", "),
            shape.example
        ),
    };
    bad_request(message, help)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// At most 60 characters of what a client sent, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(60)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use shifter_common::wire::{
        Bypass, Detach, Drain, EstablishedPolicy, Rollback, SetWeight, Slot,
    };

    use super::*;

    const JSON: Option<&[u8]> = Some(b"application/json");

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(
        shape: &Shape,
        content_type: Option<&[u8]>,
        body: &str,
    ) -> (String, String) {
        let refusal = decode::<T>(shape, content_type, body.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, "bad_request");
        (refusal.message, refusal.help)
    }

    #[test]
    fn good_bodies_are_read() {
        for (body, weight_bp) in [
            (r#"{"weight_bp": 0}"#, 0),
            (r#"{"weight_bp": 10000}"#, 10_000),
            (" {\n\"weight_bp\": 500} \n", 500),
        ] {
            assert_eq!(
                decode(&SET_WEIGHT, JSON, body.as_bytes()),
                Ok(SetWeight { weight_bp })
            );
        }
        for (body, established) in [
            ("", None),
            ("  \r\n", None),
            ("{}", None),
            (r#"{"established": null}"#, None),
            (
                r#"{"established": "drain"}"#,
                Some(EstablishedPolicy::Drain),
            ),
            (
                r#"{"established": "reset"}"#,
                Some(EstablishedPolicy::Reset),
            ),
            (
                r#"{"established": "reset-idle"}"#,
                Some(EstablishedPolicy::ResetIdle),
            ),
        ] {
            assert_eq!(
                decode(&ROLLBACK, JSON, body.as_bytes()),
                Ok(Rollback { established })
            );
        }
        for (body, slot, undo) in [
            (r#"{"slot": "a"}"#, Slot::A, false),
            (r#"{"slot": "b", "undo": true}"#, Slot::B, true),
        ] {
            assert_eq!(
                decode(&DRAIN, JSON, body.as_bytes()),
                Ok(Drain { slot, undo })
            );
        }
        assert_eq!(decode(&DETACH, None, b""), Ok(Detach { force: false }));
        assert_eq!(
            decode(&DETACH, JSON, br#"{"force": true}"#),
            Ok(Detach { force: true })
        );
    }

    #[test]
    fn the_content_type_may_have_parameters_and_any_case() {
        let body = br#"{"weight_bp": 1}"#;
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json ;x",
        ] {
            assert!(
                decode::<SetWeight>(&SET_WEIGHT, Some(good.as_bytes()), body).is_ok(),
                "{good}"
            );
        }
    }

    #[test]
    fn bad_bodies_are_refused_with_the_place_and_what_is_right() {
        let weight = r#"a body that works: {"weight_bp": 500}"#;
        let right = "right is an integer 0..=10000 in basis points (500 is 5 %)";
        let rows: &[(&str, String, String)] = &[
            (
                "{}",
                format!("field `weight_bp` is missing; {right}"),
                weight.into(),
            ),
            (
                "",
                format!("field `weight_bp` is missing; {right}"),
                weight.into(),
            ),
            (
                r#"{"weight_bp": 10001}"#,
                format!("field `weight_bp` is 10001; {right}"),
                weight.into(),
            ),
            (
                r#"{"weight_bp": -1}"#,
                format!("field `weight_bp` is -1; {right}"),
                weight.into(),
            ),
            (
                r#"{"weight_bp": 5.5}"#,
                format!("field `weight_bp` is 5.5; {right}"),
                weight.into(),
            ),
            (
                r#"{"weight_bp": "5"}"#,
                format!(r#"field `weight_bp` is "5"; {right}"#),
                weight.into(),
            ),
            (
                r#"{"weight": 500}"#,
                "unknown field `weight`".into(),
                format!("did you mean `weight_bp`? {weight}"),
            ),
            (
                r#"{"weight_bp": 500, "zzz": 1}"#,
                "unknown field `zzz`".into(),
                format!("fields: `weight_bp`; {weight}"),
            ),
            (
                r#"{"weight_bp": 500"#,
                "the body is not JSON: EOF while parsing an object at line 1 column 17".into(),
                weight.into(),
            ),
            (
                "5",
                "the body is a number; right is a JSON object".into(),
                weight.into(),
            ),
            (
                "[5]",
                "the body is an array; right is a JSON object".into(),
                weight.into(),
            ),
            (
                "null",
                "the body is null; right is a JSON object".into(),
                weight.into(),
            ),
            (
                r#"{"weight_bp": 1, "weight_bp": 2}"#,
                "the body is not right: duplicate field `weight_bp` at line 1 column 28".into(),
                weight.into(),
            ),
        ];
        for (body, message, help) in rows {
            let found = refusal::<SetWeight>(&SET_WEIGHT, JSON, body);
            assert_eq!(found, (message.clone(), help.clone()), "{body}");
        }
    }

    #[test]
    fn each_other_field_is_named_with_what_is_right() {
        assert_eq!(
            refusal::<Rollback>(&ROLLBACK, JSON, r#"{"established": "kill"}"#),
            (
                r#"field `established` is "kill"; right is "drain", "reset", "reset-idle" or null (as the service file says)"#.into(),
                r#"a body that works: {"established": "reset"}"#.into()
            )
        );
        assert_eq!(
            refusal::<Drain>(&DRAIN, JSON, r#"{"slot": "c"}"#).0,
            r#"field `slot` is "c"; right is "a" or "b""#
        );
        assert_eq!(
            refusal::<Drain>(&DRAIN, JSON, r#"{"undo": true}"#).0,
            r#"field `slot` is missing; right is "a" or "b""#
        );
        assert_eq!(
            refusal::<Drain>(&DRAIN, JSON, r#"{"slot": "a", "undo": 1}"#).0,
            "field `undo` is 1; right is true or false"
        );
        assert_eq!(
            refusal::<Detach>(&DETACH, JSON, r#"{"force": "yes"}"#).0,
            r#"field `force` is "yes"; right is true or false"#
        );
        assert_eq!(
            refusal::<Value>(&NOTHING, JSON, r#"{"dry_run": true}"#),
            (
                "unknown field `dry_run`".into(),
                "this request takes no fields: send no body, or {}".into()
            )
        );
    }

    #[test]
    fn another_content_type_is_refused() {
        let help = "with curl: -H 'content-type: application/json'";
        let rows: &[(Option<&[u8]>, &str)] = &[
            (
                Some(b"application/x-www-form-urlencoded"),
                "the content type is `application/x-www-form-urlencoded`; right is \
                 application/json",
            ),
            (
                Some(b"text\xff"),
                "the content type is `text\u{fffd}`; right is application/json",
            ),
            (
                None,
                "the content type is missing; right is application/json",
            ),
        ];
        for (content_type, message) in rows {
            let found = refusal::<SetWeight>(&SET_WEIGHT, *content_type, r#"{"weight_bp": 5}"#);
            assert_eq!(found, ((*message).into(), help.into()));
        }
    }

    #[test]
    fn what_is_echoed_is_short_and_printable() {
        let long = "é".repeat(61);
        assert_eq!(shorten(&long), format!("{}…", "é".repeat(60)));
        assert_eq!(shorten(&long[2..]), "é".repeat(60));
        assert_eq!(shorten("a\u{1b}[31m\nb"), "a?[31m?b");
    }

    /// The tables above and the wire types say the same.
    #[test]
    fn shapes_are_the_wire_types() {
        fn keys(value: impl serde::Serialize) -> Vec<String> {
            let Value::Object(object) = serde_json::to_value(value).unwrap() else {
                panic!()
            };
            object.keys().cloned().collect()
        }
        let rows = [
            (&SET_WEIGHT, keys(SetWeight { weight_bp: 1 })),
            (&ROLLBACK, keys(Rollback::default())),
            (
                &DRAIN,
                keys(Drain {
                    slot: Slot::A,
                    undo: false,
                }),
            ),
            (&BYPASS, keys(Bypass::default())),
            (&DETACH, keys(Detach::default())),
        ];
        for (shape, keys) in rows {
            let names: Vec<_> = shape
                .fields
                .iter()
                .map(|field| field.name.to_owned())
                .collect();
            assert_eq!(names, keys);
        }
        assert!(decode::<SetWeight>(&SET_WEIGHT, JSON, SET_WEIGHT.example.as_bytes()).is_ok());
        assert!(decode::<Rollback>(&ROLLBACK, JSON, ROLLBACK.example.as_bytes()).is_ok());
        assert!(decode::<Drain>(&DRAIN, JSON, DRAIN.example.as_bytes()).is_ok());
        assert!(decode::<Detach>(&DETACH, JSON, DETACH.example.as_bytes()).is_ok());
        assert!(decode::<Bypass>(&BYPASS, JSON, BYPASS.example.as_bytes()).is_ok());
    }
}
