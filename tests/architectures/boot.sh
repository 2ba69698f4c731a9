#!/usr/bin/env bash
# Boots Debian's kernel of an architecture in QEMU, with tests/architectures/init as its first process.
set -euo pipefail

# What the tests call.
guest_packages=(bash busybox conntrack coreutils diffutils grep iproute2 iptables kmod mount netbase nftables procps socat
    strace util-linux)

qemu=''
# By TERM, which `timeout` passes on.
end_qemu() { [[ -z $qemu ]] || kill "$qemu" 2>/dev/null || true; }

# machine_of ARCH: Debian's suite, its kernel's flavour, and what QEMU is called with. Some
# mirrors lack the newest packages of s390x and ppc64el: there it is Debian 12.
machine_of() {
    case $1 in
        arm64) echo 'trixie arm64 qemu-system-aarch64 -M virt -cpu cortex-a57 -append console=ttyAMA0' ;;
        armhf) echo 'trixie armmp qemu-system-arm -M virt -cpu cortex-a15 -append console=ttyAMA0' ;;
        riscv64) echo 'trixie riscv64 qemu-system-riscv64 -M virt -append console=ttyS0' ;;
        s390x) echo 'bookworm s390x qemu-system-s390x -M s390-ccw-virtio -append console=ttysclp0' ;;
        ppc64el) echo 'bookworm powerpc64le qemu-system-ppc64 -M pseries,x-vof=on -append console=hvc0' ;;
    esac
}

# make_guest ARCH SUITE FLAVOUR: a root file system with its kernel's modules for networks, packed.
make_guest() {
    local folder=$work/$1/guest root=$work/$1/guest/root kernel deb modules version
    rm -rf "$folder"
    mkdir -p "$root" "$folder/kernel"
    download_debian "$2" "$folder" "$1" "${guest_packages[@]}"
    for deb in "$folder"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --exclude='./usr/share/[dilm]*'
    done
    ln -sf bash "$root/bin/sh"
    kernel=$(apt-cache "${apt_options[@]}" depends "linux-image-$3" | sed -n '0,/Depends: /s/.*Depends: //p')
    (cd "$folder" && apt_get "${apt_options[@]}" download "$kernel")
    dpkg-deb --extract "$folder/$kernel"_*.deb "$folder/kernel"

    # With usr/lib in Debian 13, where lib is a link to it in the root file system.
    modules=$(find "$folder/kernel" -path '*/lib/modules/*' -prune)
    version=${modules##*/}
    mkdir -p "$root/lib/modules/$version"
    # Not every kernel has each of them.
    (cd "$modules" && cp --parents -r modules.{builtin,builtin.modinfo,order} kernel/{lib,crypto} kernel/arch/*/crypto \
        kernel/net/{802,8021q,bridge,core,ipv4,ipv6,netfilter,packet,sched,sctp,unix} kernel/drivers/net/{veth,dummy}.ko* \
        "$root/lib/modules/$version/" 2>/dev/null) || true
    find "$root/lib/modules/" -name '*.xz' -exec unxz {} +
    depmod --basedir "$root" "$version"
}

# boot ARCH: prints what the kernel and the tests print.
boot() {
    local arch=$1 suite flavour command folder=$work/$1/guest
    read -r suite flavour command < <(machine_of "$arch")
    [[ -e $folder/made ]] || { make_guest "$arch" "$suite" "$flavour" && touch "$folder/made"; }
    rm -rf "$folder/root/tests"
    cp -r "$work/$arch/tests" "$folder/root/tests"
    list_tests "$arch" >"$folder/root/tests/list"
    # This one, and that for files of tests, by the names that cargo compiled into them.
    printf '%s\n' "$PWD" "$work/$arch/$(properties_of "$arch" | cut -d' ' -f1)/tmp" >"$folder/root/tests/folders"
    install -m 755 tests/architectures/init "$folder/root/init"
    (cd "$folder/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$folder/initramfs"
    # shellcheck disable=SC2086 # several words
    timeout 7200 $command" quiet panic=-1" -smp 2 -m 2048 -display none -monitor none -no-reboot -serial stdio \
        -net none -kernel "$folder"/kernel/boot/vmlinu[xz]-* -initrd "$folder/initramfs" </dev/null &
    qemu=$!
    wait "$qemu" || echo "QEMU ended with status $?"
    qemu=''
}

# run_here ARCH: on this kernel, which runs such programs too.
run_here() {
    local program filter
    echo "booted: Linux $(uname -r) on $(uname -m), this machine's kernel"
    mkdir -p "$work/$1/$(properties_of "$1" | cut -d' ' -f1)/tmp"
    list_tests "$1" | while read -r program filter; do
        # shellcheck disable=SC2086 # several words
        RUST_TEST_THREADS=$((3 * $(nproc))) NODEFWD_BIN=$work/$1/tests/nodefwd env --default-signal=HUP,INT,QUIT \
            "$work/$1/tests/$program" $filter </dev/null && passed=1 || passed=0
        echo "ended: $passed $program $filter"
    done
}
