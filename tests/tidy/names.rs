//! What types, functions and files may be called.

use crate::{
    Findings,
    source::{as_text, sources, words},
};

const BANNED_IN_NAMES: [&str; 17] = [
    "Manager",
    "Handler",
    "Helper",
    "Util",
    "Utils",
    "Factory",
    "Service",
    "Processor",
    "Wrapper",
    "Context",
    "Base",
    "Impl",
    "Common",
    "Misc",
    "Data",
    "Info",
    "Utility",
];

/// Names that the wire or another crate gives, in files that speak of it.
const ALLOWED_NAMES: [&str; 6] = [
    "ChannelData",
    "UserData",
    "UserInfo",
    "ClientData",
    "Info",
    "AppManager", // The section of the configuration.
];

#[test]
fn names_say_the_noun_and_not_a_layer() {
    let mut findings = Findings::default();
    for source in sources(&["src", "shards/src", "tests", "bench/src", "tuning/src"]) {
        let stem = as_text(source.path.file_stem());
        let layers = [
            "types", "common", "helpers", "helper", "utils", "util", "misc", "base",
        ];
        if layers.contains(&&*stem) {
            findings.add(
                &source.path,
                1,
                "a file is named for the noun that it defines",
            );
        }
        for (at, code) in source.code.iter().enumerate() {
            for keyword in ["struct ", "enum ", "trait ", "type "] {
                let declared = code.trim_start().trim_start_matches("pub").trim_start();
                let declared = declared.strip_prefix("(crate) ").unwrap_or(declared);
                let declared = declared.strip_prefix("(super) ").unwrap_or(declared);
                let Some(rest) = declared.strip_prefix(keyword) else {
                    continue;
                };
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let banned = words(&name)
                    .into_iter()
                    .find(|word| BANNED_IN_NAMES.contains(&&**word));
                if let Some(word) = banned
                    && !ALLOWED_NAMES.contains(&&*name)
                {
                    let rule = format!("`{name}`: `{word}` hides the noun");
                    findings.add(&source.path, at + 1, rule);
                }
            }
            let is_getter = code.contains("fn get_") && !code.contains("fn get_mut(");
            if is_getter && at < source.product_lines {
                findings.add(
                    &source.path,
                    at + 1,
                    "functions are verbs of the domain: no `get_`",
                );
            }
        }
    }
    findings.none();
}
