//! The members of a channel, and on which nodes each of them is.
//!
//! Owns: `Member`, `Holders`; what a row does with its members.
//! May depend on: `cluster::{fault, field, holdings, retelling, table}`.
//! Invariants: a member has a holder, which stands once whatever its side; joined and left alternate per member, and what
//! is told of one is the info of whoever holds it for longest; a member's bytes are counted as long as it is there.

use std::sync::Arc;

use super::{
    ARC_BYTES, Departure, Holder, INDEX_BYTES_MAX, MORE_BYTES_MAX, Merged, Row, Scene, Text,
    ViewChange,
};
use crate::cluster::{
    fault::{Fault, is_planted},
    field::NAME_BYTES_MAX,
    holdings::Cursor,
    retelling::Retold,
};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) user_id: Arc<str>,
    pub(super) holders: Holders,
}

/// In the order in which they came.
#[derive(Debug)]
pub(super) enum Holders {
    One(Holder, Arc<str>),
    #[expect(clippy::box_collection, reason = "one pointer in each row")]
    Several(Box<Vec<(Holder, Arc<str>)>>),
}

impl Row {
    /// The holder has the user from now on.
    pub(super) fn join(
        &mut self,
        scene: &mut Scene<'_>,
        holder: Holder,
        user_id: Text<'_>,
        info: Text<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let hasher = scene.hasher;
        let hash = hasher.hash_one(user_id.as_str());
        let members = self.members.as_deref();
        let found = members.and_then(|members| members.position(hash, |it| it.is(user_id)));
        let bytes = match found {
            Some(_) => info.as_str().len() + MORE_BYTES_MAX,
            None => user_id.as_str().len() + info.as_str().len() + MEMBER_BYTES_MAX,
        };
        if user_id.as_str().len() > NAME_BYTES_MAX || scene.held.bytes + bytes > scene.bytes_max {
            scene.held.refused += 1;
            return;
        }
        let members = self.members.get_or_insert_default();
        let (at, is_told) = match found {
            Some(at) => {
                let member = members.row_mut(at);
                scene.held.bytes -= member.holders.bytes();
                let is_told = member.holders.put(holder, info);
                scene.held.bytes += member.holders.bytes();
                (at, is_told)
            }
            None => {
                let member = Member {
                    user_id: user_id.to_shared(),
                    holders: Holders::One(holder, info.to_shared()),
                };
                scene.held.members += 1;
                scene.held.bytes += bytes;
                let hash_of = |member: &Member| hasher.hash_one(&*member.user_id);
                (members.push(member, hash_of), true)
            }
        };
        if is_told {
            let member = members.row(at);
            let (user_id, info) = (&member.user_id, member.holders.info());
            tell(ViewChange {
                partition: scene.partition,
                app: scene.apps.id(self.app),
                name: &self.name,
                change: Merged::MemberJoined { user_id, info },
            });
        }
    }

    /// The holder has the user no more.
    pub(super) fn leave(
        &mut self,
        scene: &mut Scene<'_>,
        holder: Holder,
        user_id: &str,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let hash = scene.hasher.hash_one(user_id);
        let Some(members) = &self.members else {
            return;
        };
        if let Some(at) = members.position(hash, |it| it.is(Text::Plain(user_id))) {
            let gone = |it: Holder| (it.seat() == holder.seat()).then_some(Departure::Told);
            self.drop_member_holders(scene, at, &gone, tell);
        }
    }

    /// Lets the holders of a member go that are `gone`, and the member if none is left.
    fn drop_member_holders(
        &mut self,
        scene: &mut Scene<'_>,
        at: usize,
        gone: &impl Fn(Holder) -> Option<Departure>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let (name, app) = (&self.name, scene.apps.id(self.app));
        let partition = scene.partition;
        let mut say = |change| {
            tell(ViewChange {
                partition,
                app,
                name,
                change,
            });
        };
        let members = self.members.as_mut().expect("the member was found");
        let holders = &mut members.row_mut(at).holders;
        let before = holders.bytes();
        let dropped = holders.drop_those(gone);
        let after = holders.bytes();
        match dropped {
            Dropped::None => {}
            Dropped::Some => {
                scene.held.bytes -= before - after;
                if is_planted(Fault::MemberLeftTwice) {
                    let (user_id, why) = (&members.row(at).user_id, Departure::Told);
                    say(Merged::MemberLeft { user_id, why });
                }
            }
            Dropped::First => {
                scene.held.bytes -= before - after;
                let member = members.row(at);
                let (user_id, info) = (&member.user_id, member.holders.info());
                say(Merged::MemberJoined { user_id, info });
            }
            Dropped::All(why) => {
                let hasher = scene.hasher;
                let hash_of = |member: &Member| hasher.hash_one(&*member.user_id);
                let member = members.swap_remove(at, hash_of);
                scene.held.members -= 1;
                scene.held.bytes -= member.user_id.len() + before + MEMBER_BYTES_MAX;
                let user_id = &member.user_id;
                say(Merged::MemberLeft { user_id, why });
                if members.is_empty() {
                    self.members = None;
                }
            }
        }
    }

