//! The reference page `docs/configuration.md`, written from the table of keys.
//!
//! Owns: the page's words around the table.
//! May depend on: `keys`, `kind`, `release`, `environment`.
//! Invariants: the page in the repository is what this writes (tested).

use std::fmt::Write as _;

use super::environment::UNUSED;
use super::keys::{
    APP, Key, Meaning, OtherName, SERVER, SOKETI_APP, SOKETI_PREFIX, Source, Status, TRANSLATIONS,
    WEBHOOK, gather_sections,
};
use super::release::later_values;

/// The page as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    let mut section = None;
    let mut keys: Vec<&Key> = SERVER.iter().collect();
    gather_sections(&mut keys, section_of);
    for key in keys {
        let name = section_of(key.path);
        if section != Some(name) {
            let title = if name.is_empty() { "Top level" } else { name };
            write(&mut out, format_args!("\n## {title}\n\n{COLUMNS}"));
            section = Some(name);
        }
        let on_reload = if key.reloads { "yes" } else { "restart" };
        row(key, &key.variables(), on_reload, &mut out);
    }
    out.push_str(APP_HEAD);
    for key in APP.iter() {
        row(key, &key.app_variables(), WITH_ITS_APP, &mut out);
    }
    out.push_str(WEBHOOK_HEAD);
    for key in WEBHOOK.iter() {
        row(key, &[], WITH_ITS_APP, &mut out);
    }
    other_names(&mut out);
    out
}

/// The first word of a nested key.
fn section_of(path: &str) -> &str {
    path.split_once('.').map_or("", |(section, _)| section)
}

fn row(key: &Key, variables: &[String], on_reload: &str, out: &mut String) {
    // The general forms follow from the path; the page says so once.
    let own = variables
        .iter()
        .filter(|name| !name.starts_with("SOCKUDO_") || !is_general(name, key));
    let own = own
        .map(String::as_str)
        .chain(key.fallback_env.iter().copied());
    let variables: Vec<String> = own.map(|name| format!("`{name}`")).collect();
    write(
        out,
        format_args!(
            "| `{}`{} | {} | {} | {} | {} | {} |\n",
            key.path,
            if key.source == Source::Ours {
                " \u{2020}"
            } else {
                ""
            },
            escaped(&key.kind.wanted()),
            escaped(&default(key)),
            if variables.is_empty() {
                "–".to_owned()
            } else {
                variables.join(" ")
            },
            on_reload,
            escaped(&meaning(key)),
        ),
    );
}

fn is_general(name: &str, key: &Key) -> bool {
    !key.env.contains(&name)
}

fn default(key: &Key) -> String {
    let mut words = Vec::new();
    match key.default {
        Some("") => words.push("empty".to_owned()),
        Some(text) => words.push(format!("`{text}`")),
        None if key.required => words.push("required".to_owned()),
        None => {}
    }
    words.extend(key.inherits.map(|path| format!("`{path}`")));
    words.extend(key.derived.map(str::to_owned));
    words.extend(
        key.upstream
            .map(|text| format!("`{text}` with `limits_mode = \"upstream\"`")),
    );
    words.extend(
        key.env_app
            .map(|text| format!("`{text}` for the app of variables")),
    );
    if words.is_empty() {
        "unset".to_owned()
    } else {
        words.join("; ")
    }
}

fn meaning(key: &Key) -> String {
    let mut text = key.doc.to_owned();
    if let Status::NoEffect(why) = key.status {
        text.push_str(&format!(" *No effect: {why}.*"));
    }
    let later = later_values(key);
    if !later.is_empty() {
        let values: Vec<String> = later.iter().map(|value| format!("`{value}`")).collect();
        text.push_str(&format!(" *Not in this release: {}.*", values.join(", ")));
    }
    text
}

fn other_names(out: &mut String) {
    out.push_str("\n## Other names in a file\n\n| name | stands for |\n|---|---|\n");
    for alias in SERVER.aliases {
        stands_for(&Some(alias.path), alias, out);
    }
    out.push_str("\n## Variables that are translated\n\n| variable | sets |\n|---|---|\n");
    for translation in TRANSLATIONS {
        stands_for(&translation.variable(), translation, out);
    }
    of_soketi(out);
    out.push_str("\n## Variables without effect\n\nA warning names them when they are set.\n\n");
    out.push_str("| variable | why |\n|---|---|\n");
    for (name, why) in UNUSED {
        write(out, format_args!("| `{name}` | {why} |\n"));
    }
    out.push_str("\n## Names of later Sockudo versions\n\nKnown, warned about, without effect:\n");
    let later = SERVER.later.names();
    let later: Vec<String> = later.map(|name| format!("`{name}`")).collect();
    write(out, format_args!("{}.\n", later.join(", ")));
}

fn stands_for(name: &Option<impl std::fmt::Display>, other: &OtherName, out: &mut String) {
    if let (Some(name), Meaning::Key { to, .. }) = (name, other.meaning) {
        write(out, format_args!("| `{name}` | `{to}` |\n"));
    }
}

