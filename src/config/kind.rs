//! What a key's value may be, and how it is read from a file, a variable or a flag.
//!
//! Owns: the kinds of values, their bounds, and the words that say what is allowed.
//! May depend on: `tree`, `settings`, `error`.
//! Invariants: a text is enough for every kind, so that a variable can set every key; a fault never
//! shows a secret.

use ipnet::IpNet;

use super::error::Fault;
use super::keys::Table;
use super::secret::{MASK, Secret, masked_url};
use super::sections::Endpoint;
use super::settings::Setting;
use super::shape::{self, Shape};
use super::tree::{Node, Value};

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Flag,
    Whole(Whole),
    WholeOrAuto(Whole),
    /// Kilobytes of 1024, fractions allowed; bounds and setting are in bytes.
    Kilobytes(Whole),
    /// 0..=1; above 1 and up to 100 it is a percentage.
    Fraction,
    Text(Shape),
    /// A text; a number's digits are one too.
    TextOrNumber(Shape),
    Texts(Shape),
    Choice(&'static [Choice]),
    Secret,
    Secrets,
    /// A URL that may carry credentials.
    Url,
    Urls,
    Cidrs,
    /// Objects with `host` and `port`, or texts `host:port`; these are the defaults.
    Endpoints {
        host: &'static str,
        port: u16,
    },
    /// An octal file mode, as a text.
    Mode,
    /// An object of texts; the values may be credentials.
    Headers,
    /// A list of objects with keys of their own.
    Records(&'static Table),
}

/// Bounds of a whole number, both included.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    pub min: u64,
    pub max: u64,
    pub unit: &'static str,
    /// What a negative number stands for; `None` = it is refused.
    pub negative: Option<u64>,
}

/// The setting of a limit that is off, where 0 is a limit of nothing.
pub const UNLIMITED: u64 = u32::MAX as u64;

/// One of a closed set of names.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// This release knows it, but does not have it.
    pub is_later: bool,
}

/// A value that does not fit: where inside the value, and why.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Appended to the key: "" or "[2]".
    pub(super) at: String,
    pub(super) line: u32,
    pub(super) fault: Fault,
}

