# What the origin says is no requirement, and pip repeats it.
for c; do echo "== ${c%%=*}"; "$TOOLS/venv/bin/python" -m pip download --no-deps --retries 0 --timeout 10 --disable-pip-version-check -r "${c#*=}" 2>&1; done
