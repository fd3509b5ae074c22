//! Listing: an app with very many channels is asked for them. Is the answer whole, and does somebody else
//! notice?
//!
//! Owns: the `listing` scenario, the reading of an answer in chunks.
//! May depend on: what its siblings may, and `bystander`.
//! Invariants: each channel must be told once; the answer is read as fast as it comes and judged afterwards.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    bystander::{BESIDE, Bystander},
    count,
};
use crate::{
    crowd::Subscription,
    outcome::{Latency, Outcome, Setting},
    rig::{Rig, RunError, figure, setting},
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Listing {
    /// Channels with a subscriber, 1..=10000000; the server must not limit the channels of a connection
    /// (max_subscriptions_per_connection = 0, net.subscribe_rate_per_s = 0)
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = count(1..=10_000_000))]
    pub channels: usize,
    /// Connections that subscribe to them, 1..=100000
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = count(1..=100_000))]
    pub connections: usize,
}

/// For which the bystander is watched alone.
const CALM: Duration = Duration::from_secs(1);
/// An answer that has not come after so long never will.
const PATIENCE: Duration = Duration::from_secs(60);

impl Listing {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        rig.must_be_plain("listing")?;
        let mut crowd = rig.crowd(self.connections + 4)?;
        let prefix = rig.channel("listing-");
        let each = self.channels.div_ceil(self.connections);
        let wishes = |client: usize| {
            let numbers = client * each..self.channels.min((client + 1) * each);
            let wish = |number| Subscription::to(format!("{prefix}{number}"));
            numbers.map(wish).collect()
        };
        rig.join(&mut crowd, self.connections, wishes)?;
        let mut bystander = Bystander::arrive(rig)?;
        let alone = bystander.alone(CALM)?;

        let meter = rig.start()?;
        let ends = Instant::now() + Duration::from_secs(rig.seconds);
        let (beside, answers) = bystander.beside(BESIDE, || {
            let mut answers = Vec::new();
            while answers.len() < 2 || Instant::now() < ends {
                let wished = match answers.len() % 2 {
                    0 => prefix.clone(),
                    _ => format!("{prefix}none-"),
                };
                answers.push(Answer::ask(rig, wished)?);
            }
            Ok(answers)
        })?;
        let p99_ms = [alone.p99_ms(), beside.p99_ms()];
        let mut outcome = beside.finish(meter, rig, "listing", self.settings(rig))?;
        alone.add_to(&mut outcome);
        let mut all = Latency::new("listed", "asked for all channels to answered");
        let mut none = Latency::new(
            "listed_none",
            "asked for a prefix that none has to answered",
        );
        for answer in &answers {
            let (latency, expected) = match answer.prefix == prefix {
                true => (&mut all, self.channels),
                false => (&mut none, 0),
            };
            latency.record(answer.took);
            outcome.faults.extend(answer.fault(expected));
        }
        outcome.figures.extend([
            figure("ping_alone_p99_ms", "p99 of a ping, alone", "ms", p99_ms[0]),
            figure(
                "ping_p99_ms",
                "p99 of a ping, beside listings",
                "ms",
                p99_ms[1],
            ),
            figure("listings", "listings", "", answers.len() as f64),
        ]);
        outcome.latencies.extend([all, none]);
        Ok(outcome)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("channels", self.channels),
            setting("connections", self.connections),
        ]
    }
}

/// An answer, as it came.
struct Answer {
    prefix: String,
    bytes: Vec<u8>,
    took: Duration,
}

