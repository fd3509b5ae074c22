//! From trees, variables and flags to settled settings.
//!
//! Owns: recognising names, ranking sources against each other, and reading each value as its
//! key's kind says.
//! May depend on: `tree`, `keys`, `kind`, `settings`, `suggest`.
//! Invariants: every value that was given is read, even one that a higher source covers, so that
//! all errors come out at once; a key whose value is wrong settles on its default.

use super::error::{Fault, Level, Report};
use super::keys::later;
use super::keys::{Converted, Key, LOWEST_ALIAS_HOLDS, Meaning, Nulls, Status, Table};
use super::kind::Kind;
use super::origin::Origin;
use super::secret::MASK;
use super::sections::LimitsMode;
use super::settings::{Said, Setting, Settings};
use super::suggest;
use super::tree::{Member, Node, Value};

/// One source's say about one key.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) key: &'static Key,
    pub(super) rank: Rank,
    pub(super) origin: Origin,
    /// The key as it was written there.
    pub(super) written: String,
    pub(super) node: Node,
}

/// Which source wins: the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Fallback,
    FileAlias,
    File,
    EnvTranslated,
    /// The place in the key's own list of variables.
    Env(usize),
    EnvTop,
    Cli,
}

/// What holds where nobody said anything.
#[derive(Clone, Copy)]
pub(super) struct Defaults<'a> {
    pub(super) mode: LimitsMode,
    /// The server's settings, from which an app inherits.
    pub(super) server: Option<&'a Settings>,
}

/// Where in a file the reader is.
struct Reader<'a> {
    table: &'static Table,
    source: &'a Origin,
    /// What stands before a path in an error: "" or "app_manager.array.apps[2].".
    prefix: &'a str,
    report: &'a mut Report,
    assignments: Vec<Assignment>,
    /// Keys that were given, each as it was spelled, and the line.
    spelled: Vec<(&'static Key, String, u32)>,
}

/// Recognises the members of an object.
pub(super) fn assignments(
    table: &'static Table,
    members: &[Member],
    source: &Origin,
    prefix: &str,
    report: &mut Report,
) -> Vec<Assignment> {
    let mut reader = Reader {
        table,
        source,
        prefix,
        report,
        assignments: Vec::new(),
        spelled: Vec::new(),
    };
    reader.object(members, "", "");
    reader.assignments
}