    /// True: all members were looked at.
    pub(super) fn sweep_members(
        &mut self,
        scene: &mut Scene<'_>,
        cursor: &mut Cursor,
        budget: &mut usize,
        gone: &impl Fn(Holder) -> Option<Departure>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        while let Some(members) = &self.members {
            let Some(at) = cursor.members_end.min(members.len()).checked_sub(1) else {
                break;
            };
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            cursor.members_end = at;
            self.drop_member_holders(scene, at, gone, tell);
        }
        true
    }

    /// True: all members were told.
    pub(super) fn tell_members<'a>(
        &'a self,
        cursor: &mut Cursor,
        budget: &mut usize,
        retold: Retold,
        say: &mut impl FnMut(Merged<'a>),
    ) -> bool {
        let Some(members) = &self.members else {
            return true;
        };
        while let Some(at) = cursor.members_end.min(members.len()).checked_sub(1) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            cursor.members_end = at;
            let member = members.row(at);
            let (user_id, info) = (&member.user_id, member.holders.info());
            say(match retold {
                Retold::All => Merged::MemberJoined { user_id, info },
                Retold::Nothing => Merged::MemberLeft {
                    user_id,
                    why: Departure::Told,
                },
            });
        }
        true
    }
}

impl Member {
    fn is(&self, user_id: Text<'_>) -> bool {
        *self.user_id == *user_id.as_str()
    }
}

enum Dropped {
    None,
    /// And what is told is the same.
    Some,
    /// And another's info is told from now on.
    First,
    /// As the one that came last went.
    All(Departure),
}

impl Holders {
    /// What is told.
    pub(super) fn info(&self) -> &Arc<str> {
        match self {
            Self::One(_, info) => info,
            Self::Several(all) => &all.first().expect("several are two at least").1,
        }
    }

    /// Beyond its own place, with the infos as if no two were shared.
    pub(super) fn bytes(&self) -> usize {
        let infos = match self {
            Self::One(_, info) => info.len(),
            Self::Several(all) => all.iter().map(|(_, info)| info.len()).sum(),
        };
        infos + self.own_bytes()
    }

    /// Beyond its own place and the infos.
    pub(super) fn own_bytes(&self) -> usize {
        match self {
            Self::One(..) => 0,
            Self::Several(all) => {
                size_of::<Vec<u8>>() + size_of::<(Holder, Arc<str>)>() * all.capacity()
            }
        }
    }

    /// True: what is told is another info.
    pub(super) fn put(&mut self, holder: Holder, info: Text<'_>) -> bool {
        let told = self.info().clone();
        // Nodes mostly agree about a user: then one text serves them all.
        let info = match *told == *info.as_str() {
            true => told.clone(),
            false => info.to_shared(),
        };
        match self {
            Self::One(it, its_info) if it.seat() == holder.seat() => {
                (*it, *its_info) = (holder, info);
            }
            Self::One(it, its_info) => {
                let all = vec![(*it, its_info.clone()), (holder, info)];
                *self = Self::Several(Box::new(all));
            }
            Self::Several(all) => match all.iter_mut().find(|(it, _)| it.seat() == holder.seat()) {
                Some(row) => *row = (holder, info),
                None => all.push((holder, info)),
            },
        }
        *told != **self.info()
    }

    fn drop_those(&mut self, gone: &impl Fn(Holder) -> Option<Departure>) -> Dropped {
        match self {
            Self::One(holder, _) => gone(*holder).map_or(Dropped::None, Dropped::All),
            Self::Several(all) => {
                let before = all.len();
                let whys = all.iter().map(|(holder, _)| gone(*holder));
                if let Some(whys) = whys.collect::<Option<Vec<_>>>() {
                    return Dropped::All(whys.last().copied().unwrap_or_default());
                }
                let told = all.first().expect("several are two at least").1.clone();
                all.retain(|(holder, _)| gone(*holder).is_none());
                let is_less = all.len() < before;
                if let [(holder, info)] = &all[..] {
                    *self = Self::One(*holder, info.clone());
                }
                match (is_less, *told == **self.info()) {
                    (false, _) => Dropped::None,
                    (true, true) => Dropped::Some,
                    (true, false) => Dropped::First,
                }
            }
        }
    }
}

/// What a member costs at most beyond its id and its info, like a row of a
/// channel.
pub(super) const MEMBER_BYTES_MAX: usize = 96;
const _: () = assert!(size_of::<Member>() <= 40);
const _: () = assert!(40 * 6 / 5 + INDEX_BYTES_MAX + 2 * ARC_BYTES <= MEMBER_BYTES_MAX);
