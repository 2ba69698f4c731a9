#!/usr/bin/env bash
# usage: NODEFWD_BIN=PROGRAM packets.sh
# What the program must do on any architecture, in a minute even if the processor is emulated: it forwards TCP and UDP
# over both families, limits sources, balances, shows what it does, is replaced, ends and dies; and what `nft` makes of
# the printed ruleset lists the same as what it installed. As root, beside tests/network.sh.
set -euo pipefail
program=${NODEFWD_BIN:?the program to try}
export -n NODEFWD_BIN # no option of its own
here=${BASH_SOURCE[0]%/*}
id=nodefwd-packets-$$
hosts=(client node first second)
files=$(mktemp -d)
pid='' started=0 patience=20

die() {
    echo "failed: $*" >&2
    cat "$files"/log-* >&2 2>/dev/null || true
    exit 1
}
# shellcheck source=tests/network.sh
source "$here/$([[ -e $here/network.sh ]] || echo ../)network.sh"
cleanup() {
    end_hosts
    rm -r "$files"
}
trap cleanup EXIT
trap 'exit 143' HUP INT TERM

passed() { echo "passed after $SECONDS s: $*"; }

# until_true COMMAND…
until_true() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    die "still not, after half a minute or more: $*"
}

# start ARGUMENT…: an instance, whose process is $pid, until it is ready.
start() {
    local log=$files/log-$((++started))
    ip netns exec "$id-node" "$program" "$@" 2>"$log" &
    pid=$!
    until_true grep -qE '(^| )ready: ' "$log"
}

# ended PID: with status 0.
ended() { wait "$1" || die "process $1 has ended with status $?"; }
stop() { kill -TERM "$pid" && ended "$pid"; }

rules() { on node nft list ruleset; }
no_rules() { [[ -z $(rules) ]] || die "rules are left: $(rules)"; }

node4=10.82.1.1 node6=fd82:1::1
# What the destinations see as the client is the node, with its address in their network.
seen() {
    local network=$1
    seen4=10.82.$network.1 seen6="[fd82:000$network:0000:0000:0000:0000:0000:0001]"
}

all_replied() {
    replied "$seen4" client tcp $node4 80
    replied "$seen4" client udp $node4 53
    replied "$seen6" client tcp $node6 80
    replied "$seen6" client udp $node6 53
}

make_hosts
link node client 1
link node first 2
link node second 3
forwarding node 1 1
for host in first second; do
    serve "$host" TCP4-LISTEN:8080,reuseaddr,fork
    serve "$host" TCP6-LISTEN:8080,ipv6only,reuseaddr,fork
    serve "$host" UDP4-RECVFROM:5353,reuseaddr,fork
    serve "$host" UDP6-RECVFROM:5353,ipv6only,reuseaddr,fork
    ip netns exec "$id-$host" socat TCP4-LISTEN:7,reuseaddr,fork EXEC:cat &
    disown
    until_true serving "$host" 5
done
to_first=(--name web 'tcp/80=10.82.2.2:8080,[fd82:2::2]:8080' 'udp/53=10.82.2.2:5353,[fd82:2::2]:5353' tcp/7=10.82.2.2)
to_second=("${to_first[@]//82.2.2/82.3.2}") to_second=("${to_second[@]//82:2::2/82:3::2}")

start "${to_first[@]}"
seen 2
all_replied
passed 'TCP and UDP over both families'

on node "$program" status --ready web || die 'status --ready says no'
status=$(on node "$program" status --format json)
counted=$(grep -o '"connections": *[0-9]*' <<<"$status" | grep -o '[0-9]*$' | paste -sd+)
[[ $status == *'"web"'* && $((counted)) -ge 4 ]] || die "status should show web, with 4 connections or more: $status"
found=$(on node "$program" check) || die "check finds: $found"
passed 'status and check'

# A connection that goes on while another instance takes over.
# shellcheck disable=SC2016 # the inner shell fills them in
on client bash -c 'exec 3<>"/dev/tcp/$0/7" && echo before >&3 && head -n 1 <&3 >"$1/before" && mv "$1/before" "$1/open" &&
    until [[ -e $1/replaced ]]; do sleep 0.1; done && echo after >&3 && timeout 20 head -n 1 <&3 >"$1/after"' $node4 "$files" &
client=$!
until_true test -e "$files/open"
before=$pid
start --replace "${to_second[@]}"
ended "$before"
touch "$files/replaced"
wait "$client" && [[ $(<"$files/after") == after ]] || die 'a connection has ended with --replace'
seen 3
all_replied
passed '--replace'

stop
no_rules
no_reply 1 client tcp $node4 80
passed TERM

start --src-ranges 10.82.1.2,fd82:1::2 "${to_first[@]}"
seen 2
all_replied
stop
start --src-ranges 192.0.2.0/24 "${to_first[@]}"
patience=2
no_reply 124 client tcp $node4 80
no_reply 124 client tcp $node6 80
patience=20
stop
passed 'source ranges'

start --balance round-robin tcp/80=10.82.2.2:8080,10.82.3.2:8080
for _ in {1..4}; do ask client tcp $node4 80; done >"$files/replies"
[[ $(sort "$files/replies" | paste -sd,) == 'hello, 10.82.2.1,hello, 10.82.2.1,hello, 10.82.3.1,hello, 10.82.3.1' ]] ||
    die "two of four connections should go to each: $(<"$files/replies")"
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
no_rules
no_reply 1 client tcp $node4 80
passed 'balance and SIGKILL'

several=(--owner=false --balance source --src-ranges 10.0.0.0/8,fd00::/8 --hairpin --output "${to_first[@]}"
    'tcp/8000-8100=10.82.2.2:9000-9100,10.82.3.2:9000-9100' sctp/9=fd82:2::2)
start "${several[@]}"
installed=$(rules)
stop
on node "$program" render "${several[@]}" | on node nft -f -
printed=$(rules)
on node nft flush ruleset
[[ $installed == *elements* && $installed == "$printed" ]] ||
    die "what is printed is not what is installed: $(diff <(echo "$installed") <(echo "$printed"))"
passed 'what is printed is what is installed'
