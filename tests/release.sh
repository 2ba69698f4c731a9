#!/usr/bin/env bash
# usage: tests/release.sh [ARCH…]
# Makes the release in two folders, which must give the same bytes, and shows its packages to lintian. Then it installs
# this machine's in a Debian 12 and a Debian 13 with systemd, upgrades it while a connection runs, and removes and
# purges it. As root. Default: amd64, arm64 and armhf, twice, which takes some minutes each.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/debian.sh
source tests/debian.sh
[[ $EUID -eq 0 ]] || die "the test makes chroots and boots containers: run me as root"
# shellcheck disable=SC2034 # setup.sh reads it
packages=(debootstrap lintian systemd-container iproute2 nftables procps socat)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

architectures=("$@")
[[ ${#architectures[@]} -gt 0 ]] || architectures=(amd64 arm64 armhf)
here=$(dpkg --print-architecture)
[[ " ${architectures[*]} " == *" $here "* ]] || die "the packages are tried on this machine: $here should be one of them"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
id=nodefwd-release-$$
files=$(mktemp -d)
nspawn=''
# systemd needs version 2 of cgroups, which may be mounted next to version 1.
cgroup=$(findmnt -rnfo TARGET -t cgroup2)/$id

# end_container: with its network.
end_container() {
    local host pids tries
    [[ -z $nspawn ]] || { kill -KILL "$nspawn" && wait "$nspawn"; } 2>/dev/null || true
    for host in node peer; do
        pids=$(ip netns pids "$id-$host" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # one word each
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
        ip netns delete "$id-$host"
    done
    for tries in {1..100}; do
        find "$cgroup" /sys/fs/cgroup/*/"$id" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [[ -e $cgroup || -e /sys/fs/cgroup/systemd/$id ]] || break
        sleep 0.1
    done
}
cleanup() {
    end_container
    rm -rf --one-file-system "$files" "/run/systemd/nspawn/propagate/$id"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

SECONDS=0
step() { echo "$SECONDS s: $*"; }

# --- The same bytes -----------------------------------------------------------------------------------

builder=$PWD/target/release-builder
if [[ ! -e $builder/built ]]; then
    step "making a Debian 13 to build in"
    rm -rf --one-file-system "$builder"
    make_debian "$builder"
    touch "$builder/built"
fi
NODEFWD_COMMIT=$(git -c safe.directory='*' rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct)
export NODEFWD_COMMIT SOURCE_DATE_EPOCH
step "making the release for ${architectures[*]}"
in_debian "$builder" deploy/release.sh "${architectures[@]}" >"$files/log" 2>&1 || die "$(tail -n 30 "$files/log")"
step "making it in another folder"
# shellcheck disable=SC2016 # the inner shell fills it in
git -c safe.directory='*' ls-files -z | tar -c --null -T - | in_debian "$builder" sh -euc '
    rm -rf "/another folder" && mkdir "/another folder" && cd "/another folder"
    tar -x
    CARGO_HOME=/another-cargo deploy/release.sh "$@"' sh "${architectures[@]}" >"$files/log" 2>&1 || die "$(tail -n 30 "$files/log")"
cmp target/dist/SHA256SUMS "$builder/another folder/target/dist/SHA256SUMS" ||
    die "the release depends on the folder that it is made in"
(cd target/dist && sha256sum --quiet --check SHA256SUMS)
for arch in "${architectures[@]}"; do
    [[ -e target/dist/nodefwd-$version-$arch.tar.gz ]] || die "there is no tarball for $arch"
    [[ $(dpkg-deb --field "target/dist/nodefwd_${version}_$arch.deb" Architecture) == "$arch" ]] || die "the package for $arch is for another"
done
step "lintian"
lintian --fail-on error target/dist/*.deb >"$files/log" 2>&1 || die "lintian: $(<"$files/log")"

# --- Installing ---------------------------------------------------------------------------------------

cp "target/dist/nodefwd_${version}_$here.deb" "$files/nodefwd.deb"
dpkg-deb --raw-extract "$files/nodefwd.deb" "$files/newer"
sed -i "s/^Version: .*/Version: $version+newer/" "$files/newer/DEBIAN/control"
dpkg-deb --root-owner-group --build "$files/newer" "$files/newer.deb" >/dev/null

# boot SUITE: that Debian with systemd, between a network of its own and a peer (10.0.0.2, and 10.0.0.5 as destination).
boot() {
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
    (
        mkdir "$cgroup"
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
        exec systemd-nspawn --quiet --boot --directory="$files/$1" --register=no --keep-unit \
            --machine="$id" --console=pipe --network-namespace-path="/run/netns/$id-node" \
            --capability=CAP_NET_ADMIN --bind-ro="$files/nodefwd.deb:/old.deb" --bind-ro="$files/newer.deb:/newer.deb" \
            systemd.unit=multi-user.target
    ) >"$files/boot" 2>&1 </dev/null &
    nspawn=$!
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        ! inside systemctl is-active --quiet basic.target 2>/dev/null || return 0
        sleep 0.1
    done
    die "systemd does not boot: $(<"$files/boot")"
}

# inside COMMAND…: runs it in the container's namespaces; never on this machine, which has no /old.deb.
inside() {
    local pid
    for pid in $(ip netns pids "$id-node"); do
        ! grep -qs $'^NSpid:.*\t1$' "/proc/$pid/status" || break
    done
    # shellcheck disable=SC2016 # the inner shell fills it in
    nsenter --all --root --wd --target="${pid-}" -- sh -c '[ -e /old.deb ] && PATH=/usr/sbin:/usr/bin exec "$@"' sh "$@"
}
apt() { inside env DEBIAN_FRONTEND=noninteractive "$@" >"$files/log" 2>&1 || die "'$*' failed: $(<"$files/log")"; }
main_pid() { inside systemctl show --property=MainPID --value nodefwd@web; }

for suite in bookworm trixie; do
    step "$suite: booting"
    make_debian "$files/$suite" "$suite" systemd-sysv,dbus
    boot "$suite"
    # What a start and stop of the system itself leaves is no matter of the package.
    files_of() { inside find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /var/log -o -path /tmp -o -path /var/tmp \) -prune -o -name '*nodefwd*' -print; }

    step "$suite: installing"
    apt dpkg -i /old.deb
    # shellcheck disable=SC2016
    inside sh -euc 'echo NODEFWD_FORWARDS=tcp/80=10.0.0.5:8080 >/etc/nodefwd/web.env; systemctl enable --now nodefwd@web' 2>/dev/null ||
        die "the service does not start: $(inside journalctl --no-pager --unit='nodefwd@*')"
    coproc CLIENT { exec ip netns exec "$id-peer" socat STDIO TCP4:10.0.0.1:80 2>/dev/null; }
    client=$CLIENT_PID
    talks() {
        echo "$1" >&"${CLIENT[1]}"
        read -r -t 30 reply <&"${CLIENT[0]}" && [[ $reply == "$1" ]] || die "$suite: the connection has ended: $1"
    }
    talks installed

    step "$suite: upgrading"
    before=$(main_pid)
    apt dpkg -i /newer.deb
    [[ $(<"$files/log") == *"systemctl restart 'nodefwd@*'"* ]] || die "the upgrade should say what to restart: $(<"$files/log")"
    [[ $(inside dpkg-query -Wf '${Version}' nodefwd) == "$version+newer" ]] || die "the package is not the newer one"
    talks upgraded
    [[ $(main_pid) == "$before" ]] || die "the upgrade has restarted the forwarder"
    inside systemctl reload nodefwd@web || die "the old process cannot be reloaded"
    talks reloaded
    inside systemctl restart nodefwd@web
    kill "$client" 2>/dev/null || true

    step "$suite: removing and purging"
    apt dpkg -r nodefwd
    [[ -z $(ip netns exec "$id-node" nft list tables) ]] || die "$suite: rules are left"
    inside test -e /etc/nodefwd/web.env || die "$suite: removing the package has removed the administrator's file"
    apt dpkg -P nodefwd
    left=$(files_of | grep -v '/var/lib/dpkg/info/' || true)
    [[ -z $left ]] || die "$suite: these are left: $left"
    end_container
    nspawn=''
    rm -rf --one-file-system "${files:?}/$suite"
done
step "everything passed"
ls -l target/dist
