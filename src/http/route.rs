//! Routes: which resource a path names.
//!
//! Owns: every path of the main listener, the path prefix, which method each route takes.
//! May depend on: `http::api` for refusals, `protocol::query` (percent-decoding).
//! Invariants: a parameter is decoded exactly once; an app's is valid UTF-8 and not empty, and a channel's or a user's that
//! is not UTF-8 says so to whoever wants its text; a trailing slash is another path.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::api::ApiError;
use crate::protocol::query::decode_percent;

/// What a path names. Parameters are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/app/{key}`
    App {
        key: Cow<'a, str>,
    },
    /// `/app`, `/app/`, `/app/{key}/more`: an upgrade there is refused with 4005, after the 101.
    AppBadPath,
    /// `/apps/{app}/events`
    Events {
        app: Cow<'a, str>,
    },
    /// `/apps/{app}/batch_events`
    BatchEvents {
        app: Cow<'a, str>,
    },
    /// `/apps/{app}/channels`
    Channels {
        app: Cow<'a, str>,
    },
    /// `/apps/{app}/channels/{channel}`
    Channel {
        app: Cow<'a, str>,
        channel: PathName<'a>,
    },
    /// `/apps/{app}/channels/{channel}/users`
    Users {
        app: Cow<'a, str>,
        channel: PathName<'a>,
    },
    /// `/apps/{app}/users/{user}/terminate_connections`
    Terminate {
        app: Cow<'a, str>,
        user: PathName<'a>,
    },
    Up,
    UpApp {
        app: Cow<'a, str>,
    },
    Usage,
    Live,
    Ready,
    AcceptTraffic,
    /// `/`: the welcome page in demo mode, else `OK`.
    Root,
    /// `/welcome/sign`: in demo mode.
    WelcomeSign,
    Unknown,
}

/// A channel's name or a user's id, decoded. It may be empty, or no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName<'a> {
    what: &'static str,
    text: Option<Cow<'a, str>>,
}

impl<'a> PathName<'a> {
    fn of(what: &'static str, segment: &'a str) -> Self {
        let text = match segment {
            "" => Some(Cow::Borrowed("")),
            segment => parameter(segment),
        };
        Self { what, text }
    }

    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, ApiError> {
        self.text.as_deref().ok_or(ApiError::NotText(self.what))
    }
}

impl<'a> Route<'a> {
    /// Finds the route of an undecoded path. With a prefix, sockets are found below it alone. The other
    /// routes are also found without it: a library may sign one path and send another, a proxy may
    /// have taken the prefix away, and a load balancer asks the node, not the public name.
    pub fn of(raw_path: &'a str, path_prefix: &str) -> Self {
        let prefix = path_prefix.trim_end_matches('/');
        match raw_path.strip_prefix(prefix) {
            Some("") if !prefix.is_empty() => Self::Root,
            Some(local) if local.starts_with('/') => Self::of_local(local),
            _ => {
                let route = Self::of_local(raw_path);
                let is_socket = matches!(route, Self::App { .. } | Self::AppBadPath);
                if is_socket { Self::Unknown } else { route }
            }
        }
    }

    fn of_local(local: &'a str) -> Self {
        let Some(local) = local.strip_prefix('/') else {
            return Self::Unknown;
        };
        let segments: SmallVec<[&str; SEGMENTS_MAX]> =
            local.split('/').take(SEGMENTS_MAX).collect();
        Self::of_segments(&segments).unwrap_or(Self::Unknown)
    }

    /// `None` when a parameter is not usable.
    fn of_segments(segments: &[&'a str]) -> Option<Self> {
        Some(match *segments {
            ["app", key] => parameter(key).map_or(Self::AppBadPath, |key| Self::App { key }),
            ["app", ..] => Self::AppBadPath,
            ["apps", app, "events"] => Self::Events {
                app: parameter(app)?,
            },
            ["apps", app, "batch_events"] => Self::BatchEvents {
                app: parameter(app)?,
            },
            ["apps", app, "channels"] => Self::Channels {
                app: parameter(app)?,
            },
            ["apps", app, "channels", channel] if !channel.is_empty() => Self::Channel {
                app: parameter(app)?,
                channel: PathName::of(CHANNEL, channel),
            },
            ["apps", app, "channels", channel, "users"] if !channel.is_empty() => Self::Users {
                app: parameter(app)?,
                channel: PathName::of(CHANNEL, channel),
            },
            ["apps", app, "users", user, "terminate_connections"] => Self::Terminate {
                app: parameter(app)?,
                user: PathName::of(USER, user),
            },
            ["up"] => Self::Up,
            ["up", app] => Self::UpApp {
                app: parameter(app)?,
            },
            ["usage"] => Self::Usage,
            ["live"] => Self::Live,
            ["ready"] => Self::Ready,
            ["accept-traffic"] => Self::AcceptTraffic,
            ["welcome", "sign"] => Self::WelcomeSign,
            [""] => Self::Root,
            _ => Self::Unknown,
        })
    }

    /// What a load balancer asks: it answers without authentication and rate limit.
    pub fn is_health(&self) -> bool {
        match self {
            Self::Up
            | Self::UpApp { .. }
            | Self::Live
            | Self::Ready
            | Self::AcceptTraffic
            | Self::Root => true,
            Self::App { .. }
            | Self::AppBadPath
            | Self::Events { .. }
            | Self::BatchEvents { .. }
            | Self::Channels { .. }
            | Self::Channel { .. }
            | Self::Users { .. }
            | Self::Terminate { .. }
            | Self::Usage
            | Self::WelcomeSign
            | Self::Unknown => false,
        }
    }

    /// The one method that the route takes, `HEAD` wherever it is `GET`; `None` for an unknown path.
    pub fn method(&self) -> Option<&'static str> {
        match self {
            Self::Events { .. }
            | Self::BatchEvents { .. }
            | Self::Terminate { .. }
            | Self::WelcomeSign => Some("POST"),
            Self::App { .. }
            | Self::AppBadPath
            | Self::Channels { .. }
            | Self::Channel { .. }
            | Self::Users { .. }
            | Self::Up
            | Self::UpApp { .. }
            | Self::Usage
            | Self::Live
            | Self::Ready
            | Self::AcceptTraffic
            | Self::Root => Some("GET"),
            Self::Unknown => None,
        }
    }

