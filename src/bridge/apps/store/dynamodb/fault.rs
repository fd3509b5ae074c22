//! What an error of DynamoDB means for an operator.
//!
//! Owns: `Failed`, and the sentences.
//! May depend on: `bridge::aws`, `dynamodb::setup`, the AWS crates.
//! Invariants: a sentence names the key and what to do.

use std::error::Error;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{super::StoreError, setup::DynamodbSetup};
use crate::{bridge::aws::AwsFault, metrics::backend::Fault};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    Asking(AwsFault),
    /// The table gave only a part, however often it was asked.
    LeftOut,
    /// Those who wait are as many as may.
    Crowded,
    Late,
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
    pub(super) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Asking(fault) if fault.is(code))
    }
}

pub(super) fn down(failed: &Failed, setup: &DynamodbSetup) -> StoreError {
    let kind = match failed {
        Failed::Asking(fault) => fault.kind(),
        Failed::Crowded | Failed::Late => Fault::Timeout,
        Failed::LeftOut | Failed::Unasked(_) => Fault::Protocol,
    };
    StoreError::Down(sentence(failed, setup), kind)
}

fn sentence(failed: &Failed, setup: &DynamodbSetup) -> String {
    let (service, table, keys) = (setup.at(), &setup.table, setup.place.keys);
    match failed {
        Failed::Asking(AwsFault::Late) | Failed::Late => format!(
            "{service} does not answer within {} ms (database.dynamodb.timeout_ms)",
            setup.place.timeout.as_millis()
        ),
        Failed::Asking(AwsFault::Unreachable(words)) => format!(
            "{service} cannot be reached ({}, {}): {words}",
            keys.endpoint, keys.region
        ),
        Failed::Asking(AwsFault::Strange(words)) => {
            format!("{service} is not understood ({}): {words}", keys.endpoint)
        }
        Failed::Asking(AwsFault::Untrusted(words)) => format!(
            "{service} cannot be reached by TLS: its CA must be one of this system's, or in the file that \
             SSL_CERT_FILE names ({}): {words}",
            keys.endpoint
        ),
        Failed::Asking(AwsFault::Credentials(words)) => format!(
            "{service} refuses our credentials: {} ({words})",
            keys.credentials
        ),
        Failed::Asking(AwsFault::Denied(words)) => format!(
            "{service} does not let us do that with {table}: dynamodb:GetItem, BatchGetItem and Query on it and \
             its index are needed to serve ({words})"
        ),
        Failed::Asking(fault) if fault.is("ResourceNotFoundException") => format!(
            "{service} has no table {table}, or no index {} in it: `sockudo apps init` creates it, or set \
             database.dynamodb.table_name or {}",
            setup.names.index, keys.region
        ),
        Failed::Asking(AwsFault::Refused { code, words }) => format!(
            "{service} refuses us: {code}: {words} (table {table}, index {})",
            setup.names.index
        ),
        Failed::LeftOut => format!(
            "{service} gives only a part of what is asked for: its throughput is used up (table {table})"
        ),
        Failed::Crowded => format!("{service} is too slow: as many look-ups wait for it as may"),
        Failed::Unasked(words) => format!("{service} cannot be asked: {words}"),
    }
}
