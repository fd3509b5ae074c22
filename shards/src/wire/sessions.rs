//! Data path. The TLS of a shard's rows, where there is any.
//!
//! Owns: `TlsPort`, what new connections are offered; `Sessions`: one `Tls` per row, the handshakes
//! that have something to do, the bytes that wait to be opened.
//! May depend on: rustls, `tls`, `records`, `keys`, `carried`, `application`, `work`,
//! `connections::row_bytes`.
//! Invariants: what waits to be opened on a shard is at most `INPUT_BYTES_MAX`; a row is listed for
//! its handshake once at most.

use super::{
    carried::CarriedTls,
    keys::overheard,
    records::{Alert, Front, OVERHEAD_BYTES_MAX, Opened, RECORD_BYTES_MAX, front},
    tls::{Failure, Progress, Tls},
};
use crate::{application::Slot, connections::row_bytes, work::Work};
use rustls::ServerConfig;
use std::{collections::VecDeque, sync::Arc};

/// TLS as new connections are offered it.
#[derive(Clone, Debug)]
pub struct TlsPort {
    /// Must allow secrets to be taken out: the runtime opens and seals records itself.
    pub config: Arc<ServerConfig>,
    /// What a full handshake costs: its signature is most of it.
    pub handshake: Work,
    /// What is said to whoever speaks something else.
    pub not_tls: &'static [u8],
}

impl TlsPort {
    fn overheard(self) -> Self {
        Self {
            config: overheard(&self.config),
            ..self
        }
    }
}

/// What happened, per shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsCounters {
    /// Handshakes done in full.
    pub handshakes_full: u64,
    /// Handshakes that went on where an earlier connection was.
    pub handshakes_resumed: u64,
    /// Handshakes that failed: the first bytes were not TLS.
    pub failed_not_tls: u64,
    /// The client gave up, with an alert.
    pub failed_by_client: u64,
    /// We could not agree.
    pub failed_by_us: u64,
    /// The connection ended or was closed before its handshake did.
    pub failed_unfinished: u64,
    /// Connections closed since too many bytes waited to be opened.
    pub input_refused: u64,
    /// Connections closed for a record that cannot be opened.
    pub records_refused: u64,
    /// Connections that the client ended with an alert.
    pub alerts_received: u64,
    /// Connections that ended without saying so in TLS.
    pub truncated: u64,
    /// Keys that clients renewed.
    pub key_updates: u64,
    /// Bytes that were sealed, as they were before.
    pub sealed_bytes: u64,
    /// Connections with TLS, those whose handshake is not done among them.
    pub connections: u64,
    /// Connections whose handshake is not done.
    pub handshaking: u64,
    /// Bytes that wait to be opened.
    pub input_bytes: u64,
}

impl TlsCounters {
    /// Handshakes that were never done, for whatever reason.
    pub const fn handshakes_failed(&self) -> u64 {
        self.failed_not_tls + self.failed_by_client + self.failed_by_us + self.failed_unfinished
    }
}

/// The TLS of all rows of a shard.
pub(crate) struct Sessions {
    port: Option<TlsPort>,
    rows: Vec<Option<Box<Tls>>>,
    /// Rows whose handshake can go on.
    ready: VecDeque<Slot>,
    pub(crate) counts: TlsCounters,
    /// Where a send's records are put together; empty while there is no TLS.
    sealed: Vec<u8>,
    /// The row that was looked at last for who holds most of what waits.
    holder_next: usize,
}

/// Bytes of unfinished records and handshakes on one shard: 2 000 of the longest records.
const INPUT_BYTES_MAX: u64 = 32 * 1_024 * 1_024;
/// Of one connection: the longest message of a handshake, in records.
const INPUT_BYTES_OF_ONE_MAX: usize = 69_632;
/// Rows that are looked at for who holds most.
pub(crate) const HOLDERS_LOOKED_AT: usize = 64;

impl Sessions {
    pub(super) fn new(port: Option<TlsPort>) -> Self {
        Self {
            port: port.map(TlsPort::overheard),
            rows: Vec::new(),
            ready: VecDeque::new(),
            counts: TlsCounters::default(),
            sealed: Vec::new(),
            holder_next: 0,
        }
    }

    /// Offers new connections something else from now on.
    pub(crate) fn offer(&mut self, port: TlsPort) {
        assert!(self.port.is_some(), "what was begun plain stays plain");
        self.port = Some(port.overheard());
    }

