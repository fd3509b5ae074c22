//! Data path. Where a batch travels: topics of the bus, their lanes, roads and names.
//!
//! Owns: `Topic`, `Road`, `TopicNames`, what may stand in a subject of NATS.
//! May depend on: `cluster::{entry, identity, wire}`, `protocol::partition`.
//! Invariants: a topic and its lane are one to one, and so are a topic and its name within one
//! prefix, database and cluster; a name holds nothing that a client chose.

use super::{
    entry::{GROUP_COUNT, Group},
    identity::NodeId,
    wire::Lane,
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// To what a node listens on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Events of the channels of one partition, to the nodes that have subscribers there.
    Events(Partition),
    /// Changes of the state of one group of partitions.
    State(Group),
    /// Who is there, questions and answers between nodes.
    Nodes,
    /// Each node's own, to which no other listens: what comes back on it has left and arrived by the
    /// road of events.
    Echo,
}

/// What must not wait for each other: a flood of events may not hold up the state, without which
/// nobody knows who is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Road {
    Events,
    State,
}

impl Road {
    pub const ALL: [Self; 2] = [Self::Events, Self::State];

    /// For labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::State => "state",
        }
    }
}

impl Topic {
    /// Every topic, in the order of lanes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LANES).filter_map(|number| Self::from_lane(Lane(number)))
    }

    /// Under which its batches are numbered.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Events(partition) => Lane(partition.number()),
            Self::State(group) => Lane(STATE_LANE + group.number() as u16),
            Self::Nodes => Lane(NODES_LANE),
            Self::Echo => Lane(ECHO_LANE),
        }
    }

    /// The one with this lane, which came from another node; `None` where there is none.
    pub fn from_lane(lane: Lane) -> Option<Self> {
        if let Some(partition) = Partition::from_number(lane.0) {
            return Some(Self::Events(partition));
        }
        match lane.0 {
            NODES_LANE => return Some(Self::Nodes),
            ECHO_LANE => return Some(Self::Echo),
            _ => {}
        }
        let group = u8::try_from(lane.0.checked_sub(STATE_LANE)?).ok()?;
        Some(Self::State(Group::from_number(group)?))
    }

    pub const fn road(self) -> Road {
        match self {
            Self::Events(_) | Self::Echo => Road::Events,
            Self::State(_) | Self::Nodes => Road::State,
        }
    }
}

/// Number of topics, and of their lanes.
pub const LANES: u16 = ECHO_LANE + 1;
const STATE_LANE: u16 = PARTITIONS;
const NODES_LANE: u16 = STATE_LANE + GROUP_COUNT;
const ECHO_LANE: u16 = NODES_LANE + 1;

/// The names of all topics on one bus, for one cluster. Made once: a batch costs one look-up here.
#[derive(Clone, Debug)]
pub struct TopicNames {
    /// What all of them begin with.
    stem: String,
    /// Between the parts of a name.
    separator: char,
    /// By lane.
    names: Box<[String]>,
}

impl TopicNames {
    /// Names for Redis, whose publish-subscribe knows no databases: without its number in the name,
    /// staging on database 0 and production on database 1 of one server would hear each other.
    pub fn redis(prefix: &str, database: u32, cluster: &str) -> Self {
        let prefix = prefix.trim_end_matches(':');
        let separator = if prefix.is_empty() { "" } else { ":" };
        Self::with_stem(format!("{prefix}{separator}v1:{database}:{cluster}:"), ':')
    }

    /// Subjects for NATS. The dots of the prefix part it into tokens, so that a permission may be given
    /// for the first of them; the cluster's name is one token.
    pub fn nats(prefix: &str, cluster: &str) -> Self {
        let prefix = prefix.trim_end_matches([':', '.']);
        let tokens = prefix.split('.').filter(|token| !token.is_empty());
        let tokens = tokens.chain(["v1", cluster]).map(subject_token);
        let stem: String = tokens.map(|token| token + ".").collect();
        Self::with_stem(stem, '.')
    }

