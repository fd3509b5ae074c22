//! Starting and stopping the whole runtime.
//!
//! Owns: `run`: checks, limits, listeners, threads, their order of start and stop.
//! May depend on: every module of this crate.
//! Invariants: the bridge runs only while all shards listen; a panic on any of our threads takes
//! the process down; stopping never waits for longer than a bound.

use crate::{
    application::{Application, ShardId},
    bridge::{BridgeLink, Node, Orders, Pulse, ShardLink, link},
    config::Config,
    doorbell::Doorbell,
    error::{StartError, memlock_bytes},
    freezing::Frost,
    inbound::Inbound,
    listener::{Inherited, Listeners, ShardListener, bind_all},
    mesh::{MeshEnd, mesh},
    ring,
    settling::Order,
    shard::Shard,
    small_pages::leave_huge_pages,
    topology::{self, Topology},
    turn::{Clock, Limits, RingTurn},
    wire::Wire,
    work::{Budget, Work},
};
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{LocalExecutorBuilder, Placement};
use socket2::Socket;
use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
    panic::resume_unwind,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::runtime::LocalOptions;

/// Locked memory that a shard's executor asks for.
const MEMLOCK_BYTES_MIN: u64 = 524_288;
/// Submission depth of the executor's own rings; the net ring does the work.
const EXECUTOR_RING_DEPTH: usize = 32;
/// Buffers that the executor registers (locked memory); we use none of them.
const EXECUTOR_IO_BYTES: usize = 65_536;
/// For how long stopping waits for the shards, beyond what each grants itself.
const STOP_MAX: Duration = Duration::from_millis(5_500);

/// Runs shards and bridge until the bridge's future returns, then stops the shards and returns
/// the future's value.
///
/// `make` is called on each shard's thread. `bridge` runs on a thread of its own with a tokio
/// runtime, when all shards listen. A panic on any of these threads aborts the process. The process
/// has no huge pages from then on.
///
/// # Errors
/// When the host or the configuration does not allow the start; nothing is left running then.
pub fn run<A, B, F, R>(
    mut config: Config,
    make: impl Fn(ShardId) -> A + Send + Clone + 'static,
    bridge: B,
) -> Result<R, StartError>
where
    A: Application,
    B: FnOnce(BridgeLink<A>) -> F + Send + 'static,
    F: Future<Output = R> + 'static,
    R: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the origin of all shards' time")]
    let node_started = config.started.unwrap_or_else(Instant::now);
    config.check()?;
    check_host()?;
    leave_huge_pages();
    let topology = Topology::read().map_err(|source| refused("the affinity mask", source))?;
    let placement = topology::place(&config, &topology)?;
    let shards = u16::try_from(placement.shards.len());
    let shards =
        shards.expect("1024 at most: by the check above, or as many as an affinity mask has");
    let listeners = open_listeners(&mut config, shards)?;
    let waiting = listen_unless_later(&listeners, &config)?;
    let bells = (0..shards).map(|_| Doorbell::new().map(Arc::new));
    let bells: Result<Vec<_>, _> = bells.collect();
    let bells = bells.map_err(|source| refused("an eventfd", source))?;
    let pulses: Vec<_> = (0..shards).map(|_| Pulse::default()).collect();
    let orders = Arc::new(Orders::default());
    orders.accept.store(waiting.is_empty(), Ordering::SeqCst);
    orders.frost.set(first_order(&config));
    let node = Node {
        listeners: listeners.tcp(),
        residence: listeners.residence,
        waiting: RefCell::new(waiting),
        sleeps: Cell::new(config.frozen),
        backlog: config.backlog,
        cores: placement.shards.clone(),
        bridge_core: placement.bridge,
        orders: orders.clone(),
        started: node_started,
    };
    let (bridge_link, shard_links) = link::<A>(&bells, &pulses, &config, node);
    let ends = mesh::<A::Message>(&bells, config.mesh_messages_per_pair(shards));

    let (reports, started) = bounded(usize::from(shards) * 2);
    let mut running = Running::none(orders, bells, started);
    let parts = ends.into_iter().zip(shard_links).zip(listeners.per_shard);
    for (shard, ((mesh, link), listeners)) in (0..).map(ShardId).zip(parts) {
        let index = usize::from(shard.0);
        let seat = Seat {
            shard,
            core: placement.shards[index],
            config: config.clone(),
            node_started,
            mesh,
            link,
            listeners,
            bell: running.bells[index].clone(),
            orders: running.orders.clone(),
            pulse: pulses[index].clone(),
            reports: reports.clone(),
        };
        running.spawn(seat, make.clone())?;
    }
    drop(reports);
    running.wait_for_start()?;
    let value = run_bridge(bridge_link, placement.bridge, bridge)?;
    running.stop();
    Ok(value)
}

