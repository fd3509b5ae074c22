//! Which channels are occupied, who is a member, which users are online, how many connections apps have,
//! of which channels the last event is kept, and on which nodes that is so.
//!
//! Owns: `Holdings`: rows by partition and name, with their holders; what the holders of one thing come
//! to together, and when that changes; the bytes that all of it may take. `members` has those of a channel.
//! May depend on: `cluster::{app_ids, carrying, change, field, retelling, table}`, `protocol::partition`, ahash,
//! serde.
//! Invariants: a row has a holder or a member, a member has a holder; a holder stands once in a row,
//! whatever its side; a change is told if and only if the merged value changed, so joined and left
//! alternate, but where it is told once more because it is asked for.

mod carrying;
mod members;

use std::sync::Arc;

use ahash::RandomState;
use serde::{Deserialize, Serialize};

use self::members::Member;
use super::{
    app_ids::{AppIds, AppNumber},
    change::Change,
    fault::{Fault, is_planted},
    field::NAME_BYTES_MAX,
    retelling::Retold,
    table::Table,
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// What the nodes together hold from now on, of one channel or user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewChange<'a> {
    pub partition: Partition,
    pub app: &'a str,
    /// Of a channel, or the id of a user; empty for the app itself.
    pub name: &'a Arc<str>,
    pub change: Merged<'a>,
}

/// Of what all holders come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged<'a> {
    /// So many subscriptions; none: the channel is vacant.
    Subscriptions(u32),
    /// The user is a member, with this `user_info`; told again when that becomes another. Of several
    /// holders the one counts that had the user first.
    MemberJoined {
        user_id: &'a Arc<str>,
        info: &'a Arc<str>,
    },
    MemberLeft {
        user_id: &'a Arc<str>,
        why: Departure,
    },
    UserOnline,
    UserOffline,
    /// So many connections of the app.
    Connections(u32),
    /// The channel's last event is kept somewhere.
    EventKept,
    EventForgotten,
}

/// Why nobody holds a member any more.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Departure {
    /// A node said so, or said goodbye, or lives anew without it.
    #[default]
    Told,
    /// The lease of the last node that held it has run out.
    LeaseRanOut,
}

impl Merged<'_> {
    /// Nobody holds it any more.
    pub fn is_nothing(self) -> bool {
        match self {
            Self::Subscriptions(count) | Self::Connections(count) => count == 0,
            Self::MemberLeft { .. } | Self::UserOffline | Self::EventForgotten => true,
            Self::MemberJoined { .. } | Self::UserOnline | Self::EventKept => false,
        }
    }
}

/// Who holds something: a number given for one life of a node, and a side that changes with each
/// snapshot of a partition, so that what a snapshot does not name is known by the old one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Holder(u16);

impl Holder {
    const NONE: Self = Self(u16::MAX);

    pub(super) const fn new(seat: u16, side: bool) -> Self {
        assert!(seat < HOLDERS_MAX);
        Self(seat << 1 | side as u16)
    }

    pub(super) const fn seat(self) -> u16 {
        self.0 >> 1
    }
}

/// Numbers of holders are below it.
pub(super) const HOLDERS_MAX: u16 = 1_024;

/// A text, shared already or to be copied if it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    Plain(&'a str),
    Shared(&'a Arc<str>),
}

impl<'a> Text<'a> {
    pub(super) fn as_str(self) -> &'a str {
        match self {
            Self::Plain(text) => text,
            Self::Shared(text) => text,
        }
    }

    fn to_shared(self) -> Arc<str> {
        match self {
            Self::Plain(text) => text.into(),
            Self::Shared(text) => text.clone(),
        }
    }
}

/// Names of channels and of users are apart; what an app has as a whole stands under the empty name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(super) enum Space {
    Channels,
    Users,
    Apps,
    /// Of channels again, by their last events.
    Kept,
}

/// Of what something is so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) partition: Partition,
    pub(super) space: Space,
    pub(super) app: AppNumber,
    pub(super) name: Text<'a>,
}

