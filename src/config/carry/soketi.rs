//! Soketi, and Sockudo before this one: the loader knows their names; here is what held silently.
//!
//! Owns: Soketi's defaults where ours differ, so that a file of ours says them.
//! May depend on: `written`, `read`, `keys`.
//! Invariants: a default ranks below everything that somebody wrote.

use super::written::{self, Form, form_of, members, source, variables};
use super::{Draft, Given, Text, refusal};
use crate::config::checks::APPS;
use crate::config::error::ConfigError;
use crate::config::keys::{SERVER, SOKETI_PREFIX};
use crate::config::origin::Origin;
use crate::config::read::{Assignment, Rank};
use crate::config::settings::{Setting, Settings};
use crate::config::tree::Node;

pub(super) fn draft(given: Given<'_>) -> Result<Draft, ConfigError> {
    let mut draft = draft_of(given, |name| name.starts_with(SOKETI_PREFIX))?;
    draft.notes.push(
        "what Soketi did without being told, and this server does not, is written out; each line \
         may go"
            .to_owned(),
    );
    Ok(draft)
}

pub(super) fn draft_of_sockudo(given: Given<'_>) -> Result<Draft, ConfigError> {
    let mut draft = draft_of(given, |_| true)?;
    draft.notes.push(
        "limits_mode = \"upstream\" keeps limits off where 2.x had none; without that line the \
         protocol's hold"
            .to_owned(),
    );
    Ok(draft)
}

fn draft_of(given: Given<'_>, wanted: impl Fn(&str) -> bool) -> Result<Draft, ConfigError> {
    let (file, env) = match given.file {
        Some(file) if form_of(file.text) == Form::Variables && given.variables.is_none() => {
            (None, Some(file))
        }
        file => (file, given.variables),
    };
    let named = file.or(env).unwrap_or(Text { name: "", text: "" });
    let mut draft = Draft::new(source(named));
    if let Some(file) = file {
        draft.members = members(file)?;
    }
    if let Some(env) = env {
        draft.variables = variables(env, wanted)?;
    }
    let is_empty = draft.members.is_empty() && draft.variables.names().next().is_none();
    if is_empty {
        let fault = written::not("it holds no key and no variable of that server");
        return Err(refusal(&draft.source, fault));
    }
    Ok(draft)
}

/// A key, its value, and the driver with which it matters.
type Default = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
);

const MYSQL: Option<(&str, &str)> = Some(("app_manager.driver", "mysql"));
const POSTGRES: Option<(&str, &str)> = Some(("app_manager.driver", "pgsql"));
const DYNAMODB: Option<(&str, &str)> = Some(("app_manager.driver", "dynamodb"));

#[rustfmt::skip] // One key a line.
const DEFAULTS: &[Default] = &[
    ("user_authentication_timeout", "30", None),
    ("shutdown_grace_period", "3", None),
    ("channel_limits.cache_ttl", "3600", None),
    ("presence.max_member_size_in_kb", "2", None),
    ("http_api.request_limit_in_mb", "100", None),
    ("http_api.accept_traffic.memory_threshold", "85", None),
    ("metrics.enabled", "false", None),
    ("metrics.prometheus.prefix", "soketi_", None),
    ("webhooks.batching.enabled", "false", None),
    ("database_pooling.enabled", "false", None),
    ("database_pooling.min", "0", None),
    ("database_pooling.max", "7", None),
    ("app_manager.cache.enabled", "false", None),
    ("queue.driver", "memory", None),
    ("cors.methods", "GET,POST,PUT,DELETE,OPTIONS", None),
    ("cors.allowed_headers", "Origin,Content-Type,X-Auth-Token,X-Requested-With,Accept,Authorization,X-CSRF-TOKEN,XSRF-TOKEN,X-Socket-Id", None),
    ("database.mysql.host", "127.0.0.1", MYSQL),
    ("database.mysql.username", "root", MYSQL),
    ("database.mysql.password", "password", MYSQL),
    ("database.mysql.database", "main", MYSQL),
    ("database.mysql.table_name", "apps", MYSQL),
    ("database.postgres.host", "127.0.0.1", POSTGRES),
    ("database.postgres.port", "5432", POSTGRES),
    ("database.postgres.username", "postgres", POSTGRES),
    ("database.postgres.password", "password", POSTGRES),
    ("database.postgres.database", "main", POSTGRES),
    ("database.postgres.table_name", "apps", POSTGRES),
    ("database.dynamodb.table_name", "apps", DYNAMODB),
    ("database.dynamodb.layout", "soketi", DYNAMODB),
    ("adapter.nats.servers", "127.0.0.1:4222", Some(("adapter.driver", "nats"))),
];

/// Adds what held in Soketi where nobody said anything.
pub(super) fn add_defaults(assignments: &mut Vec<Assignment>) {
    let names = |path: &str| -> Vec<String> {
        let of_key = assignments.iter().filter(|given| given.key.path == path);
        let text = |given: &Assignment| given.node.shown().trim_matches('"').to_lowercase();
        of_key.map(text).collect()
    };
    let is_driver = |(path, driver): (&str, &str)| {
        let aliases: &[&str] = match driver {
            "pgsql" => &["pgsql", "postgres", "postgresql"],
            "mysql" => &["mysql"],
            "dynamodb" => &["dynamodb"],
            _ => &["nats"],
        };
        names(path)
            .iter()
            .any(|name| aliases.contains(&name.as_str()))
    };
    let held = DEFAULTS
        .iter()
        .filter(|(.., with)| with.is_none_or(is_driver));
    let held: Vec<Assignment> = held.map(|(path, value, _)| low(path, value)).collect();
    assignments.extend(held);
    // Soketi counts events per app and looks at no address.
    assignments.retain(|given| given.key.path != "rate_limiter.enabled");
    assignments.push(low("rate_limiter.enabled", "false"));
}

pub(super) fn add_limits_mode(assignments: &mut Vec<Assignment>) {
    assignments.push(low("limits_mode", "upstream"));
}

fn low(path: &str, value: &str) -> Assignment {
    let key = SERVER.key(path);
    Assignment {
        key,
        rank: Rank::Fallback,
        origin: Origin::Default,
        written: key.path.to_owned(),
        node: Node::text(value),
    }
}

/// An app of Soketi without a limit of its own sends client events at any rate.
pub(super) fn unlimited_where_nobody_said(settings: &mut Settings) {
    let path = "max_client_events_per_second";
    for app in settings.records_mut(APPS) {
        if !app.is_explicit(path) {
            app.put(path, Setting::Whole(0), Origin::Default);
        }
    }
}
