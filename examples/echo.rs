//! A WebSocket echo server on the runtime and the codec alone:
//! `cargo run --release --example echo -- PORT`.
//!
//! Owns: what it takes to put a protocol on `shards`: one row of state per connection.
//! May depend on: shards, `sockudo::http` (the request head), `sockudo::ws`.
//! Invariants: a connection's unread bytes are at most one head or one message and its header.

#![expect(
    clippy::print_stdout,
    reason = "whoever starts it reads where it listens"
)]

use shards::{
    Application, BridgeLink, Closed, Config, Peer, ShardId, Slot, TurnOf, abort_on_panic, run,
};
use sockudo::{
    http::request::{Version, parse_head},
    ws::{
        codec::{Decoder, Item, Limits},
        encode,
        handshake::{UpgradeRequest, check_upgrade, write_switching_protocols},
    },
};
use std::{error::Error, net::SocketAddr};

const LIMITS: Limits = Limits {
    message_bytes_max: 33_554_432,
};

#[derive(Default)]
struct Row {
    /// A head or frame that has not arrived whole.
    unread: Vec<u8>,
    /// `None` before the upgrade.
    decoder: Option<Decoder>,
}

/// One shard's connections, by `Slot::index`, and a buffer for what is sent.
#[derive(Default)]
struct Echo {
    rows: Vec<Row>,
    out: Vec<u8>,
}

impl Application for Echo {
    type Message = ();
    type ToBridge = ();
    type FromBridge = ();

    fn on_started<T: TurnOf<Self>>(&mut self, _: &mut T) {}

    fn on_accepted<T: TurnOf<Self>>(&mut self, _: &mut T, slot: Slot, _: Peer) {
        let index = slot.index as usize;
        self.rows
            .resize_with(self.rows.len().max(index + 1), Row::default);
        self.rows[index] = Row::default();
    }

    fn on_received<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]) {
        let row = &mut self.rows[slot.index as usize];
        self.out.clear();
        let mut unread = std::mem::take(&mut row.unread);
        // The common case copies nothing: a whole frame is decoded where it was received.
        let step = if unread.is_empty() {
            let step = step(row, bytes, &mut self.out);
            unread.extend_from_slice(step.as_ref().map_or(&[], |taken| &bytes[*taken..]));
            step
        } else {
            unread.extend_from_slice(bytes);
            let step = step(row, &mut unread, &mut self.out);
            unread.drain(..*step.as_ref().unwrap_or(&0));
            step
        };
        row.unread = unread;
        turn.send(slot, &self.out);
        // A real server would hold the input of a peer that does not read its answers.
        if step.is_err() || turn.is_congested(slot) {
            turn.close_after_flush(slot);
        }
    }

    fn on_closed<T: TurnOf<Self>>(&mut self, _: &mut T, slot: Slot, _: Closed) {
        self.rows[slot.index as usize] = Row::default();
    }

    fn on_message<T: TurnOf<Self>>(&mut self, _: &mut T, _: ShardId, (): ()) {}
    fn on_bridge_message<T: TurnOf<Self>>(&mut self, _: &mut T, (): ()) {}
    fn on_timer<T: TurnOf<Self>>(&mut self, _: &mut T, _: Slot) {}
    fn on_tick<T: TurnOf<Self>>(&mut self, _: &mut T) {}
    fn on_turn_end<T: TurnOf<Self>>(&mut self, _: &mut T) -> bool {
        false
    }
}

/// The connection ends when what is in `out` has been sent.
struct Ends;

/// Takes what is whole in `bytes`, writes the answers to `out`, returns how much was taken.
fn step(row: &mut Row, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<usize, Ends> {
    let mut taken = 0;
    if row.decoder.is_none() {
        let Some(head) = parse_head(bytes).map_err(|_| Ends)? else {
            return Ok(0);
        };
        let accept = check_upgrade(&UpgradeRequest {
            is_get_1_1: head.method == "GET" && head.version == Version::Http11,
            upgrade_websocket: head.upgrade_websocket,
            connection_upgrade: head.connection_upgrade,
            key: head.ws_key,
            version: head.ws_version,
        });
        write_switching_protocols(out, &accept.map_err(|_| Ends)?, b"");
        taken = head.bytes;
    }
    let decoder = row.decoder.get_or_insert_default();
    loop {
        let decoded = match decoder.decode(&mut bytes[taken..], &LIMITS) {
            Ok(decoded) => decoded,
            Err(error) => {
                encode::close_frame(out, Some(error.close_code()), "");
                return Err(Ends);
            }
        };
        match decoded.item {
            Some(Item::Text(text)) => encode::text_frame(out, &[text.as_bytes()]),
            Some(Item::Binary(bytes)) => encode::binary_frame(out, bytes),
            Some(Item::Ping(payload)) => encode::pong_frame(out, payload),
            Some(Item::Pong(_)) | None => {}
            Some(Item::Close(code, _)) => {
                encode::close_frame(out, code, "");
                return Err(Ends);
            }
        }
        if decoded.consumed == 0 {
            return Ok(taken);
        }
        taken += decoded.consumed;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    abort_on_panic();
    let port = std::env::args().nth(1).ok_or("usage: echo PORT")?.parse()?;
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    let config = Config {
        listen,
        outbox_bytes_max: 134_217_728,
        ..Config::default()
    };
    let bridge = |link: BridgeLink<Echo>| async move {
        println!(
            "echo on {:?}, {} shards on cores {:?}",
            link.addresses(),
            link.shards(),
            link.cores()
        );
        tokio::signal::ctrl_c().await
    };
    run(config, |_| Echo::default(), bridge)??;
    Ok(())
}
