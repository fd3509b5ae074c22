//! What stands in batches, byte for byte and broken in every way.
//!
//! Owns: the golden bytes, made by an encoder that shares no code with ours; `docs/cluster-protocol.md` shows the same.
//! May depend on: `cluster`.
//! Invariants: none.

use proptest::prelude::*;

use super::{
    change::{Change, Changes, ChangesWriter},
    entry::*,
    field::{FieldError, NAME_BYTES_MAX},
    identity::*,
    mac::Secrets,
    wire::*,
};
use crate::protocol::{partition::Partition, socket_id::SocketId};

const PAGE: &str = include_str!("../../docs/cluster-protocol.md");

const CHANGES: &[u8] = b"\x0B\x01\x03app\x04news\x02\x08\x04\x03app\x0242";

const PLAIN: &str = "534B444F 01 00 0003 BD8806FB56217526 EDED8BB6BFDFB572724E531498E076E5 0000019A00000001 0000000000000005 03 00";
/// With the secret `secret`.
const SIGNED: &str = "534B444F 01 01 0003 BD8806FB56217526 EDED8BB6BFDFB572724E531498E076E5 0000019A00000001 0000000000000005 03 00 6884F1217EA7DFFB923DC96B4833C462";

/// Name, bytes, meaning.
// tidy: table
fn golden() -> Vec<(&'static str, &'static str, Entry<'static>)> {
    let of = Identity {
        node: NodeId::of_name("node-b"),
        incarnation: Incarnation(0x0102_0304_0506_0708),
    };
    vec![
        (
            "hello",
            "01 0D 066E6F64652D61 05302E312E30",
            Entry::Hello(Hello {
                name: "node-a",
                program: "0.1.0",
            }),
        ),
        (
            "heartbeat",
            "02 21 00 01 7F 8001 AC02 FF7F 808001 00 00 00 00 00 00 00 00 FFFFFFFFFFFFFFFFFF01 E807 01",
            Entry::Heartbeat(Heartbeat {
                sums: [
                    0,
                    1,
                    127,
                    128,
                    300,
                    16_383,
                    16_384,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    u64::MAX,
                ],
                connections: 1_000,
                is_founded: true,
            }),
        ),
        ("goodbye", "03 00", Entry::Goodbye),
        (
            "event of the API",
            "04 12 07 AC02 03617070 046E657773 00 0481027B7D",
            Entry::Event(Event {
                id: EventId(7),
                partition: partition(300),
                app: "app",
                channel: "news",
                origin: Origin::Api,
                except: None,
                frame: b"\x81\x02{}",
            }),
        ),
        (
            "client event, not for its sender",
            "04 1A 08 AC02 03617070 09707269766174652D61 03 0C 801B 0481027B7D",
            Entry::Event(Event {
                id: EventId(8),
                partition: partition(300),
                app: "app",
                channel: "private-a",
                origin: Origin::Client,
                except: SocketId::new(12, 3_456),
                frame: b"\x81\x02{}",
            }),
        ),
        (
            "delta: occupied",
            "05 0E AC02 01 01 03617070 046E657773 02",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 1,
                change: Change::Subscriptions {
                    app: "app",
                    channel: "news",
                    count: 2,
                },
            }),
        ),
        (
            "delta: vacant",
            "05 0E AC02 02 01 03617070 046E657773 00",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 2,
                change: Change::Subscriptions {
                    app: "app",
                    channel: "news",
                    count: 0,
                },
            }),
        ),
        (
            "delta: member joined",
            "05 21 AC02 03 02 03617070 0A70726573656E63652D61 023432 0A7B226E223A22C3A9227D",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 3,
                change: Change::MemberJoined {
                    app: "app",
                    channel: "presence-a",
                    user_id: "42",
                    user_info: r#"{"n":"é"}"#,
                },
            }),
        ),
        (
            "delta: member left",
            "05 16 AC02 04 03 03617070 0A70726573656E63652D61 023432",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 4,
                change: Change::MemberLeft {
                    app: "app",
                    channel: "presence-a",
                    user_id: "42",
                },
            }),
        ),
        (
            "delta: user online",
            "05 0B AC02 05 04 03617070 023432",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 5,
                change: Change::UserOnline {
                    app: "app",
                    user_id: "42",
                },
            }),
        ),
        (
            "delta: user offline",
            "05 0B AC02 06 05 03617070 023432",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 6,
                change: Change::UserOffline {
                    app: "app",
                    user_id: "42",
                },
            }),
        ),
        (
            "delta: connections of an app",
            "05 0A AC02 07 06 03617070 E807",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 7,
                change: Change::Connections {
                    app: "app",
                    count: 1_000,
                },
            }),
        ),
        (
            "delta: event kept",
            "05 0D AC02 08 07 03617070 0463616368",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 8,
                change: Change::EventKept {
                    app: "app",
                    channel: "cach",
                },
            }),
        ),
        (
            "delta: event forgotten",
            "05 0D AC02 09 08 03617070 0463616368",
            Entry::Delta(Delta {
                partition: partition(300),
                number: 9,
                change: Change::EventForgotten {
                    app: "app",
                    channel: "cach",
                },
            }),
        ),
        (
            "numbers ask",
            "06 19 2914CA5D6A1327C2E0DF51FBF2974DA30102030405060708 04",
            Entry::NumbersAsk(NumbersAsk {
                of,
                group: Group::of(partition(300)),
            }),
        ),
        (
            "latest",
            "07 03 AC02 06",
            Entry::Latest(Latest {
                partition: partition(300),
                number: 6,
            }),
        ),
        (
            "snapshot ask",
            "08 1B 2914CA5D6A1327C2E0DF51FBF2974DA30102030405060708 AC02 02",
            Entry::SnapshotAsk(SnapshotAsk {
                of,
                partition: partition(300),
                from: 2,
            }),
        ),
        (
            "snapshot",
            "09 1C 09 AC02 06 00 01 150B0103617070046E65777302080403617070023432",
            Entry::Snapshot(Snapshot {
                id: 9,
                partition: partition(300),
                number: 6,
                part: 0,
                rest: Rest::None,
                changes: Changes::of_encoded(CHANGES),
            }),
        ),
        (
            "canary",
            "0A 08 1122334455667788",
            Entry::Canary(Token(0x1122_3344_5566_7788)),
        ),
        (
            "proof",
            "0B 08 1122334455667788",
            Entry::Proof(Token(0x1122_3344_5566_7788)),
        ),
        (
            "terminate",
            "0C 07 03617070 023432",
            Entry::Terminate {
                app: "app",
                user_id: "42",
            },
        ),
        (
            "spent",
            "0D 07 03617070 E807 05",
            Entry::Spent(Spent {
                app: "app",
                backend_events: 1_000,
                reads: 5,
            }),
        ),
        (
            "kept ask",
            "0E 21 2914CA5D6A1327C2E0DF51FBF2974DA30102030405060708 03617070 0463616368",
            Entry::KeptAsk(KeptAsk {
                of,
                app: "app",
                channel: "cach",
            }),
        ),
        (
            "kept",
            "0F 12 AC02 03617070 0463616368 E807 0481027B7D",
            Entry::Kept(Kept {
                partition: partition(300),
                app: "app",
                channel: "cach",
                left_ms: 1_000,
                frame: b"\x81\x02{}",
            }),
        ),
        ("apps changed", "10 00", Entry::AppsChanged),
    ]
}