impl Reader<'_> {
    fn object(&mut self, members: &[Member], section: &str, written: &str) {
        let mut seen: Vec<(String, u32)> = Vec::with_capacity(members.len());
        for member in members {
            let name = snake_case(&member.name);
            let path = join(section, &name);
            let written = join(written, &member.name);
            let line = member.line;
            match seen.iter().find(|(seen, _)| *seen == name) {
                Some(&(_, first_line)) => self.error(line, &written, Fault::Twice { first_line }),
                None => self.member(member, &path, &written),
            }
            seen.push((name, line));
        }
    }

    fn member(&mut self, member: &Member, path: &str, written: &str) {
        let hoisted = self.hoisted(path);
        let path = hoisted.unwrap_or(path);
        if self.other_names(member, path, written) {
            return;
        }
        let rank = if hoisted.is_some() {
            Rank::FileAlias
        } else {
            Rank::File
        };
        if let Some(key) = self.table.find(path) {
            self.spell(key, member, written);
            return self.assign(key, rank, member, written, member.node.clone());
        }
        if self.is_section(path) {
            return match &member.node.value {
                Value::Object(members) => self.object(members, path, written),
                // As upstream: a section that is null is a section left out.
                Value::Null => {}
                _ => {
                    let shown = member.node.shown_for_keys();
                    let wanted = "an object".to_owned();
                    self.error(member.line, written, Fault::Value { shown, wanted });
                }
            };
        }
        let origin = self.source.at_line(member.line);
        let name = format!("{}{written}", self.prefix);
        if self.table.later.matches(path) {
            if !later::is_met(path, &member.node.value) {
                self.report
                    .warn(&origin, name, "not supported, has no effect".to_owned());
            }
        } else {
            let nearest = suggest::key(self.table, path);
            self.report.unknown_key(&origin, name, nearest);
        }
    }

    /// Reads a member under another name of a key; false where it is to be read as ours (as well).
    fn other_names(&mut self, member: &Member, path: &str, written: &str) -> bool {
        let rows = self.table.other_names();
        let mut is_read = false;
        for row in rows.filter(|row| row.is_about(path, written)) {
            match row.meaning {
                Meaning::NoEffect(why) => {
                    is_read = true;
                    if !is_nothing(&member.node.value) {
                        let origin = self.source.at_line(member.line);
                        let name = format!("{}{written}", self.prefix);
                        self.report
                            .warn(&origin, name, format!("has no effect: {why}"));
                    }
                }
                Meaning::Key { to, convert } => {
                    let rank = if to == path {
                        Rank::File
                    } else {
                        Rank::FileAlias
                    };
                    let key = self.table.key(to);
                    if row.is_spelling || to == path {
                        self.spell(key, member, written);
                    }
                    let is_section =
                        !self.converted(key, rank, (convert.0)(&member.node), member, written);
                    is_read |= !is_section && (to == path || self.table.find(path).is_none());
                }
            }
        }
        is_read
    }

    /// The path without an object around it that does not count.
    fn hoisted<'p>(&self, path: &'p str) -> Option<&'p str> {
        let inside = |outer: &&str| path.strip_prefix(*outer)?.strip_prefix('.');
        self.table.hoisted.iter().find_map(inside)
    }

    /// Some key, alias or object that does not count lies below.
    fn is_section(&self, path: &str) -> bool {
        let is_below = |name: &str| name.strip_prefix(path).is_some_and(|r| r.starts_with('.'));
        self.table.iter().any(|key| is_below(key.path))
            || self.table.other_names().any(|row| is_below(row.path))
            || self
                .table
                .hoisted
                .iter()
                .any(|outer| *outer == path || is_below(outer))
    }

    /// Refuses a key that the same file has given already, under another name or in another object: which of
    /// the two were to hold?
    fn spell(&mut self, key: &'static Key, member: &Member, written: &str) {
        let is_file = matches!(self.source, Origin::File { .. });
        if !is_file || !self.report.wants_one_name || member.node.value == Value::Null {
            return;
        }
        // A dotted name would else look like what it stands beside.
        let is_dotted = member.name.contains('.');
        let spelled = match is_dotted {
            true => format!("\"{written}\""),
            false => written.to_owned(),
        };
        let mut before = self.spelled.iter();
        let before = before.find(|(other, ..)| std::ptr::eq(*other, key));
        let Some((_, first, line)) = before else {
            self.spelled.push((key, spelled, member.line));
            return;
        };
        let this = match is_dotted {
            true => format!("{spelled} "),
            false => String::new(),
        };
        let text = format!("{this}is given in line {line} too, as {first}: leave one of them out");
        self.error(member.line, written, Fault::Conflict(text));
    }

    /// Assigns what a conversion made; false where the member is a section.
    fn converted(
        &mut self,
        key: &'static Key,
        rank: Rank,
        became: Converted,
        member: &Member,
        written: &str,
    ) -> bool {
        if matches!(became, Converted::Section) {
            return false;
        }
        let origin = self.source.at_line(member.line);
        let name = format!("{}{written}", self.prefix);
        if let Some(node) = converted(key, &member.node, became, (&origin, &name), self.report) {
            self.assign(key, rank, member, written, node);
        }
        true
    }

    fn assign(
        &mut self,
        key: &'static Key,
        rank: Rank,
        member: &Member,
        written: &str,
        node: Node,
    ) {
        if let Status::NoEffect(why) = key.status {
            let origin = self.source.at_line(member.line);
            let name = format!("{}{written}", self.prefix);
            self.report
                .note(&origin, name, format!("has no effect: {why}"));
        }
        self.assignments.push(Assignment {
            key,
            rank,
            origin: self.source.at_line(member.line),
            written: format!("{}{written}", self.prefix),
            node,
        });
    }

    fn error(&mut self, line: u32, written: &str, fault: Fault) {
        let name = format!("{}{written}", self.prefix);
        self.report.error(&self.source.at_line(line), name, fault);
    }
}

/// What a conversion made of a value, its words reported; `None` = nothing is said about the key.
pub(super) fn converted(
    key: &Key,
    given: &Node,
    became: Converted,
    (origin, name): (&Origin, &str),
    report: &mut Report,
) -> Option<Node> {
    let instead = |value: Value| Node {
        value,
        ..given.clone()
    };
    match became {
        Converted::Same => Some(given.clone()),
        Converted::Text(text) => Some(instead(Value::Text(text))),
        Converted::Value(value) => Some(instead(value)),
        Converted::Said { value, level, text } => {
            match level {
                Level::Warning => report.warn(origin, name, text),
                Level::Note => report.note(origin, name, text),
            }
            value.map(instead)
        }
        Converted::Nothing => None,
        // A file's object was read member by member; a variable has nothing else to say.
        Converted::Section => {
            let text = "has no effect without `host`; database.redis names the server".to_owned();
            report.warn(origin, name, text);
            None
        }
        Converted::Refused { wanted } => {
            // Options that do not parse may hold a password anywhere.
            let shown = match key.kind {
                Kind::Secret | Kind::Secrets | Kind::Url | Kind::Urls => MASK.to_owned(),
                _ => given.shown(),
            };
            let wanted = wanted.to_owned();
            report.error(
                &origin.at_line(given.line),
                name,
                Fault::Value { shown, wanted },
            );
            None
        }
    }
}