/// Opens the listeners, and gives up what the configuration holds of them.
fn open_listeners(config: &mut Config, shards: u16) -> Result<Listeners, StartError> {
    let inherited = Inherited::of(std::mem::take(&mut config.inherited));
    let inherited = inherited.map_err(|source| refused("a copy of a listener", source))?;
    bind_all(&config.listen, config.local.take(), shards, inherited)
}

fn first_order(config: &Config) -> Order {
    if config.frozen {
        Order::FROZEN
    } else {
        Order::default()
    }
}

/// Listens; where another process does so on all the addresses already, gives copies of the sockets
/// instead: whoever comes goes there until this node is ready to serve. A node that starts frozen listens
/// when it thaws.
fn listen_unless_later(listeners: &Listeners, config: &Config) -> Result<Vec<Socket>, StartError> {
    if config.frozen {
        return Ok(Vec::new());
    }
    if listeners.residence.is_succeeded() {
        let copies = listeners.copies();
        return copies.map_err(|source| refused("a copy of a listener", source));
    }
    listeners.listen(config.backlog)?;
    Ok(Vec::new())
}

fn refused(what: &'static str, source: std::io::Error) -> StartError {
    StartError::System { what, source }
}

/// Checks the kernel and io_uring, and raises the limits that we may raise.
fn check_host() -> Result<(), StartError> {
    let found = kernel_release();
    if !is_new_enough(&found) {
        return Err(StartError::KernelTooOld { found });
    }
    raise_limit(libc::RLIMIT_NOFILE);
    raise_limit(libc::RLIMIT_MEMLOCK);
    ring::build(8, 16).map_err(StartError::of_ring)?;
    let limit_bytes = memlock_bytes();
    if limit_bytes < MEMLOCK_BYTES_MIN {
        return Err(StartError::LockedMemory { limit_bytes });
    }
    Ok(())
}

fn kernel_release() -> String {
    // SAFETY: an all-zero utsname is valid; `uname` fills it with terminated strings.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer.
    unsafe { libc::uname(&raw mut names) };
    // SAFETY: terminated by `uname`, or all zero if that failed.
    unsafe { CStr::from_ptr(names.release.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

/// Whether a release like `6.18.4-arch1` is 6.1 or newer. An unreadable one is given the chance.
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 1),
        _ => true,
    }
}

/// Raises a soft limit to its hard limit; where that fails the limit stays.
fn raise_limit(resource: libc::__rlimit_resource_t) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid place for the answer, and then a valid limit.
    unsafe {
        if libc::getrlimit(resource, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(resource, &raw const limit);
        }
    }
}

/// What a shard's thread is given.
struct Seat<A: Application> {
    shard: ShardId,
    core: Option<usize>,
    config: Config,
    node_started: Instant,
    mesh: MeshEnd<A::Message>,
    link: ShardLink<A>,
    listeners: Vec<ShardListener>,
    bell: Arc<Doorbell>,
    orders: Arc<Orders>,
    pulse: Pulse,
    reports: Sender<Report>,
}

/// What a shard's thread says of itself.
enum Report {
    Listening,
    Refused(StartError),
    Stopped,
}

/// The shards' threads.
struct Running {
    orders: Arc<Orders>,
    bells: Vec<Arc<Doorbell>>,
    threads: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
}

impl Running {
    fn none(orders: Arc<Orders>, bells: Vec<Arc<Doorbell>>, reports: Receiver<Report>) -> Self {
        Self {
            orders,
            bells,
            threads: Vec::new(),
            reports,
        }
    }

    fn spawn<A: Application>(
        &mut self,
        seat: Seat<A>,
        make: impl Fn(ShardId) -> A + Send + 'static,
    ) -> Result<(), StartError> {
        let name = format!("shard-{}", seat.shard);
        let work = move || {
            let _guard = AbortOnUnwind;
            let reports = seat.reports.clone();
            let outcome = run_shard(seat, make);
            // Nobody listens any more when stopping has taken too long.
            let _ = reports.send(outcome.map_or_else(Report::Refused, |()| Report::Stopped));
        };
        match thread::Builder::new().name(name).spawn(work) {
            Ok(thread) => self.threads.push(thread),
            Err(source) => {
                self.stop();
                return Err(refused("a shard's thread", source));
            }
        }
        Ok(())
    }

    fn wait_for_start(&mut self) -> Result<(), StartError> {
        for _ in 0..self.threads.len() {
            match self.reports.recv() {
                Ok(Report::Listening | Report::Stopped) => {}
                Ok(Report::Refused(error)) => {
                    self.stop();
                    return Err(error);
                }
                Err(_) => unreachable!("every shard reports before it ends"),
            }
        }
        Ok(())
    }

