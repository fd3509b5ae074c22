//! One request to a webhook target.
//!
//! Owns: the request's headers and signature, what counts as success.
//! May depend on: `webhook::{client, connection, lambda, target}`, `protocol::webhook`.
//! Invariants: the signature is over the exact bytes sent.

use std::sync::Arc;

use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{
    client::{Client, Destination, Exchange, ExchangeError, Head},
    connection::Kept,
    lambda,
    target::Target,
};
use crate::{bridge::queue::Job, protocol::webhook as wire};

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the function is not invoked: {0}")]
    Function(String),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// As the process before says of its attempt.
    #[error("{0}")]
    Before(String),
}

/// Sends `job` to `target` once. Success is any 2xx; of a function, that it was taken.
pub(super) async fn attempt(
    client: Client,
    kept: Option<Kept>,
    target: Arc<Target>,
    job: &Job,
) -> (Result<(), AttemptError>, Option<Kept>) {
    let is_function = target.function.is_some();
    let keep_bytes = match is_function {
        true => lambda::WORDS_BYTES,
        false => 0,
    };
    let Exchange { answer, kept } = exchange(client, kept, target, job, keep_bytes).await;
    let result = match answer {
        Ok((status, body)) => verdict(is_function, status, &body),
        Err(error) => Err(error.into()),
    };
    (result, kept)
}

/// What an answer means.
pub(super) fn verdict(
    is_function: bool,
    status: StatusCode,
    body: &[u8],
) -> Result<(), AttemptError> {
    match is_function {
        true => lambda::verdict(status, body),
        false if status.is_success() => Ok(()),
        false => Err(AttemptError::Status(status)),
    }
}

/// Sends `job` to `target` once, and keeps so many bytes of the answer.
pub(super) async fn exchange(
    client: Client,
    kept: Option<Kept>,
    target: Arc<Target>,
    job: &Job,
    keep_bytes: usize,
) -> Exchange {
    let mut body = Vec::new();
    wire::body(
        &mut body,
        job.time_ms(),
        job.events.iter().map(|event| event.on_the_wire()),
    );
    let to = &target.destination;
    let request = match (&target.function, &target.head) {
        (Some(function), _) => {
            // In a box, since it is large and seldom.
            let headers = Box::pin(function.headers(&target.url, &body)).await;
            headers.map(|headers| to.head(&headers).request(&[], &body))
        }
        (None, Some(head)) => {
            let signature = target.entry.rules.signers[0].sign_hex(&[&body]);
            Ok(head.request(&[(X_PUSHER_SIGNATURE, &signature)], &body))
        }
        (None, None) => Err(ExchangeError::Broken(format!(
            "{X_PUSHER_KEY} cannot be sent as a header"
        ))),
    };
    match request {
        Ok(request) => client.send(to, kept, &request, keep_bytes).await,
        Err(error) => {
            let (answer, kept) = (Err(error), None);
            Exchange { answer, kept }
        }
    }
}

/// What each request to a target begins with; `None` if the app's key is none for a header.
pub(super) fn head(to: &Destination, headers: &HeaderMap, key: &str) -> Option<Head> {
    let mut headers = headers.clone();
    // Pusher's Node library refuses parameters.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_PUSHER_KEY, HeaderValue::from_bytes(key.as_bytes()).ok()?);
    Some(to.head(&headers))
}

const X_PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const X_PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");
