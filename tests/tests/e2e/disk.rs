//! Disks that are full, read-only or broken: nobody's traffic notices, and nothing is told that is not so.

use std::{fs, path::PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shifter_daemon::model::HookSpec;
use shifter_tests::{load::Plan, world::Family};

use crate::stage::{ORDERS, Stage, vip};

/// A disk of its own for the state, as small as can be.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Puts it under a daemon that is stopped, with what its directory held.
    fn under(stage: &mut Stage) -> Self {
        assert_eq!(stage.daemon.stop(), Some(0));
        let at = stage.daemon.state_dir();
        let kept: Vec<_> = fs::read_dir(&at)
            .expect("the state directory")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file")))
            .collect();
        mount(
            Some("tmpfs"),
            &at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m"),
        )
        .expect("a disk");
        let disk = Self { at };
        for (name, bytes) in kept {
            fs::write(disk.at.join(name), bytes).expect("room");
        }
        stage.daemon.start_again();
        disk
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut bytes = vec![0; 1 << 20];
        while !bytes.is_empty() {
            let name = format!("filling-{}", bytes.len());
            if fs::write(self.at.join(&name), &bytes).is_err() {
                let half = bytes.len() / 2;
                bytes.truncate(half);
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.at).expect("the state directory") {
            let entry = entry.expect("an entry");
            if entry.file_name().to_string_lossy().starts_with("filling-") {
                fs::remove_file(entry.path()).expect("a file");
            }
        }
    }

    fn remount(&self, flags: MsFlags) {
        let none = None::<&str>;
        mount(none, &self.at, none, MsFlags::MS_REMOUNT | flags, none).expect("remounts");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed has said so; the daemon may still hold files.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// Which part goes to b, of connections that are all answered.
fn share_of_b(stage: &Stage) -> f64 {
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    report.share("b")
}

#[test]
fn a_full_disk_refuses_decisions_and_no_rollback() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(2_500);
    let disk = Disk::under(&mut stage);
    assert_eq!(stage.service().weight_bp, 2_500, "taken over");
    disk.fill();
    let before = stage.service();
    let refusal = stage
        .daemon
        .set_weight(ORDERS, 10_000)
        .expect_err("cannot be written");
    assert_eq!(refusal.code, "state");
    assert!(
        refusal.message.ends_with("nothing was changed"),
        "{refusal:?}"
    );
    let after = stage.service();
    assert_eq!(
        (after.generation, after.weight_bp),
        (before.generation, 2_500)
    );

    // It ends there and then, and begins again without room for anything.
    stage.daemon.kill9();
    stage.daemon.start_again();
    assert_eq!(stage.service().weight_bp, 2_500);
    assert!(share_of_b(&stage) > 0.0);
    let changed = stage.daemon.rollback(ORDERS, None).expect("in force");
    assert!(
        changed
            .notes
            .iter()
            .any(|note| note.starts_with("it is in force, but not on disk (")),
        "{changed:?}"
    );
    assert_eq!(share_of_b(&stage), 0.0);

    disk.free();
    stage.set_weight(10_000);
    stage.daemon.kill9();
    stage.daemon.start_again();
    assert_eq!(stage.service().weight_bp, 10_000);
    drop(stage);
}

#[test]
fn on_a_disk_that_is_read_only_the_daemon_starts_and_knows_what_was_decided() {
    let mut stage = Stage::new(HookSpec::Tc);
    let disk = Disk::under(&mut stage);
    stage.set_weight(10_000);
    stage.daemon.kill9();
    disk.remount(MsFlags::MS_RDONLY);
    stage.daemon.start_again();
    let logs = stage.daemon.logs();
    assert!(
        logs.contains("what it says of 1 service is known, nothing new can be kept"),
        "{logs}"
    );
    let service = stage.service();
    assert_eq!(service.weight_bp, 10_000);
    assert!(service.weight_by.starts_with("root"), "{service:?}");
    let refusal = stage
        .daemon
        .set_weight(ORDERS, 2_500)
        .expect_err("cannot be written");
    assert_eq!(refusal.code, "state");
    assert!(
        refusal.message.contains("Read-only file system"),
        "{refusal:?}"
    );
    assert_eq!(share_of_b(&stage), 1.0);
    disk.remount(MsFlags::empty());
    stage.set_weight(0);
    assert_eq!(share_of_b(&stage), 0.0);
    drop(stage);
}

#[test]
fn a_broken_file_is_put_aside_and_the_kernel_counts() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(10_000);
    stage.daemon.kill9();
    let file = stage.daemon.state_dir().join("shifter.db");
    fs::write(&file, "this is no database, and too short for one").expect("a disk");
    for companion in ["shifter.db-wal", "shifter.db-shm"] {
        fs::remove_file(stage.daemon.state_dir().join(companion)).expect("a file");
    }
    stage.daemon.start_again();
    let logs = stage.daemon.logs();
    assert!(
        logs.contains("kept as") && logs.contains("shifter.db.unreadable"),
        "{logs}"
    );
    assert_eq!(stage.service().weight_bp, 10_000);
    assert_eq!(share_of_b(&stage), 1.0);
    stage.set_weight(0);
    stage.daemon.kill9();
    stage.daemon.start_again();
    assert_eq!(stage.service().weight_bp, 0);
}
