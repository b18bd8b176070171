//! `status --wait`: how a rollout ends is the exit code.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Answer, Fake};

const STATUS: &str = include_str!("../data/status.json");

/// The service with its rollout in these states, one at each look; the last one stays.
fn looks(rollouts: Vec<Value>) -> Fake {
    let status: Value = serde_json::from_str(STATUS).unwrap();
    let service = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .find(|service| service["name"] == "orders")
        .unwrap()
        .clone();
    let at = AtomicUsize::new(0);
    Fake::start_with(move |path| {
        assert_eq!(path, "/v1/services/orders");
        let look = at.fetch_add(1, Ordering::Relaxed).min(rollouts.len() - 1);
        let mut service = service.clone();
        service["rollout"] = match &rollouts[look] {
            Value::Null => Value::Null,
            changes => {
                let mut rollout = service["rollout"].clone();
                for (key, value) in changes.as_object().unwrap() {
                    rollout[key] = value.clone();
                }
                rollout
            }
        };
        Answer::Json(200, service.to_string())
    })
}

#[test]
fn the_end_of_a_rollout_is_the_exit_code() {
    let baking = || json!({});
    let succeeded = json!({"outcome": "succeeded", "detail": "Succeeded", "waiting_on": null});
    looks(vec![baking(), baking(), succeeded])
        .run(&["status", "--wait", "orders"])
        .done();
    let back = json!({"outcome": "back", "detail": "RolledBack(the kernel tripped)"});
    looks(vec![baking(), back])
        .run(&["status", "orders", "--wait"])
        .failed(
            1,
            "error: the rollout of 3.2.0 of orders ended as RolledBack(the kernel tripped)
             help: why, step by step: shifterctl status orders
             to try the same again: shifterctl retry orders",
        );
    let paused = json!({
        "outcome": "waits-for-person",
        "detail": "Paused(root asked; then Baking(1))",
        "waiting_on": "a person: root asked (then Baking(1))",
        "next_command": "shifterctl resume orders"
    });
    looks(vec![baking(), paused])
        .run(&["status", "orders", "--wait"])
        .failed(
            4,
            "error: the rollout of orders waits for a person: root asked (then Baking(1))
             help: shifterctl resume orders
             to take the traffic back: shifterctl abort orders",
        );
    looks(vec![baking()])
        .run(&["status", "orders", "--wait", "--timeout", "10ms"])
        .failed(
            3,
            "error: the rollout of orders is not over within 10ms: it is in Baking(2, observing)
             help: it goes on; wait on: shifterctl status --wait orders",
        );
    looks(vec![Value::Null])
        .run(&["status", "orders", "--wait"])
        .failed(
            1,
            "error: orders has had no rollout to wait for
             help: begin one: shifterctl start orders VERSION",
        );
    // One that another version follows is not the end.
    let superseded = json!({"outcome": "back", "detail": "Superseded", "next_version": "3.3.0"});
    let next = json!({"outcome": "succeeded", "detail": "Succeeded", "version": "3.3.0"});
    looks(vec![superseded, next])
        .run(&["status", "orders", "--wait"])
        .done();
}

#[test]
fn each_change_is_one_block_and_json_is_json() {
    let next = json!({"outcome": "succeeded", "detail": "Succeeded"});
    let ran =
        looks(vec![json!({}), json!({}), next]).run(&["-o", "json", "status", "--wait", "orders"]);
    ran.done();
    let values: Vec<Value> = serde_json::Deserializer::from_str(&ran.out)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let details: Vec<&str> = values.iter().filter_map(|v| v["detail"].as_str()).collect();
    assert_eq!(details, ["Baking(2, observing)", "Succeeded"]);
}
