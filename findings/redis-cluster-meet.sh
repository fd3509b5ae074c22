#!/usr/bin/env bash
# Redis: `CLUSTER MEET` says OK of a node that it then forgets without a word.
#
# Guess:   OK means that the other node will be met, if not now then when it comes: a node of a cluster is tried
#          for as long as it is known.
# Truth:   OK means that host and port can be read. The handshake is tried for cluster-node-timeout (a second at
#          least). Who is not there by then is taken from the table; nothing is logged at the default level, and a
#          node that comes a moment later is never tried. Asked again while it runs, they meet.
# Version: Redis 7.0.15, as Debian 12 has it.
# Matters: a script that starts the servers of a cluster together and introduces them once makes a cluster with a
#          server missing, on a slow day only, and every command of it said OK. After MEET ask CLUSTER NODES until
#          the other is there, and meet again while it is not.
#
# Valid input only: both servers have cluster-enabled, the port is the other's, which starts after the time-out.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/redis-cluster-meet.sh [--port PORT]
       findings/redis-cluster-meet.sh --help

Shows that CLUSTER MEET forgets a node that starts later than cluster-node-timeout, and exits with 1 if it does not.
Fetches Redis with apt-get into a temporary folder; installs nothing. Takes a quarter of a minute.

  --port PORT  the first of two, each with another one 10000 above it, 1024 to 55000 (default 17680)
EOT
}

port=17680
while [ $# -gt 0 ]; do
    case "$1" in
        --help) usage; exit 0 ;;
        --port) [[ "${2:-}" =~ ^[0-9]{4,5}$ ]] || { usage >&2; exit 2; }; port="$2"; shift 2 ;;
        *) usage >&2; exit 2 ;;
    esac
done
((port >= 1024 && port <= 55000)) || { usage >&2; exit 2; }
late=$((port + 1))

packages=(redis-tools=5:7.0.15-1~deb12u10 liblzf1=3.6-3 libjemalloc2=5.3.0-1)
timeout_ms=3000

folder="$(mktemp --directory)"
cleanup() {
    for file in "$folder"/*.pid; do
        kill "$(cat "$file")" 2>/dev/null || true
    done
    rm --recursive --force "$folder"
}
trap cleanup EXIT

cd "$folder"
apt-get download "${packages[@]}" > fetched 2>&1 || { cat fetched >&2; exit 1; }
for package in ./*.deb; do
    dpkg-deb --extract "$package" unpacked
done
LD_LIBRARY_PATH="$(echo "$folder"/unpacked/usr/lib/*-linux-gnu)"
export LD_LIBRARY_PATH
# One program that looks at its name.
server="$folder/redis-server"
ln --symbolic "$folder/unpacked/usr/bin/redis-check-rdb" "$server"
"$server" --version

start() {
    mkdir "$folder/$1"
    "$server" --port "$1" --bind 127.0.0.1 --dir "$folder/$1" --logfile "$folder/$1.log" --save '' \
        --cluster-enabled yes --cluster-node-timeout "$timeout_ms" --daemonize yes --pidfile "$folder/$1.pid" \
        > /dev/null
    await "the server at port $1" answers "$1"
}

ask() {
    "$folder/unpacked/usr/bin/redis-cli" -h 127.0.0.1 -p "$@" 2>/dev/null
}

answers() {
    [ "$(ask "$1" ping)" = PONG ]
}

known() {
    ask "$1" cluster nodes | grep --count .
}

# await WHAT CONDITION...: within half a minute, or the finding has changed.
await() {
    local what="$1" until=$((SECONDS + 30))
    shift
    until "$@"; do
        ((SECONDS < until)) || changed "$what: not within half a minute"
        sleep 0.05
    done
}

knows() {
    [ "$(known "$1")" = "$2" ]
}

changed() {
    echo "CHANGED: $*" >&2
    exit 1
}

start "$port"
lines="$(wc --lines < "$port.log")"
said="$(ask "$port" cluster meet 127.0.0.1 "$late")"
echo "CLUSTER MEET, of a node that is not there yet: $said"
[ "$said" = OK ] || changed "it is not OK any more"
knows "$port" 2 || changed "the node to come is not in the table"
await "the handshake is given up" knows "$port" 1
echo "after cluster-node-timeout ($timeout_ms ms): nodes in the table: $(known "$port")"
start "$late"
echo "the node to come has come"
# Ten times as long as it takes when they do meet.
until=$((SECONDS + 6))
while ((SECONDS < until)); do
    knows "$port" 1 && knows "$late" 1 || changed "they have met after all"
    sleep 0.1
done
echo "six seconds later: nodes known to the first $(known "$port"), to the late one $(known "$late")"
told="$(tail --lines "+$((lines + 1))" "$port.log")"
echo "lines in the first one's log since: $(printf '%s' "$told" | grep --count . || true)"
[ -z "$told" ] || changed "it is logged: $told"
echo "CLUSTER MEET again: $(ask "$port" cluster meet 127.0.0.1 "$late")"
await "they meet when both are there" knows "$port" 2
await "they meet when both are there" knows "$late" 2
echo "nodes known to the first $(known "$port"), to the late one $(known "$late")"
