//! A node of several whose process is replaced while things go wrong: to others it is silent for as long as
//! that takes, and everything may happen meanwhile. It ends with one process or the other, or with none.

use std::sync::Arc;

use shards::application::Millis;

use crate::world::World;

/// Steps of the others in one silence: together less than a heartbeat.
const STEPS_MAX: usize = 150;
const STEP_MS_MAX: usize = 6;
const SILENCE_MS_MAX: u64 = 200;
/// Of a hundred steps, so many are struck by something.
const STRIKES_PERCENT: usize = 3;

/// How a silence ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The other process takes over.
    Taken,
    /// And the node dies with its next step.
    TakenAndDead,
    /// The other process ends.
    Left,
    /// Both do.
    Dead,
}

impl World {
    /// Another process begins to follow a node's, or is told everything, and takes its place if nothing comes
    /// between.
    pub(crate) fn is_followed_or_silent(&mut self, number: u64, shards: u16) {
        let Some(node) = self.nodes.followed() else {
            let node = (number >> 8) as usize % self.nodes.all.len();
            if self.nodes.may_be_followed(node) {
                self.nodes.is_followed(&self.plan, node, number, shards);
            }
            return;
        };
        let apps = &self.plan.seed.apps;
        if self.nodes.is_live(node) && self.nodes.falls_silent(apps, &mut self.dice) {
            self.is_silent(node, number);
        }
    }

    fn is_silent(&mut self, node: usize, number: u64) {
        let end = *self.dice.pick(&[
            End::Taken,
            End::Taken,
            End::Taken,
            End::TakenAndDead,
            End::Left,
            End::Left,
            End::Dead,
        ]);
        let steps = self.dice.below(STEPS_MAX);
        let gives_at = self.dice.below(steps + 1);
        let ends_by = self.nodes.now().plus(SILENCE_MS_MAX);
        for step in 0..steps {
            if step == gives_at {
                self.nodes.gives(&self.plan.seed.apps);
            }
            self.acts_beside(ends_by);
            if self.dice.percent(STRIKES_PERCENT) {
                match self.dice.percent(40) {
                    true => self.follower_is_struck(node, true),
                    false => self.strikes(),
                }
            }
        }
        match end {
            End::Dead if self.has_others(node) => return self.dies(node),
            End::Dead | End::Left => return self.follower_ends(),
            End::Taken | End::TakenAndDead => {}
        }
        self.nodes.gives(&self.plan.seed.apps);
        let was_deaf = self.follower_was_deaf();
        self.nodes.is_taken_over(&self.plan, number);
        self.is_connected_anew(node);
        if was_deaf {
            self.is_unsure(node);
        }
        if end == End::TakenAndDead && self.has_others(node) {
            self.dies(node);
        }
    }

    /// One step while a node is silent: of it only what the bus brings is taken.
    fn acts_beside(&mut self, ends_by: Millis) {
        self.step += 1;
        let apps = Arc::clone(&self.plan.seed.apps);
        match self.dice.below(10) {
            0..3 => self.nodes.hear_in_silence(&apps, &mut self.dice),
            3 => {
                let ms = self.dice.between(1, STEP_MS_MAX);
                let at = self.nodes.now().plus(ms as u64);
                self.nodes.is_now(at.min(ends_by));
            }
            4 => self.somebody_reads(),
            // The rest is done by some other node, or comes to it.
            _ if self.nodes.live().is_empty() => {}
            5 => self.somebody_acts(),
            6 => self.api_acts(),
            7 => {
                let node = self.any_node();
                self.nodes.bridge_turn(node, &apps, &mut self.dice, false);
            }
            _ => {
                let (node, shard) = self.any_shard();
                self.turn(node, shard, false);
            }
        }
    }

    /// The process that was to take a node's place ends; the one before goes on if it lives.
    pub(crate) fn follower_ends(&mut self) {
        let Some(node) = self.nodes.followed() else {
            return;
        };
        let was_silent = self.nodes.has_silent();
        self.nodes.is_left(&self.plan.seed.apps);
        if was_silent {
            self.is_connected_anew(node);
        }
    }
}
