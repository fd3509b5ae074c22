//! Laravel Reverb: `config/reverb.php`, and the variables that it reads.
//!
//! Owns: one row per name of Reverb, with the key here or the reason why there is none.
//! May depend on: `php`, `written`.
//! Invariants: every value of the file is carried, listed as left, or asks for what happens anyway.

use super::php::{self, Item, Php};
use super::written::{self, Form, form_of, lines, source};
use super::{Draft, Given, Left, Text, Why, is_harmless, refusal, speakable};
use crate::config::error::{ConfigError, Fault};
use crate::config::tree::{Member, Node, Value};

/// The file that Reverb installs, without its words: which variable each value is read from.
const STOCK: &str = "return [
    'default' => env('REVERB_SERVER', 'reverb'),
    'servers' => ['reverb' => [
        'host' => env('REVERB_SERVER_HOST', '0.0.0.0'),
        'port' => env('REVERB_SERVER_PORT', 8080),
        'path' => env('REVERB_SERVER_PATH', ''),
        'hostname' => env('REVERB_HOST'),
        'options' => ['tls' => []],
        'max_request_size' => env('REVERB_MAX_REQUEST_SIZE', 10000),
        'scaling' => [
            'enabled' => env('REVERB_SCALING_ENABLED', false),
            'channel' => env('REVERB_SCALING_CHANNEL', 'reverb'),
            'server' => [
                'url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'),
                'port' => env('REDIS_PORT', '6379'), 'username' => env('REDIS_USERNAME'),
                'password' => env('REDIS_PASSWORD'), 'database' => env('REDIS_DB', '0'),
                'timeout' => env('REDIS_TIMEOUT', 60),
            ],
        ],
        'pulse_ingest_interval' => env('REVERB_PULSE_INGEST_INTERVAL', 15),
        'telescope_ingest_interval' => env('REVERB_TELESCOPE_INGEST_INTERVAL', 15),
    ]],
    'apps' => ['provider' => 'config', 'apps' => [[
        'key' => env('REVERB_APP_KEY'), 'secret' => env('REVERB_APP_SECRET'),
        'app_id' => env('REVERB_APP_ID'),
        'options' => ['host' => env('REVERB_HOST'), 'port' => env('REVERB_PORT', 443),
            'scheme' => env('REVERB_SCHEME', 'https')],
        'allowed_origins' => ['*'],
        'ping_interval' => env('REVERB_APP_PING_INTERVAL', 60),
        'activity_timeout' => env('REVERB_APP_ACTIVITY_TIMEOUT', 30),
        'max_connections' => env('REVERB_APP_MAX_CONNECTIONS'),
        'max_message_size' => env('REVERB_APP_MAX_MESSAGE_SIZE', 10000),
        'accept_client_events_from' => env('REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM', 'members'),
        'rate_limiting' => ['enabled' => env('REVERB_APP_RATE_LIMITING_ENABLED', false),
            'max_attempts' => env('REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS', 60),
            'decay_seconds' => env('REVERB_APP_RATE_LIMIT_DECAY_SECONDS', 60),
            'terminate_on_limit' => env('REVERB_APP_RATE_LIMIT_TERMINATE', false)],
    ]]],
];";

/// Of a server: a name, the key here, and how the value becomes the key's.
type Row = (&'static str, &'static str, fn(&Item) -> Option<Value>);

const SERVER_ROWS: &[Row] = &[
    ("host", "host", plain),
    ("port", "port", plain),
    ("path", "path_prefix", plain),
    (
        "max_request_size",
        "http_api.request_limit_in_mb",
        mebibytes,
    ),
];

const REDIS_ROWS: &[Row] = &[
    ("host", "database.redis.host", plain),
    ("port", "database.redis.port", plain),
    ("username", "database.redis.username", plain),
    ("password", "database.redis.password", plain),
    ("database", "database.redis.db", plain),
];

const APP_ROWS: &[Row] = &[
    ("app_id", "id", plain),
    ("id", "id", plain),
    ("key", "key", plain),
    ("secret", "secret", plain),
    ("max_connections", "max_connections", plain),
];