/// What is so for a holder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// Subscriptions of a channel; of a user 1: online; connections of an app; 1: the event is kept.
    Count(u32),
    Joined {
        user_id: Text<'a>,
        info: Text<'a>,
    },
    Left {
        user_id: &'a str,
    },
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub channels: usize,
    pub members: usize,
    pub users: usize,
    pub apps: usize,
    pub kept: usize,
    /// Of all of it, with names, by the bounds of what each costs.
    pub bytes: usize,
    /// Changes for which there was no room.
    pub refused: u64,
}

#[derive(Debug)]
pub(super) struct Holdings {
    hasher: RandomState,
    /// By partition.
    parts: Box<[Table<Row>]>,
    held: Held,
    bytes_max: usize,
}

/// A channel or a user.
#[derive(Debug)]
struct Row {
    name: Arc<str>,
    app: AppNumber,
    space: Space,
    /// `Holder::NONE`: nobody counts.
    first: Holder,
    /// Of the first.
    count: u32,
    /// Others, in the order in which they came.
    more: More,
    /// Boxed, since most channels have none.
    members: Option<Box<Table<Member>>>,
}

type More = Option<Box<Vec<(Holder, u32)>>>;

/// How far a walk down has come.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Cursor {
    /// Rows below it remain.
    rows_end: usize,
    /// Members of the row below, likewise.
    members_end: usize,
}

impl Cursor {
    pub(super) const START: Self = Self {
        rows_end: usize::MAX,
        members_end: usize::MAX,
    };
    /// Of a walk for which there is nothing.
    pub(super) const END: Self = Self {
        rows_end: 0,
        members_end: 0,
    };
}

