#!/usr/bin/env bash
# pusher for Node: a webhook whose Content-Type has a parameter is invalid, as if it were forged.
#
# Guess:   `webhook(request).isValid()` checks key and signature; `application/json; charset=utf-8` is JSON, as every
#          HTTP framework has it, and as many send and rewrite it.
# Truth:   the header must be `application/json` to the letter. With a parameter, or in other case, isValid() is false,
#          and getData() throws "Invalid WebHook body", though signature and body are right. The library for Python does
#          not look at the header.
# Version: pusher 5.3.4 for Node, pusher 3.3.4 for Python.
# Matters: a sender that names its charset, or a gateway that adds it, makes every webhook of a Node application "forged".
#          Send the bare type.
#
# Valid input only: a body as Pusher sends it, signed with the app's secret; a media type with a charset (RFC 9110, 8.3.1).
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/pusher-node-webhook-content-type.sh [--help]

Shows what the server libraries for Node and Python say of webhooks with different Content-Types, and exits with 1 if
that changes. Installs both with npm and pip in a temporary folder; takes half a minute.
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
npm install --silent --no-audit --no-fund pusher@5.3.4 > /dev/null
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check pusher==3.3.4
cat > look.js <<'EOT'
const { createHmac } = require("crypto")
const Pusher = require("pusher")
const client = new Pusher({ appId: "1", key: "key", secret: "secret" })
const rawBody = JSON.stringify({ time_ms: Date.now(), events: [{ name: "channel_occupied", channel: "news" }] })
const signature = createHmac("sha256", "secret").update(rawBody).digest("hex")
for (const type of ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"]) {
  const headers = { "x-pusher-key": "key", "x-pusher-signature": signature, "content-type": type }
  const webhook = client.webhook({ headers, rawBody })
  let data
  try {
    data = `${webhook.getData().events.length} event`
  } catch (error) {
    data = `${error.name}, ${error.message}`
  }
  console.log(`${type}: valid ${webhook.isValid()}, data ${data}`)
}
require("fs").writeFileSync("body", rawBody)
require("fs").writeFileSync("signature", signature)
EOT
cat > look.py <<'EOT'
import pusher
client = pusher.Pusher(app_id="1", key="key", secret="secret")
taken = client.validate_webhook("key", open("signature").read(), open("body").read())
print("Python, which is given no header: valid", taken is not None)
EOT
npm list --depth 0 | grep -o 'pusher@.*'
python/bin/pip list --disable-pip-version-check 2>/dev/null | grep '^pusher '
{
    node look.js
    python/bin/python look.py
} > seen
cat seen
cat > expected <<'EOT'
application/json: valid true, data 1 event
application/json; charset=utf-8: valid false, data PusherWebHookError, Invalid WebHook body
application/json;charset=UTF-8: valid false, data PusherWebHookError, Invalid WebHook body
Application/JSON: valid false, data PusherWebHookError, Invalid WebHook body
Python, which is given no header: valid True
EOT
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