    fn with_stem(stem: String, separator: char) -> Self {
        let name = |topic| match topic {
            Topic::Events(partition) => format!("{stem}e{separator}{}", partition.number()),
            Topic::State(group) => format!("{stem}s{separator}{}", group.number()),
            Topic::Nodes => format!("{stem}n"),
            Topic::Echo => format!("{stem}x"),
        };
        let names: Box<[String]> = Topic::all().map(name).collect();
        assert_eq!(names.len(), usize::from(LANES), "one name per lane");
        Self {
            stem,
            separator,
            names,
        }
    }

    /// With the echo of this node. Without it all nodes' echoes are one topic, where each hears the
    /// others' for nothing.
    pub fn of_node(mut self, node: NodeId) -> Self {
        let echo = self.names.get_mut(usize::from(ECHO_LANE));
        let (stem, separator) = (&self.stem, self.separator);
        *echo.expect("every lane has a name") = format!("{stem}x{separator}{node}");
        self
    }

    pub fn name(&self, topic: Topic) -> &str {
        let name = self.names.get(usize::from(topic.lane().0));
        name.expect("every lane has a name")
    }

    /// The topic with this name, which came from the bus; `None` for names that are not ours.
    // Per batch: one comparison of the stem, at most four digits.
    pub fn topic(&self, name: &[u8]) -> Option<Topic> {
        let rest = name.strip_prefix(self.stem.as_bytes())?;
        match rest {
            b"n" => Some(Topic::Nodes),
            [b'e', separator, digits @ ..] if char::from(*separator) == self.separator => {
                Partition::from_number(number(digits)?).map(Topic::Events)
            }
            [b's', separator, digits @ ..] if char::from(*separator) == self.separator => {
                let group = u8::try_from(number(digits)?).ok()?;
                Group::from_number(group).map(Topic::State)
            }
            [b'x', ..] if name == self.name(Topic::Echo).as_bytes() => Some(Topic::Echo),
            _ => None,
        }
    }

    /// What every name begins with, for a rule that allows a user all of them.
    pub fn stem(&self) -> &str {
        &self.stem
    }
}

/// One token of a subject, whatever the text; of two texts never the same. NATS takes neither an empty
/// token nor blanks, and `.`, `*`, `>` mean something there.
fn subject_token(text: &str) -> String {
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(char::from(byte)),
            _ => token += &format!("={byte:02X}"),
        }
    }
    token
}

