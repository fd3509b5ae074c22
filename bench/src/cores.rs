//! Which core does what while a table is measured.
//!
//! Owns: this thread's place among the cores.
//! May depend on: libc.
//! Invariants: floors work on the first core, as a pinned shard does, and the load generator on the last, as
//! a client elsewhere would; what is started before has all cores. A message to the same core costs a server
//! a third less than one to another, so a scheduler that moves either would decide the ratio.

use std::mem;

/// The calling thread's former place, which it goes back to when this is dropped.
pub struct Placed {
    before: libc::cpu_set_t,
}

impl Placed {
    /// Moves the calling thread to the last core that it may use. Alone on one core it stays.
    pub fn on_last() -> Option<Self> {
        Self::on(|cores| cores.last().copied())
    }

    /// Moves the calling thread to the first core that it may use. Alone on one core it stays.
    pub fn on_first() -> Option<Self> {
        Self::on(|cores| cores.first().copied())
    }

    /// Moves the calling thread to the first core that it may use, for good.
    pub fn stay_on_first() {
        mem::forget(Self::on_first());
    }

    fn on(choose: impl Fn(&[usize]) -> Option<usize>) -> Option<Self> {
        let before = affinity()?;
        // SAFETY: the index is below the set's size.
        let is_usable = |core: &usize| unsafe { libc::CPU_ISSET(*core, &before) };
        let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(is_usable).collect();
        let core = choose(&cores).filter(|_| cores.len() > 1)?;
        // SAFETY: an all-zero cpu_set_t is an empty set.
        let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the index is below the set's size.
        unsafe { libc::CPU_SET(core, &mut one) };
        set_affinity(&one).then_some(Self { before })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        set_affinity(&self.before);
    }
}

fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is a valid place of the size told; 0 means this thread.
    let code = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    (code == 0).then_some(set)
}

fn set_affinity(set: &libc::cpu_set_t) -> bool {
    // SAFETY: the set is valid for its own size; 0 means this thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(set), set) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count() -> i32 {
        // SAFETY: the set is a valid one.
        affinity().map_or(0, |set| unsafe { libc::CPU_COUNT(&set) })
    }

    #[test]
    fn a_thread_goes_back_to_all_its_cores() {
        let before = count();
        let placed = Placed::on_last();
        assert_eq!(placed.is_some(), before > 1);
        assert_eq!(count(), 1);
        drop(placed);
        assert_eq!(count(), before);
    }
}
