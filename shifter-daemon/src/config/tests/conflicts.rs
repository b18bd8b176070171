//! What service files may not say together.

use std::collections::BTreeSet;

use super::{SERVICE, printed};
use crate::{
    config::{Diagnostic, LoadedServices, collect},
    model::Services,
};

/// A service file, with slot b.
fn text(name: &str, vip: &str, a: &str, b: &str) -> String {
    SERVICE
        .replace("orders", name)
        .replace("10.0.0.10:443", vip)
        .replace("10.0.0.11:8443", a)
        + &format!("[slot.b]\nbackends = [\"{b}\"]\n")
}

fn load(files: &[(&str, String)]) -> LoadedServices {
    collect(
        files
            .iter()
            .map(|(name, text)| (format!("services.d/{name}.toml"), Ok(text.clone())))
            .collect(),
    )
}

fn names(services: &Services) -> Vec<&str> {
    services.keys().map(String::as_str).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A row: files as (name, name inside, VIP, backend of a, backend of b); good services; refused
/// names; problems.
type Row<'r> = (
    &'r [(&'r str, &'r str, &'r str, &'r str, &'r str)],
    &'r [&'r str],
    &'r [&'r str],
    &'r str,
);

const A: (&str, &str, &str, &str, &str) =
    ("a", "a", "10.0.0.1:80", "10.0.1.1:8080", "10.0.1.1:9090");
const B: (&str, &str, &str, &str, &str) =
    ("b", "b", "10.0.0.2:80", "10.0.1.2:8080", "10.0.1.2:9090");

#[test]
fn the_file_later_in_the_order_of_names_is_refused_and_names_the_other() {
    let rows: &[Row<'_>] = &[
        (&[], &[], &[], ""),
        (&[A, B], &["a", "b"], &[], ""),
        (
            &[("b", "b", A.2, B.3, B.4), A],
            &["a"],
            &["b"],
            "services.d/b.toml:3:7: VIP \"10.0.0.1:80\" is a VIP of service \"a\" \
             (in services.d/a.toml)\n    \
             help: a VIP belongs to one service; remove it from the other\n",
        ),
        (
            &[A, ("b", "b", B.2, B.3, A.3)],
            &["a"],
            &["b"],
            "services.d/b.toml:7:13: backend \"10.0.1.1:8080\" is a backend of service \"a\" \
             (in services.d/a.toml)\n    \
             help: replies of a shared server could not be told apart; let it listen on a port \
             for each service\n",
        ),
        (
            &[A, ("b", "b", A.4, B.3, A.2)],
            &["a"],
            &["b"],
            "services.d/b.toml:3:7: VIP \"10.0.1.1:9090\" is a backend of service \"a\" \
             (in services.d/a.toml)\n    \
             help: a packet is steered once, so one service cannot lead to another; write the \
             address of a server\n\
             services.d/b.toml:7:13: backend \"10.0.0.1:80\" is a VIP of service \"a\" \
             (in services.d/a.toml)\n    \
             help: a packet is steered once, so one service cannot lead to another; write the \
             address of a server\n",
        ),
        // The refused file disturbs no later one.
        (
            &[
                A,
                ("b", "b", A.2, B.3, B.4),
                ("c", "c", "10.0.0.3:80", B.3, B.4),
            ],
            &["a", "c"],
            &["b"],
            "services.d/b.toml:3:7: VIP \"10.0.0.1:80\" is a VIP of service \"a\" \
             (in services.d/a.toml)\n    \
             help: a VIP belongs to one service; remove it from the other\n",
        ),
        (
            &[("a", "orders", A.2, A.3, A.4), B],
            &["b"],
            &["a", "orders"],
            "services.d/a.toml:2:8: service \"orders\" stands in a file of another name\n    \
             help: call the file orders.toml, or the service \"a\"\n",
        ),
        // The file that bears the name of its service is the good one.
        (
            &[("a", "b", A.2, A.3, A.4), B],
            &["b"],
            &["a"],
            "services.d/a.toml:2:8: service \"b\" stands in a file of another name\n    \
             help: call the file b.toml, or the service \"a\"\n\
             services.d/a.toml:2:8: service \"b\" is in services.d/b.toml as well\n    \
             help: a service has one file; remove one of the two\n",
        ),
    ];
    for (files, good, refused, problems) in rows {
        let files: Vec<_> = files
            .iter()
            .map(|(file, name, vip, a, b)| (*file, text(name, vip, a, b)))
            .collect();
        let loaded = load(&files);
        assert_eq!(printed(&loaded.diagnostics), *problems);
        assert_eq!(names(&loaded.services), *good, "{problems}");
        assert_eq!(loaded.refused, set(refused), "{problems}");
        assert!(loaded.files.keys().eq(loaded.services.keys()) && loaded.dir_read);
    }
}

