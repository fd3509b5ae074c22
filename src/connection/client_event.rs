//! Data path. When a client may send an event to the other subscribers of a channel.
//!
//! Owns: a client event's checks in their order, and their texts.
//! May depend on: `protocol`, `channel::local`, the other files of this room.
//! Invariants: a refused event is answered with 4301, reaches nobody and closes nothing; a
//! rate-refused one takes no token.

use std::borrow::Cow;

use super::{
    effect::{Effect, Publish, Reply, View},
    row::Connection,
};
use crate::protocol::{
    code,
    incoming::ClientData,
    json::JsonString,
    name::{ChannelName, check_client_event_name},
    rules::AppRules,
};

/// A list of so many is searched by comparing names: faster than a hash of the name.
const COMPARED_MAX: usize = 8;

impl Connection {
    /// A client sent an event.
    // One compare per subscription; no hash and no allocation.
    pub(super) fn client_event<'a>(
        &mut self,
        view: &mut View<'_>,
        event: &str,
        event_token: JsonString<'a>,
        channel: Option<Cow<'a, str>>,
        data: ClientData<'a>,
    ) -> Effect<'a> {
        let Some(app) = view.app else {
            return Effect::Nothing;
        };
        let checked = self.check_client_event(view, app, event, channel.as_deref(), data);
        match (checked, channel) {
            (Ok(row), Some(name)) => Effect::Publish(Publish {
                channel: row,
                name,
                event_token: event_token.token(),
                data,
                user_id: self.membership(row).cloned(),
            }),
            (Ok(_), None) => unreachable!("a checked event has a channel"),
            (Err(text), channel) => Effect::Reply(Reply::Error {
                code: Some(code::CLIENT_EVENT_REJECTED),
                text,
                channel,
            }),
        }
    }

    fn check_client_event(
        &mut self,
        view: &mut View<'_>,
        app: &AppRules,
        event: &str,
        channel: Option<&str>,
        data: ClientData<'_>,
    ) -> Result<u32, &'static str> {
        if app.client_events_per_s > 0 {
            view.tally.client_event_checks += 1;
            if !self
                .client_events
                .take(view.now, app.client_events_per_s, 1)
            {
                view.tally.client_events_limited += 1;
                return Err(code::CLIENT_EVENT_RATE_LIMITED);
            }
        }
        if !app.allows_client_events {
            return Err("Client events are not enabled for this app");
        }
        check_client_event_name(event, app.event_name_bytes_max as usize)
            .map_err(|_| "The event name is empty or too long")?;
        let channel = channel.ok_or("The event has no channel")?;
        let name = ChannelName::parse(channel, app.channel_name_bytes_max as usize)
            .map_err(|_| "The channel name is invalid")?;
        if !name.kind().allows_client_events() {
            return Err("Client events are allowed on private and presence channels only");
        }
        let row = self
            .subscribed_row(view, channel)
            .ok_or("Not subscribed to the channel")?;
        let data_bytes = match data {
            ClientData::Text(string) => string.decoded_bytes(),
            ClientData::Json(_) | ClientData::Absent => {
                view.token.clear();
                data.write_token(view.token)
            }
        };
        // Escaped as text it may take twice as much.
        let frame_bytes = data_bytes.saturating_mul(2);
        let data_bytes_max = app.event_data_bytes_max as usize;
        if data_bytes > data_bytes_max || frame_bytes > view.node.frame_bytes_max {
            return Err("The event data is too large");
        }
        Ok(row)
    }

    /// The row of a channel that the connection is subscribed to.
    fn subscribed_row(&self, view: &View<'_>, channel: &str) -> Option<u32> {
        if self.subscriptions.len() > COMPARED_MAX {
            let hash = view.names.hash(channel);
            let row = view.channels.find(self.app, channel, hash)?.0.index;
            return self.subscriptions.find(row).map(|_| row);
        }
        let mut rows = self.subscriptions.iter().map(|it| it.channel);
        rows.find(|row| *view.channels.at(*row).name == *channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture::{Step, app_rules, data_of};

    /// One thing that is wrong with an event or its sender.
    type Fault = fn(&mut Step);

    const FAULTS: [(&str, Fault); 8] = [
        (code::CLIENT_EVENT_RATE_LIMITED, |step| {
            step.app.client_events_per_s = 1;
            let now = step.now;
            assert!(step.connection.client_events.take(now, 1, 1));
        }),
        ("Client events are not enabled for this app", |step| {
            step.app.allows_client_events = false;
        }),
        ("The event name is empty or too long", |step| {
            step.app.event_name_bytes_max = 10;
        }),
        ("The event has no channel", |step| step.channel = None),
        ("The channel name is invalid", |step| {
            step.channel = Some("private room");
        }),
        (
            "Client events are allowed on private and presence channels only",
            |step| step.channel = Some("room"),
        ),
        ("Not subscribed to the channel", |step| {
            step.subscribed = false;
        }),
        ("The event data is too large", |step| {
            step.app.event_data_bytes_max = 1;
        }),
    ];

    fn refusal_of(faults: &[Fault]) -> Option<&'static str> {
        let mut step = Step::new(app_rules());
        for fault in faults {
            fault(&mut step);
        }
        if step.subscribed {
            step.enter("private-room", None);
        }
        let channel = step.channel.map(|it| format!(r#","channel":"{it}""#));
        let text = format!(
            r#"{{"event":"client-typing"{},"data":"{{}}"}}"#,
            channel.unwrap_or_default()
        );
        match step.on_text(&text) {
            Effect::Publish(publish) => {
                assert_eq!(data_of(&publish), r#""{}""#);
                None
            }
            Effect::Reply(Reply::Error { code, text, .. }) => {
                assert_eq!(code, Some(4301));
                Some(text)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_two_faults_the_one_that_is_looked_for_first_is_told() {
        assert_eq!(refusal_of(&[]), None);
        for (index, (text, fault)) in FAULTS.iter().enumerate() {
            assert_eq!(refusal_of(&[*fault]), Some(*text));
            for (_, other) in &FAULTS[index + 1..] {
                assert_eq!(refusal_of(&[*other, *fault]), Some(*text));
            }
        }
    }
}