impl Holdings {
    pub(super) fn new(hasher: RandomState, bytes_max: usize) -> Self {
        let parts = (0..PARTITIONS).map(|_| Table::default());
        Self {
            hasher,
            parts: parts.collect(),
            held: Held::default(),
            bytes_max,
        }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Takes what is so for a holder from now on; tells it where it changes what is so for all.
    // Per fact: one hash and one search for its name, one each for the user of a member; allocations
    // only for what is new.
    pub(super) fn apply(
        &mut self,
        apps: &AppIds,
        place: Place<'_>,
        holder: Holder,
        fact: Fact<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let adds = match fact {
            Fact::Count(count) => count > 0,
            Fact::Joined { .. } => true,
            Fact::Left { .. } => false,
        };
        let found = self.find(place);
        let Some(at) = found.or_else(|| adds.then(|| self.insert(place)).flatten()) else {
            return;
        };
        let (hasher, held) = (&self.hasher, &mut self.held);
        let row = part_mut(&mut self.parts, place.partition).row_mut(at);
        let mut scene = Scene {
            partition: place.partition,
            apps,
            hasher,
            held,
            bytes_max: self.bytes_max,
        };
        match fact {
            Fact::Count(count) => row.count(&mut scene, holder, count, tell),
            Fact::Joined { user_id, info } => row.join(&mut scene, holder, user_id, info, tell),
            Fact::Left { user_id } => row.leave(&mut scene, holder, user_id, tell),
        }
        if row.is_vacant() {
            self.remove(place.partition, at);
        }
    }

    /// What all holders count there.
    pub(super) fn sum(&self, place: Place<'_>) -> u32 {
        let at = self.find(place);
        at.map_or(0, |at| part(&self.parts, place.partition).row(at).sum())
    }

    /// Those who count something there: first who has it for longest.
    pub(super) fn holders(&self, place: Place<'_>) -> impl Iterator<Item = Holder> {
        let at = self.find(place);
        let row = at.map(|at| part(&self.parts, place.partition).row(at));
        row.into_iter().flat_map(|row| {
            let first = Some(row.first).filter(|first| *first != Holder::NONE);
            let more = row.more.iter().flat_map(|more| more.iter());
            first.into_iter().chain(more.map(|(holder, _)| *holder))
        })
    }

    fn find(&self, place: Place<'_>) -> Option<usize> {
        let name = place.name.as_str();
        let hash = hash_of_name(&self.hasher, place.space, place.app, name);
        part(&self.parts, place.partition).position(hash, |row| {
            row.app == place.app && row.space == place.space && *row.name == *name
        })
    }

    /// `None`: there is no room.
    fn insert(&mut self, place: Place<'_>) -> Option<usize> {
        let name = place.name.as_str();
        let bytes = name.len() + ROW_BYTES_MAX;
        if name.len() > NAME_BYTES_MAX || self.held.bytes + bytes > self.bytes_max {
            self.held.refused += 1;
            return None;
        }
        self.held.bytes += bytes;
        *self.held.rows_mut(place.space) += 1;
        let row = Row {
            name: place.name.to_shared(),
            app: place.app,
            space: place.space,
            first: Holder::NONE,
            count: 0,
            more: None,
            members: None,
        };
        let (parts, hasher) = (&mut self.parts, &self.hasher);
        Some(part_mut(parts, place.partition).push(row, |row| row.hash(hasher)))
    }

    fn remove(&mut self, partition: Partition, at: usize) {
        let hasher = &self.hasher;
        let table = part_mut(&mut self.parts, partition);
        let row = table.swap_remove(at, |row| row.hash(hasher));
        self.held.bytes -= row.name.len() + ROW_BYTES_MAX;
        *self.held.rows_mut(row.space) -= 1;
    }

    /// Lets go what the holders hold in a partition that are `gone`; looks at so many rows and members
    /// as there are in `budget`. True: it is through. None of those holders may get anything meanwhile.
    pub(super) fn sweep(
        &mut self,
        apps: &AppIds,
        partition: Partition,
        cursor: &mut Cursor,
        budget: &mut usize,
        gone: &impl Fn(Holder) -> Option<Departure>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        loop {
            let table = part_mut(&mut self.parts, partition);
            if cursor.rows_end > table.len() {
                // At the start, or the row at the end moved down: it is looked at as a whole.
                cursor.rows_end = table.len();
                cursor.members_end = usize::MAX;
            }
            let Some(at) = cursor.rows_end.checked_sub(1) else {
                return true;
            };
            let row = table.row_mut(at);
            let mut scene = Scene {
                partition,
                apps,
                hasher: &self.hasher,
                held: &mut self.held,
                bytes_max: self.bytes_max,
            };
            let is_through = row.sweep_members(&mut scene, cursor, budget, gone, tell);
            // A row that its last member left is taken out in any case: nobody holds it.
            if !is_through || (*budget == 0 && !row.is_vacant()) {
                return false;
            }
            *budget = budget.saturating_sub(1);
            row.sweep_counts(&mut scene, &|it| gone(it).is_some(), tell);
            let is_vacant = row.is_vacant();
            cursor.rows_end = at;
            cursor.members_end = usize::MAX;
            if is_vacant {
                self.remove(partition, at);
            }
        }
    }

    /// Tells what is so in a partition for the apps that are meant, or that nothing is; looks at so many
    /// rows and members as there are in `budget`. True: it is through.
    pub(super) fn tell_again(
        &self,
        apps: &AppIds,
        partition: Partition,
        cursor: &mut Cursor,
        budget: &mut usize,
        of: &impl Fn(AppNumber) -> Option<Retold>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        let table = part(&self.parts, partition);
        if cursor.rows_end > table.len() {
            (cursor.rows_end, cursor.members_end) = (table.len(), usize::MAX);
        }
        while let Some(at) = cursor.rows_end.checked_sub(1) {
            let row = table.row(at);
            if let Some(retold) = of(row.app) {
                let mut say = |change| {
                    tell(ViewChange {
                        partition,
                        app: apps.id(row.app),
                        name: &row.name,
                        change,
                    });
                };
                if !row.tell_members(cursor, budget, retold, &mut say) || *budget == 0 {
                    return false;
                }
                row.tell_count_again(retold, &mut say);
            } else if *budget == 0 {
                return false;
            }
            *budget -= 1;
            (cursor.rows_end, cursor.members_end) = (at, usize::MAX);
        }
        true
    }

    /// All of a partition, as changes of the first holder: of one's own state there is no other.
    pub(super) fn for_each(
        &self,
        apps: &AppIds,
        partition: Partition,
        mut put: impl FnMut(Change<'_>),
    ) {
        for row in part(&self.parts, partition).iter() {
            let app = apps.id(row.app);
            match (row.space, row.sum()) {
                (_, 0) => {}
                (Space::Channels, count) => put(Change::Subscriptions {
                    app,
                    channel: &row.name,
                    count: count.into(),
                }),
                (Space::Users, _) => put(Change::UserOnline {
                    app,
                    user_id: &row.name,
                }),
                (Space::Kept, _) => put(Change::EventKept {
                    app,
                    channel: &row.name,
                }),
                (Space::Apps, count) => put(Change::Connections {
                    app,
                    count: count.into(),
                }),
            }
            for member in row.members.iter().flat_map(|members| members.iter()) {
                put(Change::MemberJoined {
                    app,
                    channel: &row.name,
                    user_id: &member.user_id,
                    user_info: member.holders.info(),
                });
            }
        }
    }

    /// What the rows take beyond their names and the members' texts.
    #[cfg(test)]
    pub(super) fn bytes_beyond_texts(&self) -> usize {
        let of_row = |row: &Row| {
            let members = row.members.as_ref().map_or(0, |members| {
                let several: usize = members.iter().map(|it| it.holders.own_bytes()).sum();
                let texts = 2 * ARC_BYTES * members.len();
                size_of::<Table<Member>>() + members.bytes() + texts + several
            });
            ARC_BYTES + row.more_bytes() + members
        };
        let of_part = |part: &Table<Row>| part.bytes() + part.iter().map(of_row).sum::<usize>();
        self.parts.iter().map(of_part).sum()
    }
}

impl Held {
    fn rows_mut(&mut self, space: Space) -> &mut usize {
        match space {
            Space::Channels => &mut self.channels,
            Space::Users => &mut self.users,
            Space::Apps => &mut self.apps,
            Space::Kept => &mut self.kept,
        }
    }
}

/// Where a row changes.
struct Scene<'a> {
    partition: Partition,
    apps: &'a AppIds,
    hasher: &'a RandomState,
    held: &'a mut Held,
    bytes_max: usize,
}

impl Row {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hash_of_name(hasher, self.space, self.app, &self.name)
    }

