//! What `top` shows: one node, its shards and what they do, again and again.
//!
//! Owns: `Shown` (numbers between two reports), the plain table, the live view and its keys.
//! May depend on: `bridge::admin`, ratatui; asking over the socket in `cli::cluster`.
//! Invariants: numbers per second are differences by the shard's own clock; the terminal is given back as it was,
//! however the view ends.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::IsTerminal as _,
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    Top,
    cluster::{AskError, Method, ask, to_json, told},
    config::Answer,
};
use crate::bridge::admin::report::{ChannelTop, ShardTop, TlsTop, TopReport};

/// Runs until it is told to stop; with `--once` or `--json`, or without a terminal, prints one table.
pub fn run(top: &Top, environment: &BTreeMap<String, String>) -> Answer {
    let report = || ask::<TopReport>(&top.of, environment.clone(), Method::Get, "/top");
    if top.json {
        return told(report().map(|report| to_json(&report)));
    }
    if top.once || !std::io::stdout().is_terminal() {
        let shown = report().and_then(|before| {
            pause(SAMPLED_EVERY);
            Ok(Shown::between(&before, &report()?))
        });
        return told(shown.map(|shown| plain(&shown, Sort::Shard)));
    }
    told(live(top.interval_s, report).map(|()| String::new()))
}

/// The node samples its shards about so often.
const SAMPLED_EVERY: Duration = Duration::from_millis(2_200);

#[expect(
    clippy::disallowed_methods,
    reason = "a person waits, and nothing else"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// A node between two reports.
#[derive(Clone, Debug)]
struct Shown {
    report: TopReport,
    shards: Vec<Shard>,
}

/// A shard between them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shard {
    now: ShardTop,
    received_per_s: f64,
    sent_per_s: f64,
    requests_per_s: f64,
    turn_us: f64,
}

impl Shown {
    fn between(before: &TopReport, now: &TopReport) -> Self {
        let shard = |now: &ShardTop| {
            let before = before.shards.iter().find(|it| it.shard == now.shard);
            Shard::between(before, now)
        };
        Self {
            shards: now.shards.iter().map(shard).collect(),
            report: now.clone(),
        }
    }
}

impl Shard {
    fn between(before: Option<&ShardTop>, now: &ShardTop) -> Self {
        // A node that was started anew counts from 0.
        let before = before.filter(|it| it.at_ms < now.at_ms).copied();
        let seconds = before.map_or(0.0, |it| (now.at_ms - it.at_ms) as f64 / 1e3);
        let grown = |of: fn(&ShardTop) -> u64| {
            let before = before.as_ref().map_or(0, of);
            of(now).saturating_sub(before) as f64
        };
        let per_s = |of: fn(&ShardTop) -> u64| match seconds > 0.0 {
            true => grown(of) / seconds,
            false => 0.0,
        };
        Self {
            now: *now,
            received_per_s: per_s(|it| it.messages_received),
            sent_per_s: per_s(|it| it.messages_sent),
            requests_per_s: per_s(|it| it.api_requests),
            turn_us: grown(|it| it.turns_us) / grown(|it| it.turns).max(1.0),
        }
    }
}

/// By what shards are listed; the largest first, but for their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Shard,
    Busy,
    Connections,
    Received,
    Sent,
    Outbox,
}

impl Sort {
    const ALL: [Self; 6] = [
        Self::Shard,
        Self::Busy,
        Self::Connections,
        Self::Received,
        Self::Sent,
        Self::Outbox,
    ];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Busy => "busy",
            Self::Connections => "connections",
            Self::Received => "in/s",
            Self::Sent => "out/s",
            Self::Outbox => "outbox",
        }
    }

    fn key(self, shard: &Shard) -> f64 {
        match self {
            Self::Shard => -f64::from(shard.now.shard),
            Self::Busy => shard.now.busy_ratio,
            Self::Connections => shard.now.connections as f64,
            Self::Received => shard.received_per_s,
            Self::Sent => shard.sent_per_s,
            Self::Outbox => shard.now.outbox_bytes as f64,
        }
    }

    fn sorted(self, shards: &[Shard]) -> Vec<Shard> {
        let mut shards = shards.to_vec();
        shards.sort_by(|a, b| self.key(b).total_cmp(&self.key(a)));
        shards
    }
}

