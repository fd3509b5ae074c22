//! One HTTP request to a webhook target.
//!
//! Owns: the request's headers and signature, what counts as success, the client's settings.
//! May depend on: `reqwest`, `webhook::{target, policy, lambda}`, `protocol::{auth, webhook}`.
//! Invariants: the signature is over the exact bytes sent; a redirect is not followed; no address
//! outside the policy is connected to, and no proxy is used, which would connect in our place.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    redirect::Policy,
};

use super::{
    lambda,
    policy::{GuardedResolver, TargetPolicy},
    target::Target,
};
use crate::{
    bridge::{
        message::{WebhookEvent, WebhookKind},
        queue::Job,
    },
    protocol::webhook as wire,
};

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("{0} is an address that webhooks.targets denies")]
    Denied(IpAddr),
    #[error("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the function is not invoked: {0}")]
    Function(String),
    #[error("{0}")]
    Exchange(String),
}

/// Makes the client for all targets.
///
/// # Errors
/// When the TLS library finds no usable setup on this host.
pub(super) fn client(policy: &Arc<TargetPolicy>) -> Result<Client, reqwest::Error> {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(GuardedResolver {
            policy: Arc::clone(policy),
        }))
        .timeout(ATTEMPT_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .http1_title_case_headers()
        .user_agent(concat!("sockudo/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// How long a target may take to answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// More of an answer is not read; the connection is closed instead of used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends `job` to `target` once. Success is any 2xx.
pub(super) async fn attempt(
    client: Client,
    policy: Arc<TargetPolicy>,
    target: Arc<Target>,
    job: &Job,
) -> Result<(), AttemptError> {
    if let Some(address) = literal_address(&target.url).filter(|ip| !policy.permits(*ip)) {
        return Err(AttemptError::Denied(address));
    }
    let mut body = Vec::new();
    wire::body(
        &mut body,
        job.time_ms(),
        job.events.iter().map(|event| on_the_wire(event)),
    );
    if let Some(function) = &target.function {
        let headers = function
            .functions
            .headers(&target.url, &function.region, &body);
        let request = client.post(target.url.clone()).headers(headers.await?);
        let response = request.body(body).send().await.map_err(exchange_error)?;
        return lambda::verdict(response.status(), response.headers());
    }
    let signature = target.entry.signers[0].sign_hex(&[&body]);
    let mut request = client
        .post(target.url.clone())
        .headers(target.headers.clone());
    for (name, value) in [
        (CONTENT_TYPE, &b"application/json"[..]), // Pusher's Node library refuses parameters.
        (X_PUSHER_KEY, target.entry.app.key.as_bytes()),
        (X_PUSHER_SIGNATURE, &signature),
    ] {
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| AttemptError::Exchange(format!("{name} cannot be sent as a header")))?;
        request = request.header(name, value);
    }
    let mut response = request.body(body).send().await.map_err(exchange_error)?;
    let status = response.status();
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
    if status.is_success() {
        Ok(())
    } else {
        Err(AttemptError::Status(status))
    }
}

const X_PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const X_PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

fn on_the_wire(event: &WebhookEvent) -> wire::WebhookEvent<'_> {
    let channel = &*event.channel;
    match &event.kind {
        WebhookKind::ChannelOccupied => wire::WebhookEvent::ChannelOccupied { channel },
        WebhookKind::ChannelVacated => wire::WebhookEvent::ChannelVacated { channel },
        WebhookKind::MemberAdded { user_id } => {
            wire::WebhookEvent::MemberAdded { channel, user_id }
        }
        WebhookKind::MemberRemoved { user_id } => {
            wire::WebhookEvent::MemberRemoved { channel, user_id }
        }
        WebhookKind::ClientEvent(event) => wire::WebhookEvent::ClientEvent {
            channel,
            event_token: &event.event,
            data_token: &event.data,
            socket_id: &event.socket_id,
            user_id: event.user_id.as_deref(),
        },
        WebhookKind::CacheMiss => wire::WebhookEvent::CacheMiss { channel },
        WebhookKind::SubscriptionCount { count } => wire::WebhookEvent::SubscriptionCount {
            channel,
            count: *count,
        },
    }
}

/// An address in a URL is connected to without the resolver.
fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// The innermost cause, without the URL: its path or query may hold a credential.
fn exchange_error(error: reqwest::Error) -> AttemptError {
    if error.is_timeout() {
        return AttemptError::Timeout;
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    AttemptError::Exchange(cause.to_string())
}
