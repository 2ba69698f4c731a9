#!/bin/sh
# usage: deploy/cross.sh ARCH CARGO-ARGUMENT…
# Installs on this Debian 13 what builds for ARCH, Debian's name or a container platform's, and runs cargo
# with it. As root: for a container's builder or a chroot, not for a machine that somebody uses.
set -eu

arch=$1
shift
case $arch in
    amd64) triplet=x86_64-linux-gnu ;;
    arm64 | arm64v8) arch=arm64 triplet=aarch64-linux-gnu ;;
    armhf | armv7) arch=armhf triplet=arm-linux-gnueabihf target=armv7-unknown-linux-gnueabihf ;;
    riscv64) triplet=riscv64-linux-gnu target=riscv64gc-unknown-linux-gnu ;;
    ppc64el | ppc64le) arch=ppc64el triplet=powerpc64le-linux-gnu ;;
    s390x) triplet=s390x-linux-gnu ;;
    i386 | 386) arch=i386 triplet=i386-linux-gnu compiler=i686-linux-gnu target=i686-unknown-linux-gnu ;;
    *) echo "cross.sh: no idea how to build for $arch" >&2 && exit 2 ;;
esac
compiler=${compiler:-$triplet}
target=${target:-${triplet%-linux-gnu}-unknown-linux-gnu}

# Downloads nothing if all is there.
install() {
    dpkg-query -W "$@" >/dev/null 2>&1 && return
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

install ca-certificates cargo gcc libc6-dev libmnl-dev libnftnl-dev pkg-config
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    # The libraries are unpacked, not installed: that would take the C library of both architectures in the
    # very same version, which a mirror does not always have.
    install "gcc-$(echo "$compiler" | tr _ -)" "libc6-dev-$arch-cross"
    if [ ! -e "/usr/lib/$triplet/libnftnl.a" ]; then
        dpkg --add-architecture "$arch"
        apt-get -qq update
        debs=$(mktemp -d)
        (cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download \
            "libstd-rust-dev:$arch" "libmnl-dev:$arch" "libnftnl-dev:$arch")
        for deb in "$debs"/*.deb; do dpkg-deb --extract "$deb" /; done
        rm -r "$debs"
    fi
    linker=CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER
    export "$linker=$compiler-gcc" PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR="/usr/lib/$triplet/pkgconfig"
fi
# Debian's cargo does not know "host-tuple", which .cargo/config.toml uses: cargo 1.91 and later do.
export CARGO_BUILD_TARGET="$target"
cargo "$@"
