#!/usr/bin/env bash
# nginx: taking a prefix from a path rewrites the rest of it: what the client escaped arrives unescaped, in part.
#
# Guess:   `location /ws/ { proxy_pass http://backend/; }` replaces /ws/ by / and passes the rest as it came; a signature
#          over the rest holds.
# Truth:   with a path behind the address, or after a `rewrite … break`, the path that was decoded for matching is
#          encoded anew, and nginx escapes less than clients do: `%40`, `%3B`, `%2C`, `%3A`, `%3D` arrive as themselves,
#          `%20`, `%25`, `%7C` as they came, and `%2F` as a slash, which is another path. The query is passed as it came.
#          Without a path behind the address, or where the rest is cut from $request_uri, nothing is changed.
# Version: nginx 1.22.1, as Debian 12 has it.
# Matters: a request whose signature covers its path (as libraries of Pusher and of AWS make them) is refused behind such
#          a proxy for some names only: those with an @ or a comma in them. Cut from $request_uri, or let the server
#          behind know the prefix.
#
# Valid input only: paths as encodeURIComponent writes them.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/nginx-prefix-unescapes.sh [--port PORT]
       findings/nginx-prefix-unescapes.sh --help

Shows what nginx passes of an escaped path, with four ways to write a proxied location, and exits with 1 if that
changes. Fetches nginx with apt-get into a temporary folder; installs nothing. Takes a few seconds.

  --port PORT  the first of two, 1024 to 65000 (default 17700)
EOT
}

port=17700
while [ $# -gt 0 ]; do
    case "$1" in
        --help) usage; exit 0 ;;
        --port) [[ "${2:-}" =~ ^[0-9]{4,5}$ ]] || { usage >&2; exit 2; }; port="$2"; shift 2 ;;
        *) usage >&2; exit 2 ;;
    esac
done
((port >= 1024 && port <= 65000)) || { usage >&2; exit 2; }
behind=$((port + 1))

folder="$(mktemp --directory)"
pids=()
cleanup() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm --recursive --force "$folder"
}
trap cleanup EXIT

cd "$folder"
apt-get download nginx=1.22.1-9+deb12u11 > fetched 2>&1 || { cat fetched >&2; exit 1; }
dpkg-deb --extract ./*.deb unpacked
cat > behind.py <<'EOT'
import http.server
import sys


class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = self.path.encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
EOT
cat > nginx.conf <<EOT
daemon off;
pid $folder/pid;
error_log $folder/log;
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    server {
        listen 127.0.0.1:$port;
        location /path/ { proxy_pass http://127.0.0.1:$behind/; }
        location /rewrite/ { rewrite ^/rewrite(/.*)$ \$1 break; proxy_pass http://127.0.0.1:$behind; }
        location /whole/ { proxy_pass http://127.0.0.1:$behind; }
        location /cut/ {
            rewrite ^ \$request_uri;
            rewrite ^/cut(/.*)$ \$1 break;
            return 400;
            proxy_pass http://127.0.0.1:$behind\$uri;
        }
    }
}
EOT
python3 behind.py "$behind" &
pids+=($!)
unpacked/usr/sbin/nginx -v
unpacked/usr/sbin/nginx -c "$folder/nginx.conf" -e "$folder/log" &
pids+=($!)
until curl --silent --fail --output answer "http://127.0.0.1:$port/whole/"; do
    ((SECONDS < 30)) || { echo "CHANGED: nothing answers" >&2; cat log >&2; exit 1; }
    sleep 0.05
done

for way in whole path rewrite cut; do
    for name in a%40b a%2Cb a%3Bb a%3Ab a%3Db a%20b a%25b a%7Cb a%2Fb; do
        seen="$(curl --silent "http://127.0.0.1:$port/$way/$name?q=%40")"
        echo "$way: $name arrives as ${seen#/whole}"
    done
done > seen
cat seen
for way in whole path rewrite cut; do
    for name in a%40b:a@b a%2Cb:a,b a%3Bb:a\;b a%3Ab:a:b a%3Db:a=b a%20b:a%20b a%25b:a%25b a%7Cb:a%7Cb a%2Fb:a/b; do
        case "$way" in
            whole | cut) echo "$way: ${name%%:*} arrives as /${name%%:*}?q=%40" ;;
            *) echo "$way: ${name%%:*} arrives as /${name#*:}?q=%40" ;;
        esac
    done
done > expected
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
