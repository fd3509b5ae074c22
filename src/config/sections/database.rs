//! Databases: Redis for all components, and those that may keep apps.
//!
//! Owns: `database`, `database_pooling`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Database in "database" {
        redis: Redis => Redis::read;
        mysql: Mysql => Mysql::read;
        postgres: Postgres => Postgres::read;
        dynamodb: Dynamodb => Dynamodb::read;
        scylladb: Scylladb => Scylladb::read;
    }
}

section! {
    pub struct Redis in "database.redis" {
        /// Redis host.
        host: String = text(shape::HOST).default("127.0.0.1").env(&["DATABASE_REDIS_HOST"]);
        /// Redis port.
        port: u16 = port().default("6379").env(&["DATABASE_REDIS_PORT"]);
        /// Redis database.
        db: u32 = count(0).default("0").env(&["DATABASE_REDIS_DB"]);
        /// Redis user.
        username: Option<String> = text(shape::ANY).env(&["DATABASE_REDIS_USERNAME"]);
        /// Redis password.
        password: Option<Secret> = secret().fallback_env(&["REDIS_PASSWORD"])
            .env(&["DATABASE_REDIS_PASSWORD"]);
        /// Where a component's prefix is null.
        key_prefix: String = text(shape::ANY).default("sockudo:").null_is_absent()
            .env(&["DATABASE_REDIS_KEY_PREFIX"]);
        /// Sentinels; they name the master.
        sentinels: Vec<Endpoint> = endpoints("localhost", 26_379).default("").null_is_absent();
        /// Password of the Sentinels.
        sentinel_password: Option<Secret> = secret();
        /// The master's name for Sentinel.
        name: String = text(shape::NOT_EMPTY).default("mymaster");
        /// Nodes of a Redis Cluster; a host may carry `redis://` or `rediss://` and a port.
        cluster_nodes: Vec<Endpoint> = endpoints("127.0.0.1", 7000).default("").null_is_absent()
            .env(&["DATABASE_REDIS_CLUSTER_NODES"]);
        /// User for all cluster connections.
        cluster_username: Option<String> as "cluster.username" = text(shape::ANY)
            .env(&["DATABASE_REDIS_CLUSTER_USERNAME"]);
        /// Password for all cluster connections.
        cluster_password: Option<Secret> as "cluster.password" = secret()
            .env(&["DATABASE_REDIS_CLUSTER_PASSWORD"]);
        /// TLS for all cluster connections.
        cluster_use_tls: bool as "cluster.use_tls" = flag().default("false")
            .env(&["DATABASE_REDIS_CLUSTER_USE_TLS"]);
        tls: RedisTls => RedisTls::read;
    }
}

section! {
    pub struct RedisTls in "database.redis.tls" {
        /// TLS to database.redis.host, its Sentinels and cluster; a URL says it by `rediss://`.
        enabled: bool = flag().default("false").ours();
        /// CA of the servers, PEM; unset = those of the system. Holds for every component's Redis.
        ca_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client certificate, PEM.
        cert_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client key, PEM, without a password.
        key_path: Option<String> = text(shape::NOT_EMPTY).ours();
    }
}

/// A host and a port, and whether to speak TLS there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    /// An IPv6 address carries no brackets.
    pub host: String,
    pub port: u16,
}

section! {
    pub struct Mysql in "database.mysql" {
        /// MySQL host.
        host: String = text(shape::HOST).default("localhost").env(&["DATABASE_MYSQL_HOST"]);
        /// MySQL port.
        port: u16 = port().default("3306").env(&["DATABASE_MYSQL_PORT"]);
        /// MySQL user.
        username: String = text(shape::NOT_EMPTY).default("root").env(&["DATABASE_MYSQL_USERNAME"]);
        /// MySQL password.
        password: Secret = secret().default("").env(&["DATABASE_MYSQL_PASSWORD"]);
        /// MySQL database.
        database: String = text(shape::NOT_EMPTY).default("sockudo")
            .env(&["DATABASE_MYSQL_DATABASE"]);
        /// Table of the apps.
        table_name: String = text(shape::TABLE_NAME).default("applications")
            .env(&["DATABASE_MYSQL_TABLE_NAME"]);
        /// Connections, where pooling is off.
        connection_pool_size: u32 = count(1).default("10").env(&["DATABASE_CONNECTION_POOL_SIZE"]);
        /// Instead of database_pooling.min.
        pool_min: Option<u32> = count(0).env(&["DATABASE_MYSQL_POOL_MIN"]);
        /// Instead of database_pooling.max.
        pool_max: Option<u32> = count(1).env(&["DATABASE_MYSQL_POOL_MAX"]);
        /// How long a look-up may take, connecting included.
        timeout_ms: u64 = milliseconds(100).default("2000").ours();
        tls: MysqlTls => MysqlTls::read;
        /// Cache.
        _ as "cache_ttl" = count(0).default("300").no_effect(NOT_USED);
        /// Cache.
        _ as "cache_cleanup_interval" = count(0).default("60").no_effect(NOT_USED);
        /// Cache.
        _ as "cache_max_capacity" = count(0).default("100").no_effect(NOT_USED);
    }
}

section! {
    pub struct MysqlTls in "database.mysql.tls" {
        /// Encrypt, and refuse a server without TLS or with a certificate that does not hold.
        enabled: bool = flag().default("false").ours();
        /// CA of the server, PEM, beside the public ones.
        ca_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client certificate, PEM.
        cert_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client key, PEM.
        key_path: Option<String> = text(shape::NOT_EMPTY).ours();
    }
}

