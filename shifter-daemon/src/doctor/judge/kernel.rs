//! The kernel: features, rights, file systems.

use nix::errno::Errno;

use super::AS_ROOT;
use crate::doctor::{BpffsState, Check, Facts, Feature, Lack};
use crate::model::LocalClientsSpec;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// Those that are named where they lack.
const CAPABILITIES: [(u32, &str); 4] = [
    (CAP_BPF, "CAP_BPF"),
    (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
];

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let release = Check::ok(
        "kernel",
        &facts.kernel_release,
        "shown only: what the kernel can do is found out by using it",
    );
    let mut checks = vec![release, capabilities(facts), security(facts)];
    for (feature, outcome) in &facts.features {
        checks.push(check_feature(facts, *feature, outcome));
    }
    checks.extend([btf(facts), jit(facts), bpffs(facts), cgroup2(facts)]);
    checks
}

/// Name, what it found if all is well, what it is for, and the first version of Linux without
/// patches that has it.
fn describe(feature: Feature) -> (&'static str, &'static str, &'static str, &'static str) {
    match feature {
        Feature::Xdp => (
            "XDP programs",
            "load",
            "real NICs are hooked where the driver runs XDP",
            "4.8",
        ),
        Feature::Classifier => (
            "TC programs",
            "load",
            "replies, and everything on virtual NICs, pass through TC",
            "4.8",
        ),
        Feature::LruHash => (
            "LRU hash maps",
            "created",
            "the flow table lets go of its oldest flows when full",
            "4.10",
        ),
        Feature::MappedArray => (
            "mapped arrays",
            "mapped, stored, read back",
            "a weight change is one store into memory shared with the kernel programs",
            "5.5",
        ),
        Feature::CoarseClock => (
            "coarse clock",
            "callable",
            "every packet notes when its flow was last seen, and the exact clock is slow",
            "5.11",
        ),
        Feature::AtomicExchange => (
            "atomic exchange",
            "loads",
            "kernel programs and the daemon change the same words without locks",
            "5.12",
        ),
        Feature::Tcx => (
            "TCX links",
            "attached to lo of a new namespace",
            "programs stay attached by their links while the daemon is away",
            "6.6",
        ),
    }
}

fn check_feature(facts: &Facts, feature: Feature, outcome: &Result<(), Lack>) -> Check {
    let (name, found, why, since) = describe(feature);
    match outcome {
        Ok(()) => Check::ok(name, found, why),
        Err(lack) => {
            let check = Check::ok(name, lack.to_string(), why);
            if lack.errno != Errno::EPERM && lack.errno != Errno::EACCES {
                check.fail(format!(
                    "boot Linux {since} or newer; on Debian 12: \
                     apt install -t bookworm-backports linux-image-amd64"
                ))
            } else if lacking(facts).is_empty() {
                check.fail("journalctl -k --grep 'lockdown|bpf|denied'")
            } else {
                check.fail(AS_ROOT)
            }
        }
    }
}

fn has(facts: &Facts, capability: u32) -> bool {
    facts.capabilities & (1 << capability) != 0
}

/// Names of the capabilities that are not effective. CAP_SYS_ADMIN stands for the narrower two.
fn lacking(facts: &Facts) -> Vec<&'static str> {
    let all = has(facts, CAP_SYS_ADMIN);
    CAPABILITIES
        .into_iter()
        .filter(|(capability, _)| {
            let covered = all && (*capability == CAP_BPF || *capability == CAP_PERFMON);
            !covered && !has(facts, *capability)
        })
        .map(|(_, name)| name)
        .collect()
}

fn capabilities(facts: &Facts) -> Check {
    let lacking = lacking(facts);
    let check = |found| {
        Check::ok(
            "capabilities",
            found,
            "loading and attaching programs takes them; CAP_SYS_ADMIN names foreign programs",
        )
    };
    match lacking[..] {
        [] => check("all effective".to_owned()),
        ["CAP_SYS_ADMIN"] => check("lacking CAP_SYS_ADMIN".into()).warn(AS_ROOT),
        _ => check(format!("lacking {}", lacking.join(", "))).fail(AS_ROOT),
    }
}

