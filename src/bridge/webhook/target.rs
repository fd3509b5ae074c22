//! Who gets which webhook.
//!
//! Owns: `Target`, the prepared form of one entry of an app's `webhooks`, and the table of them.
//! May depend on: `bridge::{apps, queue, message}`, `config::app`. Not on HTTP exchanges.
//! Invariants: a target keeps its id over reloads while its app has an entry with its URL; an extra
//! header never replaces one of ours.

use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;

use super::{
    attempt,
    client::{Destination, Head},
    lambda::{Function, Functions},
};
use crate::protocol::app::AppIndex;
use crate::{
    bridge::{
        apps::entry::AppEntry,
        queue::{TargetId, TargetName},
        webhook_event::WebhookEvent,
    },
    config::app::{EventType, Webhook, WebhookTarget},
};

/// One webhook of one app.
#[derive(Debug)]
pub(super) struct Target {
    pub entry: Arc<AppEntry>,
    /// What every node calls it.
    pub name: TargetName,
    pub url: Url,
    pub destination: Destination,
    /// It is a function of AWS Lambda at this address.
    pub function: Option<Function>,
    /// What each request begins with, unless it is a function; `None` if the app's key is none for a header.
    pub head: Option<Head>,
    hook: Webhook,
    /// Bit `1 << WebhookKind::column` for each wanted kind.
    kinds: u8,
}

/// What a target says to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    /// The kind is wanted, the channel is not.
    Filtered,
    No,
}

impl Target {
    pub(super) fn wants(&self, event: &WebhookEvent) -> Wanted {
        if self.kinds & (1 << event.kind.column()) == 0 {
            return Wanted::No;
        }
        if !self.hook.filter.matches(&event.channel) {
            return Wanted::Filtered;
        }
        Wanted::Yes
    }

    /// The target for a log line: no path and no query, since either may hold a credential.
    pub(super) fn shown(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// `earlier` are the URLs of the app's targets before this one.
    fn of(
        entry: &Arc<AppEntry>,
        hook: &Webhook,
        earlier: &[Url],
        functions: &Arc<Functions>,
    ) -> Option<Self> {
        let app_id = &entry.app.id;
        let (url, function) = address(app_id, &hook.target, functions)?;
        // As they are asked for: two texts may be one URL.
        let ordinal = earlier.iter().filter(|it| **it == url).count();
        let Some(destination) = Destination::of(&url) else {
            tracing::warn!(app_id, "a webhook whose url leads nowhere gets nothing");
            return None;
        };
        let kinds = hook
            .event_types
            .iter()
            .fold(0, |bits, kind| bits | bit(*kind));
        let headers = headers(app_id, hook);
        let head = attempt::head(&destination, &headers, &entry.rules.key);
        Some(Self {
            entry: Arc::clone(entry),
            name: TargetName::of(app_id, url.as_str(), ordinal),
            url,
            destination,
            function,
            head,
            hook: hook.clone(),
            kinds,
        })
    }
}

/// Where it is, and how it is called if it is a function; `None` is told.
fn address(
    app_id: &str,
    target: &WebhookTarget,
    functions: &Arc<Functions>,
) -> Option<(Url, Option<Function>)> {
    match target {
        WebhookTarget::Url(url) => match Url::parse(url.expose()) {
            Ok(url) => Some((url, None)),
            Err(error) => {
                tracing::warn!(app_id, %error, "a webhook with an invalid url gets nothing");
                None
            }
        },
        WebhookTarget::Lambda {
            function_name,
            region,
        } => {
            let Some(url) = functions.url(function_name, region) else {
                tracing::warn!(app_id, region, "a webhook in no such region gets nothing");
                return None;
            };
            Some((url, Some(Function::new(functions, region))))
        }
    }
}

/// The bit of an event type in `WebhookInterest`.
pub(super) fn bit(kind: EventType) -> u8 {
    let column = EventType::ALL.iter().position(|other| *other == kind);
    1 << column.expect("ALL lists every event type")
}

fn headers(app_id: &str, hook: &Webhook) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &hook.headers {
        let parsed = (
            HeaderName::try_from(name),
            HeaderValue::try_from(value.expose()),
        );
        let (Ok(header), Ok(mut value)) = parsed else {
            tracing::warn!(
                app_id,
                name,
                "a webhook header that HTTP does not allow is left out"
            );
            continue;
        };
        if is_reserved(&header) {
            tracing::warn!(app_id, name, "a webhook header that is ours is left out");
            continue;
        }
        value.set_sensitive(true);
        headers.append(header, value);
    }
    headers
}

fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str(); // Lower case by construction.
    name.starts_with("x-pusher-")
        || [
            "content-type",
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
        ]
        .contains(&name)
}

/// All targets of this node.
#[derive(Debug, Default)]
pub(super) struct TargetTable {
    targets: BTreeMap<TargetId, Arc<Target>>,
    by_app: AHashMap<AppIndex, Vec<TargetId>>,
    functions: Arc<Functions>,
    by_name: AHashMap<TargetName, TargetId>,
    /// Those that went, until what waited for them is given up.
    gone: BTreeMap<TargetId, Arc<Target>>,
    next: u32,
}

impl TargetTable {
    /// With another address of AWS Lambda than its own.
    pub(super) fn new(lambda_endpoint: Option<&str>) -> Self {
        Self {
            functions: Arc::new(Functions::at(lambda_endpoint)),
            ..Self::default()
        }
    }

    /// Takes the targets of an app as they are now; those that were there keep their ids. True if one
    /// is there no more.
    pub(super) fn put(&mut self, entry: &Arc<AppEntry>) -> bool {
        let mut former = self.by_app.remove(&entry.index).unwrap_or_default();
        let mut ids = Vec::new();
        let mut earlier: Vec<Url> = Vec::new();
        for hook in &entry.app.webhooks {
            let Some(target) = Target::of(entry, hook, &earlier, &self.functions) else {
                continue;
            };
            earlier.push(target.url.clone());
            let same = former.iter();
            let same = same
                .clone()
                .position(|id| self.targets[id].url == target.url);
            let id = match same {
                Some(index) => former.remove(index),
                None => {
                    self.next += 1;
                    TargetId(self.next)
                }
            };
            ids.push(id);
            self.forget(id); // It may have had another name.
            self.by_name.insert(target.name, id);
            self.targets.insert(id, Arc::new(target));
        }
        if !ids.is_empty() {
            self.by_app.insert(entry.index, ids);
        }
        for id in &former {
            self.go(*id);
        }
        !former.is_empty()
    }

    /// True if the app had any.
    pub(super) fn remove(&mut self, app: AppIndex) -> bool {
        let ids = self.by_app.remove(&app).unwrap_or_default();
        for id in &ids {
            self.go(*id);
        }
        !ids.is_empty()
    }

    fn go(&mut self, id: TargetId) {
        if let Some(target) = self.forget(id) {
            self.gone.insert(id, target);
        }
    }

    fn forget(&mut self, id: TargetId) -> Option<Arc<Target>> {
        let target = self.targets.remove(&id)?;
        if self.by_name.get(&target.name) == Some(&id) {
            self.by_name.remove(&target.name);
        }
        Some(target)
    }

    /// Also one that went with the latest change, for what is said of its jobs.
    pub(super) fn target_or_gone(&self, id: TargetId) -> Option<&Arc<Target>> {
        self.targets.get(&id).or_else(|| self.gone.get(&id))
    }

    /// Of those that went with the latest change.
    pub(super) fn gone_names(&self) -> impl Iterator<Item = TargetName> {
        self.gone.values().map(|target| target.name)
    }

    pub(super) fn forget_gone(&mut self) {
        self.gone.clear();
    }

    /// `None`: not known here, or without targets.
    pub(super) fn app_of_id(&self, id: &str) -> Option<AppIndex> {
        let mut all = self.targets.values();
        let target = all.find(|target| target.entry.app.id == id)?;
        Some(target.entry.index)
    }

    pub(super) fn of_name(&self, name: TargetName) -> Option<(TargetId, &Arc<Target>)> {
        let id = *self.by_name.get(&name)?;
        Some((id, self.targets.get(&id)?))
    }

    pub(super) fn target(&self, id: TargetId) -> Option<&Arc<Target>> {
        self.targets.get(&id)
    }

    /// The targets of an app, in the order of its configuration.
    pub(super) fn of_app(&self, app: AppIndex) -> &[TargetId] {
        self.by_app.get(&app).map_or(&[], Vec::as_slice)
    }
}
