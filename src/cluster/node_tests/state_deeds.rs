//! Nodes at which anything happens, in any order: in the end all hold what the others hold.
//!
//! Owns: `StateDeed`: what a run may do, and the properties that hold whatever it does.
//! May depend on: `cluster`.
//! Invariants: the same seed and the same deeds give the same run.

use super::*;
use crate::{
    cluster::{
        change::{Change, Changes},
        entry::{Delta, GROUPS, Group, Heartbeat, Latest, NumbersAsk, Rest, Snapshot, SnapshotAsk},
        ledger::{Own, OwnChange},
    },
    protocol::partition::AppPartitions,
};

/// What a run may do between steps, besides what it may do with events.
#[derive(Clone, Copy, Debug)]
pub(super) enum StateDeed {
    Count(usize, u8, u32),
    Join(usize, u8, u8, u8),
    Leave(usize, u8, u8),
    Online(usize, u8),
    Offline(usize, u8),
    Connections(usize, u32),
    Keep(usize, u8),
    Forget(usize, u8),
    Other(Deed),
}

pub(super) fn state_deed() -> impl Strategy<Value = StateDeed> {
    let at = || 0_usize..3;
    prop_oneof![
        6 => (at(), 0_u8..4, 0_u32..4).prop_map(|(at, name, count)| StateDeed::Count(at, name, count)),
        8 => (at(), 0_u8..3, 0_u8..5, 0_u8..2)
            .prop_map(|(at, name, user, info)| StateDeed::Join(at, name, user, info)),
        5 => (at(), 0_u8..3, 0_u8..5).prop_map(|(at, name, user)| StateDeed::Leave(at, name, user)),
        2 => (at(), 0_u8..3).prop_map(|(at, user)| StateDeed::Online(at, user)),
        2 => (at(), 0_u8..3).prop_map(|(at, user)| StateDeed::Offline(at, user)),
        2 => (at(), 0_u32..4).prop_map(|(at, count)| StateDeed::Connections(at, count)),
        2 => (at(), 0_u8..3).prop_map(|(at, name)| StateDeed::Keep(at, name)),
        2 => (at(), 0_u8..3).prop_map(|(at, name)| StateDeed::Forget(at, name)),
        6 => deed().prop_map(StateDeed::Other),
    ]
}

impl Toy {
    pub(super) fn does_state(&mut self, deed: StateDeed, frame: u32, incarnations: &mut [u64]) {
        let at = match deed {
            StateDeed::Other(deed) => return self.does(deed, frame, incarnations),
            StateDeed::Count(at, ..)
            | StateDeed::Join(at, ..)
            | StateDeed::Leave(at, ..)
            | StateDeed::Online(at, _)
            | StateDeed::Offline(at, _)
            | StateDeed::Connections(at, _)
            | StateDeed::Keep(at, _)
            | StateDeed::Forget(at, _) => at,
        };
        if self.stations[at].node.is_none() || self.stations[at].is_stopped {
            return;
        }
        match deed {
            StateDeed::Count(_, name, count) => self.count(at, &format!("c-{name}"), count),
            StateDeed::Join(_, name, user, info) => {
                self.join(
                    at,
                    &format!("c-{name}"),
                    &user.to_string(),
                    &info.to_string(),
                );
            }
            StateDeed::Leave(_, name, user) => {
                self.leave(at, &format!("c-{name}"), &user.to_string());
            }
            StateDeed::Online(_, user) => self.report(at, &user.to_string(), OwnChange::UserOnline),
            StateDeed::Offline(_, user) => {
                self.report(at, &user.to_string(), OwnChange::UserOffline);
            }
            StateDeed::Connections(_, count) => {
                self.report(at, "", OwnChange::Connections(count));
            }
            StateDeed::Keep(_, name) => {
                self.report(at, &format!("c-{name}"), OwnChange::EventKept);
            }
            StateDeed::Forget(_, name) => {
                self.report(at, &format!("c-{name}"), OwnChange::EventForgotten);
            }
            StateDeed::Other(_) => {}
        }
    }
}

/// Does all of it among so many nodes, then heals everything; whoever died or left comes back.
fn run(nodes: usize, seed: u64, work_limit: usize, deeds: Vec<(StateDeed, u64)>) {
    let mut toy = Toy::new(nodes, seed);
    let mut incarnations = vec![1; nodes];
    toy.faults = Faults {
        delay_ms_max: 60,
        doubled: 100,
        disordered: 30,
        ..Faults::default()
    };
    toy.work_limit = work_limit;
    for (number, (deed, ms)) in (0..).zip(deeds) {
        toy.does_state(deed.of(nodes), number, &mut incarnations);
        toy.until(toy.now + ms);
    }
    toy.faults = Faults::default();
    for at in 0..nodes {
        toy.does(Deed::GoOn(at), 0, &mut incarnations);
    }
    toy.until(toy.now + 5 * TIMES.lease_ms);
    toy.agrees();
    for at in 0..nodes {
        let view = toy.state_counters(at).view;
        assert_eq!(view.wanted, 0);
        let members = toy.stations[at].view.members.len();
        assert_eq!((view.held.members, view.held.refused), (members, 0));
        assert!(!toy.work(at));
        assert!(toy.node(at).next_tick() > Millis(toy.now));
    }
}

