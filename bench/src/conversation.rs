//! One connection's conversation: from TCP over the upgrade and the greeting to events, or requests and answers.
//!
//! Owns: the socket, its stage, what of its input and output is incomplete.
//! May depend on: `crowd` (what is heard), `line`, `target`, `wire`.
//! Invariants: a unit is handed over once, in order; what a socket does not take is kept, at most
//! `OUTGOING_MAX`, and of a unit at most `INCOMING_MAX`; pings are answered; `Ended` is the last that is heard.

use std::{
    io::{self, ErrorKind},
    mem,
    time::Instant,
};

use crate::{
    crowd::{Heard, Kind, Subscription},
    line::Line,
    target::Target,
    wire::{self, Unit, shortened},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting(Kind),
    Upgrading,
    Greeting,
    Open,
    Http,
}

pub(crate) struct Conversation {
    /// None = ended or dropped.
    pub(crate) stream: Option<Line>,
    stage: Stage,
    unfinished: Vec<u8>,
    outgoing: Vec<u8>,
    socket_id: String,
    wishes: Vec<Subscription>,
    /// Subscriptions that are not confirmed.
    awaited: usize,
    pub(crate) is_paused: bool,
    /// The server may have sent its last byte: read until nothing is left.
    pub(crate) is_ending: bool,
}

pub(crate) type Hear<'a> = dyn FnMut(Instant, Heard<'_>) + 'a;

impl Conversation {
    pub(crate) fn new(stream: Line, kind: Kind, wishes: Vec<Subscription>) -> Self {
        Self {
            stream: Some(stream),
            stage: Stage::Connecting(kind),
            unfinished: Vec::new(),
            outgoing: Vec::new(),
            socket_id: String::new(),
            wishes,
            awaited: 0,
            is_paused: false,
            is_ending: false,
        }
    }

    /// Does what the socket is ready for; ends the connection if that is over.
    pub(crate) fn advance(&mut self, target: &Target, buffer: &mut [u8], hear: &mut Hear<'_>) {
        let advanced = self
            .connect(target, hear)
            .and_then(|()| self.flush())
            .and_then(|()| self.read(target, buffer, hear));
        if let Err(reason) = advanced {
            self.stream = None;
            hear(Instant::now(), Heard::Ended(&reason));
        }
    }

