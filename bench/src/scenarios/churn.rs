//! Connections that come and go: opened at a pace, subscribed, and closed as soon as they are.
//!
//! Owns: which operation a connection is for; the times of its steps.
//! May depend on: what the scenarios may.
//! Invariants: each operation ends as subscribed or as failed; numbers of ended connections are used again.

use std::{collections::HashMap, time::Instant};

use super::Trouble;
use crate::{
    crowd::{Crowd, Heard, Kind, Subscription},
    outcome::Outcome,
    pace::Pace,
    track::{Names, Track},
};

pub(super) struct Churn {
    pub(super) pace: Pace,
    wish: Subscription,
    /// By connection: the operation that is under way; None = it says goodbye.
    operations: HashMap<usize, Option<u64>>,
    free: Vec<usize>,
    leaving: Vec<usize>,
    pub(super) subscribed: u64,
    /// Of which TLS went on with an earlier session.
    pub(super) resumed: u64,
    connected_track: Track,
    established_track: Track,
    subscribed_track: Track,
    trouble: Trouble,
}

const CONNECTED: Names = Names {
    latency: ("connected", "connect scheduled to TCP accepted"),
    rate: ("connected_per_s", "TCP connections", "connections/s"),
    p99: ("connected_p99_ms", "p99 of TCP accepted"),
};

const ESTABLISHED: Names = Names {
    latency: ("established", "connect scheduled to established"),
    rate: ("established_per_s", "established", "connections/s"),
    p99: ("established_p99_ms", "p99 of established"),
};

pub(super) const SUBSCRIBED: Names = Names {
    latency: ("subscribed", "connect scheduled to subscribed"),
    rate: ("subscribed_per_s", "subscribed", "connections/s"),
    p99: ("subscribed_p99_ms", "p99 of subscribed"),
};

impl Churn {
    /// Each connection subscribes to that channel. `subscribed` names the whole of its way.
    pub(super) fn new(pace: Pace, wish: Subscription, subscribed: Names) -> Self {
        let began = pace.time_of(0);
        Self {
            pace,
            wish,
            operations: HashMap::new(),
            free: Vec::new(),
            leaving: Vec::new(),
            subscribed: 0,
            resumed: 0,
            connected_track: Track::new(began, CONNECTED),
            established_track: Track::new(began, ESTABLISHED),
            subscribed_track: Track::new(began, subscribed),
            trouble: Trouble::default(),
        }
    }

    /// Shows its progress.
    pub(super) fn shown(mut self) -> Self {
        self.subscribed_track = self.subscribed_track.shown();
        self
    }

    pub(super) fn owns(&self, client: usize) -> bool {
        self.operations.contains_key(&client)
    }

    /// Whether each operation has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.pace.is_over() && self.operations.values().all(Option::is_none)
    }

    /// Closes what is subscribed, and opens what is due.
    pub(super) fn begin_due(&mut self, crowd: &mut Crowd, now: Instant) {
        for client in self.leaving.drain(..) {
            self.resumed += u64::from(crowd.has_resumed(client));
            crowd.say_goodbye(client);
        }
        while let Some(number) = self.pace.take_due(now) {
            let wishes = vec![self.wish.clone()];
            let opened = match self.free.pop() {
                Some(client) => crowd
                    .reopen(client, Kind::WebSocket, wishes)
                    .map(|()| client),
                None => crowd.open(Kind::WebSocket, wishes),
            };
            match opened {
                Ok(client) => drop(self.operations.insert(client, Some(number))),
                Err(error) => self.trouble.hear(&Heard::Ended(&error.to_string())),
            }
        }
        self.subscribed_track.tick(now);
    }

    pub(super) fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        let Some(&operation) = self.operations.get(&client) else {
            return;
        };
        let since = operation.and_then(|number| self.pace.since(number, now));
        match (heard, since) {
            (Heard::Connected, Some(since)) => self.connected_track.record(now, since),
            (Heard::Established, Some(since)) => self.established_track.record(now, since),
            (Heard::Subscribed, Some(since)) => {
                self.subscribed_track.record(now, since);
                self.subscribed += 1;
                self.operations.insert(client, None);
                self.leaving.push(client);
            }
            (Heard::Ended(_), since) => {
                if since.is_some() {
                    self.trouble.hear(heard);
                }
                self.leaving.retain(|&leaving| leaving != client);
                self.operations.remove(&client);
                self.free.push(client);
            }
            (Heard::Refused(_), _) => self.trouble.hear(heard),
            _ => {}
        }
    }

    /// What went wrong, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.trouble.faults();
        let total = self.pace.total();
        if self.subscribed < total {
            let left = total - self.subscribed;
            faults.push(format!(
                "{left} of {total} connections were never subscribed"
            ));
        }
        faults
    }

    /// Adds faults, and the latency of the whole way.
    pub(super) fn complete_whole(self, outcome: &mut Outcome) {
        outcome.faults.extend(self.faults());
        let (latency, series) = self.subscribed_track.finish();
        outcome.latencies.push(latency);
        outcome.series.extend(series);
    }

    /// Adds faults, and the latencies of all steps.
    pub(super) fn complete(self, outcome: &mut Outcome) {
        outcome.faults.extend(self.faults());
        for track in [
            self.subscribed_track,
            self.established_track,
            self.connected_track,
        ] {
            let (latency, series) = track.finish();
            outcome.latencies.push(latency);
            outcome.series.extend(series);
        }
    }
}
