//! Which upgrades are let in: every check in its order, and the questions between them.
//!
//! Owns: `Upgrade` and its steps, `UpgradeRefusal` with codes and texts.
//! May depend on: `connection::rules`, `http::query`, `protocol`, `ws::handshake`.
//! Invariants: steps are taken in the order of `UpgradeStep`, each once; nobody is counted in a
//! quota before every check ahead of it has passed.

use crate::{
    connection::rules::NodeRules,
    http::query::ProtocolParam,
    protocol::{code, code::CloseCode, origin, rules::AppRules},
    ws::handshake::AcceptKey,
};

/// An upgrade under way.
#[derive(Clone, Debug)]
pub struct Upgrade {
    pub key: Box<str>,
    pub path_is_bad: bool,
    pub protocol: ProtocolParam,
    pub origin: Option<Box<str>>,
    pub transport: Transport,
    /// The response to the handshake, sent when the address is not over its limit.
    pub accept: AcceptKey,
    pub step: UpgradeStep,
}

/// Whether the client's own connection was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

/// What an upgrade has to pass next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeStep {
    /// Before the 101: a refusal is a 429.
    AddressLimit,
    /// The node's state. From here on refusals are frames, which browsers can see.
    Node,
    /// The request and its app.
    App,
    /// The node and the app again: while quotas were asked either may have changed.
    Last,
}

/// The node as it is now.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeState {
    pub is_draining: bool,
    pub is_out_of_files: bool,
    pub is_memory_high: bool,
}

/// What is known of an app that somebody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    Known(T),
    Absent,
    /// Whether there is one cannot be known now.
    Unavailable,
}

/// What an upgrade may look at.
pub struct Gate<'g, 'a> {
    pub node: &'g NodeRules,
    pub state: NodeState,
    /// Spends one of the accept rate.
    pub take_accept: &'g mut dyn FnMut() -> bool,
    /// Looks a client's key up, which is counted.
    pub app_by_key: &'g mut dyn FnMut(&str) -> Lookup<&'a AppRules>,
    /// The app that was found before, as it is now.
    pub app: Option<&'a AppRules>,
}

