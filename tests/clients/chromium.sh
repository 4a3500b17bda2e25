# One start: a page that asks for all, and shows what came. Past the proxy each name is the origin, because a page is not told why
# a request failed. With `trusted`, as a user who has added the authorities.
page=$(mktemp -d) && trap 'rm -rf "$page"' EXIT
export HOME="$page"
if [ "$1" = trusted ]; then
  shift
  mkdir -p "$HOME/.pki/nssdb" && certutil -d "sql:$HOME/.pki/nssdb" -N --empty-password
  # outrider's own is the first of the bundle; then comes that of CF_SYSTEM_CERT_PATH, for the tunnel.
  for number in 1 2; do
    awk -v n=$number '/BEGIN CERT/ { i++ } i == n' "$SSL_CERT_FILE" |
      certutil -d "sql:$HOME/.pki/nssdb" -A -n "authority $number" -t C,, -a
  done
fi
{
  echo '<pre id=p></pre><script>const cells = ['
  printf '"%s",\n' "$@"
  cat <<'SCRIPT'
];
(async () => {
  for (const cell of cells) {
    const at = cell.indexOf("="), line = text => document.getElementById("p").append(text + "\n");
    line("== " + cell.slice(0, at));
    try { const answer = await fetch(cell.slice(at + 1)); line(answer.status + " " + await answer.text()); }
    catch (error) { line(String(error)); }
  }
})()</script>
SCRIPT
} >"$page/page.html"
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$page" \
  --disable-features=LocalNetworkAccessChecks --host-resolver-rules='MAP *.test 127.0.0.1' --virtual-time-budget=20000 --dump-dom "file://$page/page.html" 2>/dev/null |
  sed -e 's/.*<pre id="p">//' -e '/<\/pre>/q'
