//! The process that is followed: it starts the next one, freezes, gives everything away, and ends.
//!
//! Owns: `Giving`: how far an upgrade is, by when; `Departing`: what is left to do afterwards.
//! May depend on: `handover`, `bridge::run`'s state.
//! Invariants: whatever goes wrong before the successor has begun, it has ended before anything thaws; few packets with
//! sockets are under way (`parcels`), so that the limit of open files holds.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock here and hands it on"
)]

use std::{
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use shards::{FramesAs, Freeze, application::ShardId};

use super::{
    UpgradeReport,
    heritage::Bequest,
    parcels::Parcels,
    terms::{ALL_WITHIN, STEP_WITHIN},
};
use crate::{
    bridge::{
        link::ShardLink,
        message::FromBridge,
        nodes::{Nodes, Told},
        run::Bridge,
    },
    config::sections::AdapterDriver,
    handover::{
        clock,
        link::{LinkError, Received, Waiting},
        packet::{
            DESCRIPTORS_MAX, Empty, Hello, Imported, Listeners, PROTOCOL, Packet, Refused, Topics,
            Welcome, Yours, spoken,
        },
        process::{self, Program, Successor},
        record::Exported,
    },
};

/// Shards that do not come to rest by then go on: what moves in them could not be handed over.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// A freezing is looked at so often.
const LOOKS_EVERY: Duration = Duration::from_millis(1);
/// Who is being answered on the metrics port is answered.
const GUESTS_WITHIN: Duration = Duration::from_secs(1);
/// And a link that was full is tried again.
const LOOKS_EVERY_DEPARTING: Duration = Duration::from_millis(10);

/// An upgrade under way.
#[derive(Debug)]
pub(in crate::bridge) struct Giving {
    successor: Successor,
    link: Waiting,
    phase: Phase,
    /// Of the phase.
    deadline: Instant,
    to_version: String,
    /// The successor goes on with webhooks that wait.
    takes_webhooks: bool,
    /// It says when it begins to serve.
    says_begun: bool,
    /// It understands frames that go once for all that wait for them.
    takes_frames: bool,
    frozen_at: Option<Instant>,
    /// When the shards were still, and when the successor had been sent everything.
    still_at: Option<Instant>,
    sent_at: Option<Instant>,
    /// When it heard that all is its own, and what that is.
    yielded: Option<(Instant, Imported)>,
    parcels: Parcels,
    /// Partitions whose topics the successor was told of first.
    topics: Vec<u16>,
    /// What there is to say of the other nodes; `None`: nothing, or all is said.
    nodes: Option<OfNodes>,
    /// Clients, and other nodes, must not take this one for gone: by then it serves again, in one process or the
    /// other. `None`: it is not silent yet.
    serves_by: Option<Instant>,
}

/// The part of an upgrade that only nodes of a cluster have.
#[derive(Clone, Copy, Debug)]
struct OfNodes {
    /// Since when the successor hears all that this process hears.
    proven_at: Option<Instant>,
    /// It may not have heard some of it for as long as this process had to be silent.
    has_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The successor has said nothing yet.
    Greeting,
    /// It gets ready.
    Starting,
    /// What the bus brings is kept; what it has brought is told to the shards.
    Hushing,
    /// The shards come to rest.
    Freezing,
    /// They say what they hold, which goes on to the successor.
    Exporting,
    /// The successor puts all of it in its place.
    Importing,
    /// It was told that all is its own.
    Yielding,
}

/// All is given away but the webhooks that wait in this process' memory, which are given yet, or delivered here.
#[derive(Debug)]
pub(in crate::bridge) struct Departing {
    pub(super) ends: Instant,
    guests_until: Instant,
    /// `None`: there is nobody to give them to.
    pub(super) bequest: Option<Bequest>,
    /// It was told to stop, which it does anyway.
    is_told: bool,
}

impl Departing {
    pub(super) fn heir(&self) -> Option<&Waiting> {
        self.bequest.as_ref().map(Bequest::link)
    }

    pub(super) fn due(&self, now: Instant) -> Instant {
        self.ends.min(now + LOOKS_EVERY_DEPARTING)
    }
}

impl Giving {
    pub(super) fn link(&self) -> &Waiting {
        &self.link
    }

    pub(super) fn due(&self, now: Instant) -> Instant {
        match self.phase {
            Phase::Hushing | Phase::Freezing => now + LOOKS_EVERY,
            Phase::Exporting if self.nodes.is_some() => now + LOOKS_EVERY,
            Phase::Greeting
            | Phase::Starting
            | Phase::Exporting
            | Phase::Importing
            | Phase::Yielding => self.ends_at(),
        }
    }

    /// It has come to nothing then.
    fn ends_at(&self) -> Instant {
        let serves_by = self.serves_by.unwrap_or(self.deadline);
        self.deadline.min(serves_by)
    }

    /// The successor may serve already.
    pub(in crate::bridge) fn is_yielding(&self) -> bool {
        self.phase == Phase::Yielding
    }

    /// It has said that it serves, and that was not heard yet.
    fn has_begun(&self) -> bool {
        self.is_yielding() && matches!(self.link.try_receive(), Ok((Packet::Begun(_), _)))
    }

    /// Other nodes hear nothing that this process does of itself.
    pub(in crate::bridge) fn is_silent(&self) -> bool {
        self.phase >= Phase::Hushing
    }

    /// The bus is the successor's: what it brings here that one hears too.
    pub(in crate::bridge) fn is_deaf(&self) -> bool {
        self.phase >= Phase::Exporting && self.nodes.is_none()
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.deadline = Instant::now() + STEP_WITHIN;
    }

    fn send(&self, packet: &Packet, sockets: &[BorrowedFd<'_>]) -> Result<(), String> {
        let sent = self.link.try_send(packet, sockets);
        sent.map_err(|error| format!("{} was not sent: {error}", packet.name()))
    }
}

impl<L: ShardLink> Bridge<L> {
    /// Starts the process that is to follow this one; the number of the upgrade.
    pub(in crate::bridge) fn begin_upgrade(
        &mut self,
        binary: Option<&Path>,
    ) -> Result<u64, String> {
        let number = self.handover.counts.iter().sum::<u64>() + 1;
        let program = self.may_upgrade(binary)?;
        let (successor, link) = program
            .start(binary)
            .map_err(|error| format!("{}: {error}", program.binary(binary).display()))?;
        let link = Waiting::new(Arc::new(link)).map_err(|error| error.to_string())?;
        let binary = program.binary(binary).display().to_string();
        tracing::info!(node = self.node_id, binary, "an upgrade begins");
        let within = Duration::from_secs(self.config.upgrade.ready_within_s.into());
        self.handover.giving = Some(Giving {
            successor,
            link,
            phase: Phase::Greeting,
            deadline: Instant::now() + within,
            to_version: String::new(),
            takes_webhooks: false,
            says_begun: false,
            takes_frames: false,
            frozen_at: None,
            still_at: None,
            sent_at: None,
            yielded: None,
            parcels: Parcels::new(self.link.shards()),
            topics: Vec::new(),
            nodes: self.nodes.as_ref().map(|_| OfNodes {
                proven_at: None,
                has_late: false,
            }),
            serves_by: None,
        });
        self.handover.last = Some(UpgradeReport {
            number,
            state: "running".to_owned(),
            from_version: self.build.version.to_owned(),
            pid: std::process::id(),
            ..UpgradeReport::default()
        });
        Ok(number)
    }

    /// The program, unless something stands against it that can be known before.
    fn may_upgrade(&self, binary: Option<&Path>) -> Result<Program, String> {
        if self.handover.giving.is_some() || self.handover.departing.is_some() {
            return Err("an upgrade is under way".to_owned());
        }
        if self.handover.taking.is_some() || !self.is_announced() {
            return Err("this node is not ready yet".to_owned());
        }
        if self
            .handover
            .heir
            .as_ref()
            .is_some_and(|it| !it.has_settled())
        {
            return Err("what the process before had is still on its way (webhooks)".to_owned());
        }
        if self.drain.is_some() {
            return Err("this node drains: it is about to end".to_owned());
        }
        if self.nodes.as_ref().is_some_and(Nodes::is_failing) {
            return Err(
                "the bus does not work now, so nothing can be taken over from it".to_owned(),
            );
        }
        let Some(program) = &self.handover.program else {
            return Err("it is not known which program this is (/proc/self/exe)".to_owned());
        };
        Program::check(program.binary(binary))?;
        Ok(program.clone())
    }

    /// What the successor says.
    pub(in crate::bridge) fn hear_successor(&mut self, heard: Result<Received, LinkError>) {
        let Some(giving) = &mut self.handover.giving else {
            return;
        };
        let done = match (giving.phase, heard) {
            (_, Err(LinkError::Ended)) => Err(String::new()),
            (_, Err(error)) => Err(error.to_string()),
            (_, Ok((Packet::Refused(Refused { reason }), _))) => Err(reason),
            (Phase::Greeting, Ok((Packet::Hello(hello), _))) => self.welcome(&hello),
            (Phase::Starting, Ok((Packet::Ready(_), _))) => {
                self.begin_hushing();
                Ok(())
            }
            (Phase::Exporting, Ok((Packet::Proven(_), _))) => {
                if let Some(nodes) = &mut giving.nodes {
                    nodes.proven_at = Some(Instant::now());
                }
                Ok(())
            }
            (Phase::Exporting, Ok((Packet::Taken(_), _))) => {
                giving.parcels.acknowledged();
                giving.deadline = Instant::now() + STEP_WITHIN;
                self.pass_parcels_on()
            }
            (Phase::Importing, Ok((Packet::Imported(imported), _))) => self.conclude(imported),
            (Phase::Yielding, Ok((Packet::Begun(_), _))) => {
                self.depart();
                Ok(())
            }
            (_, Ok((packet, _))) => Err(format!("it said {} out of turn", packet.name())),
        };
        if let Err(reason) = done {
            self.end_upgrade(reason);
        }
    }

    /// Answers the first word, with all listening sockets.
    fn welcome(&mut self, hello: &Hello) -> Result<(), String> {
        let Some(giving) = &mut self.handover.giving else {
            return Ok(());
        };
        let Some(protocol) = spoken(PROTOCOL, hello.protocol) else {
            return Err(format!(
                "it is version {}, whose hand-over (protocol {}) this version (protocol {PROTOCOL}) does not \
                 understand: restart instead",
                hello.version, hello.protocol
            ));
        };
        giving.successor.is_named(hello.pid);
        giving.to_version.clone_from(&hello.version);
        giving.takes_webhooks = hello.takes_webhooks;
        giving.says_begun = hello.says_begun;
        giving.takes_frames = hello.takes_frames;
        giving.topics = self.nodes.as_ref().map_or_else(Vec::new, Nodes::topics);
        let port = self.link.listening();
        let port = port.map_err(|error| format!("the port's sockets cannot be copied: {error}"))?;
        let kind = crate::handover::packet::Kind::Tcp;
        let mut listeners: Vec<_> = port.iter().map(|it| (kind, "", it.as_fd())).collect();
        let others = self.handover.doors.copies();
        listeners.extend(others.map(|(kind, place, socket)| (kind, place, socket.as_fd())));
        let welcome = Welcome {
            protocol,
            version: self.build.version.to_owned(),
            pid: std::process::id(),
            shards: self.link.shards(),
            clock_origin_ns: clock::to_ns(self.link.started()),
            node_id: self.node_id.clone(),
            adapter: adapter_name(self.config.adapter.driver).to_owned(),
            cluster: self.config.cluster.name.clone().unwrap_or_default(),
            incarnation: self
                .nodes
                .as_ref()
                .map_or(0, |it| it.exchange().incarnation().0),
            topics: giving.topics.clone(),
            listeners: u32::try_from(listeners.len()).unwrap_or(u32::MAX),
            upgrades: self.handover.counts,
            apps: match self.source {
                Some(_) => self.apps.iter().map(|it| it.app.id.clone()).collect(),
                None => Vec::new(),
            },
            ..Welcome::default()
        };
        let welcome = match &self.tls {
            Some(tls) => welcome.with_tickets(tls.tickets()),
            None => welcome,
        };
        giving.send(&Packet::Welcome(welcome), &[])?;
        for part in listeners.chunks(DESCRIPTORS_MAX) {
            let kinds = part.iter().map(|(kind, _, _)| *kind).collect();
            let places = part
                .iter()
                .map(|(_, place, _)| (*place).to_owned())
                .collect();
            let sockets: Vec<_> = part.iter().map(|(_, _, socket)| *socket).collect();
            giving.send(&Packet::Listeners(Listeners { kinds, places }), &sockets)?;
        }
        giving.phase = Phase::Starting; // Within the same time.
        Ok(())
    }

    fn begin_hushing(&mut self) {
        let Some(giving) = &mut self.handover.giving else {
            return;
        };
        let now = Instant::now();
        giving.phase = Phase::Hushing;
        giving.deadline = now + SETTLES_WITHIN;
        giving.frozen_at = Some(now);
        giving.serves_by = Some(now + ALL_WITHIN);
        let lease = Duration::from_millis(self.config.cluster.lease_ms.into());
        if let Some(nodes) = &mut self.nodes {
            giving.serves_by = Some(now + ALL_WITHIN.min(lease / 2));
            nodes.hold();
        }
        self.handover.doors.set_open(false);
    }

    fn begin_freezing(&mut self, now: Instant) {
        if let Some(giving) = &mut self.handover.giving {
            giving.phase = Phase::Freezing;
            giving.deadline = now + SETTLES_WITHIN;
            self.link.freeze();
        }
    }

    /// Nothing of the bus is on its way to the shards.
    fn is_hushed(&self) -> bool {
        self.outbox.is_empty() && !self.nodes.as_ref().is_some_and(Nodes::has_views)
    }

    /// The shards are still: they say what they hold, and what the bus is to bring the successor proves.
    fn begin_exporting(&mut self, now: Instant) -> Result<(), String> {
        let Some(giving) = &mut self.handover.giving else {
            return Ok(());
        };
        giving.enter(Phase::Exporting);
        giving.still_at = Some(now);
        if let Some(nodes) = &mut self.nodes {
            nodes.flush();
            nodes.hold_all();
            let partitions = nodes.topics();
            if let Some(of_nodes) = &mut giving.nodes {
                of_nodes.has_late = partitions.iter().any(|it| !giving.topics.contains(it));
            }
            giving.send(&Packet::Topics(Topics { partitions }), &[])?;
        }
        let bytes = giving.parcels.share_bytes();
        let frames = match giving.takes_frames {
            true => FramesAs::Numbers,
            false => FramesAs::Bytes,
        };
        self.broadcast(|| FromBridge::Export { bytes, frames });
        Ok(())
    }

    /// What this node knows of the others goes along once it can change no more: all that it published has
    /// reached the bus, all that it hears the successor hears.
    fn give_nodes(&mut self) -> Result<(), String> {
        let (Some(giving), Some(nodes)) = (&mut self.handover.giving, &mut self.nodes) else {
            return Ok(());
        };
        let Some(of_nodes) = giving.nodes else {
            return Ok(());
        };
        // What was sent on a topic before the successor heard it comes to this process, and goes along.
        let way = if of_nodes.has_late {
            nodes.way()
        } else {
            Duration::ZERO
        };
        let has_come = of_nodes.proven_at.is_some_and(|at| at.elapsed() >= way);
        if !has_come || !giving.parcels.are_told() || !nodes.is_all_published() {
            return Ok(());
        }
        let mut records = Vec::new();
        nodes.carry(&self.apps, &mut |record| records.push(record));
        giving.parcels.add_nodes(records);
        giving.nodes = None;
        self.pass_parcels_on()
    }

    /// Sends what may go, lets shards tell more for it, and says the end when all has come.
    fn pass_parcels_on(&mut self) -> Result<(), String> {
        let Some(giving) = &mut self.handover.giving else {
            return Ok(());
        };
        let (parcels, link) = (&mut giving.parcels, &giving.link);
        parcels.push(|packet, sockets| link.try_send(packet, sockets))?;
        let room = parcels.take_room();
        let connections_come = parcels.let_connections_come();
        if giving.nodes.is_none() && parcels.are_done() {
            let end = Packet::End(parcels.sent().clone());
            giving.send(&end, &[])?;
            giving.enter(Phase::Importing);
            giving.sent_at = Some(Instant::now());
        }
        for (shard, bytes) in room {
            let more = FromBridge::ExportMore { bytes };
            self.outbox.send(&self.link, shard, more);
        }
        if connections_come {
            self.broadcast(|| FromBridge::ExportConnections);
        }
        Ok(())
    }

    /// A signal asks a process to stop that ends by itself, when what it has is passed on or delivered: only a second
    /// one cuts that short.
    pub(in crate::bridge) fn is_ending_at_once(&mut self) -> bool {
        let Some(departing) = &mut self.handover.departing else {
            return true;
        };
        let was_told = std::mem::replace(&mut departing.is_told, true);
        if !was_told {
            let node = &self.node_id;
            tracing::info!(
                node,
                "stops when the webhooks that it still has are passed on or delivered"
            );
        }
        was_told
    }

    /// Goes on with an upgrade; true when this process has nothing left to do.
    pub(in crate::bridge) fn step_upgrade(&mut self) -> bool {
        let now = Instant::now();
        if self.handover.departing.is_some() {
            // That has bounds of its own.
            let is_passed_on = self.step_bequest();
            let Some(departing) = &self.handover.departing else {
                return false;
            };
            let is_answering = self.handover.doors.has_guests() && now < departing.guests_until;
            let is_done = self.webhooks.is_idle() && !is_answering;
            return is_passed_on && (is_done || now >= departing.ends);
        }
        let Some(giving) = &mut self.handover.giving else {
            return false;
        };
        if now >= giving.ends_at() {
            if giving.has_begun() {
                self.depart();
                return false;
            }
            let reason = match giving.phase {
                Phase::Greeting => "it said nothing in time: is it this server?",
                Phase::Starting => "it was not ready in time (upgrade.ready_within_s)",
                Phase::Hushing => "what the bus has brought was not told to the shards in time",
                Phase::Freezing => "the shards did not come to rest in time",
                Phase::Exporting if giving.nodes.is_some_and(|nodes| nodes.proven_at.is_none()) => {
                    "it does not hear the bus as this process does"
                }
                Phase::Exporting => "connections were not handed over in time",
                Phase::Importing => "it did not take the connections over in time",
                Phase::Yielding => "it did not begin to serve in time",
            };
            self.end_upgrade(reason.to_owned());
            return false;
        }
        let (phase, has_nodes) = (giving.phase, giving.nodes.is_some());
        let done = match phase {
            Phase::Hushing if self.is_hushed() => {
                self.begin_freezing(now);
                Ok(())
            }
            Phase::Freezing if self.link.freeze_step() == Freeze::Still => {
                self.begin_exporting(now)
            }
            Phase::Exporting if has_nodes => self.give_nodes(),
            Phase::Greeting
            | Phase::Starting
            | Phase::Hushing
            | Phase::Freezing
            | Phase::Exporting
            | Phase::Importing
            | Phase::Yielding => Ok(()),
        };
        if let Err(reason) = done {
            self.end_upgrade(reason);
        }
        false
    }

    /// A part of what a shard holds.
    pub(in crate::bridge) fn take_exported(&mut self, shard: ShardId, exported: Exported) {
        let Some(giving) = &mut self.handover.giving else {
            return; // It was given up meanwhile.
        };
        if giving.phase != Phase::Exporting {
            return;
        }
        giving.deadline = Instant::now() + STEP_WITHIN;
        giving.parcels.add(shard, exported);
        if let Err(reason) = self.pass_parcels_on() {
            self.end_upgrade(reason);
        }
    }

    /// The successor has everything. After the word that this sends it may serve at any moment; whether it does it
    /// says, unless it is of a version that does not.
    fn conclude(&mut self, imported: Imported) -> Result<(), String> {
        let Some(giving) = &mut self.handover.giving else {
            return Ok(());
        };
        let (sent, came) = (
            giving.parcels.sent().connections,
            imported.connections + imported.refused,
        );
        if sent != came {
            return Err(format!("of {sent} connections it has {came}"));
        }
        giving.enter(Phase::Yielding);
        let now = Instant::now();
        giving.yielded = Some((now, imported));
        let silence = giving.frozen_at.map_or(Duration::ZERO, |since| now - since);
        let yours = Packet::Yours(Yours {
            silence_us: u64::try_from(silence.as_micros()).unwrap_or(u64::MAX),
            left: giving.parcels.left(),
            webhooks_follow: giving.takes_webhooks,
            awaits_begun: giving.says_begun,
        });
        giving.send(&yours, &[])?;
        if !giving.says_begun {
            self.depart();
        }
        Ok(())
    }

    /// The successor serves: there is no way back. Nothing that it has stays open here.
    fn depart(&mut self) {
        let Some(mut giving) = self.handover.giving.take() else {
            return;
        };
        self.handover.doors.close();
        self.link.let_go();
        let pid = giving.successor.pid();
        if giving.successor.has_been_ended() {
            tracing::error!(
                node = self.node_id,
                "the new process was ended when it served already: nobody serves"
            );
        } else {
            giving.successor.let_go();
            // Only the main process is believed: the successor says nothing before it knows that it is that.
            self.supervisor.main_is(pid);
        }
        if giving.says_begun {
            // If it cannot be said the successor has died, which is heard next.
            _ = giving.send(&Packet::Named(Empty {}), &[]);
        }
        if self.handover.reload_waits {
            process::reload(pid);
        }
        self.tell_departing(&giving);
        let now = Instant::now();
        let deadline = Duration::from_secs(self.config.drain.deadline_s.into());
        self.handover.departing = Some(Departing {
            ends: now + deadline,
            guests_until: now + GUESTS_WITHIN.min(deadline),
            bequest: None,
            is_told: self.handover.stop_waits,
        });
        // The new process is this node for the others: nothing more is said or heard here.
        self.handover.nodes = self.nodes.take();
        match giving.takes_webhooks {
            true => self.begin_bequest(giving.link),
            false => self.webhooks.hurry(),
        }
    }

    fn tell_departing(&self, giving: &Giving) {
        let yielded = giving.yielded.as_ref();
        let (at, imported) = yielded.map(|(at, imported)| (*at, imported)).unzip();
        let silence = at.zip(giving.frozen_at).map(|(at, since)| at - since);
        tracing::info!(
            node = self.node_id,
            pid = giving.successor.pid(),
            connections = imported.map(|it| it.connections),
            refused = imported.map(|it| it.refused),
            left = giving.parcels.left(),
            sent_bytes = giving.parcels.sent_bytes(),
            silence_ms = silence.unwrap_or_default().as_secs_f64() * 1_000.0,
            settled_ms = between_ms(giving.frozen_at, giving.still_at),
            sent_ms = between_ms(giving.still_at, giving.sent_at),
            imported_ms = between_ms(giving.sent_at, at),
            "another process has taken over: this one ends"
        );
    }

    /// It comes to nothing: the successor ends, everything goes on here. An empty reason: it ended by itself.
    pub(in crate::bridge) fn end_upgrade(&mut self, reason: String) {
        let Some(mut giving) = self.handover.giving.take() else {
            return;
        };
        let status = giving.successor.end();
        if giving.has_begun() {
            // It has served, and what is known here is old.
            self.handover.giving = Some(giving);
            return self.depart();
        }
        let Giving {
            link,
            frozen_at,
            to_version,
            ..
        } = giving;
        drop(link);
        if frozen_at.is_some() {
            let mut told = Told::new();
            if let Some(nodes) = &mut self.nodes {
                nodes.release(&self.apps, &mut told);
            }
            self.tell(told);
            self.link.thaw();
            self.handover.doors.set_open(true);
        }
        let reason = match reason.is_empty() {
            true => format!("the new process {}; its log tells more", how(status)),
            false => format!("the new process cannot take over: {reason}"),
        };
        let silence = frozen_at.map_or(Duration::ZERO, |since| since.elapsed());
        tracing::error!(
            node = self.node_id,
            reason,
            silence_ms = silence.as_secs_f64() * 1_000.0,
            "the upgrade failed: this process goes on"
        );
        self.handover.counts[1] += 1;
        if let Some(last) = &mut self.handover.last {
            last.state = "failed".to_owned();
            last.reason = Some(reason);
            last.to_version = to_version;
            last.silence_ms = silence.as_secs_f64() * 1_000.0;
        }
        if std::mem::take(&mut self.handover.reload_waits) {
            self.reload();
        }
        if std::mem::take(&mut self.handover.stop_waits) {
            self.begin_drain();
        }
    }
}

fn between_ms(from: Option<Instant>, to: Option<Instant>) -> u128 {
    let took = to.zip(from);
    took.map_or(0, |(to, from)| {
        to.saturating_duration_since(from).as_millis()
    })
}

/// As the configuration has it.
pub const fn adapter_name(driver: AdapterDriver) -> &'static str {
    match driver {
        AdapterDriver::Local => "local",
        AdapterDriver::Redis => "redis",
        AdapterDriver::RedisCluster => "redis-cluster",
        AdapterDriver::Nats => "nats",
    }
}

/// How a process ended.
fn how(status: Option<ExitStatus>) -> String {
    let code = status.and_then(|status| status.code());
    let signal = status.and_then(|status| status.signal());
    match (code, signal) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(libc::SIGKILL)) | (None, None) => "let go of the link".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
    }
}