fn partition(number: u16) -> Partition {
    Partition::from_number(number).expect("a partition")
}

fn header() -> Header {
    Header {
        version: Version::OURS,
        lane: Lane(3),
        cluster: cluster(),
        sender: Identity {
            node: NodeId::of_name("node-a"),
            incarnation: Incarnation(0x0000_019A_0000_0001),
        },
        number: 5,
    }
}

fn cluster() -> ClusterTag {
    ClusterTag::of_name("golden")
}

fn no_secrets() -> Secrets {
    Secrets::default()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
        .collect()
}

fn batch_of(entries: &[Entry<'_>], secrets: &Secrets) -> Vec<u8> {
    let mut writer = BatchWriter::begin(&header(), secrets, Vec::new());
    for entry in entries {
        assert_eq!(writer.push(entry), Ok(()), "{entry:?}");
    }
    writer.finish(secrets)
}

fn golden_batch(secrets: &Secrets) -> Vec<u8> {
    let entries: Vec<_> = golden().into_iter().map(|(_, _, entry)| entry).collect();
    batch_of(&entries, secrets)
}

type Said<'a> = (Header, Vec<Result<Entry<'a>, EntryError>>);

/// All that a batch says.
fn said<'a>(bytes: &'a [u8], secrets: &Secrets) -> Result<Said<'a>, BatchError> {
    let batch = Batch::decode(bytes, cluster(), secrets)?;
    Ok((batch.header, batch.entries().collect()))
}

#[test]
fn entries_are_spelled_as_they_have_always_been() {
    for (name, hex, entry) in golden() {
        assert!(PAGE.contains(&format!("`{hex}`")), "the page lacks {name}");
        let bytes = batch_of(&[entry], &no_secrets());
        assert_eq!(bytes[HEADER_BYTES..], bytes_of(hex), "{name}");
        let (_, entries) = said(&bytes, &no_secrets()).expect(name);
        assert_eq!(entries, [Ok(entry)], "{name}");
    }
}

