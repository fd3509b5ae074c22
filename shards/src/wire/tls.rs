//! Data path. TLS of one connection: from its first byte to its last.
//!
//! Owns: `Tls`: the handshake, then the records; what was received and not opened, what was sealed
//! and not sent.
//! May depend on: rustls, `records`, `keys`, `carried`.
//! Invariants: nothing is received or sent here; sealed bytes leave in the order of their numbers;
//! bytes that wait are at most one handshake's flight or one record.

use super::{
    carried::CarriedTls,
    keys::Overheard,
    records::{Alert, Front, Opened, RECORD_BYTES_MAX, Records, front},
};
use rustls::{
    ContentType, ServerConfig,
    crypto::aws_lc_rs::ALL_CIPHER_SUITES,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};
use std::sync::Arc;

/// One connection's TLS.
pub(crate) struct Tls {
    stage: Stage,
    /// Received and not opened: of a handshake, or the first part of a record.
    pub(super) unopened: Vec<u8>,
    /// Sealed and not taken by the kernel.
    pub(super) unsent: Vec<u8>,
    /// Plain bytes in the send that is under way.
    pub(super) sealed: u32,
    /// Of `unsent`, what the row's outbox counts.
    pub(super) counted: u32,
    /// Where the send that is under way begins in the shard's memory for such.
    pub(super) at: u32,
    /// On the list of handshakes that can go on.
    pub(super) is_listed: bool,
    /// A whole record was there.
    has_begun: bool,
    /// Our last alert is said.
    has_ended: bool,
}

enum Stage {
    /// Boxed: it is large, and gone after the handshake.
    Handshake(Box<Handshake>),
    Open(Records),
    /// Nothing can be opened or sealed any more.
    Over,
}

struct Handshake {
    connection: UnbufferedServerConnection,
    /// Bytes at the front of what is unopened that it was given and is not done with: records of a message that is not
    /// whole. It counts on being given them again.
    given: usize,
    /// Its secrets, as far as they were said.
    overheard: Overheard,
}

/// How far a handshake came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for bytes.
    Waits,
    /// It is done; what is left of `unopened` are records.
    Done {
        is_resumed: bool,
    },
    Failed(Failure),
}

/// Why there is no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The first byte is not TLS's.
    NotTls,
    /// The client said that it gives up.
    Alerted,
    /// We cannot go on with what the client said, and told it so.
    Refused,
}

impl Tls {
    pub(super) fn new(config: &Arc<ServerConfig>) -> Option<Self> {
        let handshake = Handshake {
            connection: UnbufferedServerConnection::new(Arc::clone(config)).ok()?,
            given: 0,
            overheard: Overheard::default(),
        };
        Some(Self::at(Stage::Handshake(Box::new(handshake))))
    }

    fn at(stage: Stage) -> Self {
        Self {
            stage,
            unopened: Vec::new(),
            unsent: Vec::new(),
            sealed: 0,
            counted: 0,
            at: 0,
            is_listed: false,
            has_begun: false,
            has_ended: false,
        }
    }

    /// What another process needs to go on; `None` within a handshake. No send is under way.
    pub(super) fn carry(&self) -> Option<CarriedTls> {
        let mut carried = CarriedTls {
            is_fresh: self.is_handshaking(),
            unopened: self.unopened.clone(),
            unsent: self.unsent.clone(),
            has_ended: self.has_ended,
            ..CarriedTls::default()
        };
        match &self.stage {
            Stage::Open(records) => {
                (carried.suite, carried.opening, carried.sealing) = records.carry();
            }
            Stage::Handshake(_) if !self.has_begun => {}
            Stage::Handshake(_) | Stage::Over => return None,
        }
        Some(carried)
    }

    /// Goes on where another process stopped. `None` if it had other ciphers than this one.
    pub(super) fn adopt(carried: CarriedTls) -> Option<Self> {
        let mut suites = ALL_CIPHER_SUITES.iter().copied();
        let suite = suites.find(|suite| u16::from(suite.suite()) == carried.suite)?;
        let records = Records::adopt(suite, &carried.opening, &carried.sealing)?;
        Some(Self {
            unopened: carried.unopened,
            unsent: carried.unsent,
            has_begun: true,
            has_ended: carried.has_ended,
            ..Self::at(Stage::Open(records))
        })
    }

