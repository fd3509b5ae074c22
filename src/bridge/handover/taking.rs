//! The process that follows: it gets ready behind the old one's back, takes everything, and serves.
//!
//! Owns: `Taking`: how far that is.
//! May depend on: `handover`, `bridge::run`'s state.
//! Invariants: nothing of what was taken is read, sent or closed with a word before `Yours`, or before the old
//! process died with everything handed over; if it ends earlier, so does this one.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;
use shards::{SharedFrame, application::ShardId};

use super::{UpgradeReport, heritage::Heir, intake::Intake};
use crate::{
    bridge::{
        link::ShardLink,
        message::{FromBridge, ImportedPart},
        nodes::Told,
        run::{Bridge, BridgeError},
    },
    handover::{
        link::{Link, LinkError, Received, Waiting},
        packet::{
            Connections, Empty, End, Frames, Imported, Packet, Refused, State, Taken, Topics,
            Welcome, Yours,
        },
        record::{Import, OnTheWay},
    },
    protocol::partition::Partition,
};

/// Room for what came is looked for so often.
const LOOKS_EVERY: Duration = Duration::from_millis(1);

/// A take-over under way.
#[derive(Debug)]
pub(in crate::bridge) struct Taking {
    link: Waiting,
    welcome: Welcome,
    is_ready: bool,
    came: End,
    intake: Intake,
    /// Of the other nodes.
    nodes: Vec<Vec<u8>>,
    /// Topics that are to be proven before the old process may let go.
    owes_proof: Option<Vec<Partition>>,
    /// Shards that have not put everything in its place yet, once all has come.
    awaited: Option<u16>,
    imported: Imported,
    /// Of `imported`: are closed, since they cannot go on here; of those, the old process has counted so many.
    closing: u64,
    stuck: u64,
    is_imported: bool,
    /// It was asked to stop when it was too late to leave everything to the old process.
    stop_waits: bool,
}

impl Taking {
    pub(super) fn new(link: Arc<Link>, welcome: Welcome) -> io::Result<Self> {
        Ok(Self {
            link: Waiting::new(link)?,
            welcome,
            is_ready: false,
            came: End::default(),
            intake: Intake::default(),
            nodes: Vec::new(),
            owes_proof: None,
            awaited: None,
            imported: Imported::default(),
            closing: 0,
            stuck: 0,
            is_imported: false,
            stop_waits: false,
        })
    }

    pub(super) fn link(&self) -> &Waiting {
        &self.link
    }

    /// Where shards have too much to put in its place, when that is looked at again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.intake.owes().then(|| now + LOOKS_EVERY)
    }

    pub(super) fn upgrades(&self) -> [u64; 2] {
        self.welcome.upgrades
    }

    fn send(&self, packet: &Packet) -> Result<(), LinkError> {
        Ok(self.link.try_send(packet, &[])?)
    }
}

impl<L: ShardLink> Bridge<L> {
    /// This process could serve now: the old one may begin.
    pub(in crate::bridge) fn ready_to_take(&mut self) {
        let Some(taking) = &mut self.handover.taking else {
            return;
        };
        if !std::mem::replace(&mut taking.is_ready, true) {
            let pid = taking.welcome.pid;
            tracing::info!(
                node = self.node_id,
                pid,
                "ready to take over from the process before"
            );
            // If it cannot be said the link has ended, which is heard next.
            _ = taking.send(&Packet::Ready(Empty {}));
        }
    }

