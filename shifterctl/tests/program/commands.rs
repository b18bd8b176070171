//! The program against a fake daemon: what it asks, prints and returns.

use crate::support::{Answer, Fake, Ran, shifterctl};
use serde_json::{Value, json};

const STATUS: &str = include_str!("../data/status.json");
const FLOWS: &str = include_str!("../data/flows.json");
const PLAN: &str = include_str!("../data/plan.json");
const ROLLOUT: &str = include_str!("../data/rollout.json");
const AUDIT: &str = include_str!("../data/audit.json");
const HISTORY: &str = include_str!("../data/history.json");
const DEPLOYMENT: &str = include_str!("../data/deployment.json");
const CHANGED: &str = include_str!("../data/changed.json");
const APPLY: &str = include_str!("../data/apply.json");
const APPLY_CLEAN: &str = include_str!("../data/apply_clean.json");
const DETACHED: &str = include_str!("../data/detached.json");

fn service(name: &str) -> Value {
    let status: Value = serde_json::from_str(STATUS).unwrap();
    let services = status["services"].as_array().unwrap();
    services
        .iter()
        .find(|service| service["name"] == name)
        .unwrap()
        .clone()
}

/// A document for a ticket: lines as long as they are.
#[test]
fn the_record_of_a_rollout_is_a_document() {
    let fake = Fake::ok(DEPLOYMENT);
    let ran = fake.run(&["history", "orders", "--record", "4", "-o", "markdown"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, include_str!("../golden/deployment.md"));
    let ran = fake.run(&["history", "orders", "-o", "markdown"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.err,
        "error: Markdown is for the record of a rollout\n\
         help: shifterctl history SERVICE --record ID -o markdown\n"
    );
}

#[test]
fn each_command_asks_for_what_it_says() {
    let json = "application/json";
    let rows: &[(&[&str], &str, &str, &str, &str)] = &[
        (&["status"], STATUS, "GET /v1/status", "", ""),
        (&["apply"], APPLY_CLEAN, "POST /v1/apply", json, "{}"),
        (
            &["set-weight", "orders", "5"],
            CHANGED,
            "POST /v1/services/orders/weight",
            json,
            r#"{"weight_bp":500}"#,
        ),
        (
            &["set-weight", "orders", "12.34%"],
            CHANGED,
            "POST /v1/services/orders/weight",
            json,
            r#"{"weight_bp":1234}"#,
        ),
        (
            &["rollback", "orders"],
            CHANGED,
            "POST /v1/services/orders/rollback",
            json,
            r#"{"established":null}"#,
        ),
        (
            &["rollback", "orders", "--established", "reset"],
            CHANGED,
            "POST /v1/services/orders/rollback",
            json,
            r#"{"established":"reset"}"#,
        ),
        (
            &["rollback", "orders", "--established=drain"],
            CHANGED,
            "POST /v1/services/orders/rollback",
            json,
            r#"{"established":"drain"}"#,
        ),
        (
            &["drain", "orders", "b"],
            CHANGED,
            "POST /v1/services/orders/drain",
            json,
            r#"{"slot":"b","undo":false}"#,
        ),
        (
            &["drain", "orders", "a", "--undo"],
            CHANGED,
            "POST /v1/services/orders/drain",
            json,
            r#"{"slot":"a","undo":true}"#,
        ),
        (
            &["bypass", "orders"],
            CHANGED,
            "POST /v1/services/orders/bypass",
            json,
            r#"{"undo":false}"#,
        ),
        (
            &["bypass", "orders", "--undo"],
            CHANGED,
            "POST /v1/services/orders/bypass",
            json,
            r#"{"undo":true}"#,
        ),
        (
            &["start", "orders", "3.2.0"],
            ROLLOUT,
            "POST /v1/services/orders/rollout",
            json,
            r#"{"version":"3.2.0"}"#,
        ),
        (
            &[
                "start",
                "orders",
                "3.2.0",
                "--strategy",
                "linear",
                "--bake",
                "90s",
            ],
            ROLLOUT,
            "POST /v1/services/orders/rollout",
            json,
            r#"{"version":"3.2.0","strategy":"linear","bake_ms":90000}"#,
        ),
        (
            &["start", "orders", "3.2.0", "--steps", "5:5m,pause,50"],
            ROLLOUT,
            "POST /v1/services/orders/rollout",
            json,
            r#"{"version":"3.2.0","steps":[{"weight_bp":500,"bake_ms":300000,"pause":true},{"weight_bp":5000,"pause":false}]}"#,
        ),
        (
            &["promote", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"promote"}"#,
        ),
        (
            &["promote", "orders", "--step", "2"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"promote","step":2}"#,
        ),
        (
            &["promote", "orders", "--skip-step", "--step=2"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"skip-step","step":2}"#,
        ),
        (
            &["promote", "--full", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"promote-full"}"#,
        ),
        (
            &["pause", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"pause"}"#,
        ),
        (
            &["resume", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"resume"}"#,
        ),
        (
            &["abort", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"abort"}"#,
        ),
        (
            &["retry", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"retry"}"#,
        ),
        (
            &["undo", "orders"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"undo"}"#,
        ),
        (
            &["approve", "orders", "smoke"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"approve","gate":"smoke"}"#,
        ),
        (
            &["reject", "orders", "smoke"],
            ROLLOUT,
            "POST /v1/services/orders/rollout/command",
            json,
            r#"{"verb":"reject","gate":"smoke"}"#,
        ),
        (
            &["flows", "orders"],
            FLOWS,
            "GET /v1/services/orders/flows?limit=100",
            "",
            "",
        ),
        (
            &["flows", "orders", "--limit", "7"],
            FLOWS,
            "GET /v1/services/orders/flows?limit=7",
            "",
            "",
        ),
        (
            &["history", "orders"],
            HISTORY,
            "GET /v1/services/orders/history",
            "",
            "",
        ),
        (
            &["history", "orders", "--record", "4"],
            DEPLOYMENT,
            "GET /v1/services/orders/history/4",
            "",
            "",
        ),
        (&["audit", "show"], AUDIT, "GET /v1/audit?limit=20", "", ""),
        (
            &["audit", "show", "orders", "--after", "3", "--limit", "5"],
            AUDIT,
            "GET /v1/audit?limit=5&after=3&service=orders",
            "",
            "",
        ),
        (
            &["plan", "orders", "3.2.0+b7"],
            PLAN,
            "GET /v1/services/orders/plan/3.2.0%2Bb7",
            "",
            "",
        ),
        (
            &["detach"],
            DETACHED,
            "POST /v1/detach",
            json,
            r#"{"force":false}"#,
        ),
        (
            &["detach", "--force"],
            DETACHED,
            "POST /v1/detach",
            json,
            r#"{"force":true}"#,
        ),
        (
            &["rollback", "a/b?c"],
            CHANGED,
            "POST /v1/services/a%2Fb%3Fc/rollback",
            json,
            r#"{"established":null}"#,
        ),
    ];
    for (args, reply, target, content_type, body) in rows {
        let fake = Fake::ok(reply);
        let table = fake.run(args);
        table.done();
        assert!(!table.out.is_empty());
        for line in table.out.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(!line.contains('\u{1b}'), "colour in a pipe: {line}");
        }
        // The same in JSON is exactly what the daemon sent.
        let json = fake.run(&[*args, &["-o", "json"]].concat());
        json.done();
        let (sent, printed): (Value, Value) = (
            serde_json::from_str(reply).unwrap(),
            serde_json::from_str(&json.out).unwrap(),
        );
        assert_eq!(printed, sent, "{args:?}");
        let expected = (
            (*target).to_owned(),
            (*content_type).to_owned(),
            (*body).to_owned(),
        );
        assert_eq!(fake.asked(), [expected.clone(), expected], "{args:?}");
    }
}

#[test]
fn tables_are_the_golden_ones() {
    let rows: &[(&[&str], &str, &str)] = &[
        (
            &["flows", "orders"],
            FLOWS,
            include_str!("../golden/flows.txt"),
        ),
        (
            &["apply"],
            APPLY_CLEAN,
            include_str!("../golden/apply_nothing.txt"),
        ),
        (
            &["set-weight", "orders", "25"],
            CHANGED,
            "orders: canary 5 % -> 25 % in 41 µs (generation 13)\n\
             note: slot b is not ready: it gets no flows yet\n",
        ),
        (
            &["drain", "orders", "b"],
            CHANGED,
            "orders: slot b closed to new flows in 41 µs (generation 13)\n\
             note: slot b is not ready: it gets no flows yet\n",
        ),
        (
            &["bypass", "orders"],
            CHANGED,
            "orders: lets new flows go around in 41 µs (generation 13)\n\
             note: slot b is not ready: it gets no flows yet\n",
        ),
        (
            &["bypass", "orders", "--undo"],
            CHANGED,
            "orders: steers new flows again in 41 µs (generation 13)\n\
             note: slot b is not ready: it gets no flows yet\n",
        ),
        (
            &["detach", "--force"],
            DETACHED,
            "programs taken off eth0, veth-clients0; 3 live flows cut off\n",
        ),
    ];
    for (args, reply, text) in rows {
        let ran = Fake::ok(reply).run(args);
        assert_eq!(ran.done().out, *text);
    }
}

#[test]
fn status_shows_all_services_or_one() {
    let fake = Fake::ok(STATUS);
    let all = fake.run(&["status"]);
    for text in [
        "\nbilling  tcp",
        "\norders  tcp",
        "\ninventory-with",
        "\nlast events\n",
    ] {
        assert!(all.done().out.contains(text), "{text}");
    }
    let one = fake.run(&["status", "orders"]);
    assert!(
        one.done()
            .out
            .contains("\norders  tcp 10.0.0.10:443, [2001:db8::10]:443\n")
    );
    assert!(!one.out.contains("\nbilling"), "{}", one.out);
    // The time zone of the host decides.
    let shifted = Ran::of(
        shifterctl()
            .env("TZ", "UTC-2")
            .arg("--socket")
            .arg(&fake.socket)
            .arg("status"),
    );
    assert!(
        one.out
            .contains("14:03:22 orders by: shifterd, reason: not ready")
    );
    assert!(
        shifted
            .done()
            .out
            .contains("16:03:22 orders by: shifterd, reason: not ready")
    );
}

#[test]
fn status_of_a_service_in_json_is_that_service() {
    let fake = Fake::ok(&service("orders").to_string());
    let ran = fake.run(&["-o", "json", "status", "orders"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.done().out).unwrap(),
        service("orders")
    );
    assert_eq!(fake.asked()[0].0, "GET /v1/services/orders");
}

#[test]
fn explain_shows_the_breaker_of_one_service() {
    let fake = Fake::ok(&service("orders").to_string());
    let ran = fake.run(&["-o", "json", "explain", "orders"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.done().out).unwrap(),
        service("orders")["breaker"]
    );
    assert_eq!(fake.asked()[0].0, "GET /v1/services/orders");
    let ran = fake.run(&["explain", "orders"]);
    let out = &ran.done().out;
    assert!(
        out.starts_with("orders  breaker armed, canary slot b"),
        "{out}"
    );
    assert!(out.contains("\n  TRIPPED: "), "{out}");
}

#[test]
fn status_of_an_unknown_service_is_refused_by_the_daemon() {
    let refusal = json!({
        "code": "unknown_service", "message": "there is no service x", "help": "services are: orders"
    });
    let fake = Fake::start_with(move |path| match path {
        "/v1/status" => Answer::Json(200, STATUS.into()),
        _ => Answer::Json(404, refusal.to_string()),
    });
    for args in [&["status", "x"][..], &["status", "x", "--watch"]] {
        let ran = fake.run(args);
        ran.failed(
            1,
            "error: there is no service x\nhelp: services are: orders\n",
        );
        assert_eq!(ran.out, "");
    }
}

#[test]
fn an_apply_that_is_refused_in_part_says_so() {
    let ran = Fake::ok(APPLY).run(&["apply"]);
    ran.failed(
        1,
        "error: node sizes.flows_count was not changed
         help: the table is made when the dataplane is built; detach, then start shifterd again
         error: /etc/shifter/services.d/stock.toml:7:12: unknown key `vips`
         help: did you mean `vip`?
         error: /etc/shifter/services.d/old.toml: cannot be read: permission denied
         error: 1 change refused, 2 problems in files
         help: mend what is named above, then: shifterctl apply",
    );
    assert_eq!(ran.out, include_str!("../golden/apply.txt"));
    let json = Fake::ok(APPLY).run(&["apply", "-o", "json"]);
    assert_eq!(json.code, Some(1));
    let (sent, printed): (Value, Value) = (
        serde_json::from_str(APPLY).unwrap(),
        serde_json::from_str(&json.out).unwrap(),
    );
    assert_eq!(printed, sent);
}

#[test]
fn every_refusal_is_an_error_and_a_help() {
    let rows = [
        (
            400,
            "bad_request",
            "field `x` is 1; right is 2",
            "a body that works: {}",
        ),
        (
            403,
            "forbidden",
            "user ada (uid 1000) may not read here",
            "usermod -aG shifter-view ada",
        ),
        (
            404,
            "unknown_service",
            "there is no service orders",
            "services are: billing",
        ),
        (
            409,
            "not_eligible",
            "slot b of orders has no backends",
            "add [slot.b] to its file",
        ),
        (
            409,
            "flows_open",
            "3 flows are open",
            "shifterctl detach --force",
        ),
        (
            500,
            "kernel",
            "the kernel refused",
            "see: shifterctl doctor",
        ),
        (
            500,
            "state",
            "no space left on /var/lib/shifter",
            "free some space",
        ),
        (
            500,
            "internal",
            "shifterd is stopping",
            "systemctl start shifterd",
        ),
    ];
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "orders"],
        &["status", "--watch"],
        &["apply"],
        &["set-weight", "orders", "5"],
        &["rollback", "orders"],
        &["drain", "orders", "b"],
        &["bypass", "orders"],
        &["flows", "orders"],
        &["detach"],
    ];
    for (status, code, message, help) in rows {
        let refusal = json!({"code": code, "message": message, "help": help});
        let fake = Fake::start(Answer::Json(status, refusal.to_string()));
        for command in commands {
            let ran = fake.run(command);
            ran.failed(1, &format!("error: {message}\nhelp: {help}\n"));
            assert_eq!(ran.out, "");
            let json = fake.run(&[*command, &["-o", "json"]].concat());
            assert_eq!((json.code, &json.err), (Some(1), &ran.err));
            assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), refusal);
        }
    }
}

