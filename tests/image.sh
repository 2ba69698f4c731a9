#!/usr/bin/env bash
# Builds the image for several architectures, and runs that of this one as k3s does: two containers share a
# pod, and clients connect to the pod itself or to host ports that lead to it. It leaves nothing. As root.
# The arguments are the platforms besides this machine's; default: arm64, arm/v7 and riscv64.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/debian.sh
source tests/debian.sh
# shellcheck source=tests/network.sh
source tests/network.sh
# shellcheck source=tests/image/build.sh
source tests/image/build.sh
[[ $EUID -eq 0 ]] || die "the test makes network namespaces and containers: run me as root"
# shellcheck disable=SC2034 # setup.sh reads it
packages=("${podman_packages[@]}" containernetworking-plugins iptables python3 binutils)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

platforms=("$(dpkg --print-architecture)" "$@")
[[ $# -gt 0 ]] || platforms+=(arm64 arm/v7 riscv64)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
id=nodefwd-image-$$
image=localhost/nodefwd:$version
files=$(mktemp -d)
hosts=(client node pod local off backend)

cleanup() {
    # Containers first: they are in the hosts' namespaces.
    end_podman
    end_hosts
    rm -rf --one-file-system "$files"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

SECONDS=0
step() { echo "$SECONDS s: $*"; }

# --- The image --------------------------------------------------------------------------------------

own_podman
step "building the images"
build_images "${platforms[@]}"

step "looking at them"
/usr/bin/python3 tests/image/entries.py target/nodefwd.tar "$files/entries" >"$files/list"
found=$(cut -d' ' -f1 "$files/list" | paste -sd' ')
[[ $found == "${platforms[*]}" ]] || die "the index should hold images for ${platforms[*]}, not for $found"
expected='usr/bin/entry
usr/bin/nodefwd
usr/share/licenses/nodefwd/LICENSE.gz
usr/share/licenses/nodefwd/third-party.gz'
while read -r platform size folder; do
    ((size <= 2 * 1024 * 1024)) || die "the image for $platform takes $size bytes; 2 MiB are allowed"
    contents=$(cd "$folder" && find . ! -type d -printf '%P\n' | sort)
    [[ $contents == "$expected" ]] || die "the image for $platform should hold only these files:"$'\n'"$expected"$'\n'"but it holds:"$'\n'"$contents"
    header=$(readelf --wide --file-header --dynamic --program-headers "$folder/usr/bin/nodefwd")
    [[ ! $header =~ NEEDED|INTERP ]] || die "the program for $platform is not static: $(grep -E 'NEEDED|INTERP' <<<"$header")"
    case $platform in
        amd64) machine=X86-64 ;;
        arm64) machine=AArch64 ;;
        arm/v7) machine=ARM ;;
        riscv64) machine=RISC-V ;;
        s390x) machine='IBM S/390' ;;
        ppc64le) machine=PowerPC64 ;;
        *) die "which machine is $platform? tell this test" ;;
    esac
    [[ $header =~ Machine:[^$'\n']*"$machine" ]] || die "the program for $platform is for another machine: $header"
    step "$platform: $size bytes"
done <"$files/list"
# As a node gets it.
podman manifest rm "$image" >/dev/null
podman rmi --all --force >/dev/null
quietly podman pull oci-archive:target/nodefwd.tar
label=$(podman image inspect --format '{{index .Labels "org.opencontainers.image.version"}}' "$image")
[[ $label == "$version" ]] || die "the image's label says version $label, Cargo.toml says $version"

# --- The network ------------------------------------------------------------------------------------
#
#   client ─── node ─┬─ pod      forwards to the cluster's addresses, which the backend has
#                    ├─ local    forwards to the node's own addresses
#                    └─ backend

cluster4=10.96.0.10 cluster6=fd96::10
node4=10.82.1.1 node6=fd82:1::1 pod4=10.82.2.2 pod6=fd82:2::2 local4=10.82.3.2

make_hosts
link node client 1
link node pod 2
link node local 3
link node backend 4
ip -n "$id-backend" address add "$cluster4/32" dev lo
ip -n "$id-backend" address add "$cluster6/128" dev lo
ip -n "$id-node" route add "$cluster4" via 10.82.4.2
ip -n "$id-node" route add "$cluster6" via fd82:4::2
forwarding node 1 1
forwarding pod 1 1
forwarding local 1 0
forwarding off 0 0

serve backend "TCP4-LISTEN:80,bind=$cluster4,reuseaddr,fork"
serve backend "TCP6-LISTEN:80,bind=[$cluster6],reuseaddr,fork"
serve backend "UDP4-RECVFROM:53,bind=$cluster4,reuseaddr,fork"
serve backend "UDP6-RECVFROM:53,bind=[$cluster6],reuseaddr,fork"
serve node "TCP4-LISTEN:30080,bind=$node4,reuseaddr,fork"

# The host ports of a pod: the same plugin as a node's, with the same input.
publish_host_ports() {
    on node env CNI_COMMAND=ADD CNI_CONTAINERID="$id" CNI_NETNS="/run/netns/$id-pod" CNI_IFNAME=to-node \
        CNI_PATH=/usr/lib/cni /usr/lib/cni/portmap <<JSON
{
  "cniVersion": "0.4.0", "name": "$id", "type": "portmap",
  "runtimeConfig": { "portMappings": [
    { "hostPort": 80, "containerPort": 80, "protocol": "tcp" },
    { "hostPort": 53, "containerPort": 53, "protocol": "udp" }
  ] },
  "prevResult": {
    "cniVersion": "0.4.0",
    "interfaces": [{ "name": "to-node", "sandbox": "/run/netns/$id-pod" }],
    "ips": [
      { "version": "4", "address": "$pod4/24", "interface": 0 },
      { "version": "6", "address": "$pod6/64", "interface": 0 }
    ]
  }
}
JSON
}
said=$(publish_host_ports 2>&1) || die "the portmap plugin failed: $said"

