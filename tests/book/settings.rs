//! What stands ready before a page begins: the one place where pages and their settings are bound.

use std::path::Path;

pub(crate) struct Setting {
    /// Programs without which the page is skipped, beside those that every page needs.
    tools: &'static [&'static str],
    /// Commands that the page does not show.
    pub(crate) before: &'static str,
}

const NOTHING: Setting = Setting {
    tools: &[],
    before: "",
};

/// A node of a cluster of one, as the package and systemd would run it.
const A_NODE: Setting = Setting {
    tools: &["redis-server"],
    before: r#"
redis-server --save '' --dir "$TMPDIR" >"$STAGE/redis.log" &
cat >/etc/sockudo/sockudo.toml <<'END'
[adapter]
driver = "redis"
[cluster]
name = "shop"
node_id = "shop-1"
secret = "one of the book"
[[app_manager.array.apps]]
id = "shop"
key = "shop-key"
secret = "shop-secret"
END
sockudo >"$STAGE/node.log" 2>&1 &
stays "$STAGE/node.log"
"#,
};

/// The Redis that is to be replaced, by its name.
const AN_OLD_REDIS: Setting = Setting {
    tools: &["redis-server", "redis-cli"],
    before: r#"
for host in 5 6; do ip address add 10.0.0.$host/32 dev lo; done
echo '10.0.0.5 redis.internal' >>/etc/hosts
redis-server --bind 10.0.0.5 --protected-mode no --save '' --dir "$TMPDIR" >"$STAGE/redis.log" &
until redis-cli -h 10.0.0.5 ping; do sleep 0.1; done
"#,
};

pub(crate) fn of(path: &str) -> Setting {
    match path {
        "docs/playbooks/alerts.md" => A_NODE,
        "docs/index.md" | "docs/playbooks/restart.md" => Setting {
            tools: &["redis-server"],
            ..NOTHING
        },
        "docs/playbooks/add-a-node.md" => Setting {
            tools: &["redis-server", "redis-cli", "haproxy"],
            before: "for host in 1 5 11 12; do ip address add 10.0.0.$host/32 dev lo; done",
        },
        "docs/playbooks/replace-redis.md" => AN_OLD_REDIS,
        _ => NOTHING,
    }
}

impl Setting {
    /// The first tool that is not there.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let always = ["bash", "unshare", "ip", "curl", "openssl", "pgrep"];
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let is_there = |tool: &str| {
            path.split(':')
                .any(|folder| Path::new(folder).join(tool).exists())
        };
        let mut all = always.iter().chain(self.tools);
        all.find(|tool| !is_there(tool)).copied()
    }
}