    /// Gives a row its TLS. False if this shard speaks none.
    pub(crate) fn begin(&mut self, index: u32) -> bool {
        let Some(tls) = self.port.as_ref().and_then(|port| Tls::new(&port.config)) else {
            return false;
        };
        self.set(index as usize, Box::new(tls));
        self.counts.handshaking += 1;
        true
    }

    /// What another process needs to go on with a row; `None` within its handshake.
    pub(crate) fn carry(&self, index: u32) -> Option<CarriedTls> {
        self.rows.get(index as usize)?.as_ref()?.carry()
    }

    /// The TLS of a connection that another process carried: what has begun needs nothing of what new connections are
    /// offered here, be it TLS or none. `None` for another cipher than this process has, and where a handshake is to
    /// begin that this shard does not offer.
    pub(crate) fn adopt(&self, carried: CarriedTls) -> Option<Box<Tls>> {
        if carried.unopened.len() > INPUT_BYTES_OF_ONE_MAX {
            return None;
        }
        let tls = if carried.is_fresh {
            // What has come is kept when there is a row.
            Tls::new(&self.port.as_ref()?.config)
        } else {
            Tls::adopt(carried)
        };
        tls.map(Box::new)
    }

    /// Gives a row what `adopt` made.
    pub(crate) fn put(&mut self, index: u32, tls: Box<Tls>) {
        self.counts.handshaking += u64::from(tls.is_handshaking());
        self.counts.input_bytes += tls.unopened.len() as u64;
        self.set(index as usize, tls);
    }

    fn set(&mut self, index: usize, tls: Box<Tls>) {
        if index >= self.rows.len() {
            self.rows.resize_with(index + 1, || None);
        }
        assert!(self.rows[index].is_none());
        self.rows[index] = Some(tls);
        self.counts.connections += 1;
    }

    /// The connection ends: nothing is opened or sealed any more.
    pub(crate) fn end(&mut self, index: u32) {
        if let Some(tls) = self.rows.get_mut(index as usize).and_then(Option::take) {
            self.counts.connections -= 1;
            self.counts.input_bytes -= tls.unopened.len() as u64;
            if tls.is_handshaking() {
                self.counts.handshaking -= 1;
                self.counts.failed_unfinished += 1;
            }
        }
    }

    fn tls(&mut self, index: u32) -> &mut Tls {
        self.rows[index as usize]
            .as_deref_mut()
            .expect("the row has TLS: its flag says so")
    }

    /// Keeps bytes of a handshake. False if that is too much.
    pub(crate) fn keep_handshake(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        // The first bytes are enough to say that this is not TLS.
        if self.tls(slot.index).is_foreign() {
            return true;
        }
        let is_room = self.has_room_for(slot.index, bytes.len());
        let tls = self.tls(slot.index);
        if !is_room {
            return false;
        }
        tls.unopened.extend_from_slice(bytes);
        if tls.can_step() && !std::mem::replace(&mut tls.is_listed, true) {
            self.ready.push_back(slot);
        }
        self.counts.input_bytes += bytes.len() as u64;
        true
    }

    /// Whose end makes room for so many more bytes of a row, where all rows hold too many: who holds most, and more
    /// than this one then would, of some rows, others each time. So whoever fills the bound is found soon, and not
    /// who comes next.
    // 64 rows, when the bound is met.
    pub(crate) fn crowded_by(&mut self, index: u32, bytes: usize) -> Option<u32> {
        let is_room = self.counts.input_bytes + bytes as u64 <= INPUT_BYTES_MAX;
        if is_room || self.tls(index).is_foreign() {
            return None;
        }
        let mut most = self.tls(index).unopened.len() + bytes;
        let mut found = None;
        for _ in 0..HOLDERS_LOOKED_AT.min(self.rows.len()) {
            self.holder_next = (self.holder_next + 1) % self.rows.len();
            let tls = self.rows[self.holder_next].as_deref();
            if let Some(tls) = tls.filter(|tls| tls.unopened.len() > most) {
                most = tls.unopened.len();
                found = u32::try_from(self.holder_next).ok();
            }
        }
        self.counts.input_refused += u64::from(found.is_some());
        found
    }

