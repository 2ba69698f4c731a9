#!/usr/bin/env bash
# A container with a systemd of its own, for scripts that have sourced setup.sh and set id (a name that no other has)
# and files (a folder). It has the network of a node, 10.0.0.1, beside a peer: both a client, 10.0.0.2, and the
# destination of the documents, 10.0.0.5, which sends back what it gets.
set -euo pipefail

nspawn=''
# systemd needs version 2 of cgroups, which may be mounted next to version 1.
cgroup=$(findmnt -rnfo TARGET -t cgroup2)/$id

make_network() {
    ip netns add "$id-node"
    ip netns add "$id-peer"
    ip -n "$id-node" link add to-peer type veth peer name to-node netns "$id-peer"
    ip -n "$id-node" address add 10.0.0.1/24 dev to-peer
    ip -n "$id-peer" address add 10.0.0.2/24 dev to-node
    ip -n "$id-peer" address add 10.0.0.5/24 dev to-node
    ip -n "$id-node" link set to-peer up
    ip -n "$id-peer" link set to-node up
    ip netns exec "$id-node" sysctl -qw net.ipv4.ip_forward=1
    ip netns exec "$id-peer" socat TCP4-LISTEN:8080,bind=10.0.0.5,fork EXEC:cat 2>/dev/null &
    disown
}

# boot UNIT ARGUMENT…: starts systemd with that unit as its aim and waits for it. The arguments are systemd-nspawn's,
# and must make a folder /nodefwd in the container. Its own output is in $files/boot.
boot() {
    (
        mkdir -p "$cgroup"
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
        exec systemd-nspawn --quiet --boot --register=no --keep-unit --machine="$id" --console=pipe \
            --network-namespace-path="/run/netns/$id-node" --capability=CAP_NET_ADMIN "${@:2}" systemd.unit="$1"
    ) >"$files/boot" 2>&1 </dev/null &
    nspawn=$!
    until_true inside systemctl is-active --quiet "$1"
}

# inside COMMAND…: runs it in the container's namespaces; never on this machine, which has no /nodefwd,
# even if the container does not run yet.
inside() {
    local pid
    for pid in $(ip netns pids "$id-node"); do
        ! grep -qs $'^NSpid:.*\t1$' "/proc/$pid/status" || break
    done
    # shellcheck disable=SC2016 # the inner shell fills it in
    nsenter --all --root --wd --target="${pid-}" -- sh -c '[ -e /nodefwd ] && exec "$@"' sh \
        env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
journal() { inside journalctl --no-pager --quiet --unit='nodefwd@*' || true; }

# until_true COMMAND…: waits for it to succeed.
until_true() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        ! "$@" 2>/dev/null || return 0
        sleep 0.1
    done
    die "after a minute, still not: '$*'"$'\n'"$(<"$files/boot")"$'\n'"$(journal)"
}

# end_container: with its network.
end_container() {
    local host pids tries
    [[ -z $nspawn ]] || { kill -KILL "$nspawn" && wait "$nspawn"; } 2>/dev/null || true
    nspawn=''
    for host in node peer; do
        pids=$(ip netns pids "$id-$host" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # one word each
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
        ip netns delete "$id-$host"
    done
    # The container's processes take a moment to go. nspawn uses version 1 too, if it is there.
    for tries in {1..100}; do
        find "$cgroup" /sys/fs/cgroup/*/"$id" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [[ -e $cgroup || -e /sys/fs/cgroup/systemd/$id ]] || break
        sleep 0.1
    done
}

# cleanup: for a trap on EXIT.
cleanup() {
    end_container
    rm -rf --one-file-system "$files" "/run/systemd/nspawn/propagate/$id"
}
