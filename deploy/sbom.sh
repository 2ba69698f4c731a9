#!/usr/bin/env bash
# usage: deploy/sbom.sh FILE
# Writes a software bill of materials (CycloneDX, JSON) of the static program to FILE: the crates that are linked into
# it for CARGO_BUILD_TARGET, or this machine, as cargo-cyclonedx describes them; and the C libraries, in the versions of
# this Debian. The same sources give the same bytes.
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: ${0##*/} FILE" >&2 && exit 2; }
file=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Of OWASP, Apache-2.0.
version=0.5.9
tools=$(realpath -m "${CARGO_INSTALL_ROOT:-${CARGO_TARGET_DIR:-target}/tools}")
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
if [[ $("$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null) != *" $version" ]]; then
    # Built for this machine, and without the flags of this folder.
    (cd / && env -u CARGO_BUILD_TARGET cargo install --quiet --locked --debug --root "$tools" "cargo-cyclonedx@$version")
fi

made=nodefwd-$$.cdx
trap 'rm -f "$made.json"' EXIT
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory='*' log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" \
    --no-build-deps --override-filename "$made"
# It lists crates too whose features only tests turn on.
crates=$(cargo tree --locked --edges normal --prefix none --no-dedupe --target "$target" | sed 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/')
# shellcheck disable=SC2016 # dpkg-query fills it in
libraries=$(dpkg-query -Wf '${source:Package} ${source:Version}\n' libnftnl-dev libmnl-dev libc6-dev)
python3 - "$made.json" "$crates" "$libraries" >"$file" <<'EOF'
import json, re, sys

LICENCES = {"libnftnl": "GPL-2.0-or-later", "libmnl": "LGPL-2.1-or-later", "glibc": "LGPL-2.1-or-later"}
with open(sys.argv[1]) as file:
    # References name the folder that it is made in, and the package unless the folder has its name.
    bom = json.loads(re.sub(r'path\+file://[^#"]*#(nodefwd@)?', "nodefwd@", file.read()))
crates = set(sys.argv[2].splitlines())
left_out = {part["bom-ref"] for part in bom["components"] if f"{part['name']} {part['version']}" not in crates}
bom["components"] = [part for part in bom["components"] if part["bom-ref"] not in left_out]
bom["dependencies"] = [entry for entry in bom["dependencies"] if entry["ref"] not in left_out]
for entry in bom["dependencies"]:
    entry["dependsOn"] = [ref for ref in entry.get("dependsOn", []) if ref not in left_out]
for line in sorted(set(sys.argv[3].splitlines())):
    name, version = line.split()
    package = f"pkg:deb/debian/{name}@{version}?arch=source"
    licences = [{"license": {"id": LICENCES[name]}}]
    library = {"type": "library", "bom-ref": package, "name": name, "version": version}
    bom["components"].append({**library, "licenses": licences, "purl": package})
json.dump(bom, sys.stdout, indent=2)
print()
EOF
