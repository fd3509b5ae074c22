//! What is asked of SQS, in batches.
//!
//! Owns: `Calls`: the client, where the queues are, sending, receiving, lending, deleting.
//! May depend on: `bridge::aws`, `sqs::{setup, fault, jobs, text}`, tokio, the crate `aws-sdk-sqs`.
//! Invariants: a batch has at most ten entries and the bytes that one message may have; a queue that is gone is
//! looked up, and made, again.

use std::sync::Arc;

use aws_sdk_sqs::{
    Client,
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
        DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};
use tokio::sync::Mutex;

use super::{
    fault::Failed,
    jobs::{Lend, Received},
    setup::SqsSetup,
    text::{self, Message},
};

/// A queue that was found.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) url: String,
    /// Bytes of one message, and of all in one batch.
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Calls {
    pub(super) setup: SqsSetup,
    client: Client,
    jobs: Mutex<Option<Arc<Queue>>>,
    letters: Mutex<Option<Arc<Queue>>>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Jobs,
    Letters,
}

/// A message that is sent, and by which number it is known once.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) number: String,
}

impl Calls {
    pub(super) fn new(setup: SqsSetup, client: Client) -> Self {
        Self {
            setup,
            client,
            jobs: Mutex::default(),
            letters: Mutex::default(),
        }
    }

    pub(super) async fn queue(&self, which: Which) -> Result<Arc<Queue>, Failed> {
        let (place, name) = match which {
            Which::Jobs => (&self.jobs, self.setup.queue()),
            Which::Letters => (&self.letters, SqsSetup::LETTERS),
        };
        // Whoever else wants it waits for this answer.
        let mut place = place.lock().await;
        if let Some(queue) = &*place {
            return Ok(Arc::clone(queue));
        }
        let queue = Arc::new(self.find(which, name).await?);
        *place = Some(Arc::clone(&queue));
        Ok(queue)
    }

    /// Asks for the queue of the jobs and changes nothing: one that is not there is made by who uses it.
    pub(super) async fn reach(&self) -> Result<(), Failed> {
        let name = self.setup.queue();
        if let Some(url) = self.url_by_prefix(name) {
            let asked = self.client.get_queue_attributes().queue_url(url);
            return Ok(asked.send().await.map(drop)?);
        }
        let asked = self.client.get_queue_url().queue_name(name).send().await;
        match asked.map_err(Failed::from) {
            Err(failed) if !failed.is_without_queue() => Err(failed),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn url_by_prefix(&self, name: &str) -> Option<String> {
        let prefix = self.setup.url_prefix.as_ref()?;
        Some(format!("{}/{name}", prefix.trim_end_matches('/')))
    }

    async fn find(&self, which: Which, name: &str) -> Result<Queue, Failed> {
        let url = match self.url_by_prefix(name) {
            Some(url) => url,
            None => {
                let asked = self.client.get_queue_url().queue_name(name).send().await;
                let found = match asked.map_err(Failed::from) {
                    Ok(answer) => answer.queue_url,
                    Err(failed) if failed.is_without_queue() => self.make(which, name).await?,
                    Err(failed) => return Err(failed),
                };
                found.ok_or(Failed::Odd("gives no URL of a queue"))?
            }
        };
        let asked = self
            .client
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(QueueAttributeName::MaximumMessageSize);
        let answer = asked.send().await?;
        let attributes = answer.attributes.unwrap_or_default();
        let bytes = attributes.get(&QueueAttributeName::MaximumMessageSize);
        let bytes = bytes.and_then(|it| it.parse().ok());
        Ok(Queue {
            url,
            bytes_max: bytes.unwrap_or(BYTES_MAX).min(BYTES_MAX),
        })
    }

    async fn make(&self, which: Which, name: &str) -> Result<Option<String>, Failed> {
        let mut making = self
            .client
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::MessageRetentionPeriod, RETENTION_S);
        if which == Which::Jobs && self.setup.groups.is_some() {
            making = making.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let made = making.send().await?;
        tracing::info!(queue = name, "made the queue in SQS");
        Ok(made.queue_url)
    }

    /// Looks it up again, if that is why it failed.
    async fn heard<T>(&self, which: Which, answer: Result<T, Failed>) -> Result<T, Failed> {
        if let Err(failed) = &answer
            && failed.is_without_queue()
        {
            match which {
                Which::Jobs => *self.jobs.lock().await = None,
                Which::Letters => *self.letters.lock().await = None,
            }
        }
        answer
    }

    /// Sends what fits into one batch, from the front; returns how many that were.
    pub(super) async fn send(&self, which: Which, messages: &[Sent]) -> Result<usize, Failed> {
        let queue = self.queue(which).await?;
        let mut bytes = 0;
        let mut sending = self.client.send_message_batch().queue_url(&queue.url);
        let mut count = 0;
        for (index, sent) in messages.iter().take(BATCH_MAX).enumerate() {
            bytes += sent.message.text.len();
            if index > 0 && bytes > queue.bytes_max {
                break;
            }
            let mut entry = SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(&sent.message.text);
            if let Some(group) = &sent.message.group {
                entry = entry
                    .message_group_id(group)
                    .message_deduplication_id(&sent.number);
            }
            sending = sending.entries(entry.build()?);
            count = index + 1;
        }
        let answer = sending.send().await.map_err(Failed::from);
        let answer = self.heard(which, answer).await?;
        // Entries behind the first that failed are sent again: at least once, and a FIFO queue knows them.
        let failed = answer.failed.iter();
        let first = failed.filter_map(|it| Some((it.id.parse::<usize>().ok()?, it)));
        match first.min_by_key(|(index, _)| *index) {
            None => Ok(count),
            Some((0, failed)) => Err(Failed::of_entry(failed)),
            Some((index, _)) => Ok(index),
        }
    }

    /// A long poll, of this queue's own time or of so many seconds.
    pub(super) async fn receive(
        &self,
        which: Which,
        (wait_s, messages_max): (i32, usize),
    ) -> Result<Vec<Received>, Failed> {
        let queue = self.queue(which).await?;
        let visibility = i32::try_from(self.setup.visibility.as_secs()).unwrap_or(43_200);
        let asked = self
            .client
            .receive_message()
            .queue_url(&queue.url)
            .max_number_of_messages(i32::try_from(messages_max).unwrap_or(1))
            .visibility_timeout(visibility)
            .wait_time_seconds(wait_s)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .customize()
            .config_override(self.setup.poll_config());
        let answer = asked.send().await.map_err(Failed::from);
        let answer = self.heard(which, answer).await?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        let received = messages.filter_map(|message| {
            let attributes = message.attributes.as_ref();
            let receives = attributes
                .and_then(|it| it.get(&MessageSystemAttributeName::ApproximateReceiveCount));
            let text = message.body.unwrap_or_default();
            Some(Received {
                id: message.message_id?.into(),
                handle: message.receipt_handle?,
                target: text::target(&text),
                receives: receives.and_then(|it| it.parse().ok()).unwrap_or(1),
                text,
            })
        });
        Ok(received.collect())
    }

    /// Lends at most `BATCH_MAX` messages for as long as each says; what is gone is no fault.
    pub(super) async fn lend(&self, which: Which, lends: &[Lend]) -> Result<(), Failed> {
        let queue = self.queue(which).await?;
        let mut asked = self
            .client
            .change_message_visibility_batch()
            .queue_url(&queue.url);
        for (index, lend) in lends.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&lend.handle)
                .visibility_timeout(lend.seconds.clamp(0, VISIBILITY_MAX_S));
            asked = asked.entries(entry.build()?);
        }
        let answer = asked.send().await.map_err(Failed::from);
        let answer = self.heard(which, answer).await?;
        only_gone(&answer.failed)
    }