section! {
    pub struct Postgres in "database.postgres" {
        /// Postgres host, or the folder of its Unix socket.
        host: String = text(shape::HOST_OR_FOLDER).default("localhost").env(&["DATABASE_POSTGRES_HOST"]);
        /// Postgres port.
        port: u16 = port().default("5432").env(&["DATABASE_POSTGRES_PORT"]);
        /// Postgres user.
        username: String = text(shape::NOT_EMPTY).default("postgres")
            .env(&["DATABASE_POSTGRES_USERNAME"]);
        /// Postgres password.
        password: Secret = secret().default("").env(&["DATABASE_POSTGRES_PASSWORD"]);
        /// Postgres database.
        database: String = text(shape::NOT_EMPTY).default("sockudo")
            .env(&["DATABASE_POSTGRES_DATABASE"]);
        /// Table of the apps.
        table_name: String = text(shape::TABLE_NAME).default("applications")
            .env(&["DATABASE_POSTGRES_TABLE_NAME"]);
        /// Connections, where pooling is off.
        connection_pool_size: u32 = count(1).default("10").env(&["DATABASE_CONNECTION_POOL_SIZE"]);
        /// Instead of database_pooling.min.
        pool_min: Option<u32> = count(0).env(&["DATABASE_POSTGRES_POOL_MIN"]);
        /// Instead of database_pooling.max.
        pool_max: Option<u32> = count(1).env(&["DATABASE_POSTGRES_POOL_MAX"]);
        /// How long a look-up may take, connecting included.
        timeout_ms: u64 = milliseconds(100).default("2000").ours();
        tls: PostgresTls => PostgresTls::read;
        /// Cache.
        _ as "cache_ttl" = count(0).default("300").no_effect(NOT_USED);
        /// Cache.
        _ as "cache_cleanup_interval" = count(0).default("60").no_effect(NOT_USED);
        /// Cache.
        _ as "cache_max_capacity" = count(0).default("100").no_effect(NOT_USED);
    }
}

section! {
    pub struct PostgresTls in "database.postgres.tls" {
        /// Encrypt, and refuse a server without TLS or with a certificate that does not hold.
        enabled: bool = flag().default("false").ours();
        /// CA of the server, PEM; unset = those of the system.
        ca_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client certificate, PEM.
        cert_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client key, PEM, without a password.
        key_path: Option<String> = text(shape::NOT_EMPTY).ours();
    }
}

const NOT_USED: &str = "app_manager.cache holds apps";

section! {
    pub struct Dynamodb in "database.dynamodb" {
        /// AWS region.
        region: String = text(shape::NOT_EMPTY).default("us-east-1").fallback_env(&["AWS_REGION"])
            .env(&["DATABASE_DYNAMODB_REGION"]);
        /// Table of the apps.
        table_name: String = text(shape::TABLE_NAME_AWS).default("sockudo-applications")
            .env(&["DATABASE_DYNAMODB_TABLE_NAME"]);
        /// Another endpoint than AWS's.
        endpoint_url: Option<String> = text(shape::HTTP_URL)
            .env(&["DATABASE_DYNAMODB_ENDPOINT_URL"]);
        /// Static credentials.
        aws_access_key_id: Option<Secret> = secret().env(&["AWS_ACCESS_KEY_ID"]);
        /// Static credentials.
        aws_secret_access_key: Option<Secret> = secret().env(&["AWS_SECRET_ACCESS_KEY"]);
        /// Of temporary static credentials.
        aws_session_token: Option<Secret> = secret().env(&["AWS_SESSION_TOKEN"]).ours();
        /// A profile of AWS's files.
        aws_profile_name: Option<String> = text(shape::NOT_EMPTY).fallback_env(&["AWS_PROFILE"]);
        /// How long a look-up may take, retries included.
        timeout_ms: u64 = milliseconds(100).default("2000").ours();
        /// Whose names the table's attributes have.
        layout: DynamodbLayout = choice(DynamodbLayout::CHOICES).default("sockudo").ours();
    }
}

choices! {
    pub enum DynamodbLayout {
        Sockudo = "sockudo",
        Soketi = "soketi",
    }
}

section! {
    pub struct Scylladb in "database.scylladb" {
        /// Nodes.
        nodes: Vec<String> = texts(shape::NOT_EMPTY).default("127.0.0.1:9042");
        /// Keyspace.
        keyspace: String = text(shape::TABLE_NAME).default("sockudo");
        /// Table of the apps.
        table_name: String = text(shape::TABLE_NAME).default("applications");
        /// User.
        username: Option<String> = text(shape::ANY);
        /// Password.
        password: Option<Secret> = secret();
        /// Of a new keyspace.
        replication_class: String = text(shape::NOT_EMPTY).default("SimpleStrategy");
        /// Of a new keyspace.
        replication_factor: u32 = count(1).default("3");
    }
}

section! {
    pub struct DatabasePooling in "database_pooling" {
        /// Pools of SQL connections.
        enabled: bool = flag().default("true").env(&["DATABASE_POOLING_ENABLED"]);
        /// Connections kept.
        min: u32 = count(0).default("2").env(&["DATABASE_POOL_MIN"]);
        /// Connections at most, two at the least.
        max: u32 = count(1).default("10").env(&["DATABASE_POOL_MAX"]);
    }
}
