//! Data path. Events of the HTTP API on their way from a body to frames: as many at once as a turn may do.
//!
//! Owns: the frames of events that are published, and where their reading and writing goes on.
//! May depend on: `connection::pending`, `channel::{kept, names}`, `http::{api, batch}`, `protocol`, `ws::encode`.
//! Invariants: a publication is whole or there is none; a step reads one event, or writes one frame.

use std::{borrow::Cow, sync::Arc};

use shards::work::Work;
use smallvec::SmallVec;

use super::pending::{PublicEvent, Publication};
use crate::{
    channel::{
        kept::Event,
        names::{NameHasher, NameKey},
    },
    http::{
        api::{ApiError, EventLimits, PublishRequest},
        batch::{BatchReader, Read},
    },
    protocol::{
        json::Place, outgoing, partition::AppPartitions, rules::AppRules, socket_id::SocketId,
    },
    ws::encode,
};

/// A publication that is read and written.
#[derive(Clone, Debug)]
pub struct PublicationUnderWay {
    reader: Reader,
    /// An event that was read, of which frames are still to be written.
    unwritten: Option<Unwritten<'static>>,
    publication: Publication,
    frame_bytes: usize,
}

/// What is still to be read.
#[derive(Clone, Debug)]
enum Reader {
    Event,
    Batch(BatchReader),
    /// Nothing.
    Whole,
}

/// What the frames of one event are made of.
#[derive(Clone, Debug)]
struct Unwritten<'a> {
    /// JSON string tokens.
    name: Cow<'a, str>,
    data: Cow<'a, str>,
    channels: SmallVec<[Cow<'a, str>; 2]>,
    /// How many have their frame.
    written: usize,
    except: Option<SocketId>,
    item: u32,
}

/// Makes the keys of what a request names, and says how long a frame may be that is made of it.
#[derive(Clone, Copy)]
pub struct Keys<'r> {
    pub names: &'r NameHasher,
    pub app: &'r AppPartitions,
    pub frame_bytes_max: usize,
}

impl Keys<'_> {
    fn of_channel(self, name: &str) -> NameKey {
        self.names.channel_key(self.app, name)
    }
}

impl<'a> Unwritten<'a> {
    fn of(request: PublishRequest<'a>, item: u32) -> Self {
        Self {
            name: Cow::Borrowed(request.event.token()),
            data: request.data,
            channels: request.names,
            written: 0,
            except: request.except,
            item,
        }
    }

    fn into_owned(self) -> Unwritten<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Unwritten {
            name: owned(self.name),
            data: owned(self.data),
            channels: self.channels.into_iter().map(owned).collect(),
            ..self
        }
    }

    fn bytes(&self) -> usize {
        let channels = self.channels.iter().map(|it| it.len());
        self.name.len() + self.data.len() + channels.sum::<usize>()
    }

    fn is_written(&self) -> bool {
        self.written == self.channels.len()
    }

    /// Writes the frame for the next channel.
    fn write(&mut self, keys: Keys<'_>, scratch: &mut Vec<u8>) -> Result<PublicEvent, ApiError> {
        let channel = self.channels.get(self.written).map_or("", |name| &**name);
        scratch.clear();
        let start = encode::begin_text(scratch);
        outgoing::event(scratch, &self.name, channel, &self.data, None);
        encode::finish_text(scratch, start);
        if scratch.len() > keys.frame_bytes_max {
            return Err(ApiError::PayloadTooLarge {
                bytes: scratch.len(),
                bytes_max: keys.frame_bytes_max,
            });
        }
        let frame: Arc<[u8]> = Arc::from(scratch.as_slice());
        // `data` stands last: `...,"data":<token>}`.
        let data_start = frame.len() - 1 - self.data.len();
        let event = Event {
            data_start: u32::try_from(data_start).expect("payloads are bounded"),
            data_bytes: u32::try_from(self.data.len()).expect("payloads are bounded"),
            frame,
        };
        self.written += 1;
        Ok(PublicEvent {
            channel: channel.into(),
            key: keys.of_channel(channel),
            event,
            except: self.except,
            item: self.item,
            is_first: self.written == 1,
        })
    }
}

impl PublicationUnderWay {
    /// Of a body of one event.
    pub fn event() -> Self {
        Self::of(Reader::Event)
    }

    /// Of a batch.
    pub fn batch() -> Self {
        Self::of(Reader::Batch(BatchReader::default()))
    }

    fn of(reader: Reader) -> Self {
        let publication = Publication {
            events: Vec::new(),
            reports: Vec::new(),
            is_batch: matches!(reader, Reader::Batch(_)),
        };
        Self {
            reader,
            unwritten: None,
            publication,
            frame_bytes: 0,
        }
    }

    /// What is in memory of it beside the body.
    pub fn bytes(&self) -> usize {
        let unwritten = self.unwritten.as_ref().map_or(0, Unwritten::bytes);
        self.frame_bytes + unwritten
    }

    /// Goes on with the body, which is the same each time, until `work` has grown by `enough` or all is read and
    /// written; one step at least. `scratch` is room to write in.
    ///
    /// # Errors
    /// What is wrong with the whole of it, once that is known.
    pub fn go_on(
        &mut self,
        app: &AppRules,
        keys: Keys<'_>,
        body: &str,
        enough: Work,
        (work, scratch): (&mut Work, &mut Vec<u8>),
    ) -> Result<Option<Publication>, ApiError> {
        let mut spent = Work::default();
        let is_whole = loop {
            let step = match self.unwritten.take() {
                Some(unwritten) => self.write(unwritten, keys, enough, (&mut spent, scratch)),
                None => self.step(app, body, keys, enough, (&mut spent, scratch)),
            };
            match step {
                Ok(false) if spent < enough => {}
                step => break step,
            }
        };
        *work = work.and(spent);
        let nothing = Self::of(Reader::Whole).publication;
        Ok(is_whole?.then(|| std::mem::replace(&mut self.publication, nothing)))
    }

