//! The words of a hand-over, as bytes: MessagePack with named fields.
//!
//! Owns: `Packet`, `PROTOCOL`, which versions understand each other.
//! May depend on: `record`, serde, rmp-serde.
//! Invariants: a field that a reader does not know is skipped, one that is missing has its default; so a field may be added
//! at any time, and one that changes its meaning needs another `PROTOCOL`; a variant is never renamed.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use super::record;

/// Version of the hand-over: of the packets, and of the records that travel in them.
pub const PROTOCOL: u32 = 1;

/// Descriptors in one packet. The kernel's own bound is 253; what is in flight counts against the sender's open files.
pub const DESCRIPTORS_MAX: usize = 64;

/// One message between the process that runs (old) and the one that takes over (new).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// New, first of all.
    Hello(Hello),
    /// Old, in answer; `Listeners` follow.
    Welcome(Welcome),
    /// Old: listening sockets, a kind for each descriptor.
    Listeners(Listeners),
    /// New: it could serve now; connections may come.
    Ready(Empty),
    /// Old, at rest: topics of the bus that the new process must have proven before it is let go. Only in a cluster.
    Topics(Topics),
    /// New: it hears all of them.
    Proven(Empty),
    /// Old: what it knows of the other nodes, and they of it.
    Nodes(State),
    /// Old: what belongs to no connection.
    State(State),
    /// Old: frames that several connections wait for, before those. Only to one that `takes_frames`.
    Frames(Frames),
    /// Old: connections, a record for each descriptor.
    Connections(Connections),
    /// New: so many descriptors, records or frames of one packet have come whole. One for each `Nodes`, `State`,
    /// `Frames` and `Connections`.
    Taken(Taken),
    /// Old: that was all.
    End(End),
    /// New: all of it is in its place. From here on it takes over if the old process dies.
    Imported(Imported),
    /// Old: it lets go; the new process serves. Nothing follows but what `Yours` says.
    Yours(Yours),
    /// New: it has heard `Yours` and serves from here on. If it dies before it says so the old process goes on.
    Begun(Empty),
    /// Old: the supervisor knows the new process as the main one.
    Named(Empty),
    /// Old, once it has let go: webhooks that waited in its memory. Each is answered by `Taken`.
    Webhooks(State),
    /// Old: those were all that waited.
    WebhooksEnd(Empty),
    /// Old: how an attempt ended that was under way.
    Verdict(Verdict),
    /// Either: it cannot be, and why.
    Refused(Refused),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    pub protocol: u32,
    pub version: String,
    pub pid: u32,
    pub shards: u16,
    /// It goes on with webhooks that wait, if they come.
    pub takes_webhooks: bool,
    /// It says `Begun` where that is awaited.
    pub says_begun: bool,
    /// It understands `Frames`, and connections that refer to them.
    pub takes_frames: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// What both speak: the lower of both versions.
    pub protocol: u32,
    pub version: String,
    pub pid: u32,
    pub shards: u16,
    /// Origin of the node's clock, in nanoseconds of `CLOCK_MONOTONIC`.
    pub clock_origin_ns: u64,
    pub node_id: String,
    /// `adapter.driver`, which must be the same.
    pub adapter: String,
    /// `cluster.name`, which must be the same.
    pub cluster: String,
    /// This life of the node, as the others know it; 0 on a node that is alone.
    pub incarnation: u64,
    /// Partitions whose topics the node hears.
    pub topics: Vec<u16>,
    /// So many listeners follow.
    pub listeners: u32,
    /// Hand-overs of this node so far: done, failed.
    pub upgrades: [u64; 2],
    /// Ids of apps of a store that this node knows by now. What it finds later its connections name too.
    pub apps: Vec<String>,
    /// What seals and opens the tickets of TLS sessions.
    pub tickets: Hidden,
}

/// A written record that no log shows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden(ByteBuf);

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes", self.0.len())
    }
}

impl Welcome {
    /// With the keys of tickets. Without them sessions begin anew, and nothing is lost.
    pub fn with_tickets(mut self, keys: &impl Serialize) -> Self {
        self.tickets = Hidden(record::write(keys).unwrap_or_default().into());
        self
    }