const HEAD: [&str; 12] = [
    "shard",
    "busy",
    "connections",
    "channels",
    "in/s",
    "out/s",
    "API/s",
    "turn us",
    "stalls",
    "outbox",
    "waiting",
    "slow",
];

fn cells(shard: &Shard) -> [String; 12] {
    let now = &shard.now;
    [
        now.shard.to_string(),
        format!("{:.0} %", now.busy_ratio * 100.0),
        now.connections.to_string(),
        now.channels.to_string(),
        format!("{:.0}", shard.received_per_s),
        format!("{:.0}", shard.sent_per_s),
        format!("{:.0}", shard.requests_per_s),
        format!("{:.0}", shard.turn_us),
        now.turn_stalls.to_string(),
        bytes(now.outbox_bytes),
        (now.waiting_for_shards + now.waiting_for_bridge).to_string(),
        now.slow_consumers.to_string(),
    ]
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// What stands above the shards.
fn summary(shown: &Shown) -> String {
    let report = &shown.report;
    let connections: u64 = report.shards.iter().map(|it| it.connections).sum();
    let reasons = match report.reasons.as_slice() {
        [] => String::new(),
        reasons => format!(" ({})", reasons.join(", ")),
    };
    let draining = if report.draining { ", draining" } else { "" };
    let others = match report.nodes {
        1 => String::new(),
        nodes => format!(", {nodes} nodes"),
    };
    format!(
        "{}: {}{reasons}{draining}, {connections} connections{others}, up {}, {}",
        report.node_id,
        report.health,
        time(report.uptime_s),
        report.version,
    )
}

fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// What stands below them.
fn others(shown: &Shown) -> Vec<String> {
    let bridge = &shown.report.bridge;
    let mut lines = vec![format!(
        "bridge: {:.0} % busy, {} apps; webhooks ({}): {} waiting, {} under way, oldest {:.0} s, {} dead",
        bridge.busy_ratio * 100.0,
        bridge.apps,
        bridge.queue,
        bridge.webhooks_waiting,
        bridge.webhooks_in_flight,
        bridge.oldest_webhook_s,
        bridge.dead_letters,
    )];
    let tls: TlsTop = shown.report.shards.iter().map(|it| it.tls).sum();
    if tls != TlsTop::default() {
        lines.push(format!(
            "TLS: {} connections, {} shaking hands; handshakes: {} full, {} resumed, {} failed; {} sealed",
            tls.connections,
            tls.handshaking,
            tls.handshakes_full,
            tls.handshakes_resumed,
            tls.handshakes_failed,
            bytes(tls.sealed_bytes),
        ));
    }
    if !shown.report.backends.is_empty() {
        let of = |it: &crate::bridge::admin::report::BackendTop| {
            let state = if it.is_up { "up" } else { "DOWN" };
            format!("{} in {} {state}", it.role, it.backend)
        };
        let all: Vec<String> = shown.report.backends.iter().map(of).collect();
        lines.push(format!("backends: {}", all.join(", ")));
    }
    lines
}

/// One table, for who reads it later.
fn plain(shown: &Shown, sort: Sort) -> String {
    let mut out = summary(shown);
    out.push_str("\n\n");
    let rows: Vec<[String; 12]> = sort.sorted(&shown.shards).iter().map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.max().unwrap_or(0).max(HEAD[column].len())
    };
    let mut line = |cells: [&str; 12]| {
        let padded = cells.iter().enumerate();
        let padded: Vec<String> = padded
            .map(|(at, cell)| format!("{cell:>width$}", width = width(at)))
            .collect();
        _ = writeln!(out, "{}", padded.join("  "));
    };
    line(HEAD);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    out.push('\n');
    for text in others(shown) {
        _ = writeln!(out, "{text}");
    }
    let largest = largest(&shown.report.channels);
    if !largest.is_empty() {
        _ = writeln!(out, "\n{}", largest.join("\n"));
    }
    out
}

/// The channels with the most subscribers, below a head.
fn largest(channels: &[ChannelTop]) -> Vec<String> {
    let line = |subscribers: &str, everywhere: &str, app: &str, channel: &str| {
        format!("{subscribers:>11}  {everywhere:>10}  {app}  {channel}")
    };
    let of = |it: &ChannelTop| {
        let (here, everywhere) = (it.subscribers.to_string(), it.everywhere.to_string());
        // What an operator named an app is not what a terminal is to obey.
        let app = it.app_id.escape_debug().to_string();
        line(&here, &everywhere, &app, &it.channel)
    };
    let head = (!channels.is_empty()).then(|| line("subscribers", "everywhere", "app", "channel"));
    head.into_iter().chain(channels.iter().map(of)).collect()
}

