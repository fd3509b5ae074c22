//! Dead letters in a queue of their own, as commands look at them.
//!
//! Owns: `letters`, `settle_letters` of the store.
//! May depend on: `sqs`, tokio.
//! Invariants: a letter that is looked at stays; it is taken away only when its job waits again, or is dropped.

use tokio::time::Instant;

use super::{
    super::{SettledLetter, StoreFault},
    SqsStore,
    calls::{BATCH_MAX, Sent, Which},
    fault::Failed,
    jobs::Lend,
    text::{Messages, letter_id},
};
use crate::bridge::queue::dead::{LETTER_BYTES_MAX, LETTERS_MAX};

impl SqsStore {
    pub(in super::super) async fn letters(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreFault> {
        let read = self.read_letters().await;
        read.map_err(|failed| failed.told(&self.0.calls.setup))
    }

    pub(in super::super) async fn settle_letters(
        &self,
        letters: &[SettledLetter],
    ) -> Result<u64, StoreFault> {
        let settled = self.settle(letters).await;
        settled.map_err(|failed| failed.told(&self.0.calls.setup))
    }

    /// All that there are, within the bounds: lent while they are read, and then free again.
    async fn read_letters(&self) -> Result<Vec<(u64, Vec<u8>)>, Failed> {
        let calls = &self.0.calls;
        let begun = Instant::now();
        let (mut letters, mut lends, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut handles = self.0.letters.lock().await;
        handles.clear();
        let failed = loop {
            let is_full = letters.len() as u64 >= LETTERS_MAX || bytes >= LETTER_BYTES_MAX;
            if is_full || begun.elapsed() > calls.setup.visibility {
                break None;
            }
            // A poll that waits asks all of the service's servers.
            let received = match calls.receive(Which::Letters, (1, BATCH_MAX)).await {
                Ok(received) => received,
                Err(failed) => break Some(failed),
            };
            if received.is_empty() {
                break None;
            }
            for letter in received {
                let id = letter_id(&letter.id);
                lends.push(Lend {
                    id: letter.id,
                    handle: letter.handle.clone(),
                    seconds: 0,
                });
                if handles.insert(id, letter.handle).is_none() {
                    bytes += letter.text.len() as u64;
                    letters.push((id, letter.text.into_bytes()));
                }
            }
        };
        for some in lends.chunks(BATCH_MAX) {
            // What fails here is free by itself after a while.
            _ = calls.lend(Which::Letters, some).await;
        }
        match failed {
            Some(failed) => Err(failed),
            None => Ok(letters),
        }
    }

    /// Those that were read.
    async fn settle(&self, letters: &[SettledLetter]) -> Result<u64, Failed> {
        let shared = &self.0;
        let mut handles = shared.letters.lock().await;
        let mut settled = 0;
        for letter in letters {
            let Some(handle) = handles.get(&letter.id).cloned() else {
                continue;
            };
            if let Some(job) = &letter.again {
                let bytes_max = shared.calls.queue(Which::Jobs).await?.bytes_max;
                let groups = shared.calls.setup.groups.as_ref();
                let messages = Messages::of(job, groups, bytes_max).all.into_iter();
                let number = |index| format!("{}-letter-{}-{index}", shared.node, letter.id);
                let sent = messages.enumerate().map(|(index, message)| Sent {
                    message,
                    number: number(index),
                });
                let mut left: Vec<Sent> = sent.collect();
                while !left.is_empty() {
                    let sent = shared.calls.send(Which::Jobs, &left).await?;
                    left.drain(..sent);
                }
            }
            shared.calls.delete(Which::Letters, &[handle]).await?;
            handles.remove(&letter.id);
            settled += 1;
        }
        Ok(settled)
    }
}
