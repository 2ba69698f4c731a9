# shellcheck shell=bash
# Stock Debian kernels, and how to boot them: for tests/kernels.sh and benches/kernels.sh, after tests/setup.sh.
# The guest sees this machine's files read-only, with a file system in memory over them: only the kernel is
# another. Without KVM, since naming it hangs where nested virtualisation is only half there: a test takes ten to
# twenty times as long as outside.
[[ $EUID -eq 0 ]] || die "QEMU reads this machine's files, and the guest's processes are root's: run me as root"
packages=(qemu-system-x86 kmod cpio xz-utils "${guest_packages[@]}")
mapfile -t missing < <(missing_packages)
# Debian starts the servers that it installs, which nobody needs here.
[[ ${#missing[@]} -eq 0 ]] || RUNLEVEL=1 install_packages "${missing[@]}"

declare -A suites=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [sid]=sid)

# Kernels that were downloaded and unpacked stay there.
work=$(realpath -m "${CARGO_TARGET_DIR:-target}/kernels")
# What executes the guest.
emulator=(-accel tcg,thread=multi -smp 2)
# How many seconds a guest may take for all of its work.
limit=${NODEFWD_KERNEL_SECONDS:-14400}

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

# fill_initramfs VERSION: busybox, and the modules that mount the host's files.
fill_initramfs() {
    local module count=10
    mkdir -p initramfs.tree/modules
    find tree -path '*/bin/busybox' -type f -exec cp {} initramfs.tree/ \;
    for module in virtio_pci 9pnet_virtio 9p overlay; do
        modprobe --dirname "$PWD" --set-version "$1" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >loaded
    while read -r module; do # in this order
        cp "$module" "initramfs.tree/modules/$((count++))-${module##*/}"
    done <loaded
}

# bring KERNEL: makes $work/KERNEL/{lib/modules,initramfs.tree,vmlinuz}, once.
bring() (
    [[ ! -e $work/$1/vmlinuz ]] || exit 0
    announce "a kernel of Debian ${suites[$1]} in $work/$1"
    rm -rf "${work:?}/$1"
    mkdir -p "$work/$1"
    use_suite "${suites[$1]}" "$work/$1/apt"
    cd "$work/$1"
    image=$(dependencies linux-image-amd64 'linux-image-.*')
    # Newer ones have the kernel itself, the modules, and the lists of modules in packages of their own.
    mapfile -t parts < <(dependencies "$image" 'linux-\(base\|binary\|modules\)-.*')
    unpack busybox-static "$image" "${parts[@]}"
    shopt -s nullglob
    modules=(tree/lib/modules/* tree/usr/lib/modules/*)
    version=${modules[0]##*/}
    vmlinuz=(tree/boot/vmlinuz-* "${modules[0]}"/vmlinuz)
    pick_modules "${modules[0]}" "lib/modules/$version"
    depmod --basedir "$PWD" "$version"
    fill_initramfs "$version"
    cp "${vmlinuz[0]}" new
    rm -rf tree apt
    mv new vmlinuz # the last step
)

# boot KERNEL: runs $work/job in the guest; shows what it says, which stays in $work/KERNEL/said, and fails if it
# does, or if the kernel warns. Not for a subshell, which would outlive the script.
boot() {
    local folder=$work/$1 said
    said=$folder/said
    install tests/kernels/init "$folder/initramfs.tree/init"
    (cd "$folder/initramfs.tree" && find . | cpio --quiet -oH newc | gzip -1) >"$folder/initramfs"
    # The guest ends with this script, whatever ends that. NX, SMEP and the like of the emulated processor cost
    # time only; on a busy machine the kernel takes its timer for broken, and 5.10 then does not boot. Of the memory,
    # nft takes 3 GB for the 6,000 tables of one test.
    setpriv --pdeathsig TERM timeout --foreground "$limit" qemu-system-x86_64 \
        "${emulator[@]}" -cpu max -m 6144 -nodefaults \
        -display none -monitor none -no-reboot -serial stdio -kernel "$folder/vmlinuz" -initrd "$folder/initramfs" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check nodefwd.tests=$PWD/tests \
nodefwd.modules=$(echo "$folder"/lib/modules/*) nodefwd.job=$work/job" </dev/null | stdbuf -o0 tr -d '\r' | tee "$said"
    [[ $(tail -n 3 "$said") == *'guest: 0'* ]]
}
