# The origin lists one branch, hello-HOST, as a repository on a plain web server does.
for c; do echo "== ${c%%=*}"; GIT_TERMINAL_PROMPT=0 git ls-remote "${c#*=}" 2>&1; done
