#!/usr/bin/env bash
# compliance-trestle warns of a resource that nothing references where its UUID is of version 5.
#
# Version: compliance-trestle 5.2.0.
# Behaviour: OSCAL allows UUIDs of version 4 and 5, and trestle accepts both as identifiers. A document with a link to a
#   resource by `#UUID` is valid either way. But `trestle validate` looks for links by a pattern of version 4 alone: with
#   version 5 it warns that the resource is not referenced, and the exit code stays 0.
# Guess that was wrong: what may be an identifier is also seen where it is referenced.
# Output seen:
#   version 4: valid, 0 warnings
#   version 5: valid, 1 warnings
#
# Needs python3 with venv. Everything is in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check compliance-trestle==5.2.0
mkdir -p "$tmp/space/component-definitions/one"
cd "$tmp/space"
"$tmp/venv/bin/trestle" init --local >/dev/null 2>&1
seen=''
for version in 4 5; do
  resource=1b4e28ba-2fa1-${version}1d2-883f-0016d3cca427
  cat >component-definitions/one/component-definition.json <<JSON
{ "component-definition": {
  "uuid": "6fa459ea-ee8a-4ca4-894e-db77e160355e",
  "metadata": { "title": "t", "last-modified": "2026-01-01T00:00:00Z", "version": "1", "oscal-version": "1.1.3" },
  "components": [{ "uuid": "886313e1-3b8a-4372-9b90-0c9aee199e5d", "type": "software", "title": "t", "description": "d",
    "links": [{ "href": "#$resource", "rel": "reference" }] }],
  "back-matter": { "resources": [{ "uuid": "$resource", "title": "r", "rlinks": [{ "href": "file.yml" }] }] } } }
JSON
  verdict=valid
  said=$("$tmp/venv/bin/trestle" validate -f component-definitions/one/component-definition.json 2>&1) || verdict=invalid
  seen+="version $version: $verdict, $(grep -c 'not referenced' <<<"$said" || true) warnings"$'\n'
done
printf %s "$seen"
[ "$seen" = "version 4: valid, 0 warnings
version 5: valid, 1 warnings
" ] || { echo "it behaves otherwise now" >&2; exit 1; }