/// A value that asks for nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.trim().is_empty(),
        Value::List(nodes) => nodes.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Flag(_) | Value::Number(_) => false,
    }
}

/// Gives every key of `settings`' table a value: the highest assignment's, else its default.
/// Records are read last, since they inherit from what was settled before.
pub(super) fn settle(
    settings: &mut Settings,
    assignments: &mut [Assignment],
    defaults: Defaults<'_>,
    report: &mut Report,
) {
    assignments.sort_by_key(|assignment| assignment.rank);
    let (records, plain): (Vec<_>, Vec<_>) = settings
        .table
        .iter()
        .partition(|key| matches!(key.kind, Kind::Records(_)));
    for key in plain {
        settle_key(settings, key, assignments, defaults, report);
    }
    for key in records {
        settle_records(settings, key, assignments, defaults, report);
    }
}

/// The value of one key, before or while all are settled.
pub(super) fn settle_key(
    settings: &mut Settings,
    key: &'static Key,
    assignments: &[Assignment],
    defaults: Defaults<'_>,
    report: &mut Report,
) {
    let mut best: Option<(Rank, Setting, Origin)> = None;
    for given in assignments
        .iter()
        .filter(|given| std::ptr::eq(given.key, key))
    {
        let setting = match read(given) {
            Ok(Some(setting)) => setting,
            Ok(None) => continue,
            Err((at, line, fault)) => {
                report.error(
                    &given.origin.at_line(line),
                    format!("{}{at}", given.written),
                    fault,
                );
                continue;
            }
        };
        let is_lower = LOWEST_ALIAS_HOLDS.contains(&key.path)
            && best
                .as_ref()
                .is_some_and(|(rank, best, _)| *rank == given.rank && is_below(best, &setting));
        if !is_lower {
            best = Some((given.rank, setting, given.origin.clone()));
        }
    }
    match best {
        Some((rank, setting, origin)) => {
            let said = match rank {
                Rank::FileAlias | Rank::EnvTranslated => Said::ByAnother,
                Rank::Fallback | Rank::File | Rank::Env(_) | Rank::EnvTop | Rank::Cli => {
                    Said::ByItsName
                }
            };
            settings.put_said(key.path, setting, origin, said);
        }
        None => {
            let is_given = assignments.iter().any(|given| std::ptr::eq(given.key, key));
            if key.required && !is_given {
                report.error(&settings.origin, settings.name(key.path), Fault::Missing);
            }
            let (setting, origin) = default_of(key, defaults);
            settings.put(key.path, setting, origin);
        }
    }
}

/// Both say a number, and the first says the lower one.
fn is_below(first: &Setting, second: &Setting) -> bool {
    match (first, second) {
        (Setting::Whole(a), Setting::Whole(b)) | (Setting::Bytes(a), Setting::Bytes(b)) => a < b,
        _ => false,
    }
}

/// Where in a value, in which line, what is wrong.
type Misread = (String, u32, Fault);