#[test]
fn headers_are_spelled_as_they_have_always_been() {
    for (hex, secrets) in [(PLAIN, no_secrets()), (SIGNED, Secrets::new(["secret"]))] {
        assert!(PAGE.contains(hex), "the page lacks {hex}");
        let bytes = batch_of(&[Entry::Goodbye], &secrets);
        assert_eq!(bytes, bytes_of(hex));
        let expected = (header(), vec![Ok(Entry::Goodbye)]);
        assert_eq!(said(&bytes, &secrets), Ok(expected));
    }
}

#[test]
fn the_content_of_a_snapshot_is_read_back() {
    let changes = [
        Change::Subscriptions {
            app: "app",
            channel: "news",
            count: 2,
        },
        Change::UserOnline {
            app: "app",
            user_id: "42",
        },
    ];
    let mut writer = ChangesWriter::default();
    for change in &changes {
        assert_eq!(writer.push(change), Ok(()));
    }
    assert_eq!(writer.changes(), Changes::of_encoded(CHANGES));
    let found: Vec<_> = writer.changes().iter().collect();
    assert_eq!(found, changes.map(Ok));
}

#[test]
fn a_batch_that_was_cut_is_refused_or_says_less() {
    let bytes = golden_batch(&no_secrets());
    let (_, whole) = said(&bytes, &no_secrets()).expect("a batch");
    let mut shorter = 0;
    for length in 0..bytes.len() {
        if let Ok((_, entries)) = said(&bytes[..length], &no_secrets()) {
            assert_eq!(entries.len(), shorter, "of {length} bytes");
            assert_eq!(entries, whole[..shorter]);
            shorter += 1;
        }
    }
    assert_eq!(shorter, whole.len());
}

#[test]
fn a_changed_byte_is_refused_or_says_something_else() {
    let bytes = golden_batch(&no_secrets());
    let whole = said(&bytes, &no_secrets()).expect("a batch");
    let mut changed = bytes.clone();
    for at in 0..bytes.len() {
        for flip in 1..=255 {
            changed[at] = bytes[at] ^ flip;
            // A flag that promises a MAC: the last bytes are taken for it and not looked at.
            if let Ok(other) = said(&changed, &no_secrets()) {
                assert_ne!(other, whole, "byte {at} ^ {flip:#04X}");
            }
        }
        changed[at] = bytes[at];
    }
}

#[test]
fn whoever_has_no_secret_can_neither_cut_nor_change_nor_make_a_batch() {
    let secrets = Secrets::new(["secret"]);
    let bytes = golden_batch(&secrets);
    assert!(said(&bytes, &secrets).is_ok());
    for length in 0..bytes.len() {
        assert!(
            said(&bytes[..length], &secrets).is_err(),
            "of {length} bytes"
        );
    }
    let mut changed = bytes.clone();
    for at in 0..bytes.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            changed[at] = bytes[at] ^ flip;
            assert!(said(&changed, &secrets).is_err(), "byte {at} ^ {flip:#04X}");
        }
        changed[at] = bytes[at];
    }
    let longer = [&*bytes, &[0]].concat();
    assert_eq!(said(&longer, &secrets), Err(BatchError::WrongMac));
    let plain = golden_batch(&no_secrets());
    assert_eq!(said(&plain, &secrets), Err(BatchError::NoMac));
    let forged = golden_batch(&Secrets::new(["Secret"]));
    assert_eq!(said(&forged, &secrets), Err(BatchError::WrongMac));
}

#[test]
fn a_signed_batch_is_read_without_a_secret_and_with_either_of_two() {
    let bytes = golden_batch(&Secrets::new(["old"]));
    for secrets in [
        no_secrets(),
        Secrets::new(["old"]),
        Secrets::new(["new", "old"]),
    ] {
        assert!(said(&bytes, &secrets).is_ok(), "{secrets:?}");
    }
    let refused = said(&bytes, &Secrets::new(["new"]));
    assert_eq!(refused, Err(BatchError::WrongMac));
}

