//! One connection for commands, made anew whenever it ends.
//!
//! Owns: `Kept`, the task that keeps it.
//! May depend on: `adapter::{backoff, news, redis}`, `metrics::backend`, the crate `redis`, tokio.
//! Invariants: whoever asks while there is none is told so at once, but for the first attempt, which
//! is waited for; a trouble is logged once while it lasts.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Pipeline, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::CommandFault;
use crate::{
    bridge::adapter::{
        backoff::Backoff,
        news::{Trouble, TroubleKind},
        redis::{
            fault::{closed, fault},
            heartbeat::Heartbeat,
            link::Server,
        },
    },
    metrics::backend::{Fault, Meter},
};

/// A connection that is kept.
pub(super) struct Kept {
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    meter: Meter,
    // Dropping it ends the task.
    _keeper: JoinSet<()>,
}

/// What the task and those who ask have in common.
#[derive(Default)]
struct Shared {
    /// Answers so far: a server that gives any is slow, not dead.
    answers: AtomicU64,
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Begun,
    Up(Arc<Up>),
    Down(Trouble),
}

struct Up {
    connection: MultiplexedConnection,
    server: Server,
}

impl Kept {
    /// `purpose` is for the log.
    pub(super) fn start(server: Server, purpose: &'static str, meter: Meter) -> Self {
        let (sender, state) = watch::channel(State::Begun);
        let shared = Arc::new(Shared::default());
        let mut keeper = JoinSet::new();
        let task = keep(server, purpose, sender, Arc::clone(&shared), meter.clone());
        keeper.spawn(task);
        Self {
            state,
            shared,
            meter,
            _keeper: keeper,
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(..) => None,
            State::Begun => Some("not connected yet".to_owned()),
            State::Down(trouble) => Some(trouble.sentence.clone()),
        }
    }

    /// Why there is none, where another try will not mend that.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(trouble) => trouble.refusal(),
            State::Up(..) | State::Begun => None,
        }
    }

    pub(super) async fn run(
        &self,
        commands: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, CommandFault> {
        let until = Instant::now() + within;
        let up = self.up(until).await?;
        let (mut connection, server) = (up.connection.clone(), &up.server);
        let sent = connection.send_packed_commands(commands, 0, commands.len());
        match timeout_at(until, sent).await {
            Ok(Ok(answers)) => {
                self.shared.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answers)
            }
            Ok(Err(error)) => {
                let trouble = fault(&error, server);
                count(&self.meter, &trouble);
                Err(CommandFault::Unknown(trouble.sentence))
            }
            Err(_) => {
                self.meter.failed(Fault::Timeout);
                let at = server.address();
                Err(CommandFault::Unknown(format!(
                    "{at} does not answer in time"
                )))
            }
        }
    }

    /// The same for commands of any keys that are this server's.
    pub(super) async fn run_each(
        &self,
        commands: &[(String, Cmd)],
        within: Duration,
    ) -> Vec<Result<Value, CommandFault>> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for (_, command) in commands {
            pipeline.add_command(command.clone());
        }
        match self.run(&pipeline, within).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(fault) => vec![Err(fault); commands.len()],
        }
    }

    async fn up(&self, until: Instant) -> Result<Arc<Up>, CommandFault> {
        let mut state = self.state.clone();
        let begun = state.wait_for(|state| !matches!(state, State::Begun));
        match timeout_at(until, begun).await {
            Ok(Ok(state)) => match &*state {
                State::Up(up) => Ok(Arc::clone(up)),
                State::Down(trouble) => Err(CommandFault::Down(trouble.sentence.clone())),
                State::Begun => unreachable!("it was waited for"),
            },
            Ok(Err(_)) | Err(_) => Err(CommandFault::Down("not connected yet".to_owned())),
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("trouble", &self.trouble())
            .finish()
    }
}

/// Connects and listens for the end, for as long as somebody may ask.
async fn keep(
    server: Server,
    purpose: &'static str,
    state: watch::Sender<State>,
    shared: Arc<Shared>,
    meter: Meter,
) {
    let mut has_been_up = false;
    let mut backoff = Backoff::default();
    let mut told: Option<TroubleKind> = None;
    let tell = |trouble: &Trouble, told: &mut Option<TroubleKind>| {
        if !told.is_some_and(|it| it.is_like(trouble.kind)) {
            tracing::warn!(purpose, "{}", trouble.sentence);
            *told = Some(trouble.kind);
        }
    };
    for turn in 0.. {
        let (lost_sender, mut lost) = mpsc::unbounded_channel();
        let on_push = move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                // Whoever listened has gone if this fails: that is an end as well.
                _ = lost_sender.send(());
            }
            Ok(())
        };
        let standing = match server.attempt_nth(turn, on_push).await {
            Ok(standing) => standing,
            Err(trouble) => {
                count(&meter, &trouble);
                tell(&trouble, &mut told);
                state.send_replace(State::Down(trouble));
                sleep(backoff.pause()).await;
                continue;
            }
        };
        if std::mem::replace(&mut has_been_up, true) {
            meter.reconnected();
        }
        let at = standing.server().clone();
        if told.take().is_some() {
            tracing::info!(purpose, "{} answers again", at.address());
        }
        state.send_replace(State::Up(Arc::new(Up {
            connection: standing.connection.clone(),
            server: at.clone(),
        })));
        let mut heartbeat = Heartbeat::new(standing.connection.clone());
        let answers = || shared.answers.load(Ordering::Relaxed);
        let trouble = tokio::select! {
            _ = lost.recv() => closed(&at),
            trouble = heartbeat.until_dead(&at, answers) => trouble,
        };
        count(&meter, &trouble);
        tell(&trouble, &mut told);
        state.send_replace(State::Down(trouble));
        standing.ended(&mut backoff).await;
    }
}

pub(super) fn count(meter: &Meter, trouble: &Trouble) {
    let fault = trouble.kind.fault();
    fault.into_iter().for_each(|it| meter.failed(it));
}