    /// The keys of tickets, if there are some that can be read.
    pub fn tickets<T: DeserializeOwned + Default>(&self) -> T {
        record::read(&self.tickets.0).unwrap_or_default()
    }
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The port, one of a shard.
    Tcp,
    /// `unix_socket`.
    Unix,
    /// `metrics`.
    Metrics,
    /// `admin.socket`.
    Admin,
    /// `ssl.http_port`.
    Redirect,
    /// Of a later version: not wanted here.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listeners {
    pub kinds: Vec<Kind>,
    /// A path or an address for each.
    pub places: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub records: Vec<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topics {
    pub partitions: Vec<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frames {
    /// By which connections refer to them, one each.
    pub numbers: Vec<u64>,
    pub frames: Vec<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// The shard of the old process that they are from.
    pub shard: u16,
    pub records: Vec<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    pub count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    pub connections: u64,
    /// With frames.
    pub states: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    pub connections: u64,
    /// Of them not taken over, and closed.
    pub refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Yours {
    /// For so long nothing was read or sent.
    pub silence_us: u64,
    /// Connections that could not follow, and end with the old process.
    pub left: u64,
    /// Webhooks that wait follow.
    pub webhooks_follow: bool,
    /// `Begun` is awaited, and answered by `Named`.
    pub awaits_begun: bool,
}

impl Yours {
    pub fn silence_ms(&self) -> f64 {
        self.silence_us as f64 / 1_000.0
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// As the webhook's record says.
    pub number: u64,
    /// `None`: it was delivered.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    pub reason: String,
}

impl Packet {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("plain fields, into memory")
    }

    /// # Errors
    /// When it is no packet that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Listeners(_) => "Listeners",
            Self::Ready(_) => "Ready",
            Self::Topics(_) => "Topics",
            Self::Proven(_) => "Proven",
            Self::Nodes(_) => "Nodes",
            Self::State(_) => "State",
            Self::Frames(_) => "Frames",
            Self::Connections(_) => "Connections",
            Self::Taken(_) => "Taken",
            Self::End(_) => "End",
            Self::Imported(_) => "Imported",
            Self::Yours(_) => "Yours",
            Self::Begun(_) => "Begun",
            Self::Named(_) => "Named",
            Self::Webhooks(_) => "Webhooks",
            Self::WebhooksEnd(_) => "WebhooksEnd",
            Self::Verdict(_) => "Verdict",
            Self::Refused(_) => "Refused",
        }
    }
}

/// What the two speak: the lower version, if they are at most one apart. So a new version follows the one before it, and
/// the one before follows it when an operator goes back.
pub fn spoken(ours: u32, theirs: u32) -> Option<u32> {
    (ours.abs_diff(theirs) <= 1 && theirs > 0).then(|| ours.min(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Hello` of another version: with a field more, without those it does not know.
    #[derive(Serialize)]
    enum Other {
        Hello(OtherHello),
        Listeners(OtherListeners),
        Gone(Empty),
    }

    #[derive(Serialize)]
    struct OtherHello {
        protocol: u32,
        colour: &'static str,
        version: &'static str,
    }

    #[derive(Serialize)]
    struct OtherListeners {
        kinds: Vec<&'static str>,
    }

    fn of_another(packet: &Other) -> Result<Packet, rmp_serde::decode::Error> {
        Packet::decode(&rmp_serde::to_vec_named(packet).expect("plain"))
    }

    #[test]
    fn a_field_that_is_unknown_is_skipped_and_one_that_is_missing_has_its_default() {
        let read = of_another(&Other::Hello(OtherHello {
            protocol: 2,
            colour: "red",
            version: "9.0",
        }));
        let expected = Hello {
            protocol: 2,
            version: "9.0".to_owned(),
            ..Hello::default()
        };
        assert_eq!(read.expect("a Hello"), Packet::Hello(expected));
        let kinds = vec!["Tcp", "Quic"];
        let read = of_another(&Other::Listeners(OtherListeners { kinds }));
        let kinds = vec![Kind::Tcp, Kind::Unknown];
        assert_eq!(
            read.expect("known"),
            Packet::Listeners(Listeners {
                kinds,
                ..Listeners::default()
            })
        );
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        assert!(of_another(&Other::Gone(Empty {})).is_err());
        for bytes in [
            &b""[..],
            b"\xc0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x81\xa5Hello",
        ] {
            assert!(Packet::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn each_packet_is_read_as_it_was_written() {
        let record = ByteBuf::from([0, 255, 128]);
        for packet in [
            Packet::Hello(Hello {
                protocol: PROTOCOL,
                version: "1".to_owned(),
                pid: 7,
                shards: 3,
                takes_webhooks: true,
                says_begun: true,
                takes_frames: true,
            }),
            Packet::Welcome(Welcome {
                clock_origin_ns: u64::MAX,
                upgrades: [1, 2],
                ..Welcome::default()
            }),
            Packet::Listeners(Listeners {
                kinds: vec![Kind::Unix, Kind::Admin],
                places: vec!["/run/x".to_owned(), String::new()],
            }),
            Packet::Ready(Empty {}),
            Packet::Topics(Topics {
                partitions: vec![0, 1_023],
            }),
            Packet::Proven(Empty {}),
            Packet::Nodes(State {
                records: vec![record.clone()],
            }),
            Packet::State(State {
                records: vec![record.clone()],
            }),
            Packet::Frames(Frames {
                numbers: vec![u64::MAX],
                frames: vec![record.clone()],
            }),
            Packet::Connections(Connections {
                shard: 1,
                records: vec![record; 64],
            }),
            Packet::Taken(Taken { count: 64 }),
            Packet::End(End {
                connections: 1,
                states: 2,
            }),
            Packet::Imported(Imported {
                connections: 1,
                refused: 0,
            }),
            Packet::Yours(Yours {
                silence_us: 9,
                left: 1,
                webhooks_follow: true,
                awaits_begun: true,
            }),
            Packet::Begun(Empty {}),
            Packet::Named(Empty {}),
            Packet::Webhooks(State {
                records: vec![ByteBuf::from([1])],
            }),
            Packet::WebhooksEnd(Empty {}),
            Packet::Verdict(Verdict {
                number: 3,
                error: Some("answered 500".to_owned()),
            }),
            Packet::Refused(Refused {
                reason: "no".to_owned(),
            }),
        ] {
            let read = Packet::decode(&packet.encode());
            assert_eq!(read.ok(), Some(packet));
        }
    }

    #[test]
    fn versions_that_are_one_apart_speak_the_lower_one() {
        for (ours, theirs, expected) in [
            (1, 1, Some(1)),
            (2, 1, Some(1)),
            (1, 2, Some(1)),
            (3, 1, None),
            (1, 3, None),
            (1, 0, None),
        ] {
            assert_eq!(spoken(ours, theirs), expected, "{ours} and {theirs}");
        }
    }
}
