#!/usr/bin/env bash
# Debian in a folder, from wherever this machine gets its packages; for scripts that have sourced setup.sh.
set -euo pipefail

# Prints the address of that mirror.
debian_mirror() {
    local folder
    folder=$(mktemp -d)
    use_suite trixie "$folder" >&2
    sed -n 's/.*\] \([^ ]*\) trixie main$/\1/p;q' "$folder/sources.list"
    rm -r "$folder"
}

# make_debian FOLDER [SUITE [PACKAGE,…]]: a small system, which trusts the certificates that this machine trusts;
# Debian 13 unless the suite is another's.
make_debian() {
    local said
    said=$(debootstrap --variant=minbase --include="ca-certificates${3:+,$3}" "${2:-trixie}" "$1" "$(debian_mirror)" 2>&1) ||
        die "debootstrap failed: $(tail -n 30 <<<"$said")"
    cp -r /usr/local/share/ca-certificates/. "$1/usr/local/share/ca-certificates/"
    env -u TMPDIR chroot "$1" update-ca-certificates >/dev/null
}

# in_debian FOLDER COMMAND…: runs it there, in this repository as /nodefwd. What is mounted for it is
# gone when it ends, since nobody else sees it.
in_debian() {
    # shellcheck disable=SC2016 # the inner shell fills them in
    unshare --mount --propagation private bash -euc '
        mkdir -p "$0/nodefwd"
        mount --bind . "$0/nodefwd"
        mount -t proc proc "$0/proc"
        mount --rbind /dev "$0/dev"
        cp -L /etc/resolv.conf "$0/etc/resolv.conf" 2>/dev/null || true
        exec env -u CARGO_BUILD_TARGET -u RUSTUP_HOME -u RUSTUP_TOOLCHAIN -u CARGO_TARGET_DIR -u TMPDIR \
            CARGO_HOME=/cargo PATH=/usr/sbin:/usr/bin chroot "$0" sh -euc '\''cd /nodefwd; exec "$@"'\'' sh "$@"
    ' "$@"
}

# download_debian SUITE FOLDER ARCH PACKAGE…: the packages of an architecture and all that they need, without
# those of this machine. It leaves the options for apt in apt_options.
download_debian() {
    local folder
    folder=$(realpath "$2")
    apt_options=(
        -o APT::Architecture="$3" -o APT::Architectures="$3"
        -o Dir::State="$folder" -o Dir::State::Status="$folder/status"
    )
    : >"$folder/status"
    use_suite "$1" "$folder" "${apt_options[@]}"
    apt_get "${apt_options[@]}" install -y --no-install-recommends --download-only "${@:4}"
}