    /// A request of that method is one for this route.
    pub fn takes(&self, method: &str) -> bool {
        let is_wanted = |wanted| method == wanted || (method, wanted) == ("HEAD", "GET");
        self.method().is_some_and(is_wanted)
    }

    /// What is looked at before anything else of a request.
    ///
    /// # Errors
    /// There is no such path, or it takes another method.
    pub fn check(&self, method: &str) -> Result<(), ApiError> {
        match self.method() {
            None => Err(ApiError::NotFound),
            Some(_) if self.takes(method) => Ok(()),
            Some(_) => Err(ApiError::MethodNotAllowed),
        }
    }

    /// The API app that the route belongs to.
    pub fn api_app(&self) -> Option<&str> {
        match self {
            Self::Events { app }
            | Self::BatchEvents { app }
            | Self::Channels { app }
            | Self::Channel { app, .. }
            | Self::Users { app, .. }
            | Self::Terminate { app, .. } => Some(app),
            Self::App { .. }
            | Self::AppBadPath
            | Self::Up
            | Self::UpApp { .. }
            | Self::Usage
            | Self::Live
            | Self::Ready
            | Self::AcceptTraffic
            | Self::Root
            | Self::WelcomeSign
            | Self::Unknown => None,
        }
    }
}

fn parameter(segment: &str) -> Option<Cow<'_, str>> {
    if segment.is_empty() {
        return None;
    }
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    String::from_utf8(decode_percent(segment))
        .ok()
        .map(Cow::Owned)
}

const CHANNEL: &str = "the channel's name in the path";
const USER: &str = "the user's id in the path";

