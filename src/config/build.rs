//! From settled settings to the records of `Config`.
//!
//! Owns: which key fills which field, and units.
//! May depend on: `settings`, `sections`, `backends`, `app`.
//! Invariants: runs only after every check passed, so what does not fit here is our bug.

use super::app::{App, EventType, Webhook, WebhookFilter, WebhookTarget};
use super::backends::{
    Adapter, AdapterCluster, AdapterDriver, AdapterNats, AdapterRedis, Cache, CacheDriver,
    CacheMemory, Database, DatabasePooling, Dynamodb, DynamodbLayout, NatsTls, Queue, QueueDriver,
    QueueRedis, QueueRedisCluster, Redis, RedisComponent, Scylladb, Sql, Sqs,
};
use super::checks::APPS;
use super::sections::{
    Admission, AppManager, AppManagerDriver, ChannelLimits, Cluster, Cors, CorsOrigin, Drain,
    HttpApi, LimitsMode, LogFormat, Logging, Metrics, Net, OnError, RateLimit, RateLimiter,
    RateLimiterDriver, Replication, Retry, Seed, SlowConsumer, Ssl, Targets, UnixSocket, Webhooks,
    Websocket,
};
use super::settings::Settings;
use super::{Config, Secret};

pub(super) fn config(s: &Settings, demo: bool) -> Config {
    Config {
        demo,
        debug: s.flag("debug"),
        host: hosts(s.text("host")),
        port: s.u16("port"),
        mode: s.text("mode").to_owned(),
        path_prefix: path_prefix(s.text("path_prefix")),
        activity_timeout_s: s.u64("activity_timeout"),
        user_authentication_timeout_s: s.u64("user_authentication_timeout"),
        health_check_timeout_ms: s.u64("health_check_timeout_ms"),
        limits_mode: chosen(
            s,
            "limits_mode",
            &[
                ("pusher", LimitsMode::Pusher),
                ("upstream", LimitsMode::Upstream),
            ],
        ),
        shards: s.optional_u16("shards"),
        bridge_core: s.optional_u16("bridge_core"),
        pin: s.flag("pin"),
        websocket: Websocket {
            max_payload_bytes: s.u32("websocket.max_payload_kb"),
            require_protocol: s.flag("websocket.require_protocol"),
        },
        net: net(s),
        admission: Admission {
            accept_rate_per_s: s.u32("admission.accept_rate_per_s"),
            accept_burst: s.u32("admission.accept_burst"),
            max_connections: s.u64("admission.max_connections"),
        },
        drain: Drain {
            deadline_s: s.u32("drain.deadline_s"),
            rate_per_s: s.u32("drain.rate_per_s"),
            lb_wait_s: s.u32("drain.lb_wait_s"),
        },
        cluster: cluster(s),
        cors: cors(s),
        http_api: HttpApi {
            request_bytes_max: s.u64("http_api.request_limit_in_mb") << 20,
            memory_threshold: s.fraction("http_api.accept_traffic.memory_threshold"),
            usage_enabled: s.flag("http_api.usage_enabled"),
        },
        channel_limits: ChannelLimits {
            cache_ttl_s: s.u64("channel_limits.cache_ttl"),
        },
        metrics: metrics(s),
        webhooks: webhooks(s),
        rate_limiter: rate_limiter(s),
        logging: logging(s),
        ssl: ssl(s),
        unix_socket: UnixSocket {
            enabled: s.flag("unix_socket.enabled"),
            path: s.text("unix_socket.path").to_owned(),
            permission_mode: s.mode("unix_socket.permission_mode"),
            also_tcp: s.flag("unix_socket.also_tcp"),
        },
        app_manager: app_manager(s),
        adapter: adapter(s),
        cache: cache(s),
        queue: queue(s),
        database: database(s),
        database_pooling: DatabasePooling {
            enabled: s.flag("database_pooling.enabled"),
            min: s.u32("database_pooling.min"),
            max: s.u32("database_pooling.max"),
        },
    }
}

/// The value that stands for the chosen name.
fn chosen<T: Copy>(s: &Settings, path: &str, meanings: &[(&str, T)]) -> T {
    let name = s.text(path);
    let meaning = meanings.iter().find(|(meant, _)| *meant == name);
    meaning
        .unwrap_or_else(|| panic!("{path} = {name:?} has a meaning"))
        .1
}

