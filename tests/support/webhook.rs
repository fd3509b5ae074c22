//! A receiver of webhooks that checks each request's form and signature and hands over its events.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::DEADLINE;
use super::server::own_address;
use super::sign::hmac_hex;

pub(crate) struct WebhookSink {
    address: SocketAddr,
    is_tls: bool,
    /// Connections that were taken.
    taken: Arc<AtomicUsize>,
    requests: Receiver<Delivery>,
    /// Events of requests that were read but not yet asked for.
    waiting: VecDeque<Value>,
    answers: Arc<Mutex<Answers>>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Answers {
    /// Statuses for the next requests; 200 when empty.
    statuses: VecDeque<u16>,
    delay: Duration,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a webhook's body is JSON")
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"]
            .as_array()
            .expect("events is a list")
            .clone()
    }

    /// The form that libraries insist on: exact content type, key, signature over the exact body.
    #[track_caller]
    pub(crate) fn is_signed_with(&self, key: &str, secret: &str) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("x-pusher-key"), Some(key));
        let signature = hmac_hex(secret, &self.body);
        assert_eq!(self.header("x-pusher-signature"), Some(signature.as_str()));
        assert!(
            self.json()["time_ms"].is_u64(),
            "time_ms is an integer: {}",
            self.json()
        );
    }
}

impl WebhookSink {
    pub(crate) fn start() -> Self {
        Self::start_over(|stream| Some(Box::new(stream)))
    }

    /// Behind TLS, with a certificate and its key in files.
    pub(crate) fn start_with_tls(certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a file of certificates");
        let chain: Result<Vec<_>, _> = chain.collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.expect("certificates"), key);
        let config = Arc::new(config.expect("a pair"));
        let mut sink = Self::start_over(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        });
        sink.is_tls = true;
        sink
    }

    fn start_over(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, requests) = channel();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let shared = Arc::clone(&answers);
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let wrap = Arc::new(wrap);
        // The thread ends with the test's process, which nextest starts for each test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let (sender, answers) = (sender.clone(), Arc::clone(&shared));
                let wrap = Arc::clone(&wrap);
                std::thread::spawn(move || {
                    if let Some(stream) = wrap(stream) {
                        serve(stream, &sender, &answers);
                    }
                });
            }
        });
        Self {
            address,
            is_tls: false,
            taken,
            requests,
            waiting: VecDeque::new(),
            answers,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url_at("/")
    }

    pub(crate) fn url_at(&self, path: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Connections that were taken so far.
    pub(crate) fn connections(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// An entry of an app's `webhooks` for these events.
    pub(crate) fn entry(&self, event_types: &[&str]) -> Value {
        json!({"url": self.url(), "event_types": event_types})
    }

    /// The next requests are answered with these statuses, later ones with 200.
    pub(crate) fn answers_with(&self, statuses: &[u16]) {
        self.answers
            .lock()
            .expect("no thread panics with it")
            .statuses
            .extend(statuses);
    }

    /// Each answer waits this long.
    pub(crate) fn answers_after(&self, delay: Duration) {
        self.answers.lock().expect("no thread panics with it").delay = delay;
    }

    /// The next whole request.
    #[track_caller]
    pub(crate) fn next_delivery(&mut self) -> Delivery {
        self.next_delivery_within(DEADLINE)
            .expect("a webhook within the deadline")
    }

    pub(crate) fn next_delivery_within(&mut self, limit: Duration) -> Option<Delivery> {
        assert!(
            self.waiting.is_empty(),
            "read the events of the last request first"
        );
        match self.requests.recv_timeout(limit) {
            Ok(delivery) => Some(delivery),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the receiver's thread ended"),
        }
    }

    /// The next event, whichever request brings it.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        self.next_within(DEADLINE)
            .expect("a webhook event within the deadline")
    }

    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Value> {
        while self.waiting.is_empty() {
            let delivery = self.next_delivery_within(limit)?;
            self.waiting.extend(delivery.events());
        }
        self.waiting.pop_front()
    }

    #[track_caller]
    pub(crate) fn expects(&mut self, event: Value) {
        assert_eq!(self.next(), event);
    }

    #[track_caller]
    pub(crate) fn expects_nothing_for(&mut self, limit: Duration) {
        if let Some(event) = self.next_within(limit) {
            panic!("no webhook was due, and this came: {event}");
        }
    }
}

/// What requests come over.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn serve(stream: Box<dyn Stream>, sender: &Sender<Delivery>, answers: &Mutex<Answers>) {
    let mut reader = BufReader::new(stream);
    while let Some(delivery) = read_request(&mut reader) {
        let (status, delay) = {
            let mut answers = answers.lock().expect("no thread panics with it");
            (answers.statuses.pop_front().unwrap_or(200), answers.delay)
        };
        if sender.send(delivery).is_err() {
            return;
        }
        std::thread::sleep(delay); // A slow endpoint is what the test asked for.
        let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Delivery> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")?
        .1
        .parse()
        .ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Delivery {
        path,
        headers,
        body,
    })
}
