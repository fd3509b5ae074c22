//! The process before this one, as it is met at the start.
//!
//! Owns: `Predecessor`: the first words, and the listening sockets until somebody wants them.
//! May depend on: `link`, `packet`.
//! Invariants: a listener that nobody wanted is closed before this process is ready.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use super::{
    link::{Link, LinkError},
    packet::{Hello, Kind, PROTOCOL, Packet, Refused, Welcome, spoken},
};

/// Why this process cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    #[error("the process before: {0}")]
    Link(#[from] LinkError),
    #[error(
        "the process before is version {version}, whose hand-over (protocol {theirs}) this version (protocol \
         {PROTOCOL}) does not understand: restart instead"
    )]
    Protocol { version: String, theirs: u32 },
    #[error("the process before refuses: {0}")]
    Refused(String),
    #[error("the process before said {0} when something else was awaited")]
    Unexpected(&'static str),
}

/// A listening socket, what it is for, and where it is.
#[derive(Debug)]
pub struct Inherited {
    pub kind: Kind,
    /// A path, or an address with its port.
    pub place: String,
    pub socket: OwnedFd,
}

/// Whom this process takes over from.
#[derive(Debug)]
pub struct Predecessor {
    pub link: Arc<Link>,
    pub welcome: Welcome,
    listeners: Vec<Inherited>,
}

/// For each of the first words.
const WITHIN: Duration = Duration::from_secs(10);

impl Predecessor {
    /// Says hello, and takes the listeners. Blocks.
    ///
    /// # Errors
    /// When the two do not understand each other; this process has nothing to do then.
    pub fn meet(link: Arc<Link>, version: &str, shards: u16) -> Result<Self, MeetError> {
        let hello = Hello {
            takes_webhooks: true,
            says_begun: true,
            takes_frames: true,
            protocol: PROTOCOL,
            version: version.to_owned(),
            pid: std::process::id(),
            shards,
        };
        link.send_within(WITHIN, &Packet::Hello(hello))?;
        let welcome = match link.receive_within(WITHIN)? {
            (Packet::Welcome(welcome), _) => welcome,
            (Packet::Refused(Refused { reason }), _) => return Err(MeetError::Refused(reason)),
            (other, _) => return Err(MeetError::Unexpected(other.name())),
        };
        if spoken(PROTOCOL, welcome.protocol) != Some(welcome.protocol) {
            return Err(MeetError::Protocol {
                version: welcome.version,
                theirs: welcome.protocol,
            });
        }
        let mut listeners = Vec::new();
        while listeners.len() < welcome.listeners as usize {
            let (packet, sockets) = link.receive_within(WITHIN)?;
            let Packet::Listeners(told) = packet else {
                return Err(MeetError::Unexpected(packet.name()));
            };
            if sockets.is_empty() || told.kinds.len() != sockets.len() {
                return Err(MeetError::Unexpected("Listeners without their sockets"));
            }
            let mut places = told.places.into_iter();
            let parts = told.kinds.into_iter().zip(sockets);
            listeners.extend(parts.map(|(kind, socket)| Inherited {
                kind,
                place: places.next().unwrap_or_default(),
                socket,
            }));
        }
        Ok(Self {
            link,
            welcome,
            listeners,
        })
    }

    /// The listener of this kind whose place is right.
    pub fn take(&mut self, kind: Kind, is_right: impl Fn(&str) -> bool) -> Option<OwnedFd> {
        let is_it = |it: &Inherited| it.kind == kind && is_right(&it.place);
        let index = self.listeners.iter().position(is_it)?;
        Some(self.listeners.swap_remove(index).socket)
    }

    /// Those of the port.
    pub fn take_port(&mut self) -> Vec<Arc<OwnedFd>> {
        std::iter::from_fn(|| self.take(Kind::Tcp, |_| true))
            .map(Arc::new)
            .collect()
    }

    /// Where those Unix sockets are that nobody has taken.
    pub fn unwanted(&self) -> impl Iterator<Item = &Path> {
        let is_unix = |it: &&Inherited| matches!(it.kind, Kind::Unix | Kind::Admin);
        let left = self.listeners.iter().filter(is_unix);
        left.map(|it| Path::new(&it.place))
    }

    /// What is left is not wanted.
    pub fn into_link(self) -> (Arc<Link>, Welcome) {
        (self.link, self.welcome)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::handover::packet::{Listeners, Taken};

    /// What comes of a meeting in which the old process says this, with a socket each for the listeners.
    fn met(answers: Vec<Packet>) -> Result<Predecessor, MeetError> {
        let (old, new) = Link::pair().expect("there is room for files");
        for packet in answers {
            let sockets = match &packet {
                Packet::Listeners(listeners) => listeners.kinds.len(),
                _ => 0,
            };
            let file = std::fs::File::open("/dev/null").expect("it is there");
            let sockets = vec![file.as_fd(); sockets];
            old.try_send(&packet, &sockets).expect("room");
        }
        let link = Link::of(new).expect("a link");
        let met = Predecessor::meet(Arc::new(link), "2.0", 3);
        let (hello, _) = old.receive_within(WITHIN).expect("it says hello");
        assert!(matches!(hello, Packet::Hello(Hello { shards: 3, .. })));
        met
    }

    fn welcome(protocol: u32, listeners: u32) -> Packet {
        Packet::Welcome(Welcome {
            protocol,
            listeners,
            version: "9.9".to_owned(),
            ..Welcome::default()
        })
    }

    fn listeners(kinds: &[Kind]) -> Packet {
        Packet::Listeners(Listeners {
            kinds: kinds.to_vec(),
            places: kinds.iter().map(|kind| format!("{kind:?}")).collect(),
        })
    }

    #[test]
    fn listeners_are_there_for_who_wants_them_however_they_came() {
        let answers = vec![
            welcome(PROTOCOL, 4),
            listeners(&[Kind::Tcp, Kind::Admin]),
            listeners(&[Kind::Tcp, Kind::Unknown]),
        ];
        let mut met = met(answers).expect("they understand each other");
        assert!(
            met.take(Kind::Admin, |place| place == "elsewhere")
                .is_none()
        );
        assert!(met.take(Kind::Admin, |place| place == "Admin").is_some());
        assert!(met.take(Kind::Admin, |place| place == "Admin").is_none());
        assert_eq!(met.take_port().len(), 2);
        assert_eq!(met.unwanted().count(), 0);
        assert!(met.take(Kind::Metrics, |_| true).is_none());
    }

    #[test]
    fn who_cannot_be_understood_is_refused_with_a_sentence() {
        let refused = Packet::Refused(Refused {
            reason: "not now".to_owned(),
        });
        for (answers, sentence) in [
            (vec![welcome(PROTOCOL + 2, 0)], "restart instead"),
            (vec![welcome(0, 0)], "version 9.9"),
            (vec![refused], "refuses: not now"),
            (vec![Packet::Taken(Taken::default())], "said Taken"),
            (
                vec![welcome(PROTOCOL, 1), welcome(PROTOCOL, 1)],
                "said Welcome",
            ),
            (
                vec![welcome(PROTOCOL, 1), listeners(&[])],
                "without their sockets",
            ),
        ] {
            let error = met(answers).expect_err(sentence).to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