impl Kind {
    /// What is allowed, after "is not".
    pub fn wanted(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Whole(bounds) => bounds.wanted(),
            Self::WholeOrAuto(bounds) => format!("{} or \"auto\"", bounds.wanted()),
            Self::Kilobytes(bounds) => bounds.wanted_kilobytes(),
            Self::Fraction => "a number 0..=1 (or a percentage up to 100)".to_owned(),
            Self::Text(shape) | Self::TextOrNumber(shape) => shape.wanted.to_owned(),
            Self::Texts(shape) => format!("a list, each {}", shape.wanted),
            Self::Choice(choices) => wanted_choice(choices),
            Self::Secret | Self::Url => "a text".to_owned(),
            Self::Secrets | Self::Urls => "a list of texts".to_owned(),
            Self::Cidrs => "a list of networks such as 10.0.0.0/8".to_owned(),
            Self::Endpoints { .. } => "a list of {\"host\", \"port\"} or \"host:port\"".to_owned(),
            Self::Mode => "an octal mode up to \"777\" in quotes, such as \"660\"".to_owned(),
            Self::Headers => "an object of header names and texts".to_owned(),
            Self::Records(_) => "a list of objects".to_owned(),
        }
    }

    /// What is allowed as an element of a list.
    fn wanted_of_one(self) -> String {
        match self {
            Self::Texts(shape) => shape.wanted.to_owned(),
            Self::Secrets | Self::Urls => shape::NOT_EMPTY.wanted.to_owned(),
            Self::Cidrs => "a network such as 10.0.0.0/8".to_owned(),
            Self::Endpoints { .. } => "{\"host\", \"port\"} or \"host:port\"".to_owned(),
            _ => self.wanted(),
        }
    }

    /// Reads a value that is neither null nor an empty text. Not for `Records`.
    pub(super) fn parse(self, node: &Node) -> Result<Setting, Misfit> {
        let found = match self {
            Self::Flag => flag(node).map(Setting::Flag),
            Self::Whole(bounds) => bounds.read(node).map(Setting::Whole),
            Self::WholeOrAuto(bounds) => match &node.value {
                Value::Text(text) if text.eq_ignore_ascii_case("auto") => Some(Setting::Auto),
                _ => bounds.read(node).map(Setting::Whole),
            },
            Self::Kilobytes(bounds) => bounds.read_kilobytes(node).map(Setting::Bytes),
            Self::Fraction => fraction(node).map(Setting::Fraction),
            Self::Text(shape) => text(node, shape).map(Setting::Text),
            Self::TextOrNumber(shape) => text_or_digits(node, shape).map(Setting::Text),
            Self::Choice(choices) => chosen(node, choices).map(Setting::Text),
            Self::Secret => text(node, shape::ANY).map(|text| Setting::Secret(Secret::new(text))),
            Self::Url => text(node, shape::ANY).map(|text| Setting::Url(Secret::new(text))),
            Self::Mode => mode(node).map(Setting::Mode),
            Self::Headers => headers(node).map(Setting::Headers),
            Self::Texts(shape) => {
                return self
                    .each(node, |node| text(node, shape))
                    .map(Setting::Texts);
            }
            Self::Secrets => return self.each(node, secret).map(Setting::Secrets),
            Self::Urls => return self.each(node, secret).map(Setting::Urls),
            Self::Cidrs => return self.each(node, cidr).map(Setting::Cidrs),
            Self::Endpoints { host, port } => {
                return self
                    .each(node, |node| endpoint(node, host, port))
                    .map(Setting::Endpoints);
            }
            Self::Records(_) => unreachable!("records are read by `read`, which reports by itself"),
        };
        found.ok_or_else(|| self.misfit(node, String::new()))
    }

    fn misfit(self, node: &Node, at: String) -> Misfit {
        let fault = Fault::Value {
            shown: self.shown(node),
            wanted: self.wanted(),
        };
        Misfit {
            at,
            line: node.line,
            fault,
        }
    }

    /// The wrong value as an error may show it.
    fn shown(self, node: &Node) -> String {
        match self {
            Self::Secret | Self::Secrets | Self::Headers => MASK.to_owned(),
            Self::Url | Self::Urls | Self::Endpoints { .. } => match &node.value {
                Value::Text(text) => {
                    let written = node.written.as_ref().unwrap_or(text);
                    Node::text(masked_url(written)).shown()
                }
                _ => node.shown(),
            },
            Self::Flag
            | Self::Whole(_)
            | Self::WholeOrAuto(_)
            | Self::Kilobytes(_)
            | Self::Fraction
            | Self::Text(_)
            | Self::TextOrNumber(_)
            | Self::Texts(_)
            | Self::Choice(_)
            | Self::Cidrs
            | Self::Mode
            | Self::Records(_) => node.shown(),
        }
    }

    /// Reads a list, or a text of elements between commas.
    fn each<T>(self, node: &Node, element: impl Fn(&Node) -> Option<T>) -> Result<Vec<T>, Misfit> {
        let split: Vec<Node>;
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            Value::Text(text) => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                let part_node = |part: &str| Node {
                    value: Value::Text(part.to_owned()),
                    line: node.line,
                    written: node.written.clone(),
                };
                split = parts.map(part_node).collect();
                &split
            }
            Value::Null | Value::Flag(_) | Value::Number(_) | Value::Object(_) => {
                return Err(self.misfit(node, String::new()));
            }
        };
        let element = |(index, node): (usize, &Node)| {
            element(node).ok_or_else(|| {
                let mut misfit = self.misfit(node, format!("[{index}]"));
                if let Fault::Value { wanted, .. } = &mut misfit.fault {
                    *wanted = self.wanted_of_one();
                }
                misfit
            })
        };
        nodes.iter().enumerate().map(element).collect()
    }
}

impl Whole {
    fn read(self, node: &Node) -> Option<u64> {
        let (Value::Number(digits) | Value::Text(digits)) = &node.value else {
            return None;
        };
        let number: i128 = digits.trim().parse().ok()?;
        match self.negative {
            Some(meaning) if number < 0 => Some(meaning),
            _ => self.within(u64::try_from(number).ok()?),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast of a float goes to the nearest end, and the bounds refuse that one"
    )]
    fn read_kilobytes(self, node: &Node) -> Option<u64> {
        let number = real(node)?;
        match self.negative {
            Some(meaning) if number < 0.0 => Some(meaning),
            // Rounded to a byte.
            _ if number >= 0.0 => self.within((number * 1024.0).round() as u64),
            _ => None,
        }
    }

    fn within(self, number: u64) -> Option<u64> {
        (self.min..=self.max).contains(&number).then_some(number)
    }

    fn wanted(self) -> String {
        let Self { min, max, unit, .. } = self;
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" of {unit}")
        };
        let range = match max {
            u64::MAX | UNLIMITED => format!(">= {min}"),
            _ => format!("{min}..={max}"),
        };
        format!("a whole number{unit} {range}{}", self.unlimited())
    }

    fn wanted_kilobytes(self) -> String {
        let (max, unlimited) = (kilobytes(self.max), self.unlimited());
        format!("a number of kilobytes > 0 and <= {max}{unlimited}")
    }

    fn unlimited(self) -> &'static str {
        if self.negative.is_some() {
            " (or -1 for unlimited)"
        } else {
            ""
        }
    }
}

