//! The routes, and what each makes of a request. Pure.

use shifter_common::wire::Refusal;

use super::{Right, body, refused::bad_request, rollout};
use crate::{driver::Request, rollout::Label};

/// Flows shown unless the client says how many.
const FLOWS_DEFAULT_COUNT: usize = 100;
/// Flows shown at most: about 2 MB of JSON.
const FLOWS_MAX_COUNT: usize = 10_000;

/// Something a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Everything.
    Status,
    /// One service.
    Service,
    /// Flows of a service.
    Flows,
    /// What a rollout would do.
    Plan,
    /// Read the service files again.
    Apply,
    /// Change the canary's weight.
    Weight,
    /// Weight to 0.
    Rollback,
    /// No new flows to a slot.
    Drain,
    /// A version shall get the traffic.
    Start,
    /// Move a rollout.
    Command,
    /// New connections around shifter.
    Bypass,
    /// Programs off the interfaces.
    Detach,
}

/// A request's parts, as far as an endpoint reads them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts<'a> {
    /// `{service}` of the path, decoded.
    pub service: &'a str,
    /// `{version}` of the path, decoded.
    pub version: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// The header of this name.
    pub content_type: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

impl Endpoint {
    /// All of them; the router is built from this list.
    pub const ALL: &[Self] = &[
        Self::Status,
        Self::Service,
        Self::Flows,
        Self::Plan,
        Self::Apply,
        Self::Weight,
        Self::Rollback,
        Self::Drain,
        Self::Start,
        Self::Command,
        Self::Bypass,
        Self::Detach,
    ];

    /// Path, with `{service}` where the name goes.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Status => "/v1/status",
            Self::Service => "/v1/services/{service}",
            Self::Flows => "/v1/services/{service}/flows",
            Self::Plan => "/v1/services/{service}/plan/{version}",
            Self::Apply => "/v1/apply",
            Self::Weight => "/v1/services/{service}/weight",
            Self::Rollback => "/v1/services/{service}/rollback",
            Self::Drain => "/v1/services/{service}/drain",
            Self::Start => "/v1/services/{service}/rollout",
            Self::Command => "/v1/services/{service}/rollout/command",
            Self::Bypass => "/v1/services/{service}/bypass",
            Self::Detach => "/v1/detach",
        }
    }

    /// `GET` if it only reads, `POST` if it changes something.
    pub const fn method(self) -> &'static str {
        match self.right() {
            Right::Change => "POST",
            Right::Read | Right::None => "GET",
        }
    }

    /// What the caller needs.
    pub const fn right(self) -> Right {
        match self {
            Self::Status | Self::Service | Self::Flows | Self::Plan => Right::Read,
            Self::Apply
            | Self::Weight
            | Self::Rollback
            | Self::Drain
            | Self::Start
            | Self::Command
            | Self::Bypass
            | Self::Detach => Right::Change,
        }
    }

    /// The command in logs; the same as shifterctl's.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Status | Self::Service => "status",
            Self::Flows => "flows",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Weight => "set-weight",
            Self::Rollback => "rollback",
            Self::Drain => "drain",
            Self::Start => "start",
            Self::Command => "rollout",
            Self::Bypass => "bypass",
            Self::Detach => "detach",
        }
    }

    /// All routes in one line, for those who missed one.
    pub(super) fn list() -> String {
        let routes: Vec<_> = Self::ALL
            .iter()
            .map(|endpoint| format!("{} {}", endpoint.method(), endpoint.path()))
            .collect();
        routes.join(", ")
    }

    /// The driver's request, or what is wrong with the client's.
    pub(super) fn decode(self, parts: Parts<'_>) -> Result<Request, Refusal> {
        let Parts {
            service,
            version,
            query,
            content_type,
            body,
        } = parts;
        if self != Self::Flows && !query.is_empty() {
            return Err(bad_request(
                format!("unknown query `{}`", body::shorten(query)),
                format!("{} {} takes no query", self.method(), self.path()),
            ));
        }
        if service.is_empty() && self.path().contains("{service}") {
            return Err(bad_request(
                "the name of the service is empty",
                format!("the path is {}", self.path()),
            ));
        }
        let service = service.to_owned();
        Ok(match self {
            Self::Status => Request::Status,
            Self::Service => Request::Service(service),
            Self::Flows => Request::Flows(service, flows_limit(query)?),
            Self::Plan => Request::Plan(service, label(version)?),
            Self::Apply => {
                body::decode::<serde_json::Value>(&body::NOTHING, content_type, body)?;
                Request::Apply
            }
            Self::Weight => Request::SetWeight(
                service,
                body::decode(&body::SET_WEIGHT, content_type, body)?,
            ),
            Self::Rollback => {
                Request::Rollback(service, body::decode(&body::ROLLBACK, content_type, body)?)
            }
            Self::Drain => Request::Drain(service, body::decode(&body::DRAIN, content_type, body)?),
            Self::Start => {
                Request::Start(service, body::decode(&rollout::START, content_type, body)?)
            }
            Self::Command => Request::Command(
                service,
                body::decode(&rollout::COMMAND, content_type, body)?,
            ),
            Self::Bypass => {
                Request::Bypass(service, body::decode(&body::BYPASS, content_type, body)?)
            }
            Self::Detach => Request::Detach(body::decode(&body::DETACH, content_type, body)?),
        })
    }
}

