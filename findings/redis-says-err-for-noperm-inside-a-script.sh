#!/usr/bin/env bash
# Redis says NOPERM to a user who may not run a command, and ERR where a script runs it.
#
# Versions: Redis 7.0.15 (Debian 12); 6.2.5 as well, which puts other errors of a script behind ERR, too.
# Behaviour: the ACL of a user is applied to each command of a script. A command that it lacks is `NOPERM this user has no
#   permissions to run the 'hset' command` alone, and `ERR The user executing the script can't run this command or
#   subcommand script: …` in EVAL: the kind is the one of any error, and the command is not named. All other refusals in a
#   script keep their kind in Redis 7 (READONLY, OOM, NOREPLICAS, WRONGTYPE). In 6.2 they are `ERR Error running script
#   (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't …`, so that a client that looks for READONLY in
#   the first word stays at a server that has become a replica.
# Guess that was wrong: the first word of an error says the same inside and outside of a script.
# Output seen:
#   alone: NOPERM
#   in a script: ERR The user executing the script can't run this command
#   a replica, in a script: READONLY
#
# Needs redis-server and redis-cli. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; wait; rm -rf "$tmp"' EXIT
port=$((12000 + RANDOM % 8000))
redis-server --bind 127.0.0.1 --port "$port" --save '' --dir "$tmp" >/dev/null &
server=$!
for _ in $(seq 100); do
  redis-cli -p "$port" ping >/dev/null 2>&1 && break
  sleep 0.1
done
redis-cli -p "$port" acl setuser app on '>secret' '~*' +eval >/dev/null
as_app() { redis-cli -p "$port" --user app --pass secret --no-auth-warning "$@" 2>&1 || true; }
script="return redis.call('HSET', KEYS[1], 'a', 1)"
alone=$(as_app hset key a 1)
inside=$(as_app eval "$script" 1 key)
redis-cli -p "$port" replicaof 127.0.0.1 1 >/dev/null
replica=$(redis-cli -p "$port" eval "$script" 1 key 2>&1 || true)
seen="alone: ${alone%% *}
in a script: ${inside%% or subcommand*}
a replica, in a script: ${replica%% *}"
echo "$seen"
[ "$seen" = "alone: NOPERM
in a script: ERR The user executing the script can't run this command
a replica, in a script: READONLY" ] || { echo "it behaves otherwise now" >&2; exit 1; }
