for c; do echo "== ${c%%=*}"; curl -sSi --max-time 10 "${c#*=}" 2>&1; echo; done
