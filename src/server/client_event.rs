//! Data path. A client's event for the other subscribers of a channel.
//!
//! Owns: the frame that subscribers get, and its way to the channel's home.
//! May depend on: `protocol`, `channel::local`, `connection::effect`, `server::{home, pressure}`.
//! Invariants: every check was made in `connection::client_event`.

use std::sync::Arc;

use shards::application::Slot;

use super::{
    ServerTurn, ShardServer,
    message::{ClientEvent, Message},
};
use crate::{
    bridge::webhook_event::{ClientEventOfWebhook, WebhookInterest},
    connection::effect::Publish,
    protocol::{incoming::ClientData, outgoing},
    ws::encode,
};

impl ShardServer {
    /// Sends a checked client event to its channel's home.
    // Per event: one encode into scratch, one allocation (the shared frame); no look-up by name.
    pub(super) fn publish_client_event(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        publish: &Publish<'_>,
    ) {
        let data = match publish.data {
            ClientData::Text(string) => string.token(),
            ClientData::Json(_) | ClientData::Absent => {
                std::str::from_utf8(&self.token).expect("a token of text is text")
            }
        };
        self.scratch.clear();
        let start = encode::begin_text(&mut self.scratch);
        let (event, sender) = (publish.event_token, publish.user_id.as_deref());
        outgoing::event(&mut self.scratch, event, &publish.name, data, sender);
        encode::finish_text(&mut self.scratch, start);
        let row = &self.connections[slot.index as usize];
        let socket_id = row.socket_id;
        let app = self.apps.get(row.app);
        let wants_hook = app.is_some_and(|app| {
            let interest = app.entry.webhook_interest;
            interest.any(WebhookInterest::CLIENT_EVENT)
        });
        let hook = wants_hook.then(|| {
            Box::new(ClientEventOfWebhook {
                event: event.into(),
                data: data.into(),
                socket_id: socket_id.to_string().into(),
                user_id: publish.user_id.clone(),
            })
        });
        let local = self.locals.reference(publish.channel);
        let channel = self.locals.at(publish.channel);
        let home = channel.home_ref;
        let event = ClientEvent {
            home: home.expect("a subscription follows its home's answer"),
            frame: Arc::from(self.scratch.as_slice()),
            except: socket_id,
            hook,
        };
        self.send_home(turn, channel.home, Message::ClientEvent(event));
        self.hold_if_pressed(slot, local);
    }
}