impl StateDeed {
    /// By one of so many nodes.
    pub(super) fn of(mut self, nodes: usize) -> Self {
        match &mut self {
            Self::Count(at, ..)
            | Self::Join(at, ..)
            | Self::Leave(at, ..)
            | Self::Online(at, _)
            | Self::Offline(at, _)
            | Self::Connections(at, _)
            | Self::Keep(at, _)
            | Self::Forget(at, _) => *at %= nodes,
            Self::Other(deed) => match deed {
                Deed::Publish(at, _)
                | Deed::Kill(at)
                | Deed::Stop(at)
                | Deed::GoOn(at)
                | Deed::Leave(at) => *at %= nodes,
                Deed::Silence(..) | Deed::Loss(_) => {}
            },
        }
        self
    }
}

/// Where a partition of names is that the strange bytes below speak of.
const STRANGE: &str = "c-0";

/// An entry that nobody who follows the protocol would send.
fn strange(number: u64, kind: u8, part: u64, changes: &[u8]) -> Entry<'_> {
    let partition = AppPartitions::of_app("app").of_channel(STRANGE);
    let of = identity_of(1, 1);
    let user_info = std::str::from_utf8(changes).unwrap_or("{}");
    let change = match kind % 4 {
        0 => Change::Subscriptions {
            app: "app",
            channel: STRANGE,
            count: number,
        },
        1 => Change::MemberJoined {
            app: "app",
            channel: STRANGE,
            user_id: user_info,
            user_info,
        },
        2 => Change::MemberLeft {
            app: "app",
            channel: "elsewhere",
            user_id: user_info,
        },
        _ => Change::Unknown { tag: number },
    };
    match kind % 8 {
        0 | 1 => Entry::Delta(Delta {
            partition,
            number,
            change,
        }),
        2 | 3 => Entry::Snapshot(Snapshot {
            id: number % 2,
            partition,
            number,
            part,
            rest: match kind % 2 {
                0 => Rest::None,
                _ => Rest::Follows,
            },
            changes: Changes::of_encoded(changes),
        }),
        4 => Entry::Latest(Latest { partition, number }),
        5 => Entry::Heartbeat(Heartbeat {
            sums: [number; GROUPS],
            connections: number,
            is_founded: number % 2 == 1,
        }),
        6 => Entry::NumbersAsk(NumbersAsk {
            of,
            group: Group::of(partition),
        }),
        _ => Entry::SnapshotAsk(SnapshotAsk {
            of,
            partition,
            from: number,
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_all_hold_in_the_end_what_the_others_hold(
        deeds in prop::collection::vec((state_deed(), 0_u64..150), 1..160),
        nodes in 2_usize..=5,
        seed: u64,
        work_limit in 1_usize..20,
    ) {
        run(nodes, seed, work_limit, deeds);
    }

    #[test]
    fn no_entry_of_a_peer_is_too_strange(
        said in prop::collection::vec(
            (
                prop_oneof![0_u64..6, Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()],
                any::<u8>(),
                0_u64..3,
                prop::collection::vec(0_u8..8, 0..40),
                0_u64..400,
            ),
            1..80,
        ),
    ) {
        let none = Secrets::default();
        let mut node = node_of(0, 1, 1, none.clone());
        let (mut now, mut effects, mut view) = (0, Vec::new(), Watched::default());
        let own = &STRANGE.into();
        let partition = AppPartitions::of_app("app").of_channel(STRANGE);
        for (batch, (number, kind, part, changes, ms)) in (1..).zip(said) {
            let entry = strange(number, kind, part, &changes);
            let topic = match entry {
                Entry::Delta(_) | Entry::Snapshot(_) | Entry::Latest(_) => {
                    Topic::State(Group::of(partition))
                }
                _ => Topic::Nodes,
            };
            let bytes = batch_of(topic, batch, &none, &[entry]);
            node.hear(Millis(now), topic, &bytes, &mut effects, |heard| {
                if let Heard::View(change) = heard {
                    view.take(&change);
                }
            });
            let change = OwnChange::Subscriptions(u32::from(kind));
            node.report(Millis(now), &Own { partition, app: "app", name: own, change });
            now += ms;
            node.tick(Millis(now), &mut effects);
            node.next_views(3, |change| view.take(&change));
            node.take_batches(|_, _| {});
        }
        while node.next_views(1, |change| view.take(&change)) {}
        let held = node.state_counters().view.held;
        prop_assert_eq!(held.members, view.members.len());
    }
}
