//! Who may call the signed HTTP API: signatures, times, digests, and whose app it is.

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::api::Api;
use crate::support::config::Config;
use crate::support::server::Server;
use crate::support::sign::{api_query, hmac_hex, md5_hex, unix_now};

const CREDENTIALS: (&str, &str) = ("app-key", "app-secret");

/// The signature of a canonical query text, appended.
fn signed(method: &str, path: &str, canonical: &str, wire: &str) -> String {
    let signature = hmac_hex(
        "app-secret",
        format!("{method}\n{path}\n{canonical}").as_bytes(),
    );
    format!("{path}?{wire}&auth_signature={signature}")
}

fn auth_parameters() -> String {
    format!(
        "auth_key=app-key&auth_timestamp={}&auth_version=1.0",
        unix_now()
    )
}

// P-083, P-086
fn a_request_is_accepted_as_signed_and_refused_when_a_byte_differs(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let path = api.path("/events");
    let body = br#"{"name":"my-event","channels":["my-channel"],"data":"{\"hello\":\"world\"}"}"#;
    let query = api.query("POST", &path, &[], body);
    assert_eq!(
        api.sends("POST", &format!("{path}?{query}"), body).status,
        200
    );

    let other_body =
        br#"{"name":"my-event","channels":["my-channel"],"data":"{\"hello\":\"World\"}"}"#;
    let (start, signature) = query.rsplit_once('=').expect("the signature is last");
    let last = if signature.ends_with('0') { '1' } else { '0' };
    let cases = [
        ("another body", query.clone(), &other_body[..]),
        ("an added parameter", format!("a=1&{query}"), body),
        (
            "another digit",
            format!("{start}={}{last}", &signature[..63]),
            body,
        ),
        (
            "upper case",
            format!("{start}={}", signature.to_uppercase()),
            body,
        ),
        (
            "no signature",
            start.trim_end_matches("&auth_signature").to_owned(),
            body,
        ),
        ("an empty signature", format!("{start}="), body),
        (
            "a short signature",
            format!("{start}={}", &signature[..10]),
            body,
        ),
        (
            "a doubled signature",
            format!("{query}&auth_signature={signature}"),
            body,
        ),
        ("no query", String::new(), body),
        (
            "another md5",
            query.replacen("body_md5=", "body_md5=0", 1),
            body,
        ),
    ];
    for (name, query, body) in cases {
        let reply = api.sends("POST", &format!("{path}?{query}"), body);
        assert_eq!(reply.status, 401, "{name}: {}", reply.text());
        assert!(reply.json()["error"].is_string(), "{name}");
        assert!(
            !reply.text().contains(signature),
            "the expected value is not told"
        );
    }
    // Signed for another method or path.
    let query = api.query("GET", &path, &[], body);
    assert_eq!(
        api.sends("POST", &format!("{path}?{query}"), body).status,
        401
    );
    let query = api.query("POST", &api.path("/batch_events"), &[], body);
    assert_eq!(
        api.sends("POST", &format!("{path}?{query}"), body).status,
        401
    );
}

// P-084, P-086
fn time_version_and_digest_are_checked_though_the_signature_fits(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let path = api.path("/channels");
    let now = unix_now();
    for (timestamp, status) in [
        (now - 598, 200),
        (now + 595, 200),
        (now - 605, 401),
        (now + 605, 401),
        (0, 401),
    ] {
        let query = api_query(CREDENTIALS, "GET", &path, &[], b"", timestamp);
        assert_eq!(
            api.sends("GET", &format!("{path}?{query}"), b"").status,
            status,
            "{timestamp}"
        );
    }
    for (name, canonical) in [
        (
            "no number",
            "auth_key=app-key&auth_timestamp=now&auth_version=1.0".to_owned(),
        ),
        (
            "a fraction",
            format!("auth_key=app-key&auth_timestamp={now}.5&auth_version=1.0"),
        ),
        ("no time", "auth_key=app-key&auth_version=1.0".to_owned()),
        (
            "an empty time",
            "auth_key=app-key&auth_timestamp=&auth_version=1.0".to_owned(),
        ),
        (
            "version 2.0",
            format!("auth_key=app-key&auth_timestamp={now}&auth_version=2.0"),
        ),
        (
            "no version",
            format!("auth_key=app-key&auth_timestamp={now}"),
        ),
        ("no key", format!("auth_timestamp={now}&auth_version=1.0")),
    ] {
        let target = signed("GET", &path, &canonical, &canonical);
        assert_eq!(api.sends("GET", &target, b"").status, 401, "{name}");
    }
    let path = api.path("/users/42/terminate_connections");
    let auth = auth_parameters();
    let empty = format!("{auth}&body_md5={}", md5_hex(b""));
    for (name, canonical, body, status) in [
        ("an empty body without digest", &auth, &b""[..], 200),
        ("an empty body with its digest", &empty, b"", 200),
        ("a body without digest", &auth, b"{}", 401),
        ("a body with another digest", &empty, b"{}", 401),
    ] {
        let target = signed("POST", &path, canonical, canonical);
        assert_eq!(api.sends("POST", &target, body).status, status, "{name}");
    }
}