/// Names without a key here: the value that asks for nothing, and what to do instead.
type Unknown = (&'static str, &'static str, &'static str);

const SERVER_LEFT: &[Unknown] = &[
    (
        "pulse_ingest_interval",
        "15",
        "Laravel Pulse is not fed; scrape the metrics port, or watch `sockudo top`",
    ),
    (
        "telescope_ingest_interval",
        "15",
        "Laravel Telescope is not fed; look at the server's log",
    ),
];

const REDIS_LEFT: &[Unknown] = &[(
    "timeout",
    "60",
    "a lost connection to Redis is made again for as long as it takes",
)];

const APP_LEFT: &[Unknown] = &[(
    "ping_interval",
    "60",
    "a silent connection is pinged after activity_timeout, which holds for all apps",
)];

/// Names that mean something elsewhere in this file, or to Laravel alone.
const SERVER_KNOWN: &[&str] = &["hostname", "options", "scaling"];
const APP_KNOWN: &[&str] = &[
    "options",
    "name",
    "allowed_origins",
    "activity_timeout",
    "max_message_size",
    "accept_client_events_from",
    "rate_limiting",
];

fn plain(item: &Item) -> Option<Value> {
    item.node().map(|node| node.value)
}

fn mebibytes(item: &Item) -> Option<Value> {
    let bytes: u64 = item.word()?.parse().ok()?;
    Some(Value::Number(bytes.div_ceil(1 << 20).max(1).to_string()))
}

pub(super) fn draft(given: Given<'_>) -> Result<Draft, ConfigError> {
    let (file, env) = match given.file {
        Some(file) if form_of(file.text) == Form::Variables => (None, Some(file)),
        file => (file, given.variables),
    };
    let env_lines = match env {
        Some(env) => lines(env, is_reverbs)?,
        None => Vec::new(),
    };
    let named = file.or(env).unwrap_or(Text { name: "", text: "" });
    let text = file.map_or(STOCK, |file| file.text);
    let read = php::read(text, &env_lines, file.is_none()).map_err(|(line, message)| {
        let format = "PHP that can be read without running it";
        refusal(
            &source(named).at_line(line),
            Fault::Syntax { format, message },
        )
    })?;
    if file.is_none()
        && !env_lines
            .iter()
            .any(|line| line.name.starts_with("REVERB_"))
    {
        let fault = written::not("it holds no variable of Reverb");
        return Err(refusal(&source(named), fault));
    }
    let mut carrying = Carrying {
        draft: Draft::new(source(named)),
        name: named.name,
        is_stock: file.is_none(),
    };
    carrying.whole(&read.array);
    for line in env_lines
        .iter()
        .filter(|line| line.name.starts_with("REVERB_"))
    {
        if !read.asked.contains(&line.name) && !LARAVELS.contains(&line.name.as_str()) {
            let what = match file {
                Some(_) => "nothing in the file reads it",
                None => "Reverb's own file does not read it; name your config/reverb.php too",
            };
            let env_name = env.map_or("", |env| env.name);
            carrying.draft.left.push(Left {
                place: Some(format!("{env_name}:{}: {}", line.line, line.name)),
                name: String::new(),
                value: speakable(&line.name, &line.value).filter(|it| is_harmless(it)),
                what: what.to_owned(),
                why: Why::NoPlace,
            });
        }
    }
    carrying.draft.notes.push(AT_THE_CLIENTS.to_owned());
    Ok(carrying.draft)
}

fn is_reverbs(name: &str) -> bool {
    name.starts_with("REVERB_") || name.starts_with("REDIS_")
}

/// Where Laravel and its browsers find the server: nothing to carry.
const LARAVELS: [&str; 3] = ["REVERB_HOST", "REVERB_PORT", "REVERB_SCHEME"];

const AT_THE_CLIENTS: &str = "in Laravel: REVERB_HOST, REVERB_PORT, REVERB_SCHEME and their VITE_ \
    twins stay and name this server, BROADCAST_CONNECTION stays reverb; stop `artisan reverb:start`";

struct Carrying<'a> {
    draft: Draft,
    name: &'a str,
    is_stock: bool,
}

