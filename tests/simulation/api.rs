//! A client of the HTTP API on one kept connection, with requests in a pipeline.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::{
    ledger::{Ledger, Moment},
    sign,
    turn::UNIX_MS,
    wire,
};

pub(crate) struct ApiClient {
    /// Also the number of its link.
    pub(crate) number: usize,
    pub(crate) app: usize,
    credentials: Credentials,
    input: Vec<u8>,
    /// Until its first request is sent: since when the server waits for that.
    awaited: Option<Moment>,
    /// Requests that were not answered yet, and since when the server waits for each, at the earliest.
    pub(crate) expected: VecDeque<(Moment, Ask)>,
    pub(crate) output: Vec<u8>,
    pub(crate) is_over: bool,
    /// Answers to `Ask::Probe`.
    pub(crate) probed: VecDeque<Value>,
}

#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// A request, with what its answer is judged by.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Events; the channels that the answer must tell of, if info was asked for.
    Publish {
        events: Vec<usize>,
        told: Option<BTreeSet<String>>,
    },
    Batch {
        events: Vec<usize>,
        told: Option<usize>,
    },
    Channels,
    Users,
    Probe,
    /// Clients that were signed in when it was sent.
    Terminate {
        clients: Vec<usize>,
    },
}

/// Why the node may refuse what it would else take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reasons {
    /// Apps are disabled for a while.
    pub(crate) has_toggles: bool,
    pub(crate) has_bus: bool,
}

impl ApiClient {
    pub(crate) fn new(number: usize, app: usize, credentials: &Credentials, came: Moment) -> Self {
        Self {
            number,
            app,
            credentials: credentials.clone(),
            input: Vec::new(),
            awaited: Some(came),
            expected: VecDeque::new(),
            output: Vec::new(),
            is_over: false,
            probed: VecDeque::new(),
        }
    }

    /// Asks with a request that is signed for this moment.
    pub(crate) fn asks(
        &mut self,
        now: Moment,
        (method, path): (&str, &str),
        parameters: &[(&str, &str)],
        body: Option<&Value>,
        ask: Ask,
    ) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let path = format!("/apps/{}{path}", self.credentials.id);
        let key = (&*self.credentials.key, &*self.credentials.secret);
        let timestamp = (UNIX_MS + now.at.0) / 1_000;
        let query = sign::api_query(key, method, &path, parameters, body.as_bytes(), timestamp);
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body.as_bytes());
        let awaited = self.awaited.take().unwrap_or(now);
        self.expected.push_back((awaited, ask));
    }

    /// Takes in what the server sent. Returns the clients that a termination has to have closed.
    pub(crate) fn reads(
        &mut self,
        bytes: &[u8],
        ledger: &mut Ledger,
        now: Moment,
        reasons: Reasons,
    ) -> Vec<usize> {
        self.input.extend_from_slice(bytes);
        let mut doomed = Vec::new();
        while let Some(response) = wire::take_response(&mut self.input) {
            let text = String::from_utf8_lossy(&response.body).into_owned();
            let ask = self.expected.pop_front();
            let (awaited, ask) = ask.unwrap_or_else(|| panic!("an answer to no request: {text}"));
            if response.status == 408 {
                wire::check_timeout(awaited, now);
                refuse(ledger, &ask);
                self.is_ended();
                break;
            }
            if response.status == 403 && reasons.has_toggles {
                refuse(ledger, &ask);
                continue;
            }
            if let Ask::Terminate { clients } = &ask
                && response.status == 503
                && reasons.has_bus
            {
                // Other nodes may not hear of it; here it is done.
                doomed.extend(clients);
                continue;
            }
            assert_eq!(response.status, 200, "{ask:?} was answered with {text}");
            let body: Value = serde_json::from_slice(&response.body).expect("a body is JSON");
            self.judge(ask, body, ledger, now, &mut doomed);
        }
        doomed
    }

    fn judge(
        &mut self,
        ask: Ask,
        body: Value,
        ledger: &mut Ledger,
        now: Moment,
        doomed: &mut Vec<usize>,
    ) {
        match ask {
            Ask::Publish { events, told } => {
                for event in events {
                    ledger.events[event].acknowledged = Some(now);
                }
                let Some(told) = told else {
                    return assert_eq!(body, json!({}), "a publication without info");
                };
                let channels = body["channels"].as_object().expect("channels are told");
                let channels: BTreeSet<String> = channels.keys().cloned().collect();
                assert_eq!(
                    channels, told,
                    "the answer tells of the channels that were asked for"
                );
            }
            Ask::Batch { events, told } => {
                for event in events {
                    ledger.events[event].acknowledged = Some(now);
                }
                let count = body["batch"].as_array().map(Vec::len);
                assert_eq!(
                    count, told,
                    "the answer tells of each item of a batch: {body}"
                );
            }
            Ask::Channels => assert!(body["channels"].is_object(), "{body}"),
            Ask::Users => assert!(body["users"].is_array(), "{body}"),
            Ask::Probe => self.probed.push_back(body),
            Ask::Terminate { clients } => {
                assert_eq!(body, json!({}), "a termination");
                doomed.extend(clients);
            }
        }
    }

    /// The connection is gone: nobody knows what became of the requests under way.
    pub(crate) fn is_ended(&mut self) {
        self.is_over = true;
        self.expected.clear();
    }
}

fn refuse(ledger: &mut Ledger, ask: &Ask) {
    if let Ask::Publish { events, .. } | Ask::Batch { events, .. } = ask {
        for event in events {
            ledger.events[*event].is_refused = true;
        }
    }
}
