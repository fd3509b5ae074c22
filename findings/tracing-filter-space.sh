#!/usr/bin/env bash
# tracing-subscriber: a level with a space beside it is a valid filter, and ends all logging, errors too.
#
# Guess:   spaces around a directive of an EnvFilter are trimmed, as in `info, app=debug`; or, if they are not, the
#          parser refuses them, as it does refuse `warn, app=debug`.
# Truth:   what has no equals sign and is not a level to the letter is the name of a target. `info ` is no level, so it
#          stands for everything of a target called "info ", which nobody has: parsing says Ok, and every line of the
#          program, errors too, is filtered away. `info ,app=debug` does that to all but `app`. A filter shows what it
#          was taken for when it is printed: `info =trace`.
# Version: tracing-subscriber 0.3.23.
# Matters: a file of variables, a YAML list or a quote too late leaves a space, the service starts without a complaint
#          and says nothing, least of all on the day on which it fails. Trim each directive, and refuse a lone word
#          that is neither a level nor a target that is known.
#
# Valid input only: the filters are accepted, and spaces are in what people write between commas.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/tracing-filter-space.sh [--help]

Shows that an EnvFilter of "info " is accepted and lets no line pass, and exits with 1 if that changes. Fetches and
compiles the crate with cargo in a temporary folder; takes a minute.
EOT
}

case "${1:-}" in
    '') ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

folder="$(mktemp --directory)"
trap 'rm --recursive --force "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'EOT'
[package]
name = "space"
version = "0.1.0"
edition = "2021"

[dependencies]
tracing = "=0.1.44"
tracing-subscriber = { version = "=0.3.23", default-features = false, features = ["env-filter", "registry"] }
EOT
# Prints what each filter was taken for, and the levels of which a line of this program and of another target pass.
cat > src/main.rs <<'EOT'
use tracing::{enabled, Level};
use tracing_subscriber::{prelude::*, registry, EnvFilter};

fn main() {
    for text in ["info", "info ", " info", "info,space=debug", "info ,space=debug", "info, space=debug"] {
        let filter = match EnvFilter::try_new(text) {
            Ok(filter) => filter,
            Err(_) => {
                println!("{text:?}: refused");
                continue;
            }
        };
        let shown = filter.to_string();
        let mut meaning: Vec<&str> = shown.split(',').collect();
        meaning.sort_unstable();
        let meaning = meaning.join(",");
        tracing::subscriber::with_default(registry().with(filter), || {
            println!(
                "{text:?}: taken for {meaning:?}; error {}, error of another target {}",
                enabled!(Level::ERROR),
                enabled!(target: "other", Level::ERROR),
            );
        });
    }
}
EOT
CARGO_TARGET_DIR="$folder/target" cargo run --quiet > seen
cargo tree --depth 1 --prefix none | grep '^tracing-subscriber'
cat seen
cat > expected <<'EOT'
"info": taken for "info"; error true, error of another target true
"info ": taken for "info =trace"; error false, error of another target false
" info": taken for " info=trace"; error false, error of another target false
"info,space=debug": taken for "info,space=debug"; error true, error of another target true
"info ,space=debug": taken for "info =trace,space=debug"; error true, error of another target false
"info, space=debug": refused
EOT
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
