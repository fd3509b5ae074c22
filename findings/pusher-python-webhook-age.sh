#!/usr/bin/env bash
# pusher for Python: a webhook with a right signature is refused when it is older than five minutes, without a reason.
#
# Guess:   `validate_webhook` says whether key and signature are right, as the libraries for other languages do; a
#          webhook that was tried again for long, or sent again by hand the next day, is still what it was.
# Truth:   it also looks at `time_ms`, which Pusher leaves as it was at each retry: beyond 300 000 ms from this
#          machine's clock, back or ahead, it returns None, which is what it returns for a forged one. The library for
#          Node takes the same request.
# Version: pusher 3.3.4 for Python, pusher 5.3.4 for Node.
# Matters: an application answers 401, since the library said None; whoever delivers sees a wrong secret where there is
#          a slow queue or a clock that is off, and no later attempt can succeed. Deliver within five minutes, or
#          expect Python receivers to refuse.
#
# Valid input only: a body as Pusher sends it, signed with the app's secret.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/pusher-python-webhook-age.sh [--help]

Shows what the server libraries for Python and Node say of webhooks of different age, and exits with 1 if that
changes. Installs both with pip and npm in a temporary folder; takes half a minute.
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
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check pusher==3.3.4
npm install --silent --no-audit --no-fund pusher@5.3.4 > /dev/null
cat > look.py <<'EOT'
import sys
import pusher
client = pusher.Pusher(app_id="1", key="key", secret="secret")
taken = client.validate_webhook("key", sys.argv[1], sys.argv[2])
print("refused" if taken is None else "taken")
EOT
cat > look.js <<'EOT'
const Pusher = require("pusher")
const client = new Pusher({ appId: "1", key: "key", secret: "secret" })
const [signature, rawBody] = process.argv.slice(2)
const headers = { "x-pusher-key": "key", "x-pusher-signature": signature, "content-type": "application/json" }
console.log(client.webhook({ headers, rawBody }).isValid() ? "taken" : "refused")
EOT
python/bin/pip list --disable-pip-version-check 2>/dev/null | grep '^pusher '
npm list --depth 0 | grep -o 'pusher@.*'

now="$(date +%s)"
sign() {
    printf '%s' "$1" | openssl dgst -sha256 -hmac "$2" | sed 's/^.* //'
}
look() {
    local body signature
    body="{\"time_ms\":$((now + $2))000,\"events\":[{\"name\":\"channel_occupied\",\"channel\":\"news\"}]}"
    signature="$(sign "$body" "$3")"
    echo "$1: Python $(python/bin/python look.py "$signature" "$body"), Node $(node look.js "$signature" "$body")"
}
{
    look "new" 0 secret
    look "new, signed with another secret" 0 other
    look "4 minutes old" -240 secret
    look "6 minutes old" -360 secret
    look "a day old" -86400 secret
    look "6 minutes ahead" 360 secret
} > seen
cat seen
cat > expected <<'EOT'
new: Python taken, Node taken
new, signed with another secret: Python refused, Node refused
4 minutes old: Python taken, Node taken
6 minutes old: Python refused, Node taken
a day old: Python refused, Node taken
6 minutes ahead: Python refused, Node taken
EOT
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