/// Bytes as kilobytes of 1024, without a fraction where there is none.
pub(super) fn kilobytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) {
        (bytes / 1024).to_string()
    } else {
        // Exact: a division by a power of two, far below 2^53.
        (bytes as f64 / 1024.0).to_string()
    }
}

/// `true 1 yes on` or `false 0 no off`, in any case.
fn flag(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Flag(flag) => Some(*flag),
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        Value::Null | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
    }
}

fn real(node: &Node) -> Option<f64> {
    let (Value::Number(digits) | Value::Text(digits)) = &node.value else {
        return None;
    };
    digits
        .trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

fn fraction(node: &Node) -> Option<f64> {
    let number = real(node).filter(|number| (0.0..=100.0).contains(number))?;
    Some(if number > 1.0 { number / 100.0 } else { number })
}

fn text(node: &Node, shape: Shape) -> Option<String> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    (shape.fits)(text).then(|| text.clone())
}

/// Soketi's files and Pusher's own app ids are numbers.
fn text_or_digits(node: &Node, shape: Shape) -> Option<String> {
    match &node.value {
        Value::Number(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (shape.fits)(digits).then(|| digits.clone())
        }
        _ => text(node, shape),
    }
}

fn secret(node: &Node) -> Option<Secret> {
    text(node, shape::NOT_EMPTY).map(Secret::new)
}

fn chosen(node: &Node, choices: &[Choice]) -> Option<String> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    let text = text.trim();
    let names = |choice: &&Choice| {
        choice.name.eq_ignore_ascii_case(text)
            || choice
                .aliases
                .iter()
                .any(|alias| alias.eq_ignore_ascii_case(text))
    };
    choices
        .iter()
        .find(names)
        .map(|choice| choice.name.to_owned())
}

fn wanted_choice(choices: &[Choice]) -> String {
    let names: Vec<String> = choices
        .iter()
        .map(|choice| format!("{:?}", choice.name))
        .collect();
    match &names[..] {
        [only] => only.clone(),
        _ => format!("one of {}", names.join(", ")),
    }
}

fn cidr(node: &Node) -> Option<IpNet> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    let text = text.trim();
    let host = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| host()).ok()
}

/// A JSON number is refused: 755 in decimal is not 0o755.
fn mode(node: &Node) -> Option<u32> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    let digits = text.trim().trim_start_matches("0o");
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
}

fn headers(node: &Node) -> Option<Vec<(String, Secret)>> {
    let parsed: Node;
    let members = match &node.value {
        Value::Object(members) => members,
        Value::Text(text) => {
            parsed = super::json::parse(text).ok()?;
            let Value::Object(members) = &parsed.value else {
                return None;
            };
            members
        }
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) => return None,
    };
    let header = |member: &super::tree::Member| match &member.node.value {
        Value::Text(text) => Some((member.name.clone(), Secret::new(text.clone()))),
        _ => None,
    };
    members.iter().map(header).collect()
}

fn endpoint(node: &Node, default_host: &str, default_port: u16) -> Option<Endpoint> {
    let (host, port) = match &node.value {
        Value::Text(text) => (text.clone(), None),
        Value::Object(members) => {
            let mut host = default_host.to_owned();
            let mut port = None;
            for member in members {
                match (member.name.as_str(), &member.node.value) {
                    ("host", Value::Text(text)) => host = text.clone(),
                    ("port", _) => port = Some(PORT.read(&member.node)?),
                    _ => return None,
                }
            }
            (host, port)
        }
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) => return None,
    };
    let port = port.and_then(|port| u16::try_from(port).ok());
    parse_endpoint(&host, port, default_port)
}

/// `host`, `host:port`, `[v6]:port`, each with an optional `redis://` or `rediss://`.
fn parse_endpoint(text: &str, given: Option<u16>, default_port: u16) -> Option<Endpoint> {
    let (tls, rest) = match text.trim().split_once("://") {
        Some(("rediss", rest)) => (true, rest),
        Some(("redis", rest)) => (false, rest),
        Some(_) => return None,
        None => (false, text.trim()),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, after)) => (host, Some(after.strip_prefix(':')?.parse().ok()?)),
        None => match rest.split_once(':') {
            // More than one colon and no brackets: an IPv6 address alone.
            Some((_, after)) if after.contains(':') => (rest, None),
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (rest, None),
        },
    };
    let is_plain = !host.is_empty() && !host.contains(['@', '/', ' ']);
    let port = port.or(given).unwrap_or(default_port);
    is_plain.then(|| Endpoint {
        tls,
        host: host.to_owned(),
        port,
    })
}

const PORT: Whole = Whole {
    min: 1,
    max: 65_535,
    unit: "",
    negative: None,
};
