//! One request to a webhook target.
//!
//! Owns: the request's headers and signature, what counts as success.
//! May depend on: `webhook::{client, lambda, target}`, `protocol::webhook`.
//! Invariants: the signature is over the exact bytes sent.

use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{
    client::{Client, Exchange, ExchangeError, Kept},
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
        Ok((status, body)) if is_function => lambda::verdict(status, &body),
        Ok((status, _)) if status.is_success() => Ok(()),
        Ok((status, _)) => Err(AttemptError::Status(status)),
        Err(error) => Err(error.into()),
    };
    (result, kept)
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
    if let Some(function) = &target.function {
        let headers = function.headers(&target.url, &body).await;
        return match headers {
            Ok(headers) => {
                let to = &target.destination;
                client
                    .post(to, kept, headers, body.into(), keep_bytes)
                    .await
            }
            Err(error) => {
                let (answer, kept) = (Err(error), None);
                Exchange { answer, kept }
            }
        };
    }
    let signature = target.entry.signers[0].sign_hex(&[&body]);
    let mut headers = target.headers.clone();
    for (name, value) in [
        (CONTENT_TYPE, &b"application/json"[..]), // Pusher's Node library refuses parameters.
        (X_PUSHER_KEY, target.entry.app.key.as_bytes()),
        (X_PUSHER_SIGNATURE, &signature),
    ] {
        let Ok(value) = HeaderValue::from_bytes(value) else {
            let error = ExchangeError::Broken(format!("{name} cannot be sent as a header"));
            let (answer, kept) = (Err(error), None);
            return Exchange { answer, kept };
        };
        headers.insert(name, value);
    }
    let to = &target.destination;
    client
        .post(to, kept, headers, body.into(), keep_bytes)
        .await
}

const X_PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const X_PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");
