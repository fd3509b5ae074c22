//! Floors: the system calls that a scenario's load cannot do without, on bare loops.
//!
//! Owns: which floors there are; their process; their greetings, which are constant bytes.
//! May depend on: `cores`, `ranges`, `wire`, hmac, io-uring, mio, rustls, socket2.
//! Invariants: a floor is a process of its own and takes its load from the same scenarios as any server, so
//! that steps of waiting, rates and clocks are the same; it parses nothing beyond where a request ends.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use socket2::{Domain, Socket, Type};

use crate::{cores::Placed, ranges::within};

mod epoll;
mod fanout;

/// A floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Floor {
    /// One `send` per subscriber
    Send,
    /// The same with TLS: rustls seals a frame for each
    Sealed,
    /// All subscribers' sends in one io_uring submission
    Ring,
    /// epoll, and one `recv` per message; a request gets its HMAC and a `send`
    Epoll,
    /// As `epoll`, and for each message a signed request to a target: a `send` and a `recv`
    Webhook,
}

/// `sockudo bench floor`, which the table runs for itself.
#[derive(Clone, Debug, Args)]
pub struct FloorProcess {
    kind: Floor,
    /// Port on loopback, 0..=65535
    #[arg(long, value_parser = within::<u16>(0..=65_535))]
    port: u16,
    /// Where webhooks go, on loopback
    #[arg(long, required_if_eq("kind", "webhook"))]
    sink: Option<SocketAddr>,
    /// Files in PEM, for TLS
    #[arg(long, num_args = 2, value_names = ["CERTIFICATE", "KEY"], required_if_eq("kind", "sealed"))]
    identity: Option<Vec<PathBuf>>,
}

impl FloorProcess {
    /// Serves until it is killed.
    pub fn run(&self) -> ExitCode {
        Placed::stay_on_first();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let beside = Beside {
            sink: self.sink,
            identity: match self.identity.as_deref() {
                Some([certificate, key]) => Some((certificate, key)),
                _ => None,
            },
        };
        match listen(address).and_then(|listener| self.kind.serve(listener, beside)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sockudo bench floor: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// What some floors need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// Where webhooks go.
    pub sink: Option<SocketAddr>,
    /// Certificate and key.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// With room for a wave of clients; the standard library's listeners hold 128.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 1_024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Floor {
    /// The command line's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Sealed => "sealed",
            Self::Ring => "ring",
            Self::Epoll => "epoll",
            Self::Webhook => "webhook",
        }
    }

    /// Until an error.
    pub fn serve(self, listener: TcpListener, beside: Beside<'_>) -> io::Result<()> {
        match (self, beside.identity) {
            (Self::Send, _) => fanout::serve(&listener, Ok, fanout::send),
            (Self::Sealed, Some((certificate, key))) => {
                fanout::serve(&listener, fanout::sealing(certificate, key)?, fanout::send)
            }
            (Self::Sealed, None) => Err(io::Error::other("TLS needs a certificate and a key")),
            (Self::Ring, _) => {
                let mut ring = fanout::Ring::new()?;
                fanout::serve(&listener, Ok, |streams, frame| ring.send(streams, frame))
            }
            (Self::Epoll, _) => epoll::serve(listener, None),
            (Self::Webhook, _) => epoll::serve(listener, beside.sink),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The upgrade's answer, and the greeting in the same segment.
fn greeting() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        .to_vec();
    bytes.extend(text_frame(
        br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\"}"}"#,
    ));
    bytes
}

/// The answer to any subscription.
fn subscribed() -> Vec<u8> {
    text_frame(
        br#"{"event":"pusher_internal:subscription_succeeded","channel":"floor","data":"{}"}"#,
    )
}

/// A server's text frame of at most 65 535 bytes.
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("floors send small frames");
    let mut frame = vec![0x81];
    match u8::try_from(length) {
        Ok(short @ 0..126) => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// What a publish is answered with: as many bytes as our server sends.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Server: floor-of-the-load-generator\r\nContent-Length: 2\r\n\r\n{}";

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        outcome::Outcome,
        rig::Rig,
        scenarios::{chatter::Chatter, fanout::Fanout, publish::Publish},
        table::{
            identity::{CERTIFICATE, Identity, KEY},
            sink::Sink,
        },
        target::{Credentials, Target},
    };

    fn rig(floor: Floor, sink: Option<SocketAddr>) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::of_this_run().expect("openssl makes one");
        let trusting = identity.present(folder.path()).expect("room for two files");
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (certificate, key) = (folder.path().join(CERTIFICATE), folder.path().join(KEY));
            let identity = Some((&*certificate, &*key));
            floor.serve(listener, Beside { sink, identity })
        });
        Rig {
            target: Target {
                name: floor.to_string(),
                address,
                authority: address.to_string(),
                app: Credentials {
                    id: "floor".to_owned(),
                    key: "key".to_owned(),
                    secret: "secret".to_owned(),
                },
                pid: None,
                tls: (floor == Floor::Sealed).then_some(trusting),
                admin_socket: None,
            },
            seconds: 1,
            step: Duration::from_millis(1),
            tag: "7".to_owned(),
            in_bursts: false,
            is_traced: false,
        }
    }

    fn is_clean(outcome: &Outcome, floor: Floor) {
        assert_eq!(outcome.faults, Vec::<String>::new(), "{floor}");
    }

    #[test]
    fn a_floor_delivers_every_publish_to_every_subscriber() {
        for floor in [Floor::Send, Floor::Sealed, Floor::Ring] {
            let fanout = Fanout {
                subscribers: 20,
                message_bytes: 200,
                rate: 20,
                batch: 1,
            };
            let outcome = fanout.run(&rig(floor, None)).expect("it runs");
            is_clean(&outcome, floor);
            assert_eq!(outcome.deliveries.expect("numbered").received, 400);
        }
    }

    #[test]
    fn a_floor_takes_client_events_and_answers_requests() {
        let rig = rig(Floor::Epoll, None);
        let chatter = Chatter {
            channels: 10,
            members: 1,
            rate: 100,
            message_bytes: 100,
        };
        is_clean(&chatter.run(&rig).expect("it runs"), Floor::Epoll);
        let publish = Publish {
            connections: 4,
            rate: 100,
            batch: 10,
            message_bytes: 200,
        };
        is_clean(&publish.run(&rig).expect("it runs"), Floor::Epoll);
    }

    #[test]
    fn a_floor_sends_a_webhook_for_every_client_event() {
        let sink = Sink::start().expect("a port");
        let rig = rig(Floor::Webhook, Some(sink.address));
        let chatter = Chatter {
            channels: 10,
            members: 1,
            rate: 100,
            message_bytes: 100,
        };
        is_clean(&chatter.run(&rig).expect("it runs"), Floor::Webhook);
        let until = Instant::now() + Duration::from_secs(60);
        while sink.events() < 100 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(sink.events(), 100);
    }
}
