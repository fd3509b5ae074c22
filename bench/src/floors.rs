//! Floors: the same shapes of load on bare loops of system calls, on a thread of this process.
//!
//! Owns: the plain `send` loop, the epoll + `recv` loop, the recv + HMAC + send loop.
//! May depend on: `client`, `pace`, `measures` (for shapes and samples), hmac, mio.
//! Invariants: a floor's clock is its own thread's CPU clock; its peers are a herd like any subject's.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use mio::{Events, Interest, Poll, Token};
use sha2::Sha256;

use crate::{
    client::{ClientError, Herd, Joining},
    cpu::thread_cpu,
    measures::{
        CLIENT_EVENT_BYTES, Load, Measure, PUBLISHED_BYTES, STEP, STRAGGLERS, Sample,
        ScenarioError, publish,
    },
    pace::Pace,
    target::{Credentials, Target},
    wire::{self, Splitter},
};

/// Bytes around a published event's data: frame header, event and channel names.
const EVENT_FRAME_BYTES: usize = 64;
/// Bytes around a client event's data: frame header and mask, event and channel names.
const CLIENT_FRAME_BYTES: usize = 72;
/// Bytes of an answer to a publish.
const ANSWER_BYTES: usize = 112;

/// One `send` per delivered message, no event loop at all.
pub fn send(load: &Load) -> Result<Sample, ScenarioError> {
    let (mut herd, streams) = pairs(load.subscribers, wire::raw)?;
    let mut pace = Pace::new(Instant::now(), load.publishes_per_s, load.seconds);
    let expected = pace.total() * load.subscribers as u64;
    let frame = vec![b'x'; PUBLISHED_BYTES + EVENT_FRAME_BYTES];
    let expected_bytes = expected * frame.len() as u64;
    let sender = thread::spawn(move || -> io::Result<(Duration, Duration)> {
        let before = thread_cpu();
        while !pace.is_over() {
            thread::sleep(pace.next_at().saturating_duration_since(Instant::now()));
            while pace.take_due(Instant::now()).is_some() {
                for mut stream in &streams {
                    stream.write_all(&frame)?;
                }
            }
        }
        Ok((thread_cpu() - before, pace.latest))
    });
    let mut received = 0;
    let mut give_up_at = None;
    while received < expected_bytes && give_up_at.is_none_or(|at| Instant::now() < at) {
        match herd.receive(STEP * 5, |_, _, bytes| received += bytes.len() as u64) {
            // The sender ends its streams when it is done.
            Err(ClientError::Ended { .. }) => break,
            other => other?,
        }
        if give_up_at.is_none() && sender.is_finished() {
            give_up_at = Some(Instant::now() + STRAGGLERS);
        }
    }
    let ended = sender.join().map_err(|_| ScenarioError::Publisher)?;
    let (cpu, latest) = ended.map_err(ScenarioError::Floor)?;
    Ok(sample(Measure::Fanout, cpu, expected, latest))
}

/// epoll and one `recv` per client event, nothing else.
pub fn recv(load: &Load) -> Result<Sample, ScenarioError> {
    let (herd, streams) = pairs(load.talkers, wire::raw)?;
    let message = vec![b'y'; CLIENT_EVENT_BYTES + CLIENT_FRAME_BYTES];
    let server = Server::start(streams, |_, _| Ok(()))?;
    let pace = Pace::new(Instant::now(), load.client_events_per_s, load.seconds);
    drive(
        Measure::ClientEventAlone,
        server,
        herd,
        pace,
        &message,
        false,
    )
}

