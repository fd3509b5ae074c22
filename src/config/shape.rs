//! The forms that a text may have: names, URLs, paths, filters.
//!
//! Owns: one check per form, with the words that say what is allowed.
//! May depend on: `protocol::origin`, `regex`, the log filter's parser.
//! Invariants: the words complete "... is not".

use crate::protocol::origin::OriginPattern;

/// A check of a text, and its words.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub fits: fn(&str) -> bool,
    pub wanted: &'static str,
}

pub const ANY: Shape = Shape {
    fits: |_| true,
    wanted: "a text",
};
pub const NOT_EMPTY: Shape = Shape {
    fits: |text| !text.trim().is_empty(),
    wanted: "a text that is not empty",
};
pub const PATH_SEGMENT: Shape = Shape {
    fits: |text| {
        let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && !"/?#".contains(c);
        (1..=255).contains(&text.len()) && text.chars().all(is_plain)
    },
    wanted: "1..=255 bytes without spaces, / ? #",
};
pub const TABLE_NAME: Shape = Shape {
    fits: |text| is_made_of(text, 64, "_$."),
    wanted: "a table name: 1..=64 of letters, digits, _ $ .",
};
pub const TABLE_NAME_AWS: Shape = Shape {
    fits: |text| text.len() >= 3 && is_made_of(text, 255, "_.-"),
    wanted: "a table name: 3..=255 of letters, digits, _ . -",
};
pub const NODE_ID: Shape = Shape {
    fits: |text| is_made_of(text, 64, "_.-"),
    wanted: "a node name: 1..=64 of letters, digits, _ . -",
};
pub const METRIC_PREFIX: Shape = Shape {
    fits: |text| !text.starts_with(|c: char| c.is_ascii_digit()) && is_made_of(text, 128, "_:"),
    wanted: "the start of a metric name: letters, digits, _ and :, no digit first",
};
pub const HTTP_URL: Shape = Shape {
    fits: |text| {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?']))
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    },
    wanted: "an http:// or https:// URL",
};
pub const ABSOLUTE_PATH: Shape = Shape {
    fits: |text| text.starts_with('/') && !text.split('/').any(|part| part == ".."),
    wanted: "an absolute path without ..",
};
pub const SOCKET_PATH: Shape = Shape {
    // A socket's address holds 108 bytes, and it is made under a longer name.
    fits: |text| {
        ["", NO_SOCKET].contains(&text) || (text.len() <= 90 && (ABSOLUTE_PATH.fits)(text))
    },
    wanted: "an absolute path of at most 90 bytes without .., or none",
};
/// The word for an empty path, which a variable cannot say.
pub(super) const NO_SOCKET: &str = "none";
pub const URL_PATH: Shape = Shape {
    fits: |text| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_-.~".contains(c))
    },
    wanted: "a URL path such as /realtime",
};
pub const HEADER_VALUE: Shape = Shape {
    fits: |text| !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte)),
    wanted: "a header value without spaces",
};
pub const TOKEN: Shape = Shape {
    fits: |text| {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        !text.is_empty() && text.chars().all(is_token)
    },
    wanted: "a method or header name",
};
pub const HOSTS: Shape = Shape {
    fits: |text| {
        let is_host = |host: &str| {
            !host.is_empty() && !host.contains(['/', ' ', '@', '"']) && !host.contains("://")
        };
        text.split(',').map(str::trim).all(is_host)
    },
    wanted: "a host name or address, or several between commas",
};
pub const HOST: Shape = Shape {
    fits: |text| (HOSTS.fits)(text) && !text.contains(','),
    wanted: "a host name or address, without a scheme, a login or a path",
};
/// Of PostgreSQL.
pub const HOST_OR_FOLDER: Shape = Shape {
    fits: |text| text.starts_with('/') || (HOST.fits)(text),
    wanted: "a host name or address, or the absolute path of a socket's folder",
};
pub const LOG_FILTER: Shape = Shape {
    fits: |text| log_filter(text).is_some(),
    wanted: "one of error, warn, info, debug, trace, off, or a log filter such as info,sockudo=debug",
};
pub const ORIGIN: Shape = Shape {
    fits: |text| OriginPattern::parse(text).is_ok(),
    wanted: "an origin such as https://app.example.com, *.example.com or *",
};
pub const PATTERN: Shape = Shape {
    fits: |text| regex::Regex::new(text).is_ok(),
    wanted: "a regular expression",
};

/// A log filter as its parser reads it, which knows neither words of PHP's libraries nor spaces; `None` where it
/// is none.
pub(super) fn log_filter(text: &str) -> Option<String> {
    let parts = text.split(',').map(str::trim);
    let directives = parts.filter(|part| !part.is_empty()).map(log_directive);
    let filter = directives.collect::<Option<Vec<String>>>()?.join(",");
    let parser = tracing_subscriber::EnvFilter::builder();
    (!filter.is_empty() && parser.parse(&filter).is_ok()).then_some(filter)
}

fn log_directive(text: &str) -> Option<String> {
    // An equals sign in brackets is about a span's field.
    let about_and_level = text
        .rsplit_once('=')
        .filter(|(_, level)| !level.contains([']', '}']));
    let level = about_and_level.map_or(text, |(_, level)| level.trim());
    // The parser takes numbers for levels, and 0 for silence.
    if level.parse::<usize>().is_ok() {
        return None;
    }
    let level = log_level(level).unwrap_or(level);
    match about_and_level {
        Some((about, _)) => Some(format!("{}={level}", about.trim_end())),
        None => is_meant(level).then(|| level.to_owned()),
    }
}

/// The level that a word of PHP's libraries means.
fn log_level(word: &str) -> Option<&'static str> {
    let meant = match word.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" => "error",
        "warning" => "warn",
        "notice" => "info",
        "verbose" => "debug",
        _ => return None,
    };
    Some(meant)
}

/// A word alone would be taken for a module, and all others would be silent.
fn is_meant(directive: &str) -> bool {
    let is_level = || {
        directive
            .parse::<tracing::level_filters::LevelFilter>()
            .is_ok()
    };
    directive.contains([':', '[']) || OUR_CRATES.contains(&directive) || is_level()
}

const OUR_CRATES: [&str; 3] = ["sockudo", "shards", "tuning"];

fn is_made_of(text: &str, length_max: usize, extra: &str) -> bool {
    (1..=length_max).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}