    fn has_room_for(&mut self, index: u32, bytes: usize) -> bool {
        let of_one = self.tls(index).unopened.len() + bytes;
        let all = self.counts.input_bytes + bytes as u64;
        let is_room = of_one <= INPUT_BYTES_OF_ONE_MAX && all <= INPUT_BYTES_MAX;
        self.counts.input_refused += u64::from(!is_room);
        is_room
    }

    /// The next row whose handshake can go on.
    pub(crate) fn take_ready(&mut self) -> Option<Slot> {
        self.ready.pop_front()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the row's handshake can go on.
    pub(crate) fn is_ready(&mut self, index: u32) -> bool {
        self.tls(index).is_listed
    }

    /// Whether a handshake has to go on before so many bytes more are kept: they are too many, and it may be near its
    /// end, behind which a client says what it likes. One that has not begun is none of those.
    pub(crate) fn must_step(&mut self, index: u32, bytes: usize) -> bool {
        let tls = self.tls(index);
        let is_full = tls.unopened.len() + bytes > INPUT_BYTES_OF_ONE_MAX;
        is_full && tls.is_listed && tls.has_begun()
    }

    /// Takes a handshake a step further; what it has cost.
    pub(crate) fn step(&mut self, index: u32) -> (Progress, Work) {
        let (not_tls, full) = match &self.port {
            Some(port) => (port.not_tls, port.handshake),
            None => (&b""[..], Work(0)),
        };
        let tls = self.tls(index);
        tls.is_listed = false;
        let (waiting, is_first) = (tls.unopened.len(), !tls.has_begun());
        let progress = tls.step(not_tls);
        let left = tls.unopened.len();
        self.counts.input_bytes -= (waiting - left) as u64;
        let work = match progress {
            Progress::Failed(Failure::NotTls) => Work::TEXT,
            // The first step holds the key exchange and the signature.
            Progress::Waits | Progress::Done { .. } | Progress::Failed(_) if is_first => full,
            Progress::Waits | Progress::Done { .. } | Progress::Failed(_) => Work::HANDSHAKE_STEP,
        };
        self.count(progress);
        (progress, work)
    }

    fn count(&mut self, progress: Progress) {
        let counts = &mut self.counts;
        match progress {
            Progress::Waits => return,
            Progress::Done { is_resumed: true } => counts.handshakes_resumed += 1,
            Progress::Done { is_resumed: false } => counts.handshakes_full += 1,
            Progress::Failed(Failure::NotTls) => counts.failed_not_tls += 1,
            Progress::Failed(Failure::Alerted) => counts.failed_by_client += 1,
            Progress::Failed(Failure::Refused) => counts.failed_by_us += 1,
        }
        counts.handshaking -= 1;
    }

    /// Takes out what waits of a record, to be opened with what has come now.
    pub(crate) fn take_unopened(&mut self, index: u32) -> Vec<u8> {
        let unopened = std::mem::take(&mut self.tls(index).unopened);
        self.counts.input_bytes -= unopened.len() as u64;
        unopened
    }

    /// Keeps the first part of a record. False if that is too much.
    // Nothing is kept, and no room for it, of a connection that is idle between two records.
    pub(crate) fn keep(&mut self, index: u32, mut part: Vec<u8>) -> bool {
        if part.is_empty() {
            return true;
        }
        if !self.has_room_for(index, part.len()) {
            return false;
        }
        if let Ok(Front::Part { whole }) = front(&part) {
            part.reserve_exact(whole.saturating_sub(part.len()));
        }
        self.counts.input_bytes += part.len() as u64;
        self.tls(index).unopened = part;
        true
    }

    /// Opens the record at the front of `bytes`, if it is whole; its length.
    pub(crate) fn open(
        &mut self,
        index: u32,
        bytes: &mut [u8],
    ) -> Result<Option<(Opened, usize)>, Alert> {
        let opened = match front(bytes) {
            Ok(Front::Part { .. }) => return Ok(None),
            Ok(Front::Record { len }) => {
                let opened = self.tls(index).open(&mut bytes[..len]);
                opened.map(|opened| Some((opened, len)))
            }
            Err(alert) => Err(alert),
        };
        match &opened {
            Ok(Some((Opened::KeyUpdate { .. }, _))) => self.counts.key_updates += 1,
            Ok(Some((Opened::Alerted, _))) => self.counts.alerts_received += 1,
            Ok(_) => {}
            Err(alert) => {
                self.counts.records_refused += 1;
                self.tls(index).alert(*alert);
            }
        }
        opened
    }

    /// The bytes that wait sealed, as they were when this was last asked and as they are now.
    pub(crate) fn recount(&mut self, index: u32) -> (u32, u32) {
        let tls = self.tls(index);
        let waiting = row_bytes(tls.unsent.len());
        (std::mem::replace(&mut tls.counted, waiting), waiting)
    }

    /// Bytes can be sealed for this row.
    pub(crate) fn is_open(&mut self, index: u32) -> bool {
        self.tls(index).is_open()
    }

    /// Begins a send with what waits sealed, as much as fits.
    pub(crate) fn begin_send(&mut self, index: u32, bytes_max: usize) -> Sending {
        let tls = self.rows[index as usize]
            .as_deref_mut()
            .expect("the row has TLS: its flag says so");
        let at = self.sealed.len();
        let taken = tls.unsent.len().min(bytes_max);
        self.sealed.extend_from_slice(&tls.unsent[..taken]);
        tls.unsent.drain(..taken);
        if tls.unsent.is_empty() {
            tls.unsent = Vec::new();
        }
        tls.sealed = 0;
        Sending {
            at,
            ends: at + bytes_max,
        }
    }

    /// Whether another record of the longest fits into a send.
    pub(crate) fn has_room(&mut self, index: u32, sending: &Sending) -> bool {
        let is_open = self.tls(index).is_open() && self.tls(index).unsent.is_empty();
        let ends = self.sealed.len() + RECORD_BYTES_MAX + 2 * OVERHEAD_BYTES_MAX;
        is_open && ends <= sending.ends
    }

    /// Adds a record to a send. False if the connection can seal no more.
    pub(crate) fn seal(&mut self, index: u32, plain: &[u8]) -> bool {
        let tls = self.rows[index as usize]
            .as_deref_mut()
            .expect("the row has TLS: its flag says so");
        tls.sealed += row_bytes(plain.len());
        self.counts.sealed_bytes += plain.len() as u64;
        tls.seal(plain, &mut self.sealed)
    }

    /// Adds our end to a send.
    pub(crate) fn say_end(&mut self, index: u32) {
        let tls = self.rows[index as usize]
            .as_deref_mut()
            .expect("the row has TLS: its flag says so");
        tls.say_end(&mut self.sealed);
    }

    /// The bytes of a send, which stay where they are until `sends_settled`; and where they begin.
    pub(crate) fn sent_bytes(&mut self, index: u32, sending: &Sending) -> (*const u8, usize) {
        self.tls(index).at = row_bytes(sending.at);
        let bytes = &self.sealed[sending.at..];
        (bytes.as_ptr(), bytes.len())
    }

    /// Memory for a send of so many bytes that will not move what is being sent.
    pub(crate) fn has_memory_for(&self, bytes: usize) -> bool {
        self.sealed.len() + bytes <= self.sealed.capacity()
    }

    /// A send of `len` bytes is over, of which the kernel took `taken`: keeps the others. Returns
    /// the plain bytes that were sealed for it.
    pub(crate) fn sent(&mut self, index: u32, len: usize, taken: usize) -> u32 {
        assert!(taken <= len);
        let tls = self.rows[index as usize]
            .as_deref_mut()
            .expect("the row has TLS: its flag says so");
        let at = tls.at as usize;
        if taken < len {
            let rest = &self.sealed[at + taken..at + len];
            tls.unsent.splice(..0, rest.iter().copied());
        }
        std::mem::take(&mut tls.sealed)
    }

    /// No send is in flight.
    pub(crate) fn sends_settled(&mut self) {
        self.sealed.clear();
        let has_tls = self.port.is_some() || self.counts.connections > 0;
        if has_tls && self.sealed.capacity() == 0 {
            self.sealed.reserve_exact(SENDS_BYTES);
        }
    }
}

/// A send that is being put together.
pub(crate) struct Sending {
    at: usize,
    ends: usize,
}

/// Memory in which records are put together, between two system calls.
const SENDS_BYTES: usize = 524_288;

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{crypto::aws_lc_rs, server::ResolvesServerCertUsingSni};