    /// Stops the shards and joins their threads; one that does not stop in time is left behind.
    #[expect(
        clippy::disallowed_methods,
        reason = "no turn runs here: the caller's thread waits for the others"
    )]
    fn stop(&mut self) {
        self.orders.stop_accepting.store(true, Ordering::SeqCst);
        self.orders.stop.store(true, Ordering::SeqCst);
        self.bells.iter().for_each(|bell| bell.ring());
        let deadline = Instant::now() + STOP_MAX;
        let is_done = |thread: &JoinHandle<()>| thread.is_finished();
        while !self.threads.iter().all(is_done) {
            if self.reports.recv_deadline(deadline).is_err() && Instant::now() >= deadline {
                tracing::warn!("shards did not stop in time: left behind");
                return;
            }
            thread::yield_now();
        }
        for thread in self.threads.drain(..) {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
    }
}

fn run_shard<A: Application>(seat: Seat<A>, make: impl Fn(ShardId) -> A) -> Result<(), StartError> {
    let shard = seat.shard;
    let failed = |reason: String| StartError::Executor {
        shard: shard.0,
        reason,
    };
    let placement = seat.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("shard")
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .make()
        .map_err(|error| failed(error.to_string()))?;
    executor.run(async move {
        let reports = seat.reports.clone();
        let mut shard = sit(seat, make)?;
        shard.start();
        let _ = reports.send(Report::Listening);
        shard.run().await;
        Ok(())
    })
}

/// Makes a shard on its own thread.
fn sit<A: Application>(seat: Seat<A>, make: impl Fn(ShardId) -> A) -> Result<Shard<A>, StartError> {
    let config = &seat.config;
    let wire = Wire::open(
        config.recv_buffers,
        config.recv_buffer_bytes,
        config.tls.clone(),
    );
    let limits = Limits {
        outbox_bytes_max: config.outbox_bytes_max,
        burst_bytes_max: config.burst_bytes_max.max(config.outbox_bytes_max),
        connections_max: config.connections_max,
    };
    let turn = RingTurn::new(
        wire.map_err(StartError::of_ring)?,
        (
            Inbound::new(seat.listeners),
            Frost::starting(first_order(config)),
        ),
        (seat.mesh, seat.link),
        seat.shard,
        limits,
        Budget::new(Work(config.turn_work_us * 1_000)),
        Clock::starting(seat.node_started),
    );
    let application = make(seat.shard);
    let busy_poll_us = config.busy_poll_us;
    Ok(Shard::new(
        application,
        turn,
        seat.bell,
        seat.orders,
        seat.pulse,
        busy_poll_us,
    ))
}

/// Runs the bridge's future on a thread of its own and returns its value.
fn run_bridge<A, B, F, R>(
    link: BridgeLink<A>,
    core: Option<usize>,
    bridge: B,
) -> Result<R, StartError>
where
    A: Application,
    B: FnOnce(BridgeLink<A>) -> F + Send + 'static,
    F: Future<Output = R> + 'static,
    R: Send + 'static,
{
    let work = move || {
        let _guard = AbortOnUnwind;
        if let Some(core) = core
            && let Err(error) = topology::pin_to(core)
        {
            tracing::warn!(core, %error, "the bridge is not pinned");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        // As a task among those that wake it. What `block_on` itself waits for is looked at after a look
        // at the sockets only: one more `epoll_wait` for whatever another task hands over.
        let bridge = runtime.spawn_local(bridge(link));
        let ended = runtime.block_on(bridge);
        // Nobody waits for what blocks beside it: the look-up of a name ends with the process.
        runtime.shutdown_background();
        Ok(ended.unwrap_or_else(|failed| resume_unwind(failed.into_panic())))
    };
    let thread = thread::Builder::new().name("bridge".to_owned()).spawn(work);
    let joined = thread
        .map_err(|source| refused("the bridge's thread", source))?
        .join();
    let Ok(value) = joined else {
        unreachable!("a panic of the bridge aborts the process")
    };
    value.map_err(|source| refused("the bridge's runtime", source))
}

/// Takes the process down when its thread unwinds: a half-dead shard would hold what others
/// wait for.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("a shard or the bridge panicked: aborting");
            std::process::abort();
        }
    }
}

/// Makes any panic of the process print its thread, place and message, and abort at once.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        eprintln!(
            "thread '{}' {panic}: aborting",
            thread.name().unwrap_or("unnamed")
        );
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn kernels_from_6_1_on_are_accepted() {
        for (release, expected) in [
            ("6.1.0", true),
            ("6.18.44-fc", true),
            ("7.0", true),
            ("6.0.19", false),
            ("5.15.0-91-generic", false),
            ("", true),
        ] {
            assert_eq!(is_new_enough(release), expected, "{release:?}");
        }
    }
}