/// What the live view shows now.
struct View {
    shown: Option<Shown>,
    sort: Sort,
    is_paused: bool,
    /// Why the last question had no answer.
    trouble: Option<String>,
}

fn live(interval_s: u64, report: impl Fn() -> Result<TopReport, AskError>) -> Result<(), AskError> {
    // Who cannot be asked at all is told so before the terminal is taken.
    let mut before = report()?;
    let mut view = View {
        shown: Some(Shown::between(&before, &before)),
        sort: Sort::Shard,
        is_paused: false,
        trouble: None,
    };
    let mut terminal = ratatui::init();
    let ended = watch(&mut terminal, &mut view, interval_s, || {
        let now = report()?;
        let shown = Shown::between(&before, &now);
        // Between two samples nothing has changed: what was shown stays.
        let is_new = before
            .shards
            .iter()
            .zip(&now.shards)
            .any(|(a, b)| a.at_ms != b.at_ms);
        if is_new {
            before = now;
        }
        Ok((shown, is_new))
    });
    ratatui::restore();
    ended.map_err(AskError::Runtime)
}

#[expect(clippy::disallowed_methods, reason = "a person looks at it")]
fn watch(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    interval_s: u64,
    mut next: impl FnMut() -> Result<(Shown, bool), AskError>,
) -> std::io::Result<()> {
    let interval = Duration::from_secs(interval_s);
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due && !view.is_paused {
            match next() {
                Ok((shown, is_new)) => {
                    view.trouble = None;
                    match &mut view.shown {
                        Some(old) if !is_new => old.report = shown.report,
                        _ => view.shown = Some(shown),
                    }
                }
                Err(error) => view.trouble = Some(error.to_string()),
            }
            due = Instant::now() + interval;
        }
        terminal.draw(|frame| draw(frame, view))?;
        if event::poll(due.saturating_duration_since(Instant::now()).min(LOOK))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            let is = |name: char| key.code == KeyCode::Char(name);
            if is('q') || key.code == KeyCode::Esc || (is('c') && is_control) {
                return Ok(());
            } else if is('p') || is(' ') {
                view.is_paused = !view.is_paused;
            } else if is('s') {
                view.sort = view.sort.next();
            }
        }
    }
}

const LOOK: Duration = Duration::from_millis(250);

