//! The list in which Sockudo 2.9 keeps its jobs.
//!
//! Owns: `OldList`.
//! May depend on: `queue::store`, `bridge::redis_commands`, the crate `redis`.
//! Invariants: one node at a time moves jobs; a job leaves the list after it is kept elsewhere; what stands in
//! it, a secret, is neither logged nor shown.

use std::{fmt, time::Duration};

use redis::{Pipeline, Value};

use super::{Keys, look, odd};
use crate::bridge::{queue::store::StoreFault, redis_commands::RedisCommands};

/// The list, for one node.
#[derive(Clone)]
pub struct OldList {
    commands: RedisCommands,
    list: Box<str>,
    lock: Box<str>,
    node: Box<str>,
}

impl fmt::Debug for OldList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldList").field("list", &self.list).finish()
    }
}

/// Jobs that are moved at once.
const JOBS_MAX: isize = 200;
/// A node that does not come back leaves the list to others.
const LOCK_MS: u64 = 30_000;
const WITHIN: Duration = Duration::from_secs(5);

impl OldList {
    pub fn new(commands: RedisCommands, prefix: &str, node: &str) -> Self {
        let list = Keys::old_list(prefix);
        Self {
            commands,
            // A name that the rights on the prefix cover, in the list's slot.
            lock: format!("{prefix}:{{{list}}}:moving").into(),
            list: list.into(),
            node: node.into(),
        }
    }

    /// Says what a queue should not find of this Redis, once it answers.
    pub fn warning_of_loss(&self) -> impl Future<Output = ()> + use<> {
        look::warn_of_loss(self.commands.clone(), self.list.to_string())
    }

    /// The next jobs, which stay where they are; none while another node moves them.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn peek(&self) -> Result<Vec<Vec<u8>>, StoreFault> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("LLEN").arg(&*self.list);
        let count = self.ask(&pipeline).await?.into_iter().next();
        // A server without the list is not written to.
        if count.is_none_or(|count| count == Value::Int(0)) {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(&*self.lock).arg(&*self.node);
        pipeline.arg("NX").arg("PX").arg(LOCK_MS);
        pipeline.cmd("GET").arg(&*self.lock);
        pipeline
            .cmd("LRANGE")
            .arg(&*self.list)
            .arg(0)
            .arg(JOBS_MAX - 1);
        let answers = self.ask(&pipeline).await?;
        let [_, holder, jobs] = <[Value; 3]>::try_from(answers).map_err(|_| odd())?;
        let holder: Option<String> = redis::from_redis_value(holder).map_err(|_| odd())?;
        if holder.as_deref() != Some(&*self.node) {
            return Ok(Vec::new());
        }
        redis::from_redis_value(jobs).map_err(|_| odd())
    }

    /// They are kept elsewhere. What was `peek`ed last, and no other node has it.
    ///
    /// # Errors
    /// When Redis does not answer: they may be there still.
    pub async fn forget(&self, jobs: &[Vec<u8>]) -> Result<(), StoreFault> {
        let mut pipeline = Pipeline::new();
        for job in jobs {
            pipeline.cmd("LREM").arg(&*self.list).arg(1).arg(&**job);
        }
        // The rights that a queue needs have no DEL.
        pipeline.cmd("SET").arg(&*self.lock).arg(&*self.node);
        pipeline.arg("PX").arg(1);
        self.ask(&pipeline).await.map(|_| ())
    }

    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreFault> {
        let answers = self.commands.run(&self.list, pipeline, WITHIN).await;
        let answers = answers.map_err(|fault| StoreFault(fault.to_string()))?;
        match answers
            .iter()
            .find(|it| matches!(it, Value::ServerError(_)))
        {
            // Its words may quote the command.
            Some(_) => Err(StoreFault(format!("Redis refuses to move {}", self.list))),
            None => Ok(answers),
        }
    }
}
