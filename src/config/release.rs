//! What this release does not ship: the keys are known and checked, choosing it refuses to start.
//!
//! Owns: the refusal of what a name of a choice calls `later`.
//! May depend on: `keys`, `settings`, `error`.
//! Invariants: nothing falls back silently to something else.

use super::error::{Fault, Report};
use super::keys::{Key, SERVER};
use super::kind::Kind;
use super::settings::{Setting, Settings};

/// Values of a key that cannot be chosen yet.
pub(super) fn later_values(key: &Key) -> Vec<&'static str> {
    match key.kind {
        Kind::Choice(choices) => {
            let later = choices.iter().filter(|choice| choice.is_later);
            later.map(|choice| choice.name).collect()
        }
        _ => Vec::new(),
    }
}

/// What can be chosen instead.
fn available(key: &Key) -> String {
    let Kind::Choice(choices) = key.kind else {
        return String::new();
    };
    let shipped = choices.iter().filter(|choice| !choice.is_later);
    let names: Vec<String> = shipped.map(|choice| format!("{:?}", choice.name)).collect();
    names.join(" and ")
}

/// Reports every choice that this release does not have: of drivers first, then by name.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    let mut keys: Vec<&Key> = SERVER.iter().collect();
    keys.sort_by_key(|key| (!key.path.ends_with(".driver"), key.path));
    for key in keys {
        let later = later_values(key);
        let shown = match settings.setting(key.path) {
            Setting::Text(text) if later.contains(&text.as_str()) => format!("{text:?}"),
            _ => continue,
        };
        let origin = settings.origin(key.path);
        if key.switch.is_some_and(|switch| !settings.flag(switch)) {
            let text = format!("{shown} is not in this release; it is off, so nothing is lost");
            report.note(origin, key.path, text);
            continue;
        }
        let fault = Fault::NotInThisRelease {
            shown,
            available: available(key),
        };
        report.error(origin, key.path, fault);
    }
}