#[test]
fn a_refusal_without_help_has_no_empty_line() {
    let fake = Fake::start(Answer::Json(
        500,
        r#"{"code": "kernel", "message": "no"}"#.into(),
    ));
    assert_eq!(fake.run(&["apply"]).err, "error: no\n");
}

#[test]
fn what_a_backend_sent_cannot_move_the_cursor() {
    let mut status: Value = serde_json::from_str(STATUS).unwrap();
    let backend = &mut status["services"][2]["slots"][1]["backends"][0];
    backend["reason"] = "bad \u{1b}[2J\u{1b}[31mnews\u{7}".into();
    let fake = Fake::ok(&status.to_string());
    let table = fake.run(&["status"]);
    assert!(
        table.done().out.contains("        why: bad [2J [31mnews\n"),
        "{}",
        table.out
    );
    assert!(!table.out.contains(|c: char| c.is_control() && c != '\n'));
    let json: Value = serde_json::from_str(&fake.run(&["status", "-o", "json"]).out).unwrap();
    assert_eq!(json, status);
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Ran::of(shifterctl().args(["completion", shell]));
        for word in ["set-weight", "rollback", "socket"] {
            assert!(ran.done().out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn the_socket_comes_from_the_option_then_the_environment() {
    let (first, second) = (Fake::ok(FLOWS), Fake::ok(FLOWS));
    let mut command = shifterctl();
    command
        .env("SHIFTER_SOCKET", &first.socket)
        .args(["flows", "orders"]);
    Ran::of(&mut command).done();
    assert_eq!((first.asked().len(), second.asked().len()), (1, 0));
    Ran::of(command.arg("--socket").arg(&second.socket)).done();
    assert_eq!((first.asked().len(), second.asked().len()), (0, 1));
}
