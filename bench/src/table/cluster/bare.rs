//! The bare client of a bus, doing what bridges do with it and nothing else.
//!
//! Owns: one publishing and one subscribing connection, each on a thread and a runtime of its own.
//! May depend on: `bus`, `loads`, the crates redis, async-nats, tokio.
//! Invariants: publishes come from another thread, as they do to a bridge; what is due at one moment is one
//! pipeline or one flush; a thread's CPU time is read by itself, between the first publish and the last.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_core::Stream as _;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, PushKind, Value, aio::MultiplexedConnection,
};
use tokio::{runtime::Builder, sync::mpsc};

use super::{
    Run,
    bus::{Bus, Engine},
    loads::{ADDED_KEYS, ADDED_LABELS, BRIDGE_IN, BRIDGE_OUT, BUS_CPU, Load},
    pair::Setup,
};
use crate::{cpu, outcome::Latency, rig::figure};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How the bare client is to do it.
#[derive(Clone, Copy, Debug)]
struct Task {
    engine: Engine,
    port: u16,
    topics: u64,
    bytes: usize,
}

/// Topics that a node of ours would have at most.
const TOPICS_MAX: usize = 1_024;

/// Publishes and hears as much as the load's events in batches of so many bytes.
pub(super) fn run(load: &Load, setup: &Setup, batch_bytes: usize) -> Result<Run, String> {
    let bus = Bus::start(setup.engine).map_err(|error| error.to_string())?;
    let task = Task {
        engine: setup.engine,
        port: bus.address.port(),
        topics: load.channels.min(TOPICS_MAX) as u64,
        bytes: batch_bytes.max(STAMP_BYTES),
    };
    play(task, &bus, load, setup).map_err(|error| error.to_string())
}

/// What a thread says.
enum Said {
    Ready,
    /// CPU time since it was asked for the first time.
    Cpu(Duration),
    Failed(String),
}

fn play(task: Task, bus: &Bus, load: &Load, setup: &Setup) -> Result<Run, Failed> {
    let heard = Arc::new(Heard::default());
    let epoch = Instant::now();
    let (subscriber_said, of_subscriber) = std_mpsc::channel();
    let (subscriber_asks, asks) = mpsc::unbounded_channel();
    let ear = Ear {
        epoch,
        heard: Arc::clone(&heard),
    };
    let subscriber = thread::spawn(move || {
        on_own_runtime(&subscriber_said, async {
            listen(task, ear, asks, &subscriber_said).await
        });
    });
    ready(&of_subscriber)?;
    let (publisher_said, of_publisher) = std_mpsc::channel();
    let (publishes, taken) = mpsc::unbounded_channel();
    let publisher = thread::spawn(move || {
        on_own_runtime(&publisher_said, async {
            publish(task, epoch, taken, &publisher_said).await
        });
    });
    ready(&of_publisher)?;

    let mut pace = load.pace(setup.seconds);
    let expected = pace.total() * load.burst;
    let bus_before = bus.usage()?;
    subscriber_asks.send(Ask::Cpu)?;
    publishes.send(Publish::Cpu)?;
    let (Said::Cpu(out_before), Said::Cpu(in_before)) =
        (of_publisher.recv()?, of_subscriber.recv()?)
    else {
        return Err("the bare client ended early".into());
    };
    while heard.count.load(Ordering::Relaxed) < expected && !pace.gives_up(Instant::now()) {
        while let Some(due) = pace.take_due(Instant::now()) {
            let numbers = due * load.burst..(due + 1) * load.burst;
            let at = Instant::now();
            publishes.send(Publish::Numbers(numbers, at))?;
        }
        let until = pace.next_at().saturating_duration_since(Instant::now());
        thread::sleep(until.clamp(setup.step / 4, setup.step));
    }
    let bus_used = bus.usage()?.since(&bus_before);
    subscriber_asks.send(Ask::Cpu)?;
    publishes.send(Publish::Cpu)?;
    let (Said::Cpu(out), Said::Cpu(into)) = (of_publisher.recv()?, of_subscriber.recv()?) else {
        return Err("the bare client ended early".into());
    };
    drop((publishes, subscriber_asks));
    let _ = (publisher.join(), subscriber.join());
    let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / expected as f64;
    let trips = heard.trips.lock().expect("nobody panics with it");
    let trip_ms = |percentile| trips.histogram.value_at_percentile(percentile) as f64 / 1e6;
    let figures = vec![
        figure(BRIDGE_OUT.0, BRIDGE_OUT.1, "us", us(out - out_before)),
        figure(BRIDGE_IN.0, BRIDGE_IN.1, "us", us(into - in_before)),
        figure(BUS_CPU.0, BUS_CPU.1, "us", us(bus_used.cpu)),
        figure(ADDED_KEYS[0], ADDED_LABELS[0], "ms", trip_ms(50.0)),
        figure(ADDED_KEYS[1], ADDED_LABELS[1], "ms", trip_ms(99.0)),
    ];
    let lost = expected.saturating_sub(heard.count.load(Ordering::Relaxed));
    let lost = (lost > 0).then(|| format!("{lost} of {expected} messages were lost"));
    Ok(Run {
        figures,
        faults: lost.into_iter().collect(),
        void: None,
    })
}

fn ready(said: &std_mpsc::Receiver<Said>) -> Result<(), Failed> {
    const PATIENCE: Duration = Duration::from_secs(20);
    match said.recv_timeout(PATIENCE)? {
        Said::Ready => Ok(()),
        Said::Failed(why) => Err(why.into()),
        Said::Cpu(_) => Err("it was not asked".into()),
    }
}

