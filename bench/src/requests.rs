//! Requests to the HTTP API: numbered, in their order, on connections that stay.
//!
//! Owns: which connection is idle, which request is under way on it, which wait.
//! May depend on: `crowd`.
//! Invariants: a connection has one request under way at most; a request that a closed connection leaves
//! unanswered is asked again, and the reconnect is counted.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    crowd::{Crowd, Heard, Kind},
    wire::shortened,
};

pub struct Requests {
    clients: Range<usize>,
    idle: Vec<usize>,
    under_way: Vec<Option<u64>>,
    waiting: VecDeque<u64>,
    /// Connections to open again, and when.
    closed: Vec<(usize, Instant)>,
    pub answered: u64,
    /// Times that a connection was opened again because the server had closed it.
    pub reconnects: u64,
    pub refused: u64,
    pub first_refusal: Option<String>,
}

/// How long after its end a connection that said nothing is tried again.
const RETRY: Duration = Duration::from_millis(20);

impl Requests {
    /// Begins so many connections, with the next numbers of the crowd.
    pub fn open(crowd: &mut Crowd, count: usize) -> io::Result<Self> {
        let mut clients = 0..0;
        for number in 0..count {
            let client = crowd.open(Kind::Http, Vec::new())?;
            if number == 0 {
                clients.start = client;
            }
            clients.end = client + 1;
        }
        Ok(Self {
            under_way: vec![None; count],
            clients,
            idle: Vec::with_capacity(count),
            waiting: VecDeque::new(),
            closed: Vec::new(),
            answered: 0,
            reconnects: 0,
            refused: 0,
            first_refusal: None,
        })
    }

    pub fn owns(&self, client: usize) -> bool {
        self.clients.contains(&client)
    }

    /// Asks for a request to be made as soon as a connection is idle.
    pub fn ask(&mut self, number: u64) {
        self.waiting.push_back(number);
    }

    /// Whether each request was answered.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.iter().all(Option::is_none)
    }

    /// Hears of one of its connections; the number of the request that was answered, if one was.
    pub fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) -> Option<u64> {
        let at = client - self.clients.start;
        match heard {
            Heard::Connected => self.idle.push(client),
            Heard::Answer { status, body } => {
                let number = self.under_way[at].take()?;
                self.answered += 1;
                if *status != 200 {
                    self.refused += 1;
                    self.first_refusal
                        .get_or_insert_with(|| format!("status {status}: {}", shortened(body)));
                }
                self.idle.push(client);
                return Some(number);
            }
            Heard::Ended(_) => {
                let was_idle = self.idle.len();
                self.idle.retain(|&idle| idle != client);
                let has_answered = self.idle.len() < was_idle;
                if let Some(number) = self.under_way[at].take() {
                    self.waiting.push_front(number);
                }
                let wait = if has_answered { Duration::ZERO } else { RETRY };
                self.closed.push((client, now + wait));
                self.reconnects += 1;
            }
            Heard::Established | Heard::Subscribed | Heard::Event { .. } | Heard::Refused(_) => {}
        }
        None
    }

    /// Sends what waits on what is idle. `bytes_of` makes a request when its turn has come.
    pub fn pump<B: AsRef<[u8]>>(
        &mut self,
        crowd: &mut Crowd,
        now: Instant,
        mut bytes_of: impl FnMut(u64) -> B,
    ) -> io::Result<()> {
        while let Some(at) = self.closed.iter().position(|&(_, when)| when <= now) {
            let (client, _) = self.closed.swap_remove(at);
            crowd.reopen(client, Kind::Http, Vec::new())?;
        }
        while !self.waiting.is_empty()
            && let Some(client) = self.idle.pop()
            && let Some(number) = self.waiting.pop_front()
        {
            self.under_way[client - self.clients.start] = Some(number);
            crowd.send(client, bytes_of(number).as_ref());
        }
        Ok(())
    }

    /// What went wrong, in words.
    pub fn faults(&self, asked: u64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.refused > 0 {
            let first = self.first_refusal.as_deref().unwrap_or_default();
            faults.push(format!(
                "{} requests were refused, the first with {first}",
                self.refused
            ));
        }
        if self.answered < asked {
            faults.push(format!(
                "{} of {asked} requests got no answer",
                asked - self.answered
            ));
        }
        faults
    }
}
