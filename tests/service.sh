#!/usr/bin/env bash
# Runs the units in deploy/ under a systemd of its own, in a container made of this machine's /usr, which is
# booted three times; installs and removes them with the documents' commands. Nothing of it stays. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $EUID -eq 0 ]] || die "the test boots a container: run me as root"
# shellcheck disable=SC2034 # setup.sh reads it
packages=(systemd-container iproute2 nftables procps socat)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
bring_promtool
cargo build --release --locked

id=nodefwd-service-$$
files=$(mktemp -d)
log=$files/log
# shellcheck source=tests/nspawn.sh
source tests/nspawn.sh
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

step() { echo "$SECONDS s: $*"; }

make_network

# start UNIT: a systemd with this machine's /usr, an /etc that stays from one boot to the next, otherwise
# empty folders, the node's network, whose sysctls it may set, and the files that README names.
mkdir -p "$files/etc/systemd/system-preset"
echo 'disable *' >"$files/etc/systemd/system-preset/00-nothing.preset"
start() {
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network boot "$1" --directory=/ --volatile=yes --tmpfs=/usr/local \
        --bind="$files/etc:/etc" --bind-ro="$PWD/deploy:/nodefwd/deploy" \
        --bind-ro="$release_binary:/nodefwd/target/host/release/nodefwd"
}

property() { inside systemctl show --property="$1" --value nodefwd@web; }
# shellcheck disable=SC2053 # a pattern
property_is() { [[ $(property "$1") == $2 ]]; }
expect_property() { property_is "$1" "$2" || die "$1 should be '$2', not '$(property "$1")'"$'\n'"$(journal)"; }
rules() { ip netns exec "$id-node" nft list tables; }
forwards() { [[ $(ip netns exec "$id-peer" timeout 5 bash -c 'exec 3<>/dev/tcp/10.0.0.1/80; echo hello >&3; head -n 1 <&3') == hello ]]; }

# What is not in /etc is gone after a boot: the program, too.
reboot() {
    kill "$nspawn" # nspawn has the container shut down
    wait "$nspawn" || true
    start basic.target
    as_written "$(grep '^install ' <<<"$installation")"
    inside systemctl start --no-block multi-user.target
}

step "booting systemd"
start basic.target

