#!/usr/bin/env bash
# Checks the manifests in deploy/ against Kubernetes' schemas, and that nodefwd accepts the environment
# of their containers. Needs root only to install what is missing.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck disable=SC2034 # setup.sh reads it
packages=(python3 python3-venv)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

manifest=deploy/daemonset.yaml
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

# It contains the schemas of all these versions.
/usr/bin/python3 -m venv "$files/venv"
"$files/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
validate() { "$files/venv/bin/kubernetes-validate" --strict --quiet -k "$1" "$2"; }

for version in 1.25 1.30 1.37; do
    validate "$version" "$manifest" || die "$manifest is not valid for Kubernetes $version"
done
# The check must be able to fail.
sed 's/hostPort:/hostport:/' "$manifest" >"$files/broken.yaml"
! validate 1.37 "$files/broken.yaml" >/dev/null 2>&1 || die "a misspelt field was not noticed"

# Each container's environment on one line of words.
cat >"$files/environments.py" <<'PYTHON'
import sys, yaml

for manifest in yaml.safe_load_all(open(sys.argv[1])):
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        (port,) = container["ports"]
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        assert env["SRC_PORT"] == str(port["containerPort"]) == str(port["hostPort"]), container["name"]
        assert env["DEST_PROTO"] == port["protocol"], container["name"]
        print(*(f"{name}={value}" for name, value in env.items()))
PYTHON
cargo build --release --locked
environments=$("$files/venv/bin/python" "$files/environments.py" "$manifest")
while read -ra environment; do
    env -i "${environment[@]}" "$release_binary" render >/dev/null || die "nodefwd rejects ${environment[*]}"
done <<<"$environments"
echo "$manifest is valid, and nodefwd accepts the environment of its $(wc -l <<<"$environments") containers"