    /// Deletes at most `BATCH_MAX` messages; what is gone is no fault.
    pub(super) async fn delete(&self, which: Which, handles: &[String]) -> Result<(), Failed> {
        let queue = self.queue(which).await?;
        let mut asked = self.client.delete_message_batch().queue_url(&queue.url);
        for (index, handle) in handles.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle);
            asked = asked.entries(entry.build()?);
        }
        let answer = asked.send().await.map_err(Failed::from);
        let answer = self.heard(which, answer).await?;
        only_gone(&answer.failed)
    }

    /// About how many messages there are, waiting and lent.
    pub(super) async fn count(&self, which: Which) -> Result<u64, Failed> {
        let queue = self.queue(which).await?;
        let mut asked = self.client.get_queue_attributes().queue_url(&queue.url);
        for name in COUNTS {
            asked = asked.attribute_names(name);
        }
        let answer = asked.send().await.map_err(Failed::from);
        let answer = self.heard(which, answer).await?;
        let attributes = answer.attributes.unwrap_or_default();
        let counts = COUNTS.iter().filter_map(|name| attributes.get(name));
        Ok(counts.filter_map(|it| it.parse::<u64>().ok()).sum())
    }
}

/// What another has by now, or nobody, is not ours to change.
fn only_gone(failed: &[BatchResultErrorEntry]) -> Result<(), Failed> {
    let is_gone = |it: &&BatchResultErrorEntry| it.sender_fault;
    match failed.iter().find(|it| !is_gone(it)) {
        None => Ok(()),
        Some(entry) => Err(Failed::of_entry(entry)),
    }
}

const COUNTS: [QueueAttributeName; 3] = [
    QueueAttributeName::ApproximateNumberOfMessages,
    QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
];

/// The service's own bounds.
pub(super) const BATCH_MAX: usize = 10;
const BYTES_MAX: usize = 1 << 20;
const VISIBILITY_MAX_S: i32 = 43_200;
/// Two weeks, the longest.
const RETENTION_S: &str = "1209600";
