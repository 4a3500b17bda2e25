for c; do echo "== ${c%%=*}"; wget -nv -O- --tries=1 --timeout=10 "${c#*=}" 2>&1; echo; done
