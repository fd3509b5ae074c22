#!/usr/bin/env bash
# Redis: a right that is missing is NOPERM, but not where a script finds it missing: there it is ERR, and words.
#
# Guess:   whoever lacks a right is answered NOPERM, wherever that is found out; a client that looks at the code of an
#          error knows what to tell its operator.
# Truth:   a command, and the keys that EVAL itself is given, are refused with NOPERM. A command that the script calls,
#          or a key that it makes up, is refused with `ERR The user executing the script can't …`: the code that a
#          wrong argument and an unknown command have too. `redis.pcall` sees the same words. The server's own
#          ACL LOG knows both kinds, by its context.
# Version: Redis 7.0.15, as Debian 12 has it.
# Matters: a rule such as "NOPERM: tell the operator and wait; ERR: our own fault, give up" takes a user with a right
#          too few for a broken script, and a test with a user without any right does not show it, since EVAL itself
#          is refused then.
#
# Valid input only: a user with some rights, and scripts that are allowed to run.
set -euo pipefail

usage() {
    cat <<'EOT'
Usage: findings/redis-script-permission.sh [--port PORT]
       findings/redis-script-permission.sh --help

Shows how Redis names a right that is missing, to a command and to a script, and exits with 1 if that changes.
Fetches Redis with apt-get into a temporary folder; installs nothing. Takes a few seconds.

  --port PORT  1024 to 65535 (default 17690)
EOT
}

port=17690
while [ $# -gt 0 ]; do
    case "$1" in
        --help) usage; exit 0 ;;
        --port) [[ "${2:-}" =~ ^[0-9]{4,5}$ ]] || { usage >&2; exit 2; }; port="$2"; shift 2 ;;
        *) usage >&2; exit 2 ;;
    esac
done
((port >= 1024 && port <= 65535)) || { usage >&2; exit 2; }

packages=(redis-tools=5:7.0.15-1~deb12u10 liblzf1=3.6-3 libjemalloc2=5.3.0-1)

folder="$(mktemp --directory)"
cleanup() {
    local pid
    if pid="$(cat "$folder/pid" 2>/dev/null)"; then
        kill "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    fi
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
ln --symbolic "$folder/unpacked/usr/bin/redis-check-rdb" redis-server
./redis-server --version
./redis-server --port "$port" --bind 127.0.0.1 --dir "$folder" --logfile log --save '' --daemonize yes \
    --pidfile "$folder/pid" > /dev/null

ask() {
    unpacked/usr/bin/redis-cli -h 127.0.0.1 -p "$port" --no-auth-warning "$@" 2>&1
}
until [ "$(ask ping)" = PONG ]; do
    ((SECONDS < 30)) || { echo "CHANGED: the server does not answer" >&2; exit 1; }
    sleep 0.05
done
ask acl setuser worker on '>word' '~own:*' '+@read' +eval > /dev/null

# The script's hash and the place in it are of no interest.
look() {
    local said
    said="$(ask --user worker --pass word "$@" | sed 's/ script: [0-9a-f]*, on.*//; /^$/d')"
    printf '%-60s %s\n' "${*:1:2}" "$said"
}

{
    look del own:a
    look eval "return redis.call('del', 'own:a')" 0
    look eval "return redis.pcall('del', 'own:a').err" 0
    look get other:a
    look eval "return redis.call('get', KEYS[1])" 1 other:a
    look eval "return redis.call('get', 'other:a')" 0
    look eval "return redis.call('nothing')" 0
    echo "log of refusals: $(ask acl log | grep --after-context 1 '^context$' | grep --extended-regexp '^(toplevel|lua)$' |
        sort | uniq | paste --serial --delimiters ' ')"
} > seen
cat seen
cat > expected <<'EOT'
del own:a                                                    NOPERM this user has no permissions to run the 'del' command
eval return redis.call('del', 'own:a')                       ERR The user executing the script can't run this command or subcommand
eval return redis.pcall('del', 'own:a').err                  ERR The user executing the script can't run this command or subcommand
get other:a                                                  NOPERM this user has no permissions to access one of the keys used as arguments
eval return redis.call('get', KEYS[1])                       NOPERM this user has no permissions to access one of the keys used as arguments
eval return redis.call('get', 'other:a')                     ERR The user executing the script can't access at least one of the keys mentioned in the command arguments
eval return redis.call('nothing')                            ERR Unknown Redis command called from script
log of refusals: lua toplevel
EOT
diff expected seen >&2 || { echo "CHANGED: see above" >&2; exit 1; }
