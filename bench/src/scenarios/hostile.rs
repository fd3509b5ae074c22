//! Hostile: a stranger floods the server in one manner after another. Does somebody else notice?
//!
//! Owns: the `hostile` scenario and its floods.
//! May depend on: what its siblings may, and `bystander`.
//! Invariants: floods go to the target of the run only, from a bounded number of connections, in bounded
//! steps and for a bounded time; whatever the server does with them is its right, but it goes on serving.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::bystander::{Bystander, Watched};
use crate::{
    outcome::{Outcome, Setting},
    rig::{Rig, RunError, figure, setting},
    target::Target,
    track::Names,
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Hostile {}

/// What a stranger without any credentials may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// Subscribes, as fast as they are taken.
    Subscribe,
    /// Unsubscribes from a channel that it is not in.
    Unsubscribe,
    /// Bodies in chunks that never end.
    Chunks,
    /// `HEAD` after `HEAD` in a pipeline.
    Head,
    /// Large bodies with a signature that is wrong.
    Forged,
    /// `GET` after `GET`, in many pipelines at once.
    Pipelines,
}

/// For which the bystander is watched alone.
const CALM: Duration = Duration::from_secs(2);
/// A p99 below this says more of the machine's wake-ups than of the server.
const FLOOR_MS: f64 = 1.25;
/// What one connection sends in a step, and how long a step is.
const STEP_BYTES: usize = 32_768;
const STEP: Duration = Duration::from_micros(200);
/// After its end a connection is made anew.
const RETRY: Duration = Duration::from_millis(5);
const FORGED_BYTES: usize = 10_000_000;

impl Hostile {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        rig.must_be_plain("hostile")?;
        let mut bystander = Bystander::arrive(rig)?;
        let alone = bystander.alone(CALM)?;
        let meter = rig.start()?;
        let length = Duration::from_secs(rig.seconds.div_ceil(2));
        let mut seen: Vec<(Flood, Watched, u64)> = Vec::new();
        for flood in Flood::ALL {
            let (watched, bytes) =
                bystander.beside(flood.names(), || Ok(flood.run(&rig.target, length)))?;
            seen.push((flood, watched, bytes));
        }
        let alone_ms = alone.p99_ms();
        let mut outcome = alone.finish(meter, rig, "hostile", self.settings(rig))?;
        outcome.figures.push(figure(
            "ping_alone_p99_ms",
            "p99 of a ping, alone",
            "ms",
            alone_ms,
        ));
        for (flood, watched, bytes) in seen {
            let [p99, ratio, sent] = flood.keys();
            let p99_ms = watched.p99_ms();
            let times = p99_ms.max(FLOOR_MS) / alone_ms.max(FLOOR_MS);
            outcome.figures.extend([
                figure(p99, flood.label(), "ms", p99_ms),
                figure(ratio, "… as a multiple, both at least 1.25 ms", "x", times),
                figure(sent, "… the server took", "MB", bytes as f64 / 1e6),
            ]);
            watched.add_to(&mut outcome);
        }
        Ok(outcome)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![setting("seconds", rig.seconds)]
    }
}

