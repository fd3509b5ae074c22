//! A server's configuration, from a base that fits tests.

use serde_json::{Value, json};

pub(crate) const APP_ID: &str = "app-id";
pub(crate) const KEY: &str = "app-key";
pub(crate) const SECRET: &str = "app-secret";

/// A configuration under construction. Addresses and ports are added when the server starts.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) json: Value,
    /// Variables of the process.
    pub(crate) environment: Vec<(String, String)>,
    /// Where the log goes, if not to the server's own file.
    pub(crate) log: Option<&'static str>,
}

impl Config {
    /// One app with client events on and limits as the wire contract's defaults, all said explicitly.
    pub(crate) fn new() -> Self {
        let json = json!({
            "pin": false,
            "queue": {"driver": "memory"},
            "rate_limiter": {"enabled": false},
            "webhooks": {"batching": {"enabled": true, "duration": 50}},
            "channel_limits": {"max_name_length": 200, "cache_ttl": 1800},
            "presence": {"max_members_per_channel": 100, "max_member_size_in_kb": 1},
            "drain": {"deadline_s": 5},
            "app_manager": {"driver": "memory", "array": {"apps": [app(APP_ID, KEY, SECRET)]}},
        });
        Self {
            json,
            environment: Vec::new(),
            log: None,
        }
    }

    /// No byte of the log finds room.
    pub(crate) fn with_a_full_disk(mut self) -> Self {
        self.log = Some("/dev/full");
        self
    }

    pub(crate) fn with_environment(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
        self
    }

    /// Merges keys into the top level, objects deeply.
    pub(crate) fn with(mut self, keys: Value) -> Self {
        merge(&mut self.json, keys);
        self
    }

    /// Merges keys into the first app.
    pub(crate) fn with_app(mut self, keys: Value) -> Self {
        merge(&mut self.json["app_manager"]["array"]["apps"][0], keys);
        self
    }

    /// Adds an app with an id, key and secret made from its name, plus the given keys.
    pub(crate) fn and_app(mut self, name: &str, keys: Value) -> Self {
        let mut more = app(
            &format!("{name}-id"),
            &format!("{name}-key"),
            &format!("{name}-secret"),
        );
        merge(&mut more, keys);
        let apps = &mut self.json["app_manager"]["array"]["apps"];
        apps.as_array_mut().expect("apps is a list").push(more);
        self
    }

    /// Lets users sign in, with watchlists.
    pub(crate) fn with_users(self) -> Self {
        self.with_app(json!({"enable_user_authentication": true, "enable_watchlist_events": true}))
    }
}

fn app(id: &str, key: &str, secret: &str) -> Value {
    json!({
        "id": id, "key": key, "secret": secret, "enabled": true, "max_connections": 0,
        "enable_client_messages": true, "max_client_events_per_second": 10,
    })
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