/// What follows a step.
#[derive(Debug)]
pub enum UpgradeNext<'a> {
    /// May one more connection of the node be opened?
    AskNode,
    /// May one more connection of the app be opened?
    AskApp(&'a AppRules),
    Open(&'a AppRules),
    /// With the app, once it is known.
    Refuse(UpgradeRefusal, Option<&'a AppRules>),
}

/// Why an upgrade is refused with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRefusal {
    Draining,
    OutOfFiles,
    MemoryHigh,
    AcceptRate,
    NodeFull,
    PathNotFound,
    VersionMissing,
    VersionInvalid,
    VersionUnsupported,
    AppUnknown,
    AppUnavailable,
    AppDisabled,
    TlsRequired,
    OriginNotAllowed,
    AppFull,
}

impl UpgradeRefusal {
    pub fn code(self) -> CloseCode {
        match self {
            Self::Draining => CloseCode::RECONNECT,
            Self::OutOfFiles
            | Self::MemoryHigh
            | Self::AcceptRate
            | Self::NodeFull
            | Self::AppUnavailable => CloseCode::OVER_CAPACITY,
            Self::PathNotFound => CloseCode::PATH_NOT_FOUND,
            Self::VersionMissing => CloseCode::VERSION_MISSING,
            Self::VersionInvalid => CloseCode::VERSION_INVALID,
            Self::VersionUnsupported => CloseCode::VERSION_UNSUPPORTED,
            Self::AppUnknown => CloseCode::APP_UNKNOWN,
            Self::AppDisabled => CloseCode::APP_DISABLED,
            Self::TlsRequired => CloseCode::TLS_REQUIRED,
            Self::OriginNotAllowed => CloseCode::UNAUTHORIZED,
            Self::AppFull => CloseCode::OVER_QUOTA,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::OriginNotAllowed => code::ORIGIN_NOT_ALLOWED,
            Self::Draining
            | Self::OutOfFiles
            | Self::MemoryHigh
            | Self::AcceptRate
            | Self::NodeFull
            | Self::PathNotFound
            | Self::VersionMissing
            | Self::VersionInvalid
            | Self::VersionUnsupported
            | Self::AppUnknown
            | Self::AppUnavailable
            | Self::AppDisabled
            | Self::TlsRequired
            | Self::AppFull => self.code().reason(),
        }
    }
}

impl Upgrade {
    /// Goes on until something must be asked or all is decided. Who is asked grants by calling
    /// again, and refuses as `NodeFull` or `AppFull`.
    pub fn advance<'a>(&mut self, gate: &mut Gate<'_, 'a>) -> UpgradeNext<'a> {
        loop {
            match self.step {
                UpgradeStep::AddressLimit => self.step = UpgradeStep::Node,
                UpgradeStep::Node => {
                    if let Err(refusal) = check_node(gate) {
                        return UpgradeNext::Refuse(refusal, None);
                    }
                    self.step = UpgradeStep::App;
                    if gate.node.limits_connections {
                        return UpgradeNext::AskNode;
                    }
                }
                UpgradeStep::App => {
                    let app = match self.check_request(gate) {
                        Ok(app) => app,
                        Err(refusal) => return UpgradeNext::Refuse(refusal, None),
                    };
                    if let Err(refusal) = self.check_app(app) {
                        return UpgradeNext::Refuse(refusal, Some(app));
                    }
                    gate.app = Some(app);
                    self.step = UpgradeStep::Last;
                    if app.limits_connections {
                        return UpgradeNext::AskApp(app);
                    }
                }
                UpgradeStep::Last => {
                    return match (gate.state.is_draining, gate.app) {
                        (true, app) => UpgradeNext::Refuse(UpgradeRefusal::Draining, app),
                        (_, None) => UpgradeNext::Refuse(UpgradeRefusal::AppUnknown, None),
                        (_, Some(app)) if app.is_enabled => UpgradeNext::Open(app),
                        (_, app) => UpgradeNext::Refuse(UpgradeRefusal::AppDisabled, app),
                    };
                }
            }
        }
    }

    fn check_request<'a>(&self, gate: &mut Gate<'_, 'a>) -> Result<&'a AppRules, UpgradeRefusal> {
        if self.path_is_bad {
            return Err(UpgradeRefusal::PathNotFound);
        }
        match self.protocol {
            ProtocolParam::Accepted(_) => {}
            ProtocolParam::Absent if gate.node.requires_protocol => {
                return Err(UpgradeRefusal::VersionMissing);
            }
            ProtocolParam::Absent => {}
            ProtocolParam::Invalid => return Err(UpgradeRefusal::VersionInvalid),
            ProtocolParam::Unsupported => return Err(UpgradeRefusal::VersionUnsupported),
        }
        match (gate.app_by_key)(&self.key) {
            Lookup::Known(app) => Ok(app),
            Lookup::Absent => Err(UpgradeRefusal::AppUnknown),
            Lookup::Unavailable => Err(UpgradeRefusal::AppUnavailable),
        }
    }

    fn check_app(&self, app: &AppRules) -> Result<(), UpgradeRefusal> {
        if !app.is_enabled {
            return Err(UpgradeRefusal::AppDisabled);
        }
        if app.requires_tls && self.transport == Transport::Plain {
            return Err(UpgradeRefusal::TlsRequired);
        }
        if !origin::origin_allowed(&app.origins, self.origin.as_deref()) {
            return Err(UpgradeRefusal::OriginNotAllowed);
        }
        Ok(())
    }
}

fn check_node(gate: &mut Gate<'_, '_>) -> Result<(), UpgradeRefusal> {
    if gate.state.is_draining {
        return Err(UpgradeRefusal::Draining);
    }
    if gate.state.is_out_of_files {
        return Err(UpgradeRefusal::OutOfFiles);
    }
    if gate.state.is_memory_high {
        return Err(UpgradeRefusal::MemoryHigh);
    }
    if !(gate.take_accept)() {
        return Err(UpgradeRefusal::AcceptRate);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture;

    /// A node, a request and its app, which can be broken one by one.
    struct Asks {
        state: NodeState,
        node: NodeRules,
        upgrade: Upgrade,
        app: AppRules,
        /// The node takes one more this second.
        accepts: bool,
        /// What the quotas answer.
        node_has_room: bool,
        app_has_room: bool,
    }

    type Fault = fn(&mut Asks);

    /// Every refusal in the order in which they are looked for.
    const FAULTS: [(UpgradeRefusal, u16, Fault); 15] = [
        (UpgradeRefusal::Draining, 4200, |it| {
            it.state.is_draining = true;
        }),
        (UpgradeRefusal::OutOfFiles, 4100, |it| {
            it.state.is_out_of_files = true;
        }),
        (UpgradeRefusal::MemoryHigh, 4100, |it| {
            it.state.is_memory_high = true;
        }),
        (UpgradeRefusal::AcceptRate, 4100, |it| it.accepts = false),
        (UpgradeRefusal::NodeFull, 4100, |it| {
            it.node.limits_connections = true;
            it.node_has_room = false;
        }),
        (UpgradeRefusal::PathNotFound, 4005, |it| {
            it.upgrade.path_is_bad = true;
        }),
        (UpgradeRefusal::VersionMissing, 4008, |it| {
            it.node.requires_protocol = true;
            it.upgrade.protocol = ProtocolParam::Absent;
        }),
        (UpgradeRefusal::VersionInvalid, 4006, |it| {
            it.upgrade.protocol = ProtocolParam::Invalid;
        }),
        (UpgradeRefusal::VersionUnsupported, 4007, |it| {
            it.upgrade.protocol = ProtocolParam::Unsupported;
        }),
        (UpgradeRefusal::AppUnknown, 4001, |it| {
            it.upgrade.key = "nobody's".into();
        }),
        (UpgradeRefusal::AppUnavailable, 4100, |it| {
            it.upgrade.key = "nowhere".into();
        }),
        (UpgradeRefusal::AppDisabled, 4003, |it| {
            it.app.is_enabled = false;
        }),
        (UpgradeRefusal::TlsRequired, 4000, |it| {
            it.app.requires_tls = true;
        }),
        (UpgradeRefusal::OriginNotAllowed, 4009, |it| {
            let pattern = origin::OriginPattern::parse("https://example.com");
            it.app.origins = [pattern.expect("a pattern")].into();
        }),
        (UpgradeRefusal::AppFull, 4004, |it| {
            it.app.limits_connections = true;
            it.app_has_room = false;
        }),
    ];

    impl Asks {
        fn with(faults: &[Fault]) -> Self {
            let mut asks = Self {
                state: NodeState::default(),
                node: fixture::node_rules(),
                upgrade: upgrade(),
                app: fixture::app_rules(),
                accepts: true,
                node_has_room: true,
                app_has_room: true,
            };
            faults.iter().for_each(|fault| fault(&mut asks));
            asks
        }

        /// Which quotas it asked, in their order, and why it was refused, if it was.
        fn advances(mut self) -> (Vec<&'static str>, Option<UpgradeRefusal>) {
            let (app, accepts) = (&self.app, self.accepts);
            let mut asked = Vec::new();
            loop {
                let next = self.upgrade.advance(&mut Gate {
                    node: &self.node,
                    state: self.state,
                    take_accept: &mut || accepts,
                    app_by_key: &mut |key| match key {
                        "nowhere" => Lookup::Unavailable,
                        _ if *key == *app.key => Lookup::Known(app),
                        _ => Lookup::Absent,
                    },
                    app: Some(app),
                });
                let (quota, has_room, refusal) = match next {
                    UpgradeNext::Open(_) => return (asked, None),
                    UpgradeNext::Refuse(refusal, _) => return (asked, Some(refusal)),
                    UpgradeNext::AskNode => ("node", self.node_has_room, UpgradeRefusal::NodeFull),
                    UpgradeNext::AskApp(_) => ("app", self.app_has_room, UpgradeRefusal::AppFull),
                };
                asked.push(quota);
                if !has_room {
                    return (asked, Some(refusal));
                }
            }
        }
    }

    fn upgrade() -> Upgrade {
        Upgrade {
            key: "app-key".into(),
            path_is_bad: false,
            protocol: ProtocolParam::Accepted(7),
            origin: Some("https://elsewhere.example".into()),
            transport: Transport::Plain,
            accept: fixture::accept_key_of_test(),
            step: UpgradeStep::Node,
        }
    }

    fn refusal_of(faults: &[Fault]) -> Option<UpgradeRefusal> {
        Asks::with(faults).advances().1
    }

    #[test]
    fn of_two_faults_the_one_that_is_looked_for_first_is_told() {
        assert_eq!(refusal_of(&[]), None);
        for (index, (refusal, code, fault)) in FAULTS.iter().enumerate() {
            assert_eq!(refusal_of(&[*fault]), Some(*refusal));
            assert_eq!(refusal.code().value(), *code);
            for (later, _, other) in &FAULTS[index + 1..] {
                // One request cannot have two versions.
                let versions = [4006, 4007, 4008];
                if versions.contains(code) && versions.contains(&later.code().value()) {
                    continue;
                }
                // Nor is a key both unknown and one that nobody can look up.
                let unavailable = UpgradeRefusal::AppUnavailable;
                if (*refusal, *later) == (UpgradeRefusal::AppUnknown, unavailable) {
                    continue;
                }
                let both = refusal_of(&[*fault, *other]);
                assert_eq!(both, Some(*refusal), "{refusal:?} beside {later:?}");
            }
        }
    }

    #[test]
    fn a_quota_is_asked_where_it_is_on_and_only_after_the_checks_ahead_of_it() {
        let (node_on, app_on): (Fault, Fault) = (
            |it| it.node.limits_connections = true,
            |it| it.app.limits_connections = true,
        );
        for (faults, asked) in [
            (&[][..], &[][..]),
            (&[node_on], &["node"]),
            (&[app_on], &["app"]),
            (&[node_on, app_on], &["node", "app"]),
        ] {
            assert_eq!(Asks::with(faults).advances(), (asked.to_vec(), None));
        }
        for (refusal, _, fault) in FAULTS {
            let asked: &[&str] = match refusal {
                UpgradeRefusal::Draining
                | UpgradeRefusal::OutOfFiles
                | UpgradeRefusal::MemoryHigh
                | UpgradeRefusal::AcceptRate => &[],
                UpgradeRefusal::AppFull => &["node", "app"],
                _ => &["node"],
            };
            let advanced = Asks::with(&[node_on, app_on, fault]).advances();
            assert_eq!(advanced, (asked.to_vec(), Some(refusal)));
        }
    }

    #[test]
    fn quotas_are_asked_between_the_checks_and_the_last_look_sees_what_changed() {
        let (mut node, mut app) = (fixture::node_rules(), fixture::app_rules());
        node.limits_connections = true;
        app.limits_connections = true;
        let mut upgrade = upgrade();
        let mut accepts = 0;
        let mut step = |is_draining, app: Option<&AppRules>| {
            let found = fixture::app_rules();
            let known = AppRules {
                limits_connections: true,
                ..found
            };
            let next = upgrade.advance(&mut Gate {
                node: &node,
                state: NodeState {
                    is_draining,
                    ..NodeState::default()
                },
                take_accept: &mut || {
                    accepts += 1;
                    true
                },
                app_by_key: &mut |_| Lookup::Known(&known),
                app,
            });
            format!("{next:?}")
                .chars()
                .take_while(|c| *c != '(')
                .collect::<String>()
        };
        assert_eq!(step(false, None), "AskNode");
        assert_eq!(step(false, None), "AskApp");
        assert_eq!(step(true, Some(&app)), "Refuse", "a drain began");
        assert_eq!(step(false, None), "Refuse", "the app went");
        assert_eq!(step(false, Some(&app)), "Open");
        assert_eq!(accepts, 1);
    }
}
