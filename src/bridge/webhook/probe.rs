//! One webhook, sent to see what comes back.
//!
//! Owns: `probe`, `Probed`.
//! May depend on: `bridge::{apps, webhook}`, `config`.
//! Invariants: it is signed, filtered and bound to `webhooks.targets` as every other; what is shown of a
//! URL holds no path and no query; nothing is queued or tried again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shards::application::Millis;

use super::{
    attempt, client_of,
    target::{TargetTable, Wanted},
};
use crate::{
    bridge::{
        apps::AppTable,
        queue::Job,
        webhook_event::{ClientEventOfWebhook, WebhookEvent, WebhookKind},
    },
    config::{
        app::{App, EventType},
        sections::Webhooks as Settings,
    },
};

/// What came of one target.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Scheme, host and port.
    pub endpoint: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// It does not ask for events of this kind.
    NotWanted,
    /// Its filter leaves this channel out.
    Filtered,
    Answered {
        status: u16,
        /// As for every other webhook: what was not is tried again, or given up.
        is_taken: bool,
        took: Duration,
        /// Its first bytes.
        body: Vec<u8>,
    },
    Failed {
        error: String,
        took: Duration,
    },
}

/// Bytes of an answer that are shown.
const SHOWN_BYTES: usize = 512;

/// Sends an event of `kind` on `channel` to all targets of `app`, one after the other.
#[expect(
    clippy::disallowed_methods,
    reason = "how long an answer takes is to be said"
)]
pub async fn probe(
    app: &App,
    settings: &Settings,
    kind: EventType,
    channel: &str,
    time_ms: u64,
) -> Vec<Probed> {
    let client = client_of(&settings.targets);
    let table = AppTable::build(std::slice::from_ref(app), None);
    let entry = table.by_id(&app.id).expect("it was put in");
    let mut targets = TargetTable::new(settings.lambda_endpoint_url.as_deref());
    targets.put(entry);
    let event = WebhookEvent {
        app: entry.index,
        time_ms,
        channel: channel.into(),
        kind: example(kind),
    };
    let mut probed = Vec::new();
    for id in targets.of_app(entry.index) {
        let target = targets
            .target(*id)
            .expect("a listed target is in the table");
        let outcome = match target.wants(&event) {
            Wanted::No => Outcome::NotWanted,
            Wanted::Filtered => Outcome::Filtered,
            Wanted::Yes => {
                let job = Job::new(entry.index, vec![Arc::new(event.clone())], Millis(0));
                let began = Instant::now();
                let is_function = target.function.is_some();
                let (client, target) = (client.clone(), Arc::clone(target));
                let exchange = attempt::exchange(client, None, target, &job, SHOWN_BYTES).await;
                let took = began.elapsed();
                match exchange.answer {
                    Ok((status, body)) => Outcome::Answered {
                        status: status.as_u16(),
                        is_taken: attempt::verdict(is_function, status, &body).is_ok(),
                        took,
                        body,
                    },
                    Err(error) => Outcome::Failed {
                        error: error.to_string(),
                        took,
                    },
                }
            }
        };
        probed.push(Probed {
            endpoint: target.shown(),
            outcome,
        });
    }
    probed
}

/// An event of that kind, of a user and a socket that are nobody's.
fn example(kind: EventType) -> WebhookKind {
    let user_id = || "test-user".into();
    match kind {
        EventType::ChannelOccupied => WebhookKind::ChannelOccupied,
        EventType::ChannelVacated => WebhookKind::ChannelVacated,
        EventType::MemberAdded => WebhookKind::MemberAdded { user_id: user_id() },
        EventType::MemberRemoved => WebhookKind::MemberRemoved { user_id: user_id() },
        EventType::ClientEvent => WebhookKind::ClientEvent(Box::new(ClientEventOfWebhook {
            event: "\"client-test\"".into(),
            data: "\"{}\"".into(),
            socket_id: "1.1".into(),
            user_id: None,
        })),
        EventType::CacheMiss => WebhookKind::CacheMiss,
        EventType::SubscriptionCount => WebhookKind::SubscriptionCount { count: 1 },
    }
}