#[test]
fn what_is_no_batch_of_ours_is_told_apart() {
    let good = bytes_of(PLAIN);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        said(&bytes, &no_secrets()).map(|_| ())
    };
    assert_eq!(with(0, b's'), Err(BatchError::Foreign));
    for (version, understood) in [(0, false), (1, true), (2, true), (3, false), (255, false)] {
        let theirs = Version(version);
        let expected = if understood {
            Ok(())
        } else {
            Err(BatchError::Version { theirs })
        };
        assert_eq!(with(4, version), expected, "version {version}");
    }
    assert_eq!(with(5, 2), Err(BatchError::Flags { flags: 2 }));
    assert_eq!(with(8, 0), Err(BatchError::OtherCluster));
    assert_eq!(
        with(HEADER_BYTES + 1, 1),
        Err(BatchError::Frame(FieldError::Cut))
    );
    assert_eq!(said(b"", &no_secrets()), Err(BatchError::Header));
    assert_eq!(said(b"PING\r\n", &no_secrets()), Err(BatchError::Foreign));
    let mut long = good.clone();
    long.resize(BATCH_BYTES_MAX + 1, 0);
    let bytes = BATCH_BYTES_MAX + 1;
    assert_eq!(
        said(&long, &no_secrets()),
        Err(BatchError::TooLong { bytes })
    );
}

#[test]
fn a_later_version_is_understood_as_far_as_it_says_what_we_know() {
    let secrets = Secrets::new(["secret"]);
    let header = Header {
        version: Version(Version::OURS.0 + 1),
        ..header()
    };
    let mut writer = BatchWriter::begin(&header, &secrets, Vec::new());
    let mut expected = Vec::new();
    for (name, hex, entry) in golden() {
        let bytes = bytes_of(hex);
        let (kind, body) = (u64::from(bytes[0]), &bytes[2..]);
        assert_eq!(writer.push_unknown(300, body), Ok(()));
        let longer = [body, &b"and more"[..]].concat();
        assert_eq!(writer.push_unknown(kind, &longer), Ok(()), "{name}");
        expected.push(Ok(entry));
    }
    let bytes = writer.finish(&secrets);
    let batch = Batch::decode(&bytes, cluster(), &secrets).expect("a batch");
    assert_eq!(batch.header, header);
    let mut entries = batch.entries();
    let found: Vec<_> = entries.by_ref().collect();
    assert_eq!(found, expected);
    assert_eq!(entries.unknown(), expected.len());
}

#[test]
fn a_broken_entry_leaves_the_others_readable() {
    let secrets = no_secrets();
    let mut writer = BatchWriter::begin(&header(), &secrets, Vec::new());
    let mut expected = Vec::new();
    for (kind, body, fault) in [
        (1, &b"\x06node"[..], FieldError::Cut),
        (1, b"\x01\xFF\x00", FieldError::NotUtf8),
        (2, b"\x01\x02", FieldError::Cut),
        (4, b"\x07\x80\x08", FieldError::OutOfRange { value: 1_024 }),
        (
            4,
            b"\x07\x00\x00\x00\x04\x00",
            FieldError::OutOfRange { value: 4 },
        ),
        (5, b"\x00\x01", FieldError::Cut),
        (5, b"\x00\x81\x00", FieldError::Varint),
        (6, &[0; 24], FieldError::Cut),
        (10, &[0; 7], FieldError::Cut),
    ] {
        assert_eq!(writer.push_unknown(kind, body), Ok(()));
        assert_eq!(writer.push(&Entry::Goodbye), Ok(()));
        expected.push(Err(EntryError { kind, fault }));
        expected.push(Ok(Entry::Goodbye));
    }
    let bytes = writer.finish(&secrets);
    let (_, entries) = said(&bytes, &no_secrets()).expect("a batch");
    assert_eq!(entries, expected);
}

#[test]
fn a_batch_takes_entries_up_to_its_bounds() {
    let secrets = Secrets::new(["secret"]);
    let event = |frame| {
        let Entry::Event(event) = golden()[3].2 else {
            panic!("an event");
        };
        Entry::Event(Event { frame, ..event })
    };
    let frame = vec![b'x'; BODY_BYTES_MAX];
    let around = 1 + 2 + 4 + 5 + 1 + 3;
    for (bytes, fits) in [(around + 1, true), (around, true), (around - 1, false)] {
        let mut writer = BatchWriter::begin(&header(), &secrets, Vec::new());
        let event = event(&frame[..BODY_BYTES_MAX - bytes]);
        let expected = match fits {
            true => Ok(()),
            false => Err(PushError::EntryTooLong {
                bytes: BODY_BYTES_MAX + 1,
            }),
        };
        assert_eq!(writer.push(&event), expected, "{bytes}");
        assert_eq!(writer.is_empty(), !fits);
        if fits {
            assert_eq!(writer.push(&event), Err(PushError::BatchFull));
            let batch = writer.finish(&secrets);
            assert_eq!(said(&batch, &secrets).expect("a batch").1, [Ok(event)]);
        }
    }
    let name = "x".repeat(NAME_BYTES_MAX + 1);
    let mut writer = BatchWriter::begin(&header(), &secrets, Vec::new());
    let refused = writer.push(&Entry::Terminate {
        app: &name,
        user_id: "42",
    });
    assert_eq!(refused, Err(PushError::NameTooLong { bytes: name.len() }));
    for _ in 0..ENTRIES_MAX {
        assert_eq!(writer.push(&Entry::Goodbye), Ok(()));
    }
    assert_eq!(writer.push(&Entry::Goodbye), Err(PushError::BatchFull));
    assert_eq!(
        said(&writer.finish(&secrets), &secrets)
            .expect("a batch")
            .1
            .len(),
        ENTRIES_MAX
    );
    let mut crowd = batch_of(&[], &no_secrets());
    crowd.extend([3, 0].repeat(ENTRIES_MAX + 1));
    assert_eq!(said(&crowd, &no_secrets()), Err(BatchError::TooManyEntries));
}