/// Lockdown and the security modules are shown; whether they are in the way is decided by the
/// program that was loaded.
fn security(facts: &Facts) -> Check {
    let lockdown = facts
        .lockdown
        .as_deref()
        .map_or("not readable", active_lockdown);
    let lsm = facts.lsm.as_deref().unwrap_or("not readable");
    let check = Check::ok(
        "lockdown, LSM",
        format!("lockdown {lockdown}; modules {}", lsm.replace(',', ", ")),
        "either can forbid programs; decided by loading one",
    );
    let refused = [Feature::Xdp, Feature::Classifier].iter().any(|feature| {
        let outcome = facts.features.get(feature);
        matches!(outcome, Some(Err(lack)) if matches!(lack.errno, Errno::EPERM | Errno::EACCES))
    });
    if refused && lacking(facts).is_empty() {
        return check.fail("journalctl -k --grep 'lockdown|bpf|denied'");
    }
    check
}

/// The word in brackets: `none [integrity] confidentiality`.
fn active_lockdown(line: &str) -> &str {
    let word = line
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    word.map_or(line, |(word, _)| word)
}

fn btf(facts: &Facts) -> Check {
    let why = "the kernel checks the types of programs and maps against its own description";
    if facts.btf {
        return Check::ok("BTF", "/sys/kernel/btf/vmlinux", why);
    }
    Check::ok("BTF", "no /sys/kernel/btf/vmlinux", why)
        .warn("boot a kernel with it: grep CONFIG_DEBUG_INFO_BTF /boot/config-*")
}

fn jit(facts: &Facts) -> Check {
    let check = |found| {
        Check::ok(
            "JIT",
            found,
            "without it programs are interpreted, 3 to 10 times slower",
        )
    };
    let remedy = "sysctl -w net.core.bpf_jit_enable=1";
    match facts.jit {
        Some(0) => check("off").warn(remedy),
        Some(1) => check("on"),
        Some(_) => check("on, writing its output to the log, for debugging").warn(remedy),
        None => check("net.core.bpf_jit_enable is not readable").warn(remedy),
    }
}

fn bpffs(facts: &Facts) -> Check {
    let path = facts.bpffs.display();
    let check = |found| {
        Check::ok(
            "bpffs",
            found,
            "maps and programs are pinned there: the kernel steers on while no daemon runs",
        )
    };
    let mount = format!("mount -t bpf bpf {path}");
    match facts.bpffs_state {
        BpffsState::Mounted => check(format!("mounted at {path}")),
        BpffsState::Other => check(format!("{path} is not a BPF file system")).fail(mount),
        BpffsState::Unreadable(Errno::ENOENT) => {
            check(format!("{path} does not exist")).fail(format!("mkdir -p {path} && {mount}"))
        }
        BpffsState::Unreadable(Errno::EACCES | Errno::EPERM) => {
            check(format!("{path} may not be looked at")).fail(AS_ROOT)
        }
        BpffsState::Unreadable(errno) => check(format!("{path}: {errno}")).fail(mount),
    }
}

