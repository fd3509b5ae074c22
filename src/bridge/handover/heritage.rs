//! What follows after the word: webhooks that waited in the old process' memory.
//!
//! Owns: `Bequest`, what is on its way to the new process; `Heir`, the new one's side of it.
//! May depend on: `handover`, `bridge::{run, webhook}`.
//! Invariants: nobody is silent for it; what the new process has not acknowledged is the old one's, which delivers it
//! if the link ends, or not all is acknowledged within `terms`; at most `WINDOW` packets wait to be acknowledged.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock here and hands it on"
)]

use std::{
    collections::VecDeque,
    fmt,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;

use super::{
    Waits,
    parcels::{WINDOW, is_full},
    terms::{STEP_WITHIN, Terms},
};
use crate::{
    bridge::{link::ShardLink, run::Bridge},
    handover::{
        link::{LinkError, Received, Waiting},
        packet::{Empty, Packet, State, Taken},
        record::{self, WebhookRecord},
    },
};

/// Of one packet.
const RECORDS_MAX: usize = 512;
const BYTES_MAX: usize = 256 << 10;

/// The old process' side.
#[derive(Debug)]
pub(super) struct Bequest {
    link: Waiting,
    waits: Waits<Packet>,
    /// Records that are not acknowledged.
    sent: VecDeque<Packet>,
    /// Of the next acknowledgement, and of all that waits.
    terms: Terms,
}

/// The new process' side.
#[derive(Debug)]
pub(in crate::bridge) struct Heir {
    link: Waiting,
    /// All that waited is here; verdicts may come yet.
    has_all: bool,
    /// The supervisor listens to this process.
    is_named: bool,
    deadline: Instant,
}

impl Bequest {
    pub(super) fn link(&self) -> &Waiting {
        &self.link
    }

    fn add(&mut self, records: Vec<WebhookRecord>) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for record in records {
            // Plain fields, into memory: it cannot fail.
            let record = record::write(&record).unwrap_or_default();
            bytes += record.len();
            part.push(ByteBuf::from(record));
            if part.len() >= RECORDS_MAX || bytes >= BYTES_MAX {
                let records = std::mem::take(&mut part);
                self.waits.push_back(Packet::Webhooks(State { records }));
                bytes = 0;
            }
        }
        if !part.is_empty() {
            let records = part;
            self.waits.push_back(Packet::Webhooks(State { records }));
        }
    }

    /// Sends what the window allows.
    fn push(&mut self) -> Result<(), LinkError> {
        while self.sent.len() < WINDOW
            && let Some(next) = self.waits.front()
        {
            match self.link.try_send(next, &[]) {
                Ok(()) => {}
                // It is tried again soon.
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(error.into()),
            }
            if let Some(sent @ Packet::Webhooks(_)) = self.waits.pop_front() {
                self.sent.push_back(sent);
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.waits.is_empty() && self.sent.is_empty()
    }

    fn into_records(self) -> Vec<WebhookRecord> {
        let packets = self.sent.into_iter().chain(self.waits);
        let mut records = Vec::new();
        for packet in packets {
            if let Packet::Webhooks(state) = packet {
                records.extend(state.records);
            }
        }
        let records = records.into_iter();
        records.filter_map(|it| record::read(&it).ok()).collect()
    }
}

impl Heir {
    pub(super) fn new(link: Waiting, takes_webhooks: bool, awaits_name: bool) -> Self {
        Self {
            link,
            has_all: !takes_webhooks,
            is_named: !awaits_name,
            deadline: Instant::now() + STEP_WITHIN,
        }
    }

    pub(super) fn link(&self) -> &Waiting {
        &self.link
    }

    /// Nothing but verdicts may come yet.
    pub(super) fn has_settled(&self) -> bool {
        self.has_all && self.is_named
    }

    pub(super) fn due(&self) -> Option<Instant> {
        (!self.has_settled()).then_some(self.deadline)
    }
}

impl<L: ShardLink> Bridge<L> {
    /// Webhooks that wait here are the successor's to deliver.
    pub(super) fn begin_bequest(&mut self, link: Waiting) {
        self.hear_shards_out();
        let mut bequest = Bequest {
            link,
            waits: Waits::new(),
            sent: VecDeque::new(),
            terms: Terms::new(Instant::now()),
        };
        bequest.add(self.webhooks.give());
        bequest.waits.push_back(Packet::WebhooksEnd(Empty {}));
        self.pass_on(bequest);
    }

    /// What shards that are still have told, to the last word.
    fn hear_shards_out(&mut self) {
        let mut inbox = Vec::new();
        loop {
            let heard = {
                let heard = pin!(self.link.receive(&mut inbox));
                heard.poll(&mut Context::from_waker(Waker::noop()))
            };
            if heard == Poll::Pending {
                return;
            }
            self.handle_messages(&mut inbox);
        }
    }

    /// Goes on with it; true when there is nothing left to pass on.
    pub(super) fn step_bequest(&mut self) -> bool {
        let departing = self.handover.departing.as_mut();
        let Some(mut bequest) = departing.and_then(|it| it.bequest.take()) else {
            return true;
        };
        if self.webhooks.has_more_to_give() {
            bequest.add(self.webhooks.give());
        }
        let verdicts = self.webhooks.take_verdicts().into_iter();
        bequest.waits.extend(verdicts.map(Packet::Verdict));
        let now = Instant::now();
        if bequest.is_done() {
            bequest.terms = Terms::new(now);
        }
        if now >= bequest.terms.ends() {
            self.end_bequest(bequest, &"not in time");
            return true;
        }
        self.pass_on(bequest)
    }

    fn pass_on(&mut self, mut bequest: Bequest) -> bool {
        if let Err(error) = bequest.push() {
            self.end_bequest(bequest, &error);
            return true;
        }
        let is_done = bequest.is_done();
        if let Some(departing) = &mut self.handover.departing {
            departing.bequest = Some(bequest);
        }
        is_done
    }

    /// The new process has a packet, or is gone.
    pub(in crate::bridge) fn hear_heir(&mut self, heard: Result<Received, LinkError>) {
        let departing = self.handover.departing.as_mut();
        let Some(mut bequest) = departing.and_then(|it| it.bequest.take()) else {
            return;
        };
        match heard {
            Ok((Packet::Taken(_), _)) => {
                bequest.sent.pop_front();
                bequest.terms.heard(Instant::now());
                self.pass_on(bequest);
            }
            Ok((Packet::Refused(refused), _)) => self.end_bequest(bequest, &refused.reason),
            Ok((packet, _)) => {
                let reason = format!("it said {} out of turn", packet.name());
                self.end_bequest(bequest, &reason);
            }
            Err(error) => self.end_bequest(bequest, &error),
        }
    }

    /// This process ends now: what was not passed on is its own to account for.
    pub(in crate::bridge) fn stop_bequest(&mut self) {
        let departing = self.handover.departing.as_mut();
        let bequest = departing.and_then(|it| it.bequest.take());
        if let Some(bequest) = bequest.filter(|it| !it.is_done()) {
            self.webhooks.take_back(bequest.into_records());
        }
    }

    /// What the new process may not have is delivered here.
    fn end_bequest(&mut self, bequest: Bequest, reason: &impl fmt::Display) {
        let records = bequest.into_records();
        let webhooks = records.len();
        if webhooks > 0 {
            tracing::warn!(
                node = self.node_id,
                %reason,
                webhooks,
                "the new process did not take all webhooks that wait: this one delivers the rest"
            );
        }
        self.webhooks.take_back(records);
        // They have their time from now on.
        let deadline = Duration::from_secs(self.config.drain.deadline_s.into());
        if let Some(departing) = &mut self.handover.departing {
            departing.ends = Instant::now() + deadline;
        }
    }

    /// What the old process passes on.
    pub(in crate::bridge) fn hear_testator(&mut self, heard: Result<Received, LinkError>) {
        let Some(mut heir) = self.handover.heir.take() else {
            return;
        };
        heir.deadline = Instant::now() + STEP_WITHIN;
        match heard {
            // It was refused, and is the old process' to deliver: that one says it until it hears so.
            Ok((Packet::Webhooks(_) | Packet::WebhooksEnd(_), _)) if heir.has_all => {
                self.handover.heir = Some(heir);
            }
            Ok((Packet::Webhooks(State { records }), _)) => {
                let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
                let mut unread = 0_u32;
                for bytes in records {
                    match record::read(&bytes) {
                        Ok(record) => self.webhooks.inherit(record),
                        Err(_) => unread += 1,
                    }
                }
                if unread > 0 {
                    tracing::warn!(unread, "webhooks of the process before are not understood");
                }
                self.webhooks.start();
                // If it cannot be said the link has ended, which is heard next.
                _ = heir.link.try_send(&Packet::Taken(Taken { count }), &[]);
                self.handover.heir = Some(heir);
            }
            Ok((Packet::WebhooksEnd(_), _)) => {
                heir.has_all = true;
                let webhooks = self.webhooks.has_inherited();
                if webhooks > 0 {
                    let node = &self.node_id;
                    tracing::info!(node, webhooks, "goes on with webhooks that waited");
                }
                self.handover.heir = Some(heir);
            }
            Ok((Packet::Named(_), _)) => {
                self.supervisor.named();
                heir.is_named = true;
                self.handover.heir = Some(heir);
            }
            Ok((Packet::Verdict(verdict), _)) => {
                self.webhooks.is_told(verdict);
                self.handover.heir = Some(heir);
            }
            Ok(_) | Err(_) => {
                if !heir.has_all {
                    let node = &self.node_id;
                    tracing::warn!(
                        node,
                        "the process before ended before it had passed on all webhooks"
                    );
                }
                self.supervisor.named();
                self.webhooks.is_orphaned();
            }
        }
    }

    /// The old process is not waited for for ever.
    pub(in crate::bridge) fn step_heir(&mut self) {
        let due = self.handover.heir.as_ref().and_then(Heir::due);
        if due.is_some_and(|due| Instant::now() >= due) {
            self.handover.heir = None;
            tracing::warn!(
                node = self.node_id,
                within_s = STEP_WITHIN.as_secs(),
                "the process before did not pass on all webhooks that waited in time"
            );
            self.supervisor.named();
            self.webhooks.is_orphaned();
        }
    }
}