impl Answer {
    fn ask(rig: &Rig, prefix: String) -> Result<Self, RunError> {
        let query = [("filter_by_prefix", &*prefix)];
        let request = rig.target.api_question("channels", &query);
        let asked = Instant::now();
        let mut stream = TcpStream::connect(rig.target.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request)?;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 18];
        while !is_whole(&bytes) {
            match stream.read(&mut buffer)? {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(Self {
            prefix,
            bytes,
            took: asked.elapsed(),
        })
    }

    /// What is wrong with it, if so many channels were to be told.
    fn fault(&self, expected: usize) -> Option<String> {
        let told = channels_of(&self.bytes, &self.prefix);
        match told {
            Ok(count) if count == expected => None,
            Ok(count) => Some(format!("{count} of {expected} channels were told")),
            Err(what) => Some(format!("a listing of {expected} channels: {what}")),
        }
    }
}

/// Whether the last byte of an answer is there.
// Looked at after each read: only the head's and the answer's ends are.
fn is_whole(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4_096)];
    let Some(head_bytes) = wire::find(head, b"\r\n\r\n") else {
        return false;
    };
    match is_in_chunks(&head[..head_bytes]) {
        true => bytes.ends_with(b"\r\n0\r\n\r\n"),
        false => wire::answer(bytes).is_some(),
    }
}

fn is_in_chunks(head: &[u8]) -> bool {
    let head = head.to_ascii_lowercase();
    wire::find(&head, b"transfer-encoding: chunked").is_some()
}

/// How many channels a server lists, whatever their names.
pub(crate) fn listed(rig: &Rig) -> Result<usize, RunError> {
    let answer = Answer::ask(rig, String::new())?;
    let body = body_of(&answer.bytes).map_err(RunError::Refused)?;
    Ok(body["channels"].as_object().map_or(0, |all| all.len()))
}

fn body_of(bytes: &[u8]) -> Result<serde_json::Value, String> {
    let head_bytes = wire::find(bytes, b"\r\n\r\n").ok_or("no head")? + 4;
    let (head, rest) = bytes.split_at(head_bytes);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(wire::shortened(bytes));
    }
    let body = match is_in_chunks(head) {
        true => joined(rest).ok_or("its chunks are broken")?,
        false => rest.to_vec(),
    };
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// How many channels an answer tells, each of which must be a number behind the prefix and told once.
fn channels_of(bytes: &[u8], prefix: &str) -> Result<usize, String> {
    let body = body_of(bytes)?;
    let channels = body["channels"].as_object().ok_or("no channels")?;
    let number_of = |name: &String| name.strip_prefix(prefix)?.parse::<usize>().ok();
    let mut numbers: Vec<usize> = channels.keys().filter_map(number_of).collect();
    numbers.sort_unstable();
    numbers.dedup();
    match numbers.len() == channels.len() && numbers.last().is_none_or(|it| it + 1 == numbers.len())
    {
        true => Ok(numbers.len()),
        false => Err("it tells of channels that are none".to_owned()),
    }
}

/// The body of which these are the chunks, to the last byte.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = wire::find(&chunks[..chunks.len().min(20)], b"\r\n")?;
        let length = std::str::from_utf8(&chunks[..line]).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        let chunk = chunks.get(line + 2..)?.get(..length)?;
        body.extend_from_slice(chunk);
        chunks = chunks[line + 2 + length..].strip_prefix(b"\r\n")?;
        if length == 0 {
            return chunks.is_empty().then_some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n";

    #[test]
    fn a_listing_is_whole_with_its_last_chunk_and_tells_each_channel() {
        let whole = format!(
            "{HEAD}c\r\n{{\"channels\":\r\nf\r\n{{\"a-0\":{{}},\"a-1\"\r\n5\r\n:{{}}}}}}\r\n0\r\n\r\n"
        );
        for end in 0..whole.len() {
            assert!(!is_whole(&whole.as_bytes()[..end]), "at {end}");
        }
        assert!(is_whole(whole.as_bytes()));
        let gap = whole.replace("a-1", "a-2");
        let other = whole.replace("a-1", "b-1");
        for (name, text, expected) in [
            ("whole", &whole, Some(2)),
            ("one is left out", &gap, None),
            ("another one", &other, None),
            ("cut", &whole.replace("0\r\n\r\n", ""), None),
        ] {
            let told = channels_of(text.as_bytes(), "a-");
            assert_eq!(told.clone().ok(), expected, "{name}: {told:?}");
        }
    }
}
