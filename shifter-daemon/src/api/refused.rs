//! Refusals as HTTP responses.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use shifter_common::wire::Refusal;

/// The HTTP status of each refusal code, in one place. A code this table does not know is the
/// daemon's defect, hence 500.
pub fn http_status(code: &str) -> StatusCode {
    match code {
        "bad_request" => StatusCode::BAD_REQUEST,
        "forbidden" => StatusCode::FORBIDDEN,
        "unknown_service" | "unknown_rollout" | "unknown_path" => StatusCode::NOT_FOUND,
        "wrong_method" => StatusCode::METHOD_NOT_ALLOWED,
        "not_eligible" | "flows_open" | "vip_lost" | "rollout" => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal on its way to a client.
#[derive(Debug)]
pub(crate) struct Refused(pub Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json(http_status(&self.0.code), &self.0)
    }
}

/// A JSON response. The wire types have string keys and no failing serialisers, so the second
/// branch is for a defect only, and even that gets an answer.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string().into_bytes(),
        ),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A refusal with code `bad_request`.
pub(crate) fn bad_request(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal {
        code: "bad_request".into(),
        message: message.into(),
        help: help.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        let rows = [
            ("unknown_service", 404),
            ("unknown_rollout", 404),
            ("unknown_path", 404),
            ("wrong_method", 405),
            ("bad_request", 400),
            ("forbidden", 403),
            ("not_eligible", 409),
            ("flows_open", 409),
            ("vip_lost", 409),
            ("rollout", 409),
            ("kernel", 500),
            ("state", 500),
            ("internal", 500),
            ("a code nobody knows", 500),
        ];
        for (code, status) in rows {
            let refusal = Refusal {
                code: code.into(),
                message: "no".into(),
                help: String::new(),
            };
            let response = Refused(refusal).into_response();
            assert_eq!(response.status().as_u16(), status, "{code}");
            assert_eq!(
                response.headers()["content-type"],
                "application/json",
                "{code}"
            );
        }
    }
}
