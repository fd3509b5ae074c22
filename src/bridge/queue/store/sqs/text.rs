//! Jobs as messages: of which size, with which characters, in which group.
//!
//! Owns: `messages`, `group`, `plain`.
//! May depend on: `bridge::queue::{record, store}`, sha2.
//! Invariants: a message holds no character that SQS refuses, and has at most the queue's bytes; the messages of one job
//! are the same each time.

use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::setup::Groups;
use crate::bridge::{
    queue::{TargetName, record::Record, store::NewJob},
    webhook_event::WebhookEvent,
};

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) group: Option<String>,
}

/// The messages of a job, and those of its parts that are too large.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) all: Vec<Message>,
    /// By their bytes.
    pub(super) too_large: Vec<usize>,
}

impl Messages {
    pub(super) fn of(job: &NewJob, groups: Option<&Groups>, bytes_max: usize) -> Self {
        let mut messages = Self::default();
        match groups {
            Some(Groups::PerChannel) => messages.add_by_channel(job, bytes_max),
            Some(Groups::One(group)) => messages.add(&job.text, Some(group), bytes_max),
            None => messages.add(&job.text, None, bytes_max),
        }
        messages
    }

    /// One for each channel, since each has its own group.
    fn add_by_channel(&mut self, job: &NewJob, bytes_max: usize) {
        let Ok(record) = Record::read(&job.text) else {
            return self.add(&job.text, Some(&channel_group(job.target, "")), bytes_max);
        };
        let mut by_channel: Vec<(String, Vec<Arc<WebhookEvent>>)> = Vec::new();
        for event in &record.events {
            let its = by_channel
                .iter_mut()
                .find(|(channel, _)| **channel == *event.channel);
            match its {
                Some((_, events)) => events.push(Arc::clone(event)),
                None => {
                    let channel = event.channel.to_string();
                    by_channel.push((channel, vec![Arc::clone(event)]));
                }
            }
        }
        for (channel, events) in by_channel {
            let text = record.with(events).to_bytes();
            let group = channel_group(job.target, &channel);
            self.add(&text, Some(&group), bytes_max);
        }
    }

    /// In halves, where it is too large as a whole.
    fn add(&mut self, text: &[u8], group: Option<&str>, bytes_max: usize) {
        let plain = plain(text);
        if plain.len() <= bytes_max {
            self.all.push(Message {
                text: plain,
                group: group.map(str::to_owned),
            });
            return;
        }
        match Record::read(text) {
            Ok(record) if record.events.len() > 1 => {
                let (first, last) = record.events.split_at(record.events.len() / 2);
                for half in [first, last] {
                    let text = record.with(half.to_vec()).to_bytes();
                    self.add(&text, group, bytes_max);
                }
            }
            Ok(_) | Err(_) => self.too_large.push(plain.len()),
        }
    }
}

/// JSON with the two characters escaped that SQS takes in no message.
pub(super) fn plain(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.contains(REFUSED) {
        false => text.into_owned(),
        true => text
            .replace('\u{fffe}', "\\ufffe")
            .replace('\u{ffff}', "\\uffff"),
    }
}

const REFUSED: [char; 2] = ['\u{fffe}', '\u{ffff}'];

/// An id of a group that SQS takes: the text itself, or a digest of it.
pub(super) fn group(text: &str) -> String {
    match text.len() <= 128 && text.bytes().all(|it| it.is_ascii_graphic()) {
        true => text.to_owned(),
        false => digest(&[text.as_bytes()]),
    }
}

fn channel_group(target: TargetName, channel: &str) -> String {
    digest(&[target.to_string().as_bytes(), channel.as_bytes()])
}

fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let digest = digest.finalize();
    digest[..16].iter().map(|it| format!("{it:02x}")).collect()
}

/// A letter's number, of the message that has it.
pub(super) fn letter_id(message_id: &str) -> u64 {
    let digest = Sha256::digest(message_id.as_bytes());
    let mut id = [0; 8];
    id[..].copy_from_slice(&digest[..8]);
    // So that it is read whole by whatever holds numbers as floats.
    u64::from_be_bytes(id) >> 12
}

/// Whose job it is; a text that is none gets a target that is nobody's.
pub(super) fn target(text: &str) -> TargetName {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        target: std::borrow::Cow<'a, str>,
    }
    let head: Option<Head<'_>> = sonic_rs::from_str(text).ok();
    let name = head.and_then(|it| TargetName::parse(&it.target));
    name.unwrap_or_else(|| TargetName::of("", "", 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(channels: &[&str]) -> NewJob {
        let target = TargetName::of("a", "http://x/", 0);
        let events: Vec<String> = channels
            .iter()
            .map(|channel| format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#))
            .collect();
        let text = format!(
            r#"{{"v":1,"app":"a","target":"{target}","since":1,"attempts":2,"time_ms":2,"events":[{}]}}"#,
            events.join(",")
        );
        NewJob {
            target,
            channel: 0,
            text: text.into_bytes(),
        }
    }

    fn channels(message: &Message) -> Vec<String> {
        let record = Record::read(message.text.as_bytes()).expect("our own");
        assert_eq!((&*record.app_id, record.attempts), ("a", 2));
        let channels = record.events.iter();
        channels.map(|it| it.channel.to_string()).collect()
    }

    #[test]
    fn a_job_that_is_too_large_goes_in_parts_and_what_cannot_is_said() {
        let whole = job(&["a", "b", "c", "d"]);
        let bytes = whole.text.len();
        let messages = Messages::of(&whole, None, bytes);
        assert_eq!(messages.all.len(), 1);
        let messages = Messages::of(&whole, None, bytes - 1);
        let parts: Vec<Vec<String>> = messages.all.iter().map(channels).collect();
        assert_eq!(parts, [["a", "b"], ["c", "d"]]);
        assert!(messages.too_large.is_empty());
        let long = "x".repeat(300);
        let messages = Messages::of(&job(&["a", &long, "b"]), None, 300);
        let parts: Vec<Vec<String>> = messages.all.iter().map(channels).collect();
        assert_eq!(
            (parts, messages.too_large.len()),
            (vec![vec!["a".to_owned()], vec!["b".to_owned()]], 1)
        );
    }

    #[test]
    fn each_channel_has_a_group_of_its_own_in_its_order() {
        let job = job(&["a", "b", "a"]);
        let messages = Messages::of(&job, Some(&Groups::PerChannel), 10_000);
        let parts: Vec<Vec<String>> = messages.all.iter().map(channels).collect();
        assert_eq!(parts, [vec!["a", "a"], vec!["b"]]);
        assert_ne!(messages.all[0].group, messages.all[1].group);
        let one = Messages::of(&job, Some(&Groups::One("g".into())), 10_000);
        assert_eq!((one.all.len(), one.all[0].group.as_deref()), (1, Some("g")));
    }

    #[test]
    fn what_sqs_refuses_is_escaped_or_digested() {
        assert_eq!(
            plain("\"a\u{ffff}\u{fffe}\"".as_bytes()),
            "\"a\\uffff\\ufffe\""
        );
        assert_eq!(group("default"), "default");
        for odd in ["a b", "é", &"x".repeat(129)] {
            assert_eq!(group(odd).len(), 32, "{odd}");
        }
        assert_eq!(target("no json"), target("{}"));
        let job = job(&["a"]);
        assert_eq!(target(&plain(&job.text)), job.target);
    }
}
