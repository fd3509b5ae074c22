//! When a connection may sign in as a user, and what it is told then.
//!
//! Owns: a sign-in's checks in their order and their texts, `SignIn`.
//! May depend on: `protocol`, `channel::{names, user}`, the other files of this room.
//! Invariants: a connection is signed in as at most one user id, until it ends; a refused sign-in
//! closes nothing.

use std::sync::Arc;

use shards::work::Work;

use super::{
    effect::{Effect, Reply, View},
    pending::Pending,
    row::{Connection, SignedIn},
};
use crate::{
    channel::{names::NameHasher, user::UserId},
    protocol::{
        auth, code, code::CloseCode, partition::AppPartitions, presence::User, rules::AppRules,
    },
};

/// A sign-in under way.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// As it came, to be echoed byte for byte.
    pub user_data: Box<str>,
    pub watchlist_cut: bool,
    /// Watched users: known to be online, known to be offline.
    pub online: Vec<Arc<str>>,
    pub offline: Vec<Arc<str>>,
    /// Answers that are still to come.
    pub answers_pending: u16,
    /// Something was told before its answer came: only then may a user stand in a list already.
    pub has_news: bool,
}

impl SignIn {
    /// Notes what a home answers of a watched user.
    // Once per user: without news before, one push.
    pub fn answer(&mut self, user_id: Arc<str>, online: bool) {
        if self.has_news {
            return self.tell(user_id, online);
        }
        self.list(online).push(user_id);
    }

    /// Notes how a watched user is now; what was noted of it before does not count any more.
    pub fn tell(&mut self, user_id: Arc<str>, online: bool) {
        self.has_news = true;
        self.online.retain(|it| *it != user_id);
        self.offline.retain(|it| *it != user_id);
        self.list(online).push(user_id);
    }

    fn list(&mut self, online: bool) -> &mut Vec<Arc<str>> {
        if online {
            &mut self.online
        } else {
            &mut self.offline
        }
    }

    /// What is told when all homes have answered, in this order.
    pub fn replies(&self) -> impl Iterator<Item = Reply<'_>> {
        let success = Reply::SignedIn {
            user_data: &self.user_data,
        };
        let cut = self.watchlist_cut.then_some(Reply::Error {
            code: Some(code::WATCHLIST_LIMIT),
            text: code::WATCHLIST_CUT,
            channel: None,
        });
        let watches = !self.online.is_empty() || !self.offline.is_empty();
        let watched = watches.then_some(Reply::Watched {
            online: &self.online,
            offline: &self.offline,
        });
        [Some(success), cut, watched].into_iter().flatten()
    }
}