/// epoll, one `recv`, one HMAC over the request's head, one `send` per publish.
pub fn publish(load: &Load) -> Result<Sample, ScenarioError> {
    let app = Credentials {
        id: "floor".to_owned(),
        key: "floor-key".to_owned(),
        secret: "floor-secret".to_owned(),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let target = Target {
        name: "floor".to_owned(),
        address,
        authority: address.to_string(),
        app,
        pid: None,
    };
    let request = publish::request(&target);
    let (herd, streams) = pairs(publish::CONNECTIONS, wire::raw)?;
    let hmac = Hmac::<Sha256>::new_from_slice(b"floor-secret").expect("any length will do");
    let answer = vec![b'a'; ANSWER_BYTES];
    let server = Server::start(streams, move |stream, request| {
        let mut hmac = hmac.clone();
        hmac.update(&request[..request.len().min(SIGNED_BYTES)]);
        std::hint::black_box(hmac.finalize());
        stream.write_all(&answer)
    })?;
    let pace = Pace::new(Instant::now(), load.requests_per_s, load.seconds);
    drive(Measure::Publish, server, herd, pace, &request, true)
}

/// Bytes of `POST`, path and query, over which a request is signed.
const SIGNED_BYTES: usize = 160;

/// Sends messages at the pace, waits for answers if there are any, and stops the server.
fn drive(
    measure: Measure,
    server: Server,
    mut herd: Herd,
    mut pace: Pace,
    message: &[u8],
    is_answered: bool,
) -> Result<Sample, ScenarioError> {
    // With answers, a connection has one request under way at most, as in the scenario.
    let mut idle: Vec<usize> = (0..herd.len()).collect();
    let mut give_up_at = None;
    while !pace.is_over() || idle.len() < herd.len() {
        while let Some(&client) = idle.last()
            && let Some(number) = pace.take_due(Instant::now())
        {
            if is_answered {
                idle.pop();
                herd.send(client, message)?;
            } else {
                herd.send(number as usize % herd.len(), message)?;
            }
        }
        herd.receive(STEP, |client, _, _| idle.push(client))?;
        if pace.is_over()
            && Instant::now() > *give_up_at.get_or_insert_with(|| Instant::now() + STRAGGLERS)
        {
            break;
        }
    }
    let total = pace.total();
    let cpu = server.stop()?;
    Ok(sample(measure, cpu, total, pace.latest))
}

fn sample(measure: Measure, cpu: Duration, operations: u64, latest: Duration) -> Sample {
    let value = cpu.as_secs_f64() * 1e6 / operations as f64;
    let mut sample = Sample {
        measure,
        value,
        user_share: 0.0,
        waits_per_operation: 0.0,
        generator_share: 0.0,
        faults: Vec::new(),
    };
    sample.judge_generator(latest);
    sample
}

/// Loopback connections: the clients' ends as a herd, the other ends in blocking mode.
fn pairs(count: usize, split: Splitter) -> Result<(Herd, Vec<TcpStream>), ScenarioError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(ScenarioError::Floor)?;
    let address = listener.local_addr().map_err(ScenarioError::Floor)?;
    let accepting = thread::spawn(move || -> io::Result<Vec<TcpStream>> {
        (0..count)
            .map(|_| {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .collect()
    });
    let herd = Joining::connect(address, count)?.into_herd(split)?;
    let streams = accepting.join().map_err(|_| ScenarioError::Publisher)?;
    Ok((herd, streams.map_err(ScenarioError::Floor)?))
}

/// A thread that waits with epoll and reacts to what each `recv` brings.
struct Server {
    thread: JoinHandle<io::Result<Duration>>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    fn start(
        streams: Vec<TcpStream>,
        mut react: impl FnMut(&mut mio::net::TcpStream, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, ScenarioError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&is_over);
        let mut poll = Poll::new().map_err(ScenarioError::Floor)?;
        let mut watched = Vec::with_capacity(streams.len());
        for (at, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true).map_err(ScenarioError::Floor)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            let registry = poll.registry();
            registry
                .register(&mut stream, Token(at), Interest::READABLE)
                .map_err(ScenarioError::Floor)?;
            watched.push(stream);
        }
        let thread = thread::spawn(move || {
            let mut events = Events::with_capacity(1_024);
            let mut buffer = vec![0; 16_384];
            let before = thread_cpu();
            while !stops.load(Ordering::Relaxed) {
                poll.poll(&mut events, Some(Duration::from_millis(100)))?;
                for event in &events {
                    let stream = &mut watched[event.token().0];
                    match stream.read(&mut buffer) {
                        Ok(0) => return Ok(thread_cpu() - before),
                        Ok(count) => react(stream, &buffer[..count])?,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(thread_cpu() - before)
        });
        Ok(Self { thread, is_over })
    }

    /// Stops the thread; the CPU time that it took.
    fn stop(self) -> Result<Duration, ScenarioError> {
        // What was sent last is worked off: the load's rate leaves the thread idle most of the time.
        thread::sleep(Duration::from_millis(50));
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| ScenarioError::Publisher)?;
        ended.map_err(ScenarioError::Floor)
    }
}
