//! Pusher Channels: the variables with which an application finds it.
//!
//! Owns: their names, and what to change at the clients.
//! May depend on: `written`.
//! Invariants: an app is made of an id, a key and a secret, or there is an error.

use super::written::{lines, not, source};
use super::{Draft, Given, Text, refusal};
use crate::config::dotenv::Line;
use crate::config::error::{ConfigError, Fault};
use crate::config::origin::Origin;
use crate::config::secret::MASK;
use crate::config::tree::{Member, Node, Value};

/// Names of one value, the first that is set holds.
const ID: &[&str] = &["PUSHER_APP_ID", "PUSHER_APPID", "PUSHER_ID"];
const KEY: &[&str] = &["PUSHER_APP_KEY", "PUSHER_KEY"];
const SECRET: &[&str] = &["PUSHER_APP_SECRET", "PUSHER_SECRET"];
const CLUSTER: &[&str] = &["PUSHER_APP_CLUSTER", "PUSHER_CLUSTER"];
/// Where the application finds a server that is not Pusher's own.
const PLACE: [&str; 3] = ["PUSHER_HOST", "PUSHER_PORT", "PUSHER_SCHEME"];
/// As hosts of applications give it.
const URL: &[&str] = &["PUSHER_URL"];
const URL_FORM: &str = "https://KEY:SECRET@HOST/apps/ID";
/// What an app is made of, in the order of `parts`.
const APP: [(&str, &[&str]); 3] = [("id", ID), ("key", KEY), ("secret", SECRET)];

pub(super) fn draft(given: Given<'_>) -> Result<Draft, ConfigError> {
    let text = given.file.or(given.variables);
    let text = text.unwrap_or(Text { name: "", text: "" });
    let mut given_lines = lines_of(text)?;
    if let Some(env) = given.variables.filter(|env| env.name != text.name) {
        given_lines.extend(lines_of(env)?);
    }
    let found = |names: &[&str]| find(&given_lines, names);
    let url = found(URL);
    let parts = url.as_ref().map(|url| parts(&url.value));
    let of_url = |at: usize| {
        let (url, parts) = (url.as_ref()?, parts.as_ref()?);
        let value = parts[at].clone()?;
        Some(Found {
            value,
            ..url.clone()
        })
    };
    let mut draft = Draft::new(source(text));
    let mut members = Vec::new();
    for (at, (key, names)) in APP.into_iter().enumerate() {
        let Some(found) = found(names).or_else(|| of_url(at)) else {
            return Err(missing(&given_lines, (key, names), &draft.source));
        };
        members.push(member(key, Value::Text(found.value), found.line));
    }
    let app = Node::new(Value::Object(members), 1);
    draft.members = vec![member("app_manager.array.apps", Value::List(vec![app]), 1)];
    draft.notes = notes(found(CLUSTER).map(|cluster| cluster.value));
    for name in PLACE {
        if let Some(Found { value, .. }) = found(&[name]) {
            draft.notes.push(format!(
                "{name} ({value}) is where the application connects: it has to name this server"
            ));
        }
    }
    Ok(draft)
}

/// A line, and the text that it stands in.
type InText = (Origin, Line);

/// A value that is set.
#[derive(Clone)]
struct Found {
    value: String,
    line: u32,
    origin: Origin,
}

fn lines_of(text: Text<'_>) -> Result<Vec<InText>, ConfigError> {
    let lines = lines(text, |name| name.starts_with("PUSHER_"))?;
    let of_text = |line: Line| (source(text).at_line(line.line), line);
    Ok(lines.into_iter().map(of_text).collect())
}

fn find(lines: &[InText], names: &[&str]) -> Option<Found> {
    let set = |name: &&str| {
        let mut set = lines.iter().rev();
        set.find(|(_, line)| line.name == *name && !line.value.trim().is_empty())
    };
    let (origin, line) = names.iter().find_map(set)?;
    Some(Found {
        value: line.value.trim().to_owned(),
        line: line.line,
        origin: origin.clone(),
    })
}

/// Why the app has no `key`: its variable is empty, the URL is without it or empty, or there is neither.
fn missing(lines: &[InText], (key, names): (&str, &[&str]), source: &Origin) -> ConfigError {
    let empty = |names: &[&str]| {
        let mut lines = lines.iter();
        lines.find(|(_, line)| names.contains(&&*line.name))
    };
    if let Some((origin, line)) = empty(names) {
        let wanted = format!("the app's {key}");
        return about(origin, &line.name, Fault::Empty { wanted });
    }
    if let Some(url) = find(lines, URL) {
        let what = if key == "id" { "app" } else { key };
        let wanted = format!("{URL_FORM}: it has no {what}");
        // A part that is not told from the others may be the secret.
        let shown = format!("\"{MASK}\"");
        return about(&url.origin, URL[0], Fault::Value { shown, wanted });
    }
    if let Some((origin, line)) = empty(URL) {
        let wanted = URL_FORM.to_owned();
        return about(origin, &line.name, Fault::Empty { wanted });
    }
    let message = format!("it holds no {}", names.first().unwrap_or(&key));
    refusal(source, not(&message))
}

fn about(origin: &Origin, name: &str, fault: Fault) -> ConfigError {
    ConfigError {
        origin: origin.clone(),
        key: name.to_owned(),
        fault,
    }
}

/// Id, key and secret of a URL, as far as it has them.
fn parts(url: &str) -> [Option<String>; 3] {
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let Some((_, rest)) = url.split_once("://") else {
        return [None, None, None];
    };
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (key, secret) = credentials.split_once(':').unwrap_or((credentials, ""));
    let id = place.split_once("/apps/").map_or("", |(_, id)| id);
    [part(id.trim_end_matches('/')), part(key), part(secret)]
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
