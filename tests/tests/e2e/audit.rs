//! The audit of a real daemon, by the real command, and over ends at any instant.

use std::{
    fs,
    process::{Command, Output},
    thread::sleep,
    time::Duration,
};

use shifter_common::wire::AuditRecord;
use shifter_daemon::model::HookSpec;
use shifter_tests::daemon::shifterd;

use crate::stage::{ORDERS, Stage};

fn shifterctl(stage: &Stage, args: &[&str]) -> Output {
    Command::new(shifterd().with_file_name("shifterctl"))
        .arg("--socket")
        .arg(stage.daemon.socket())
        .args(args)
        .output()
        .expect("shifterctl runs")
}

fn ok(output: Output) -> String {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

fn records(stage: &Stage) -> Vec<AuditRecord> {
    let lines = ok(shifterctl(stage, &["audit", "export"]));
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

fn verify_with_log(stage: &Stage) -> Output {
    let log = stage.daemon.state_dir().join("log-of-the-test");
    fs::write(&log, stage.daemon.logs()).expect("a file");
    let log = log.to_str().expect("a path");
    shifterctl(stage, &["audit", "verify", "--journal-file", log])
}

/// What the API acknowledged is in the audit, whenever the daemon is killed.
#[test]
fn nothing_that_was_acknowledged_is_lost_by_kills_at_any_instant() {
    let mut stage = Stage::new(HookSpec::Tc);
    let mut acknowledged = Vec::new();
    for round in 0_u16..4 {
        // The kill comes while a weight is on its way.
        let client = stage.daemon.client().clone();
        let setter = std::thread::spawn(move || {
            let mut done = Vec::new();
            for step in 1..=200 {
                let weight_bp = 1_000 * round + step;
                let path = format!("/v1/services/{ORDERS}/weight");
                let body = format!("{{\"weight_bp\":{weight_bp}}}");
                match client.ask("POST", &path, Some(&body)) {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200);
                        done.push(weight_bp);
                    }
                    Err(_) => return (done, Some(weight_bp)),
                }
            }
            (done, None)
        });
        sleep(Duration::from_millis(40 + 47 * u64::from(round)));
        stage.daemon.kill9();
        let (done, open) = setter.join().expect("a client");
        let last = done.last().copied();
        acknowledged.extend(done);
        stage.daemon.start_again();
        let weight_bp = stage.service().weight_bp;
        let possible = [last, open];
        assert!(
            last.is_none() || possible.contains(&Some(weight_bp)),
            "{weight_bp} is none of {possible:?}"
        );
        let verdict = ok(verify_with_log(&stage));
        assert!(verdict.starts_with("ok: the chain of "), "{verdict}");
    }
    let told: Vec<u16> = records(&stage)
        .iter()
        .filter(|record| record.verb == "weight")
        .map(|record| record.weight_after_bp)
        .collect();
    assert!(acknowledged.len() > 8, "{acknowledged:?}");
    for weight_bp in &acknowledged {
        assert!(told.contains(weight_bp), "{weight_bp} is not in {told:?}");
    }
}

/// Who, what, why, and how the kernel was told; and the end that somebody cut off.
#[test]
fn the_audit_names_who_did_what_and_the_log_knows_what_was_cut_off() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(2_500);
    stage.daemon.rollback(ORDERS, None).expect("a rollback");
    let told = records(&stage);
    let rollback = told.last().expect("a record");
    assert_eq!(
        (
            rollback.verb.as_str(),
            rollback.service.as_str(),
            rollback.actor.user.as_str(),
            rollback.actor.uid,
            rollback.actor.how.as_str(),
            rollback.weight_before_bp,
            rollback.weight_after_bp,
        ),
        ("rollback", ORDERS, "root", Some(0), "api", 2_500, 0)
    );
    assert!(rollback.generation > 0 && rollback.took_ns > 0);
    let started = told
        .iter()
        .find(|record| record.verb == "started")
        .expect("a start");
    assert!(started.reason.contains("tc_ingress "), "{}", started.reason);
    assert_eq!(rollback.program_tag.len(), 16);
    assert_eq!(rollback.program_tag, started.program_tag);
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    assert_eq!(rollback.boot_id, boot_id.trim());
    let file = stage.daemon.service_file(ORDERS);
    let text = fs::read_to_string(file).expect("the service file");
    assert_eq!(rollback.config_hash, shifter_common::audit::hash(&text));
    let table = ok(shifterctl(&stage, &["audit", "show", ORDERS]));
    assert!(table.contains("rollback by root (uid 0"), "{table}");

    // A copy of a minute ago is put back.
    let dir = stage.daemon.state_dir();
    assert_eq!(stage.daemon.stop(), Some(0));
    let copy = fs::read(dir.join("shifter.db")).expect("the store");
    stage.daemon.start_again();
    stage.set_weight(5_000);
    ok(verify_with_log(&stage));
    assert_eq!(stage.daemon.stop(), Some(0));
    fs::write(dir.join("shifter.db"), copy).expect("the store");
    stage.daemon.start_again();
    ok(shifterctl(&stage, &["audit", "verify"]));
    let output = verify_with_log(&stage);
    let errors = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = errors.split_whitespace().collect();
    let errors = words.join(" ");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("has another hash in the journal")
            || errors.contains("the journal has record"),
        "{errors}"
    );
}