/// An entry of each kind, with these values.
fn entries_of<'a>(
    texts: &'a [String; 4],
    bytes: &'a [u8],
    number: u64,
    small: u16,
) -> Vec<Entry<'a>> {
    let [app, channel, user_id, user_info] = texts.each_ref().map(String::as_str);
    let (partition, of) = (partition(small % 1_024), header().sender);
    let delta = |change| {
        Entry::Delta(Delta {
            partition,
            number,
            change,
        })
    };
    let event = |origin, except| {
        let id = EventId(number);
        Entry::Event(Event {
            id,
            partition,
            app,
            channel,
            origin,
            except,
            frame: bytes,
        })
    };
    let snapshot = |rest| {
        let changes = Changes::of_encoded(bytes);
        Entry::Snapshot(Snapshot {
            id: number,
            partition,
            number,
            part: number,
            rest,
            changes,
        })
    };
    let except = SocketId::new(number % 10_000_000_001, small.into());
    vec![
        Entry::Hello(Hello {
            name: channel,
            program: app,
        }),
        Entry::Heartbeat(Heartbeat {
            sums: std::array::from_fn(|group| number >> group),
            connections: number,
            is_founded: number % 2 == 1,
        }),
        Entry::Goodbye,
        event(Origin::Api, None),
        event(Origin::Api, except),
        event(Origin::Client, None),
        event(Origin::Client, except),
        delta(Change::Subscriptions {
            app,
            channel,
            count: number,
        }),
        delta(Change::MemberJoined {
            app,
            channel,
            user_id,
            user_info,
        }),
        delta(Change::MemberLeft {
            app,
            channel,
            user_id,
        }),
        delta(Change::UserOnline { app, user_id }),
        delta(Change::UserOffline { app, user_id }),
        delta(Change::Connections { app, count: number }),
        delta(Change::EventKept { app, channel }),
        delta(Change::EventForgotten { app, channel }),
        Entry::NumbersAsk(NumbersAsk {
            of,
            group: Group::of(partition),
        }),
        Entry::Latest(Latest { partition, number }),
        Entry::SnapshotAsk(SnapshotAsk {
            of,
            partition,
            from: number,
        }),
        snapshot(Rest::Follows),
        snapshot(Rest::None),
        Entry::Canary(Token(number)),
        Entry::Proof(Token(number)),
        Entry::Terminate { app, user_id },
        Entry::Spent(Spent {
            app,
            backend_events: number,
            reads: number >> 7,
        }),
        Entry::KeptAsk(KeptAsk { of, app, channel }),
        Entry::Kept(Kept {
            partition,
            app,
            channel,
            left_ms: number,
            frame: bytes,
        }),
        Entry::AppsChanged,
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        texts in prop::array::uniform4(any::<String>()),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        number: u64,
        small: u16,
        signed: bool,
    ) {
        let secrets = if signed { Secrets::new(["secret"]) } else { no_secrets() };
        let entries = entries_of(&texts, &bytes, number, small);
        let batch = batch_of(&entries, &secrets);
        let (_, found) = said(&batch, &secrets).expect("a batch");
        prop_assert_eq!(found, entries.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let entries = [&batch_of(&[], &no_secrets()), &*bytes].concat();
        for bytes in [&bytes, &entries] {
            if let Ok((_, entries)) = said(bytes, &no_secrets()) {
                for entry in entries.into_iter().flatten() {
                    if let Entry::Snapshot(snapshot) = entry {
                        let _ = snapshot.changes.iter().count();
                    }
                }
            }
        }
    }
}
