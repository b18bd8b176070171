//! The routes, and what each makes of a request. Pure.

use shifter_common::wire::Refusal;

use super::{Right, body, refused::bad_request, rollout};
use crate::{driver::Request, rollout::Label, store::AuditQuery};

/// Flows shown unless the client says how many.
const FLOWS_DEFAULT_COUNT: usize = 100;
/// Flows shown at most: about 2 MB of JSON.
const FLOWS_MAX_COUNT: usize = 10_000;
/// Records shown unless the client says how many.
const AUDIT_DEFAULT_COUNT: u32 = 100;
/// Records shown at most: about 1 MB of JSON.
const AUDIT_MAX_COUNT: u32 = 1_000;

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
    /// Revisions and rollouts of a service.
    History,
    /// One rollout, as the audit tells it.
    Deployment,
    /// Records of the audit.
    Audit,
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
    /// `{rollout}` of the path, decoded.
    pub rollout: &'a str,
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
        Self::History,
        Self::Deployment,
        Self::Audit,
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
            Self::History => "/v1/services/{service}/history",
            Self::Deployment => "/v1/services/{service}/history/{rollout}",
            Self::Audit => "/v1/audit",
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
            Self::Status
            | Self::Service
            | Self::Flows
            | Self::Plan
            | Self::History
            | Self::Deployment
            | Self::Audit => Right::Read,
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
            Self::History | Self::Deployment => "history",
            Self::Audit => "audit",
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
            rollout,
            query,
            content_type,
            body,
        } = parts;
        if !matches!(self, Self::Flows | Self::Audit) && !query.is_empty() {
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
            Self::History => Request::History(service),
            Self::Deployment => Request::Deployment(service, number_of_rollout(rollout)?),
            Self::Audit => Request::Audit(audit_query(query)?),
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

fn number_of_rollout(text: &str) -> Result<u64, Refusal> {
    number(text, 1..=u64::MAX >> 1).ok_or_else(|| {
        bad_request(
            format!("`{}` is no number of a rollout", body::shorten(text)),
            "rollouts are numbered from 1; see: shifterctl history SERVICE",
        )
    })
}

/// `parse` takes a leading plus sign, which in a query means a space.
fn number(text: &str, right: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && right.contains(number))
}

/// The parameters of a query that may be given, each once.
fn parameters<'a, const COUNT: usize>(
    query: &'a str,
    names: [&str; COUNT],
    help: &str,
) -> Result<[Option<&'a str>; COUNT], Refusal> {
    let mut found = [None; COUNT];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(at) = names.iter().position(|name| *name == key) else {
            let message = format!("unknown query parameter `{}`", body::shorten(key));
            return Err(bad_request(message, help));
        };
        if found[at].replace(value).is_some() {
            let message = format!("query parameter `{key}` is given twice");
            return Err(bad_request(message, help));
        }
    }
    Ok(found)
}

fn flows_limit(query: &str) -> Result<usize, Refusal> {
    let help = format!("right is ?limit=N with N in 1..={FLOWS_MAX_COUNT}");
    let [limit] = parameters(query, ["limit"], &help)?;
    let Some(value) = limit else {
        return Ok(FLOWS_DEFAULT_COUNT);
    };
    match number(value, 1..=FLOWS_MAX_COUNT as u64) {
        Some(count) => Ok(count as usize),
        None => {
            let message = format!("query parameter `limit` is `{}`", body::shorten(value));
            Err(bad_request(message, help))
        }
    }
}

fn audit_query(query: &str) -> Result<AuditQuery, Refusal> {
    let help = format!(
        "right is ?after=SEQ&limit=N&service=NAME&rollout=N with limit in 1..={AUDIT_MAX_COUNT}"
    );
    let names = ["after", "limit", "service", "rollout"];
    let [after, limit, service, rollout] = parameters(query, names, &help)?;
    let numbered = |name, value: Option<&str>, right| {
        let Some(value) = value else { return Ok(None) };
        number(value, right).map(Some).ok_or_else(|| {
            let message = format!("query parameter `{name}` is `{}`", body::shorten(value));
            bad_request(message, help.clone())
        })
    };
    // A name needs no escapes, and one that has them is none.
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty() && name.bytes().all(plain)
    };
    if let Some(name) = service.filter(|name| !is_name(name)) {
        let message = format!("query parameter `service` is `{}`", body::shorten(name));
        return Err(bad_request(message, help));
    }
    let limit = numbered("limit", limit, 1..=u64::from(AUDIT_MAX_COUNT))?;
    Ok(AuditQuery {
        after: numbered("after", after, 0..=u64::MAX)?,
        limit: limit.map_or(AUDIT_DEFAULT_COUNT, |count| count as u32),
        service: service.map(str::to_owned),
        rollout: numbered("rollout", rollout, 1..=u64::MAX)?,
    })
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
            rollout: "4",
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
            (Endpoint::History, "", "", Request::History(orders())),
            (
                Endpoint::Deployment,
                "",
                "",
                Request::Deployment(orders(), 4),
            ),
            (
                Endpoint::Audit,
                "",
                "",
                Request::Audit(AuditQuery {
                    limit: 100,
                    ..AuditQuery::default()
                }),
            ),
            (
                Endpoint::Audit,
                "rollout=4&service=orders&after=0&limit=1000",
                "",
                Request::Audit(AuditQuery {
                    after: Some(0),
                    limit: 1_000,
                    service: Some(orders()),
                    rollout: Some(4),
                }),
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
        let audit = "right is ?after=SEQ&limit=N&service=NAME&rollout=N with limit in 1..=1000";
        let rows = [
            (
                Endpoint::Audit,
                "limit=1001",
                "query parameter `limit` is `1001`",
                audit,
            ),
            (
                Endpoint::Audit,
                "after=-1",
                "query parameter `after` is `-1`",
                audit,
            ),
            (
                Endpoint::Audit,
                "rollout=0",
                "query parameter `rollout` is `0`",
                audit,
            ),
            (
                Endpoint::Audit,
                "service=a%20b",
                "query parameter `service` is `a%20b`",
                audit,
            ),
            (
                Endpoint::Audit,
                "after=1&limit=2&after=3",
                "query parameter `after` is given twice",
                audit,
            ),
            (
                Endpoint::Audit,
                "before=5",
                "unknown query parameter `before`",
                audit,
            ),
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
    fn a_rollout_has_a_number() {
        for text in ["", "0", "x", "+1", "-1", "99999999999999999999"] {
            let parts = Parts {
                service: "orders",
                rollout: text,
                ..Parts::default()
            };
            let refusal = Endpoint::Deployment.decode(parts).unwrap_err();
            assert_eq!(refusal.code, "bad_request");
            assert_eq!(
                (refusal.message, refusal.help.as_str()),
                (
                    format!("`{text}` is no number of a rollout"),
                    "rollouts are numbered from 1; see: shifterctl history SERVICE"
                )
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