/// Of a name's number there is one spelling.
fn number(digits: &[u8]) -> Option<u16> {
    let is_short = (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !is_short || (digits.len() > 1 && digits.starts_with(b"0")) {
        return None;
    }
    let append = |value, digit: &u8| value * 10 + u16::from(digit - b'0');
    Some(digits.iter().fold(0, append))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_is_one_topic_and_no_other() {
        for number in 0..LANES {
            let topic = Topic::from_lane(Lane(number)).expect("a lane");
            assert_eq!(topic.lane(), Lane(number), "{topic:?}");
            let is_event = number < PARTITIONS || topic == Topic::Echo;
            assert_eq!(topic.road() == Road::Events, is_event, "{topic:?}");
        }
        for number in [LANES, LANES + 1, 1_280, u16::MAX] {
            assert_eq!(Topic::from_lane(Lane(number)), None, "{number}");
        }
        assert_eq!(Topic::all().count(), 1_042);
        assert_eq!(Topic::Nodes.lane(), Lane(1_040));
        assert_eq!(Topic::Echo.lane(), Lane(1_041));
    }

    #[test]
    fn a_name_says_prefix_database_cluster_and_topic() {
        let events = |number| Topic::Events(Partition::from_number(number).expect("a partition"));
        let state = |number| Topic::State(Group::from_number(number).expect("a group"));
        for (prefix, database, cluster, topic, name) in [
            (
                "sockudo_adapter:",
                0,
                "sockudo",
                events(0),
                "sockudo_adapter:v1:0:sockudo:e:0",
            ),
            (
                "sockudo_adapter",
                3,
                "prod",
                events(1_023),
                "sockudo_adapter:v1:3:prod:e:1023",
            ),
            ("a:b::", 0, "c", state(15), "a:b:v1:0:c:s:15"),
            ("", 15, "c:d", Topic::Nodes, "v1:15:c:d:n"),
        ] {
            let names = TopicNames::redis(prefix, database, cluster);
            assert_eq!(names.name(topic), name);
            assert_eq!(names.topic(name.as_bytes()), Some(topic), "{name}");
        }
    }

    #[test]
    fn a_subject_of_nats_holds_only_what_stands_for_itself() {
        let state = Topic::State(Group::from_number(15).expect("a group"));
        for (prefix, cluster, name) in [
            ("sockudo", "shop", "sockudo.v1.shop.s.15"),
            ("sockudo_nats:", "shop", "sockudo_nats.v1.shop.s.15"),
            ("prod.eu.", "a-b_C9", "prod.eu.v1.a-b_C9.s.15"),
            (".a..b.", "c", "a.b.v1.c.s.15"),
            ("", "", "v1.=.s.15"),
            ("a b*", "x.>", "a=20b=2A.v1.x=2E=3E.s.15"),
            ("=", "ä\r\n", "=3D.v1.=C3=A4=0D=0A.s.15"),
        ] {
            let names = TopicNames::nats(prefix, cluster);
            assert_eq!(names.name(state), name);
            assert_eq!(names.topic(name.as_bytes()), Some(state), "{name}");
            assert_eq!(names.topic(name.replace("s.15", "s:15").as_bytes()), None);
        }
        let node = NodeId::of_name("a");
        let names = TopicNames::nats("p", "c").of_node(node);
        assert_eq!(names.name(Topic::Echo), format!("p.v1.c.x.{node}"));
    }

    #[test]
    fn every_name_leads_back_to_its_topic() {
        for names in [
            TopicNames::redis("sockudo_adapter:", 0, "sockudo"),
            TopicNames::nats("sockudo", "sockudo"),
        ] {
            for topic in Topic::all() {
                assert_eq!(names.topic(names.name(topic).as_bytes()), Some(topic));
            }
        }
    }

    #[test]
    fn a_node_has_an_echo_of_its_own() {
        let names = TopicNames::redis("p", 0, "c");
        let [a, b] = ["a", "b"].map(|name| names.clone().of_node(NodeId::of_name(name)));
        let name = "p:v1:0:c:x:bb7da91c857661223938d22109525f46";
        assert_eq!(a.name(Topic::Echo), name);
        assert_eq!(a.topic(name.as_bytes()), Some(Topic::Echo));
        assert_eq!(b.topic(name.as_bytes()), None);
        assert_eq!(names.topic(name.as_bytes()), None);
    }

    #[test]
    fn other_names_are_no_topics() {
        let names = TopicNames::redis("p", 0, "c");
        for name in [
            "",
            "p",
            "p:v1:0:c",
            "p:v1:0:c:",
            "p:v1:0:c:e",
            "p:v1:0:c:e:",
            "p:v1:0:c:e:1024",
            "p:v1:0:c:e:01",
            "p:v1:0:c:e:+1",
            "p:v1:0:c:e:-1",
            "p:v1:0:c:e:1 ",
            "p:v1:0:c:e:65536",
            "p:v1:0:c:e:99999999999999999999",
            "p:v1:0:c:s:16",
            "p:v1:0:c:s:256",
            "p:v1:0:c:nn",
            "p:v1:0:c:x:1",
            "p:v1:1:c:e:1",
            "p:v1:0:d:e:1",
            "q:v1:0:c:e:1",
            "p:v2:0:c:e:1",
        ] {
            assert_eq!(names.topic(name.as_bytes()), None, "{name}");
        }
        assert_eq!(names.topic(b"p:v1:0:c:e:\xFF"), None);
    }
}
