//! One connection to a server of NATS: how it is made, what it tells, how it ends.
//!
//! Owns: `Link`.
//! May depend on: the rest of `adapter` and `nats`, the crate `async-nats`, tokio.
//! Invariants: a link has one life: what the crate connects after it has no login and subscribes
//! nothing; a link is made only once a message to itself came back; the crate writes nothing any more
//! when `ended` returns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{AuthError, Client, ConnectOptions, Event, ServerError};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    super::{
        backoff::{Backoff, CEILING},
        news::{Trouble, TroubleKind},
        queue::IncomingSender,
        roads::Reporter,
    },
    Duty,
    fault::{self, Denial, fault},
    probe::{Death, Probe},
    server::{Server, Servers},
};

/// A connection that was made.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) probe: Probe,
    /// Complaints of the server, as they came.
    pub(super) denials: mpsc::Receiver<Denial>,
    /// The crate has left the connection, of which `probe` hears later.
    pub(super) left: Left,
    servers: Arc<Servers>,
    number: usize,
    since: Instant,
}

/// The connection, as soon as there is one. Tells why there is none. `lost` is the server of the last one.
pub(super) async fn connect(
    duty: &Duty,
    lost: &mut Option<usize>,
    backoff: &mut Backoff,
    reporter: &mut Reporter,
    incoming: Option<&IncomingSender>,
) -> Link {
    loop {
        let mut told: Option<Trouble> = None;
        for number in duty.servers.round(*lost) {
            match open(duty, number, incoming).await {
                Ok(link) => {
                    *lost = Some(number);
                    return link;
                }
                Err(trouble) => {
                    // That one is down says less than that another does not let us in.
                    let is_gone = trouble.kind.is_like(TroubleKind::Unreachable);
                    if told.is_none() || !is_gone {
                        told = Some(trouble);
                    }
                }
            }
        }
        if let Some(trouble) = told {
            reporter.failed(trouble).await;
        }
        sleep(backoff.pause()).await;
    }
}

pub(super) async fn open(
    duty: &Duty,
    number: usize,
    incoming: Option<&IncomingSender>,
) -> Result<Link, Trouble> {
    let server = duty.servers.server(number);
    let (denials_sender, denials) = mpsc::channel(DENIALS_MAX);
    let (left_sender, left) = watch::channel(false);
    let is_made = Arc::new(AtomicBool::new(false));
    let on_event = on_event(incoming.cloned(), denials_sender, left_sender);
    let login = server.login().await;
    let (asked, has_lived) = (login.clone(), Arc::clone(&is_made));
    // The only way to keep the crate from a second life: it cannot be told to make no attempt, but an
    // attempt without a login is one that fails, and the next would be one too many.
    let answer = move |nonce: Vec<u8>| {
        let is_first = !has_lived.load(Ordering::Relaxed);
        let refused = || AuthError::new("a connection has one life");
        std::future::ready(is_first.then(|| asked.auth(&nonce)).ok_or_else(refused))
    };
    let options = ConnectOptions::with_auth_callback(answer)
        .event_callback(on_event)
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .ignore_discovered_servers()
        .skip_subject_validation(true)
        .ping_interval(PING_EVERY)
        .client_capacity(COMMANDS_MAX)
        .subscription_capacity(MESSAGES_MAX)
        .connection_timeout(duty.servers.connect_within)
        .name("sockudo");
    let connected = duty.servers.secured(options).connect(&server.url).await;
    let client =
        connected.map_err(|error| fault(&error, server, &login, duty.servers.tls_words()))?;
    is_made.store(true, Ordering::Relaxed);
    let inbox = format!("{}i.{:016x}", duty.subjects.stem(), chance());
    let probe = Probe::new(client.clone(), inbox.into(), duty.timeout).await;
    let mut link = Link {
        client,
        probe: probe.map_err(|death| of(death, server))?,
        denials,
        left: Left(left),
        servers: Arc::clone(&duty.servers),
        number,
        since: Instant::now(),
    };
    link.prove(duty.subjects.stem()).await?;
    Ok(link)
}

/// What the crate tells of a connection.
fn on_event(
    incoming: Option<IncomingSender>,
    denials: mpsc::Sender<Denial>,
    left: watch::Sender<bool>,
) -> impl Fn(Event) -> std::future::Ready<()> {
    move |event| {
        match event {
            Event::Disconnected | Event::Closed => _ = left.send_replace(true),
            Event::ServerError(ServerError::Other(words)) => {
                _ = denials.try_send(Denial::new(&words));
            }
            // Cannot be: a subscription holds more than is read at once, and is emptied in between.
            Event::SlowConsumer(_) => {
                if let Some(incoming) = &incoming {
                    incoming.lose(1);
                }
            }
            // What was wrong with the login was said, or the connection ends by it.
            Event::ServerError(
                ServerError::AuthorizationViolation | ServerError::SlowConsumer(_),
            )
            | Event::Connected
            | Event::LameDuckMode
            | Event::Draining
            | Event::ClientError(_) => {}
        }
        std::future::ready(())
    }
}

impl Link {
    pub(super) fn server(&self) -> &Server {
        self.servers.server(self.number)
    }

    /// A login that may not even send itself a message is told so.
    async fn prove(&mut self, stem: &str) -> Result<(), Trouble> {
        tokio::select! {
            biased;
            denial = self.denials.recv() => Err(match denial {
                Some(denial) => denial.trouble(stem, self.server()),
                None => fault::closed(self.server()),
            }),
            heard = self.probe.next() => match heard {
                Ok(_) => Ok(()),
                Err(death) => Err(self.trouble(death)),
            },
        }
    }

    pub(super) fn trouble(&self, death: Death) -> Trouble {
        of(death, self.server())
    }

    /// After its end. One that stood for a while is made anew at once.
    pub(super) async fn ended(self, backoff: &mut Backoff) {
        let stood = self.since.elapsed();
        let Self {
            client,
            probe,
            mut left,
            ..
        } = self;
        drop((client, probe));
        // What the crate still holds must not be sent after what goes over the next connection.
        _ = timeout(LEFT_WITHIN, left.wait()).await;
        if stood >= CEILING {
            backoff.rest();
        } else {
            sleep(backoff.pause()).await;
        }
    }
}

/// Whether the crate has left the connection: it reads and writes nothing there any more.
pub(super) struct Left(watch::Receiver<bool>);

impl Left {
    pub(super) async fn wait(&mut self) {
        // An error: the crate's tasks have ended.
        _ = self.0.wait_for(|is_left| *is_left).await;
    }
}

fn of(death: Death, server: &Server) -> Trouble {
    match death {
        Death::Closed => fault::closed(server),
        Death::Silent => fault::silent(server),
    }
}

pub(super) fn chance() -> u64 {
    // Without chance all share an inbox, where a number that is not awaited is left aside.
    getrandom::u64().unwrap_or_default()
}

/// Three without an answer end the connection in the crate, which until then may still write.
const PING_EVERY: Duration = Duration::from_secs(1);
const LEFT_WITHIN: Duration = Duration::from_secs(5);
/// More than are ever on their way, so that handing over never waits.
const COMMANDS_MAX: usize = 16_384;
/// More messages than the crate can read before it lets others run: 128 times 64 KiB, at 40 bytes each.
const MESSAGES_MAX: usize = 1 << 18;
/// The crate keeps 128 for us.
const DENIALS_MAX: usize = 256;
