//! Pusher Channels: the variables with which an application finds it.
//!
//! Owns: their names, and what to change at the clients.
//! May depend on: `written`.
//! Invariants: an app is made of an id, a key and a secret, or there is an error.

use super::written::{lines, not, source};
use super::{Draft, Given, Text, refusal};
use crate::config::dotenv::Line;
use crate::config::error::ConfigError;
use crate::config::tree::{Member, Node, Value};

/// Names of one value, the first that is set holds.
const ID: &[&str] = &["PUSHER_APP_ID", "PUSHER_APPID", "PUSHER_ID"];
const KEY: &[&str] = &["PUSHER_APP_KEY", "PUSHER_KEY"];
const SECRET: &[&str] = &["PUSHER_APP_SECRET", "PUSHER_SECRET"];
const CLUSTER: &[&str] = &["PUSHER_APP_CLUSTER", "PUSHER_CLUSTER"];
/// Where the application finds a server that is not Pusher's own.
const PLACE: [&str; 3] = ["PUSHER_HOST", "PUSHER_PORT", "PUSHER_SCHEME"];
/// `https://KEY:SECRET@HOST/apps/ID`, as hosts of applications give it.
const URL: &[&str] = &["PUSHER_URL"];

pub(super) fn draft(given: Given<'_>) -> Result<Draft, ConfigError> {
    let text = given.file.or(given.variables);
    let text = text.unwrap_or(Text { name: "", text: "" });
    let mut lines = lines(text, |name| name.starts_with("PUSHER_"))?;
    if let Some(env) = given.variables.filter(|env| env.name != text.name) {
        lines.extend(super::written::lines(env, |name| {
            name.starts_with("PUSHER_")
        })?);
    }
    let found = |names: &[&str]| find(&lines, names);
    let of_url = found(URL).and_then(|(url, line)| Some((parts(&url)?, line)));
    let from_url = |at: usize| {
        of_url
            .as_ref()
            .map(|(parts, line)| (parts[at].clone(), *line))
    };
    let mut draft = Draft::new(source(text));
    let mut members = Vec::new();
    for (key, names, at) in [("id", ID, 0), ("key", KEY, 1), ("secret", SECRET, 2)] {
        let Some((value, line)) = found(names).or_else(|| from_url(at)) else {
            let message = format!("it holds no {}", names.first().unwrap_or(&key));
            return Err(refusal(&draft.source, not(&message)));
        };
        members.push(member(key, Value::Text(value), line));
    }
    let app = Node::new(Value::Object(members), 1);
    draft.members = vec![member("app_manager.array.apps", Value::List(vec![app]), 1)];
    draft.notes = notes(found(CLUSTER).map(|(cluster, _)| cluster));
    for name in PLACE {
        if let Some((value, _)) = found(&[name]) {
            draft.notes.push(format!(
                "{name} ({value}) is where the application connects: it has to name this server"
            ));
        }
    }
    Ok(draft)
}

fn find(lines: &[Line], names: &[&str]) -> Option<(String, u32)> {
    let set = |name: &&str| {
        let mut set = lines.iter().rev();
        set.find(|line| line.name == *name && !line.value.trim().is_empty())
    };
    let line = names.iter().find_map(set)?;
    Some((line.value.trim().to_owned(), line.line))
}

/// Id, key and secret of a URL.
fn parts(url: &str) -> Option<[String; 3]> {
    let (_, rest) = url.split_once("://")?;
    let (credentials, rest) = rest.rsplit_once('@')?;
    let (key, secret) = credentials.split_once(':')?;
    let (_, id) = rest.split_once("/apps/")?;
    let parts = [id.trim_end_matches('/'), key, secret];
    let are_there = parts.iter().all(|part| !part.is_empty());
    are_there.then(|| parts.map(str::to_owned))
}

fn notes(cluster: Option<String>) -> Vec<String> {
    let cluster = cluster.map_or_else(
        || "a `cluster`".to_owned(),
        |cluster| format!("the cluster ({cluster})"),
    );
    [
        format!("in browsers, instead of {cluster}: wsHost, wsPort, wssPort, forceTLS, and enabledTransports: [\"ws\", \"wss\"]"),
        "in the application: PUSHER_HOST, PUSHER_PORT and PUSHER_SCHEME (Laravel), or host, port and useTLS, name this server".to_owned(),
        "the app's settings in Pusher's dashboard are not in these variables: client events \
         (enable_client_messages), sign-in (enable_user_authentication), subscription counts \
         (enable_subscription_count) and webhooks are off until the new file says so"
            .to_owned(),
    ]
    .into()
}

fn member(name: &str, value: Value, line: u32) -> Member {
    Member {
        name: name.to_owned(),
        line,
        node: Node::new(value, line),
    }
}