fn hosts(text: &str) -> Vec<String> {
    let bare = |host: &str| {
        host.trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    text.split(',').map(bare).collect()
}

fn path_prefix(text: &str) -> String {
    match text.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

fn net(s: &Settings) -> Net {
    Net {
        send_queue_bytes: s.u32("net.send_queue_bytes"),
        slow_consumer: chosen(
            s,
            "net.slow_consumer",
            &[
                ("disconnect", SlowConsumer::Disconnect),
                ("drop_newest", SlowConsumer::DropNewest),
                ("drop_oldest", SlowConsumer::DropOldest),
            ],
        ),
        recv_buffers: s.optional_u32("net.recv_buffers"),
        recv_buffer_bytes: s.u32("net.recv_buffer_bytes"),
        busy_poll_us: s.u32("net.busy_poll_us"),
        backlog: s.u32("net.backlog"),
        handshake_timeout_ms: s.u32("net.handshake_timeout_ms"),
    }
}

fn cluster(s: &Settings) -> Cluster {
    Cluster {
        node_id: s.optional_text("cluster.node_id"),
        lease_ms: s.u32("cluster.lease_ms"),
        heartbeat_ms: s.u32("cluster.heartbeat_ms"),
        canary_ms: s.u32("cluster.canary_ms"),
        linger_ms: s.u32("cluster.linger_ms"),
        replication: chosen(
            s,
            "cluster.replication",
            &[("full", Replication::Full), ("owned", Replication::Owned)],
        ),
    }
}

fn cors(s: &Settings) -> Cors {
    let listed = s.texts("cors.origin");
    let is_any = listed
        .iter()
        .any(|origin| origin == "*" || origin.eq_ignore_ascii_case("any"));
    let origin = if is_any {
        CorsOrigin::Any
    } else {
        CorsOrigin::Listed(listed.to_vec())
    };
    Cors {
        credentials: s.flag("cors.credentials") && !is_any && !listed.is_empty(),
        origin,
        methods: s.texts("cors.methods").to_vec(),
        allowed_headers: s.texts("cors.allowed_headers").to_vec(),
    }
}

fn metrics(s: &Settings) -> Metrics {
    Metrics {
        enabled: s.flag("metrics.enabled"),
        host: s.text("metrics.host").to_owned(),
        port: s.u16("metrics.port"),
        prefix: s.text("metrics.prometheus.prefix").to_owned(),
        required: s.flag("metrics.required"),
        max_apps: s.u32("metrics.max_apps"),
    }
}

fn webhooks(s: &Settings) -> Webhooks {
    Webhooks {
        batching_enabled: s.flag("webhooks.batching.enabled"),
        batching_ms: s.u64("webhooks.batching.duration"),
        batching_size: s.u32("webhooks.batching.size"),
        grace_ms: s.u64("webhooks.grace_ms"),
        retry: Retry {
            attempts: s.u32("webhooks.retry.attempts"),
            backoff_ms: s.u64("webhooks.retry.backoff_ms"),
            backoff_max_ms: s.u64("webhooks.retry.backoff_max_ms"),
            max_age_s: s.u64("webhooks.retry.max_age_s"),
        },
        targets: Targets {
            deny: s.cidrs("webhooks.targets.deny"),
            allow: s.cidrs("webhooks.targets.allow"),
        },
    }
}

fn rate_limiter(s: &Settings) -> RateLimiter {
    let limit = |section: &str| RateLimit {
        max_requests: s.u32(&format!("rate_limiter.{section}.max_requests")),
        window_s: s.u64(&format!("rate_limiter.{section}.window_seconds")),
        trust_hops: s.u32(&format!("rate_limiter.{section}.trust_hops")),
    };
    let has_websocket = !s.is_null("rate_limiter.websocket_rate_limit.max_requests");
    let driver = chosen(
        s,
        "rate_limiter.driver",
        &[
            ("memory", RateLimiterDriver::Memory),
            ("redis", RateLimiterDriver::Redis),
            ("redis-cluster", RateLimiterDriver::RedisCluster),
            ("none", RateLimiterDriver::None),
        ],
    );
    RateLimiter {
        enabled: s.flag("rate_limiter.enabled") && driver != RateLimiterDriver::None,
        driver,
        api: limit("api_rate_limit"),
        websocket: has_websocket.then(|| limit("websocket_rate_limit")),
        trusted_proxies: s.cidrs("rate_limiter.trusted_proxies"),
        on_error: chosen(
            s,
            "rate_limiter.on_error",
            &[("deny", OnError::Deny), ("allow", OnError::Allow)],
        ),
        redis: redis_component(s, "rate_limiter.redis"),
    }
}

fn logging(s: &Settings) -> Logging {
    Logging {
        format: chosen(
            s,
            "logging.format",
            &[("human", LogFormat::Human), ("json", LogFormat::Json)],
        ),
        level: s.text("logging.level").to_owned(),
        colors_enabled: (!s.is_null("logging.colors_enabled"))
            .then(|| s.flag("logging.colors_enabled")),
        include_target: s.flag("logging.include_target"),
    }
}

fn ssl(s: &Settings) -> Ssl {
    Ssl {
        enabled: s.flag("ssl.enabled"),
        cert_path: s.text("ssl.cert_path").to_owned(),
        key_path: s.text("ssl.key_path").to_owned(),
        passphrase: s.optional_secret("ssl.passphrase"),
        ca_path: s.optional_text("ssl.ca_path"),
        redirect_http: s.flag("ssl.redirect_http"),
        http_port: s.optional_u16("ssl.http_port"),
    }
}

fn app_manager(s: &Settings) -> AppManager {
    AppManager {
        driver: chosen(
            s,
            "app_manager.driver",
            &[
                ("memory", AppManagerDriver::Memory),
                ("mysql", AppManagerDriver::Mysql),
                ("dynamodb", AppManagerDriver::Dynamodb),
                ("pgsql", AppManagerDriver::Pgsql),
                ("scylladb", AppManagerDriver::Scylladb),
            ],
        ),
        apps: s.records(APPS).iter().map(app).collect(),
        cache_enabled: s.flag("app_manager.cache.enabled"),
        cache_ttl_s: s.u64("app_manager.cache.ttl"),
        negative_ttl_s: s.u64("app_manager.negative_ttl"),
        seed: chosen(
            s,
            "app_manager.seed",
            &[
                ("never", Seed::Never),
                ("if_missing", Seed::IfMissing),
                ("overwrite", Seed::Overwrite),
            ],
        ),
        create_schema: s.flag("app_manager.create_schema"),
    }
}

fn app(s: &Settings) -> App {
    let secrets = s
        .optional_secret("secret")
        .into_iter()
        .chain(s.secrets("secrets"));
    let mut unique: Vec<Secret> = Vec::new();
    for secret in secrets {
        if !unique.contains(&secret) {
            unique.push(secret);
        }
    }
    let secrets = unique;
    assert!(
        !secrets.is_empty(),
        "the checks refuse an app without a secret"
    );
    App {
        id: s.text("id").to_owned(),
        key: s.text("key").to_owned(),
        secrets,
        enabled: s.flag("enabled"),
        max_connections: s.u64("max_connections"),
        enable_client_messages: s.flag("enable_client_messages"),
        max_client_events_per_second: s.u32("max_client_events_per_second"),
        max_backend_events_per_second: s.u32("max_backend_events_per_second"),
        max_read_requests_per_second: s.u32("max_read_requests_per_second"),
        max_presence_members_per_channel: s.u32("max_presence_members_per_channel"),
        presence_member_bytes_max: s.u32("max_presence_member_size_in_kb"),
        channel_name_bytes_max: s.u32("max_channel_name_length"),
        event_channels_max: s.u32("max_event_channels_at_once"),
        event_name_bytes_max: s.u32("max_event_name_length"),
        event_payload_bytes_max: s.u32("max_event_payload_in_kb"),
        event_batch_max: s.u32("max_event_batch_size"),
        subscriptions_per_connection_max: s.u32("max_subscriptions_per_connection"),
        enable_user_authentication: s.flag("enable_user_authentication"),
        enable_watchlist_events: s.flag("enable_watchlist_events"),
        enable_subscription_count: s.flag("enable_subscription_count"),
        require_tls: s.flag("require_tls"),
        webhooks: s.records("webhooks").iter().map(webhook).collect(),
        allowed_origins: s.texts("allowed_origins").to_vec(),
    }
}

fn webhook(s: &Settings) -> Webhook {
    let function = s.optional_text("lambda.function_name");
    let target = match (
        s.optional_secret("url"),
        function,
        s.optional_text("lambda_function"),
    ) {
        (Some(url), _, _) => WebhookTarget::Url(url),
        (None, Some(function_name), _) => {
            let region = s.optional_text("lambda.region");
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            WebhookTarget::Lambda {
                function_name,
                region,
            }
        }
        (None, None, Some(function_name)) => WebhookTarget::Lambda {
            function_name,
            region: "us-east-1".to_owned(),
        },
        (None, None, None) => unreachable!("the checks refuse a webhook without a target"),
    };
    let pattern = s.optional_text("filter.channel_pattern");
    let pattern = pattern.map(|pattern| {
        regex::Regex::new(&pattern).unwrap_or_else(|_| unreachable!("the shape was checked"))
    });
    Webhook {
        target,
        event_types: s
            .texts("event_types")
            .iter()
            .filter_map(|t| EventType::parse(t))
            .collect(),
        filter: WebhookFilter {
            prefix: s.optional_text("filter.channel_prefix"),
            suffix: s.optional_text("filter.channel_suffix"),
            pattern,
        },
        headers: s.headers("headers"),
    }
}

fn adapter(s: &Settings) -> Adapter {
    let sharded = "adapter.cluster.use_sharded_pubsub";
    Adapter {
        driver: chosen(
            s,
            "adapter.driver",
            &[
                ("local", AdapterDriver::Local),
                ("redis", AdapterDriver::Redis),
                ("redis-cluster", AdapterDriver::RedisCluster),
                ("nats", AdapterDriver::Nats),
            ],
        ),
        redis: AdapterRedis {
            requests_timeout_ms: s.u64("adapter.redis.requests_timeout"),
            prefix: s.text("adapter.redis.prefix").to_owned(),
            pub_url: s.optional_secret("adapter.redis.redis_pub_options.url"),
            sub_url: s.optional_secret("adapter.redis.redis_sub_options.url"),
        },
        cluster: AdapterCluster {
            nodes: s.secrets("adapter.cluster.nodes"),
            prefix: s.text("adapter.cluster.prefix").to_owned(),
            request_timeout_ms: s.u64("adapter.cluster.request_timeout_ms"),
            use_sharded_pubsub: (!s.is_null(sharded)).then(|| s.flag(sharded)),
        },
        nats: AdapterNats {
            servers: s.secrets("adapter.nats.servers"),
            prefix: s.text("adapter.nats.prefix").to_owned(),
            request_timeout_ms: s.u64("adapter.nats.request_timeout_ms"),
            connection_timeout_ms: s.u64("adapter.nats.connection_timeout_ms"),
            username: s.optional_text("adapter.nats.username"),
            password: s.optional_secret("adapter.nats.password"),
            token: s.optional_secret("adapter.nats.token"),
            creds_file: s.optional_text("adapter.nats.creds_file"),
            nkey_seed_file: s.optional_text("adapter.nats.nkey_seed_file"),
            tls: NatsTls {
                required: s.flag("adapter.nats.tls.required"),
                ca_path: s.optional_text("adapter.nats.tls.ca_path"),
                cert_path: s.optional_text("adapter.nats.tls.cert_path"),
                key_path: s.optional_text("adapter.nats.tls.key_path"),
            },
        },
    }
}

fn redis_component(s: &Settings, section: &str) -> RedisComponent {
    RedisComponent {
        prefix: s.text(&format!("{section}.prefix")).to_owned(),
        url_override: s.optional_secret(&format!("{section}.url_override")),
    }
}

fn cache(s: &Settings) -> Cache {
    Cache {
        driver: chosen(
            s,
            "cache.driver",
            &[
                ("memory", CacheDriver::Memory),
                ("redis", CacheDriver::Redis),
                ("redis-cluster", CacheDriver::RedisCluster),
                ("none", CacheDriver::None),
            ],
        ),
        redis: redis_component(s, "cache.redis"),
        memory: CacheMemory {
            ttl_s: s.u64("cache.memory.ttl"),
            max_capacity: s.u64("cache.memory.max_capacity"),
        },
    }
}

fn queue(s: &Settings) -> Queue {
    Queue {
        driver: chosen(
            s,
            "queue.driver",
            &[
                ("memory", QueueDriver::Memory),
                ("redis", QueueDriver::Redis),
                ("redis-cluster", QueueDriver::RedisCluster),
                ("sqs", QueueDriver::Sqs),
                ("none", QueueDriver::None),
            ],
        ),
        redis: QueueRedis {
            concurrency: s.u32("queue.redis.concurrency"),
            prefix: s.text("queue.redis.prefix").to_owned(),
            url_override: s.optional_secret("queue.redis.url_override"),
        },
        redis_cluster: QueueRedisCluster {
            concurrency: s.u32("queue.redis_cluster.concurrency"),
            prefix: s.text("queue.redis_cluster.prefix").to_owned(),
            nodes: s.secrets("queue.redis_cluster.nodes"),
            request_timeout_ms: s.u64("queue.redis_cluster.request_timeout_ms"),
        },
        sqs: Sqs {
            region: s.text("queue.sqs.region").to_owned(),
            queue_url_prefix: s.optional_text("queue.sqs.queue_url_prefix"),
            visibility_timeout_s: s.u32("queue.sqs.visibility_timeout"),
            endpoint_url: s.optional_text("queue.sqs.endpoint_url"),
            max_messages: s.u32("queue.sqs.max_messages"),
            wait_time_s: s.u32("queue.sqs.wait_time_seconds"),
            concurrency: s.u32("queue.sqs.concurrency"),
            fifo: s.flag("queue.sqs.fifo"),
            message_group_id: s.optional_text("queue.sqs.message_group_id"),
        },
    }
}

fn database(s: &Settings) -> Database {
    Database {
        redis: Redis {
            host: s.text("database.redis.host").to_owned(),
            port: s.u16("database.redis.port"),
            db: s.u32("database.redis.db"),
            username: s.optional_text("database.redis.username"),
            password: s.optional_secret("database.redis.password"),
            key_prefix: s.text("database.redis.key_prefix").to_owned(),
            sentinels: s.endpoints("database.redis.sentinels"),
            sentinel_password: s.optional_secret("database.redis.sentinel_password"),
            name: s.text("database.redis.name").to_owned(),
            cluster_nodes: s.endpoints("database.redis.cluster_nodes"),
            cluster_username: s.optional_text("database.redis.cluster.username"),
            cluster_password: s.optional_secret("database.redis.cluster.password"),
            cluster_use_tls: s.flag("database.redis.cluster.use_tls"),
        },
        mysql: sql(s, "database.mysql"),
        postgres: sql(s, "database.postgres"),
        dynamodb: Dynamodb {
            region: s.text("database.dynamodb.region").to_owned(),
            table_name: s.text("database.dynamodb.table_name").to_owned(),
            endpoint_url: s.optional_text("database.dynamodb.endpoint_url"),
            aws_access_key_id: s.optional_secret("database.dynamodb.aws_access_key_id"),
            aws_secret_access_key: s.optional_secret("database.dynamodb.aws_secret_access_key"),
            aws_profile_name: s.optional_text("database.dynamodb.aws_profile_name"),
            layout: chosen(
                s,
                "database.dynamodb.layout",
                &[
                    ("sockudo", DynamodbLayout::Sockudo),
                    ("soketi", DynamodbLayout::Soketi),
                ],
            ),
        },
        scylladb: Scylladb {
            nodes: s.texts("database.scylladb.nodes").to_vec(),
            keyspace: s.text("database.scylladb.keyspace").to_owned(),
            table_name: s.text("database.scylladb.table_name").to_owned(),
            username: s.optional_text("database.scylladb.username"),
            password: s.optional_secret("database.scylladb.password"),
            replication_class: s.text("database.scylladb.replication_class").to_owned(),
            replication_factor: s.u32("database.scylladb.replication_factor"),
        },
    }
}

fn sql(s: &Settings, section: &str) -> Sql {
    let text = |member: &str| s.text(&format!("{section}.{member}")).to_owned();
    Sql {
        host: text("host"),
        port: s.u16(&format!("{section}.port")),
        username: text("username"),
        password: s.secret(&format!("{section}.password")),
        database: text("database"),
        table_name: text("table_name"),
        connection_pool_size: s.u32(&format!("{section}.connection_pool_size")),
        pool_min: s.optional_u32(&format!("{section}.pool_min")),
        pool_max: s.optional_u32(&format!("{section}.pool_max")),
    }
}