/// One more than the longest route has.
const SEGMENTS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Cow<'static, str> {
        "app-id".into()
    }

    #[test]
    fn each_path_names_its_route() {
        let name = |what, text: Option<&'static str>| PathName {
            what,
            text: text.map(Cow::from),
        };
        let channel = || name(CHANNEL, Some("presence-a@b"));
        for (path, expected) in [
            (
                "/app/app-key",
                Route::App {
                    key: "app-key".into(),
                },
            ),
            (
                "/app/a%2Fb%20c",
                Route::App {
                    key: "a/b c".into(),
                },
            ),
            ("/app/a+b", Route::App { key: "a+b".into() }),
            ("/app/%2541", Route::App { key: "%41".into() }),
            ("/app", Route::AppBadPath),
            ("/app/", Route::AppBadPath),
            ("/app/key/", Route::AppBadPath),
            ("/app/key/more", Route::AppBadPath),
            ("/app/a/b/c/d/e/f/g/h", Route::AppBadPath),
            ("/app/%ff", Route::AppBadPath),
            ("/apps/app-id/events", Route::Events { app: app() }),
            ("/apps/app%2Did/events", Route::Events { app: app() }),
            (
                "/apps/app-id/batch_events",
                Route::BatchEvents { app: app() },
            ),
            ("/apps/app-id/channels", Route::Channels { app: app() }),
            (
                "/apps/app-id/channels/presence-a@b",
                Route::Channel {
                    app: app(),
                    channel: channel(),
                },
            ),
            (
                "/apps/app-id/channels/presence-a%40b",
                Route::Channel {
                    app: app(),
                    channel: channel(),
                },
            ),
            (
                "/apps/app-id/channels/presence-a@b/users",
                Route::Users {
                    app: app(),
                    channel: channel(),
                },
            ),
            (
                "/apps/app-id/users/a%2Fb/terminate_connections",
                Route::Terminate {
                    app: app(),
                    user: name(USER, Some("a/b")),
                },
            ),
            (
                "/apps/app-id/channels/%ff",
                Route::Channel {
                    app: app(),
                    channel: name(CHANNEL, None),
                },
            ),
            (
                "/apps/app-id/channels/a%ff/users",
                Route::Users {
                    app: app(),
                    channel: name(CHANNEL, None),
                },
            ),
            (
                "/apps/app-id/users//terminate_connections",
                Route::Terminate {
                    app: app(),
                    user: name(USER, Some("")),
                },
            ),
            (
                "/apps/app-id/users/%ff/terminate_connections",
                Route::Terminate {
                    app: app(),
                    user: name(USER, None),
                },
            ),
            ("/up", Route::Up),
            ("/up/app-id", Route::UpApp { app: app() }),
            ("/usage", Route::Usage),
            ("/live", Route::Live),
            ("/ready", Route::Ready),
            ("/accept-traffic", Route::AcceptTraffic),
            ("/", Route::Root),
        ] {
            assert_eq!(Route::of(path, "/"), expected, "{path}");
            assert_eq!(Route::of(path, ""), expected, "{path}");
            let prefixed = format!("/realtime{path}");
            for prefix in ["/realtime", "/realtime/"] {
                assert_eq!(Route::of(&prefixed, prefix), expected, "{prefixed}");
            }
            let is_socket = matches!(expected, Route::App { .. } | Route::AppBadPath);
            let unprefixed = Route::of(path, "/realtime");
            let expected = if is_socket { Route::Unknown } else { expected };
            assert_eq!(unprefixed, expected, "{path}, which a proxy stripped");
        }
        // A prefix may look like the path itself.
        let key = || Route::App { key: "key".into() };
        for (path, prefix, expected) in [
            ("/app/app/key", "/app", key()),
            ("/app/key", "/app", Route::Unknown),
            ("/ws/ws/app/key", "/ws", Route::Unknown),
            ("/a/b/app/key", "/a/b", key()),
            ("/b/app/key", "/a/b", Route::Unknown),
        ] {
            assert_eq!(Route::of(path, prefix), expected, "{path} below {prefix}");
        }
        assert_eq!(Route::of("/realtime", "/realtime"), Route::Root);
    }

    #[test]
    fn a_name_that_is_no_text_says_which_it_is() {
        for (what, segment, text, said) in [
            (CHANNEL, "a%40b", Some("a@b"), ""),
            (USER, "%C3%A9", Some("\u{e9}"), ""),
            (USER, "", Some(""), ""),
            (
                CHANNEL,
                "a%ff",
                None,
                "the channel's name in the path is not valid UTF-8",
            ),
            (
                USER,
                "%C3",
                None,
                "the user's id in the path is not valid UTF-8",
            ),
        ] {
            let name = PathName::of(what, segment);
            assert_eq!(name.text().ok(), text, "{segment}");
            let fault = name.text().err().map(|error| error.to_string());
            assert_eq!(fault.unwrap_or_default(), said, "{segment}");
        }
    }

    #[test]
    fn any_other_path_is_unknown() {
        for path in [
            "",
            "*",
            "up",
            "//up",
            "/up/",
            "/up/a/b",
            "/usage/",
            "/UP",
            "/metrics",
            "/apps",
            "/apps/",
            "/apps/app-id",
            "/apps//events",
            "/apps/app-id/events/",
            "/apps/app-id/%65vents",
            "/apps/app-id/channels/",
            "/apps/app-id/channels//users",
            "/apps/app-id/channels/a/events",
            "/apps/app-id/channels/a/users/",
            "/apps/app-id/channels/a/users/b",
            "/apps/app-id/users/1",
            "/apps/app-id/stats",
            "/pusher/app/key/1/2/xhr",
            "/application",
        ] {
            assert_eq!(Route::of(path, "/"), Route::Unknown, "{path}");
        }
        for path in [
            "/realtimes/up",
            "/realtimeup",
            "/real/app/key",
            "/realtime/up/",
        ] {
            assert_eq!(Route::of(path, "/realtime"), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn each_route_takes_one_method() {
        for (path, method) in [
            ("/app/k", Some("GET")),
            ("/app/", Some("GET")),
            ("/apps/a/events", Some("POST")),
            ("/apps/a/batch_events", Some("POST")),
            ("/apps/a/channels", Some("GET")),
            ("/apps/a/channels/c", Some("GET")),
            ("/apps/a/channels/c/users", Some("GET")),
            ("/apps/a/users/u/terminate_connections", Some("POST")),
            ("/up", Some("GET")),
            ("/", Some("GET")),
            ("/x", None),
        ] {
            let route = Route::of(path, "/");
            assert_eq!(route.method(), method, "{path}");
            for asked in ["GET", "HEAD", "POST", "PUT"] {
                let is_head = asked == "HEAD" && method == Some("GET");
                let expected = is_head || method == Some(asked);
                assert_eq!(route.takes(asked), expected, "{asked} {path}");
            }
            assert_eq!(
                route.api_app().is_some(),
                path.starts_with("/apps/"),
                "{path}"
            );
        }
    }
}
