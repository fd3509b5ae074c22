#!/usr/bin/env bash
# aws-config: an empty AWS_REGION is a region without a name, and hides every other place that has one.
#
# Guess:   a variable that is set to nothing is as good as unset, as it is for the keys beside it and for boto3; the
#          region then comes from AWS_DEFAULT_REGION or from the profile's file.
# Truth:   the provider of variables answers Some("") for it, does not look at AWS_DEFAULT_REGION, and the chain ends
#          there. An empty AWS_PROFILE likewise stands for a profile without a name, so the one called default is not
#          read. Empty AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN are taken as unset.
# Version: aws-config 1.13.0; boto3 1.43.11 beside it, which agrees about the profile and not about the region.
# Matters: a compose file that says `AWS_REGION: ${AWS_REGION:-}` sets it to nothing where the host has none, and a
#          service that ran with AWS_DEFAULT_REGION asks a host without a region in its name. Take empty variables
#          away before the chain is built.
#
# Valid input only: variables that are empty, and files as AWS documents them.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/aws-empty-region.sh [--help]

Shows what aws-config and boto3 make of variables that are empty, and exits with 1 if that changes. Fetches and
compiles the crate with cargo, and installs boto3 with pip, in a temporary folder; asks nobody at AWS. Takes some
two minutes.
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
mkdir src home home/.aws
printf '[default]\nregion = eu-west-3\n' > home/.aws/config
cat > Cargo.toml <<'EOT'
[package]
name = "empty"
version = "0.1.0"
edition = "2021"

[dependencies]
aws-config = { version = "=1.13.0", default-features = false, features = ["rt-tokio"] }
aws-credential-types = "1"
tokio = { version = "1", features = ["macros", "rt"] }
EOT
cat > src/main.rs <<'EOT'
use aws_config::{environment, meta::region::ProvideRegion, profile};
use aws_credential_types::provider::ProvideCredentials;

// The parts of the default chain that ask nobody, each for itself and the first two joined as it joins them.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let variables = environment::EnvironmentVariableRegionProvider::new().region().await;
    let file = profile::ProfileFileRegionProvider::new().region().await;
    let chain = variables.clone().or(file.clone());
    let keys = environment::EnvironmentVariableCredentialsProvider::new();
    let keys = keys.provide_credentials().await;
    println!(
        "region of variables {:?}, of the file {:?}, of both {:?}; keys {}, token {}",
        variables.map(|region| region.to_string()),
        file.map(|region| region.to_string()),
        chain.map(|region| region.to_string()),
        keys.is_ok(),
        keys.is_ok_and(|keys| keys.session_token().is_some()),
    );
}
EOT
cat > other.py <<'EOT'
import boto3
try:
    print("region", boto3.session.Session().region_name)
except Exception as error:
    print(type(error).__name__)
EOT
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check boto3==1.43.11
CARGO_TARGET_DIR="$folder/target" cargo build --quiet
cargo tree --depth 1 --prefix none | grep '^aws-config'
python/bin/pip list --disable-pip-version-check 2>/dev/null | grep '^boto3'

look() {
    echo "$*:"
    echo "  aws-config: $(env --ignore-environment HOME="$folder/home" "$@" target/debug/empty)"
    echo "  boto3: $(env --ignore-environment HOME="$folder/home" "$@" python/bin/python other.py)"
}

{
    look AWS_DEFAULT_REGION=eu-west-1
    look AWS_REGION= AWS_DEFAULT_REGION=eu-west-1
    look AWS_REGION=
    look AWS_PROFILE=
    look AWS_ACCESS_KEY_ID= AWS_SECRET_ACCESS_KEY=
    look AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=secret AWS_SESSION_TOKEN=
} > seen
cat seen
cat > expected <<'EOT'
AWS_DEFAULT_REGION=eu-west-1:
  aws-config: region of variables Some("eu-west-1"), of the file Some("eu-west-3"), of both Some("eu-west-1"); keys false, token false
  boto3: region eu-west-1
AWS_REGION= AWS_DEFAULT_REGION=eu-west-1:
  aws-config: region of variables Some(""), of the file Some("eu-west-3"), of both Some(""); keys false, token false
  boto3: region eu-west-1
AWS_REGION=:
  aws-config: region of variables Some(""), of the file Some("eu-west-3"), of both Some(""); keys false, token false
  boto3: region eu-west-3
AWS_PROFILE=:
  aws-config: region of variables None, of the file None, of both None; keys false, token false
  boto3: ProfileNotFound
AWS_ACCESS_KEY_ID= AWS_SECRET_ACCESS_KEY=:
  aws-config: region of variables None, of the file Some("eu-west-3"), of both Some("eu-west-3"); keys false, token false
  boto3: region eu-west-3
AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=secret AWS_SESSION_TOKEN=:
  aws-config: region of variables None, of the file Some("eu-west-3"), of both Some("eu-west-3"); keys true, token false
  boto3: region eu-west-3
EOT
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
