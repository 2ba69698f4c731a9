#!/usr/bin/env bash
# usage: tests/architectures.sh [--build | --brief] [ARCH…]
# Builds nodefwd and its tests for other architectures with Debian 13's cross compilers, boots Debian's own
# kernels for them in QEMU, without hardware support, and runs the tests there: unit tests and real packets
# between network namespaces. --brief runs a few of each kind; --build only builds. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/debian.sh
source tests/debian.sh
[[ $EUID -eq 0 ]] || die "the test makes chroots and network namespaces: run me as root"

depth=all
case ${1:-} in --build | --brief) depth=${1#--} && shift ;; esac
architectures=("$@")
[[ ${#architectures[@]} -gt 0 ]] || architectures=(arm64 armhf riscv64 s390x ppc64el i386)

# shellcheck disable=SC2034 # setup.sh reads it
packages=(debootstrap)
# shellcheck disable=SC2034
[[ $depth == build ]] || packages+=(qemu-system-arm qemu-system-misc qemu-system-ppc opensbi kmod cpio xz-utils)
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

work=$PWD/target/architectures
commit=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null) || commit=''
# shellcheck source=tests/architectures/boot.sh
source tests/architectures/boot.sh
trap end_qemu EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

SECONDS=0
step() { echo "$SECONDS s: $*"; }

# list_tests DEPTH: what is run, a line for each program and part of its tests' names. Left out are tests of
# scale, of memory, and of races: they are about no architecture, and take hours in a processor that is emulated,
# or longer than the program waits for another process (of several that replace one another, for one).
list_tests() {
    local filter filters=(forwarding::traffic forwarding::source_ranges forwarding::balance status::connections
        check::kernel::every_kind replace::starts::an_instance_that_drains lifecycle::start_and_stop)
    [[ $1 == brief ]] || filters=(forwarding:: status:: check:: replace:: lifecycle:: encoders:: conntrack::)
    echo 'unit --skip fuzz:: --skip many_ --skip contention --skip rejected'
    for filter in "${filters[@]}"; do
        echo "netns $filter --skip scale --skip at_any_moment --skip hundred --skip promtool --skip of_several"
    done
}

# --- Building -----------------------------------------------------------------------------------------

# properties_of ARCH: Rust's name of it, the machine and type in the ELF header. Those without glibc's part
# for position-independent static programs are of type EXEC.
properties_of() {
    case $1 in
        arm64) echo 'aarch64-unknown-linux-gnu DYN AArch64' ;;
        armhf) echo 'armv7-unknown-linux-gnueabihf EXEC ARM' ;;
        riscv64) echo 'riscv64gc-unknown-linux-gnu DYN RISC-V' ;;
        s390x) echo 's390x-unknown-linux-gnu EXEC IBM S/390' ;;
        ppc64el) echo 'powerpc64le-unknown-linux-gnu EXEC PowerPC64' ;;
        i386) echo 'i686-unknown-linux-gnu DYN Intel 80386' ;;
        *) die "unknown architecture: $1" ;;
    esac
}

# in_builder ARCH CARGO-ARGUMENT…
in_builder() {
    local log=$work/$1.log
    in_debian "$work/builder" env CARGO_TARGET_DIR="/nodefwd/target/architectures/$1" CARGO_PROFILE_DEV_DEBUG=0 \
        NODEFWD_COMMIT="$commit" deploy/cross.sh "$@" >"$log" 2>&1 || die "'cargo ${*:2}' for $1 failed: $(tail -n 30 "$log")"
}

# build ARCH: the release as $work/ARCH/tests/nodefwd, and the tests beside it.
build() {
    local arch=$1 properties target kind machine header program limit
    properties=$(properties_of "$arch")
    read -r target kind machine <<<"$properties"
    step "$arch: building the release"
    # As in the image: the scripts of `nodefwd completions` are files beside the program elsewhere.
    in_builder "$arch" build --release --locked --no-default-features --features static
    mkdir -p "$work/$arch/tests"
    cp "$work/$arch/$target/release/nodefwd" "$work/$arch/tests/"
    header=$(readelf --wide --file-header --dynamic --program-headers "$work/$arch/tests/nodefwd")
    [[ ! $header =~ NEEDED|INTERP ]] || die "$arch: not static: $(grep -E 'NEEDED|INTERP' <<<"$header")"
    [[ $header == *Type:*"$kind ("*Machine:*"$machine"* ]] || die "$arch: not of type $kind for $machine: $header"
    size=$(stat -c %s "$work/$arch/tests/nodefwd")
    # The code of these two is larger by a fifth.
    [[ $arch == s390x || $arch == ppc64el ]] && limit=2560 || limit=2048
    ((size <= limit * 1024)) || die "$arch: the program takes $size bytes; $limit KiB are allowed"
    [[ $depth != build ]] || return 0

    step "$arch: building the tests"
    in_builder "$arch" test --no-run --locked --lib --test netns
    while read -r program; do
        case $program in
            */netns-*) cp "${program#/nodefwd/}" "$work/$arch/tests/netns" ;;
            *) cp "${program#/nodefwd/}" "$work/$arch/tests/unit" ;;
        esac
    done < <(sed -n 's/.*Executable .*(\(.*\))/\1/p' "$work/$arch.log")
}

# --- Testing ------------------------------------------------------------------------------------------

# judge FILE: every set of tests must have passed, and have run at least one.
judge() {
    local sets passed
    sets=$(list_tests "$depth" | wc -l)
    [[ $(grep -c '^ended: 1 ' "$1") == "$sets" && ! $(<"$1") == *'ok. 0 passed'* ]] ||
        die "not all tests passed: $(tail -n 200 "$1")"
    passed=$(awk '/^test result: ok/ { passed += $4 } END { print passed }' "$1")
    row+="$passed passed in $((SECONDS - began)) s on $(sed -n 's/^booted: //p' "$1" | tr -d '\r')"
}

if [[ ! -e $work/builder/built ]]; then
    step "making a Debian 13 to build in"
    rm -rf --one-file-system "$work/builder"
    mkdir -p "$work"
    make_debian "$work/builder"
    touch "$work/builder/built"
fi
table=()
for arch in "${architectures[@]}"; do
    began=$SECONDS
    build "$arch"
    row="$arch: $size bytes"
    if [[ $depth != build ]]; then
        row+=", "
        step "$arch: testing"
        if [[ $arch == i386 ]]; then run_here i386; else boot "$arch"; fi >"$work/$arch.tests" 2>&1
        judge "$work/$arch.tests"
    fi
    table+=("$row")
    step "$row"
done
printf '\n%s, commit %s\n' "$(date -u +%F)" "${commit:0:12}"
printf '%s\n' "${table[@]}"