# --- The containers ---------------------------------------------------------------------------------

# start NAME POD VARIABLE=VALUE…: a container as the kubelet starts it, with as few privileges as
# possible.
capability=NET_ADMIN
start() {
    local environment=("${@:3}")
    podman run --detach --name "$1" --network "ns:/run/netns/$id-$2" --pull=never --memory=16m \
        --read-only --read-only-tmpfs=false --security-opt=no-new-privileges \
        --cap-drop=ALL ${capability:+"--cap-add=$capability"} "${environment[@]/#/--env=}" "$image" >/dev/null
}

# ready NAME: waits for its log line, and asks the readiness probe of deploy/daemonset.yaml.
ready() {
    local tries
    for tries in {1..100}; do
        [[ $(podman logs "$1" 2>&1) != *'ready: '* ]] || break
        ((tries < 100)) || die "container $1 should be ready by now: $(podman logs "$1" 2>&1)"
        sleep 0.1
    done
    podman exec "$1" /usr/bin/nodefwd status --ready || die "container $1 should say that it is ready"
}

exit_status() { podman inspect --format '{{.State.ExitCode}}' "$1"; }

# stop NAME: sends TERM, which must be enough: killed after ten seconds, it would end with status 137.
stop() {
    podman stop --time 10 "$1" >/dev/null
    [[ $(exit_status "$1") == 0 ]] || die "container $1 ended with status $(exit_status "$1"): $(podman logs "$1" 2>&1)"
}

# fails NAME REASON: it must have ended with status 1 and have logged the reason.
fails() {
    timeout 10 podman wait "$1" >/dev/null || die "container $1 should have ended by itself"
    local log
    log=$(podman logs "$1" 2>&1)
    [[ $(exit_status "$1") == 1 && $log =~ $2 ]] ||
        die "container $1 should end with status 1 and '$2'; it ended with $(exit_status "$1") and: $log"
}

rules() { on pod nft --stateless list ruleset; }

serving backend 4
serving node 1

step "a pod with two containers"
# Only the client's network may connect to the first, every client to the second.
start tcp pod SRC_PORT=80 SRC_RANGES=10.82.1.0/24,fd82:1::/64 DEST_PROTO=TCP DEST_PORT=80 DEST_IPS=$cluster4,$cluster6
start udp pod SRC_PORT=53 SRC_RANGES=0.0.0.0/0,::/0 DEST_PROTO=UDP DEST_PORT=53 DEST_IPS=$cluster4,$cluster6
ready tcp
ready udp
seen6='[fd82:0002:0000:0000:0000:0000:0000:0002]'
all_replied() {
    replied $pod4 client tcp "$1" 80
    replied $pod4 client udp "$1" 53
    replied "$seen6" client tcp "$2" 80
    replied "$seen6" client udp "$2" 53
}
all_replied $pod4 $pod6  # to the pod itself
all_replied $node4 $node6 # through the node's host ports
no_reply 124 node tcp $pod4 80
replied $pod4 node udp $pod4 53

step "restarting one of them"
before=$(rules | sort)
podman restart --time 10 tcp >/dev/null
ready tcp
all_replied $node4 $node6
[[ $(rules | sort) == "$before" ]] || die "the rules changed by a restart, from"$'\n'"$before"$'\n'"to"$'\n'"$(rules)"

step "stopping them"
stop tcp
no_reply 1 client tcp $pod4 80
replied $pod4 client udp $node4 53
stop udp
[[ -z $(rules) ]] || die "the pod should have no rules any more: $(rules)"

step "externalTrafficPolicy: Local, with addresses of both families and a pod of one"
start local local SRC_PORT=80 SRC_RANGES=0.0.0.0/0 DEST_PROTO=TCP DEST_PORT=30080 DEST_IPS=$node4,$node6
ready local
replied $local4 client tcp $local4 80
# The node's connection to its own address is one of a destination to the forwarded port.
reply=$(echo hello | on node timeout 5 socat - "TCP4:$local4:80,bind=$node4") || true
[[ $reply == "hello, $local4" ]] || die "the node's own connection should be forwarded, not get '$reply'"
warnings=$(podman logs local 2>&1 | grep '^warning: ') || true
[[ $warnings == *IPv6* && $warnings != *$'\n'* ]] || die "there should be one warning, about IPv6, not: $warnings"
stop local

step "an image with options of its own, made as deploy/README.md says"
derive=$(grep -F "printf 'FROM localhost/nodefwd:0.1.0" deploy/README.md)
quietly bash -c "set -o pipefail; $derive"
options=$(podman image inspect --format '{{.Config.Env}}' "$image-own")
for option in NODEFWD_HAIRPIN=true NODEFWD_STRICT=true NODEFWD_DRAIN=20; do
    [[ $options == *$option* ]] || die "the derived image should have $option, not $options"
done
image=$image-own start strict local SRC_PORT=80 DEST_PROTO=TCP DEST_PORT=30080 DEST_IPS=$node4,$node6
fails strict 'IPv6 forwarding is off'

step "containers that cannot forward"
environment=(SRC_PORT=80 SRC_RANGES=0.0.0.0/0 DEST_PROTO=TCP DEST_PORT=80 "DEST_IPS=$cluster4")
capability='' start powerless pod "${environment[@]}"
fails powerless 'CAP_NET_ADMIN is missing'
start off off "${environment[@]}"
fails off 'net.ipv4.ip_forward'
step "everything passed"
