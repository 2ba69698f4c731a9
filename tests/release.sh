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
# shellcheck source=tests/nspawn.sh
source tests/nspawn.sh
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
    CARGO_HOME=/another-cargo CARGO_INSTALL_ROOT=/nodefwd/target/dist-tools deploy/release.sh "$@"' sh "${architectures[@]}" >"$files/log" 2>&1 || die "$(tail -n 30 "$files/log")"
cmp target/dist/SHA256SUMS "$builder/another folder/target/dist/SHA256SUMS" ||
    die "the release depends on the folder that it is made in"
(cd target/dist && sha256sum --quiet --check SHA256SUMS)
[[ $(wc -l <target/dist/SHA256SUMS) == $((3 * ${#architectures[@]})) ]] || die "SHA256SUMS should list a tarball, a package and a bill of each"
for arch in "${architectures[@]}"; do
    [[ -e target/dist/nodefwd-$version-$arch.tar.gz ]] || die "there is no tarball for $arch"
    grep -q '"name": "libnftnl"' "target/dist/nodefwd-$version-$arch.cdx.json" || die "there is no bill of materials for $arch"
    [[ $(dpkg-deb --field "target/dist/nodefwd_${version}_$arch.deb" Architecture) == "$arch" ]] || die "the package for $arch is for another"
done
step "lintian"
lintian --fail-on error target/dist/*.deb >"$files/log" 2>&1 || die "lintian: $(<"$files/log")"

# --- Installing ---------------------------------------------------------------------------------------

mkdir "$files/packages"
cp "target/dist/nodefwd_${version}_$here.deb" "$files/packages/old.deb"
dpkg-deb --raw-extract "$files/packages/old.deb" "$files/newer"
sed -i "s/^Version: .*/Version: $version+newer/" "$files/newer/DEBIAN/control"
dpkg-deb --root-owner-group --build "$files/newer" "$files/packages/newer.deb" >/dev/null

apt() { inside env DEBIAN_FRONTEND=noninteractive "$@" >"$files/log" 2>&1 || die "'$*' failed: $(<"$files/log")"; }
main_pid() { inside systemctl show --property=MainPID --value nodefwd@web; }

for suite in bookworm trixie; do
    step "$suite: booting"
    make_debian "$files/$suite" "$suite" systemd-sysv,dbus
    make_network
    boot multi-user.target --directory="$files/$suite" --bind-ro="$files/packages:/nodefwd"
    # What a start and stop of the system itself leaves is no matter of the package.
    files_of() { inside find / -xdev \( -path /nodefwd -o -path /proc -o -path /sys -o -path /run -o -path /var/log -o -path /tmp -o -path /var/tmp \) -prune -o -name '*nodefwd*' -print; }

    step "$suite: installing"
    apt dpkg -i /nodefwd/old.deb
    # shellcheck disable=SC2016
    inside sh -euc 'echo NODEFWD_FORWARDS=tcp/80=10.0.0.5:8080 >/etc/nodefwd/web.env; systemctl enable --now nodefwd@web' 2>/dev/null ||
        die "the service does not start: $(journal)"
    coproc CLIENT { exec ip netns exec "$id-peer" socat STDIO TCP4:10.0.0.1:80 2>/dev/null; }
    client=$CLIENT_PID
    talks() {
        echo "$1" >&"${CLIENT[1]}"
        read -r -t 30 reply <&"${CLIENT[0]}" && [[ $reply == "$1" ]] || die "$suite: the connection has ended: $1"
    }
    talks installed

    step "$suite: upgrading"
    before=$(main_pid)
    apt dpkg -i /nodefwd/newer.deb
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
    rm -rf --one-file-system "${files:?}/$suite"
done
step "everything passed"
ls -l target/dist
