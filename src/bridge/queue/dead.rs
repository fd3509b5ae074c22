//! Webhooks that were given up, as an operator sees them.
//!
//! Owns: `DeadLetter` and its JSON; `DeadLetters`, those of a node without a store.
//! May depend on: `queue::record`, `protocol::json`, `sonic-rs`.
//! Invariants: a letter holds neither a URL nor a secret; at most `LETTERS_MAX` letters and
//! `LETTER_BYTES_MAX` bytes are kept, and what goes for that is the oldest and counted.

use std::{borrow::Cow, collections::VecDeque};

use serde::Deserialize;
use sonic_rs::LazyValue;

use super::record::Record;
use crate::protocol::json::{write_json_string, write_u64};

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Milliseconds since the Unix epoch.
    pub died_ms: u64,
    /// As in the label of `webhook_dead_letters_total`, or `malformed`.
    pub reason: Box<str>,
    pub attempts: u32,
    /// What the last attempt met.
    pub error: Option<Box<str>>,
    /// `None` for what was no job.
    pub job: Option<Record>,
}

#[derive(Deserialize)]
struct Text<'a> {
    died: u64,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(default)]
    attempts: u32,
    error: Option<Box<str>>,
    #[serde(borrow, default)]
    job: Option<LazyValue<'a>>,
}

impl DeadLetter {
    /// Writes one; `write_job` writes the job.
    pub fn write(
        out: &mut Vec<u8>,
        (died_ms, reason, attempts): (u64, &str, u32),
        error: Option<&str>,
        write_job: impl FnOnce(&mut Vec<u8>),
    ) {
        write_head(out, died_ms, reason, attempts);
        if let Some(error) = error {
            out.extend_from_slice(br#","error":"#);
            write_json_string(out, error);
        }
        out.extend_from_slice(br#","job":"#);
        write_job(out);
        out.push(b'}');
    }

    /// Of what was no job. Its text is not kept: it is unknown what stands in it.
    pub fn of_malformed(died_ms: u64, fault: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(&mut out, died_ms, "malformed", 0);
        out.extend_from_slice(br#","error":"#);
        write_json_string(&mut out, fault);
        out.push(b'}');
        out
    }

    /// `None` for what is none.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text: Text<'_> = sonic_rs::from_slice(text).ok()?;
        let job = text.job.as_ref();
        let mut job = job.and_then(|it| Record::read(it.as_raw_str().as_bytes()).ok());
        // A store that gave the job up kept it as it was.
        let met = job.as_mut().and_then(|it| it.error.take());
        Some(Self {
            died_ms: text.died,
            reason: text.reason.into(),
            attempts: text.attempts,
            error: text.error.or_else(|| met.map(|it| (&*it).into())),
            job,
        })
    }
}

fn write_head(out: &mut Vec<u8>, died_ms: u64, reason: &str, attempts: u32) {
    out.extend_from_slice(br#"{"died":"#);
    write_u64(out, died_ms);
    out.extend_from_slice(br#","reason":"#);
    write_json_string(out, reason);
    out.extend_from_slice(br#","attempts":"#);
    write_u64(out, attempts.into());
}

/// Letters and bytes that are kept, here and in each part of a store.
pub const LETTERS_MAX: u64 = 10_000;
pub const LETTER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Those of this process, which end with it.
#[derive(Debug, Default)]
pub struct DeadLetters {
    letters: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    last_id: u64,
    pub dropped: u64,
}

impl DeadLetters {
    pub fn push(&mut self, text: Vec<u8>) {
        self.last_id += 1;
        self.bytes += text.len();
        self.letters.push_back((self.last_id, text));
        while self.letters.len() as u64 > LETTERS_MAX || self.bytes as u64 > LETTER_BYTES_MAX {
            let Some((_, oldest)) = self.letters.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    /// One that another process kept under this number.
    pub fn restore(&mut self, id: u64, text: Vec<u8>) {
        self.last_id = self.last_id.max(id.saturating_sub(1));
        self.push(text);
    }

    /// Gives all of them away, oldest first.
    pub fn take_all(&mut self) -> VecDeque<(u64, Vec<u8>)> {
        self.bytes = 0;
        std::mem::take(&mut self.letters)
    }

    pub fn len(&self) -> usize {
        self.letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.letters.iter().map(|(id, text)| (*id, &**text))
    }

    fn index(&self, id: u64) -> Option<usize> {
        self.letters.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    pub fn text(&self, id: u64) -> Option<&[u8]> {
        let (_, text) = self.letters.get(self.index(id)?)?;
        Some(text)
    }

    pub fn remove(&mut self, id: u64) -> Option<Vec<u8>> {
        let index = self.index(id)?;
        let (_, text) = self.letters.remove(index)?;
        self.bytes -= text.len();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let job = r#"{"v":1,"app":"a","target":"00000000000000000000000000000001","since":1,"attempts":0,"time_ms":2,"events":[{"name":"cache_miss","channel":"c"}]}"#;
        let mut out = Vec::new();
        let head = (5, "attempts", 3);
        DeadLetter::write(&mut out, head, Some("answered \"500\""), |out| {
            out.extend_from_slice(job.as_bytes());
        });
        let letter = DeadLetter::read(&out).expect("our own");
        let read = (letter.died_ms, &*letter.reason, letter.attempts);
        assert_eq!(read, head);
        assert_eq!(letter.error.as_deref(), Some("answered \"500\""));
        assert_eq!(letter.job.expect("a job").to_bytes(), job.as_bytes());
        let job = job.replace("{\"v\":1,", r#"{"v":1,"error":"answered 503","#);
        let overflown = format!(r#"{{"died":5,"reason":"overflow","attempts":1,"job":{job}}}"#);
        let letter = DeadLetter::read(overflown.as_bytes()).expect("as a store writes it");
        assert_eq!(letter.error.as_deref(), Some("answered 503"));
        assert_eq!(letter.job.expect("a job").error, None, "it was told");
        let malformed = DeadLetter::of_malformed(7, "it is none");
        let letter = DeadLetter::read(&malformed).expect("our own");
        assert_eq!((&*letter.reason, letter.job), ("malformed", None));
        assert_eq!(DeadLetter::read(b"{}"), None);
    }

    #[test]
    fn beyond_the_bounds_the_oldest_letter_goes() {
        let mut letters = DeadLetters::default();
        for _ in 0..LETTERS_MAX + 2 {
            letters.push(vec![b'x'; 10]);
        }
        assert_eq!((letters.len() as u64, letters.dropped), (LETTERS_MAX, 2));
        assert_eq!(letters.iter().next().map(|(id, _)| id), Some(3));
        assert!(letters.remove(2).is_none());
        assert!(letters.remove(4).is_some());
        letters.push(vec![b'x'; LETTER_BYTES_MAX as usize]);
        assert_eq!(letters.len(), 1);
        letters.restore(20_000, vec![b'x']);
        letters.restore(7, vec![b'x'; 2]);
        let kept = letters.iter().map(|(id, text)| (id, text.len()));
        assert_eq!(kept.collect::<Vec<_>>(), [(20_000, 1), (20_001, 2)]);
        letters.push(vec![b'x'; LETTER_BYTES_MAX as usize + 1]);
        assert!(letters.is_empty());
    }
}
