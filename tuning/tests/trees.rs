//! The findings of whole hosts, recorded and synthetic (`tuning/trees/README.md`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tuning::{Finding, Host, Ring, Severity, Target, check, report, report::Ink, verdict};

fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("trees")
}

/// A tree that is made by hand, for as long as the folder lives.
fn synthetic(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("bash")
        .arg(trees().join("synthetic"))
        .arg(name)
        .arg(folder.path())
        .output();
    let made = made.expect("bash is there");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    folder
}

fn target(connections: u64, shards: Option<u64>) -> Target {
    Target {
        connections,
        shards,
        ..Target::default()
    }
}

/// The checks that are not fine, worst group first, as `severity check`.
fn complaints(findings: &[Finding]) -> Vec<String> {
    let bad = findings
        .iter()
        .filter(|finding| finding.severity > Severity::Fine);
    bad.map(|finding| match finding.severity {
        Severity::Blocking => format!("blocking {}", finding.check),
        Severity::Fine | Severity::Warning => format!("warning {}", finding.check),
    })
    .collect()
}

#[track_caller]
fn is_of<'a>(findings: &'a [Finding], check: &str) -> &'a str {
    let finding = findings.iter().find(|finding| finding.check == check);
    &finding.unwrap_or_else(|| panic!("no finding {check}")).is
}

#[test]
fn a_small_machine_of_today_lacks_two_settings_for_ten_thousand_connections() {
    for tree in ["root", "nobody", "container"] {
        let findings = check(&Host::read(&trees().join(tree)), &target(10_000, None));
        let expected = [
            "warning net.ipv4.tcp_max_syn_backlog",
            "warning net.ipv4.tcp_migrate_req",
        ];
        assert_eq!(complaints(&findings), expected, "{tree}");
        assert_eq!(verdict(&findings), Severity::Warning);
    }
}

#[test]
fn a_namespace_of_its_own_hides_what_belongs_to_the_host() {
    let findings = check(
        &Host::read(&trees().join("container")),
        &target(10_000, None),
    );
    for key in ["net.core.netdev_max_backlog", "net.ipv4.tcp_mem"] {
        assert!(is_of(&findings, key).contains("namespace"), "{key}");
    }
    assert_eq!(is_of(&findings, "cards.found"), "no card here");
}

#[test]
fn a_small_machine_cannot_carry_a_million_connections_and_each_reason_is_named() {
    let findings = check(
        &Host::read(&trees().join("root")),
        &target(1_000_000, Some(1)),
    );
    let blocking: Vec<String> = complaints(&findings)
        .into_iter()
        .filter(|it| it.starts_with("blocking"))
        .collect();
    assert_eq!(blocking, ["blocking limits.nofile"]);
    // Nothing is tracked there yet.
    assert!(complaints(&findings).contains(&"warning net.netfilter.nf_conntrack_max".to_owned()));
    let findings = check(
        &Host::read(&trees().join("root")),
        &target(10_000_000, Some(1)),
    );
    let memory = findings
        .iter()
        .find(|finding| finding.check == "memory.total")
        .expect("checked");
    assert_eq!(memory.severity, Severity::Blocking);
    for finding in &findings {
        assert_eq!(
            finding.mend.is_some(),
            finding.severity > Severity::Fine,
            "{finding:?}"
        );
    }
}

#[test]
fn two_sockets_as_a_distribution_leaves_them() {
    let tree = synthetic("two-sockets");
    let host = Host::read(tree.path());
    let findings = check(&host, &target(1_000_000, None));
    assert_eq!(
        complaints(&findings),
        [
            "blocking limits.memlock", // 63 shards lock more than 8 MiB
            "warning net.core.netdev_max_backlog",
            "warning net.ipv4.ip_local_port_range",
            "warning net.ipv4.tcp_migrate_req",
            "warning cores.governor",
            "warning kernel.numa_balancing",
            "warning cards.interrupts",
            "warning cards.irqbalance",
            "warning cards.rps",
            "warning cards.xps",
        ]
    );
    assert_eq!(
        is_of(&findings, "cores.count"),
        "64 physical; shards on 0-62, the bridge on 63"
    );
    assert_eq!(
        is_of(&findings, "cards.interrupts"),
        "eth0: 16 interrupts of 16 queues come to cores 0"
    );

    // Twelve shards would all fit beside the card, and are on the other socket.
    let findings = check(&host, &target(1_000_000, Some(12)));
    assert!(complaints(&findings).contains(&"warning cores.nodes".to_owned()));
    assert_eq!(
        is_of(&findings, "cores.nodes"),
        "2 nodes; shards on node 0, eth0 on node 1"
    );
    assert!(!complaints(&findings).contains(&"blocking limits.memlock".to_owned()));
}