impl Carrying<'_> {
    fn whole(&mut self, config: &Item) {
        let default = config.at("default").and_then(Item::word);
        let default = default.unwrap_or_else(|| "reverb".to_owned());
        if let Some(servers) = config.at("servers") {
            match servers.at(&default) {
                Some(server) => self.server(server),
                None => self.leave(
                    &format!("servers.{default}"),
                    servers,
                    "there is no such server in the file",
                ),
            }
            for (name, other) in servers.elements() {
                if name.as_deref() != Some(&default) {
                    let path = format!("servers.{}", name.as_deref().unwrap_or("?"));
                    self.leave(
                        &path,
                        other,
                        "one file configures one server: run `migrate-from` for each",
                    );
                }
            }
        }
        let Some(apps) = config.at("apps") else {
            return;
        };
        let of_others = |provider: &&Item| provider.word().as_deref() != Some("config");
        if let Some(provider) = apps.at("provider").filter(of_others) {
            let what = "apps of a provider of your own: add them with `sockudo apps add`";
            self.leave("apps.provider", provider, what);
        }
        if let Some(list) = apps.at("apps") {
            self.apps(list);
        }
    }

    fn server(&mut self, server: &Item) {
        let at = "servers.reverb";
        self.rows(SERVER_ROWS, server, at);
        self.unknown(SERVER_LEFT, server, at);
        let known = SERVER_ROWS.iter().map(|row| row.0);
        let known = known.chain(SERVER_LEFT.iter().map(|row| row.0));
        self.strangers(
            server,
            at,
            &known
                .chain(SERVER_KNOWN.iter().copied())
                .collect::<Vec<_>>(),
        );
        if let Some(options) = server.at("options") {
            for (name, option) in options.elements() {
                let is_tls = name.as_deref() == Some("tls");
                if is_tls
                    && option
                        .elements()
                        .iter()
                        .all(|(_, it)| it.value == Php::Null)
                    && option.value != Php::Expression
                {
                    continue;
                }
                let path = format!("{at}.options.{}", name.as_deref().unwrap_or("?"));
                let what = match is_tls {
                    true => {
                        "write the PEM files into ssl.cert_path and ssl.key_path, and ssl.enabled = true"
                    }
                    false => "an option of PHP's sockets",
                };
                self.leave(&path, option, what);
            }
        }
        if let Some(scaling) = server.at("scaling") {
            self.scaling(scaling, &format!("{at}.scaling"));
        }
    }

    fn scaling(&mut self, scaling: &Item, at: &str) {
        let Some(enabled) = scaling.at("enabled") else {
            return;
        };
        if enabled.value == Php::Expression {
            return self.leave(&format!("{at}.enabled"), enabled, EXPRESSION);
        }
        if !enabled.is_true() {
            return;
        }
        let driver = Value::Text("redis".to_owned());
        self.set("adapter.driver", Node::new(driver, enabled.line));
        if let Some(node) = scaling.at("channel").and_then(Item::node) {
            self.set("adapter.redis.prefix", node);
        }
        let Some(server) = scaling.at("server") else {
            return;
        };
        let at = format!("{at}.server");
        match server.at("url").and_then(Item::node) {
            Some(url) if url.value != Value::Text(String::new()) => {
                self.set("adapter.redis.redis_pub_options.url", url.clone());
                self.set("adapter.redis.redis_sub_options.url", url);
            }
            _ => self.rows(REDIS_ROWS, server, &at),
        }
        self.unknown(REDIS_LEFT, server, &at);
        let known: Vec<&str> = REDIS_ROWS
            .iter()
            .map(|row| row.0)
            .chain(["url", "timeout"])
            .collect();
        self.strangers(server, &at, &known);
    }

    fn apps(&mut self, list: &Item) {
        if list.value == Php::Expression {
            return self.leave("apps.apps", list, EXPRESSION);
        }
        let mut nodes = Vec::new();
        for (at, (_, app)) in list.elements().iter().enumerate() {
            let at = format!("apps.apps[{at}]");
            match app.value {
                Php::Array(_) => nodes.push(self.app(app, &at)),
                _ => self.leave(&at, app, EXPRESSION),
            }
        }
        self.shared(list, "activity_timeout", "activity_timeout", |timeouts| {
            timeouts.min()
        });
        self.shared(
            list,
            "max_message_size",
            "websocket.max_payload_kb",
            |sizes| sizes.max(),
        );
        self.set(
            "app_manager.array.apps",
            Node::new(Value::List(nodes), list.line),
        );
    }

    fn app(&mut self, app: &Item, at: &str) -> Node {
        let mut members = Vec::new();
        for (name, key, convert) in APP_ROWS {
            let Some(item) = app.at(name) else { continue };
            match (&item.value, convert(item)) {
                (Php::Null, _) if item.variable.is_some() && *key != "max_connections" => {
                    let variable = item.variable.as_deref().unwrap_or_default();
                    let what = format!("{variable} is not set; name the .env with --env");
                    self.leave(&format!("{at}.{name}"), item, &what);
                }
                (Php::Expression, _) => self.leave(&format!("{at}.{name}"), item, EXPRESSION),
                (_, Some(value)) => members.push(member(key, Node::new(value, item.line))),
                (_, None) => {}
            }
        }
        self.unknown(APP_LEFT, app, at);
        let known = APP_ROWS
            .iter()
            .map(|row| row.0)
            .chain(APP_LEFT.iter().map(|row| row.0));
        self.strangers(
            app,
            at,
            &known.chain(APP_KNOWN.iter().copied()).collect::<Vec<_>>(),
        );
        self.origins(app, at, &mut members);
        self.client_events(app, at, &mut members);
        Node::new(Value::Object(members), app.line)
    }

    /// Reverb compares the host alone, whatever the port; here a pattern says both.
    fn origins(&mut self, app: &Item, at: &str, members: &mut Vec<Member>) {
        let Some(origins) = app.at("allowed_origins") else {
            return;
        };
        let path = format!("{at}.allowed_origins");
        let words: Option<Vec<String>> =
            origins.elements().iter().map(|(_, it)| it.word()).collect();
        let words = words.filter(|_| matches!(origins.value, Php::Array(_)));
        let Some(words) = words else {
            let what = format!(
                "{EXPRESSION}; the app is written disabled, so that it is not open to every origin"
            );
            members.push(member(
                "enabled",
                Node::new(Value::Flag(false), origins.line),
            ));
            return self.leave(&path, origins, &what);
        };
        if words.iter().any(|word| word == "*") {
            return;
        }
        let mut patterns = Vec::new();
        for word in words.iter().filter(|word| !word.is_empty()) {
            patterns.push(Node::new(Value::Text(word.clone()), origins.line));
            if !word.contains([':', '*']) {
                self.draft.notes.push(format!(
                    "{path}: {word} is the host on its usual port here; add {word}:PORT for another"
                ));
            }
        }
        if patterns.is_empty() {
            // Nothing is allowed there; an empty list here would allow everything.
            members.push(member(
                "enabled",
                Node::new(Value::Flag(false), origins.line),
            ));
            self.draft.notes.push(format!(
                "{path}: no origin at all could connect: the app is written disabled"
            ));
            return;
        }
        members.push(member(
            "allowed_origins",
            Node::new(Value::List(patterns), origins.line),
        ));
    }

    fn client_events(&mut self, app: &Item, at: &str, members: &mut Vec<Member>) {
        let from = app.at("accept_client_events_from");
        let path = format!("{at}.accept_client_events_from");
        // A file without the line is older than it: anybody could send.
        let word = from.map_or_else(|| Some("all".to_owned()), Item::word);
        let line = from.map_or(app.line, |it| it.line);
        let is_on = match word.as_deref() {
            Some("none") => false,
            Some("members") => true,
            Some("all") => {
                self.draft.notes.push(format!("{path} = all: members only, on private and presence channels, as in the protocol"));
                true
            }
            _ => {
                if let Some(from) = from {
                    let wanted = "all, members or none is known; written as none";
                    self.refuse(&path, from, wanted);
                }
                false
            }
        };
        members.push(member(
            "enable_client_messages",
            Node::new(Value::Flag(is_on), line),
        ));
        let rate = self.rate(app, at);
        members.push(member(
            "max_client_events_per_second",
            Node::new(Value::Number(rate.to_string()), line),
        ));
    }

    /// Messages in so many seconds, as client events per second; 0 = any rate.
    fn rate(&mut self, app: &Item, at: &str) -> u64 {
        let Some(limit) = app
            .at("rate_limiting")
            .filter(|it| it.at("enabled").is_some_and(Item::is_true))
        else {
            return 0;
        };
        let [attempts, seconds] = ["max_attempts", "decay_seconds"].map(|name| {
            let Some(item) = limit.at(name).filter(|it| it.value != Php::Null) else {
                return RATE_USUAL;
            };
            let number: Option<u64> = item.word().and_then(|word| word.parse().ok());
            if number.is_none() {
                let path = format!("{at}.rate_limiting.{name}");
                let wanted = format!("a whole number is wanted; {RATE_USUAL} is taken");
                self.refuse(&path, item, &wanted);
            }
            number.unwrap_or(RATE_USUAL).max(1)
        });
        let rate = attempts.div_ceil(seconds);
        self.draft.notes.push(format!(
            "{at}.rate_limiting: {attempts} messages in {seconds} s become {rate} client events per second; \
             subscribes have net.subscribe_rate_per_s"
        ));
        if let Some(terminate) = limit.at("terminate_on_limit").filter(|it| it.is_true()) {
            self.leave(
                &format!("{at}.rate_limiting.terminate_on_limit"),
                terminate,
                "beyond the rate a client gets an error (4301) and stays connected",
            );
        }
        rate
    }

    /// What each app has there and the whole server has here.
    fn shared(
        &mut self,
        apps: &Item,
        name: &str,
        key: &'static str,
        choose: fn(std::vec::IntoIter<u64>) -> Option<u64>,
    ) {
        let items: Vec<&Item> = apps
            .elements()
            .iter()
            .filter_map(|(_, app)| app.at(name))
            .collect();
        let numbers: Vec<u64> = items
            .iter()
            .filter_map(|item| item.word()?.parse().ok())
            .collect();
        let Some(chosen) = choose(numbers.into_iter()) else {
            for item in items.iter().filter(|item| item.value != Php::Null) {
                self.refuse(&format!("apps.apps[].{name}"), item, WHOLE_WANTED);
            }
            return;
        };
        let line = items.first().map_or(apps.line, |item| item.line);
        let value = match key {
            "websocket.max_payload_kb" => crate::config::kind::kilobytes(chosen),
            _ => chosen.to_string(),
        };
        self.set(key, Node::new(Value::Number(value), line));
        for item in items.iter().filter(|item| item.value != Php::Null) {
            let path = format!("apps.apps[].{name}");
            match item.word().and_then(|word| word.parse::<u64>().ok()) {
                None => self.refuse(&path, item, WHOLE_WANTED),
                Some(number) if number == chosen => {}
                Some(_) => {
                    let what = format!("{key} holds for all apps: {chosen} is written");
                    self.leave(&path, item, &what);
                }
            }
        }
    }

    fn rows(&mut self, rows: &[Row], of: &Item, at: &str) {
        for (name, key, convert) in rows {
            let Some(item) = of.at(name) else { continue };
            match convert(item) {
                Some(value) => self.set(key, Node::new(value, item.line)),
                None if item.value == Php::Null => {}
                None => self.refuse(
                    &format!("{at}.{name}"),
                    item,
                    "a whole number of bytes is wanted",
                ),
            }
        }
    }

    fn unknown(&mut self, rows: &[Unknown], of: &Item, at: &str) {
        for (name, usual, what) in rows {
            let asks = |it: &&Item| it.value != Php::Null && it.word().as_deref() != Some(*usual);
            if let Some(item) = of.at(name).filter(asks) {
                self.leave(&format!("{at}.{name}"), item, what);
            }
        }
    }

    fn strangers(&mut self, of: &Item, at: &str, known: &[&str]) {
        for (name, item) in of.elements() {
            let name = name.as_deref().unwrap_or("?");
            if !known.contains(&name) {
                let what = "not a name of Reverb's that is known here";
                self.leave(&format!("{at}.{name}"), item, what);
                // Nobody knows what it holds.
                let last = self.draft.left.last_mut();
                if let Some(value) = last.map(|left| &mut left.value) {
                    value.take_if(|it| !is_harmless(it));
                }
            }
        }
    }

    fn set(&mut self, key: &str, node: Node) {
        self.draft.members.push(member(key, node));
    }

    /// A value that nobody can read.
    fn refuse(&mut self, path: &str, item: &Item, wanted: &str) {
        if item.value == Php::Expression {
            return self.leave(path, item, EXPRESSION);
        }
        self.leave(path, item, wanted);
        if let Some(left) = self.draft.left.last_mut() {
            left.why = Why::Wrong;
        }
    }

    fn leave(&mut self, path: &str, item: &Item, what: &str) {
        let name = match (&item.variable, self.is_stock) {
            (Some(variable), true) => variable.clone(),
            _ => path.to_owned(),
        };
        let variable = item.variable.as_deref().unwrap_or_default();
        let value = item.word().and_then(|value| speakable(path, &value));
        self.draft.left.push(Left {
            place: Some(format!("{}:{}", self.name, item.line)),
            value: value.and_then(|value| speakable(variable, &value)),
            name,
            what: what.to_owned(),
            why: Why::NoPlace,
        });
    }
}

fn member(name: &str, node: Node) -> Member {
    Member {
        name: name.to_owned(),
        line: node.line,
        node,
    }
}

const WHOLE_WANTED: &str = "a whole number is wanted";
/// Attempts, and seconds, where the file says neither.
const RATE_USUAL: u64 = 60;
const EXPRESSION: &str = "an expression that only PHP can evaluate: write its value there, or set the key in the new file";