# commands FILE HEADING: the shell of that section, without comments.
commands() {
    local found
    found=$(awk -v heading="$2" '
        /^```/ { shell = ($0 == "```sh" && here); next }
        shell { sub(/ +#.*/, ""); print; next }
        /^#/ { here = ($0 == heading) }' "$1")
    [[ $found ]] || die "$1 has no commands under '$2' any more"
    echo "$found"
}
# as_written COMMANDS: runs them in the container, in a folder with what they install.
as_written() {
    inside bash -euxc "cd /nodefwd; $1" >"$log" 2>&1 || die "these commands failed: $1"$'\n'"$(<"$log")"$'\n'"$(journal)"
}

step "installing as README says"
installation=$(commands README.md '### Install')
# The program is built already.
as_written "$(grep '^install ' <<<"$installation")"
as_written "$(commands deploy/README.md '## Shell completion')"
as_written "$(commands README.md '### Survive a reboot')"
inside systemctl is-enabled --quiet nodefwd@web || die "the service is not enabled"
# No need to wait: systemctl returned when the program had notified systemd that it is ready.
forwards || die "it is ready, but does not forward"
expect_property StatusText 'forwarding tcp/80=10.0.0.5:8080 in table inet nodefwd-web'

step "verifying the unit"
said=$(inside systemd-analyze verify --man=no nodefwd@web.service 2>&1) || said+=" (status $?)"
[[ -z $said ]] || die "systemd-analyze verify: $said"
[[ $(<deploy/README.md) =~ systemd-analyze\ security\`[^.]*\ ([0-9])\.([0-9]) ]] || die "deploy/README.md no longer says how exposed the unit is"
inside systemd-analyze security --no-pager --threshold="$((10#${BASH_REMATCH[1]}${BASH_REMATCH[2]}))" nodefwd@web >"$log" 2>&1 ||
    die "the unit is more exposed than deploy/README.md says: $(<"$log")"

step "killing it"
inside systemctl kill --signal=KILL nodefwd@web
until_true property_is NRestarts 1
until_true property_is ActiveState active
forwards || die "it does not forward after a restart"

step "changing its file while traffic runs"
good='NODEFWD_FORWARDS=tcp/80=10.0.0.5:8080'
write() { inside bash -c 'echo "$1" >/etc/nodefwd/web.env' bash "$1"; }
# Over one connection: the next number when the last one has come back.
coproc COUNT {
    exec ip netns exec "$id-peer" bash -c 'exec 3<>/dev/tcp/10.0.0.1/80
        for ((n = 0; ; n++)); do
            echo $n >&3
            read -r -t 30 reply <&3 && [[ $reply == "$n" ]] || exit 1
            sleep 0.02
        done'
}
count=$COUNT_PID
for n in {1001..1020}; do
    write "$good tcp/$n=10.0.0.5:8080"
    inside systemctl reload nodefwd@web || die "reload $n failed"$'\n'"$(journal)"
    forwards || die "it does not forward after reload $n"
done
expect_property StatusText "forwarding tcp/80=10.0.0.5:8080 tcp/1020=10.0.0.5:8080 in table inet nodefwd-web"
write "$good tcp/80=10.0.0.6"
! inside systemctl reload nodefwd@web 2>/dev/null || die "a reload with a wrong file succeeds"
expect_property ActiveState active
expect_property StatusText 'not reloaded: *'
forwards || die "it does not forward after a failed reload"
kill -0 "$count" || die "the connection has ended"
kill "$count"
# Also with what a name takes: a thread, the file of hosts, and sockets to ask with.
inside bash -c 'echo 10.0.0.5 home.example.org >>/etc/hosts'
write "NODEFWD_FORWARDS=tcp/80=home.example.org:8080"
inside systemctl reload nodefwd@web || die "a reload with a name failed"$'\n'"$(journal)"
forwards || die "it does not forward to a name"
write "NODEFWD_FORWARDS=tcp/80=none.example.org:8080"
! inside systemctl reload nodefwd@web 2>/dev/null || die "a reload with a name that there is not succeeds"
expect_property StatusText 'not reloaded: *cannot resolve none.example.org: *'
[[ $(property StatusText) =~ 'says that there is no such name'|'nothing listens there'|'no answer'|'unreachable' ]] ||
    die "it cannot ask a name server: $(property StatusText)"
write "$good"
inside systemctl reload nodefwd@web
expect_property NRestarts 1

step "comparing its reading of files with systemd's"
# Values in every form, each as the one of NODEFWD_BALANCE, which the program says in its error.
values=(
    'a' '  a b c ' '"a b"' "'a b'" 'a"b"c' '"a"b' "'a'\"b\"' c'" 'a\b' 'a\\b' '"a\"b\\c\$d\`e\mf"' "'a\\b'"
    $'a \\\n  b' $'"a \\\n  b"' $'"a\nb"' $'\'a\nb\'' 'a # b' 'a;b' '#a' "a'b c" '"a' "a\\" 'a=b' '$HOME %i ${x}' 'ä'
    $'a\r' $'a\nexport NODEFWD_BALANCE=b' $'a\n# NODEFWD_BALANCE=b' $'a\n; NODEFWD_BALANCE=b' $'a\n NODEFWD_BALANCE = b'
    $'a\nNODEFWD-BALANCE=b' $'a\n1=b\nNODEFWD_BALANCE=c d'
)
inside bash -c 'printf "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nEnvironmentFile=/etc/nodefwd/value\nExecStart=cp /proc/self/environ /run/environ\n" >/run/systemd/system/environ.service'
inside systemctl daemon-reload
for value in "${values[@]}"; do
    # shellcheck disable=SC2016 # the inner shell fills it in
    inside bash -c 'printf "NODEFWD_BALANCE=%s\n" "$1" >/etc/nodefwd/value' bash "$value"
    inside systemctl start environ
    theirs=$(inside cat /run/environ | sed -zn 's/^NODEFWD_BALANCE=//p' | tr '\0\n' '\n~')
    ours=$(inside /usr/local/bin/nodefwd --env-file /etc/nodefwd/value tcp/80=10.0.0.5 2>&1 || true)
    ours=$(sed -n "s/^error: .* NODEFWD_BALANCE (--balance): '\(.*\)' is .*/\1/p" <<<"$ours" | sed 's/\\n/~/g')
    [[ $ours && ${theirs%"~"} == "$ours" ]] || die "of $(printf %q "$value") systemd makes '$theirs', nodefwd '$ours'"
done
inside rm /etc/nodefwd/value

step "writing metrics for node_exporter"
metrics=/var/lib/prometheus/node-exporter/nodefwd.prom
inside mkdir -p "${metrics%/*}"
as_written "$(commands deploy/README.md '## Metrics')"
# As in a pod: a network namespace and a host name of its own.
inside systemd-run --quiet --unit=pod unshare --net --uts sh -c 'hostname a-pod
    echo 1 >/proc/sys/net/ipv4/ip_forward && exec /usr/local/bin/nodefwd --name=in-pod tcp/80=10.0.0.5'
until_true inside grep -q 'nodefwd_instance_info{forwarder="in-pod",netns="a-pod"} 1' "$metrics"
inside grep -q 'nodefwd_instance_info{forwarder="web"} 1' "$metrics" || die "no metrics of the host: $(inside cat "$metrics")"
said=$(inside cat "$metrics" | promtool check metrics 2>&1) || said+=" (status $?)"
[[ -z $said ]] || die "promtool: $said"
[[ $(inside stat -c %a "$metrics") == 644 ]] || die "node_exporter cannot read $metrics"
said=$(inside systemd-analyze verify --man=no nodefwd-metrics.timer 2>&1) || said+=" (status $?)"
[[ -z $said ]] || die "systemd-analyze verify: $said"
inside systemctl stop pod
# Written again and again: without the pod, too.
until_true inside sh -c "! grep -q a-pod $metrics"
inside systemctl disable --quiet --now nodefwd-metrics.timer
inside rm /etc/systemd/system/nodefwd-metrics.{service,timer}

step "draining for longer than systemd's own timeout"
inside mkdir /run/systemd/system/nodefwd@web.service.d
inside bash -c 'printf "[Service]\nTimeoutStopSec=1\nEnvironment=NODEFWD_DRAIN=3600\n" >/run/systemd/system/nodefwd@web.service.d/drain.conf'
inside systemctl daemon-reload
inside systemctl restart nodefwd@web
coproc CLIENT { exec ip netns exec "$id-peer" socat STDIO TCP4:10.0.0.1:80 2>/dev/null; }
echo hello >&"${CLIENT[1]}"
read -r -t 60 <&"${CLIENT[0]}" || die "no reply"
inside systemctl stop --no-block nodefwd@web
until_true property_is StatusText 'draining: 1 connections*'
sleep 3
expect_property ActiveState deactivating
kill "$CLIENT_PID"
until_true property_is ActiveState inactive
expect_property Result success
[[ -z $(rules) ]] || die "the rules are still there: $(rules)"

step "booting with forwarding that is turned on late"
ip_forward() { ip netns exec "$id-node" sysctl "$@"; }
ip_forward -qw net.ipv4.ip_forward=0
mv "$files/etc/sysctl.d/90-nodefwd.conf" "$files"
reboot
until_true property_is NRestarts '[2-9]'
until_true property_is StatusText 'cannot forward: IPv4 forwarding is off: *'
expect_property StartLimitIntervalUSec 0
ip_forward -qw net.ipv4.ip_forward=1
until_true property_is ActiveState active
forwards || die "it does not forward once forwarding is on"

step "booting with forwarding from sysctl.d"
ip_forward -qw net.ipv4.ip_forward=0
mv "$files/90-nodefwd.conf" "$files/etc/sysctl.d"
reboot
until_true property_is ActiveState active
expect_property NRestarts 0
forwards || die "it does not forward after a boot"

step "wrong input"
inside systemctl stop nodefwd@web
inside bash -c 'echo NODEFWD_FORWARDS=tcp/99999=10.0.0.5 >/etc/nodefwd/web.env'
! inside systemctl start nodefwd@web 2>/dev/null || die "the service starts with wrong input"
expect_property SubState failed # it would be auto-restart
expect_property ExecMainStatus 2
expect_property StatusText '*99999*'

step "removing it as README says"
as_written "$(commands README.md '### Remove')"
left=$(inside find /etc /usr/local -name '*nodefwd*' ! -path '*completion*' ! -path '*site-functions*')
[[ -z $left ]] || die "these files are left: $left"
step "everything passed"