    /// Reads an event and begins to write it; true when there was none left.
    fn step(
        &mut self,
        app: &AppRules,
        body: &str,
        keys: Keys<'_>,
        enough: Work,
        (spent, scratch): (&mut Work, &mut Vec<u8>),
    ) -> Result<bool, ApiError> {
        let limits = event_limits(app);
        let request = match &mut self.reader {
            Reader::Whole => return Ok(true),
            Reader::Event => {
                self.reader = Reader::Whole;
                let (place, request) = PublishRequest::of_text(body, &limits);
                *spent = spent.and(cost_of_reading(Place::default(), place, &limits));
                request?
            }
            Reader::Batch(reader) => {
                let before = reader.place();
                let read = reader.step(body, &limits, app.batch_events_max as usize);
                *spent = spent.and(cost_of_reading(before, reader.place(), &limits));
                match read? {
                    Read::Begins => {
                        self.publication.events.clear();
                        self.publication.reports.clear();
                        self.frame_bytes = 0;
                        return Ok(false);
                    }
                    Read::Event(request) => request,
                    Read::Other => return Ok(false),
                    Read::Whole => return Ok(true),
                }
            }
        };
        let reports = &mut self.publication.reports;
        let item = u32::try_from(reports.len()).expect("batches are bounded");
        reports.push(request.info);
        let unwritten = Unwritten::of(request, item);
        self.write(unwritten, keys, enough, (spent, scratch))
    }

    /// Writes frames of an event; what is not written is kept. True when nothing is left.
    fn write(
        &mut self,
        mut unwritten: Unwritten<'_>,
        keys: Keys<'_>,
        enough: Work,
        (spent, scratch): (&mut Work, &mut Vec<u8>),
    ) -> Result<bool, ApiError> {
        while !unwritten.is_written() {
            let event = unwritten.write(keys, scratch)?;
            let bytes = event.event.frame.len();
            *spent = spent.and(cost_of_frame(bytes));
            self.frame_bytes += bytes;
            self.publication.events.push(event);
            if *spent >= enough && !unwritten.is_written() {
                self.unwritten = Some(unwritten.into_owned());
                return Ok(false);
            }
        }
        Ok(matches!(self.reader, Reader::Whole))
    }
}

/// What reading on from one place to another may cost. Data that is no string is looked at again for its compact
/// form; as much as data may have goes on its way, what is beside it is only looked at.
fn cost_of_reading(from: Place, to: Place, limits: &EventLimits) -> Work {
    let (bytes, dear_bytes) = (to.at - from.at, to.dear_bytes() - from.dear_bytes());
    let parsed = bytes
        .min(limits.payload_bytes_max)
        .saturating_add(dear_bytes);
    let escapes = Work::escapes(to.escapes() - from.escapes());
    let looked_at = Work::bytes(bytes.saturating_mul(2));
    Work::bytes_hashed(parsed).and(escapes).and(looked_at)
}

/// A frame is written, and copied to new memory that all can share.
fn cost_of_frame(bytes: usize) -> Work {
    Work::EVENT.and(Work::bytes(bytes.saturating_mul(2)))
}

fn event_limits(app: &AppRules) -> EventLimits {
    EventLimits {
        event_name_bytes_max: app.event_name_bytes_max as usize,
        channels_max: app.event_channels_max as usize,
        payload_bytes_max: app.event_data_bytes_max as usize,
        channel_name_bytes_max: app.channel_name_bytes_max as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel::names::tests::hasher, connection::fixture};

    #[test]
    fn what_is_in_memory_of_an_event_is_its_frames_and_what_the_others_are_made_of() {
        let (app, names) = (fixture::app_rules(), hasher());
        let keys = Keys {
            names: &names,
            app: &app.partitions,
            frame_bytes_max: usize::MAX,
        };
        let data = "x".repeat(1_000);
        let body = format!(r#"{{"name":"e","channels":["a","b","c"],"data":"{data}"}}"#);
        let mut publication = PublicationUnderWay::event();
        let mut told = vec![publication.bytes()];
        loop {
            let room = (&mut Work::default(), &mut Vec::new());
            let read = publication.go_on(&app, keys, &body, Work(1), room);
            told.push(publication.bytes());
            if read.expect("a good event").is_some() {
                break;
            }
        }
        let frame = told[3] / 3;
        assert!((1_000..1_100).contains(&frame), "{told:?}");
        // Name, data and channels, as they are spelled.
        let rest = 3 + 1_002 + 3;
        assert_eq!(told, [0, frame + rest, 2 * frame + rest, 3 * frame]);
    }

    #[test]
    fn an_escape_costs_more_than_plain_text() {
        let limits = event_limits(&fixture::app_rules());
        let cost = |body: &str| {
            let (place, _) = PublishRequest::of_text(body, &limits);
            cost_of_reading(Place::default(), place, &limits)
        };
        let of = |data: &str| format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
        let (plain, escaped) = (of(&"ab".repeat(1_000)), of(&r"\n".repeat(1_000)));
        let both = (cost(&plain), cost(&escaped));
        assert_eq!(both.1.0, both.0.0 + Work::escapes(1_000).0);
    }
}