    /// Begins the conversation once TCP is there.
    fn connect(&mut self, target: &Target, hear: &mut Hear<'_>) -> Result<(), String> {
        let (Stage::Connecting(kind), Some(stream)) = (self.stage, &self.stream) else {
            return Ok(());
        };
        if let Some(error) = stream.tcp().take_error().map_err(|error| words(&error))? {
            return Err(words(&error));
        }
        if stream.tcp().peer_addr().is_err() {
            return Ok(()); // An early event: not connected yet.
        }
        hear(Instant::now(), Heard::Connected);
        match kind {
            Kind::Http => self.stage = Stage::Http,
            Kind::WebSocket => {
                self.stage = Stage::Upgrading;
                self.send(wire::upgrade(&target.authority, &target.app.key).as_bytes());
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.outgoing.len() + bytes.len() > OUTGOING_MAX {
            self.outgoing.truncate(OUTGOING_MAX + 1); // The next flush ends the connection.
            self.outgoing.resize(OUTGOING_MAX + 1, 0);
            return;
        }
        self.outgoing.extend_from_slice(bytes);
        // An error comes back with the next event of the socket.
        let _ = self.flush();
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if matches!(self.stage, Stage::Connecting(_)) {
            return Ok(());
        }
        if self.outgoing.len() > OUTGOING_MAX {
            return Err(format!("the server left {OUTGOING_MAX} bytes unread"));
        }
        stream.push().map_err(|error| words(&error))?;
        while !self.outgoing.is_empty() {
            match stream.write(&self.outgoing) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(words(&error)),
            }
        }
        Ok(())
    }

    // Per message: one recv, no allocation, no copy unless a unit is cut in two.
    fn read(
        &mut self,
        target: &Target,
        buffer: &mut [u8],
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        while let Some(stream) = &mut self.stream
            && !self.is_paused
        {
            match stream.read(buffer) {
                Ok(0) => return Err("the server ended the connection".to_owned()),
                Ok(count) => {
                    let now = Instant::now();
                    let may_hold_more = stream.may_hold_more(count, buffer.len());
                    self.digest(target, &buffer[..count], now, hear)?;
                    // A short read empties the socket: a later byte is a new edge. An end that
                    // came with these bytes is none.
                    if !may_hold_more && !self.is_ending {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(words(&error)),
            }
        }
        Ok(())
    }

    /// Takes the complete units and keeps the rest.
    fn digest(
        &mut self,
        target: &Target,
        bytes: &[u8],
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        if self.unfinished.is_empty() {
            let used = self.take_units(target, bytes, now, hear)?;
            self.unfinished.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut input = mem::take(&mut self.unfinished);
        input.extend_from_slice(bytes);
        if input.len() > INCOMING_MAX {
            return Err(format!("a message of more than {INCOMING_MAX} bytes"));
        }
        let used = self.take_units(target, &input, now, hear)?;
        input.drain(..used);
        self.unfinished = input;
        Ok(())
    }

    /// The bytes of the complete units that were taken.
    fn take_units(
        &mut self,
        target: &Target,
        bytes: &[u8],
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let unit = match self.stage {
                Stage::Upgrading | Stage::Http => wire::answer(rest),
                Stage::Greeting | Stage::Open => wire::frame(rest),
                Stage::Connecting(_) => None,
            };
            let Some(unit) = unit else {
                return Ok(used);
            };
            used += unit.len;
            match self.stage {
                Stage::Upgrading if unit.code == 101 => self.stage = Stage::Greeting,
                Stage::Upgrading => {
                    let (code, body) = (unit.code, shortened(unit.payload));
                    return Err(format!("status {code} instead of an upgrade: {body}"));
                }
                Stage::Http => hear(
                    now,
                    Heard::Answer {
                        status: unit.code,
                        body: unit.payload,
                        is_last: unit.is_last,
                    },
                ),
                Stage::Connecting(_) | Stage::Greeting | Stage::Open => {
                    self.take_frame(target, &unit, now, hear)?;
                }
            }
        }
    }

    fn take_frame(
        &mut self,
        target: &Target,
        frame: &Unit<'_>,
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        let payload = frame.payload;
        match u8::try_from(frame.code).unwrap_or_default() {
            wire::CLOSE => return Err(closing(payload)),
            wire::PING => self.send(&wire::masked_control(wire::PONG, payload)),
            wire::PONG => {}
            _ => match wire::event_name(payload) {
                b"pusher:connection_established" => {
                    self.greet(payload)?;
                    hear(now, Heard::Established);
                    for wish in mem::take(&mut self.wishes) {
                        self.subscribe(target, &wish);
                    }
                    if self.awaited == 0 {
                        hear(now, Heard::Subscribed);
                    }
                }
                b"pusher_internal:subscription_succeeded" => {
                    self.awaited = self.awaited.saturating_sub(1);
                    if self.awaited == 0 {
                        hear(now, Heard::Subscribed);
                    }
                }
                b"pusher:ping" => self.send(&wire::masked_text(PONG_EVENT)),
                b"pusher:error" | b"pusher:subscription_error" => {
                    hear(now, Heard::Refused(payload))
                }
                name => hear(now, Heard::Event { name, payload }),
            },
        }
        Ok(())
    }

    fn greet(&mut self, payload: &[u8]) -> Result<(), String> {
        let socket_id = wire::socket_id(payload);
        self.socket_id = socket_id
            .ok_or_else(|| format!("a greeting without a socket id: {}", shortened(payload)))?;
        self.stage = Stage::Open;
        Ok(())
    }

    pub(crate) fn subscribe(&mut self, target: &Target, wish: &Subscription) {
        let (channel, id) = (&*wish.channel, &*self.socket_id);
        let mut proof = String::new();
        if let Some(user) = &wish.user {
            let channel_data = format!(r#"{{"user_id":"{user}"}}"#);
            let auth = target.member_auth(id, channel, &channel_data);
            let quoted = channel_data.replace('"', "\\\"");
            proof = format!(r#","auth":"{auth}","channel_data":"{quoted}""#);
        } else if channel.starts_with("private-") {
            proof = format!(r#","auth":"{}""#, target.channel_auth(id, channel));
        }
        let text =
            format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{proof}}}}}"#);
        self.awaited += 1;
        self.send(&wire::masked_text(text.as_bytes()));
    }
}

/// The longest unit is an event of `--message-bytes` and its frame.
const INCOMING_MAX: usize = 16 << 20;
const OUTGOING_MAX: usize = 1 << 20;
const PONG_EVENT: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;

/// A close frame's code and reason.
fn closing(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("closed with {code}: {}", shortened(reason))
        }
        _ => "closed without a code".to_owned(),
    }
}

fn words(error: &io::Error) -> String {
    // The library adds the number, which says nothing more.
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    text[..cut].to_lowercase()
}