    fn is_vacant(&self) -> bool {
        self.first == Holder::NONE && self.members.is_none()
    }

    /// What further holders take.
    fn more_bytes(&self) -> usize {
        let of = |more: &Vec<(Holder, u32)>| {
            size_of::<Vec<u8>>() + size_of::<(Holder, u32)>() * more.capacity()
        };
        self.more.as_ref().map_or(0, |more| of(more))
    }

    fn sum(&self) -> u32 {
        let more = self.more.iter().flat_map(|more| more.iter());
        more.fold(self.count, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn told<'a>(&'a self, scene: &Scene<'a>, change: Merged<'a>) -> ViewChange<'a> {
        ViewChange {
            partition: scene.partition,
            app: scene.apps.id(self.app),
            name: &self.name,
            change,
        }
    }

    fn count(
        &mut self,
        scene: &mut Scene<'_>,
        holder: Holder,
        count: u32,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let (before, more_bytes) = (self.sum(), self.more_bytes());
        // Of the holder's other side too: it goes over into this one.
        let is_its = |it: Holder| it != Holder::NONE && it.seat() == holder.seat();
        let mut more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        let known = more.find(|(it, _)| is_its(*it));
        match known {
            _ if is_its(self.first) => (self.first, self.count) = (holder, count),
            Some(row) => *row = (holder, count),
            None if count == 0 => {}
            None if self.first == Holder::NONE => (self.first, self.count) = (holder, count),
            None if scene.held.bytes + MORE_BYTES_MAX > scene.bytes_max => {
                scene.held.refused += 1;
                return;
            }
            None => self.more.get_or_insert_default().push((holder, count)),
        }
        if count == 0 {
            self.drop_counts(&|it| it.seat() == holder.seat());
        }
        scene.held.bytes = scene.held.bytes - more_bytes + self.more_bytes();
        if is_planted(Fault::VacatedEarly) && count == 0 && self.space == Space::Channels {
            return tell(self.told(scene, Merged::Subscriptions(0)));
        }
        self.tell_count(scene, before, tell);
    }