fn of_soketi(out: &mut String) {
    out.push_str(SOKETI_HEAD);
    for row in SERVER.soketi {
        let path = match row.path {
            "" => "as ours".to_owned(),
            _ => format!("`{}`", row.spelled()),
        };
        let variable = row.variable();
        let variable = variable.map_or_else(|| "–".to_owned(), |name| format!("`{name}`"));
        let meaning = match row.meaning {
            Meaning::Key { to, .. } => format!("`{to}`"),
            Meaning::NoEffect(why) => format!("*no effect: {why}*"),
        };
        write(out, format_args!("| {path} | {variable} | {meaning} |\n"));
    }
    for (name, key) in SOKETI_APP {
        let variable = format!("`{SOKETI_PREFIX}DEFAULT_APP_{name}`");
        write(
            out,
            format_args!("| as ours | {variable} | the app's `{key}` |\n"),
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
}

/// A reload replaces the list of apps as a whole.
const WITH_ITS_APP: &str = "with its app";

const COLUMNS: &str = "| key | value | default | variables | on reload | meaning |\n\
                       |---|---|---|---|---|---|\n";

const HEAD: &str = "\
# Configuration reference

Every key, what it may be, its default, and what sets it. This page is written from the table in \
`src/config/sections/` by `sockudo config reference`; a test compares the two.

Sources, lowest to highest: defaults; one file (`--config`, else `SOCKUDO_CONFIG` or `CONFIG_FILE`, \
else the first of `config/config.toml`, `config/config.json`, `/etc/sockudo/sockudo.toml`, \
`/etc/sockudo/config.json`); the `--env-file`; the environment; flags of `serve`. \
`sockudo config show --origin` says where each value came from.

- A file is JSON (no comments) or TOML. Names are `snake_case`; `camelCase` is accepted.
- Numbers and booleans may be texts. Booleans: `true 1 yes on`, `false 0 no off`.
- `${VAR}` and `${VAR:-default}` are replaced in a file's texts.
- Every key has two more variables: `SOCKUDO_` and the path in capitals, with `_` \
(`SOCKUDO_NET_SEND_QUEUE_BYTES`) or `__` (`SOCKUDO__NET__SEND_QUEUE_BYTES`) between levels. \
In a variable a list's elements stand between commas.
- An empty variable counts as unset where the key is optional or an app's, \
or where it ranks below the file, and is an error elsewhere.
- An unknown key is an error; `--lenient-config` makes it a warning.
- \u{2020} marks keys that Sockudo 2.9 does not have. A variable in *variables* wins over those \
before it in the cell; `REDIS_PASSWORD`, `AWS_REGION`, `AWS_PROFILE`, `CLUSTER_NODE_TIMEOUT`, \
`CLUSTER_HELLO_INTERVAL` rank below the file.
";

const SOKETI_HEAD: &str = "
## Soketi's names

Its files are read as they are, in camelCase, nested or as flat names; its variables rank below ours \
and above the file. These differ from our own keys in name, unit or value:

- `userAuthenticationTimeout`, `shutdownGracePeriod`, `SOKETI_USER_AUTHENTICATION_TIMEOUT`, \
`SOKETI_SHUTDOWN_GRACE_PERIOD` and `pollingWaitTimeMs` are milliseconds; the keys are seconds, rounded \
up. In `snake_case` they are our keys, in seconds.
- `appManager.cache.ttl` = -1, for ever, is a day. `rateLimiter.driver` = `local` is `memory`. `mode` = \
`full`, `server` or `worker` does not touch our `mode`. A number as `instance.process_id` is not used.
- A certificate or key under `ssl.certPath`, `ssl.keyPath` turns `ssl.enabled` on.
- `redisOptions` and its like become a URL from `host`, `port`, `username`, `password`, `db` and `tls`.
- `SOKETI_DEFAULT_APP_ID`, `_KEY` and `_SECRET` make an app whose other limits are those of an app in a file.

| in a file | variable | becomes |
|---|---|---|
";

const APP_HEAD: &str = "
## An app

Members of `app_manager.array.apps[]`. Each also has the variable `SOCKUDO_DEFAULT_APP_` and its name \
in capitals; where `_ID`, `_KEY` and `_SECRET` are set, they make one more app, or change the file's \
app of that id. Members may be nested under `policy.limits`, `policy.features`, `policy.channels`.

| key | value | default | variables | on reload | meaning |
|---|---|---|---|---|---|
";

const WEBHOOK_HEAD: &str = "
## A webhook

Members of an app's `webhooks[]`. Soketi's `filter.channel_name_starts_with` and \
`filter.channel_name_ends_with` are accepted.

| key | value | default | variables | on reload | meaning |
|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == markdown(),
            "{path} is out of date; write it with \
             `cargo run --release -- config reference > docs/configuration.md`"
        );
    }
}