impl Connection {
    /// A client wants to sign in.
    pub(super) fn sign_in<'a>(
        &mut self,
        view: &mut View<'_>,
        auth: &str,
        user_data: &str,
    ) -> Effect<'a> {
        self.throttle_memberships(view);
        let checked = match view.app {
            Some(app) => {
                let checked = self.check_sign_in(view, app, auth, user_data);
                checked.map(|user| (user, &app.partitions))
            }
            None => Err("The app is gone"),
        };
        match checked {
            Ok((user, app)) => self.begin_sign_in(view.names, app, user, user_data),
            Err(text) => {
                view.tally.sign_ins_refused += 1;
                Effect::Reply(Reply::Error {
                    code: Some(CloseCode::UNAUTHORIZED.value()),
                    text,
                    channel: None,
                })
            }
        }
    }

    fn check_sign_in(
        &self,
        view: &mut View<'_>,
        app: &AppRules,
        auth: &str,
        user_data: &str,
    ) -> Result<User, &'static str> {
        if !app.allows_sign_in {
            return Err("User authentication is not enabled for this app");
        }
        let hashed = Work::SIGNATURE.and(Work::bytes_hashed(user_data.len()));
        view.tally.work = view.tally.work.and(hashed.times(app.signers.len()));
        let socket_id = self.socket_id.to_string();
        auth::verify_sign_in(&app.key, &app.signers, auth, &socket_id, user_data)
            .map_err(|_| "The sign-in's signature is invalid")?;
        let mut user = User::parse(user_data).map_err(|_| "The user_data is invalid")?;
        if self
            .user()
            .is_some_and(|before| *before.user_id.text != *user.id)
        {
            return Err("Already signed in as another user");
        }
        if !app.has_watchlists {
            user.watchlist = Vec::new();
            user.watchlist_cut = false;
        }
        Ok(user)
    }

    fn begin_sign_in<'a>(
        &mut self,
        names: &NameHasher,
        app: &AppPartitions,
        user: User,
        user_data: &str,
    ) -> Effect<'a> {
        let user_id = UserId::new(names, app, user.id);
        let watched = user.watchlist.into_iter();
        let signed_in = SignedIn {
            user_id: user_id.clone(),
            info: user.user_info.into(),
            watchlist: watched.map(|id| UserId::new(names, app, id)).collect(),
            is_known: self.user().is_some_and(|before| before.is_known),
        };
        let rare = self.rare();
        let before = rare.user.replace(signed_in);
        rare.pending = Some(Pending::SignIn(Box::new(SignIn {
            user_data: user_data.into(),
            watchlist_cut: user.watchlist_cut,
            online: Vec::new(),
            offline: Vec::new(),
            answers_pending: 0,
            has_news: false,
        })));
        match before {
            Some(before) => Effect::WatchAgain {
                unwatched: before.watchlist,
            },
            None => Effect::SignIn { user_id },
        }
    }

    /// The user's home knows the socket.
    pub fn on_signed_in(&mut self) {
        self.authorize();
        if let Some(user) = self.rare().user.as_mut() {
            user.is_known = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture::{Step, app_rules, signed_in, user};

    type Fault = fn(&mut Step);

    const FAULTS: [(&str, Fault); 4] = [
        ("User authentication is not enabled for this app", |step| {
            step.app.allows_sign_in = false;
        }),
        ("The sign-in's signature is invalid", |step| {
            step.app.key = "another".into();
        }),
        ("The user_data is invalid", |step| step.user_data = "{}"),
        ("Already signed in as another user", |step| {
            step.connection.rare().user = Some(signed_in("bob"));
        }),
    ];

    fn refusal_of(faults: &[Fault]) -> Option<&'static str> {
        let mut step = Step::new(app_rules());
        for fault in faults {
            fault(&mut step);
        }
        let text = step.sign_in();
        match step.on_text(&text) {
            Effect::SignIn { user_id } => {
                assert_eq!(&*user_id.text, "ann");
                None
            }
            Effect::Reply(Reply::Error { code, text, .. }) => {
                assert_eq!(code, Some(4009));
                Some(text)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_two_faults_the_one_that_is_looked_for_first_is_told() {
        assert_eq!(refusal_of(&[]), None);
        for (index, (text, fault)) in FAULTS.iter().enumerate() {
            assert_eq!(refusal_of(&[*fault]), Some(*text));
            for (_, other) in &FAULTS[index + 1..] {
                assert_eq!(refusal_of(&[*other, *fault]), Some(*text));
            }
        }
    }

    #[test]
    fn who_signs_in_again_watches_anew_and_is_told_in_one_order() {
        let mut step = Step::new(app_rules());
        let mut before = signed_in("ann");
        before.watchlist = vec![user("bob")];
        step.connection.rare().user = Some(before);
        step.user_data = r#"{"id":"ann","watchlist":["eve"]}"#;
        let text = step.sign_in();
        let unwatched = vec![user("bob")];
        assert_eq!(step.on_text(&text), Effect::WatchAgain { unwatched });
        let Some(Pending::SignIn(mut sign_in)) = step.connection.pending().take() else {
            panic!("a sign-in is under way");
        };
        sign_in.watchlist_cut = true;
        sign_in.answer("eve".into(), true);
        let told: Vec<_> = sign_in.replies().collect();
        assert!(matches!(
            told[..],
            [
                Reply::SignedIn { .. },
                Reply::Error {
                    code: Some(4302),
                    ..
                },
                Reply::Watched { .. }
            ]
        ));
    }
}
