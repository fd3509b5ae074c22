//! Whether a node is to get connections, and why not.
//!
//! Owns: the one judgement of a node, whichever port asks.
//! May depend on: nothing.
//! Invariants: a node with a reason not to be ready is `Unready`, whatever else it has.

/// What the bridge knows about the node's health, for `/up` of both ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// A shard has not told its numbers yet.
    pub starting: bool,
    /// A shard has not turned for seconds.
    pub shard_stalled: bool,
    /// The webhook queue cannot take or deliver jobs.
    pub queue_failing: bool,
    /// A backend that is needed to start does not answer yet.
    pub backend_failing: bool,
    /// The store of apps does not answer any more: those that are known go on.
    pub app_store_failing: bool,
    /// The shared cache does not answer: channels have the last events that this node heard.
    pub cache_failing: bool,
    /// The shared rates cannot be counted: `rate_limiter.on_error` decides.
    pub rate_limiter_failing: bool,
    /// The bus to the other nodes is down, or does not bring back what is sent to it.
    pub bus_failing: bool,
    /// Memory in use is above `http_api.accept_traffic.memory_threshold`.
    pub memory_above_threshold: bool,
    /// The node is about to stop: readiness is off, connections may stay for `drain.lb_wait_s`.
    pub draining: bool,
}

impl Health {
    /// What a shard knows until the bridge has spoken.
    pub const UNKNOWN: Self = Self {
        starting: true,
        shard_stalled: false,
        queue_failing: false,
        backend_failing: false,
        app_store_failing: false,
        cache_failing: false,
        rate_limiter_failing: false,
        bus_failing: false,
        memory_above_threshold: false,
        draining: false,
    };

    /// Why the node should get no new connections; empty = ready.
    pub fn unready(self) -> Vec<&'static str> {
        let reasons = [
            (self.starting, "starting"),
            (self.draining, "draining"),
            (self.bus_failing, "bus"),
            (self.backend_failing, "backend"),
            (self.memory_above_threshold, "memory"),
            (self.shard_stalled, "shard_stalled"),
        ];
        let holding = reasons.into_iter().filter(|(holds, _)| *holds);
        holding.map(|(_, reason)| reason).collect()
    }

    /// The one judgement of a node, whichever port is asked. `/ready` does not ask for apps.
    pub fn judge(self, has_apps: bool) -> Judgement {
        let mut reasons = self.unready();
        if !has_apps {
            reasons.push("no_apps");
        }
        let degraded = [
            (self.app_store_failing, "app_store"),
            (self.cache_failing, "cache"),
            (self.rate_limiter_failing, "rate_limiter"),
            (self.queue_failing, "webhook_queue"),
        ];
        let degraded = degraded.into_iter().filter(|(holds, _)| *holds);
        let degraded: Vec<_> = degraded.map(|(_, reason)| reason).collect();
        let grade = match (reasons.is_empty(), degraded.is_empty()) {
            (false, _) => Grade::Unready,
            (true, false) => Grade::Degraded,
            (true, true) => Grade::Well,
        };
        reasons.extend(degraded);
        Judgement { grade, reasons }
    }
}

/// How a node is, and why it is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub grade: Grade,
    pub reasons: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Well,
    /// Serves, but not everything works.
    Degraded,
    /// Should get no new connections.
    Unready,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_judged_by_its_worst_part() {
        let well = Health::default();
        let queue_failing = true;
        for (health, has_apps, grade, reasons) in [
            (well, true, Grade::Well, &[][..]),
            (well, false, Grade::Unready, &["no_apps"]),
            (Health::UNKNOWN, true, Grade::Unready, &["starting"]),
            (
                Health {
                    draining: true,
                    ..well
                },
                true,
                Grade::Unready,
                &["draining"],
            ),
            (
                Health {
                    shard_stalled: true,
                    ..well
                },
                true,
                Grade::Unready,
                &["shard_stalled"],
            ),
            (
                Health {
                    memory_above_threshold: true,
                    backend_failing: true,
                    ..well
                },
                true,
                Grade::Unready,
                &["backend", "memory"],
            ),
            (
                Health {
                    queue_failing,
                    ..well
                },
                true,
                Grade::Degraded,
                &["webhook_queue"],
            ),
            (
                Health {
                    queue_failing,
                    draining: true,
                    ..well
                },
                true,
                Grade::Unready,
                &["draining", "webhook_queue"],
            ),
        ] {
            let judgement = health.judge(has_apps);
            assert_eq!(
                (judgement.grade, &*judgement.reasons),
                (grade, reasons),
                "{health:?}"
            );
        }
    }
}
