#!/usr/bin/env bash
# Shows nodefwd at work between three network namespaces, which are gone afterwards. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $EUID -eq 0 ]] || die "the demo makes network namespaces: run me as root"

bold='' dim='' plain=''
[[ ! -t 1 || -n ${NO_COLOR:-} ]] || bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
prompt() { printf '  %s%s#%s %s\n' "$dim" "$1" "$plain" "$2"; }
indent() { sed 's/^/    /'; }

id=nodefwd-demo-$$
files=$(mktemp -d)

on() { ip netns exec "$id-$1" "${@:2}"; }

cleanup() {
    local host pids
    for host in client node backend; do
        pids=$(ip netns pids "$id-$host" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # one word each
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
        ip netns delete "$id-$host"
    done
    rm -rf "$files"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# link A ADDRESS B ADDRESS: a cable between two hosts.
link() {
    ip -n "$id-$1" link add "to-$3" type veth peer name "to-$1" netns "$id-$3"
    ip -n "$id-$1" address add "$2/24" dev "to-$3"
    ip -n "$id-$3" address add "$4/24" dev "to-$1"
    ip -n "$id-$1" link set "to-$3" up
    ip -n "$id-$3" link set "to-$1" up
}

# start HOST COMMAND…: starts it in the background, as $pid; its output is read from $log.
start() {
    exec {log}< <(exec ip netns exec "$id-$1" "${@:2}" 2>&1)
    pid=$!
}

# await REGEX: shows the output of the program that was started last, up to the line that matches.
await() {
    local line
    while IFS= read -r -t 10 -u "$log" line; do
        indent <<<"$line"
        [[ ! $line =~ $1 ]] || return 0
    done
    die "there should be a line with '$1' by now"
}

# run HOST COMMANDLINE: shows a command and its output, which stays in $output.
run() {
    prompt "$1" "$2"
    output=$(on "$1" bash -c "$2") || die "that failed with status $?"
    indent <<<"${output:-(nothing)}"
}

# stop PID LOG: sends TERM and shows the rest of the output; the program must end with status 0.
stop() {
    local line more=0
    kill -TERM "$1"
    while IFS= read -r -t 10 -u "$2" line || { more=$?; false; }; do
        indent <<<"$line"
    done
    ((more <= 128)) || die "nodefwd should have ended by now" # the read timed out
    wait "$1" || die "nodefwd ended with status $?"
}

expect() { [[ $output == "$1" ]] || die "it should say '$1'"; }

step "1. Build nodefwd, one static file"
cargo build --release --locked
PATH=${release_binary%/*}:$PATH
printf '    %s: %s bytes\n' "$release_binary" "$(stat -c %s "$release_binary")"

step "2. Make three hosts (network namespaces); only the node is on both networks"
cat <<'PICTURE'

    client 10.80.1.2 ──── 10.80.1.1 node 10.80.2.1 ──── 10.80.2.2 backend

PICTURE
for host in client node backend; do
    ip netns add "$id-$host"
done
link client 10.80.1.2 node 10.80.1.1
link node 10.80.2.1 backend 10.80.2.2
run node 'echo 1 | tee /proc/sys/net/ipv4/ip_forward'

step "3. Start servers in the backend, HTTP on port 8080 and UDP on 5353; both reply with the client's address"
mkdir "$files/cgi-bin"
cat >"$files/cgi-bin/index.cgi" <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\n\nHello %s, this is the backend\n' "$REMOTE_ADDR"
CGI
chmod +x "$files/cgi-bin/index.cgi"
on backend busybox httpd -p 10.80.2.2:8080 -h "$files" # returns once it listens
# shellcheck disable=SC2016 # socat's shell fills these in
start backend socat -d -d UDP4-RECVFROM:5353,fork \
    SYSTEM:'read -r word; echo "$word, $SOCAT_PEERADDR, said the backend"'
await 'receiving on'

step "4. Start two nodefwd in the node, one with environment variables, one with arguments"
forward_http=(DEST_IPS=10.80.2.2 DEST_PROTO=TCP SRC_PORT=80 DEST_PORT=8080 nodefwd)
prompt node "${forward_http[*]}"
start node env "${forward_http[@]}"
http_pid=$pid http_log=$log
await '(^| )ready'
prompt node 'nodefwd udp/53=10.80.2.2:5353'
start node nodefwd udp/53=10.80.2.2:5353
udp_pid=$pid udp_log=$log
await '(^| )ready'

step "5. Connect to the node: the backend replies, and sees the node (10.80.2.1) as the client"
run client 'timeout 5 busybox wget -q -O - http://10.80.1.1/'
expect 'Hello 10.80.2.1, this is the backend'
run client 'exec 3<>/dev/udp/10.80.1.1/53; echo ping >&3; timeout 5 head -n 1 <&3'
expect 'ping, 10.80.2.1, said the backend'

step "6. Look at the rules: the kernel does all the work"
run node 'nft list ruleset'
[[ $output == *"table inet nodefwd-tcp-80 "*"table inet nodefwd-udp-53 "* ]] || die "a table is missing"

step "7. Stop both with TERM: no rules are left"
prompt node "kill -TERM $http_pid $udp_pid"
stop "$http_pid" "$http_log"
stop "$udp_pid" "$udp_log"
run node 'nft list ruleset'
[[ -z $output ]] || die "the rules should be gone"
run client 'timeout 5 busybox wget -q -O - http://10.80.1.1/ 2>&1 || true'
[[ $output == *refused* ]] || die "the port should be closed again"

step "Everything worked."
