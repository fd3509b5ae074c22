//! Services of AWS at an endpoint of one's own that speaks TLS: apps and webhooks by a CA that the environment names.

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::moto::Moto;
use crate::redis::own_host;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

const APPS: &str = "apps";
const WEBHOOKS: &str = "webhooks";

/// A node with apps in DynamoDB, webhooks in SQS, or both there; it trusts that CA.
fn config(moto: &Moto, parts: &[&str], ca: &str) -> Config {
    let mut config = Config::new().with(json!({"cluster": {"node_id": "a"}}));
    config = config.with_environment(&[
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws"),
        ("SSL_CERT_FILE", ca),
    ]);
    if parts.contains(&APPS) {
        config = config.with(json!({
            "app_manager": {"driver": "dynamodb", "array": {"apps": []}},
            "database": {"dynamodb": {"endpoint_url": moto.url()}},
        }));
    }
    if parts.contains(&WEBHOOKS) {
        config = config.with(json!({"queue": {"driver": "sqs", "sqs": {
            "endpoint_url": moto.url(), "wait_time_seconds": 1, "visibility_timeout": 4,
        }}}));
    }
    config
}

/// The table, and in it an app with these webhooks.
fn is_filled(server: &Server, hooks: &Value) {
    let hooks = format!("webhooks={hooks}");
    let key = ["--key", "shop-key", "secret=shop-secret", &hooks];
    let add = [&["apps", "add", "shop-id"][..], &key].concat();
    for words in [&["apps", "init"][..], &add] {
        // moto takes long over what it is asked for the first time.
        eventually(&format!("{words:?} to succeed"), || {
            let output = server.has_run(words);
            output.status.success().then_some(())
        });
    }
}

#[test]
fn apps_and_webhooks_of_a_service_over_tls_need_its_ca_and_no_more() {
    let name = "apps_and_webhooks_of_a_service_over_tls_need_its_ca_and_no_more";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip(name, "there is no openssl");
    };
    let (certificate, key) = (
        certificates.certificate("server"),
        certificates.key("server"),
    );
    let Some(moto) = Moto::start_with_tls(certificate, key) else {
        return skip(name, "there is no moto; `scripts/test` installs it");
    };
    let [ca, other_ca] = ["ca", "other-ca"].map(|name| certificates.certificate(name));
    let mut sink = WebhookSink::start();
    let server = Server::spawn(&config(&moto, &[APPS, WEBHOOKS], &ca), 2);
    is_filled(&server, &json!([sink.entry(&["channel_occupied"])]));
    eventually("the table", || {
        let up = server.gets("/up");
        (up.header("x-health-check") == Some("OK")).then_some(())
    });
    let mut alice = server.client_of("shop", "alice");
    alice.subscribes("news");
    assert_eq!(sink.next()["channel"], "news");
    let label = "role=\"queue\"";
    assert_eq!(server.metric_with("sockudo_backend_up", label), Some(1.0));
    drop(server);
    for (part, role) in [(APPS, "app_manager"), (WEBHOOKS, "queue")] {
        let server = Server::spawn(&config(&moto, &[part], &other_ca), 1);
        eventually(&format!("{part} to say what TLS lacks"), || {
            let log = server.log();
            let is_told = log.contains("SSL_CERT_FILE") && log.contains("UnknownIssuer");
            is_told.then_some(())
        });
        eventually(
            &format!("a certificate that {part} refuse to be counted"),
            || {
                let label = format!("kind=\"auth\",node=\"a\",role=\"{role}\"");
                let refused = server.metric_with("sockudo_backend_errors_total", &label);
                (refused > Some(0.0)).then_some(())
            },
        );
        let label = format!("role=\"{role}\"");
        assert_eq!(server.metric_with("sockudo_backend_up", &label), Some(0.0));
    }
}