#[test]
fn two_large_services_alike_do_not_fill_the_screen() {
    let backends: Vec<_> = (1..=150).map(|port| format!("10.0.9.9:{port}")).collect();
    let backends = backends.join("\", \"");
    let files = [
        ("a", text("a", "10.0.0.1:80", &backends, "10.0.1.1:80")),
        ("b", text("b", "10.0.0.2:80", &backends, "10.0.1.2:80")),
    ];
    let loaded = load(&files);
    assert_eq!(loaded.diagnostics.len(), 101);
    assert_eq!(
        loaded.diagnostics[100].to_string(),
        "services.d/b.toml: 50 more problems are not shown\n    help: mend those above first"
    );
    assert_eq!(names(&loaded.services), ["a"]);
}

#[test]
fn a_bad_file_affects_no_good_one() {
    let unreadable = Diagnostic {
        file: "services.d/c.toml".into(),
        line: 0,
        column: 0,
        message: "cannot be read: no".into(),
        help: String::new(),
    };
    let loaded = collect(vec![
        ("services.d/a.toml".into(), Ok("vip = ".into())),
        (
            "services.d/b.toml".into(),
            Ok(text("b", "10.0.0.2:80", "10.0.1.2:80", "10.0.1.3:80")),
        ),
        ("services.d/c.toml".into(), Err(unreadable)),
    ]);
    assert_eq!(names(&loaded.services), ["b"]);
    assert_eq!(loaded.refused, set(&["a", "c"]));
    assert_eq!(loaded.names, set(&["a", "b", "c"]));
    assert_eq!(
        printed(&loaded.diagnostics),
        "services.d/a.toml:1:7: not TOML: there is no value\n    \
         help: write one behind the =, or remove the key\n\
         services.d/c.toml: cannot be read: no\n"
    );
}

/// Services in force whose file is bad or gone keep their addresses against all others.
#[test]
fn what_stays_in_force_is_not_free_for_others() {
    let of = |(file, name, vip, a, b): (&'static str, &str, &str, &str, &str)| {
        (file, text(name, vip, a, b))
    };
    let in_force = load(&[of(A), of(B)]).services;
    let c = ("c", "c", "10.0.0.3:80", "10.0.1.3:8080", "10.0.1.3:9090");

    // The file of a is gone; c asks for its VIP, d for its backend.
    let mut loaded = load(&[
        of(B),
        of(("c", "c", A.2, c.3, c.4)),
        of(("d", "d", "10.0.0.4:80", A.3, "10.0.1.4:80")),
    ]);
    loaded.keep(&in_force);
    assert_eq!(names(&loaded.services), ["b"]);
    assert_eq!(loaded.refused, set(&["c", "d"]));
    assert_eq!(
        printed(&loaded.diagnostics),
        "services.d/c.toml:3:7: VIP \"10.0.0.1:80\" is a VIP of service \"a\" (in force, its file \
         is gone)\n    help: a VIP belongs to one service; remove it from the other\n\
         services.d/d.toml:5:13: backend \"10.0.1.1:8080\" is a backend of service \"a\" (in \
         force, its file is gone)\n    \
         help: replies of a shared server could not be told apart; let it listen on a port for \
         each service\n"
    );

    // The file of a is bad. So b, which asks for the VIP of a, keeps its own, which c cannot have.
    let mut loaded = load(&[
        ("a", "vip".into()),
        of(("b", "b", A.2, B.3, B.4)),
        of(("c", "c", B.2, c.3, c.4)),
    ]);
    assert_eq!(names(&loaded.services), ["b", "c"]);
    loaded.keep(&in_force);
    assert!(loaded.services.is_empty() && loaded.files.is_empty());
    assert_eq!(loaded.refused, set(&["a", "b", "c"]));
    let messages: Vec<_> = loaded
        .diagnostics
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "not TOML: key with no value",
            "VIP \"10.0.0.1:80\" is a VIP of service \"a\" (in force, its file is refused)",
            "VIP \"10.0.0.2:80\" is a VIP of service \"b\" (in force, its file is refused)",
        ]
    );

    // Good files may pass addresses among each other.
    let mut loaded = load(&[of(("a", "a", B.2, A.3, A.4)), of(("b", "b", A.2, B.3, B.4))]);
    loaded.keep(&in_force);
    assert_eq!(
        (names(&loaded.services), loaded.diagnostics),
        (vec!["a", "b"], vec![])
    );
}

/// DNS is served over both: the same VIP, the same backends, two services.
#[test]
fn services_of_two_protocols_share_addresses() {
    let udp = text("dns-udp", "10.0.0.1:53", "10.0.1.1:53", "10.0.1.2:53")
        .replace("[slot.a]", "protocol = \"udp\"\n[slot.a]");
    let tcp = text("dns-tcp", "10.0.0.1:53", "10.0.1.1:53", "10.0.1.2:53");
    let twin = udp.replace("dns-udp", "dns-udp2");
    let loaded = load(&[("dns-tcp", tcp), ("dns-udp", udp), ("dns-udp2", twin)]);
    assert_eq!(names(&loaded.services), ["dns-tcp", "dns-udp"]);
    assert_eq!(loaded.refused, set(&["dns-udp2"]));
}
