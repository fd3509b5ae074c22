//! Data path. A client's event for the other subscribers of a channel.
//!
//! Owns: a client event's checks in their order, the frame that subscribers get.
//! May depend on: `protocol`, `channel::local`, `connection`, `server::{home, replies}`.
//! Invariants: a refused event is answered with 4301, reaches nobody and closes nothing; a
//! rate-refused one takes no token.

use std::{rc::Rc, sync::Arc};

use shards::application::Slot;

use super::{
    ServerTurn, ShardServer,
    apps::ShardApp,
    message::{ClientEvent, Message},
};
use crate::{
    bridge::message::{ClientEventOfWebhook, WebhookInterest},
    protocol::{
        code,
        incoming::ClientData,
        json::JsonString,
        name::{ChannelName, check_client_event_name},
        outgoing,
    },
    ws::encode,
};

/// A client event as it was parsed.
pub(super) struct Sent<'a> {
    pub(super) event: &'a str,
    pub(super) event_token: JsonString<'a>,
    pub(super) channel: Option<&'a str>,
    pub(super) data: ClientData<'a>,
}

impl ShardServer {
    /// A client sent an event.
    // Per event: one compare per subscription of the sender, one encode into scratch, one
    // allocation (the shared frame); no hash look-up below nine subscriptions.
    pub(super) fn client_event(&mut self, turn: &mut impl ServerTurn, slot: Slot, sent: &Sent<'_>) {
        let app = self.held(slot).app;
        let Some(app) = self.apps.get(app).map(Rc::clone) else {
            return;
        };
        match self.client_event_checked(turn, slot, &app, sent) {
            Ok((row, event)) => {
                let home = self.locals.held(row).home;
                let local = self.locals.reference(row);
                self.send_home(turn, home, Message::ClientEvent(event));
                self.published(slot, local);
            }
            Err(reason) => self.reply(turn, slot, |out| {
                let code = Some(code::CLIENT_EVENT_REJECTED);
                outgoing::error(out, code, reason, sent.channel);
            }),
        }
    }

    fn client_event_checked(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        app: &ShardApp,
        sent: &Sent<'_>,
    ) -> Result<(u32, ClientEvent), &'static str> {
        let limits = &app.entry.app;
        self.spend_client_event(turn, slot, app)?;
        if !limits.enable_client_messages {
            return Err("Client events are not enabled for this app");
        }
        check_client_event_name(sent.event, limits.event_name_bytes_max as usize)
            .map_err(|_| "The event name is empty or too long")?;
        let channel = sent.channel.ok_or("The event has no channel")?;
        let name = ChannelName::parse(channel, limits.channel_name_bytes_max as usize)
            .map_err(|_| "The channel name is invalid")?;
        if !name.kind().allows_client_events() {
            return Err("Client events are allowed on private and presence channels only");
        }
        let row = self
            .subscribed_row(slot, channel)
            .ok_or("Not subscribed to the channel")?;
        let event = self.encode_client_event(slot, app, row, channel, sent)?;
        Ok((row, event))
    }

    /// Takes one of the connection's client events per second.
    fn spend_client_event(
        &mut self,
        turn: &impl ServerTurn,
        slot: Slot,
        app: &ShardApp,
    ) -> Result<(), &'static str> {
        let rate = app.entry.app.max_client_events_per_second;
        if rate == 0 {
            return Ok(());
        }
        let counters = self.counters.app(app.entry.index);
        counters.client_event_checks += 1;
        let row = &mut self.connections[slot.index as usize];
        if row.client_events.take(turn.now(), rate, 1) {
            return Ok(());
        }
        counters.client_event_limited += 1;
        Err(code::CLIENT_EVENT_RATE_LIMITED)
    }

    fn encode_client_event(
        &mut self,
        slot: Slot,
        app: &ShardApp,
        row: u32,
        channel: &str,
        sent: &Sent<'_>,
    ) -> Result<ClientEvent, &'static str> {
        let connection = &self.connections[slot.index as usize];
        let user_id = connection.membership(row);
        self.token.clear();
        let (data, bytes) = match sent.data {
            ClientData::Text(string) => (string.token(), string.decoded_bytes()),
            ClientData::Json(_) | ClientData::Absent => {
                let bytes = sent.data.write_token(&mut self.token);
                let token = std::str::from_utf8(&self.token);
                (token.expect("a token of text is text"), bytes)
            }
        };
        if bytes > app.entry.app.event_payload_bytes_max as usize {
            return Err("The event data is too large");
        }
        let event = sent.event_token.token();
        self.scratch.clear();
        let start = encode::begin_text(&mut self.scratch);
        let sender = user_id.map(|id| &**id);
        outgoing::event(&mut self.scratch, event, channel, data, sender);
        encode::finish_text(&mut self.scratch, start);
        let except = self.socket_ids.of(slot.index, connection.socket_low);
        let interest = app.entry.webhook_interest;
        let hook = interest.any(WebhookInterest::CLIENT_EVENT).then(|| {
            Box::new(ClientEventOfWebhook {
                event: event.into(),
                data: data.into(),
                socket_id: except.to_string().into(),
                user_id: user_id.map(Arc::clone),
            })
        });
        let home = self.locals.held(row).home_ref;
        Ok(ClientEvent {
            home: home.expect("a subscription follows its home's answer"),
            frame: Arc::from(self.scratch.as_slice()),
            except,
            hook,
        })
    }

    /// The row of a channel that the connection is subscribed to.
    fn subscribed_row(&mut self, slot: Slot, channel: &str) -> Option<u32> {
        let row = &self.connections[slot.index as usize];
        if row.subscriptions.len() > 8 {
            let local = self.locals.find(row.app, channel)?;
            return row.subscriptions.find(local.0.index).map(|_| local.0.index);
        }
        let mut rows = row.subscriptions.iter().map(|it| it.channel);
        let locals = &mut self.locals;
        rows.find(|row| *locals.held(*row).name == *channel)
    }
}
