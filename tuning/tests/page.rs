//! `docs/host.md` says what the program computes.

use std::{collections::BTreeSet, path::Path};

use tuning::{Host, Needs, Target, check};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/host.md");
    std::fs::read_to_string(path).expect("the page is there")
}

fn needs(connections: u64, shards: u64) -> Needs {
    let target = Target {
        connections,
        ..Target::default()
    };
    target.needs_of_shards(shards)
}

fn grouped(value: u64) -> String {
    let digits = value.to_string().into_bytes();
    let groups = digits
        .rchunks(3)
        .rev()
        .map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(" ")
}

fn megabytes(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    let text = match mib >= 1_024.0 {
        true => format!("{:.1} GiB", mib / 1_024.0),
        false => format!("{mib:.1} MiB"),
    };
    text.replace(".0 ", " ")
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_program() {
    let value = |row: &str, needs: &Needs| match row {
        "`limits.nofile`" => Some(grouped(needs.files)),
        "`fs.file-max`" => Some(grouped(needs.files_of_host)),
        "`limits.memlock`" => Some(megabytes(needs.locked_bytes)),
        "`net.core.somaxconn`" => Some(grouped(needs.backlog)),
        "`net.core.netdev_max_backlog`" => Some(grouped(needs.device_backlog)),
        "`net.ipv4.tcp_mem` †, second" => Some(grouped(needs.tcp_pages_pressure)),
        "`net.ipv4.tcp_mem` †, third" => Some(grouped(needs.tcp_pages)),
        "`net.netfilter.nf_conntrack_max`" => Some(grouped(needs.tracked)),
        "`memory.total`" => Some(megabytes(needs.memory_bytes + needs.memory_bytes / 9)),
        "`cgroup.threads`" => Some(grouped(needs.threads)),
        _ => None,
    };
    let mut rows = 0;
    for line in page().lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [checks, _, small, large, _] = cells[..] else {
            continue;
        };
        let first = checks
            .trim_start_matches("| ")
            .split("`, `")
            .next()
            .unwrap_or_default();
        let first = first
            .trim_end_matches(" †")
            .trim_end_matches('`')
            .to_owned()
            + "`";
        let first = if checks.contains("tcp_mem") {
            checks.trim_start_matches("| ")
        } else {
            &first
        };
        rows += 1;
        assert_eq!(
            value(first, &needs(10_000, 1)).as_deref(),
            Some(small),
            "{checks}"
        );
        assert_eq!(
            value(first, &needs(1_000_000, 12)).as_deref(),
            Some(large),
            "{checks}"
        );
    }
    assert_eq!(rows, 10);
}

#[test]
fn every_check_stands_on_the_page() {
    let page = page();
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("trees");
    let mut names = BTreeSet::new();
    for tree in ["root", "container"] {
        let host = Host::read(&trees.join(tree));
        names.extend(
            check(&host, &Target::default())
                .into_iter()
                .map(|finding| finding.check),
        );
    }
    // Says only that there is nothing to look at.
    names.remove("cards.found");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