    /// With so many rows of TLS, none of which can show a certificate.
    fn sessions(rows: u32) -> Sessions {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("both");
        let config = config.with_no_client_auth();
        let config = config.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let mut sessions = Sessions::new(Some(TlsPort {
            config: Arc::new(config),
            handshake: Work(0),
            not_tls: b"",
        }));
        assert!((0..rows).all(|index| sessions.begin(index)));
        sessions
    }

    fn slot(index: u32) -> Slot {
        Slot {
            index,
            generation: 0,
        }
    }

    /// The start of a handshake's record.
    fn flight(bytes: usize) -> Vec<u8> {
        let mut flight = vec![22, 3, 1, 64, 0];
        flight.resize(bytes, 0);
        flight
    }

    #[test]
    fn a_handshake_holds_so_many_bytes_and_not_one_more() {
        let mut sessions = sessions(2);
        for (bytes, is_kept) in [(INPUT_BYTES_OF_ONE_MAX - 1, true), (1, true), (1, false)] {
            assert_eq!(sessions.keep_handshake(slot(0), &flight(bytes)), is_kept);
        }
        assert_eq!(sessions.counts.input_refused, 1);
        assert!(
            sessions.keep_handshake(slot(1), &flight(9)),
            "another's room"
        );
        let held = INPUT_BYTES_OF_ONE_MAX as u64 + 9;
        assert_eq!(
            sessions.counts.input_bytes, held,
            "what was refused is not held"
        );
        assert_eq!(sessions.counts.connections, 2);
        sessions.end(0);
        sessions.end(1);
        assert_eq!(
            (sessions.counts.input_bytes, sessions.counts.connections),
            (0, 0)
        );
    }

