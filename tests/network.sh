#!/usr/bin/env bash
# Hosts in network namespaces, for scripts that have sourced setup.sh and set id (a name that no other has) and hosts.
set -euo pipefail

# on HOST COMMAND…
on() { ip netns exec "$id-$1" "${@:2}"; }

make_hosts() {
    local host
    for host in "${hosts[@]}"; do
        ip netns add "$id-$host"
        ip -n "$id-$host" link set lo up
        # No other host has these addresses: do not wait for duplicate address detection.
        on "$host" sysctl -qw net.ipv6.conf.default.accept_dad=0
    done
}

end_hosts() {
    local host pids
    for host in "${hosts[@]}"; do
        pids=$(ip netns pids "$id-$host" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # one word each
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
        ip netns delete "$id-$host"
    done
}

# link A B NETWORK: a cable; A gets the network's first address, B its second and its routes to all others.
link() {
    local a=$id-$1 b=$id-$2 network=$3
    ip -n "$a" link add "to-$2" type veth peer name "to-$1" netns "$b"
    ip -n "$a" address add "10.82.$network.1/24" dev "to-$2"
    ip -n "$b" address add "10.82.$network.2/24" dev "to-$1"
    ip -n "$a" address add "fd82:$network::1/64" dev "to-$2"
    ip -n "$b" address add "fd82:$network::2/64" dev "to-$1"
    ip -n "$a" link set "to-$2" up
    ip -n "$b" link set "to-$1" up
    ip -n "$b" route add default via "10.82.$network.1"
    ip -n "$b" route add default via "fd82:$network::1"
}

# forwarding HOST IPV4 IPV6
forwarding() { on "$1" sysctl -qw net.ipv4.ip_forward="$2" net.ipv6.conf.all.forwarding="$3"; }

# serve HOST ADDRESS…: a socat server, which replies with the client's address. After a datagram it would wait for half
# a second only until its shell has the reply.
serve() {
    # shellcheck disable=SC2016 # socat's shell fills it in
    on "$1" socat -t 20 "$2" SYSTEM:'read -r word; echo "$word, $SOCAT_PEERADDR"' 2>/dev/null &
}

# serving HOST COUNT: waits for that many servers.
serving() {
    local tries
    for tries in {1..50}; do
        [[ $(on "$1" ss -Hltun | wc -l) -lt $2 ]] || return 0
        sleep 0.1
    done
    die "the servers on $1 do not listen"
}

# ask HOST PROTOCOL ADDRESS PORT: connects and prints the reply; status 1 if the connection is refused,
# 124 if there is no reply in $patience seconds, or 2.
ask() {
    # shellcheck disable=SC2016 # the inner shell fills them in
    on "$1" timeout "${patience:-2}" bash -c 'exec 3<>"/dev/$0/$1/$2" && echo hello >&3 && head -n 1 <&3' "${@:2}" 2>/dev/null
}

# replied SOURCE HOST PROTOCOL ADDRESS PORT: there must be a reply, and SOURCE must be the client's
# address that the server has seen.
replied() {
    local reply status=0
    reply=$(ask "${@:2}") || status=$?
    [[ $reply == "hello, $1" ]] || die "${*:2}: expected 'hello, $1', not '$reply' (status $status)"
}

# no_reply STATUS HOST PROTOCOL ADDRESS PORT: connecting must fail with this status.
no_reply() {
    local reply status=0
    reply=$(ask "${@:2}") || status=$?
    [[ $status == "$1" ]] || die "${*:2}: expected status $1, not $status with '$reply'"
}
