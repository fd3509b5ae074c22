//! Data path. A frame on its way to this shard's subscribers of a channel.
//!
//! Owns: `fan_out`, the slices of large fan-outs.
//! May depend on: `channel::{local, timed}`, `server::{latency, slow}`, `ws::encode`, the turn.
//! Invariants: no table changes while subscribers are walked (who is too slow is closed later); per channel and connection the order of frames is the order of calls.

use std::sync::Arc;

use shards::{
    application::{FrameId, Queued, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer, message::Delivery};
use crate::{
    channel::{
        local::{LocalRef, Slice},
        timed::Timed,
    },
    config::sections::SlowConsumer,
    connection::row::Connection,
    protocol::socket_id::SocketId,
    ws::encode::payload_bytes,
};

/// Positions of one slice of a job, so that several jobs share a turn.
const SLICE_POSITIONS: u32 = 256;

impl ShardServer {
    /// A home's frame for this shard's subscribers.
    pub(super) fn on_delivery(&mut self, turn: &mut impl ServerTurn, delivery: Delivery) {
        let Delivery {
            local,
            frame,
            except,
            began_us,
        } = delivery;
        let except = except.and_then(|id| self.slot_of(id));
        self.fan_out(turn, local, frame, except, began_us);
    }

    /// Queues a frame for all subscribers of a channel here, at once or as a job.
    // Per subscriber: 12 B of list read, one outbox push of 4 B, one local count; no syscall, no
    // allocation, no atomic. 10 000 subscribers = 120 KB of list read in order.
    pub(super) fn fan_out(
        &mut self,
        turn: &mut impl ServerTurn,
        local: LocalRef,
        frame: Arc<[u8]>,
        except: Option<Slot>,
        began_us: Option<u64>,
    ) {
        let Some(channel) = self.locals.get_mut(local) else {
            return;
        };
        // Those who get a frame in this turn anyway get this one in the same send.
        let joins = channel.sent_in_turn == self.turn_number;
        let each = cost_of_sends(!joins, 1, frame.len());
        if channel.has_job() || each.times(channel.subscribers().len()) > turn.work_left() {
            if !channel.has_job() {
                self.jobs.push_back(local);
            }
            turn.spend(Work::ROW.times(2 * channel.segments()));
            channel.add_to_job(&frame, except, began_us);
            return self.note_backlog(turn, local);
        }
        channel.sent_in_turn = self.turn_number;
        let (app, kind, bytes) = (channel.app, channel.kind, frame.len());
        let id = turn.add_frame(frame);
        let policy = self.settings.slow_consumer;
        let mut sent = 0_u64;
        for subscriber in channel.subscribers() {
            if Some(subscriber.slot) == except {
                continue;
            }
            match turn.send_frame(subscriber.slot, id) {
                Queued::Accepted => sent += 1,
                Queued::Gone => {}
                Queued::Full => {
                    self.slow.note(turn, policy, subscriber.slot, (id, bytes));
                }
            }
        }
        let counters = self.counters.app(app);
        counters.messages_sent += sent;
        counters.transmitted_bytes += sent * payload_bytes(bytes) as u64;
        if let Some(began_us) = began_us {
            self.latencies.note(app, kind, Timed { began_us, sent });
        }
        self.relieve_slow(turn);
    }

    /// Goes on with fan-outs under way until this turn's work is done.
    pub(super) fn continue_jobs(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0) {
            let Some(local) = self.jobs.pop_front() else {
                return;
            };
            if self.continue_job(turn, local) {
                self.jobs.push_back(local);
            }
        }
    }

    /// Sends a subscriber at once what a fan-out under way still has for it.
    pub(super) fn catch_up(&mut self, turn: &mut impl ServerTurn, local: LocalRef, position: u32) {
        let Some(channel) = self.locals.get_mut(local) else {
            return;
        };
        let frames = channel.take_position(position);
        if !frames.is_empty() {
            let (start, end) = (position, position + 1);
            let frames = frames.into();
            self.send_slice(turn, local, &Slice { start, end, frames });
            self.relieve_slow(turn);
        }
    }

    /// Does one slice of a channel's job; false when the job is over.
    fn continue_job(&mut self, turn: &mut impl ServerTurn, local: LocalRef) -> bool {
        let channel = self.locals.get_mut(local).expect("a job keeps its row");
        let each = |frames, bytes| cost_of_sends(true, frames, bytes);
        let Some(slice) = channel.take_slice(SLICE_POSITIONS, turn.work_left(), each) else {
            turn.spend(Work::bytes(8 * channel.subscribers().len()));
            self.note_backlog(turn, local);
            let channel = self.locals.held(local.0.index);
            let moved = channel.end_job();
            for it in moved {
                self.reposition(it);
            }
            self.locals.release_if_idle(local);
            return false;
        };
        self.send_slice(turn, local, &slice);
        self.note_backlog(turn, local);
        self.relieve_slow(turn);
        true
    }

    fn send_slice(&mut self, turn: &mut impl ServerTurn, local: LocalRef, slice: &Slice) {
        let channel = self.locals.get(local).expect("the job's channel");
        let mut frames: smallvec::SmallVec<[Sending; 4]> = slice
            .frames
            .iter()
            .map(|it| Sending {
                id: turn.add_frame(Arc::clone(&it.bytes)),
                except: it.except,
                bytes: it.bytes.len(),
                sent: 0,
            })
            .collect();
        let policy = self.settings.slow_consumer;
        let range = slice.start as usize..slice.end as usize;
        for subscriber in &channel.subscribers()[range] {
            if subscriber.has_left() {
                continue;
            }
            let mut refused = false;
            for it in &mut frames {
                if Some(subscriber.slot) == it.except {
                    continue;
                }
                // What follows a refused frame may not overtake it, though it be small enough.
                let queued = if refused && policy != SlowConsumer::Disconnect {
                    Queued::Full
                } else {
                    turn.send_frame(subscriber.slot, it.id)
                };
                match queued {
                    Queued::Accepted => it.sent += 1,
                    Queued::Gone => {}
                    Queued::Full => {
                        refused = true;
                        self.slow
                            .note(turn, policy, subscriber.slot, (it.id, it.bytes));
                    }
                }
            }
        }
        self.count_slice(local, slice, &frames);
    }

    fn count_slice(&mut self, local: LocalRef, slice: &Slice, frames: &[Sending]) {
        let channel = self.locals.get_mut(local).expect("the job's channel");
        let (app, kind) = (channel.app, channel.kind);
        let counters = self.counters.app(app);
        for (frame, it) in slice.frames.iter().zip(frames) {
            counters.messages_sent += it.sent;
            counters.transmitted_bytes += it.sent * payload_bytes(it.bytes) as u64;
            if let Some(timed) = channel.sent(frame, it.sent) {
                self.latencies.note(app, kind, timed);
            }
        }
    }

    /// The slot of a socket, if it is on this shard and open.
    fn slot_of(&self, id: SocketId) -> Option<Slot> {
        let index = self.socket_ids.slot_index(id);
        let is_it = |row: &&Connection| row.is_open() && row.socket_id == id;
        let row = |index: u32| self.connections.get(index as usize).filter(is_it);
        // One that another process has given stands where nobody can read in it.
        let carried = || self.socket_ids.carried(id);
        let index = index
            .filter(|index| row(*index).is_some())
            .or_else(carried)?;
        row(index).map(|row| Slot {
            index,
            generation: row.generation,
        })
    }
}

/// A frame of a slice.
struct Sending {
    id: FrameId,
    except: Option<Slot>,
    bytes: usize,
    /// Subscribers of the slice that it was queued for.
    sent: u64,
}

/// What it costs to give a subscriber so many frames: one send, unless it is sent to anyway.
fn cost_of_sends(begins_send: bool, frames: usize, bytes: usize) -> Work {
    let joined = Work::JOINED_FRAME.times(frames).and(Work::bytes(bytes));
    if begins_send {
        Work::SEND.and(joined)
    } else {
        joined
    }
}
