#!/usr/bin/env bash
# What ships into a Cloud Foundry container, run as the platform runs it: the launcher's own script, its environment,
# its folders; the buildpack with its four arguments. Only loopback is used, and nothing outside a temporary folder.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

sidecar=$PWD/sidecar
cargo build --quiet --locked --bin outrider || exit 1
outrider=${CARGO_TARGET_DIR:-$PWD/target}/debug/outrider

work=$(mktemp -d)
started=()
passed=0
failed=0

# Ends what was started here, by its process number, and nothing else.
end() {
  local process
  for process in "${started[@]}"; do kill "$process" 2>/dev/null; done
  # A second signal ends at once a proxy that takes the other processes of this machine for its app.
  [ ${#started[@]} = 0 ] || sleep 0.1
  for process in "${started[@]}"; do kill "$process" 2>/dev/null; done
  for process in "${started[@]}"; do wait "$process" 2>/dev/null; done
  started=()
}
service=
trap 'end; [ -z "$service" ] || kill "$service" 2>/dev/null; rm -rf "$work"' EXIT

# is NAME COMMAND...: one check.
is() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok: $name"
  else
    failed=$((failed + 1))
    echo "FAILED: $name"
    sed 's/^/    /' "$work/out" "$work/err" 2>/dev/null
  fi
}
not() { ! "$@"; }
out_has() { grep -qF -- "$1" "$work/out"; }
err_has() { grep -qF -- "$1" "$work/err"; }

launcher=$(cat tests/launcher.sh)

# A new container with an app's folder; the proxy listens on a port that is free now.
container() {
  end
  home=$work/container-$((containers += 1))
  mkdir -p "$home/app" "$home/deps" "$home/profile.d" "$home/tmp"
  port=$(free_port)
}
containers=0

free_port() {
  local port
  for ((;;)); do
    port=$((20000 + RANDOM % 12000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo $port
}

# The app's folder as sidecar/install makes it.
pushed() {
  container
  "$sidecar/install" "$home/app" "$outrider" >"$work/out" || return
  printf 'listen: 127.0.0.1:%s\nadmin: false\negress: { default: tunnel }\n' "$port" >"$home/app/outrider.yml"
}

application() {
  printf '{"application_id":"1","name":"%s","limits":{"mem":128}%s}' "${2:-my-app}" \
    "${1:+,\"process_id\":\"1\",\"process_type\":\"$1\"}"
}

# launch PROCESS_TYPE COMMAND [VARIABLE=VALUE...]: in the foreground; an empty type is a task.
launch() {
  local type=$1 command=$2
  shift 2
  env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$home/app" TMPDIR="$home/tmp" DEPS_DIR="$home/deps" LANG=C.UTF-8 \
    PORT=8080 MEMORY_LIMIT=128m VCAP_APPLICATION="$(application "$type")" "$@" \
    bash -c "$launcher" bash "$home/app" "$command" >"$work/out" 2>"$work/err"
}

# The sidecar, in the background, once it listens.
sidecar_runs() {
  env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$home/app" TMPDIR="$home/tmp" DEPS_DIR="$home/deps" LANG=C.UTF-8 \
    VCAP_APPLICATION="$(application web)" \
    bash -c "$launcher" bash "$home/app" "${1:-exec ./outrider run}" >"$work/sidecar" 2>&1 &
  started+=($!)
  listens
}

listens() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    sleep 0.05
  done
  cat "$work/sidecar" >&2
  return 1
}

# The app of a destination that uses bound services, and variables that hold the same secrets.
with_secrets() {
  pushed || return
  cat >>"$home/app/outrider.yml" <<YAML
destinations:
  weather: { hosts: [weather.test], auth: { bearer: vcap:weather/token } }
  other: { hosts: [other.test], auth: { bearer: env:OTHER_TOKEN } }
YAML
}
services='VCAP_SERVICES={"user-provided":[{"name":"weather","credentials":{"token":"canary-vcap","uri":"https://u:canary-vcap@h"}}]}'
secrets=("$services" OTHER_TOKEN=canary-env COPY=a-canary-env-b)

# secret_sidecar_runs: as sidecar_runs, with the secrets.
secret_sidecar_runs() {
  env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$home/app" TMPDIR="$home/tmp" VCAP_APPLICATION="$(application web)" "${secrets[@]}" \
    bash -c "$launcher" bash "$home/app" "exec ./outrider run" >"$work/sidecar" 2>&1 &
  started+=($!)
  listens
}

echo "--- placeholders"
with_secrets
is "the sidecar starts first" secret_sidecar_runs
launch web env "${secrets[@]}"
is "the app has no secret of a bound service or a variable" not out_has canary
is "but a placeholder" out_has "OTHER_TOKEN=outrider-OTHER_TOKEN-"
is "also in its bound services, which stay JSON" grep -q \
  '^VCAP_SERVICES={"user-provided":\[{"name":"weather","credentials":{"token":"outrider-weather_token-[a-z0-9]*","uri":"https://u:outrider-' "$work/out"
placeholder=$(sed -n 's/^OTHER_TOKEN=//p' "$work/out")
is "and in copies" out_has "COPY=a-$placeholder-b"
launch web "curl -sS http://weather.test/ -H 'Authorization: Bearer $placeholder'" "${secrets[@]}"
is "the sidecar knows it, and refuses it elsewhere" out_has '"reason":"placeholder"'
is "the file of both is for this user only" test "$(stat -c %a "$home/tmp/outrider/placeholders.json")" = 600
launch web env "${secrets[@]}"
is "a second process has the same" out_has "OTHER_TOKEN=$placeholder"
launch "" "env" "${secrets[@]}" OUTRIDER_WITHOUT_SIDECAR=direct
is "what calls past outrider keeps its secrets" out_has canary-env

with_secrets
launch "" "./outrider exec -- env" "${secrets[@]}"
is "a task under exec has no secret" not out_has canary
is "but a placeholder, too" out_has "OTHER_TOKEN=outrider-OTHER_TOKEN-"
(sleep 1 && exec env -i PATH=/usr/bin:/bin HOME="$home/app" TMPDIR="$home/tmp" VCAP_APPLICATION="$(application web)" "${secrets[@]}" \
  "$home/app/outrider" run --config "$home/app/outrider.yml" >"$work/sidecar" 2>&1) &
started+=($!)
# shellcheck disable=SC2016
launch web 'env; curl -sS http://weather.test/ -H "Authorization: Bearer $OTHER_TOKEN"' "${secrets[@]}"
is "the app starts first, and has no secret either" not out_has canary
is "and the sidecar knows what the app has" out_has '"reason":"placeholder"'

echo "--- the profile script"
pushed
is "the sidecar starts by the manifest's command" sidecar_runs
launch web env
is "a web process gets the proxy" out_has "https_proxy=http://127.0.0.1:$port"
is "and the bundle" out_has "SSL_CERT_FILE=$home/tmp/outrider/ca-bundle.pem"
is "which is there when the app starts" test -s "$home/tmp/outrider/ca-bundle.pem"
is "and Java's options" out_has "-Djavax.net.ssl.trustStore=$home/tmp/outrider/truststore.p12"
is "without a word" not test -s "$work/err"

# The command after && only looks like the sidecar's. What it starts beside outrider must not call past the proxy.
# shellcheck disable=SC2016
for command in 'exec ./outrider run' 'exec $DEPS_DIR/0/bin/outrider run --config x' '"./outrider" run' \
  'outrider exec -- python3 app.py'; do
  for type in web ""; do
    launch "$type" "env; false && $command" OUTRIDER_WAIT=9
    is "nothing that starts beside outrider calls past it: ${type:-task}, $command" out_has "HTTPS_PROXY=http://127.0.0.1:"
    is "without a word" not test -s "$work/err"
  done
done
launch "" "env; false && outrider exec" OUTRIDER_WITHOUT_SIDECAR=direct
is "unless the user says so" not out_has _proxy
launch web "env; false && ./outrider-tools run" OUTRIDER_WAIT=0
is "a command that only resembles it does" out_has "https_proxy="

launch "" env
is "a task, which has no sidecar, cannot call past it" out_has "https_proxy=http://127.0.0.1:$port"
is "and is told what to do" err_has "a task has no sidecar; run \`outrider exec -- CMD\`"
launch "" env OUTRIDER_WITHOUT_SIDECAR=direct
is "unless the user says so" not out_has _proxy
is "without a word" not test -s "$work/err"
launch worker env
is "a process type without the sidecar cannot either" out_has "https_proxy=http://127.0.0.1:$port"
is "and is told by its name" err_has "the process type worker has no sidecar"
launch worker env OUTRIDER_WITHOUT_SIDECAR=direct
is "unless the user says so, of it" not out_has _proxy
launch "" env OUTRIDER_WITHOUT_SIDECAR=direct OUTRIDER_PROCESS_TYPES="web,  worker"
is "nor is a task one of the listed process types" not out_has _proxy
launch web env OUTRIDER_WITHOUT_SIDECAR=direct
is "which is nothing to a process that has it" out_has "https_proxy="
launch worker env OUTRIDER_PROCESS_TYPES="web, worker"
is "one that is listed has it" out_has "https_proxy="
is "and nothing is said" not test -s "$work/err"
launch "" env VCAP_APPLICATION="$(application "" '\",\"process_type\":\"web')"
is "a name cannot pass for a process type" err_has "a task has no sidecar"
launch "" "" VCAP_APPLICATION="$(application "")" BASH_ENV=/dev/null
is "what is no process of the app is left alone" not test -s "$work/err"
launch web env VCAP_APPLICATION=
is "and so is another platform" not out_has _proxy

launch web env NO_PROXY=db.internal JAVA_TOOL_OPTIONS=-Xmx64m
is "NO_PROXY keeps what it had" out_has "apps.internal,.apps.internal,db.internal"
is "JAVA_TOOL_OPTIONS, too" out_has "JAVA_TOOL_OPTIONS=-Xmx64m -Dhttp.proxyHost="

# However the sidecar is wrapped, it does not wait for itself, and keeps its secrets.
printf '#!/bin/bash\nset -e\nexec ./outrider run\n' >"$home/app/start-sidecar.sh" && chmod 755 "$home/app/start-sidecar.sh"
cp "$home/app/outrider" "$home/app/outrider-0.1.0"
end
for command in 'exec ./start-sidecar.sh' './outrider-0.1.0 run' './outrider run; echo ended' 'OUTRIDER_ROLE=sidecar exec python3 x'; do
  start=$SECONDS
  launch web "env; false && $command" OUTRIDER_WAIT=9
  is "it does not wait for itself: $command" test $((SECONDS - start)) -le 4
  is "and says nothing" not test -s "$work/err"
done
is "a wrapped sidecar runs" sidecar_runs 'exec ./start-sidecar.sh'

# Strict scripts of others before ours, a look at the shell after it.
# shellcheck disable=SC2016
echo 'set -eu -f -a -T -E -C -o pipefail; IFS=:; shopt -s nullglob failglob nocasematch extglob; trap "echo trapped" ERR; before="$(set -o; shopt || :; compgen -A function || :; compgen -v || :)"' \
  >"$home/app/.profile.d/a.sh"
# shellcheck disable=SC2016
echo 'after="$(set -o; shopt || :; compgen -A function || :; compgen -v || :)"
diff <(echo "$before") <(echo "$after") | grep "^[<>]" | grep -viE "proxy|CA|CERT|SSL|NODE_|JAVA_|PHP_INI_|WGETRC|before|BASH_|PIPESTATUS|_$" || echo nothing left behind' \
  >"$home/app/.profile"
launch web env
is "it works under set -e and set -u of others" out_has "https_proxy="
is "no trap of others goes off" not out_has trapped
is "it leaves no names and no options behind" out_has "nothing left behind"
launch "" env
is "it works so for a task" out_has "nothing left behind"
rm "$home/app/.profile" "$home/app/.profile.d/a.sh"

pushed
launch web env OUTRIDER_WAIT=0
is "without a proxy the app starts, and cannot call past it" out_has "https_proxy="
is "and somebody is told" err_has "nothing listens on 127.0.0.1:$port"
start=$SECONDS
launch web true OUTRIDER_WAIT=9999
waited=$((SECONDS - start))
is "the wait has a bound, whatever is asked for ($waited s)" test $waited -le 16 -a $waited -ge 13
(sleep 1 && exec env -i PATH=/usr/bin:/bin HOME="$home/app" TMPDIR="$home/tmp" \
  "$outrider" run --config "$home/app/outrider.yml") >"$work/sidecar" 2>&1 &
started+=($!)
launch web "(: </dev/tcp/127.0.0.1/$port) && test -s \$SSL_CERT_FILE && echo it waited"
is "an app that is first waits for the proxy and its bundle" out_has "it waited"

# closed NAME REASON [PROCESS_TYPE]: the app starts, cannot call past the proxy, and the reason is told.
closed() {
  launch "${3-web}" "env; echo started; curl -sS --max-time 5 http://127.0.0.2:$open/" NO_PROXY=db.internal \
    JAVA_TOOL_OPTIONS=-Xmx64m
  is "$1: the app starts" out_has started
  is "$1: its calls do not pass" not out_has "reached directly"
  is "$1: for any client" out_has "HTTPS_PROXY=http://127.0.0.1:"
  is "$1: NO_PROXY is kept" grep -q "^NO_PROXY=localhost,.*,db.internal$" "$work/out"
  is "$1: and Java's options are" out_has "JAVA_TOOL_OPTIONS=-Xmx64m -Dhttp.proxyHost=127.0.0.1"
  is "$1: the reason is told" err_has "$2"
}
# What could be reached directly: the whole of 127.0.0.0/8 is loopback, and NO_PROXY names 127.0.0.1 only.
open=$(free_port)
mkdir "$work/open" && echo "reached directly" >"$work/open/index.html"
(cd "$work/open" && exec python3 -m http.server --bind 127.0.0.2 "$open") >/dev/null 2>&1 &
service=$!
for ((tries = 0; tries < 200; tries++)); do
  curl -s --noproxy '*' "http://127.0.0.2:$open/" | grep -q "reached directly" && break
  sleep 0.05
done
is "what is not to be reached can be" test $tries -lt 200

pushed
echo "egress: { defualt: deny }" >"$home/app/outrider.yml"
closed "a configuration that is not sound" "outrider.yml:1:"
is "and it is not the program that is blamed" not err_has "cannot run"
printf 'listen: unix:%s/door\n' "$home" >"$home/app/outrider.yml"
closed "a listen that no client can be told of" "listen has no TCP address"
pushed
chmod a-x "$home/app/outrider"
closed "a program that may not be run" "cannot run here (status 126)"
printf '\177ELF of another machine' >"$home/app/outrider" && chmod 755 "$home/app/outrider"
closed "a program for another processor" "cannot run here (status 126)"
cat >"$home/app/outrider" <<'END'
#!/bin/sh
echo "$0: /lib/x86_64-linux-gnu/libc.so.6: version \`GLIBC_2.99' not found (required by $0)" >&2
exit 1
END
closed "a program for a newer C library" "GLIBC_2.99"
is "and it is not the configuration that is blamed" not err_has "sound"
: >"$home/app/outrider"
closed "an empty file, which a shell runs without a word" "is not outrider"
rm "$home/app/outrider"
closed "a program that is not there" "no program $home/app/outrider"
closed "nor for a task" "a task has no sidecar" ""
pushed
closed "a task" "a task has no sidecar" ""
echo 'readonly role=x port=1; printf() { return 1; }' >"$home/app/.profile.d/a.sh"
closed "names of others that are read-only" "the profile script was stopped"
echo 'printf() { return 1; }; sleep() { return 1; }' >"$home/app/.profile.d/a.sh"
launch web env OUTRIDER_WAIT=1
is "functions of others do not prolong the wait" err_has "nothing listens on 127.0.0.1:$port after 1 s"
rm "$home/app/.profile.d/a.sh"
kill "$service"
service=

echo "--- install"
pushed
echo "# mine" >"$home/app/outrider.yml"
"$sidecar/install" "$home/app" "$outrider" >"$work/out" 2>"$work/err"
is "an outrider.yml that is there stays" grep -qx "# mine" "$home/app/outrider.yml"
rm "$home/app/outrider.yml"
"$sidecar/install" "$home/app" "$outrider" >"$work/out" 2>"$work/err"
is "the default is sound" "$home/app/outrider" check --config "$home/app/outrider.yml"
is "a folder that is not there is told" not "$sidecar/install" "$home/nowhere" "$outrider" 2>"$work/err"

echo "--- the buildpack"
supply() {
  env "$@" bash "$work/buildpack/bin/supply" "$home/app" "$home/cache" "$home/deps" 0 >"$work/out" 2>"$work/err"
}
mkdir "$work/buildpack"
"$outrider" package --output "$work/buildpack.zip" >"$work/out" 2>"$work/err"
is "the program makes it" out_has "buildpack.zip"
"$outrider" package --output "$work/again.zip" >/dev/null && cmp "$work/buildpack.zip" "$work/again.zip"
is "equal bytes each time" cmp "$work/buildpack.zip" "$work/again.zip"
is "it unpacks" python3 - "$work/buildpack.zip" "$work/buildpack" <<'PYTHON'
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as zip:
    assert zip.testzip() is None
    for entry in zip.infolist():
        os.chmod(zip.extract(entry, sys.argv[2]), entry.external_attr >> 16)
PYTHON
is "with the right to run the program" test -x "$work/buildpack/outrider" -a -x "$work/buildpack/bin/supply"
for wrong in /bin/bash "$sidecar/README.md" "$work/nothing" "$work" /dev/zero; do
  "$outrider" package --binary "$wrong" --output "$work/wrong.zip" >"$work/out" 2>"$work/err"
  is "$wrong is not packed" test ! -e "$work/wrong.zip"
  is "and the reason is told" err_has "$wrong"
done
printf '\317\372\355\376 a Mac program' >"$work/mac"
is "a program for a Mac is refused" not "$outrider" package --binary "$work/mac" --output "$work/wrong.zip" 2>"$work/err"
is "with what to do" err_has "macOS; name a portable outrider with --binary"

container
is "it supplies an app that brings nothing" supply A=
is "the sidecar is registered for web" grep -qF 'sidecar_for: ["web"]' "$home/deps/0/launch.yml"
# shellcheck disable=SC2016
command='exec $DEPS_DIR/0/bin/outrider run'
is "with a command that knows no folder of staging" grep -qF "command: \"$command\"" "$home/deps/0/launch.yml"
is "and a share of the memory" grep -qF "memory: 64" "$home/deps/0/launch.yml"
is "it writes one line for older final buildpacks, and nothing else" \
  test "$(cd "$home/app" && find . -type f)" = ./.profile.d/outrider_buildpack.sh
# What the finalize of a final buildpack on libbuildpack does: the scripts of each index, and one that names their folders.
# When the app runs, the folder is another one.
cp "$home/deps/0/profile.d/outrider.sh" "$home/profile.d/0_outrider.sh"
mkdir -p "$home/deps/1/bin"
cat >"$home/profile.d/000_multi-supply.sh" <<'SCRIPT'
export PATH=$DEPS_DIR/1/bin:$DEPS_DIR/0/bin$([[ ! -z "${PATH:-}" ]] && echo ":$PATH")
export LD_LIBRARY_PATH=$DEPS_DIR/1/lib$([[ ! -z "${LD_LIBRARY_PATH:-}" ]] && echo ":$LD_LIBRARY_PATH")
SCRIPT
mv "$home/deps" "$home/moved" && mkdir "$home/deps" && mv "$home/moved/0" "$home/moved/1" "$home/deps"
printf 'listen: 127.0.0.1:%s\nadmin: false\n' "$port" >"$home/deps/0/outrider.yml"
is "the sidecar runs with the buildpack's default" sidecar_runs "$command"
launch web env
is "and the app is sent through it" out_has "https_proxy=http://127.0.0.1:$port"
launch "" env
is "a task knows the configuration, for outrider exec" out_has "OUTRIDER_CONFIG=$home/deps/0/outrider.yml"
is "and cannot call past the proxy" out_has "https_proxy=http://127.0.0.1:$port"

# An older final buildpack copies no profile scripts.
end
rm "$home/profile.d/0_outrider.sh" "$home/profile.d/000_multi-supply.sh"
is "with an older final buildpack the sidecar runs" sidecar_runs "$command"
launch web 'env; command -v outrider'
is "and the app is sent through it all the same" out_has "https_proxy=http://127.0.0.1:$port"
is "and knows the program" out_has "$home/deps/0/bin/outrider"

container
is "several process types are registered" supply OUTRIDER_PROCESS_TYPES="web, worker" OUTRIDER_MEMORY=48
is "by name" grep -qF 'sidecar_for: ["web", "worker"]' "$home/deps/0/launch.yml"
is "the script knows them" grep -qF 'OUTRIDER_PROCESS_TYPES:-web,worker' "$home/deps/0/profile.d/outrider.sh"
container
is "a process type that would become a command stops the push" not supply OUTRIDER_PROCESS_TYPES='web}; id #'
ln -s nowhere "$home/app/outrider.yml"
is "so does a link to a configuration that leads nowhere" not supply A=
rm "$home/app/outrider.yml"
is "so does a memory that is no number" not supply OUTRIDER_MEMORY=64M
echo "destinations: { x: { hosts: [a.test], rate_limt: 1/s } }" >"$home/app/outrider.yml"
is "so does a configuration that is not sound" not supply A=
is "with its place, as the app names it" grep -q '^ *outrider.yml:1:' "$work/out"
is "and a word to the push" err_has "the push is stopped"
is "unless the check is turned off" supply OUTRIDER_CHECK=off
# What only the running app has: bound services, instance identity, variables, files that a start command writes.
container
cat >"$home/app/outrider.yml" <<YAML
destinations:
  weather: { hosts: [weather.test], auth: { bearer: vcap:weather/token } }
  partner: { hosts: [partner.test], tls: { client_certificate: instance_identity }, auth: { basic: { username: app, password: env:LATER } } }
  files: { hosts: [files.test], auth: { bearer: file:/etc/later } }
  vague: { hosts: ["*.test"], auth: { bearer: env:LATER } }
YAML
is "secrets that staging lacks do not stop it" supply A=
is "and what is probably wrong is shown" grep -qi 'warning: outrider.yml:5:' "$work/out"
is "it never claims an app" not bash "$work/buildpack/bin/detect" "$home/app"

echo "--- elsewhere"
is "the folder of the image is made" sh sidecar/elsewhere/rootfs "$outrider" "$work/rootfs"
if [ "$(id -u)" = 0 ]; then
  image_port=$(free_port)
  printf 'listen: 127.0.0.1:%s\nadmin: false\n' "$image_port" >"$work/rootfs/etc/outrider/outrider.yml"
  chroot --userspec=65532:65532 "$work/rootfs" /outrider run --config /etc/outrider/outrider.yml >"$work/out" 2>&1 &
  started+=($!)
  port_before=$port port=$image_port
  is "outrider runs from it, without a shell and without root" listens
  port=$port_before
  end
else
  echo "SKIPPED: a folder becomes the root for root only"
fi
if command -v systemd-analyze >/dev/null; then
  sed "s|/usr/local/bin/outrider|$outrider|" sidecar/elsewhere/outrider.service >"$work/outrider.service"
  is "the unit is sound" systemd-analyze verify "$work/outrider.service"
else
  echo "SKIPPED: no systemd-analyze, which reads the unit"
fi

echo "--- the example"
is "its configuration is sound" "$outrider" check --config sidecar/example/outrider.yml
is "the manifest starts the sidecar so that signals reach it" grep -qxF '    command: exec ./outrider run' manifest.yml
is "and sets no proxy while the app is staged" not grep -qiE '^ *https?_proxy' manifest.yml
if command -v python3 >/dev/null; then
  container
  cp -r sidecar/example/. "$home/app/"
  "$sidecar/install" "$home/app" "$outrider" >"$work/out"
  service=$(free_port)
  mkdir "$home/service" && echo "the service answers" >"$home/service/index.html"
  (cd "$home/service" && exec python3 -m http.server --bind 127.0.0.1 "$service") >/dev/null 2>&1 &
  started+=($!)
  cat >"$home/app/outrider.yml" <<YAML
listen: 127.0.0.1:$port
admin: false
dns: { hosts: { api.test: 127.0.0.1 } }
egress: { allow_networks: [loopback] }
destinations: { service: { hosts: ["api.test:$service"] } }
YAML
  is "its sidecar starts" sidecar_runs
  web=$(free_port)
  env -i PATH="$PATH" HOME="$home/app" TMPDIR="$home/tmp" PORT="$web" EXAMPLE_URL="http://api.test:$service/" \
    VCAP_APPLICATION="$(application web)" \
    bash -c "$launcher" bash "$home/app" "exec python3 app.py" >"$work/err" 2>&1 &
  started+=($!)
  port=$web
  is "the app starts" listens
  # Only the proxy knows where api.test is.
  curl -sS --noproxy '*' --max-time 20 "http://127.0.0.1:$web/" >"$work/out" 2>>"$work/err"
  is "its call goes through the proxy" out_has "the service answers"
fi

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
