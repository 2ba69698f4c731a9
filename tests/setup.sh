#!/usr/bin/env bash
# Installs what a fresh Debian 12 or 13 lacks to build and test nodefwd and to run the demo; needs root
# only if something is missing. Scripts that source it are then at the top of the repository, and have:
# die, CARGO_BUILD_TARGET (exported) and release_binary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
    gcc libc6-dev pkg-config libmnl-dev libnftnl-dev ca-certificates                       # building
    binutils iproute2 netbase nftables iptables conntrack procps groff-base strace python3 haproxy # testing
    libcap2-bin                                                                            # setcap, for a test
    busybox socat                                                                          # the demo's servers
)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

need_root() {
    [[ $EUID -eq 0 ]] || die "this machine lacks $1: run me as root once"
}

announce() {
    need_root "$1"
    echo "${0##*/}: installing $1" >&2
}

# Shows apt's output only if it fails.
apt_get() {
    local said
    said=$(DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" 2>&1 </dev/null) ||
        die "'apt-get $*' failed: $said"
}

install_packages() {
    announce "$*"
    apt_get update
    apt_get install --no-install-recommends -y "$@"
}

missing_packages() {
    local states package
    # dpkg-query fails for an unknown package, and still lists the others.
    states=$(dpkg-query -Wf '${db:Status-Status}=${Package} ' "${packages[@]}" 2>/dev/null) || true
    for package in "${packages[@]}"; do
        [[ " $states" == *" installed=$package "* ]] || echo "$package"
    done
}

have_static_libmnl() {
    [[ -e /usr/local/lib/libmnl.a || $(dpkg -L libmnl-dev) == */libmnl.a* ]]
}

# use_suite SUITE DIR [OPTION…]: sets apt_options, with which apt sees that suite of Debian alone, from where
# this machine gets its own, and keeps all that it downloads in DIR. Brings the list of packages up to date.
use_suite() {
    local dir codename sources
    dir=$(realpath -m "$2")
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    list_sources() {
        # shellcheck disable=SC2016 # apt fills these in
        apt-get indextargets 'Created-By: Packages' "Codename: $codename" 'Component: main' --format \
            'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg target=Packages] $(REPO_URI) '"$1 main"
    }
    sources=$(list_sources "$1")
    if [[ -z $sources ]]; then # apt knows its sources' code names only after an update
        apt_get update
        sources=$(list_sources "$1")
    fi
    [[ $sources ]] || die "apt does not say where this machine gets Debian from, so $1 cannot be had"
    mkdir -p "$dir"/{lists,archives}/partial
    sort -u <<<"$sources" >"$dir/sources.list"
    apt_options=(
        "${@:3}" -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir" -o APT::Sandbox::User=root
    )
    apt_get "${apt_options[@]}" update
}

# Debian 12's libmnl-dev has no static library, Debian 13's does.
install_static_libmnl() (
    announce "Debian 13's libmnl.a in /usr/local/lib"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    use_suite trixie "$dir"
    cd "$dir"
    apt_get "${apt_options[@]}" download libmnl-dev
    dpkg -x libmnl-dev_*.deb .
    install -Dm 644 usr/lib/*/libmnl.a /usr/local/lib/libmnl.a
)

# Only this program: the package would also start a service.
bring_promtool() (
    ! command -v promtool >/dev/null || return 0
    announce "promtool in /usr/local/bin"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    cd "$dir"
    apt_get update
    package=promtool # of its own in Debian 13, a part of another in Debian 12
    apt-cache show "$package" >/dev/null 2>&1 || package=prometheus
    apt_get -o APT::Sandbox::User=root download "$package"
    dpkg -x "$package"_*.deb .
    install usr/bin/promtool /usr/local/bin/promtool
)

# bring_nft SUITE: that release's nft as nft-SUITE in /usr/local/bin, run with its own C library and the rest,
# which are unpacked beside it.
bring_nft() (
    suite=$1 tree=/usr/local/lib/nft-$1
    ! command -v "nft-$suite" >/dev/null || return 0
    announce "nft-$suite in /usr/local/bin"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    use_suite "$suite" "$dir"
    cd "$dir"
    # apt downloads the version that is installed, unless none is.
    touch status
    apt_get "${apt_options[@]}" -o Dir::State::Status="$dir/status" download nftables libnftables1 libnftnl11 \
        libmnl0 libxtables12 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6 libc6
    rm -rf "$tree"
    for package in *.deb; do
        dpkg -x "$package" "$tree"
    done
    loaders=("$tree"/lib*/ld-linux* "$tree"/usr/lib*/ld-linux* "$tree"/lib/*/ld-linux* "$tree"/usr/lib/*/ld-linux*)
    for loader in "${loaders[@]}"; do
        [[ ! -x $loader ]] || break
    done
    libraries=$(find "$tree" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    # shellcheck disable=SC2016 # for the script itself
    printf '#!/bin/sh\nexec %s --library-path %s %s/usr/sbin/nft "$@"\n' "$loader" "$libraries" "$tree" >nft
    install nft "/usr/local/bin/nft-$suite"
)

# sudo hides the caller's Rust: look where rustup installs it, for root and for the caller.
find_cargo() {
    local home
    for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
        if ! command -v cargo >/dev/null && [[ -x $home/.cargo/bin/cargo ]]; then
            export PATH=$home/.cargo/bin:$PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
        fi
    done
    command -v cargo >/dev/null
}

install_cargo() {
    local needed=$1 offered
    need_root cargo
    apt_get update
    offered=$(apt-cache show --no-all-versions cargo 2>/dev/null | sed -n 's/^Version: //p') || true
    dpkg --compare-versions "$offered" ge "$needed" ||
        die "there is no cargo here, and Debian's own (${offered:-none}) is too old: install Rust $needed or newer"
    install_packages cargo rustfmt rust-clippy
}

# What builds it elsewhere: those libraries are shared ones, since hardly a distribution has them as archives.
packages_elsewhere() {
    local manager
    for manager in dnf zypper pacman apk; do
        ! command -v "$manager" >/dev/null || break
    done
    case $manager in
        dnf) echo "dnf install cargo gcc pkgconf-pkg-config libmnl-devel libnftnl-devel" ;;
        zypper) echo "zypper install cargo gcc pkg-config libmnl-devel libnftnl-devel" ;;
        pacman) echo "pacman -S --needed rust gcc pkgconf libmnl libnftnl" ;;
        apk) command -v apk >/dev/null && echo "apk add cargo gcc musl-dev pkgconf libmnl-dev libnftnl-dev" ;;
    esac
}
if ! command -v apt-get >/dev/null; then
    needed=$(packages_elsewhere) ||
        die "this is no Debian, which the tests need; to build nodefwd, install cargo, gcc, pkg-config, libmnl and libnftnl with their headers"
    die "this is no Debian, which the tests need; to build nodefwd here: $needed && cargo install --path . --no-default-features --features completions,names"
fi
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
have_static_libmnl || install_static_libmnl

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
find_cargo || install_cargo "$rust_needed"
rustc=$(rustc -vV)
rust_found=$(sed -n 's/^release: //p' <<<"$rustc")
dpkg --compare-versions "$rust_found" ge "$rust_needed" ||
    die "Rust $rust_found is too old: install Rust $rust_needed or newer"

# cargo before 1.91 does not know "host-tuple" in .cargo/config.toml; all know the host's own name.
export CARGO_BUILD_TARGET=${CARGO_BUILD_TARGET:-$(sed -n 's/^host: //p' <<<"$rustc")}
# shellcheck disable=SC2034 # for the scripts that source this
release_binary=$(realpath -m "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/release/nodefwd")
