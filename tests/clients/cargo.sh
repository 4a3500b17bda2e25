CARGO_HOME=$(mktemp -d) CARGO_NET_RETRY=0; export CARGO_HOME CARGO_NET_RETRY; cd "$CARGO_HOME" || exit
for c; do echo "== ${c%%=*}"; "$CARGO" search hello --index "sparse+${c#*=}" 2>&1; done
rm -rf "$CARGO_HOME"