fn on_own_runtime(said: &std_mpsc::Sender<Said>, work: impl Future<Output = Result<(), Failed>>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(Failed::from)
        .and_then(|runtime| runtime.block_on(work));
    if let Err(error) = ended {
        // The other side may have given up already.
        let _ = said.send(Said::Failed(error.to_string()));
    }
}

enum Ask {
    Cpu,
}

enum Publish {
    Cpu,
    Numbers(std::ops::Range<u64>, Instant),
}

/// What came, for both threads.
#[derive(Default)]
struct Heard {
    count: AtomicU64,
    trips: Mutex<Trips>,
}

struct Trips(Latency);

impl Default for Trips {
    fn default() -> Self {
        Self(Latency::new("trip", "from one to the other"))
    }
}

impl std::ops::Deref for Trips {
    type Target = Latency;

    fn deref(&self) -> &Latency {
        &self.0
    }
}

/// The subscribing end of a message.
#[derive(Clone)]
struct Ear {
    epoch: Instant,
    heard: Arc<Heard>,
}

/// A message begins with the time at which it was handed over, in nanoseconds since the epoch.
const STAMP_BYTES: usize = 8;

impl Ear {
    fn hear(&self, message: &[u8]) {
        let stamp = message.first_chunk::<STAMP_BYTES>();
        let sent_ns = stamp.map_or(0, |stamp| u64::from_be_bytes(*stamp));
        let trip = self
            .epoch
            .elapsed()
            .saturating_sub(Duration::from_nanos(sent_ns));
        self.heard
            .trips
            .lock()
            .expect("nobody panics with it")
            .0
            .record(trip);
        self.heard.count.fetch_add(1, Ordering::Relaxed);
    }

    fn message(task: Task, epoch: Instant, at: Instant) -> Vec<u8> {
        let since = at.saturating_duration_since(epoch);
        let sent_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let mut message = vec![b'x'; task.bytes];
        message[..STAMP_BYTES].copy_from_slice(&sent_ns.to_be_bytes());
        message
    }
}

fn topic(number: u64) -> String {
    format!("bare.events.{number}")
}

async fn redis_connection(
    port: u16,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, Failed> {
    let info = ConnectionAddr::Tcp("127.0.0.1".to_owned(), port).into_connection_info()?;
    let login = info.redis_settings().clone();
    let login = login.set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = Client::open(info.set_redis_settings(login).set_tcp_settings(tcp))?;
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_push_sender(move |info| {
            on_push(info);
            Ok::<(), redis::aio::SendError>(())
        });
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    Ok(connected.await?)
}

async fn nats_client(port: u16) -> Result<async_nats::Client, Failed> {
    Ok(async_nats::connect(format!("nats://127.0.0.1:{port}")).await?)
}

async fn listen(
    task: Task,
    ear: Ear,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    said: &std_mpsc::Sender<Said>,
) -> Result<(), Failed> {
    let topics = (0..task.topics).map(topic);
    // Dropping it ends the subscription.
    let mut _redis = None;
    match task.engine {
        Engine::Redis => {
            let on_push = move |info: PushInfo| {
                if info.kind == PushKind::Message
                    && let Some(Value::BulkString(message)) = info.data.get(1)
                {
                    ear.hear(message);
                }
            };
            let mut connection = redis_connection(task.port, on_push).await?;
            connection.subscribe(&topics.collect::<Vec<_>>()).await?;
            _redis = Some(connection);
        }
        Engine::Nats => {
            let client = nats_client(task.port).await?;
            for topic in topics {
                let mut subscriber = client.subscribe(topic).await?;
                let ear = ear.clone();
                tokio::spawn(async move {
                    while let Some(message) =
                        poll_fn(|waker| Pin::new(&mut subscriber).poll_next(waker)).await
                    {
                        ear.hear(&message.payload);
                    }
                });
            }
            client.flush().await?;
        }
    }
    said.send(Said::Ready)?;
    while let Some(Ask::Cpu) = asks.recv().await {
        said.send(Said::Cpu(cpu::thread_cpu()))?;
    }
    Ok(())
}

async fn publish(
    task: Task,
    epoch: Instant,
    mut taken: mpsc::UnboundedReceiver<Publish>,
    said: &std_mpsc::Sender<Said>,
) -> Result<(), Failed> {
    let mut redis = None;
    let mut nats = None;
    match task.engine {
        Engine::Redis => redis = Some(redis_connection(task.port, |_| {}).await?),
        Engine::Nats => nats = Some(nats_client(task.port).await?),
    }
    said.send(Said::Ready)?;
    while let Some(publish) = taken.recv().await {
        let (numbers, at) = match publish {
            Publish::Numbers(numbers, at) => (numbers, at),
            Publish::Cpu => {
                said.send(Said::Cpu(cpu::thread_cpu()))?;
                continue;
            }
        };
        let messages = numbers.map(|number| {
            let message = Ear::message(task, epoch, at);
            (topic(number % task.topics), message)
        });
        if let Some(connection) = &mut redis {
            let mut pipeline = redis::pipe();
            for (topic, message) in messages {
                pipeline.cmd("PUBLISH").arg(topic).arg(message);
            }
            let count = pipeline.len();
            connection.send_packed_commands(&pipeline, 0, count).await?;
        } else if let Some(client) = &nats {
            for (topic, message) in messages {
                client.publish(topic, message.into()).await?;
            }
        }
    }
    Ok(())
}