#[test]
fn a_hardened_kernel_does_not_let_the_server_start() {
    let tree = synthetic("hardened");
    let mut host = Host::read(tree.path());
    host.ring = Some(Ring::Refused(1));
    let findings = check(&host, &target(10_000, None));
    let expected = [
        "blocking kernel.io_uring_disabled",
        "blocking kernel.io_uring",
        "warning kernel.clocksource",
    ];
    assert_eq!(complaints(&findings), expected);
    assert_eq!(
        is_of(&findings, "kernel.io_uring"),
        "forbidden by a filter of system calls (EPERM)"
    );

    // Not tried, a filter alone proves nothing.
    host.ring = None;
    assert!(
        complaints(&check(&host, &target(10_000, None)))
            .contains(&"warning kernel.io_uring".to_owned())
    );
}

#[test]
fn a_container_on_a_host_whose_table_is_full() {
    let tree = synthetic("full-tracking");
    let findings = check(&Host::read(tree.path()), &target(20_000, None));
    assert_eq!(
        complaints(&findings),
        [
            "blocking limits.memlock",
            "blocking net.netfilter.nf_conntrack_max",
            "warning net.core.somaxconn",
            "warning net.ipv4.tcp_migrate_req",
            "blocking cgroup.memory",
            "blocking cgroup.threads",
            "warning cgroup.cpu",
        ]
    );
    assert_eq!(
        is_of(&findings, "net.netfilter.nf_conntrack_max"),
        "65 536, of which 65 530 are taken"
    );
    assert_eq!(
        is_of(&findings, "net.core.somaxconn"),
        "not understood: \"junk\""
    );
}

#[test]
fn a_tuned_host_is_fine() {
    let tree = synthetic("tuned");
    let findings = check(&Host::read(tree.path()), &target(1_000_000, Some(12)));
    assert_eq!(complaints(&findings), [""; 0]);
    assert_eq!(verdict(&findings), Severity::Fine);
    assert_eq!(is_of(&findings, "service.nofile"), "LimitNOFILE=1 100 000");
}

#[test]
fn an_empty_or_hostile_tree_gives_findings_and_no_panic() {
    let empty = tempfile::tempdir().expect("a folder");
    let findings = check(&Host::read(empty.path()), &target(10_000, None));
    assert_eq!(verdict(&findings), Severity::Warning);

    let tree = synthetic("tuned");
    for junk in [
        "",
        "\u{1b}[31mred",
        "-1",
        "99999999999999999999999",
        "é\u{0}0-9,,:=",
        "0-8191",
    ] {
        spoil(tree.path(), junk);
        let host = Host::read(tree.path());
        let findings = check(&host, &target(u64::MAX, None));
        let page = report::text(&host, &target(1, None), &findings, Ink::None);
        assert!(!page.contains('\u{1b}'), "{junk:?}");
    }
}

/// Writes the text into every file.
fn spoil(folder: &Path, text: &str) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        match path.is_dir() {
            true => spoil(&path, text),
            false => fs::write(&path, text).expect("written"),
        }
    }
}

#[test]
fn this_host_is_read_as_it_is() {
    let host = Host::read(Path::new("/"));
    assert!(host.kernel.version().is_some(), "{:?}", host.kernel.release);
    assert!(!host.cores.physical.is_empty());
    let findings = check(&host, &target(1, None));
    let page = report::text(&host, &target(1, None), &findings, Ink::Colours);
    assert!(page.contains("\u{1b}["), "{page}");
}
