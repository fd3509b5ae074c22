//! What an error of SQS means for an operator.
//!
//! Owns: `Failed`, and the sentences.
//! May depend on: `bridge::aws`, `sqs::setup`, the AWS crates.
//! Invariants: a sentence names the key and what to do.

use std::error::Error;

use aws_sdk_sqs::{
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::BatchResultErrorEntry,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{super::StoreFault, setup::SqsSetup};
use crate::{bridge::aws::AwsFault, metrics::backend::Fault};

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Failed {
    Asking(AwsFault),
    /// An answer that no SQS gives.
    Odd(&'static str),
    /// A question that cannot be put: a fault of ours.
    Unasked(String),
}

impl<E> From<SdkError<E, HttpResponse>> for Failed
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::Asking(AwsFault::of(&error))
    }
}

impl From<BuildError> for Failed {
    fn from(error: BuildError) -> Self {
        Self::Unasked(error.to_string())
    }
}

impl Failed {
    pub(super) fn of_entry(entry: &BatchResultErrorEntry) -> Self {
        let words = entry.message.as_deref().unwrap_or_default();
        Self::Asking(AwsFault::Refused {
            code: entry.code.chars().take(100).collect(),
            words: words.chars().take(200).collect(),
        })
    }

    /// By its old name and its new one.
    pub(super) fn is_without_queue(&self) -> bool {
        let Self::Asking(AwsFault::Refused { code, .. }) = self else {
            return false;
        };
        code.ends_with("NonExistentQueue") || code.ends_with("QueueDoesNotExist")
    }

    /// Nobody is there to be told anything else.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Asking(AwsFault::Late | AwsFault::Unreachable(_) | AwsFault::Untrusted(_))
        )
    }

    /// As it is counted.
    pub(super) fn kind(&self) -> Fault {
        match self {
            Self::Asking(fault) => fault.kind(),
            Self::Odd(_) | Self::Unasked(_) => Fault::Protocol,
        }
    }

    pub(super) fn told(&self, setup: &SqsSetup) -> StoreFault {
        StoreFault(self.sentence(setup))
    }

    fn sentence(&self, setup: &SqsSetup) -> String {
        let (service, queue, keys) = (setup.at(), setup.queue(), setup.place.keys);
        match self {
            Self::Asking(AwsFault::Late) => format!("{service} does not answer in time"),
            Self::Asking(AwsFault::Unreachable(words)) => format!(
                "{service} cannot be reached ({}, {}): {words}",
                keys.endpoint, keys.region
            ),
            Self::Asking(AwsFault::Strange(words)) => {
                format!("{service} is not understood ({}): {words}", keys.endpoint)
            }
            Self::Asking(AwsFault::Untrusted(words)) => format!(
                "{service} cannot be reached by TLS: its CA must be one of this system's, or in the file \
                 that SSL_CERT_FILE names ({}): {words}",
                keys.endpoint
            ),
            Self::Asking(AwsFault::Credentials(words)) => {
                format!(
                    "{service} refuses our credentials: {} ({words})",
                    keys.credentials
                )
            }
            Self::Asking(AwsFault::Denied(words)) => format!(
                "{service} does not let us do that with {queue} or {}: sqs:GetQueueUrl, CreateQueue, \
                 GetQueueAttributes, SendMessage, ReceiveMessage, DeleteMessage and \
                 ChangeMessageVisibility are needed ({words})",
                SqsSetup::LETTERS
            ),
            Self::Asking(AwsFault::Refused { .. }) if self.is_without_queue() => format!(
                "{service} has no queue {queue} or {}: create it, or set queue.sqs.queue_url_prefix or {}",
                SqsSetup::LETTERS,
                keys.region
            ),
            Self::Asking(AwsFault::Refused { code, words }) => {
                format!("{service} refuses us: {code}: {words} (queue {queue})")
            }
            Self::Odd(words) => format!("{service} {words}"),
            Self::Unasked(words) => format!("{service} cannot be asked: {words}"),
        }
    }
}
