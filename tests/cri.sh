#!/usr/bin/env bash
# usage: tests/cri.sh [ARCHIVE]
# Runs the image as the kubelet of k3s does. A node of its own, a Debian 13 in namespaces, runs containerd with the CNI
# plugins; it imports deploy/image.sh's archive (built unless it is given), and a CRI client asks it for the pods that the
# controller makes, and for those of deploy/daemonset.yaml. Nothing of it stays but target/node. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/debian.sh
source tests/debian.sh
# shellcheck source=tests/network.sh
source tests/network.sh
# shellcheck source=tests/image/build.sh
source tests/image/build.sh
[[ $EUID -eq 0 ]] || die "the test makes namespaces and containers: run me as root"
# shellcheck disable=SC2034 # setup.sh reads it
packages=("${podman_packages[@]}" iproute2 nftables procps python3 python3-venv python3-yaml socat)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

archive=${1:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image=localhost/nodefwd:$version
id=nodefwd-cri-$$
files=$(mktemp -d)
hosts=(client node backend)
init='' node=''

cleanup() {
    # With the first process of the node, all others end.
    [[ -z $init ]] || { kill -KILL "$init" && wait "$init"; } 2>/dev/null || true
    [[ -z ${CONTAINERS_CONF:-} ]] || end_podman
    end_hosts
    local tries
    for tries in {1..100}; do
        find /sys/fs/cgroup -depth -type d -path "*/$id*" -exec rmdir {} \; 2>/dev/null || true
        [[ $(find /sys/fs/cgroup -maxdepth 2 -name "$id") ]] || break
        sleep 0.1
    done
    rm -rf --one-file-system "$files"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

SECONDS=0
step() { echo "$SECONDS s: $*"; }

# --- The node ---------------------------------------------------------------------------------------

# inside COMMAND…: in the node's namespaces.
inside() {
    nsenter --target "$node" --mount --pid --net --root --wd -- env PATH=/usr/sbin:/usr/bin "$@"
}

# pause_image: what a sandbox runs, as an archive: a program that waits.
pause_image() {
    local folder=$files/pause layer
    mkdir "$folder"
    echo 'int pause(void); int main(void) { for (;;) pause(); }' | gcc -static -Os -s -x c - -o "$folder/pause"
    tar -C "$folder" -cf "$folder/layer.tar" pause
    layer=$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)
    cat >"$folder/config.json" <<JSON
{ "architecture": "$(dpkg --print-architecture)", "os": "linux", "config": { "Entrypoint": ["/pause"] },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$layer"] } }
JSON
    echo '[{ "Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"] }]' >"$folder/manifest.json"
    tar -C "$folder" -cf "$files/images/pause.tar" manifest.json config.json layer.tar
}

# cri COMMAND ARGUMENT…: asks the node's containerd.
cri() { "$files/venv/bin/python" tests/cri/client.py "/proc/$node/root/run/containerd/containerd.sock" "$@"; }

start_client() {
    /usr/bin/python3 -m venv "$files/venv"
    "$files/venv/bin/pip" install --quiet --disable-pip-version-check container-runtime-interface-api==2.0.1
}

start_node() {
    local root=$PWD/target/node
    if [[ ! -e $root/built ]]; then
        rm -rf --one-file-system "$root"
        make_debian "$root" trixie containerd,runc,containernetworking-plugins,iptables,iproute2,nftables
        touch "$root/built"
    fi
    mkdir "$files"/{pods,logs,images,requests}
    cp tests/cri/config.toml tests/cri/10-flannel.conflist "$files"
    nsenter --net="/run/netns/$id-node" unshare --mount --pid --fork --kill-child \
        tests/cri/node.sh "$root" "$files" >"$files/containerd" 2>&1 </dev/null &
    init=$!
    local tries
    for tries in {1..300}; do
        node=$(pgrep -P "$init") && cri version >/dev/null 2>&1 && return
        kill -0 "$init" 2>/dev/null || break
        sleep 0.1
    done
    die "containerd does not start: $(tail -n 30 "$files/containerd")"
}

# --- Pods -------------------------------------------------------------------------------------------

# What the kubelet keeps of a pod, and of its containers by name.
manifest='' daemonset='' uid='' pod='' pid='' pod4='' pod6='' given=()
declare -A container attempt

# requests ATTEMPT: writes what is asked of the runtime; prints the containers' names.
requests() {
    /usr/bin/python3 tests/cri/pod.py "$manifest" "$daemonset" "$files/requests" "${given[@]}" attempt="$1"
}

# run_pod MANIFEST DAEMONSET NAME=VALUE…
run_pod() {
    local name
    manifest=$1 daemonset=$2 uid=$(</proc/sys/kernel/random/uuid)
    given=(uid="$uid" cgroup="/$id" hosts="$node4,$node6" image="$image" "${@:3}")
    mkdir -p "$files/pods/$uid"
    echo '127.0.0.1 localhost' >"$files/pods/$uid/etc-hosts"
    container=() attempt=()
    requests 0 >"$files/names"
    pod=$(cri run "$files/requests/sandbox.json")
    read -r pid pod4 pod6 < <(cri pod "$pod")
    while read -r name; do start "$name"; done <"$files/names"
}

# start NAME: a container, again after it has ended. There is no other way to restart one than to make a new one.
start() {
    [[ ! ${container[$1]:-} ]] || cri remove "${container[$1]}"
    mkdir -p "$files/pods/$uid/containers/$1"
    install -m 666 /dev/null "$files/pods/$uid/containers/$1/termination-log"
    attempt[$1]=$((${attempt[$1]:--1} + 1))
    requests "${attempt[$1]}" >/dev/null
    container[$1]=$(cri create "$pod" "$files/requests/$1.json" "$files/requests/sandbox.json")
    cri start "${container[$1]}"
}

# host_ports: the node's rules for them.
host_ports() { inside sh -c 'iptables-save && ip6tables-save' | grep -e --dport; }

# remove_pod: also of the node's rules nothing stays.
remove_pod() {
    local name
    host_ports >/dev/null || die "the node has no rules for host ports"
    for name in "${!container[@]}"; do
        cri remove "${container[$name]}"
    done
    cri stop-pod "$pod"
    cri remove-pod "$pod"
    ! host_ports >&2 || die "the node still has these rules for host ports"
}

# log NAME: as the kubelet keeps it, which must be in the form that it reads.
log() {
    local file
    file=$files/logs/kube-system_$daemonset-x7k2p_$uid/$1/${attempt[$1]}.log
    ! grep -vE '^[0-9]{4}-[0-9-]{5}T[0-9:.]{8,}(Z|[+-][0-9:]{5}) (stdout|stderr) [FP] ' "$file" || die "$file has lines of another form"
    sed 's/^[^ ]* [^ ]* [^ ]* //' "$file"
}

# ready NAME: it logs so, and nothing else, and its readiness probe succeeds.
ready() {
    local tries
    for tries in {1..100}; do
        [[ $(log "$1") != *'ready: '* ]] || break
        ((tries < 100)) || die "container $1 should be ready by now: $(log "$1")"
        sleep 0.1
    done
    [[ $(log "$1") == 'ready: '* ]] || die "container $1 should only log that it is ready: $(log "$1")"
    cri exec "${container[$1]}" /usr/bin/nodefwd status --ready || die "container $1 should say that it is ready"
}

# ended NAME STATUS: waits for it.
ended() {
    local tries state status rest
    for tries in {1..100}; do
        read -r state status rest < <(cri container "${container[$1]}")
        [[ $state != CONTAINER_EXITED ]] || break
        sleep 0.1
    done
    [[ "$state $status" == "CONTAINER_EXITED $2" ]] || die "container $1 should end with status $2, not: $state $status $rest, $(log "$1")"
}

# stop NAME: with the kubelet's grace period, after which it would be killed, and end with status 137.
stop() {
    cri stop "${container[$1]}" 30
    ended "$1" 0
}

process() { cri container "${container[$1]}" | cut -d' ' -f3; }
rules() { inside nsenter --net="/proc/$pid/ns/net" nft --stateless list ruleset; }
exploded() { python3 -c 'import ipaddress, sys; print(f"[{ipaddress.ip_address(sys.argv[1]).exploded}]")' "$1"; }

# forwards FROM NAME PORT: clients there reach it over both families.
forwards() {
    local protocol
    protocol=$(cut -d- -f2 <<<"$2")
    replied "$pod4" "$1" "$protocol" "$node4" "$3"
    replied "$(exploded "$pod6")" "$1" "$protocol" "$node6" "$3"
}

# --- The tests --------------------------------------------------------------------------------------
#
#   client ─── node ─┬─ cni0 ── pods
#                    └─ backend, which has the Services' cluster addresses

cluster4=10.43.0.100 cluster6=fd43::100
node4=10.82.1.1 node6=fd82:1::1

if [[ ! $archive ]]; then
    step "building the image"
    own_podman
    archive=$PWD/target/nodefwd.tar
    build_images "$(dpkg --print-architecture)" arm/v7
fi

step "making the node"
make_hosts
link node client 1
link node backend 4
ip -n "$id-backend" address add "$cluster4/32" dev lo
ip -n "$id-backend" address add "$cluster6/128" dev lo
ip -n "$id-node" route add "$cluster4" via 10.82.4.2
ip -n "$id-node" route add "$cluster6" via fd82:4::2
forwarding node 1 1
for address in "4 $cluster4 $node4" "6 [$cluster6] [$node6]"; do
    read -r family cluster port <<<"$address"
    serve backend "TCP$family-LISTEN:80,bind=$cluster,reuseaddr,fork"
    serve backend "UDP$family-RECVFROM:53,bind=$cluster,reuseaddr,fork"
    serve node "TCP$family-LISTEN:30080,bind=$port,reuseaddr,fork"
done
serving backend 4
serving node 2
start_client
start_node
step "$(cri version)"

step "importing the archive as k3s does"
pause_image
cp "$archive" "$files/images/nodefwd.tar"
# k3s has containerd's client import all platforms, without unpacking them (pkg/agent/containerd/containerd.go).
for file in pause nodefwd; do
    inside ctr --namespace k8s.io images import --all-platforms --no-unpack \
        "/var/lib/rancher/k3s/agent/images/$file.tar" >"$files/said" 2>&1 || die "the import failed: $(<"$files/said")"
done
listed=$(inside ctr --namespace k8s.io images list)
grep -q "^$image .*,linux/" <<<"$listed" || die "there is no $image for several platforms: $listed"

step "the controller's pod: cluster addresses"
run_pod tests/cri/svclb.yaml svclb-cluster-5f1c2a90
ready lb-tcp-80
ready lb-udp-53
for host in client node; do
    forwards $host lb-tcp-80 80
    forwards $host lb-udp-53 53
done
replied "$pod4" node tcp 127.0.0.1 80
replied "$pod4" client tcp "$pod4" 80
replied "$(exploded "$pod6")" client udp "$pod6" 53

# starts_again: container lb-tcp-80, which has ended; the other one forwards meanwhile.
starts_again() {
    no_reply 1 client tcp $node4 80
    forwards client lb-udp-53 53
    start lb-tcp-80
    ready lb-tcp-80
    forwards client lb-tcp-80 80
    [[ $(rules | sort) == "$before" ]] || die "the rules should be as before it ended:"$'\n'"$before"$'\n'"not:"$'\n'"$(rules)"
}
before=$(rules | sort)
step "restarting a container"
stop lb-tcp-80
starts_again

step "killing a container"
inside sh -c 'kill -KILL "$1"' sh "$(process lb-tcp-80)"
ended lb-tcp-80 137
starts_again

step "stopping it"
stop lb-udp-53
stop lb-tcp-80
[[ -z $(rules) ]] || die "the pod should have no rules any more: $(rules)"
remove_pod

step "the controller's pod: externalTrafficPolicy: Local, with source ranges"
run_pod tests/cri/svclb.yaml svclb-local-7d3e4b61
ready lb-tcp-8080
forwards client lb-tcp-8080 8080
# The node's connection to its own address is one of a destination to the forwarded port.
forwards node lb-tcp-8080 8080
no_reply 124 backend tcp $node4 8080
no_reply 124 backend tcp $node6 8080
stop lb-tcp-8080
remove_pod

# locked_down: the pod of deploy/daemonset.yaml, as it stands.
locked_down() {
    local name
    run_pod deploy/daemonset.yaml nodefwd-example "$@"
    for name in lb-tcp-80 lb-udp-53; do
        ready $name
        restricted=$(inside grep -E '^(CapBnd|NoNewPrivs|Seccomp):' "/proc/$(process $name)/status" | cut -f2 | xargs)
        [[ $restricted == '0000000000001000 1 2' ]] || die "container $name should be restricted further: $restricted"
    done
    forwards client lb-tcp-80 80
    forwards client lb-udp-53 53
}
step "a pod of deploy/daemonset.yaml"
locked_down
stop lb-tcp-80
stop lb-udp-53
remove_pod

step "such a pod with hostUsers: false"
locked_down users=100000
[[ $(inside cat "/proc/$(process lb-tcp-80)/uid_map" | xargs) == '0 100000 65536' ]] || die "the pod should have users of its own"
stop lb-tcp-80
stop lb-udp-53
remove_pod

step "a pod that cannot forward"
sed '/sysctls:/,/seccomp/s/value: "1"/value: "0"/' deploy/daemonset.yaml >"$files/off.yaml"
run_pod "$files/off.yaml" nodefwd-example
ended lb-tcp-80 1
for said in "$(log lb-tcp-80)" "$(<"$files/pods/$uid/containers/lb-tcp-80/termination-log")"; do
    [[ $said == *'net.ipv4.ip_forward'* ]] || die "the log and the termination message should name the reason, not: $said"
done
remove_pod
step "everything passed"