    /// What the old process says.
    pub(in crate::bridge) fn hear_predecessor(
        &mut self,
        heard: Result<Received, LinkError>,
    ) -> Result<(), BridgeError> {
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        let refused = |reason: String| BridgeError::Predecessor { reason };
        match heard {
            Ok((Packet::State(state), _)) => self.take_state(state),
            Ok((Packet::Topics(topics), _)) => {
                self.prove(&topics);
                Ok(())
            }
            Ok((Packet::Nodes(state), _)) => self.take_nodes(state),
            Ok((Packet::Frames(frames), _)) => self.take_frames(frames),
            Ok((Packet::Connections(part), sockets)) => self.take_connections(part, sockets),
            Ok((Packet::End(end), _)) if taking.awaited.is_none() => self.take_end(&end),
            Ok((Packet::Yours(yours), _)) if taking.is_imported => {
                self.take_over(&yours);
                Ok(())
            }
            Ok((Packet::Refused(Refused { reason }), _)) => Err(refused(reason)),
            Ok((packet, _)) => Err(refused(format!("{} came out of turn", packet.name()))),
            // It died with everything handed over: nobody else serves.
            Err(_) if taking.is_imported => {
                tracing::warn!(
                    node = self.node_id,
                    "the process before died while it handed over"
                );
                self.take_over(&Yours::default());
                Ok(())
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// A signal asks it to end: while the old process can go on it does.
    pub(in crate::bridge) fn stop_taking(&mut self) -> Result<(), BridgeError> {
        match &mut self.handover.taking {
            Some(taking) if taking.is_imported => {
                taking.stop_waits = true;
                Ok(())
            }
            Some(_) | None => Err(BridgeError::Predecessor {
                reason: "a signal asked this process to stop".to_owned(),
            }),
        }
    }

    /// Subscribes to what the old process has subscribed to since it said so first.
    fn prove(&mut self, topics: &Topics) {
        let (Some(nodes), Some(taking)) = (&mut self.nodes, &mut self.handover.taking) else {
            return;
        };
        let partitions = topics.partitions.iter();
        let partitions: Vec<Partition> = partitions
            .filter_map(|number| Partition::from_number(*number))
            .collect();
        nodes.follow(&partitions);
        taking.owes_proof = Some(partitions);
        self.say_proven();
    }

    /// Says that all topics are heard, once they are.
    pub(in crate::bridge) fn say_proven(&mut self) {
        let (Some(nodes), Some(taking)) = (&self.nodes, &mut self.handover.taking) else {
            return;
        };
        let owed = taking.owes_proof.as_ref();
        if owed.is_some_and(|partitions| nodes.is_proven(partitions)) {
            taking.owes_proof = None;
            // If it cannot be said the link has ended, which is heard next.
            _ = taking.send(&Packet::Proven(Empty {}));
        }
    }

    fn take_nodes(&mut self, state: State) -> Result<(), BridgeError> {
        let count = state.records.len();
        if let Some(taking) = &mut self.handover.taking {
            let records = state.records.into_iter().map(ByteBuf::into_vec);
            taking.nodes.extend(records);
        }
        self.taken(count, |came, count| came.states += count)
    }

    /// Goes to all shards: each takes what is its own.
    fn take_state(&mut self, state: State) -> Result<(), BridgeError> {
        let count = state.records.len();
        let records: Arc<[Vec<u8>]> = state.records.into_iter().map(ByteBuf::into_vec).collect();
        let on_the_way = self.on_the_way(records.iter().map(Vec::len).sum());
        self.broadcast(|| {
            FromBridge::Import(Box::new(Import {
                state: Arc::clone(&records),
                on_the_way: on_the_way.clone(),
                ..Import::default()
            }))
        });
        drop(on_the_way);
        self.taken(count, |came, count| came.states += count)
    }

    /// Goes to all shards: each makes of it what one of its connections refers to.
    fn take_frames(&mut self, part: Frames) -> Result<(), BridgeError> {
        let (count, numbers) = (part.frames.len(), part.numbers.len());
        if count != numbers {
            let reason = format!("{count} frames came with {numbers} numbers");
            return Err(BridgeError::Predecessor { reason });
        }
        let numbered = part.numbers.into_iter().zip(part.frames);
        let frames: Arc<[SharedFrame]> = numbered
            .map(|(number, bytes)| SharedFrame {
                number,
                bytes: bytes.into_vec().into(),
            })
            .collect();
        let on_the_way = self.on_the_way(frames.iter().map(|it| it.bytes.len()).sum());
        self.broadcast(|| {
            FromBridge::Import(Box::new(Import {
                frames: Arc::clone(&frames),
                on_the_way: on_the_way.clone(),
                ..Import::default()
            }))
        });
        drop(on_the_way);
        self.taken(count, |came, count| came.states += count)
    }

    fn take_connections(
        &mut self,
        part: Connections,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), BridgeError> {
        let count = part.records.len();
        if sockets.len() != count {
            let reason = format!("{count} connections came with {} sockets", sockets.len());
            return Err(BridgeError::Predecessor { reason });
        }
        let on_the_way = self.on_the_way(part.records.iter().map(|it| it.len()).sum());
        let records = part.records.into_iter().map(ByteBuf::into_vec);
        let connections = sockets.into_iter().zip(records).collect();
        let shard = ShardId(part.shard % self.link.shards());
        let import = Import {
            connections,
            on_the_way,
            ..Import::default()
        };
        let message = FromBridge::Import(Box::new(import));
        self.outbox.send(&self.link, shard, message);
        self.taken(count, |came, count| came.connections += count)
    }

    fn taken(&mut self, count: usize, add: impl Fn(&mut End, u64)) -> Result<(), BridgeError> {
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        add(&mut taking.came, count as u64);
        taking.intake.owe(u32::try_from(count).unwrap_or(u32::MAX));
        self.acknowledge().map_err(lost)
    }

    /// So many bytes are on their way to the shards.
    fn on_the_way(&mut self, bytes: usize) -> Option<Arc<OnTheWay>> {
        let taking = self.handover.taking.as_mut();
        taking.map(|taking| taking.intake.goes_on(bytes))
    }

    /// Says what has come, if the shards have room for more.
    fn acknowledge(&mut self) -> Result<(), LinkError> {
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        while let Some(count) = taking.intake.take_due() {
            taking.send(&Packet::Taken(Taken { count }))?;
        }
        Ok(())
    }

    /// Goes on with taking, when the shards have put something in its place.
    pub(in crate::bridge) fn step_taking(&mut self) {
        // If it cannot be said the link has ended, which is heard next.
        _ = self.acknowledge();
    }

    fn take_end(&mut self, end: &End) -> Result<(), BridgeError> {
        let shards = self.link.shards();
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        if taking.came != *end {
            let reason = format!("{end:?} was sent, {:?} has come", taking.came);
            return Err(BridgeError::Predecessor { reason });
        }
        taking.awaited = Some(shards);
        if let Some(nodes) = &mut self.nodes {
            let records = std::mem::take(&mut taking.nodes);
            nodes.take_records(&records).map_err(|error| {
                let reason = format!("what it knows of the other nodes: {error}");
                BridgeError::Predecessor { reason }
            })?;
        }
        self.broadcast(|| {
            FromBridge::Import(Box::new(Import {
                is_last: true,
                ..Import::default()
            }))
        });
        Ok(())
    }

    /// A shard has put everything in its place.
    pub(in crate::bridge) fn take_imported(&mut self, part: ImportedPart) {
        let Some(taking) = &mut self.handover.taking else {
            return;
        };
        let Some(awaited) = &mut taking.awaited else {
            return;
        };
        *awaited = awaited.saturating_sub(1);
        taking.imported.connections += part.connections;
        taking.imported.refused += part.refused;
        taking.closing += part.closing;
        taking.stuck += part.stuck;
        if *awaited == 0 && !std::mem::replace(&mut taking.is_imported, true) {
            // If it cannot be said the old process has died, which is heard next.
            _ = taking.send(&Packet::Imported(taking.imported.clone()));
        }
    }

    /// This process serves from now on.
    fn take_over(&mut self, yours: &Yours) {
        let Some(taking) = self.handover.taking.take() else {
            return;
        };
        let Taking {
            link,
            welcome,
            imported,
            closing,
            stuck,
            intake,
            stop_waits,
            ..
        } = taking;
        if yours.awaits_begun {
            // If it cannot be said the old process has died, and nobody else serves.
            _ = link.try_send(&Packet::Begun(Empty {}), &[]);
        }
        let takes_webhooks = yours.webhooks_follow && self.webhooks.is_enabled();
        if takes_webhooks {
            self.webhooks.expect_heritage();
        } else if yours.webhooks_follow {
            let reason = "there are no webhooks on it (queue.driver)".to_owned();
            // If it cannot be said the old process has ended.
            _ = link.try_send(&Packet::Refused(Refused { reason }), &[]);
        }
        if takes_webhooks || yours.awaits_begun {
            let heir = Heir::new(link, takes_webhooks, yours.awaits_begun);
            self.handover.heir = Some(heir);
        }
        self.handover.doors.take_over_files();
        self.handover.unwanted.clear();
        self.begin_serving();
        let mut told = Told::new();
        if let Some(nodes) = &mut self.nodes {
            nodes.take_over(&self.apps, &mut told);
        }
        self.tell(told);
        self.link.ring();
        self.link.thaw();
        self.handover.doors.set_open(true);
        if !yours.awaits_begun {
            self.supervisor.named();
        }
        self.handover.counts[0] += 1;
        // If it died it did not say how many.
        let closed = yours.left.max(stuck) - stuck + closing + imported.refused;
        let connections = imported.connections - closing;
        tracing::info!(
            node = self.node_id,
            from = welcome.pid,
            connections,
            closed,
            silence_ms = yours.silence_ms(),
            waited_bytes = intake.waiting_bytes_highest,
            held_up = intake.held_up,
            "taken over"
        );
        self.report(yours, welcome, [connections, closed]);
        self.announce();
        if stop_waits {
            self.begin_drain();
        }
    }

    /// What `sockudo upgrade` asks this process for.
    fn report(&mut self, yours: &Yours, before: Welcome, [connections, closed]: [u64; 2]) {
        self.handover.last = Some(UpgradeReport {
            number: self.handover.counts.iter().sum(),
            state: "done".to_owned(),
            reason: None,
            from_version: before.version,
            to_version: self.build.version.to_owned(),
            pid: std::process::id(),
            connections,
            closed,
            silence_ms: yours.silence_ms(),
        });
    }
}

impl<L: ShardLink> Bridge<L> {
    /// Shards go on with what they have; who cannot go on here goes as in a drain.
    #[expect(
        clippy::disallowed_methods,
        reason = "the bridge reads the clock here and hands it on"
    )]
    fn begin_serving(&mut self) {
        let drain = &self.config.drain;
        let until = Instant::now() + Duration::from_secs(drain.deadline_s.into());
        let (until, rate_per_s) = (self.millis_of(until), drain.rate_per_s);
        self.broadcast(|| FromBridge::TakenOver { until, rate_per_s });
    }
}

fn lost(error: LinkError) -> BridgeError {
    BridgeError::Predecessor {
        reason: error.to_string(),
    }
}