fn cgroup2(facts: &Facts) -> Check {
    let why = "connections of the host itself to a VIP are steered from there";
    let mount = "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified";
    if let (None, Some(service)) = (&facts.cgroup2, facts.socket_services.first()) {
        let found = format!("not mounted, and {} is on the socket plane", service.name);
        let why = "the kernel tells from there who listens";
        return Check::ok("cgroup v2", found, why).fail(mount);
    }
    match (&facts.cgroup2, facts.local_clients) {
        (_, LocalClientsSpec::Off) => Check::ok(
            "cgroup v2",
            "not needed: the node file says [local] clients = \"off\"",
            why,
        ),
        (Some(place), _) => Check::ok("cgroup v2", format!("mounted at {place}"), why),
        (None, LocalClientsSpec::Auto) => Check::ok("cgroup v2", "not mounted", why).warn(mount),
        (None, LocalClientsSpec::On) => Check::ok(
            "cgroup v2",
            "not mounted, and the node file says [local] clients = \"on\"",
            why,
        )
        .fail(mount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::judge::complaints;

    type Change = Box<dyn FnOnce(&mut Facts)>;

    fn lack(feature: Feature, errno: Errno, detail: &'static str) -> Change {
        Box::new(move |facts| {
            let lack = Lack {
                step: "loading a program",
                errno,
                detail: detail.into(),
            };
            facts.features.insert(feature, Err(lack));
        })
    }

    #[test]
    fn each_failing_check_says_what_why_and_what_to_do() {
        let caps = |bits: u64| -> Change { Box::new(move |facts| facts.capabilities = bits) };
        let bpffs = |state| -> Change { Box::new(move |facts| facts.bpffs_state = state) };
        let no = |bit: u32| !(1_u64 << bit);
        let newer = |since: &str| {
            format!(
                "boot Linux {since} or newer; on Debian 12: \
                 apt install -t bookworm-backports linux-image-amd64"
            )
        };
        let pinned =
            "maps and programs are pinned there: the kernel steers on while no daemon runs";
        let rights =
            "loading and attaching programs takes them; CAP_SYS_ADMIN names foreign programs";
        #[rustfmt::skip]
        let rows: Vec<(Change, String)> = vec![
            (lack(Feature::Xdp, Errno::EINVAL, ""), format!(
                "fail XDP programs: loading a program: EINVAL: Invalid argument | \
                 real NICs are hooked where the driver runs XDP | {}", newer("4.8"))),
            (lack(Feature::Classifier, Errno::EINVAL, ""), format!(
                "fail TC programs: loading a program: EINVAL: Invalid argument | \
                 replies, and everything on virtual NICs, pass through TC | {}", newer("4.8"))),
            (lack(Feature::LruHash, Errno::EINVAL, ""), format!(
                "fail LRU hash maps: loading a program: EINVAL: Invalid argument | \
                 the flow table lets go of its oldest flows when full | {}", newer("4.10"))),
            (lack(Feature::MappedArray, Errno::EINVAL, ""), format!(
                "fail mapped arrays: loading a program: EINVAL: Invalid argument | a weight \
                 change is one store into memory shared with the kernel programs | {}",
                newer("5.5"))),
            (lack(Feature::CoarseClock, Errno::EINVAL, "invalid func unknown#160"), format!(
                "fail coarse clock: loading a program: EINVAL: Invalid argument: \
                 invalid func unknown#160 | every packet notes when its flow was last seen, \
                 and the exact clock is slow | {}", newer("5.11"))),
            (lack(Feature::AtomicExchange, Errno::EINVAL, "BPF_ATOMIC uses invalid op f1"), format!(
                "fail atomic exchange: loading a program: EINVAL: Invalid argument: \
                 BPF_ATOMIC uses invalid op f1 | kernel programs and the daemon change the same \
                 words without locks | {}", newer("5.12"))),
            (lack(Feature::Tcx, Errno::EINVAL, ""), format!(
                "fail TCX links: loading a program: EINVAL: Invalid argument | \
                 programs stay attached by their links while the daemon is away | {}",
                newer("6.6"))),
            (Box::new(|facts| facts.btf = false),
                "warn BTF: no /sys/kernel/btf/vmlinux | the kernel checks the types of programs \
                 and maps against its own description | boot a kernel with it: \
                 grep CONFIG_DEBUG_INFO_BTF /boot/config-*".into()),
            (Box::new(|facts| facts.jit = Some(0)),
                "warn JIT: off | without it programs are interpreted, 3 to 10 times slower | \
                 sysctl -w net.core.bpf_jit_enable=1".into()),
            (Box::new(|facts| facts.jit = Some(2)),
                "warn JIT: on, writing its output to the log, for debugging | without it programs \
                 are interpreted, 3 to 10 times slower | \
                 sysctl -w net.core.bpf_jit_enable=1".into()),
            (Box::new(|facts| facts.jit = None),
                "warn JIT: net.core.bpf_jit_enable is not readable | without it programs are \
                 interpreted, 3 to 10 times slower | sysctl -w net.core.bpf_jit_enable=1".into()),
            (bpffs(BpffsState::Other), format!(
                "fail bpffs: /sys/fs/bpf is not a BPF file system | {pinned} | \
                 mount -t bpf bpf /sys/fs/bpf")),
            (bpffs(BpffsState::Unreadable(Errno::ENOENT)), format!(
                "fail bpffs: /sys/fs/bpf does not exist | {pinned} | \
                 mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf")),
            (bpffs(BpffsState::Unreadable(Errno::EACCES)), format!(
                "fail bpffs: /sys/fs/bpf may not be looked at | {pinned} | \
                 sudo shifterd --doctor")),
            (bpffs(BpffsState::Unreadable(Errno::EIO)), format!(
                "fail bpffs: /sys/fs/bpf: EIO: I/O error | {pinned} | \
                 mount -t bpf bpf /sys/fs/bpf")),
            (caps(0), format!(
                "fail capabilities: lacking CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN | \
                 {rights} | sudo shifterd --doctor")),
            (caps(no(CAP_NET_ADMIN)), format!(
                "fail capabilities: lacking CAP_NET_ADMIN | {rights} | sudo shifterd --doctor")),
            (caps(no(CAP_SYS_ADMIN)), format!(
                "warn capabilities: lacking CAP_SYS_ADMIN | {rights} | sudo shifterd --doctor")),
            (caps(no(CAP_SYS_ADMIN) & no(CAP_BPF)), format!(
                "fail capabilities: lacking CAP_BPF, CAP_SYS_ADMIN | {rights} | \
                 sudo shifterd --doctor")),
            (Box::new(|facts| facts.cgroup2 = None),
                "warn cgroup v2: not mounted | connections of the host itself to a VIP are steered \
                 from there | mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified".into()),
            (Box::new(|facts| {
                facts.cgroup2 = None;
                facts.local_clients = LocalClientsSpec::On;
            }),
                "fail cgroup v2: not mounted, and the node file says [local] clients = \"on\" | \
                 connections of the host itself to a VIP are steered from there | \
                 mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified".into()),
        ];
        for (change, expected) in rows {
            assert_eq!(complaints(change), [expected]);
        }
    }

    #[test]
    fn sys_admin_stands_for_the_narrower_capabilities() {
        let bits = !(1_u64 << CAP_BPF) & !(1_u64 << CAP_PERFMON);
        assert_eq!(
            complaints(|facts| facts.capabilities = bits),
            Vec::<String>::new()
        );
    }

    /// EPERM with all capabilities is a security module's; without them it is the caller's.
    #[test]
    fn a_forbidden_program_is_blamed_on_who_forbids_it() {
        let why = "either can forbid programs; decided by loading one";
        let forbid = lack(Feature::Xdp, Errno::EPERM, "");
        let found = complaints(|facts| {
            forbid(facts);
            facts.lockdown = Some("none integrity [confidentiality]".into());
            facts.lsm = Some("lockdown,apparmor".into());
        });
        let look = "journalctl -k --grep 'lockdown|bpf|denied'";
        assert_eq!(
            found,
            [
                format!(
                    "fail lockdown, LSM: lockdown confidentiality; modules lockdown, apparmor | \
                     {why} | {look}"
                ),
                format!(
                    "fail XDP programs: loading a program: EPERM: Operation not permitted | \
                     real NICs are hooked where the driver runs XDP | {look}"
                ),
            ]
        );
        let forbid = lack(Feature::Xdp, Errno::EPERM, "");
        let found = complaints(|facts| {
            forbid(facts);
            facts.capabilities = 0;
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("fail capabilities"), "{found:?}");
        assert!(found[1].ends_with("| sudo shifterd --doctor"), "{found:?}");
    }

    #[test]
    fn lockdown_is_shown_as_it_is() {
        let rows = [
            ("[none] integrity confidentiality", "none"),
            ("none [integrity] confidentiality", "integrity"),
            ("odd", "odd"),
        ];
        for (line, expected) in rows {
            assert_eq!(active_lockdown(line), expected);
        }
        let unreadable = complaints(|facts| (facts.lockdown, facts.lsm) = (None, None));
        assert_eq!(unreadable, Vec::<String>::new(), "shown, not judged");
    }
}
