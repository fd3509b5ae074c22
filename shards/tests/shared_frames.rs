//! Frames that several connections wait for go to another node once.
//!
//! Owns: the tests of `carry_frames`, `adopt_frames` and of what refers to them, over real loopback sockets.
//! May depend on: shards, tokio, tests/support.
//! Invariants: no test sleeps; each waits for a condition with a deadline.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; what shards saw is read by the test"
)]

#[path = "support/mover.rs"]
mod mover;
mod support;

use mover::{
    Ask, FAN_OUT_FRAMES, Mover, Moves, OUTBOX_BYTES_MAX, OWN_EVERY, Parcel, Seen, Told, fanned_out,
    own_behind,
};
use shards::{BridgeLink, Config, ShardId, SharedFrame, run};
use socket2::{Domain, Socket, Type};
use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::Duration,
};
use support::{config, wait_until};
use tokio::sync::oneshot;

/// Clients that read nothing before the hand-over.
const CLIENTS: usize = 12;

/// Runs what waits for sockets beside the bridge.
async fn beside<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.expect("it ends well")
}

fn settings(shards: u16) -> Config {
    Config {
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        ..config(shards)
    }
}

/// One who has said its name, and what it is to get.
struct Listener {
    name: Vec<u8>,
    stream: TcpStream,
}

impl Listener {
    fn connect(address: SocketAddr, number: usize) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Or the kernel would take all of it. Before it connects: what a window has promised is sent.
        socket.set_recv_buffer_size(65_536).expect("a small window");
        socket
            .connect(&address.into())
            .expect("the listener is there");
        let mut stream = TcpStream::from(socket);
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("a timeout");
        let name = format!("s{number:02}").into_bytes();
        stream.write_all(&name).expect("written");
        Self { name, stream }
    }

    /// It gets these frames, byte by byte, and nothing else.
    fn gets(mut self, frames: &[(Vec<u8>, bool)]) {
        for (number, (bytes, _)) in frames.iter().enumerate() {
            let mut got = vec![0; bytes.len()];
            let name = String::from_utf8_lossy(&self.name).into_owned();
            let read = self.stream.read_exact(&mut got);
            read.unwrap_or_else(|error| panic!("{name}, frame {number}: {error}"));
            assert!(got == *bytes, "{name}: frame {number} is another one");
        }
        self.stream
            .shutdown(Shutdown::Write)
            .expect("our side ends");
        let end = self.stream.read_to_end(&mut Vec::new());
        assert_eq!(end.expect("an orderly end"), 0, "more than it is owed");
    }
}

/// All that is sent to one of them, in order, and whether it is its own.
fn all_for(name: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    for number in 0..FAN_OUT_FRAMES {
        all.push((fanned_out(number), false));
        if number % OWN_EVERY == 0 {
            all.push((own_behind(number, name), true));
        }
    }
    all
}

/// What is left of it when so many bytes of shared frames have been dropped behind the hand-over.
fn left_for(parcel: &Parcel, dropped_bytes: usize) -> Vec<(Vec<u8>, bool)> {
    let mut all = all_for(parcel.name());
    let unsent = &parcel.carried.unsent;
    let has_begun = usize::from(unsent[0].sent > 0 || unsent[0].is_own);
    let mut at = all.len() - unsent.len() + has_begun;
    let mut dropped = 0;
    while dropped < dropped_bytes {
        match all[at].1 {
            true => at += 1,
            false => dropped += all.remove(at).0.len(),
        }
    }
    all
}

/// The parcels refer to frames that are told once, and hold nothing of them.
fn holds_each_frame_once(parcels: &[Parcel]) {
    assert_eq!(parcels.len(), CLIENTS);
    let frames: &[SharedFrame] = &parcels[0].frames;
    let mut by_number = HashMap::new();
    for frame in frames {
        let before = by_number.insert(frame.number, &frame.bytes);
        assert!(before.is_none(), "a frame is told twice");
    }
    assert!(frames.len() <= FAN_OUT_FRAMES, "{}", frames.len());
    let (mut referred, mut begun, mut alone) = (0, 0, HashSet::new());
    for parcel in parcels {
        let all = all_for(parcel.name());
        let unsent = &parcel.carried.unsent;
        let first = all.len() - unsent.len();
        for (at, (frame, (bytes, is_own))) in unsent.iter().zip(&all[first..]).enumerate() {
            let Some(number) = frame.shared else {
                let is_rest = at == 0 && frame.is_own && bytes.ends_with(&frame.bytes);
                let is_whole = frame.bytes == *bytes && frame.is_own == *is_own;
                assert!(is_rest || is_whole, "{at}");
                // One who waits for it alone has it as it is.
                assert!(*is_own || alone.insert(first + at), "{at} goes twice");
                continue;
            };
            referred += 1;
            begun += usize::from(frame.sent > 0);
            assert!(frame.bytes.is_empty() && !frame.is_own && !is_own);
            assert!(at == 0 || frame.sent == 0);
            assert!(by_number[&number][..] == bytes[..], "{at}");
        }
    }
    assert!(
        referred > 5 * frames.len(),
        "{referred}: the kernel took it all"
    );
    assert!(begun > 0, "no frame was sent in part");
}

type Work = Box<dyn FnOnce() + Send>;

