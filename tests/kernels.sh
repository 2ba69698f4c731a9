#!/usr/bin/env bash
# Boots stock Debian kernels in QEMU and runs the end-to-end tests of tests/netns in them. The guest sees
# this machine's files read-only, with a file system in memory over them: only the kernel is another.
#
#   tests/kernels.sh [KERNEL…] [-- ARGUMENT…]   a KERNEL is 5.10, 6.1, 6.12 or sid (Debian's newest);
#                                               default, and `all`: all of them
#
# The arguments after -- go to the test binary: parts of tests' names, --skip. With
# NODEFWD_TEST_FAST_PATH=auto all tests run with the fast path on. Without KVM, since naming
# it hangs where nested virtualisation is only half there: a test takes ten to twenty times as long as
# outside. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $EUID -eq 0 ]] || die "QEMU reads this machine's files, and the guest's tests run as root: run me as root"
packages=(qemu-system-x86 kmod cpio xz-utils wireguard-tools)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

declare -A suites=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [sid]=sid)
kernels=()
while [[ $# -gt 0 && $1 != -- ]]; do
    [[ $1 == all || ${suites[$1]:-} ]] || die "there is no kernel '$1' here: 5.10, 6.1, 6.12, sid, or all"
    kernels+=("$1")
    shift
done
[[ $# -eq 0 ]] || shift
[[ ${#kernels[@]} -gt 0 && ${kernels[0]} != all ]] || kernels=(5.10 6.1 6.12 sid)

# Kernels that were downloaded and unpacked stay there.
work=$(realpath -m "${CARGO_TARGET_DIR:-target}/kernels")
# How many seconds a guest may take for all of its tests.
limit=${NODEFWD_KERNEL_SECONDS:-3600}

# The modules that the tests and the guest's file system need.
wanted='^kernel/(net|lib|crypto|arch/[^/]*/crypto|fs/(9p|netfs|fscache|overlayfs)|drivers/virtio)/'
wanted+='|^kernel/drivers/net/([^/]*|wireguard/.*)$'

# unpack PACKAGE…: downloads packages, and unpacks them in ./tree.
unpack() {
    local package
    for package in "$@"; do
        apt_get "${apt_options[@]}" download "$package"
        dpkg -x "$package"_*.deb tree
        rm "$package"_*.deb
    done
}

# dependencies PACKAGE PATTERN: the packages that it depends on, of those whose names match.
dependencies() {
    apt-cache "${apt_options[@]}" depends "$1" | sed -n "s/^ *Depends: \($2\)/\1/p"
}

# pick_modules FROM TO: copies the wanted modules, unpacked, as this machine's kmod may not read xz.
pick_modules() {
    mkdir -p "$2"
    (cd "$1" && find kernel -name '*.ko*' | grep -E "$wanted" &&
        printf '%s\n' modules.builtin modules.builtin.modinfo modules.order) >wanted
    tar -C "$1" -cT wanted | tar -C "$2" -x
    find "$2" -name '*.ko.xz' -exec xz -d {} +
}

# make_initramfs VERSION: with busybox, tests/kernels/init, and what mounts the host's files.
make_initramfs() {
    local module count=10
    mkdir -p initramfs.tree/modules
    find tree -path '*/bin/busybox' -type f -exec cp {} initramfs.tree/ \;
    install "$OLDPWD/tests/kernels/init" initramfs.tree/init
    for module in virtio_pci 9pnet_virtio 9p overlay; do
        modprobe --dirname "$PWD" --set-version "$1" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >loaded
    while read -r module; do # in this order
        cp "$module" "initramfs.tree/modules/$((count++))-${module##*/}"
    done <loaded
    (cd initramfs.tree && find . | cpio --quiet -oH newc | gzip -1) >initramfs.gz
}

# bring KERNEL: makes $work/KERNEL/{vmlinuz,lib/modules,initramfs}, once.
bring() (
    [[ ! -e $work/$1/initramfs ]] || exit 0
    announce "a kernel of Debian ${suites[$1]} in $work/$1"
    rm -rf "${work:?}/$1"
    mkdir -p "$work/$1"
    use_suite "${suites[$1]}" "$work/$1/apt"
    cd "$work/$1"
    image=$(dependencies linux-image-amd64 'linux-image-.*')
    # Newer ones have the modules and the kernel itself in packages of their own.
    mapfile -t parts < <(dependencies "$image" 'linux-\(binary\|modules\)-.*')
    unpack busybox-static "$image" "${parts[@]}"
    shopt -s nullglob
    modules=(tree/lib/modules/* tree/usr/lib/modules/*)
    version=${modules[0]##*/}
    vmlinuz=(tree/boot/vmlinuz-* "${modules[0]}"/vmlinuz)
    cp "${vmlinuz[0]}" vmlinuz
    pick_modules "${modules[0]}" "lib/modules/$version"
    depmod --basedir "$PWD" "$version"
    make_initramfs "$version"
    rm -rf tree apt
    mv initramfs.gz initramfs
)

# boot KERNEL: runs the job in the guest; shows what it says, and fails if a test does.
boot() {
    local folder=$work/$1 said
    said=$folder/said
    # NX, SMEP and the like of the emulated processor cost time only.
    timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nodefaults \
        -display none -monitor none -no-reboot -serial stdio -kernel "$folder/vmlinuz" -initrd "$folder/initramfs" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nodefwd.tests=$PWD/tests \
nodefwd.modules=$(echo "$folder"/lib/modules/*) nodefwd.job=$work/job" </dev/null | stdbuf -oL tr -d '\r' | tee "$said"
    [[ $(tail -n 3 "$said") == *'guest: 0'* ]]
}

cargo build --release --locked
built=$(cargo test --locked --no-run --test netns --message-format=json 2>/dev/null)
tests=$(sed -n 's/.*"executable":"\([^"]*\/netns-[^"]*\)".*/\1/p' <<<"$built")
[[ -x $tests ]] || die "cargo does not say what it built of tests/netns"
mkdir -p "$work"
fast_path=${NODEFWD_TEST_FAST_PATH:+NODEFWD_TEST_FAST_PATH=$NODEFWD_TEST_FAST_PATH}
printf 'NODEFWD_BIN=%q RUST_BACKTRACE=0 %s %q' "$release_binary" "$fast_path" "$tests" >"$work/job"
printf ' %q' --color=never --test-threads=2 "$@" >>"$work/job"

failed=()
for kernel in "${kernels[@]}"; do
    bring "$kernel"
    boot "$kernel" || failed+=("$kernel")
done
[[ ${#failed[@]} -eq 0 ]] || die "tests failed on ${failed[*]}"
