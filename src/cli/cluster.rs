//! What `cluster status` and `cluster rebalance` answer, asked of a running node.
//!
//! Owns: finding the node's socket, asking over it, the table.
//! May depend on: `bridge::admin`, `config`, reqwest, tokio; the arguments in `cli`.
//! Invariants: what is printed comes from the node; without an answer the exit status is 1.

use std::{collections::BTreeMap, fmt::Write as _, io, path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;

use super::{ClusterCommand, OfNode, config::Answer};
use crate::{
    bridge::admin::{
        report::{AppsReport, ClusterReport, NodeReport, RebalanceReport, Refusal},
        socket::DEFAULT_PATH,
    },
    config::{self, ConfigErrors},
};

/// Why a running node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{0}\n--socket PATH names the node's socket without a configuration")]
    Config(ConfigErrors),
    #[error("admin.socket is none: a node with this configuration cannot be asked")]
    None,
    #[error("the node cannot be asked at {path}: {reason}", path = path.display())]
    Silent { path: PathBuf, reason: String },
    #[error(
        "no configuration was found, and nobody answers at {path}: {reason}\n\
         a node without a configuration (demo mode) has an admin socket only where SOCKUDO_ADMIN_SOCKET names it, or a \
         configuration file with the key admin.socket; for a node that has one, --config FILE names the file, or \
         --socket PATH the socket",
        path = path.display()
    )]
    Demo { path: PathBuf, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Runtime(#[from] io::Error),
}

pub fn run(command: &ClusterCommand, environment: BTreeMap<String, String>) -> Answer {
    let answer = match command {
        ClusterCommand::Status { of, json } => {
            ask::<ClusterReport>(of, environment, Method::Get, "/cluster").map(
                |report| match json {
                    true => to_json(&report),
                    false => table(&report),
                },
            )
        }
        ClusterCommand::Rebalance { of, json } => {
            let path = "/cluster/rebalance";
            ask::<RebalanceReport>(of, environment, Method::Post, path).map(|report| match json {
                true => to_json(&report),
                false => in_words(&report),
            })
        }
    };
    told(answer)
}

/// What `apps reload` answers.
pub fn reload_apps(of: &OfNode, json: bool, environment: BTreeMap<String, String>) -> Answer {
    let answer = ask::<AppsReport>(of, environment, Method::Post, "/apps/reload");
    told(answer.map(|report| match (json, report.driver.as_str()) {
        (true, _) => to_json(&report),
        (false, "memory") => format!("{} apps from the configuration\n", report.apps),
        (false, _) => format!("looking again at the {} apps that are known\n", report.apps),
    }))
}

pub(super) fn told(answer: Result<String, AskError>) -> Answer {
    let (out, diagnostics, exit) = match answer {
        Ok(out) => (out, String::new(), 0),
        Err(error) => (String::new(), format!("{error}\n"), 1),
    };
    Answer {
        out,
        diagnostics,
        exit,
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Get,
    Post,
}

/// An answer takes a moment; one that does not come is a node that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn ask<T: DeserializeOwned>(
    of: &OfNode,
    environment: BTreeMap<String, String>,
    method: Method,
    route: &str,
) -> Result<T, AskError> {
    let (path, is_demo) = socket_path(of, environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, body) = runtime
        .block_on(request(path.clone(), method, route))
        .map_err(|error| {
            let (path, reason) = (path.clone(), in_full(&error));
            match is_demo {
                true => AskError::Demo { path, reason },
                false => AskError::Silent { path, reason },
            }
        })?;
    let silent = |error: serde_json::Error| AskError::Silent {
        path,
        reason: format!("its answer is not understood: {error}"),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(silent);
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(silent)?;
    Err(AskError::Refused(refusal.error))
}

async fn request(
    path: PathBuf,
    method: Method,
    route: &str,
) -> Result<(reqwest::StatusCode, Vec<u8>), reqwest::Error> {
    let client = reqwest::Client::builder()
        .unix_socket(path)
        .timeout(ANSWER_WITHIN)
        .build()?;
    let url = format!("http://sockudo{route}");
    let request = match method {
        Method::Get => client.get(url),
        Method::Post => client.post(url),
    };
    let answer = request.send().await?;
    let status = answer.status();
    Ok((status, answer.bytes().await?.to_vec()))
}

/// And whether nothing was configured: a node that is may be there all the same.
fn socket_path(
    of: &OfNode,
    environment: BTreeMap<String, String>,
) -> Result<(PathBuf, bool), AskError> {
    if let Some(path) = &of.socket {
        return Ok((path.clone(), false));
    }
    let loaded = config::load(&of.from.sources(environment)).map_err(AskError::Config)?;
    match loaded.config.admin.socket.as_deref() {
        Some("") => Err(AskError::None),
        Some(path) => Ok((path.into(), false)),
        None => Ok((DEFAULT_PATH.into(), loaded.config.demo)),
    }
}

/// With its causes, of which the last one says what happened.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

pub(super) fn to_json(report: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(report).expect("plain fields");
    json + "\n"
}

fn in_words(report: &RebalanceReport) -> String {
    let RebalanceReport {
        connections,
        mean,
        closing,
        within_s,
        ..
    } = report;
    match closing {
        0 => format!("nothing to do: {connections} connections here, {mean} is the mean\n"),
        _ => format!(
            "closing {closing} of {connections} connections within {within_s} s: {mean} is the mean\n"
        ),
    }
}

fn table(report: &ClusterReport) -> String {
    let mut out = String::new();
    let ready = match report.is_ready {
        true => "ready".to_owned(),
        false => format!("not ready ({})", report.reasons.join(", ")),
    };
    let name = match report.cluster.as_str() {
        "" => String::new(),
        name => format!(", cluster {name}"),
    };
    _ = writeln!(
        out,
        "{}: {ready}, adapter {}{name}",
        report.node_id, report.adapter
    );
    if !report.roads.is_empty() {
        out.push('\n');
        let mut rows = vec![columns([
            "road",
            "bus",
            "for",
            "round trip",
            "topics live",
            "waiting",
        ])];
        for road in &report.roads {
            let round_trip = road
                .round_trip_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
            rows.push([
                road.road.clone(),
                if road.is_up { "up" } else { "down" }.to_owned(),
                format!("{} s", road.since_s),
                round_trip,
                format!("{} of {}", road.topics_live, road.topics_wanted),
                format!(
                    "{} B out, {} B in",
                    road.outgoing_bytes, road.incoming_bytes
                ),
            ]);
        }
        align(&mut out, &rows);
        for road in &report.roads {
            if let Some(trouble) = &road.trouble {
                _ = writeln!(out, "{}: {trouble}", road.road);
            }
        }
    }
    out.push('\n');
    let head = [
        "node",
        "state",
        "last heard",
        "connections",
        "behind",
        "lost",
        "version",
        "incarnation",
    ];
    let mut rows = vec![columns(head)];
    rows.extend(report.nodes.iter().map(node_row));
    align(&mut out, &rows);
    out
}

fn node_row(node: &NodeReport) -> [String; 8] {
    let connections = node
        .connections
        .map_or_else(|| "-".to_owned(), |it| it.to_string());
    [
        node.node_id.clone(),
        node.state.clone(),
        match node.is_this {
            true => "this one".to_owned(),
            false => format!("{} ms ago", node.heard_ms_ago),
        },
        connections,
        format!("{} partitions", node.partitions_behind),
        format!("{} batches", node.batches_lost),
        node.program.clone(),
        node.incarnation.clone(),
    ]
}

fn columns<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(str::to_uppercase)
}

pub(super) fn align<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            _ = write!(line, "{cell:width$}  ");
        }
        _ = writeln!(out, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::admin::report::RoadReport;

    fn report() -> ClusterReport {
        let node = |node_id: &str, is_this, connections| NodeReport {
            node_id: node_id.to_owned(),
            incarnation: "00000000000000ff".to_owned(),
            program: "0.1.0".to_owned(),
            is_this,
            state: "live".to_owned(),
            heard_ms_ago: 350,
            connections,
            partitions_behind: 0,
            batches_lost: 3,
        };
        ClusterReport {
            node_id: "shop-1".to_owned(),
            adapter: "redis".to_owned(),
            cluster: "shop".to_owned(),
            is_ready: false,
            reasons: vec!["bus".to_owned()],
            roads: vec![RoadReport {
                road: "events".to_owned(),
                is_up: false,
                since_s: 12,
                trouble: Some("Redis is not there".to_owned()),
                round_trip_ms: None,
                topics_wanted: 5,
                topics_live: 0,
                outgoing_bytes: 0,
                incoming_bytes: 7,
            }],
            nodes: vec![node("shop-1", true, Some(40)), node("shop-22", false, None)],
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_road_and_node() {
        let expected = "\
shop-1: not ready (bus), adapter redis, cluster shop

ROAD    BUS   FOR   ROUND TRIP  TOPICS LIVE  WAITING
events  down  12 s  -           0 of 5       0 B out, 7 B in
events: Redis is not there

NODE     STATE  LAST HEARD  CONNECTIONS  BEHIND        LOST       VERSION  INCARNATION
shop-1   live   this one    40           0 partitions  3 batches  0.1.0    00000000000000ff
shop-22  live   350 ms ago  -            0 partitions  3 batches  0.1.0    00000000000000ff
";
        assert_eq!(table(&report()), expected);
    }

    #[test]
    fn what_is_printed_as_json_can_be_read_again() {
        let json = to_json(&report());
        let read: ClusterReport = serde_json::from_str(&json).expect("our own");
        assert_eq!(read, report());
    }

    #[test]
    fn a_node_that_is_not_there_is_said_with_its_socket() {
        let of = OfNode {
            socket: Some("/nowhere/admin.sock".into()),
            ..OfNode::default()
        };
        let command = ClusterCommand::Status { of, json: false };
        let answer = run(&command, BTreeMap::new());
        assert_eq!((answer.exit, answer.out.as_str()), (1, ""));
        let start = "the node cannot be asked at /nowhere/admin.sock: ";
        assert!(
            answer.diagnostics.starts_with(start),
            "{}",
            answer.diagnostics
        );
    }
}