    #[test]
    fn a_shard_holds_so_many_bytes_of_all_and_has_room_again_when_one_ends() {
        let full = (INPUT_BYTES_MAX / INPUT_BYTES_OF_ONE_MAX as u64) as u32;
        let rest = INPUT_BYTES_MAX as usize % INPUT_BYTES_OF_ONE_MAX;
        let mut sessions = sessions(full + 2);
        for index in 0..full {
            assert!(sessions.keep_handshake(slot(index), &flight(INPUT_BYTES_OF_ONE_MAX)));
        }
        assert!(sessions.keep(full, flight(rest)), "exactly as much");
        assert_eq!(sessions.counts.input_bytes, INPUT_BYTES_MAX);
        assert!(!sessions.keep(full + 1, flight(1)), "a part of a record");
        assert!(!sessions.keep_handshake(slot(full + 1), &flight(1)));
        assert_eq!(sessions.counts.input_refused, 2);
        sessions.end(0);
        assert!(sessions.keep_handshake(slot(full + 1), &flight(INPUT_BYTES_OF_ONE_MAX)));
        assert_eq!(sessions.counts.input_bytes, INPUT_BYTES_MAX);
    }
    #[test]
    fn whoever_fills_the_bound_makes_room_for_whoever_holds_less() {
        let full = (INPUT_BYTES_MAX / INPUT_BYTES_OF_ONE_MAX as u64) as u32;
        let rest = INPUT_BYTES_MAX as usize % INPUT_BYTES_OF_ONE_MAX;
        let mut sessions = sessions(full + 3);
        for index in 0..full {
            assert_eq!(sessions.crowded_by(index, INPUT_BYTES_OF_ONE_MAX), None);
            assert!(sessions.keep_handshake(slot(index), &flight(INPUT_BYTES_OF_ONE_MAX)));
        }
        assert_eq!(sessions.crowded_by(full, rest), None, "exactly as much");
        assert!(sessions.keep(full, flight(rest)));
        let longest = sessions.crowded_by(full + 1, INPUT_BYTES_OF_ONE_MAX);
        assert_eq!(longest, None, "nobody holds more");
        for bytes in [1, 16_000] {
            let one = sessions
                .crowded_by(full + 1, bytes)
                .expect("somebody holds more");
            assert!(one < full);
            sessions.end(one);
            assert!(sessions.keep(full + 1, flight(bytes)));
            _ = sessions.take_unopened(full + 1);
            assert!(sessions.keep(full + 2, flight(INPUT_BYTES_OF_ONE_MAX)));
            let part = sessions.take_unopened(full + 2);
            sessions.begin(one);
            assert!(sessions.keep(one, part), "it is full again");
        }
        assert_eq!(sessions.counts.input_refused, 2);
    }
}