/// Reads one value; `None` = as if it had not been given.
fn read(given: &Assignment) -> Result<Option<Setting>, Misread> {
    let key = given.key;
    let Assignment { node, .. } = given;
    match &node.value {
        Value::Null => match key.nulls {
            Nulls::Value => return Ok(Some(Setting::Null)),
            Nulls::Absent => return Ok(None),
            Nulls::Refused => {
                let fault = Fault::Value {
                    shown: "null".to_owned(),
                    wanted: key.kind.wanted(),
                };
                return Err((String::new(), node.line, fault));
            }
        },
        // An empty variable of an optional key is an unset one: what the file says holds.
        Value::Text(text)
            if text.trim().is_empty()
                && given.origin.variable().is_some()
                && (key.nulls != Nulls::Refused || key.default == Some("")) =>
        {
            return Ok(None);
        }
        Value::Text(text)
            if text.trim().is_empty() && !key.empty_counts && key.default != Some("") =>
        {
            return match key.nulls {
                Nulls::Value if key.default.is_none() => Ok(Some(Setting::Null)),
                Nulls::Value | Nulls::Absent => Ok(None),
                Nulls::Refused => {
                    let fault = Fault::Empty {
                        wanted: key.kind.wanted(),
                    };
                    Err((String::new(), node.line, fault))
                }
            };
        }
        Value::Text(_) | Value::Flag(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => {}
    }
    let parsed = key.kind.parse(node);
    parsed
        .map(Some)
        .map_err(|misfit| (misfit.at, misfit.line, misfit.fault))
}

pub(super) fn default_of(key: &'static Key, defaults: Defaults<'_>) -> (Setting, Origin) {
    if let (Some(path), Some(server)) = (key.inherits, defaults.server) {
        let entry = server.entry(path);
        return (entry.setting.clone(), entry.origin.clone());
    }
    let text = match (defaults.mode, key.upstream) {
        (LimitsMode::Upstream, Some(text)) => Some(text),
        (LimitsMode::Upstream, None) | (LimitsMode::Pusher, _) => key.default,
    };
    (
        text.map_or(Setting::Null, |text| default_setting(key, text)),
        Origin::Default,
    )
}

/// A default in the words of the table, as a setting.
pub(super) fn default_setting(key: &'static Key, text: &str) -> Setting {
    if let Kind::Records(_) = key.kind {
        return Setting::Records(Vec::new());
    }
    match key.kind.parse(&Node::text(text)) {
        Ok(setting) => setting,
        Err(misfit) => panic!(
            "the default of {} fits its kind: {}",
            key.path, misfit.fault
        ),
    }
}

fn settle_records(
    settings: &mut Settings,
    key: &'static Key,
    assignments: &[Assignment],
    defaults: Defaults<'_>,
    report: &mut Report,
) {
    let Kind::Records(table) = key.kind else {
        unreachable!("only records come here")
    };
    let mut entry = (Setting::Records(Vec::new()), Origin::Default);
    for given in assignments
        .iter()
        .filter(|given| std::ptr::eq(given.key, key))
    {
        if given.node.value == Value::Null && key.nulls == Nulls::Absent {
            continue;
        }
        // An app inherits from the server; a webhook has nothing to inherit.
        let inherited = Defaults {
            server: defaults.server.or(Some(settings)),
            ..defaults
        };
        match record_nodes(given) {
            Ok(nodes) => {
                let records = nodes.iter().enumerate();
                let records = records.filter_map(|(index, node)| {
                    let prefix = format!("{}[{index}]", given.written);
                    record(table, node, &given.origin, prefix, inherited, report)
                });
                entry = (Setting::Records(records.collect()), given.origin.clone());
            }
            Err((line, fault)) => {
                report.error(&given.origin.at_line(line), given.written.clone(), fault);
            }
        }
    }
    settings.put(key.path, entry.0, entry.1);
}

/// The elements of a list of records; a text holds the list as JSON.
fn record_nodes(given: &Assignment) -> Result<Vec<Node>, (u32, Fault)> {
    let Node { value, line, .. } = &given.node;
    let wrong = || {
        let (shown, wanted) = (given.node.shown(), given.key.kind.wanted());
        (*line, Fault::Value { shown, wanted })
    };
    match value {
        Value::List(nodes) => Ok(nodes.clone()),
        Value::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::Text(text) => match super::json::parse(text).map_err(|(_, fault)| (*line, fault))? {
            Node {
                value: Value::List(nodes),
                ..
            } => Ok(nodes),
            Node {
                value: Value::Null, ..
            } => Ok(Vec::new()),
            _ => Err((
                *line,
                Fault::Value {
                    shown: "it".to_owned(),
                    wanted: wanted_list(),
                },
            )),
        },
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Object(_) => Err(wrong()),
    }
}

fn wanted_list() -> String {
    "a JSON list of objects".to_owned()
}

fn record(
    table: &'static Table,
    node: &Node,
    source: &Origin,
    prefix: String,
    defaults: Defaults<'_>,
    report: &mut Report,
) -> Option<Settings> {
    let origin = source.at_line(node.line);
    let Value::Object(members) = &node.value else {
        let (shown, wanted) = (node.shown_for_keys(), "an object".to_owned());
        report.error(&origin, prefix, Fault::Value { shown, wanted });
        return None;
    };
    let prefix = format!("{prefix}.");
    let mut given = assignments(table, members, source, &prefix, report);
    let mut settings = Settings::new(table, origin, prefix);
    settle(&mut settings, &mut given, defaults, report);
    Some(settings)
}

/// `maxConnections`, `MaxConnections` and `max_connections` are one name.
pub(super) fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_are_one_name() {
        for (name, expected) in [
            ("max_connections", "max_connections"),
            ("maxConnections", "max_connections"),
            ("MaxConnections", "max_connections"),
            ("maxPayloadInKb", "max_payload_in_kb"),
            ("awsAccessKeyId", "aws_access_key_id"),
            ("id", "id"),
        ] {
            assert_eq!(snake_case(name), expected, "{name}");
        }
    }
}
