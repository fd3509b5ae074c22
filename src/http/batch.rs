//! Data path. The body of `/batch_events`, an event at a time, so that a large one need not be read at once.
//!
//! Owns: the rules of a batch as a whole.
//! May depend on: `api`, `protocol::json`.
//! Invariants: each byte is looked at once; a step reads one event or one member that nobody needs, and so
//! takes a bounded time; nothing is known to be good before `Read::Whole`.

use super::api::{ApiError, EventFields, EventLimits, PublishRequest};
use crate::protocol::json::{Container, Place, Scanner};

/// How far a batch has been read. Its text stays with whoever reads it.
#[derive(Clone, Debug, Default)]
pub struct BatchReader {
    place: Place,
    stage: Stage,
    batch: Batch,
}

/// What stands where the reader does.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Begin,
    Member,
    Item,
    End,
}

/// What is known of the list of events.
#[derive(Clone, Copy, Debug, Default)]
enum Batch {
    #[default]
    Missing,
    NoList,
    /// Events so far, and what is wrong with the first that is not as it must be.
    List(usize, Option<ApiError>),
}

/// What a step has read.
#[derive(Debug)]
pub enum Read<'a> {
    /// The list begins; what came of one before it does not count.
    Begins,
    Event(PublishRequest<'a>),
    /// What nobody needs.
    Other,
    /// All of it, and it is as it must be.
    Whole,
}