fn label(version: &str) -> Result<Label, Refusal> {
    version.parse().map_err(|_| {
        bad_request(
            format!("`{}` cannot name a version", body::shorten(version)),
            "use 1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\", such as 3.2.0",
        )
    })
}

fn flows_limit(query: &str) -> Result<usize, Refusal> {
    let help = format!("right is ?limit=N with N in 1..={FLOWS_MAX_COUNT}");
    let mut limit = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "limit" {
            let message = format!("unknown query parameter `{}`", body::shorten(key));
            return Err(bad_request(message, help));
        }
        if limit.is_some() {
            return Err(bad_request("query parameter `limit` is given twice", help));
        }
        // `parse` takes a leading plus sign, which in a query means a space.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let count = value
            .parse()
            .ok()
            .filter(|n| digits && (1..=FLOWS_MAX_COUNT).contains(n));
        let Some(count) = count else {
            let message = format!("query parameter `limit` is `{}`", body::shorten(value));
            return Err(bad_request(message, help));
        };
        limit = Some(count);
    }
    Ok(limit.unwrap_or(FLOWS_DEFAULT_COUNT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use shifter_common::wire::{Detach, Drain, EstablishedPolicy, Rollback, SetWeight, Slot};

    use super::*;

    const JSON: Option<&[u8]> = Some(b"application/json");

    fn decode(endpoint: Endpoint, query: &str, body: &str) -> Result<Request, Refusal> {
        let body = body.as_bytes();
        endpoint.decode(Parts {
            service: "orders",
            version: "3.2.0",
            query,
            content_type: JSON,
            body,
        })
    }

    #[test]
    fn each_endpoint_makes_its_request() {
        let orders = || "orders".to_owned();
        let rows = [
            (Endpoint::Status, "", "", Request::Status),
            (Endpoint::Service, "", "", Request::Service(orders())),
            (Endpoint::Flows, "", "", Request::Flows(orders(), 100)),
            (Endpoint::Flows, "limit=1", "", Request::Flows(orders(), 1)),
            (
                Endpoint::Flows,
                "&limit=10000&",
                "",
                Request::Flows(orders(), 10_000),
            ),
            (
                Endpoint::Plan,
                "",
                "",
                Request::Plan(orders(), "3.2.0".parse().unwrap()),
            ),
            (Endpoint::Apply, "", "", Request::Apply),
            (Endpoint::Apply, "", "{}", Request::Apply),
            (
                Endpoint::Weight,
                "",
                r#"{"weight_bp": 2500}"#,
                Request::SetWeight(orders(), SetWeight { weight_bp: 2500 }),
            ),
            (
                Endpoint::Rollback,
                "",
                r#"{"established": "reset"}"#,
                Request::Rollback(
                    orders(),
                    Rollback {
                        established: Some(EstablishedPolicy::Reset),
                    },
                ),
            ),
            (
                Endpoint::Rollback,
                "",
                "",
                Request::Rollback(orders(), Rollback::default()),
            ),
            (
                Endpoint::Drain,
                "",
                r#"{"slot": "b", "undo": true}"#,
                Request::Drain(
                    orders(),
                    Drain {
                        slot: Slot::B,
                        undo: true,
                    },
                ),
            ),
            (
                Endpoint::Detach,
                "",
                "",
                Request::Detach(Detach { force: false }),
            ),
            (
                Endpoint::Detach,
                "",
                r#"{"force":true}"#,
                Request::Detach(Detach { force: true }),
            ),
        ];
        for (endpoint, query, body, request) in rows {
            assert_eq!(
                decode(endpoint, query, body),
                Ok(request),
                "{endpoint:?} {query} {body}"
            );
        }
    }

    #[test]
    fn a_bad_query_is_refused_with_what_is_right() {
        let limit = "right is ?limit=N with N in 1..=10000";
        let rows = [
            (
                Endpoint::Flows,
                "limit=0",
                "query parameter `limit` is `0`",
                limit,
            ),
            (
                Endpoint::Flows,
                "limit=10001",
                "query parameter `limit` is `10001`",
                limit,
            ),
            (
                Endpoint::Flows,
                "limit=+5",
                "query parameter `limit` is `+5`",
                limit,
            ),
            (
                Endpoint::Flows,
                "limit",
                "query parameter `limit` is ``",
                limit,
            ),
            (
                Endpoint::Flows,
                "limit=99999999999999999999",
                "query parameter `limit` is `99999999999999999999`",
                limit,
            ),
            (
                Endpoint::Flows,
                "limit=1&limit=2",
                "query parameter `limit` is given twice",
                limit,
            ),
            (
                Endpoint::Flows,
                "max=5",
                "unknown query parameter `max`",
                limit,
            ),
            (
                Endpoint::Status,
                "verbose",
                "unknown query `verbose`",
                "GET /v1/status takes no query",
            ),
            (
                Endpoint::Weight,
                "weight_bp=500",
                "unknown query `weight_bp=500`",
                "POST /v1/services/{service}/weight takes no query",
            ),
        ];
        for (endpoint, query, message, help) in rows {
            let refusal = decode(endpoint, query, "").unwrap_err();
            assert_eq!(refusal.code, "bad_request");
            assert_eq!(
                (refusal.message.as_str(), refusal.help.as_str()),
                (message, help)
            );
        }
    }

    #[test]
    fn a_service_has_a_name() {
        for endpoint in Endpoint::ALL {
            let nameless = Parts {
                service: "",
                content_type: JSON,
                ..Parts::default()
            };
            let refusal = endpoint
                .decode(nameless)
                .err()
                .map(|refusal| refusal.message);
            let expected = match endpoint.path().contains("{service}") {
                true => Some("the name of the service is empty".to_owned()),
                false => None,
            };
            assert_eq!(refusal, expected, "{endpoint:?}");
        }
    }

    #[test]
    fn reading_is_get_and_changing_is_post() {
        for endpoint in Endpoint::ALL {
            let expected = if endpoint.method() == "GET" {
                Right::Read
            } else {
                Right::Change
            };
            assert_eq!(endpoint.right(), expected, "{endpoint:?}");
        }
        assert_eq!(
            Endpoint::ALL
                .iter()
                .filter(|e| e.right() == Right::Change)
                .count(),
            8
        );
    }
}