    /// Forgets those holders' counts.
    fn drop_counts(&mut self, is_gone: &impl Fn(Holder) -> bool) {
        if let Some(more) = &mut self.more {
            more.retain(|(holder, _)| !is_gone(*holder));
        }
        if self.first != Holder::NONE && is_gone(self.first) {
            let next = self.more.as_mut().filter(|more| !more.is_empty());
            let next = next.map(|more| more.remove(0));
            (self.first, self.count) = next.unwrap_or((Holder::NONE, 0));
        }
        if self.more.as_ref().is_some_and(|more| more.is_empty()) {
            self.more = None;
        }
    }

    fn tell_count(&self, scene: &Scene<'_>, before: u32, tell: &mut impl FnMut(ViewChange<'_>)) {
        let after = self.sum();
        let change = match (self.space, before, after) {
            (Space::Channels, before, after) if before != after => Merged::Subscriptions(after),
            (Space::Users, 0, 1..) => Merged::UserOnline,
            (Space::Users, 1.., 0) => Merged::UserOffline,
            (Space::Apps, before, after) if before != after => Merged::Connections(after),
            (Space::Kept, 0, 1..) => Merged::EventKept,
            (Space::Kept, 1.., 0) => Merged::EventForgotten,
            (Space::Channels | Space::Users | Space::Apps | Space::Kept, _, _) => return,
        };
        tell(self.told(scene, change));
    }

    fn tell_count_again<'a>(&self, retold: Retold, say: &mut impl FnMut(Merged<'a>)) {
        let sum = match (self.sum(), retold) {
            (0, _) => return, // It has members only.
            (sum, Retold::All) => sum,
            (_, Retold::Nothing) => 0,
        };
        say(match (self.space, sum) {
            (Space::Channels, sum) => Merged::Subscriptions(sum),
            (Space::Apps, sum) => Merged::Connections(sum),
            (Space::Users, 1..) => Merged::UserOnline,
            (Space::Users, 0) => Merged::UserOffline,
            (Space::Kept, 1..) => Merged::EventKept,
            (Space::Kept, 0) => Merged::EventForgotten,
        });
    }

    fn sweep_counts(
        &mut self,
        scene: &mut Scene<'_>,
        is_gone: &impl Fn(Holder) -> bool,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let (before, more_bytes) = (self.sum(), self.more_bytes());
        self.drop_counts(is_gone);
        scene.held.bytes = scene.held.bytes - more_bytes + self.more_bytes();
        self.tell_count(scene, before, tell);
    }
}

fn part(parts: &[Table<Row>], partition: Partition) -> &Table<Row> {
    let part = parts.get(usize::from(partition.number()));
    part.expect("each partition has a table")
}

fn part_mut(parts: &mut [Table<Row>], partition: Partition) -> &mut Table<Row> {
    let part = parts.get_mut(usize::from(partition.number()));
    part.expect("each partition has a table")
}

fn hash_of_name(hasher: &RandomState, space: Space, app: AppNumber, name: &str) -> u64 {
    hasher.hash_one((space, app, name))
}