    /// Whether what waits is worth a step of the handshake.
    pub(super) fn can_step(&self) -> bool {
        let given = match &self.stage {
            Stage::Handshake(handshake) => handshake.given,
            Stage::Open(_) | Stage::Over => 0,
        };
        let is_whole = !matches!(front(&self.unopened[given..]), Ok(Front::Part { .. }));
        is_whole || self.is_foreign()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Handshake(_))
    }

    /// What has come is not TLS's.
    pub(super) fn is_foreign(&self) -> bool {
        let first = self.unopened.first();
        !self.has_begun && first.is_some_and(|&first| first != HANDSHAKE)
    }

    /// Takes the handshake as far as the whole records that wait bring it.
    pub(super) fn step(&mut self, not_tls: &[u8]) -> Progress {
        if self.is_foreign() {
            self.unsent.extend_from_slice(not_tls);
            return self.fail(Failure::NotTls);
        }
        let Stage::Handshake(handshake) = &mut self.stage else {
            return Progress::Waits;
        };
        self.has_begun = true;
        let stepped = handshake.step(&mut self.unopened, &mut self.unsent);
        handshake.overheard.hear();
        match stepped {
            Ok(()) if handshake.connection.is_handshaking() => Progress::Waits,
            Ok(()) => self.open_records(),
            Err(failure) => self.fail(failure),
        }
    }

    fn open_records(&mut self) -> Progress {
        let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return self.fail(Failure::Refused);
        };
        let Handshake {
            connection,
            overheard,
            given: _,
        } = *handshake;
        let is_resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        match Records::of(connection, overheard) {
            Ok(records) => {
                self.stage = Stage::Open(records);
                Progress::Done { is_resumed }
            }
            Err(_) => self.fail(Failure::Refused),
        }
    }

    fn fail(&mut self, failure: Failure) -> Progress {
        self.stage = Stage::Over;
        self.unopened = Vec::new();
        self.has_ended = true;
        Progress::Failed(failure)
    }

    /// Opens one whole record in its place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Alert> {
        let Stage::Open(records) = &mut self.stage else {
            return Err(Alert::INTERNAL_ERROR);
        };
        let opened = records.open(record)?;
        if opened == (Opened::KeyUpdate { is_asked: true }) {
            // Who asks again before the first answer left has that one.
            if self.unsent.is_empty() && !records.renew_sealing(&mut self.unsent) {
                return Err(Alert::INTERNAL_ERROR);
            }
        }
        Ok(opened)
    }

    /// Says why nothing more can be opened.
    pub(super) fn alert(&mut self, alert: Alert) {
        if let Stage::Open(records) = &mut self.stage
            && !std::mem::replace(&mut self.has_ended, true)
        {
            records.alert(alert, &mut self.unsent);
        }
    }

    /// Bytes can be sealed.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_)) && !self.has_ended
    }

    /// Appends one record, of at most `RECORD_BYTES_MAX`. False when that cannot be done any more.
    pub(super) fn seal(&mut self, plain: &[u8], into: &mut Vec<u8>) -> bool {
        assert!(plain.len() <= RECORD_BYTES_MAX);
        let Stage::Open(records) = &mut self.stage else {
            return false;
        };
        records.seal(ContentType::ApplicationData, plain, into)
    }

    /// Says that we send no more, once.
    pub(super) fn say_end(&mut self, into: &mut Vec<u8>) {
        if let Stage::Open(records) = &mut self.stage
            && !std::mem::replace(&mut self.has_ended, true)
        {
            records.alert(Alert::CLOSE_NOTIFY, into);
        }
    }
}

/// The first byte of a handshake's record.
const HANDSHAKE: u8 = 22;

impl Handshake {
    /// Hands rustls one record more at a time, so that it never opens one behind the handshake.
    fn step(&mut self, unopened: &mut Vec<u8>, unsent: &mut Vec<u8>) -> Result<(), Failure> {
        while self.connection.is_handshaking() {
            match front(&unopened[self.given..]) {
                Ok(Front::Record { len }) => self.given += len,
                Ok(Front::Part { .. }) => return Ok(()),
                // rustls has the words for it.
                Err(_) => self.given = unopened.len(),
            }
            let (done, outcome) = hand(&mut self.connection, &mut unopened[..self.given], unsent);
            unopened.drain(..done);
            self.given -= done;
            outcome?;
        }
        Ok(())
    }
}

/// Lets rustls work on what it is given until it wants more; how much of it is done with, and whether the
/// handshake can go on.
fn hand(
    handshake: &mut UnbufferedServerConnection,
    given: &mut [u8],
    unsent: &mut Vec<u8>,
) -> (usize, Result<(), Failure>) {
    let mut done = 0;
    loop {
        let UnbufferedStatus { discard, state, .. } =
            handshake.process_tls_records(&mut given[done..]);
        done += discard;
        match state {
            Ok(ConnectionState::EncodeTlsData(mut flight)) => {
                if !encode(&mut flight, unsent) {
                    return (done, Err(Failure::Refused));
                }
            }
            Ok(ConnectionState::TransmitTlsData(flight)) => flight.done(),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                return (done, Ok(()));
            }
            // Nothing of the kind is said before a handshake ends.
            Ok(_) => return (done, Err(Failure::Refused)),
            Err(rustls::Error::AlertReceived(_)) => return (done, Err(Failure::Alerted)),
            Err(_) => {
                fetch_alert(handshake, &mut given[done..], unsent);
                return (done, Err(Failure::Refused));
            }
        }
    }
}

/// After a failure: the alert that tells the client. It is asked for once, and with what was not done with: rustls
/// counts bytes from the front of what it has seen, and would look at them again once it has said its alert.
fn fetch_alert(handshake: &mut UnbufferedServerConnection, left: &mut [u8], unsent: &mut Vec<u8>) {
    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = handshake.process_tls_records(left).state
    {
        encode(&mut alert, unsent);
    }
}

/// Appends what rustls has to send. False if it cannot say it.
fn encode(flight: &mut EncodeTlsData<'_, ServerConnectionData>, unsent: &mut Vec<u8>) -> bool {
    let Err(EncodeError::InsufficientSize(size)) = flight.encode(&mut []) else {
        return false;
    };
    let start = unsent.len();
    unsent.resize(start + size.required_size, 0);
    flight.encode(&mut unsent[start..]).is_ok()
}