impl Flood {
    const ALL: [Self; 6] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Chunks,
        Self::Head,
        Self::Forged,
        Self::Pipelines,
    ];

    fn names(self) -> Names {
        let names = |latency, label, p99| Names {
            latency: (latency, label),
            rate: ("pongs_per_s", "pongs", "pongs/s"),
            p99: (p99, label),
        };
        match self {
            Self::Subscribe => names("subscribe", self.label(), "subscribe_p99"),
            Self::Unsubscribe => names("unsubscribe", self.label(), "unsubscribe_p99"),
            Self::Chunks => names("chunks", self.label(), "chunks_p99"),
            Self::Head => names("head", self.label(), "head_p99"),
            Self::Forged => names("forged", self.label(), "forged_p99"),
            Self::Pipelines => names("pipelines", self.label(), "pipelines_p99"),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Subscribe => "p99 beside subscribes",
            Self::Unsubscribe => "p99 beside unsubscribes",
            Self::Chunks => "p99 beside endless bodies",
            Self::Head => "p99 beside a HEAD pipeline",
            Self::Forged => "p99 beside forged bodies",
            Self::Pipelines => "p99 beside 20 pipelines",
        }
    }

    /// Of the p99, of its ratio to the one alone, of what the server took.
    fn keys(self) -> [&'static str; 3] {
        match self {
            Self::Subscribe => ["subscribe_p99_ms", "subscribe_ratio", "subscribe_mb"],
            Self::Unsubscribe => ["unsubscribe_p99_ms", "unsubscribe_ratio", "unsubscribe_mb"],
            Self::Chunks => ["chunks_p99_ms", "chunks_ratio", "chunks_mb"],
            Self::Head => ["head_p99_ms", "head_ratio", "head_mb"],
            Self::Forged => ["forged_p99_ms", "forged_ratio", "forged_mb"],
            Self::Pipelines => ["pipelines_p99_ms", "pipelines_ratio", "pipelines_mb"],
        }
    }

    /// How many connections, and what each says first and then again and again.
    fn script(self, target: &Target) -> (usize, Vec<u8>, Vec<u8>) {
        let upgrade = || wire::upgrade(&target.authority, &target.app.key).into_bytes();
        let said = |event: &str, channel: &str| {
            let text = format!(r#"{{"event":"pusher:{event}","data":{{"channel":"{channel}"}}}}"#);
            wire::masked_text(text.as_bytes())
        };
        let path = format!("/apps/{}/events", target.app.id);
        let host = &target.authority;
        match self {
            Self::Subscribe => {
                let one = |number| said("subscribe", &format!("flood-{number}"));
                (1, upgrade(), (0..20_000).flat_map(one).collect())
            }
            Self::Unsubscribe => {
                let one = said("unsubscribe", "where-nobody-is");
                (1, upgrade(), one.repeat(1_000))
            }
            Self::Chunks => {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
                (50, head.into_bytes(), chunk.into_bytes())
            }
            Self::Head => {
                let one = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n");
                (4, Vec::new(), one.repeat(500).into_bytes())
            }
            Self::Forged => {
                let mut request = target.api_request("events", &"x".repeat(FORGED_BYTES));
                let at = wire::find(&request, b"auth_signature=").map_or(0, |at| at + 15);
                request[at..at + 8].copy_from_slice(b"00000000");
                (4, Vec::new(), request)
            }
            Self::Pipelines => {
                let one = format!("GET /up HTTP/1.1\r\nHost: {host}\r\n\r\n");
                (20, Vec::new(), one.repeat(400).into_bytes())
            }
        }
    }

    /// Floods for so long; how many bytes the server took.
    fn run(self, target: &Target, length: Duration) -> u64 {
        let (count, first, again) = self.script(target);
        let script = Script { first, again };
        let ends = Instant::now() + length;
        let mut strangers: Vec<Stranger> = (0..count).map(|_| Stranger::new()).collect();
        let mut taken = 0;
        let mut buffer = vec![0; 65_536];
        while Instant::now() < ends {
            for stranger in &mut strangers {
                taken += stranger.step(target, &script, &mut buffer);
            }
            thread::sleep(STEP);
        }
        taken
    }
}

struct Script {
    first: Vec<u8>,
    again: Vec<u8>,
}

/// One connection of a flood.
struct Stranger {
    stream: Option<TcpStream>,
    opens_at: Instant,
    /// Bytes sent of the first and, beyond them, of the next round.
    at: usize,
}

impl Stranger {
    fn new() -> Self {
        Self {
            stream: None,
            opens_at: Instant::now(),
            at: 0,
        }
    }

    /// Sends a step's bytes, and reads what came; bytes that were taken.
    fn step(&mut self, target: &Target, script: &Script, buffer: &mut [u8]) -> u64 {
        if self.stream.is_none() && Instant::now() >= self.opens_at {
            self.at = 0;
            self.opens_at = Instant::now() + RETRY;
            let stream = TcpStream::connect(target.address);
            self.stream = stream.ok().filter(|it| it.set_nonblocking(true).is_ok());
        }
        let Some(mut stream) = self.stream.take() else {
            return 0;
        };
        let part = match script.first.get(self.at..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => &script.again[(self.at - script.first.len()) % script.again.len()..],
        };
        let part = &part[..part.len().min(STEP_BYTES)];
        let sent = match stream.write(part) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return 0,
        };
        self.at += sent;
        match stream.read(buffer) {
            Ok(0) => return sent as u64,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return sent as u64,
        }
        self.stream = Some(stream);
        sent as u64
    }
}
