//! The configuration as an operator meets it: files, variables, flags, errors, exit codes.
//!
//! Owns: the acceptance checks of loading, and their vocabulary: what is given to a load, and a
//! fitting value for each key.
//! May depend on: `config`'s public side and the built program.
//! Invariants: each test writes only into a temporary folder of its own.

mod certificates;
mod derived;
mod examples;
mod keys;
mod migrate;
mod migrate_reverb;
mod program;
mod refusals;
mod refused_backends;
mod secrets;
mod soketi;
mod sources;
mod twice;

use std::path::PathBuf;

use sockudo::config::keys::{Key, SERVER};
use sockudo::config::kind::Kind;
use sockudo::config::{ConfigErrors, Flag, Loaded, Sources, load};

/// One load: a file, variables, flags.
#[derive(Clone, Default)]
struct Given<'a> {
    file: Option<(&'a str, &'a str)>,
    env: &'a [(&'a str, &'a str)],
    env_file: Option<&'a str>,
    flags: &'a [(&'static str, &'static str, &'a str)],
    lenient: bool,
    allow_demo_app: bool,
}

impl Given<'_> {
    fn load(&self) -> Result<Loaded, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path
        };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        load(&Sources {
            config: self.file.map(|(name, text)| write(name, text)),
            env_file: self.env_file.map(|text| write("env", text)),
            search: Vec::new(),
            environment: self.env.iter().map(owned).collect(),
            flags: self
                .flags
                .iter()
                .map(|&(flag, key, value)| Flag {
                    flag,
                    key,
                    value: value.to_owned(),
                })
                .collect(),
            lenient: self.lenient,
            allow_demo_app: self.allow_demo_app,
        })
    }

    fn loaded(&self) -> Loaded {
        self.load()
            .unwrap_or_else(|errors| panic!("{:?} {:?}: {errors}", self.file, self.env))
    }

    /// The errors without the folder's name.
    fn errors(&self) -> Vec<String> {
        match self.load() {
            Ok(_) => panic!("{:?} {:?} loads", self.file, self.env),
            Err(errors) => errors
                .0
                .iter()
                .map(|error| without_folder(&error.to_string()))
                .collect(),
        }
    }
}

fn without_folder(text: &str) -> String {
    match (text.starts_with('/'), text.split_once(": ")) {
        (true, Some((place, rest))) => {
            let name = place.rsplit('/').next().unwrap_or(place);
            format!("{name}: {rest}")
        }
        _ => text.to_owned(),
    }
}

fn file(text: &str) -> Given<'_> {
    Given {
        file: Some(("config.json", text)),
        ..Given::default()
    }
}

fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given {
        env: variables,
        ..Given::default()
    }
}

/// The key as the only one of a file, in line 2.
fn nested(path: &str, value: &str) -> String {
    let mut text = String::new();
    let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        text.push_str(&format!("{{{section:?}:"));
    }
    text.push_str(&format!("\n{{{name:?}: {value}"));
    text.push_str(&"}".repeat(path.split('.').count()));
    text
}

fn in_an_app(path: &str, value: &str) -> String {
    let credentials = [("id", "a"), ("key", "k"), ("secret", "s")];
    let others: Vec<String> = credentials
        .iter()
        .filter(|(name, _)| *name != path)
        .map(|(name, value)| format!("{name:?}: {value:?}"))
        .collect();
    format!(
        "{{\"app_manager\": {{\"array\": {{\"apps\": [{{ {},\n\"{path}\": {value} }}]}}}}}}",
        others.join(", ")
    )
}

fn plain_keys() -> impl Iterator<Item = &'static Key> {
    SERVER
        .iter()
        .filter(|key| !matches!(key.kind, Kind::Records(_)))
}

/// A value that fits the key, is not its default, and is in this release; as a variable has it.
fn example(key: &Key) -> String {
    let fixed = match key.path {
        // Choices and switches whose other values are not in this release.
        "adapter.driver" => "local",
        "app_manager.driver" => "memory",
        "cache.driver" | "queue.driver" | "rate_limiter.driver" => "none",
        "cluster.replication" => "full",
        // On, it wants files.
        "ssl.enabled" => "false",
        // Values that must fit others.
        "net.proxy_protocol" => "off",
        "net.recv_buffers" => "2048",
        "net.send_queue_bytes" => "2000000",
        "websocket.max_payload_kb" => "65",
        "path_prefix" => "/realtime",
        "unix_socket.path" => "/run/x",
        _ => "",
    };
    if !fixed.is_empty() {
        return fixed.to_owned();
    }
    let is_new = |text: &&&str| key.default != Some(**text);
    match key.kind {
        Kind::Flag if key.default == Some("true") => "false".to_owned(),
        Kind::Flag => "true".to_owned(),
        Kind::Whole(bounds) | Kind::WholeOrAuto(bounds) => {
            let default: u64 = key.default.and_then(|text| text.parse().ok()).unwrap_or(0);
            let above = default.saturating_add(1).clamp(bounds.min, bounds.max);
            let number = if above == default { default - 1 } else { above };
            number.to_string()
        }
        Kind::Kilobytes(_) => "7.5".to_owned(),
        Kind::Fraction => "0.5".to_owned(),
        Kind::Text(shape) | Kind::TextOrNumber(shape) | Kind::Texts(shape) => {
            let candidates = ["https://h.example", "PATCH", "name", "other", "/x"];
            let fits = |text: &&&str| (shape.fits)(text) && is_new(text);
            let found = candidates.iter().find(fits);
            (*found.unwrap_or_else(|| panic!("an example for {}", key.path))).to_owned()
        }
        Kind::Choice(choices) => {
            let mut names = choices.iter().map(|choice| choice.name);
            let other = names.clone().find(|name| key.default != Some(name));
            other
                .or_else(|| names.next_back())
                .expect("a choice has names")
                .to_owned()
        }
        Kind::Secret | Kind::Secrets => "hunter2".to_owned(),
        Kind::Url | Kind::Urls => "https://user:hunter2@h.example".to_owned(),
        Kind::Cidrs => "10.0.0.0/8".to_owned(),
        Kind::Endpoints { .. } => "h.example:7001".to_owned(),
        Kind::Mode => "600".to_owned(),
        Kind::Headers => "{\"a\": \"hunter2\"}".to_owned(),
        Kind::Records(_) => "[]".to_owned(),
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