impl BatchReader {
    /// Where it stands in the text.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads on; `body` is the same each time. Of limits that change meanwhile each event is held against those
    /// of its step, and how many there may be against the lowest.
    ///
    /// # Errors
    /// The text is no JSON, or has too much of it. What is wrong with the batch or an event of it is told at
    /// the end: 400 and 413 go by the whole body, and not by what stands first.
    pub fn step<'a>(
        &mut self,
        body: &'a str,
        limits: &EventLimits,
        events_max: usize,
    ) -> Result<Read<'a>, ApiError> {
        let mut scanner = Scanner::resumed(body, self.place, limits.bound(events_max));
        let read = match self.stage {
            Stage::Begin => self.begin(&mut scanner),
            Stage::Member => self.member(&mut scanner, limits),
            Stage::Item => self.item(&mut scanner, limits, events_max),
            Stage::End => self.verdict(events_max).map(|()| Read::Whole),
        };
        // Of a refusal too: what was looked at has its price.
        self.place = scanner.place();
        read
    }

    fn begin<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Read<'a>, ApiError> {
        scanner.check_object()?;
        let is_member = scanner.enter(Container::Object)?;
        self.go_on(scanner, is_member)?;
        Ok(Read::Other)
    }

    /// Behind the outer object's bracket, or a member of it.
    fn go_on(&mut self, scanner: &mut Scanner<'_>, is_member: bool) -> Result<(), ApiError> {
        if is_member {
            self.stage = Stage::Member;
        } else {
            scanner.end()?;
            self.stage = Stage::End;
        }
        Ok(())
    }

    fn member<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        limits: &EventLimits,
    ) -> Result<Read<'a>, ApiError> {
        let is_batch = scanner.key()?.is("batch");
        if is_batch && scanner.begins(Container::Array) {
            self.batch = Batch::List(0, None);
            if scanner.enter(Container::Array)? {
                self.stage = Stage::Item;
                return Ok(Read::Begins);
            }
        } else {
            let whole = scanner.bound(limits.bound(1));
            scanner.value()?;
            scanner.restore(whole)?;
            if is_batch {
                self.batch = Batch::NoList;
            }
        }
        let is_member = scanner.another(Container::Object)?;
        self.go_on(scanner, is_member)?;
        Ok(if is_batch { Read::Begins } else { Read::Other })
    }

    fn item<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        limits: &EventLimits,
        events_max: usize,
    ) -> Result<Read<'a>, ApiError> {
        let Batch::List(count, fault) = &mut self.batch else {
            return Err(ApiError::Internal);
        };
        *count += 1;
        let whole = scanner.bound(limits.bound(1));
        let mut read = Read::Other;
        if fault.is_none() && *count <= events_max && scanner.begins(Container::Object) {
            let fields = EventFields::read(scanner)?;
            match PublishRequest::of_fields(fields, limits) {
                Ok(event) => read = Read::Event(event),
                Err(error) => *fault = Some(error),
            }
        } else {
            let is_event = scanner.begins(Container::Object);
            scanner.value()?;
            if !is_event {
                fault.get_or_insert(ApiError::WrongType("batch item"));
            }
            if *count > events_max {
                // Passed over, however many there may be by the end.
                fault.get_or_insert(ApiError::TooManyEvents {
                    count: *count,
                    count_max: events_max,
                });
            }
        }
        scanner.restore(whole)?;
        if !scanner.another(Container::Array)? {
            let is_member = scanner.another(Container::Object)?;
            self.go_on(scanner, is_member)?;
        }
        Ok(read)
    }

    fn verdict(&self, events_max: usize) -> Result<(), ApiError> {
        match self.batch {
            Batch::Missing => Err(ApiError::Missing("batch")),
            Batch::NoList => Err(ApiError::WrongType("batch")),
            Batch::List(0, _) => Err(ApiError::NoEvents),
            Batch::List(count, _) if count > events_max => Err(ApiError::TooManyEvents {
                count,
                count_max: events_max,
            }),
            Batch::List(_, Some(fault)) => Err(fault),
            Batch::List(_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        http::api::tests::{LIMITS, names},
        protocol::{name::ChannelNameError, socket_id::SocketId},
    };

    const GOOD: &str = r#"{"name":"e","channel":"a","data":""}"#;

    /// The events of a batch, and by how many bytes each step went on.
    fn read_in_steps(body: &str) -> (Result<Vec<PublishRequest<'_>>, ApiError>, Vec<usize>) {
        let (mut reader, mut events, mut steps) = (BatchReader::default(), Vec::new(), Vec::new());
        loop {
            let before = reader.place().at;
            let read = reader.step(body, &LIMITS, 10);
            steps.push(reader.place().at - before);
            match read {
                Ok(Read::Begins) => events.clear(),
                Ok(Read::Event(event)) => events.push(event),
                Ok(Read::Other) => {}
                Ok(Read::Whole) => return (Ok(events), steps),
                Err(error) => return (Err(error), steps),
            }
        }
    }

    fn read(body: &str) -> Result<Vec<PublishRequest<'_>>, ApiError> {
        read_in_steps(body).0
    }

    #[test]
    fn a_batch_is_read_whole_or_not_at_all() {
        let body = r#" {"x":[1], "batch" : [{"name":"e1","channel":"a","data":"1","info":"subscription_count"} , {"name":"e2","channels":["b","c"],"data":"2","socket_id":"1234.5678"}], "y":{} } "#;
        let events = read(body).expect("valid");
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.event.token(), names(event)))
            .collect();
        assert_eq!(
            told,
            [
                (r#""e1""#, vec!["a".to_owned()]),
                (r#""e2""#, vec!["b".to_owned(), "c".to_owned()])
            ]
        );
        assert!(events[0].info.subscription_count);
        assert_eq!(events[1].except, SocketId::new(1234, 5678));
        for (body, error) in [
            ("x".to_owned(), ApiError::MalformedJson),
            (String::new(), ApiError::MalformedJson),
            ("[]".to_owned(), ApiError::NotAnObject),
            ("{}".to_owned(), ApiError::Missing("batch")),
            ("{} x".to_owned(), ApiError::MalformedJson),
            (r#"{"batch":{}}"#.to_owned(), ApiError::WrongType("batch")),
            (r#"{"batch":[]}"#.to_owned(), ApiError::NoEvents),
            (
                r#"{"batch":[1]}"#.to_owned(),
                ApiError::WrongType("batch item"),
            ),
            (
                format!(r#"{{"batch":[{GOOD},{{}}]}}"#),
                ApiError::Missing("name"),
            ),
            (
                format!(r#"{{"batch":[{{}},1,{GOOD}]}}"#),
                ApiError::Missing("name"),
            ),
            (
                format!(r#"{{"batch":[{{}},{GOOD}}}"#),
                ApiError::MalformedJson,
            ),
            (r#"{"batch":[{}],"x":}"#.to_owned(), ApiError::MalformedJson),
            (
                format!(r#"{{"batch":[{GOOD},{{"name":"e","channel":"","data":""}}]}}"#),
                ApiError::ChannelName(ChannelNameError::Empty),
            ),
            (
                format!(
                    r#"{{"batch":[{{"name":"e","channel":"a","data":"","info":"cache"}},{GOOD}]}}"#
                ),
                ApiError::InfoNotApplicable("cache"),
            ),
        ] {
            assert_eq!(read(&body), Err(error), "{body}");
        }
    }

    #[test]
    fn of_a_key_that_is_repeated_the_last_counts() {
        let many = [GOOD; 11].join(",");
        for (members, expected) in [
            (
                format!(r#""batch":[{GOOD},{GOOD}],"batch":[{GOOD}]"#),
                Ok(1),
            ),
            (format!(r#""batch":[{many}],"batch":[{GOOD}]"#), Ok(1)),
            (format!(r#""batch":[{{}}],"batch":[{GOOD}]"#), Ok(1)),
            (format!(r#""batch":1,"batch":[{GOOD}]"#), Ok(1)),
            (
                format!(r#""batch":[{GOOD}],"batch":[]"#),
                Err(ApiError::NoEvents),
            ),
            (
                format!(r#""batch":[{GOOD}],"batch":null"#),
                Err(ApiError::WrongType("batch")),
            ),
        ] {
            let body = format!("{{{members}}}");
            assert_eq!(read(&body).map(|events| events.len()), expected, "{body}");
        }
    }

    #[test]
    fn a_batch_may_have_exactly_10_events() {
        for (count, expected) in [
            (9, Ok(9)),
            (10, Ok(10)),
            (
                11,
                Err(ApiError::TooManyEvents {
                    count: 11,
                    count_max: 10,
                }),
            ),
        ] {
            for first in [GOOD, "{}"] {
                let mut events = vec![GOOD; count];
                events[0] = first;
                let body = format!(r#"{{"batch":[{}]}}"#, events.join(","));
                let expected = match expected {
                    Ok(_) if first == "{}" => Err(ApiError::Missing("name")),
                    expected => expected,
                };
                assert_eq!(read(&body).map(|events| events.len()), expected);
            }
        }
    }

    #[test]
    fn an_event_that_was_one_too_many_when_it_was_looked_at_is_not_passed_over_unsaid() {
        let body = format!(r#"{{"batch":[{}]}}"#, [GOOD; 3].join(","));
        let mut reader = BatchReader::default();
        let mut told = Vec::new();
        // The object, the list, its items; then one more may be.
        for events_max in [2, 2, 2, 2, 2, 3] {
            let read = reader.step(&body, &LIMITS, events_max);
            told.push(read.map(|read| matches!(read, Read::Event(_))));
        }
        let too_many = ApiError::TooManyEvents {
            count: 3,
            count_max: 2,
        };
        let [ok, event] = [false, true].map(Ok);
        assert_eq!(told, [ok, ok, event, event, ok, Err(too_many)]);
    }

    #[test]
    fn no_step_reads_more_than_an_event_may_have_beside_its_strings() {
        let dear_max = LIMITS.bound(1).dear_bytes_max;
        let items = |bytes: usize| format!("[{}0]", "[],".repeat(bytes / 3));
        let large = format!(
            r#"{{"name":"e","channel":"a","data":"","z":{}}}"#,
            items(dear_max / 2)
        );
        let body = format!(
            r#"{{"z":{},"batch":[{}]}}"#,
            items(dear_max / 2),
            [&*large; 2].join(",")
        );
        let (events, steps) = read_in_steps(&body);
        assert_eq!(events.map(|events| events.len()), Ok(2));
        let most = steps.iter().copied().max();
        assert!(most <= Some(dear_max / 2 + 100), "{steps:?}");
        assert_eq!(steps.iter().sum::<usize>(), body.len());
        let too_much = ApiError::TooMuchJson {
            bytes_max: dear_max,
        };
        for body in [
            format!(r#"{{"z":{},"batch":[{GOOD}]}}"#, items(2 * dear_max)),
            format!(r#"{{"batch":[{GOOD},{}]}}"#, items(2 * dear_max)),
            format!(r#"{{"z":{}}}"#, "1".repeat(2 * dear_max)),
            format!(
                r#"{{"batch":[{{"name":{}"e"}}]}}"#,
                " ".repeat(2 * dear_max)
            ),
            format!(
                r#"{{"batch":[{{"name":"e","channel":"a","data":"","z":{}}}]}}"#,
                items(2 * dear_max)
            ),
        ] {
            let (read, steps) = read_in_steps(&body);
            assert_eq!(read, Err(too_much));
            let most = steps.iter().copied().max();
            assert!(most <= Some(dear_max + 100), "{steps:?}");
        }
        let body = format!(r#"{{"batch":[{}]}}"#, [&*large; 10].join(","));
        let whole_max = LIMITS.bound(10).dear_bytes_max;
        let too_much = ApiError::TooMuchJson {
            bytes_max: whole_max,
        };
        assert_eq!(
            read(&body),
            Err(too_much),
            "each is small enough, all are not"
        );
    }

    #[test]
    fn a_refused_step_has_read_what_it_looked_at() {
        let many = "[],".repeat(LIMITS.bound(1).dear_bytes_max);
        let long = "x".repeat(5_000);
        for (body, least) in [
            (
                format!(r#"{{"batch":[{GOOD},{{"z":[{many}0]}}]}}"#),
                LIMITS.bound(1).dear_bytes_max,
            ),
            (
                format!(r#"{{"batch":[{GOOD},{{"z":"{long}",}}]}}"#),
                long.len(),
            ),
            (format!(r#"{{"z":"{long}" "batch":[{GOOD}]}}"#), long.len()),
        ] {
            let (read, steps) = read_in_steps(&body);
            read.expect_err("refused");
            assert!(steps.last().is_some_and(|read| *read >= least), "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_batch_is_refused_and_never_endless(at in 0_usize..200, to in any::<char>()) {
            let body = format!(r#"{{"a":[1,{{"b":2}}],"batch":[{GOOD},{GOOD}],"c":"d"}}"#);
            let mut chars: Vec<char> = body.chars().collect();
            let at = at % chars.len();
            chars[at] = to;
            let damaged: String = chars.into_iter().collect();
            let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&damaged).is_ok();
            let read = read(&damaged);
            prop_assert!(is_json || read.is_err(), "{}", damaged);
        }
    }
}
