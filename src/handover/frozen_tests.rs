//! Bytes that earlier versions of the hand-over have written: this one reads all that was in them.
//!
//! A line is never changed; a version that writes another field adds a file of its own `lines`. A field that a record gets later may be missing in it; one that is renamed, or means something
//! else, needs another `PROTOCOL`.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_bytes::ByteBuf;
use shards::{Carried, CarriedFrame, CarriedKeys, CarriedTls};

use super::{packet::*, record::*};
use crate::http::body::ChunkedBody;

/// What each of them is, and its bytes.
const FIRST: &str = include_str!("frozen/v1.txt");

/// MessagePack, whatever it says.
#[derive(Debug, PartialEq)]
enum Value {
    Plain(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Fields(BTreeMap<String, Self>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Plain(format!("{value:?}")))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Plain("nothing".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = source.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = source.next_entry()? {
            fields.insert(name, value);
        }
        Ok(Value::Fields(fields))
    }
}

impl Value {
    /// What is in this one and not in the other.
    fn lost(&self, other: &Self, place: &str, found: &mut Vec<String>) {
        match (self, other) {
            (Self::Fields(these), Self::Fields(those)) => {
                for (name, value) in these {
                    let place = format!("{place}.{name}");
                    match those.get(name) {
                        Some(other) => value.lost(other, &place, found),
                        None => found.push(place),
                    }
                }
            }
            (Self::List(these), Self::List(those)) if these.len() == those.len() => {
                for (at, (value, other)) in these.iter().zip(those).enumerate() {
                    value.lost(other, &format!("{place}[{at}]"), found);
                }
            }
            (this, that) if this == that => {}
            (this, that) => found.push(format!("{place}: {this:?} became {that:?}")),
        }
    }
}

fn secret<T: DeserializeOwned>(bytes: &[u8]) -> T {
    read(&write(&ByteBuf::from(bytes)).expect("bytes")).expect("bytes")
}

fn keys(number: u64) -> CarriedKeys {
    CarriedKeys {
        number,
        secret: secret(b"secret"),
        key: secret(b"key"),
        iv: secret(b"iv"),
    }
}

fn carried() -> Carried {
    let frame = CarriedFrame {
        bytes: b"frame".to_vec(),
        is_own: true,
        shared: Some(20),
        sent: 21,
    };
    Carried {
        unsent: vec![frame],
        is_sealed: true,
        awaits_drained: true,
        is_paused: true,
        peer_ended: true,
        blocked_ms: 1,
        timer_ms: Some(2),
        tls: Some(CarriedTls {
            is_fresh: true,
            suite: 3,
            opening: keys(4),
            sealing: keys(5),
            unopened: b"unopened".to_vec(),
            unsent: b"unsent".to_vec(),
            has_ended: true,
        }),
    }
}

fn connection(stage: Stage, coding: CodingRecord) -> ConnectionRecord {
    ConnectionRecord {
        carried: carried(),
        app: Some("app".to_owned()),
        stage,
        is_authorized: true,
        is_counted_by_app: true,
        is_counted_by_node: true,
        opened_at_s: 6,
        socket_id: (7, 8),
        until_ms: 9,
        silence: Silence::Pinged(10),
        client_events: (11, 12),
        memberships_rate: (13, 14),
        fragments: Some(Fragments {
            is_text: true,
            payload: b"part".to_vec(),
        }),
        input: b"input".to_vec(),
        is_throttled: true,
        throttled_until_ms: Some(15),
        authorize_by_ms: Some(16),
        peer: Some(IpAddr::from([192, 0, 2, 1])),
        body: Some(BodyRecord {
            head: b"head".to_vec(),
            coding,
            kept: Some(ByteBuf::from(b"kept".as_slice())),
            began_at_ms: 17,
            received_bytes: 18,
            body_bytes: 19,
        }),
        subscriptions: vec![SubscriptionRecord {
            channel: "presence-a".to_owned(),
            user_id: Some("u".to_owned()),
        }],
        user: Some(UserRecord {
            user_id: "u".to_owned(),
            info: "{}".to_owned(),
            watchlist: vec!["v".to_owned()],
            is_known: true,
        }),
        is_stuck: true,
    }
}

fn texts() -> Vec<(String, String)> {
    vec![("u".to_owned(), "{}".to_owned())]
}

fn home() -> StateRecord {
    StateRecord::Home(HomeRecord {
        app: "app".to_owned(),
        channel: "presence-cache-a".to_owned(),
        members: texts(),
        kept: Some(KeptRecord {
            frame: b"kept".to_vec(),
            data_start: 1,
            data_bytes: 2,
            expires_at_ms: 3,
        }),
        vacate_at_ms: Some(4),
        departures: vec![("v".to_owned(), 5)],
        miss_quiet_until_ms: 6,
        count_at_ms: Some(7),
        count_quiet_until_ms: 8,
        nodes: Some(HomeOfNodesRecord {
            told: 9,
            is_kept_told: true,
            elsewhere: 10,
            is_kept_elsewhere: true,
            members: texts(),
        }),
    })
}

fn limits() -> StateRecord {
    let address = IpAddr::from([192, 0, 2, 1]);
    let lease = |of| LeaseRecord {
        of,
        left: 1,
        left_until_ms: 2,
        denied_until_ms: 3,
        again_at_ms: 4,
        remaining: 5,
        whole_at_ms: 6,
    };
    StateRecord::Limits(LimitsRecord {
        apps: vec![AppRatesRecord {
            app: "app".to_owned(),
            backend_events: (7, 8),
            reads: (9, 10),
            elsewhere: 11,
            spent: [12, 13],
        }],
        addresses: vec![WindowRecord {
            address,
            is_of_upgrades: true,
            count: 14,
            ends_at_ms: 15,
        }],
        leases: vec![
            lease(LeaseOf::Api(address)),
            lease(LeaseOf::Upgrade(address)),
            lease(LeaseOf::BackendEvents("app".to_owned())),
            lease(LeaseOf::Reads("app".to_owned())),
        ],
    })
}

fn owned() -> StateRecord {
    let kinds = [
        HookRecord::ChannelOccupied,
        HookRecord::ChannelVacated,
        HookRecord::MemberAdded("u".to_owned()),
        HookRecord::MemberRemoved("u".to_owned()),
        HookRecord::CacheMiss,
        HookRecord::SubscriptionCount(1),
    ];
    let kept = kinds.map(|kind| KeptHookRecord {
        at_ms: 2,
        partition: 3,
        app: "app".to_owned(),
        time_ms: 4,
        channel: "a".to_owned(),
        kind,
    });
    StateRecord::Owned(OwnedRecord {
        is_known: true,
        partitions: vec![5],
        since_ms: 6,
        until_ms: 7,
        kept: kept.into(),
    })
}

fn user() -> StateRecord {
    StateRecord::User(UserOfNodesRecord {
        app: "app".to_owned(),
        user_id: "u".to_owned(),
        is_told: true,
        is_elsewhere: true,
    })
}

fn webhooks() -> [WebhookRecord; 3] {
    [
        WebhookRecord::Failing(FailingRecord {
            app: "app".to_owned(),
            target: "target".to_owned(),
            failures: 1,
            resumes_ms: 2,
        }),
        WebhookRecord::Job(JobRecord {
            text: b"job".to_vec(),
            created_ms: 3,
            due_ms: Some(4),
            under_way: Some(5),
        }),
        WebhookRecord::Letter(LetterRecord {
            id: 6,
            text: b"letter".to_vec(),
        }),
    ]
}

/// All kinds of records, with something in each field.
fn records() -> Vec<(&'static str, Vec<u8>)> {
    let chunked = CodingRecord::Chunked(ChunkedBody::new(20));
    let stages = [
        (Stage::ProxyHeader, CodingRecord::Length(20)),
        (Stage::Http(true), chunked),
        (Stage::Upgrading, CodingRecord::Length(20)),
        (Stage::Open(true), CodingRecord::Length(20)),
        (Stage::Closing, CodingRecord::Length(20)),
    ];
    let connections =
        stages.map(|(stage, coding)| ("connection", write(&connection(stage, coding))));
    let states = [home(), limits(), user(), owned()].map(|state| ("state", write(&state)));
    let webhooks = webhooks().map(|webhook| ("webhook", write(&webhook)));
    let all = connections.into_iter().chain(states).chain(webhooks);
    all.map(|(kind, bytes)| (kind, bytes.expect("it can be written")))
        .collect()
}

/// All packets, with something in each field.
fn packets() -> Vec<Packet> {
    let records = || vec![ByteBuf::from(b"record".as_slice())];
    let state = || State { records: records() };
    let hello = Hello {
        protocol: 1,
        version: "v".to_owned(),
        pid: 2,
        shards: 3,
        takes_webhooks: true,
        says_begun: true,
        takes_frames: true,
    };
    let welcome = Welcome {
        protocol: 1,
        version: "v".to_owned(),
        pid: 2,
        shards: 3,
        clock_origin_ns: 4,
        node_id: "node".to_owned(),
        adapter: "redis".to_owned(),
        cluster: "cluster".to_owned(),
        incarnation: 5,
        topics: vec![6],
        listeners: 7,
        upgrades: [8, 9],
        apps: vec!["app".to_owned()],
        ..Welcome::default()
    };
    let kinds = vec![
        Kind::Tcp,
        Kind::Unix,
        Kind::Metrics,
        Kind::Admin,
        Kind::Redirect,
    ];
    let places = kinds.iter().map(|kind| format!("{kind:?}")).collect();
    let verdict = Verdict {
        number: 1,
        error: Some("error".to_owned()),
    };
    let yours = Yours {
        silence_us: 1,
        left: 2,
        webhooks_follow: true,
        awaits_begun: true,
    };
    vec![
        Packet::Hello(hello),
        Packet::Welcome(welcome.with_tickets(&"keys")),
        Packet::Listeners(Listeners { kinds, places }),
        Packet::Ready(Empty {}),
        Packet::Topics(Topics {
            partitions: vec![1],
        }),
        Packet::Proven(Empty {}),
        Packet::Nodes(state()),
        Packet::State(state()),
        Packet::Connections(Connections {
            shard: 1,
            records: records(),
        }),
        Packet::Frames(Frames {
            numbers: vec![1],
            frames: records(),
        }),
        Packet::Taken(Taken { count: 1 }),
        Packet::End(End {
            connections: 1,
            states: 2,
        }),
        Packet::Imported(Imported {
            connections: 1,
            refused: 2,
        }),
        Packet::Yours(yours),
        Packet::Begun(Empty {}),
        Packet::Named(Empty {}),
        Packet::Webhooks(state()),
        Packet::WebhooksEnd(Empty {}),
        Packet::Verdict(verdict),
        Packet::Refused(Refused {
            reason: "reason".to_owned(),
        }),
    ]
}

/// As a file of them has it.
fn lines() -> String {
    let packets = packets()
        .into_iter()
        .map(|packet| ("packet", packet.encode()));
    let all = records().into_iter().chain(packets);
    let line = |(kind, bytes): (&str, Vec<u8>)| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind} {hex}\n")
    };
    all.map(line).collect()
}