fn draw(frame: &mut Frame<'_>, view: &View) {
    let Some(shown) = &view.shown else { return };
    let below = others(shown);
    let largest = largest(&shown.report.channels);
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    // They get what the rest leaves.
    let rest = lines(2 + 1 + shown.shards.len() + below.len() + 1 + 1);
    let room = frame.area().height.saturating_sub(rest);
    let [top, middle, bottom, channels, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(lines(below.len() + 1)),
        Constraint::Length(lines(largest.len()).min(room)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let color = match shown.report.health.as_str() {
        "ok" => Color::Green,
        "degraded" => Color::Yellow,
        _ => Color::Red,
    };
    let head = Line::from(Span::styled(summary(shown), Style::new().fg(color)));
    frame.render_widget(Paragraph::new(head), top);
    let sorted = view.sort.sorted(&shown.shards);
    let rows = sorted.iter().map(|shard| {
        let cells = cells(shard).map(|text| Cell::from(Text::from(text).right_aligned()));
        let style = match shard.now.busy_ratio > BUSY {
            true => Style::new().fg(Color::Red),
            false => Style::new(),
        };
        Row::new(cells).style(style)
    });
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let names = HEAD.map(|name| Cell::from(Text::from(name).right_aligned()));
    let width = |name: &str| u16::try_from(name.len().max(6)).unwrap_or(u16::MAX);
    let widths = HEAD.map(|name| Constraint::Min(width(name)));
    let table = Table::new(rows, widths).header(Row::new(names).style(bold));
    frame.render_widget(table, middle);
    frame.render_widget(Paragraph::new(below.join("\n")), bottom);
    frame.render_widget(Paragraph::new(largest.join("\n")), channels);
    let state = match (&view.trouble, view.is_paused) {
        (Some(trouble), _) => trouble.clone(),
        (None, true) => "paused".to_owned(),
        (None, false) => String::new(),
    };
    let help = format!("q quit  p pause  s sort by {}  {state}", view.sort.name());
    frame.render_widget(Paragraph::new(help), keys);
}

/// A core with more than this to do is nearly full.
const BUSY: f64 = 0.85;

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::bridge::admin::report::{BackendTop, BridgeTop};

    fn report(at_ms: u64, counts: u64) -> TopReport {
        let shard = |number: u16| ShardTop {
            shard: number,
            at_ms,
            connections: 10 * u64::from(number + 1),
            channels: 3,
            messages_received: counts,
            messages_sent: 2 * counts,
            api_requests: counts / 10,
            turns: counts,
            turns_us: 50 * counts,
            busy_ratio: 0.9 - f64::from(number) / 2.0,
            outbox_bytes: 20_000,
            tls: TlsTop {
                connections: 9,
                handshaking: u64::from(number),
                handshakes_full: 20,
                handshakes_resumed: 30,
                handshakes_failed: 4,
                sealed_bytes: 5_000,
            },
            ..ShardTop::default()
        };
        TopReport {
            node_id: "n1".to_owned(),
            version: "0".to_owned(),
            uptime_s: 7_300,
            health: "degraded".to_owned(),
            reasons: vec!["cache".to_owned()],
            draining: false,
            nodes: 3,
            shards: vec![shard(0), shard(1)],
            bridge: BridgeTop {
                busy_ratio: 0.123,
                queue: "redis".to_owned(),
                webhooks_waiting: 4,
                webhooks_in_flight: 1,
                oldest_webhook_s: 2.4,
                dead_letters: 5,
                apps: 6,
            },
            backends: vec![BackendTop {
                role: "cache".to_owned(),
                backend: "redis".to_owned(),
                is_up: false,
            }],
            channels: vec![ChannelTop {
                app_id: "sh\u{1b}op".to_owned(),
                channel: "presence-stadium".to_owned(),
                subscribers: 25,
                everywhere: 70,
            }],
        }
    }

    #[test]
    fn rates_are_between_two_samples_and_shards_are_sorted() {
        let shown = Shown::between(&report(1_000, 100), &report(3_000, 300));
        let text = plain(&shown, Sort::Connections);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "n1: degraded (cache), 30 connections, 3 nodes, up 2 h 1 min, 0"
        );
        let row = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            row(lines[3]).join(" "),
            "1 40 % 20 3 100 200 10 50 0 19 KiB 0 0"
        );
        assert_eq!(row(lines[4])[0], "0");
        assert!(text.contains("webhooks (redis): 4 waiting, 1 under way, oldest 2 s, 5 dead"));
        assert!(text.contains("cache in redis DOWN"), "{text}");
        let tls = "TLS: 18 connections, 1 shaking hands; handshakes: 40 full, 60 resumed, 8 failed; 9 KiB";
        assert!(text.contains(tls), "{text}");
        let largest = "\nsubscribers  everywhere  app  channel\n         25          70  sh\\u{1b}op  presence-stadium\n";
        assert!(text.ends_with(largest), "{text}");
        // A node that began anew, or one that has not sampled since, has no rates.
        for before in [report(9_000, 900), report(3_000, 300)] {
            let shown = Shown::between(&before, &report(3_000, 300));
            assert_eq!(shown.shards[0].received_per_s, 0.0);
        }
    }

    #[test]
    fn the_view_has_all_of_it_on_a_screen_of_80_columns_and_more() {
        let mut view = View {
            shown: Some(Shown::between(&report(1_000, 100), &report(3_000, 300))),
            sort: Sort::Busy.next(),
            is_paused: true,
            trouble: None,
        };
        for (width, height) in [(120, 20), (80, 8), (20, 4)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
            terminal.draw(|frame| draw(frame, &view)).expect("drawn");
            let screen = terminal.backend().to_string();
            assert!(screen.contains("n1: degraded"), "{screen}");
            if width == 120 {
                for part in [
                    "connections",
                    "cache in redis DOWN",
                    "presence-stadium",
                    "paused",
                    "sort by connections",
                ] {
                    assert!(screen.contains(part), "{part} in {screen}");
                }
            }
        }
        view.trouble = Some("it has gone".to_owned());
        let mut terminal = Terminal::new(TestBackend::new(100, 10)).expect("a screen");
        terminal.draw(|frame| draw(frame, &view)).expect("drawn");
        assert!(terminal.backend().to_string().contains("it has gone"));
    }
}