// P-085
fn an_apps_credentials_open_that_app_only(shards: usize) {
    let config = Config::new()
        .and_app("other", json!({}))
        .and_app("off", json!({"enabled": false}));
    let server = Server::start(&config, shards);
    let body = br#"{"name":"e","channels":["c"],"data":"x"}"#;
    let mut crossed = Api::new(&server, "app-id", "other-key", "other-secret");
    assert_eq!(crossed.post("/events", body).status, 401);
    let mut mixed = Api::new(&server, "app-id", "app-key", "other-secret");
    assert_eq!(mixed.post("/events", body).status, 401);
    let mut unknown = Api::new(&server, "no-such-app", "app-key", "app-secret");
    assert_eq!(unknown.post("/events", body).status, 404);
    assert_eq!(unknown.get("/channels", &[]).status, 404);
    let mut off = server.api_of("off");
    assert_eq!(off.post("/events", body).status, 403);
    // An unsigned request does not learn that the app is off.
    assert_eq!(server.gets("/apps/off-id/channels").status, 401);
    assert_eq!(server.gets("/apps/no-such-app/channels").status, 404);
}

// P-087, P-088
fn the_query_is_signed_decoded_or_raw_and_the_path_in_either_form(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let auth = auth_parameters();
    let path = api.path("/channels");
    for (name, canonical, wire) in [
        (
            "%20",
            "filter_by_prefix=a b@c",
            "filter_by_prefix=a%20b%40c",
        ),
        ("+", "filter_by_prefix=a b@c", "filter_by_prefix=a+b%40c"),
        ("raw", "filter_by_prefix=a@c,d", "filter_by_prefix=a@c,d"),
        ("a raw plus", "filter_by_prefix=a+b", "filter_by_prefix=a+b"),
        ("a repeated list", "x[]=1&x[]=2", "x[]=1&x[]=2"),
        ("an escaped list", "x[]=1&x[]=2", "x%5B%5D=1&x%5b%5d=2"),
        ("an empty value", "x=", "x="),
        ("no equals sign", "x=", "x"),
        ("a mixed-case key", "xyz=Q", "xYz=Q"),
    ] {
        let canonical = format!("{auth}&{canonical}");
        let target = signed("GET", &path, &canonical, &format!("{auth}&{wire}"));
        let reply = api.sends("GET", &target, b"");
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    }
    // The order on the wire is free; the order signed is by key.
    let target = signed(
        "GET",
        &path,
        &format!("{auth}&b=1&c=2"),
        &format!("c=2&b=1&{auth}"),
    );
    assert_eq!(api.sends("GET", &target, b"").status, 200);
    let target = signed(
        "GET",
        &path,
        &format!("{auth}&x=1"),
        &format!("&&{auth}&&x=1"),
    );
    assert_eq!(
        api.sends("GET", &target, b"").status,
        200,
        "empty segments are skipped"
    );

    for signed_path in ["presence-a@b", "presence-a%40b"] {
        for wire_path in ["presence-a@b", "presence-a%40b"] {
            let signed_path = api.path(&format!("/channels/{signed_path}"));
            let signature = hmac_hex(
                "app-secret",
                format!("GET\n{signed_path}\n{auth}").as_bytes(),
            );
            let target = format!(
                "{}?{auth}&auth_signature={signature}",
                api.path(&format!("/channels/{wire_path}"))
            );
            let reply = api.sends("GET", &target, b"");
            // Nobody sends the raw form and signs the escaped one: left open.
            let open = wire_path == "presence-a@b" && signed_path.contains('%');
            assert!(
                reply.status == 200 || open,
                "{signed_path} as {wire_path}: {}",
                reply.text()
            );
        }
    }
}

on_one_and_three_shards! {
    a_request_is_accepted_as_signed_and_refused_when_a_byte_differs,
    time_version_and_digest_are_checked_though_the_signature_fits,
    an_apps_credentials_open_that_app_only,
    the_query_is_signed_decoded_or_raw_and_the_path_in_either_form,
}