/// The bytes as this version writes what it has read in them.
fn again(kind: &str, bytes: &[u8]) -> Vec<u8> {
    fn by<T: DeserializeOwned + serde::Serialize>(bytes: &[u8]) -> Vec<u8> {
        write(&read::<T>(bytes).expect("it is read")).expect("it can be written")
    }
    match kind {
        "connection" => by::<ConnectionRecord>(bytes),
        "state" => by::<StateRecord>(bytes),
        "webhook" => by::<WebhookRecord>(bytes),
        "packet" => Packet::decode(bytes).expect("it is read").encode(),
        kind => panic!("nothing is called {kind}"),
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn check(lines: &str) {
    for line in lines.lines() {
        let (kind, hex) = line.split_once(' ').expect("a kind and its bytes");
        let bytes = bytes_of(hex);
        let written: Value = read(&again(kind, &bytes)).expect("MessagePack");
        let frozen: Value = read(&bytes).expect("MessagePack");
        let mut lost = Vec::new();
        frozen.lost(&written, kind, &mut lost);
        assert_eq!(lost, Vec::<String>::new());
    }
}

#[test]
fn what_an_earlier_version_wrote_is_read_and_nothing_of_it_is_lost() {
    check(FIRST);
}

#[test]
fn each_kind_of_record_and_packet_is_read_as_it_is_written() {
    let today = lines();
    check(&today);
    let kinds = |lines: &str| {
        let words = lines
            .lines()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned());
        words.fold(BTreeMap::<String, u32>::new(), |mut counts, kind| {
            *counts.entry(kind).or_default() += 1;
            counts
        })
    };
    let (first, today) = (kinds(FIRST), kinds(&today));
    assert!(
        first
            .iter()
            .all(|(kind, count)| today.get(kind) >= Some(count)),
        "{first:?} {today:?}"
    );
}