/// Of a shared text, beyond its bytes: two counts.
const ARC_BYTES: usize = 16;
/// What an occupied channel or an online user costs at most beyond its name: a row in a table with a
/// fifth of its places empty, its place in an index that has just grown, the name's counts.
const ROW_BYTES_MAX: usize = 96;
/// What one more holder of a channel or member costs when it comes, beyond its info: a vector that begins, or
/// a short one that doubles. A long one may so pass the bound, by 24 KB at most.
const MORE_BYTES_MAX: usize = 160;
/// Five bytes for each place, and 16 places for 7 rows.
const INDEX_BYTES_MAX: usize = 5 * 16 / 7 + 1;
const _: () = assert!(size_of::<Row>() <= 48);
const _: () = assert!(48 * 6 / 5 + INDEX_BYTES_MAX + ARC_BYTES <= ROW_BYTES_MAX);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// With its apps, as a peer's.
    pub(in crate::cluster) struct Filled {
        apps: AppIds,
        holdings: Holdings,
    }

    pub(in crate::cluster) fn holdings() -> Filled {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        Filled {
            apps: AppIds::new(hasher.clone()),
            holdings: Holdings::new(hasher, usize::MAX),
        }
    }

    impl Filled {
        /// So many channels with so many members each, all of them on so many nodes.
        pub(in crate::cluster) fn fill(&mut self, channels: usize, members: usize, holders: u16) {
            let app = self.apps.intern("app").expect("there is room");
            let holders = (0..holders).map(|seat| Holder::new(seat, false));
            for (number, holder) in
                (0..channels).flat_map(|it| holders.clone().map(move |holder| (it, holder)))
            {
                let name = format!("c-{number}");
                let place = Place {
                    partition: self.apps.partitions(app).of_channel(&name),
                    space: Space::Channels,
                    app,
                    name: Text::Plain(&name),
                };
                let mut take = |fact: Fact<'_>| {
                    let (apps, holdings) = (&self.apps, &mut self.holdings);
                    holdings.apply(apps, place, holder, fact, &mut |_| {});
                };
                take(Fact::Count(1));
                for number in 0..members {
                    let number = number.to_string();
                    let (user_id, info) = (Text::Plain(&number), Text::Plain("{}"));
                    take(Fact::Joined { user_id, info });
                }
            }
        }

        pub(in crate::cluster) fn bytes_beyond_texts(&self) -> usize {
            self.holdings.bytes_beyond_texts()
        }
    }

    #[test]
    fn a_row_that_nobody_holds_any_more_does_not_wait_for_the_next_slice_of_a_sweep() {
        for (members, budget, left) in [(2, 1, 1), (2, 2, 0), (2, 3, 0)] {
            let mut filled = holdings();
            let Filled { apps, holdings } = &mut filled;
            let app = apps.intern("app").expect("there is room");
            let place = Place {
                partition: apps.partitions(app).of_channel("presence-c"),
                space: Space::Channels,
                app,
                name: Text::Plain("presence-c"),
            };
            for number in 0..members {
                let number = number.to_string();
                let (user_id, info) = (Text::Plain(&number), Text::Plain("{}"));
                let (holder, fact) = (Holder::new(1, false), Fact::Joined { user_id, info });
                holdings.apply(apps, place, holder, fact, &mut |_| {});
            }
            let (cursor, budget) = (&mut { Cursor::START }, &mut { budget });
            holdings.sweep(
                apps,
                place.partition,
                cursor,
                budget,
                &|_| Some(Departure::Told),
                &mut |_| {},
            );
            let held = holdings.held();
            assert_eq!((held.channels, held.members), (left, left));
        }
    }

    #[test]
    fn what_is_counted_is_no_less_than_what_is_held_however_many_hold_it() {
        for (channels, members, holders) in [(10, 0, 200), (10, 5, 100), (1_000, 0, 1)] {
            let mut filled = holdings();
            filled.fill(channels, members, holders);
            let (counted, beyond) = (filled.holdings.held().bytes, filled.bytes_beyond_texts());
            assert!(
                counted >= beyond,
                "{holders} holders: {counted} of {beyond}"
            );
        }
    }
}
