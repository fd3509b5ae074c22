//! Webhooks that were given up, as an operator sees them.
//!
//! Owns: `DeadLetter` and its JSON; `DeadLetters`, those of a node without a store.
//! May depend on: `queue::record`, `holders`, `protocol::json`, `sonic-rs`.
//! Invariants: a letter holds neither a URL nor a secret; at most `LETTERS_MAX` letters and
//! `LETTER_BYTES_MAX` bytes are kept, and what goes for that is the oldest of the app that holds the most, and counted.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::Deserialize;
use sonic_rs::LazyValue;

use super::record::Record;
use crate::{
    holders::Holders,
    protocol::json::{write_json_string, write_u64},
};

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
    letters: BTreeMap<u64, Letter>,
    /// How many each app has, and their numbers.
    counts: Holders<Whose, BTreeSet<u64>>,
    bytes: Holders<Whose>,
    last_id: u64,
    pub dropped: u64,
}

#[derive(Debug)]
struct Letter {
    whose: Whose,
    text: Vec<u8>,
}

/// An app by the hash of its id: two of one hash would hold what they hold together. What was no job is nobody's, and
/// counted as an app's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whose(u64);

impl Whose {
    fn of(text: &[u8]) -> Self {
        let job = DeadLetter::read(text).and_then(|letter| letter.job);
        let mut hasher = DefaultHasher::new();
        job.map(|job| job.app_id).hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl DeadLetters {
    pub fn push(&mut self, text: Vec<u8>) {
        self.last_id += 1;
        let (id, whose) = (self.last_id, Whose::of(&text));
        self.counts.change(whose, |count, ids| {
            *count += 1;
            ids.insert(id);
        });
        self.bytes.change(whose, |bytes, ()| *bytes += text.len());
        self.letters.insert(id, Letter { whose, text });
        while let Some(id) = self.next_beyond() {
            self.remove(id);
            self.dropped += 1;
        }
    }

    /// The next that has to go, while there are more than may be.
    fn next_beyond(&mut self) -> Option<u64> {
        let whose = if self.counts.sum() as u64 > LETTERS_MAX {
            self.counts.heaviest()?.0
        } else if self.bytes.sum() as u64 > LETTER_BYTES_MAX {
            self.bytes.heaviest()?.0
        } else {
            return None;
        };
        self.counts.known_mut(whose)?.first().copied()
    }

    /// One that another process kept under this number.
    pub fn restore(&mut self, id: u64, text: Vec<u8>) {
        self.last_id = self.last_id.max(id.saturating_sub(1));
        self.push(text);
    }

    /// Gives all of them away, oldest first.
    pub fn take_all(&mut self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        (self.counts, self.bytes) = Default::default();
        let all = std::mem::take(&mut self.letters).into_iter();
        all.map(|(id, letter)| (id, letter.text))
    }

    pub fn len(&self) -> usize {
        self.letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let all = self.letters.iter();
        all.map(|(id, letter)| (*id, &*letter.text))
    }

    pub fn text(&self, id: u64) -> Option<&[u8]> {
        Some(&self.letters.get(&id)?.text)
    }

    pub fn remove(&mut self, id: u64) -> Option<Vec<u8>> {
        let Letter { whose, text } = self.letters.remove(&id)?;
        self.counts.change(whose, |count, ids| {
            *count -= 1;
            assert!(ids.remove(&id), "each letter is in its app's list");
        });
        self.bytes.change(whose, |bytes, ()| *bytes -= text.len());
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

    fn of_app(app: &str, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let error = "x".repeat(bytes);
        DeadLetter::write(&mut out, (5, "attempts", 1), Some(&error), |out| {
            let job = format!(
                r#"{{"v":1,"app":"{app}","target":"00000000000000000000000000000001","since":1,"attempts":0,"time_ms":2,"events":[{{"name":"cache_miss","channel":"c"}}]}}"#
            );
            out.extend_from_slice(job.as_bytes());
        });
        out
    }

    fn ids_of(letters: &DeadLetters, app: &str) -> Vec<u64> {
        let app_of = |text| Some(DeadLetter::read(text)?.job?.app_id);
        let its = letters
            .iter()
            .filter(|(_, text)| app_of(text).as_deref() == Some(app));
        its.map(|(id, _)| id).collect()
    }

    #[test]
    fn an_app_with_many_letters_pushes_out_none_of_an_app_with_few() {
        let mut letters = DeadLetters::default();
        for app in ["quiet", "loud", "quiet"] {
            letters.push(of_app(app, 1));
        }
        for _ in 0..LETTERS_MAX {
            letters.push(of_app("loud", 1));
        }
        assert_eq!((letters.len() as u64, letters.dropped), (LETTERS_MAX, 3));
        assert_eq!(ids_of(&letters, "quiet"), [1, 3]);
        assert_eq!(
            ids_of(&letters, "loud")[..2],
            [6, 7],
            "its oldest went: 2, 4, 5"
        );
        // What is no job is one more that holds something.
        letters.push(DeadLetter::of_malformed(7, "it is none"));
        assert_eq!(ids_of(&letters, "quiet"), [1, 3]);
        assert_eq!(ids_of(&letters, "loud")[0], 7);
        assert!(letters.remove(1).is_some() && letters.remove(1).is_none());
        assert_eq!(ids_of(&letters, "quiet"), [3]);
    }

    #[test]
    fn an_app_with_large_letters_pushes_out_none_of_an_app_with_small_ones() {
        let mut letters = DeadLetters::default();
        (0..5).for_each(|_| letters.push(of_app("small", 10)));
        (0..9).for_each(|_| letters.push(of_app("large", 2 << 20)));
        assert_eq!(
            letters.dropped, 2,
            "seven times 2 MiB and a little are less than 16"
        );
        assert_eq!(ids_of(&letters, "small"), [1, 2, 3, 4, 5]);
        assert_eq!(ids_of(&letters, "large"), [8, 9, 10, 11, 12, 13, 14]);
        // All go to another process, which counts them as this one did.
        let mut next = DeadLetters::default();
        for (id, text) in letters.take_all() {
            next.restore(id, text);
        }
        assert!(letters.is_empty());
        letters.push(of_app("large", 2 << 20));
        assert_eq!((letters.len(), letters.dropped), (1, 2));
        next.push(of_app("large", 2 << 20));
        assert_eq!(ids_of(&next, "small"), [1, 2, 3, 4, 5]);
        assert_eq!(ids_of(&next, "large"), [9, 10, 11, 12, 13, 14, 15]);
    }
}
