//! What follows from what was set: one key from another, ours from names of other versions.

use sockudo::config::settings::Setting;
use sockudo::config::Secret;

use crate::file;

#[test]
fn the_publishers_url_names_the_server_of_the_subscriber_too_unless_it_has_one() {
    let url = |text: &str| Setting::Url(Secret::new(text));
    let both = [
        "adapter.redis.redis_pub_options.url",
        "adapter.redis.redis_sub_options.url",
    ];
    for (options, expected) in [
        (
            r#""redis_pub_options": {"url": "redis://p"}"#,
            [url("redis://p"), url("redis://p")],
        ),
        (
            r#""redis_pub_options": {"url": "redis://p"}, "redis_sub_options": {"url": "redis://s"}"#,
            [url("redis://p"), url("redis://s")],
        ),
        (
            r#""redis_sub_options": {"url": "redis://s"}"#,
            [Setting::Null, url("redis://s")],
        ),
        ("", [Setting::Null, Setting::Null]),
    ] {
        let text = format!(r#"{{"adapter": {{"driver": "redis", "redis": {{{options}}}}}}}"#);
        let settings = file(&text).loaded().settings;
        let found = both.map(|path| settings.setting(path).clone());
        assert_eq!(found, expected, "{options}");
    }
}
