//! The channels with the most subscribers, found by a walk in slices.
//!
//! Owns: `Search`, a walk over all homes of a shard and the largest that it met; `Size`, what is told of one.
//! May depend on: `channel::{home, home_table}`. Not on whoever asked.
//! Invariants: nothing is kept between searches, and nothing on the way of messages; a channel is found once, at
//! most `LARGEST_MAX` are; one that is occupied throughout is looked at, since rows do not move.

use std::sync::Arc;

use super::{home::Home, home_table::HomeTable};
use crate::protocol::app::AppIndex;

/// So many are found.
pub const LARGEST_MAX: usize = 10;

/// A channel by its subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    pub app: AppIndex,
    pub channel: Arc<str>,
    /// Subscribed sockets on this node, never 0.
    pub subscribers: u32,
    /// The same on all nodes.
    pub everywhere: u32,
}

/// A search under way.
#[derive(Clone, Debug, Default)]
pub struct Search {
    next: u32,
    /// Largest first.
    found: Vec<Size>,
}

impl Search {
    /// Looks at so many more rows; returns how many there were, and whether the walk is over.
    pub fn walk(&mut self, homes: &HomeTable, rows_max: u32) -> (u32, bool) {
        let bound = homes.rows.bound();
        let begin = self.next;
        self.next = bound.min(begin.saturating_add(rows_max)).max(begin);
        for row in begin..self.next {
            if let Some((_, home)) = homes.rows.at(row)
                && !home.kind.is_user()
            {
                self.meet(home);
            }
        }
        (self.next - begin, self.next >= bound)
    }

    /// What was found, largest first.
    pub fn into_found(self) -> Vec<Size> {
        self.found
    }

    fn meet(&mut self, home: &Home) {
        let subscribers = home.subscriptions();
        let least = match self.found.get(LARGEST_MAX - 1) {
            Some(last) => last.subscribers,
            None => 0,
        };
        if subscribers <= least {
            return;
        }
        // It may have become empty and come again, in another row.
        self.found
            .retain(|it| it.app != home.app || it.channel != home.name);
        let size = Size {
            app: home.app,
            channel: Arc::clone(&home.name),
            subscribers,
            everywhere: home.total(),
        };
        add(&mut self.found, size);
    }
}

/// Adds one to those that were found, largest first and at most `LARGEST_MAX`.
fn add(found: &mut Vec<Size>, size: Size) {
    let at = found.partition_point(|it| it.subscribers >= size.subscribers);
    found.insert(at, size);
    found.truncate(LARGEST_MAX);
    assert!(found.is_sorted_by(|one, other| one.subscribers >= other.subscribers));
}

#[cfg(test)]
mod tests {
    use shards::application::Millis;

    use super::{
        super::{
            home::tests::{APP, RULES, join_from},
            home_table::KeptMax,
            names::tests::key,
        },
        *,
    };

    fn table() -> HomeTable {
        HomeTable::new(KeptMax {
            events: 10,
            bytes: 1_000,
        })
    }

    fn join(table: &mut HomeTable, name: &str, times: u32) {
        let at = table.enter(APP, &name.into(), key(name));
        for _ in 0..times {
            let joined = table.join(at, Millis(0), &RULES, &join_from(0, None), &mut Vec::new());
            joined.expect("there is room");
        }
    }

    fn found(search: Search) -> Vec<(String, u32)> {
        let found = search.into_found().into_iter();
        found
            .map(|it| (it.channel.to_string(), it.subscribers))
            .collect()
    }

    #[test]
    fn the_largest_are_found_however_the_walk_is_cut_and_no_others() {
        for rows_max in [1, 7, 1_000] {
            let mut table = table();
            for number in 0..300u32 {
                join(&mut table, &format!("c{number}"), 1 + (number * 7) % 300);
            }
            join(&mut table, "empty", 0);
            join(&mut table, "#server-to-user-ann", 400);
            let mut search = Search::default();
            let mut looked_at = 0;
            loop {
                let (rows, is_over) = search.walk(&table, rows_max);
                assert!(rows <= rows_max);
                looked_at += rows;
                if is_over {
                    break;
                }
            }
            assert_eq!(looked_at, 302);
            let sizes: Vec<u32> = found(search).into_iter().map(|it| it.1).collect();
            let expected: Vec<u32> = (291..=300).rev().collect();
            assert_eq!(sizes, expected, "{rows_max} rows at a time");
        }
    }

    #[test]
    fn one_that_came_again_in_another_row_is_found_once() {
        let mut table = table();
        let mut search = Search::default();
        join(&mut table, "a", 3);
        assert_eq!(search.walk(&table, 1), (1, true));
        let at = table.find(APP, "a", key("a").hash).expect("it is there");
        for _ in 0..3 {
            let from = shards::application::ShardId(0);
            table.leave(at, Millis(0), &RULES, from, None, &mut Vec::new());
        }
        // Its webhooks' grace has passed.
        let late = Millis(1 << 40);
        while let Some(due) = table.pop_due(late) {
            table.settle(due, late, &RULES, &mut Vec::new());
            table.release_if_idle(due, late);
        }
        assert!(table.is_empty());
        join(&mut table, "b", 1);
        join(&mut table, "a", 5);
        search.walk(&table, 10);
        assert_eq!(found(search), [("a".to_owned(), 5)]);
        assert_eq!(Search::default().walk(&self::table(), 1), (0, true));
    }
}