/// The next node, which adopts what it gets, drops something, and goes on when it is told to.
fn start_heir(
    parcels: oneshot::Receiver<Vec<Parcel>>,
    adopted: oneshot::Sender<usize>,
    go: oneshot::Receiver<Work>,
    (config, dropped_bytes): (Config, usize),
) -> JoinHandle<()> {
    let seen = Arc::new(Seen::default());
    let make = move |shard| Mover::new(shard, seen.clone());
    let bridge = move |mut link: BridgeLink<Mover>| async move {
        let parcels = parcels.await.expect("they come");
        let bytes_left = |parcel: &Parcel| {
            let all = left_for(parcel, dropped_bytes).into_iter();
            let whole: usize = all_for(parcel.name()).iter().map(|it| it.0.len()).sum();
            let left: usize = all.map(|it| it.0.len()).sum();
            let numbered = parcel.frames.iter().map(|it| (it.number, it.bytes.len()));
            let lengths: HashMap<u64, usize> = numbered.collect();
            let waits = parcel.carried.unsent.iter().map(|frame| {
                let length = frame.shared.and_then(|number| lengths.get(&number));
                length.map_or(frame.bytes.len(), |it| it - frame.sent as usize)
            });
            (
                parcel.name().to_vec(),
                waits.sum::<usize>() - (whole - left),
            )
        };
        let expected: HashMap<_, _> = parcels.iter().map(bytes_left).collect();
        let count = link.adopt(parcels).await;
        if count > 0 {
            for told in link.ask_all(|| Ask::Drop(dropped_bytes)).await {
                let Told::Waiting(waiting) = told else {
                    panic!("not what was asked for");
                };
                for (name, bytes) in waiting {
                    assert_eq!(bytes, expected[&name], "{}", String::from_utf8_lossy(&name));
                }
            }
        }
        adopted.send(count).expect("it is awaited");
        let Ok(work) = go.await else { return };
        link.thaw();
        beside(work).await;
    };
    thread::spawn(move || run(config, make, bridge).expect("the heir starts"))
}

/// What becomes of the parcels on their way.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// They come; behind it so many bytes are dropped.
    Whole(usize),
    /// The frames do not come.
    WithoutFrames,
}

fn shared_frames_are_handed_over(way: Way) {
    let seen = Arc::new(Seen::default());
    let (looked, made) = (seen.clone(), seen);
    let make = move |shard: ShardId| Mover::new(shard, made.clone());
    let bridge = move |mut link: BridgeLink<Mover>| async move {
        let address = link.addresses()[0];
        let listeners = beside(move || {
            let listeners = (0..CLIENTS).map(|number| Listener::connect(address, number));
            let listeners: Vec<_> = listeners.collect();
            wait_until("named", || {
                looked.received.load(SeqCst) == 3 * CLIENTS as u64
            });
            listeners
        });
        let listeners = listeners.await;
        link.ask_all(|| Ask::FanOut).await;
        let (parcels_to, parcels) = oneshot::channel();
        let (adopted, adopted_back) = oneshot::channel();
        let (go_to, go) = oneshot::channel();
        let next = Config {
            frozen: true,
            started: Some(link.started()),
            ..settings(3)
        };
        let dropped_bytes = match way {
            Way::Whole(bytes) => bytes,
            Way::WithoutFrames => 0,
        };
        let heir = start_heir(parcels, adopted, go, (next, dropped_bytes));
        link.come_to_rest().await;
        let mut parcels = link.export().await;
        holds_each_frame_once(&parcels);
        let owed = parcels.iter();
        let owed = owed.map(|it| (it.name().to_vec(), left_for(it, dropped_bytes)));
        let mut owed: HashMap<_, _> = owed.collect();
        if way == Way::WithoutFrames {
            for parcel in &mut parcels {
                parcel.frames = [].into();
            }
        }
        assert!(parcels_to.send(parcels).is_ok(), "they are awaited");
        let adopted = adopted_back.await.expect("it says so");
        let reads: Work = Box::new(move || {
            for listener in listeners {
                let frames = owed.remove(&listener.name).expect("it was carried");
                listener.gets(&frames);
            }
        });
        if way != Way::WithoutFrames {
            assert_eq!(adopted, CLIENTS);
            return Some((heir, go_to, reads));
        }
        assert_eq!(adopted, 0, "each refers to what nobody has");
        drop(go_to);
        beside(|| heir.join().expect("it ended")).await;
        link.thaw();
        beside(reads).await;
        None
    };
    let left = run(settings(1), make, bridge).expect("the runtime starts");
    if let Some((heir, go, reads)) = left {
        assert!(go.send(reads).is_ok(), "it is awaited");
        heir.join().expect("it ended well");
    }
}

#[test]
fn a_frame_for_twelve_slow_connections_goes_once_and_all_get_every_byte_in_order() {
    shared_frames_are_handed_over(Way::Whole(0));
}

#[test]
fn behind_a_hand_over_the_oldest_shared_frames_are_dropped_and_none_that_is_own_or_has_begun() {
    shared_frames_are_handed_over(Way::Whole(700_000));
}

#[test]
fn who_refers_to_a_frame_that_did_not_come_is_refused_and_stays_with_its_node() {
    shared_frames_are_handed_over(Way::WithoutFrames);
}
