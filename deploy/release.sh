#!/usr/bin/env bash
# usage: deploy/release.sh [ARCH…]
# Makes what people download, in target/dist: for each architecture (default: amd64, arm64 and armhf) a tarball, a
# package for Debian and a bill of materials, and SHA256SUMS. The same commit gives the same bytes in any folder. As
# root, on a Debian 13 that nobody uses otherwise, such as a container: cross.sh installs compilers there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# bring PROGRAM: its package has the same name.
bring() {
    ! command -v "$1" >/dev/null || return 0
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >/dev/null
}

architectures=("$@")
[[ ${#architectures[@]} -gt 0 ]] || architectures=(amd64 arm64 armhf)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
if [[ ! ${NODEFWD_COMMIT:-} && -e .git ]]; then
    bring git
    NODEFWD_COMMIT=$(git -c safe.directory='*' rev-parse HEAD)
    SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct)
fi
export NODEFWD_COMMIT SOURCE_DATE_EPOCH
[[ ${NODEFWD_COMMIT:-} && ${SOURCE_DATE_EPOCH:-} ]] ||
    die "without the repository, set NODEFWD_COMMIT and SOURCE_DATE_EPOCH, the time of the commit"

dist=$PWD/target/dist
rm -rf "$dist"
mkdir -p "$dist"
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
umask 022

# archive FOLDER: the same bytes for the same files.
archive() {
    tar -C "$files" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -c "$1" | gzip -9n
}

# tarball ARCH PROGRAM
tarball() {
    local name=nodefwd-$version-$1
    mkdir "$files/$name"
    cp -r "$2" deploy/nodefwd@.service deploy/nodefwd.8 deploy/90-nodefwd.conf deploy/completions \
        README.md CHANGELOG.md LICENSE "$files/third-party.txt" "$files/$name"
    archive "$name" >"$dist/$name.tar.gz"
}

# control ARCH SIZE: what the package says of itself; its size in KiB.
control() {
    local sources
    sources=$(dpkg-query -Wf '${source:Package} (= ${source:Version}), ' libnftnl-dev libmnl-dev libc6-dev)
    sed "s/@VERSION@/$version/; s/@ARCH@/$1/; s/@SIZE@/$2/; s/@SOURCES@/${sources%, }/" deploy/debian/control
}

# package ARCH PROGRAM
package() {
    local root=$files/$1.deb doc=$files/$1.deb/usr/share/doc/nodefwd script size
    install -Ds --strip-program=true "$2" "$root/usr/bin/nodefwd"
    install -d "$root/etc/nodefwd" "$root/usr/lib/systemd/system" "$root/usr/share/man/man8" "$doc/examples"
    sed 's#/usr/local/bin/#/usr/bin/#' deploy/nodefwd@.service >"$root/usr/lib/systemd/system/nodefwd@.service"
    gzip -9n <deploy/nodefwd.8 >"$root/usr/share/man/man8/nodefwd.8.gz"
    install -Dm 644 deploy/completions/nodefwd.bash "$root/usr/share/bash-completion/completions/nodefwd"
    install -Dm 644 deploy/completions/nodefwd.fish "$root/usr/share/fish/vendor_completions.d/nodefwd.fish"
    install -Dm 644 deploy/completions/_nodefwd "$root/usr/share/zsh/vendor-completions/_nodefwd"
    install -Dm 644 deploy/debian/lintian-overrides "$root/usr/share/lintian/overrides/nodefwd"
    install -m 644 deploy/90-nodefwd.conf "$doc/examples"
    install -m 644 deploy/debian/copyright "$doc"
    gzip -9n <"$files/third-party.txt" >"$doc/third-party.gz"
    gzip -9n <CHANGELOG.md >"$doc/NEWS.gz"
    changelog | gzip -9n >"$doc/changelog.gz"
    install -d "$root/DEBIAN"
    for script in postinst prerm postrm; do install -m 755 "deploy/debian/$script" "$root/DEBIAN"; done
    # Not du's size, which depends on the file system.
    size=$(find "$root" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
    control "$1" "$size" >"$root/DEBIAN/control"
    dpkg-deb --root-owner-group --uniform-compression -Zxz --build "$root" "$dist/nodefwd_${version}_$1.deb" >/dev/null
}

# In Debian's own form; what is new is in NEWS.
changelog() {
    local maintainer
    maintainer=$(sed -n 's/^Maintainer: //p' deploy/debian/control)
    printf 'nodefwd (%s) unstable; urgency=medium\n\n  * NEWS.gz has what is new.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$(LC_ALL=C date -uR -d "@$SOURCE_DATE_EPOCH")"
}

# bill ARCH TARGET: of materials. licences.sh looks at all crates in cargo's folder: those of the tool are in another.
bill() {
    bring python3
    CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}-tools CARGO_INSTALL_ROOT=${CARGO_INSTALL_ROOT:-$PWD/target/dist-tools} \
        CARGO_BUILD_TARGET=$2 deploy/sbom.sh "$dist/nodefwd-$version-$1.cdx.json"
}

for arch in "${architectures[@]}"; do
    echo "${0##*/}: building for $arch" >&2
    export CARGO_TARGET_DIR=$PWD/target/dist-$arch
    deploy/cross.sh "$arch" build --release --locked
    programs=("$CARGO_TARGET_DIR"/*/release/nodefwd)
    deploy/licences.sh >"$files/third-party.txt"
    tarball "$arch" "${programs[0]}"
    package "$arch" "${programs[0]}"
    target=${programs[0]%/release/nodefwd}
    bill "$arch" "${target##*/}"
done
(cd "$dist" && sha256sum -- * >SHA256SUMS)
ls -l "$dist"
